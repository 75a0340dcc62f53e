//! The receiver is down, or is not: what counts as down, what waiting events go through, how they are
//! probed with, and what happens when nothing more can wait.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::event::{new_uuid, numbered};
use crate::support::journal::{Journal, terminate};
use crate::support::receiver::{Receiver, Reply, Seen, closed_gate, nobody, numbers_of};
use crate::support::record::LIMIT;
use crate::support::service::{Service, serve};
use serde_json::{Value, json};

/// Waits until so many events of this call were given up, and for what follows from the last one.
async fn given_up(service: &Service, uuid: &str, events: usize) {
    let ids = RefCell::new(HashSet::new());
    let last = |line: &Value| {
        if line["uuid"] == uuid && line["message"] == "webhook delivery failed" {
            ids.borrow_mut().insert(line["id"].to_string());
        }
        ids.borrow().len() == events
    };
    service.log_line(last).await;
    assert_eq!(service.get("/health").await.status, 200);
}

fn numbers(seen: &[Seen]) -> Vec<usize> {
    seen.iter().map(Seen::n).collect()
}

/// Answers the first requests with these statuses, one each, and all later ones with 200. A 0 never
/// answers.
async fn sick_at_first(statuses: &[u16]) -> Receiver {
    let (statuses, at) = (statuses.to_vec(), AtomicUsize::new(0));
    let script = move |_: &Seen| match statuses.get(at.fetch_add(1, Ordering::Relaxed)) {
        None => Reply::ok(),
        Some(0) => Reply::ok().after(Duration::from_secs(3600)),
        Some(status) => Reply::status(*status),
    };
    Receiver::start(script).await
}

#[tokio::test]
async fn timeouts_and_502_503_504_in_a_row_make_it_down() {
    for kind in [0, 502, 503, 504] {
        let receiver = sick_at_first(&[kind; 3]).await;
        let settings = [("WEBHOOK_BREAKER", "3"), ("WEBHOOK_TIMEOUT", "300")];
        let service = serve(&receiver.url, &settings).await;
        let uuid = new_uuid();
        for n in 0..5 {
            service.relay(numbered(&uuid, n)).await;
        }
        let seen = receiver.seen(5).await;
        assert_eq!(numbers(&seen), [0, 1, 2, 3, 4], "after {kind}");
        let pause = seen[3].at - seen[2].at;
        assert!(
            pause > Duration::from_millis(500),
            "the fourth is a probe: {pause:?} after {kind}"
        );
    }
}

#[tokio::test]
async fn the_kinds_of_failure_count_together() {
    let receiver = sick_at_first(&[502, 0, 503, 504]).await;
    let settings = [("WEBHOOK_BREAKER", "4"), ("WEBHOOK_TIMEOUT", "300")];
    let service = serve(&receiver.url, &settings).await;
    let uuid = new_uuid();
    for n in 0..6 {
        service.relay(numbered(&uuid, n)).await;
    }
    let seen = receiver.seen(6).await;
    let pause = seen[4].at - seen[3].at;
    assert!(pause > Duration::from_millis(500), "the fifth is a probe: {pause:?}");
}

/// If it were down before the end of these, the event in turn would be sent twice.
async fn never_down(statuses: &[u16], breaker: Option<&str>) {
    let receiver = sick_at_first(statuses).await;
    let settings: Vec<_> =
        breaker.map(|breaker| ("WEBHOOK_BREAKER", breaker)).into_iter().collect();
    let service = serve(&receiver.url, &settings).await;
    let uuid = new_uuid();
    for n in 0..=statuses.len() {
        service.relay(numbered(&uuid, n)).await;
    }
    let seen = receiver.seen(statuses.len() + 1).await;
    let expected: Vec<usize> = (0..=statuses.len()).collect();
    assert_eq!(numbers(&seen), expected, "{statuses:?}");
    let all = seen[statuses.len()].at - seen[0].at;
    assert!(all < Duration::from_millis(900), "without a pause: {all:?} for {statuses:?}");
}

#[tokio::test]
async fn any_answer_but_502_503_504_is_an_answer() {
    for status in [500, 501, 400, 401, 404, 408, 429, 302] {
        never_down(&[status; 8], Some("3")).await;
    }
}

#[tokio::test]
async fn five_in_a_row_is_the_default_and_an_answer_begins_the_count_anew() {
    for answer in [200, 500, 404] {
        never_down(&[503, 503, 503, 503, answer, 503, 503, 503, 503], None).await;
    }
    let receiver = sick_at_first(&[503; 5]).await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for n in 0..6 {
        service.relay(numbered(&uuid, n)).await;
    }
    let seen = receiver.seen(6).await;
    let pause = seen[5].at - seen[4].at;
    assert!(pause > Duration::from_millis(500), "the sixth is a probe: {pause:?}");
}

#[tokio::test]
async fn with_a_breaker_of_zero_it_is_never_down() {
    never_down(&[503; 12], Some("0")).await;
}

#[tokio::test]
async fn waiting_events_spend_no_attempts_on_probes_that_come_less_and_less_often() {
    let receiver = sick_at_first(&[503; 4]).await;
    let settings = [("WEBHOOK_BREAKER", "2"), ("WEBHOOK_RETRY", "2"), ("WEBHOOK_BACKOFF", "1")];
    let service = serve(&receiver.url, &settings).await;
    let uuid = new_uuid();
    service.relay(numbered(&uuid, 0)).await;
    service.relay(numbered(&uuid, 1)).await;
    for n in 3..=5 {
        receiver.seen(n).await; // each with a limit of its own
    }
    let seen = receiver.seen(6).await;
    // Two attempts, two probes and the one that was answered; three attempts are allowed.
    assert_eq!(numbers(&seen), [0, 0, 0, 0, 0, 1]);
    let pauses: Vec<u128> =
        seen.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    assert!(pauses[1] > 450, "the first probe comes after about 1 s: {pauses:?}");
    assert!(pauses[3] > pauses[1] * 5 / 4, "the delay grows: {pauses:?}");
}

#[tokio::test]
async fn one_probe_at_a_time_and_the_waiting_calls_take_turns() {
    let receiver = sick_at_first(&[503, 503, 0, 0]).await;
    let settings = [("WEBHOOK_BREAKER", "2"), ("WEBHOOK_TIMEOUT", "1000")];
    let service = serve(&receiver.url, &settings).await;
    let (first, calls) = (new_uuid(), [new_uuid(), new_uuid(), new_uuid()]);
    service.relay(numbered(&first, 0)).await;
    service.relay(numbered(&first, 1)).await;
    given_up(&service, &first, 2).await;
    for uuid in &calls {
        service.relay(numbered(uuid, 2)).await;
        service.relay(numbered(uuid, 3)).await;
    }
    let seen = receiver.seen(10).await;
    let probes: Vec<&str> = seen[2..5].iter().map(Seen::uuid).collect();
    assert_eq!(probes, calls, "two that time out, one that is answered");
    for uuid in &calls[..2] {
        assert_eq!(numbers_of(&seen, uuid), [2, 2, 3]);
    }
    assert_eq!(numbers_of(&seen, &calls[2]), [2, 3]);
    // The second probe may leave only when the first has timed out.
    let pause = seen[3].at - seen[2].at;
    assert!(pause > Duration::from_millis(900), "{pause:?}");
}

#[tokio::test]
async fn a_probe_that_is_answered_with_500_ends_the_outage() {
    let receiver = sick_at_first(&[503, 503, 500]).await;
    let service = serve(&receiver.url, &[("WEBHOOK_BREAKER", "2")]).await;
    let uuid = new_uuid();
    for n in 0..6 {
        service.relay(numbered(&uuid, n)).await;
    }
    let seen = receiver.seen(6).await;
    assert_eq!(numbers(&seen), [0, 1, 2, 3, 4, 5], "the probe's event was given up");
    let rest = seen[5].at - seen[2].at;
    assert!(rest < Duration::from_millis(900), "no pause after it: {rest:?}");
}

/// Nobody listens, then a receiver comes back on the same port.
async fn comes_back(retry: &str, lost: usize) {
    let (port, url) = nobody();

    let settings = [("WEBHOOK_RETRY", retry), ("WEBHOOK_BREAKER", "3"), ("WEBHOOK_BACKOFF", "1")];
    let service = serve(&url, &settings).await;
    let calls = [new_uuid(), new_uuid(), new_uuid()];
    for n in 0..8 {
        service.relay(numbered(&calls[0], n)).await;
    }
    if lost > 0 {
        given_up(&service, &calls[0], lost).await;
    } else {
        let third = |line: &Value| line["code"] == "ECONNREFUSED" && line["attempt"] == 3;
        service.log_line(third).await;
        assert_eq!(service.get("/health").await.status, 200);
    }
    for n in 0..8 {
        service.relay(numbered(&calls[1], n)).await;
        service.relay(numbered(&calls[2], n)).await;
    }
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let seen = receiver.seen(24 - lost).await;
    assert_eq!(numbers_of(&seen, &calls[0]), (lost..8).collect::<Vec<_>>(), "{retry} retries");
    for uuid in &calls[1..] {
        assert_eq!(numbers_of(&seen, uuid), (0..8).collect::<Vec<_>>(), "{retry} retries");
        assert_eq!(receiver.in_flight_peak_of(uuid), 1);
    }
    service.relay(numbered(&calls[0], 8)).await;
    assert_eq!(receiver.seen(25 - lost).await[24 - lost].n(), 8, "and it stays up");
}

#[tokio::test]
async fn all_events_arrive_in_order_when_the_receiver_is_back() {
    comes_back("9", 0).await;
}

#[tokio::test]
async fn without_retries_only_the_events_before_the_breaker_tripped_are_lost() {
    comes_back("0", 3).await;
}

#[tokio::test]
async fn a_receiver_that_goes_and_comes_back_gets_what_came_meanwhile() {
    let receiver = Receiver::content().await;
    let (port, url) = (receiver.port(), receiver.url.clone());
    let settings = [("WEBHOOK_BREAKER", "1"), ("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")];
    let service = serve(&url, &settings).await;
    let uuid = new_uuid();
    service.relay(numbered(&uuid, 0)).await;
    receiver.seen(1).await;
    receiver.stop().await;
    for n in 1..6 {
        service.relay(numbered(&uuid, n)).await;
    }
    service.log_line(|line| line["message"] == "webhook attempt failed").await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let mut seen = receiver.seen(5).await;
    if seen[0].n() == 0 {
        // It went before it had answered the first event, which therefore comes again.
        seen = receiver.seen(6).await.split_off(1);
    }
    assert_eq!(numbers(&seen), [1, 2, 3, 4, 5]);
}

/// Down, with one event lost and this many waiting.
async fn down_with(waiting: usize, limit: &str) -> (Service, u16, String) {
    let (port, url) = nobody();

    let service = serve(&url, &[("WEBHOOK_BREAKER", "1"), ("QUEUE_LIMIT", limit)]).await;
    let uuid = new_uuid();
    service.relay(numbered(&uuid, 0)).await;
    given_up(&service, &uuid, 1).await;
    for n in 1..=waiting {
        service.relay(numbered(&uuid, n)).await;
    }
    (service, port, uuid)
}

#[tokio::test]
async fn a_queue_that_fills_while_down_answers_503_with_retry_after() {
    let (service, port, uuid) = down_with(3, "3").await;
    service.post("/events", numbered(&uuid, 4).to_string()).await.assert_full();
    service.post("/events", numbered(&new_uuid(), 0).to_string()).await.assert_full();
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers(&receiver.seen(3).await), [1, 2, 3]);
    service.relay(numbered(&uuid, 5)).await;
    assert_eq!(numbers(&receiver.seen(4).await), [1, 2, 3, 5], "what was refused is not queued");
}

#[tokio::test]
async fn events_of_more_bytes_than_the_queue_may_hold_are_refused_until_there_is_room() {
    let (port, url) = nobody();
    let service = serve(&url, &[("WEBHOOK_BREAKER", "1"), ("QUEUE_BYTES", "5000")]).await;
    let event = |n: usize| {
        let payload = json!({ "n": n, "text": "x".repeat(2000) });
        json!({ "uuid": new_uuid(), "type": "transcription", "payload": payload }).to_string()
    };
    let post = async |n| service.post("/events", event(n)).await;
    let lost = new_uuid();
    service.relay(numbered(&lost, 0)).await;
    given_up(&service, &lost, 1).await;
    assert_eq!([post(1).await.status, post(2).await.status], [202, 202]);
    let full = post(3).await;
    assert_eq!((full.status, full.header("retry-after").is_some()), (503, true), "{full:?}");
    assert!(full.error().contains("QUEUE_BYTES=5000"), "{full:?}");
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers(&receiver.seen(2).await), [1, 2]);
    let taken = async { while post(4).await.status != 202 {} };
    assert!(tokio::time::timeout(LIMIT, taken).await.is_ok(), "there is room again");
}

#[tokio::test]
async fn an_array_that_does_not_fit_is_refused_as_a_whole() {
    let (service, port, uuid) = down_with(2, "4").await;
    let array = |range: std::ops::Range<usize>| {
        Value::from(range.map(|n| numbered(&uuid, n)).collect::<Vec<_>>()).to_string()
    };
    service.post("/events", array(10..13)).await.assert_full();
    assert_eq!(service.post("/events", array(3..5)).await.status, 202, "two do fit");
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers(&receiver.seen(4).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_pause_that_the_receiver_asked_for_is_no_outage() {
    let calls = [new_uuid(), new_uuid()];
    let at = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match at.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).header("retry-after", "1"),
        _ => Reply::ok(),
    })
    .await;
    let settings = [("WEBHOOK_RETRY", "1"), ("WEBHOOK_BREAKER", "1"), ("WEBHOOK_BACKOFF", "1")];
    let service = serve(&receiver.url, &settings).await;
    for uuid in calls.iter() {
        service.relay(numbered(uuid, 0)).await;
        service.relay(numbered(uuid, 1)).await;
    }
    let seen = receiver.seen(5).await;
    assert_eq!(numbers_of(&seen, &calls[0]), [0, 0, 1]);
    assert_eq!(numbers_of(&seen, &calls[1]), [0, 1]);
}

#[tokio::test]
async fn an_event_that_always_times_out_keeps_the_receiver_down_for_no_other() {
    let stuck = new_uuid();
    let script = stuck.clone();
    let receiver = Receiver::start(move |seen| match seen.uuid() == script {
        true => Reply::ok().after(Duration::from_secs(3600)),
        false => Reply::ok(),
    })
    .await;
    let settings = [("WEBHOOK_BREAKER", "1"), ("WEBHOOK_TIMEOUT", "300"), ("WEBHOOK_RETRY", "20")];
    let service = serve(&receiver.url, &settings).await;
    service.relay(numbered(&stuck, 0)).await;
    service.log_line(|line| line["message"] == "webhook attempt failed").await;
    let others = [new_uuid(), new_uuid()];
    for uuid in &others {
        service.relay(numbered(uuid, 0)).await;
    }
    service.log_line(|line| line["message"] == "receiver is back").await;
    let mut seen = receiver.seen(3).await;
    while !others.iter().all(|uuid| !numbers_of(&seen, uuid).is_empty()) {
        seen = receiver.seen(seen.len() + 1).await;
    }
}

#[tokio::test]
async fn a_receiver_that_takes_longer_than_the_timeout_is_slow_and_gets_all_events() {
    let (took, timeout) = (Duration::from_millis(700), "400");
    let receiver = Receiver::start(move |_| Reply::ok().after(took)).await;
    let settings = [("WEBHOOK_BREAKER", "1"), ("WEBHOOK_TIMEOUT", timeout)];
    let service = serve(&receiver.url, &settings).await;
    let (first, uuid) = (new_uuid(), new_uuid());
    service.relay(numbered(&first, 0)).await;
    given_up(&service, &first, 1).await;
    for n in 0..4 {
        service.relay(numbered(&uuid, n)).await;
    }
    let slow = service.log_line(|line| line["message"] == "receiver is slow").await;
    assert!(slow["took_ms"].as_u64() >= Some(700), "{slow}");
    assert_eq!(slow["timeout_ms"], 400, "{slow}");
    let last = |line: &Value| line["uuid"] == uuid && line["message"] == "webhook delivery failed";
    let mut seen = receiver.seen(5).await;
    while numbers_of(&seen, &uuid).last() != Some(&3) {
        seen = receiver.seen(seen.len() + 1).await;
    }
    assert!(!service.log_so_far().iter().any(last), "none is given up");
}

#[tokio::test]
async fn restarts_during_an_outage_cost_no_events() {
    let (journal, (port, url)) = (Journal::new(), nobody());
    let vars = [("WEBHOOK_BREAKER", "2")];
    let service = journal.serve(&url, &vars).await;
    let uuid = new_uuid();
    for n in 0..6 {
        service.relay(numbered(&uuid, n)).await;
    }
    given_up(&service, &uuid, 2).await;
    terminate(service).await;
    for _ in 0..3 {
        let service = journal.serve(&url, &vars).await;
        let probe = service.log_line(|line| line["message"] == "webhook attempt failed").await;
        assert_eq!(probe["probe"], true, "{probe}");
        let log = terminate(service).await;
        assert!(!log.contains("webhook delivery failed"), "{log}");
    }
    let _service = journal.serve(&url, &vars).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers(&receiver.seen(4).await), [2, 3, 4, 5]);
}

#[tokio::test]
async fn not_now_costs_no_attempt_and_one_event_goes_first_after_the_pause() {
    let (calls, gate) = ([new_uuid(), new_uuid(), new_uuid()], closed_gate());
    let (at, open) = (AtomicUsize::new(0), Arc::clone(&gate));
    let receiver = Receiver::start(move |_| match at.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).header("retry-after", "1"),
        1 => Reply::status(503).header("retry-after", "1"),
        2 => Reply::ok().when(&open),
        _ => Reply::ok(),
    })
    .await;
    let vars = [("WEBHOOK_BREAKER", "1"), ("WEBHOOK_CONCURRENCY", "1")];
    let service = serve(&receiver.url, &vars).await;
    for uuid in &calls {
        service.relay(numbered(uuid, 0)).await;
    }
    let seen = receiver.seen(3).await;
    for (nth, pair) in seen.windows(2).enumerate() {
        assert!(pair[1].at - pair[0].at > Duration::from_millis(900), "after pause {nth}");
    }
    gate.add_permits(1);
    let seen = receiver.seen(5).await;
    for uuid in &calls {
        assert_eq!(numbers_of(&seen[2..], uuid), [0], "each is delivered");
    }
    assert!(seen.iter().all(|seen| seen.header("x-avr-webhook-attempt") == Some("1")));
}

#[tokio::test]
async fn an_event_that_is_told_not_now_for_ever_while_others_arrive_is_given_up() {
    let (refused, other) = (new_uuid(), new_uuid());
    let script = refused.clone();
    let receiver = Receiver::start(move |seen| match seen.uuid() == script {
        true => Reply::status(429).header("retry-after", "0"),
        false => Reply::ok(),
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_BACKOFF", "1")]).await;
    service.relay(numbered(&refused, 0)).await;
    // Where more fails in a second than is told in full it is summed up.
    let is_dead = |line: &Value| {
        let in_full = line["uuid"] == refused && line["message"] == "webhook delivery failed";
        in_full || line["given_up"].as_u64() > Some(0)
    };
    let mut n = 0;
    while !service.log_so_far().iter().any(is_dead) {
        assert!(n < 2000, "it is never given up");
        service.relay(numbered(&other, n)).await;
        n += 1;
    }
    let seen = receiver.seen(n).await;
    assert!(numbers_of(&seen, &refused).len() > 10);
}
