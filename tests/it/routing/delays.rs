//! No receiver holds up a call: slow, silent, down, broken in each answer, or with a queue that is full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{announce, fallback_within, is_warning, relay, settled};
use crate::support::event::new_uuid;
use crate::support::receiver::{Receiver, Reply, closed_gate, nobody};
use crate::support::routing::{fallback, routed, serve};
use crate::support::service::Service;

#[tokio::test]
async fn routing_timeout_holds_over_all_attempts_together() {
    let never = || Reply::ok().after(Duration::from_secs(3600));
    let busy = || Reply::status(429).header("retry-after", "600");
    // Who knows that the next attempt comes too late may answer before the time is over.
    let cases = [
        (never(), 590, [("WEBHOOK_TIMEOUT", "20000"), ("WEBHOOK_BACKOFF", "1")]),
        (never(), 590, [("WEBHOOK_TIMEOUT", "200"), ("WEBHOOK_BACKOFF", "1")]),
        (Reply::status(500), 0, [("WEBHOOK_TIMEOUT", "200"), ("WEBHOOK_BACKOFF", "30000")]),
        (busy(), 0, [("WEBHOOK_TIMEOUT", "200"), ("WEBHOOK_BACKOFF", "1")]),
    ];
    for (reply, least, settings) in cases {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let usual = [("ROUTING_TIMEOUT", "600"), ("WEBHOOK_BREAKER", "0"), ("WEBHOOK_RETRY", "50")];
        let service = serve(&receiver.url, &[&usual[..], &settings[..]].concat()).await;
        let took = fallback_within(&service, &new_uuid()).await;
        let (least, most) = (Duration::from_millis(least), Duration::from_secs(3));
        assert!((least..most).contains(&took), "{took:?} with {settings:?}");
    }
}

#[tokio::test]
async fn routing_timeout_holds_also_behind_other_events_of_the_call() {
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3600))).await;
    let settings = [("ROUTING_TIMEOUT", "500"), ("WEBHOOK_TIMEOUT", "20000")];
    let service = serve(&receiver.url, &settings).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "call_started").await;
    assert!(fallback_within(&service, &uuid).await < Duration::from_secs(3));
}

#[tokio::test]
async fn a_call_waits_through_retries_for_its_decision() {
    let receiver = Receiver::start(|seen| match seen.header("x-avr-webhook-attempt") {
        Some("3") => Reply::route("ws://sts.test/third"),
        _ => Reply::status(500).body(r#"{"sts_url":"ws://sts.test/early"}"#),
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "2"), ("WEBHOOK_BACKOFF", "20")]).await;
    let answer = announce(&service, &new_uuid(), &json!({})).await;
    assert_eq!(answer.json(), routed("ws://sts.test/third"));
}

#[tokio::test]
async fn a_call_does_not_wait_on_for_an_event_that_was_given_up() {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let service = serve(&receiver.url, &[("ROUTING_TIMEOUT", "15000")]).await;
    assert!(fallback_within(&service, &new_uuid()).await < Duration::from_secs(5));
}

#[tokio::test]
async fn a_late_decision_is_ignored_and_logged_and_its_event_delivered_once() {
    let gate = closed_gate();
    let script = gate.clone();
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => Reply::route("ws://late.test/a").when(&script),
        _ => Reply::ok(),
    })
    .await;
    let settings =
        [("ROUTING_TIMEOUT", "300"), ("WEBHOOK_TIMEOUT", "15000"), ("WEBHOOK_RETRY", "3")];
    let service = serve(&receiver.url, &settings).await;
    let uuid = new_uuid();
    fallback_within(&service, &uuid).await;
    gate.add_permits(9);
    let late = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default().to_lowercase();
        line.to_string().contains(&uuid)
            && (message.contains("late") || message.contains("decision"))
    };
    service.log_line(late).await;
    assert_eq!(settled(&service, &receiver, &uuid).await, ["call_initiated", "call_ended"]);
    let again = announce(&service, &uuid, &json!({})).await;
    assert_eq!(again.json(), fallback(), "the call was told the fallback and stays with it");
}

/// A receiver that is down, and the port it may come back to.
async fn down(vars: &[(&str, &str)]) -> (Service, u16) {
    let (port, url) = nobody();
    let usual = [("WEBHOOK_BREAKER", "1"), ("ROUTING_TIMEOUT", "15000")];

    let service = serve(&url, &[&usual, vars].concat()).await;
    assert_eq!(relay(&service, &new_uuid(), "call_started").await.status, 202);
    service.log_line(|line| line["message"] == "webhook delivery failed").await;
    assert_eq!(service.get("/health").await.status, 200);
    (service, port)
}

#[tokio::test]
async fn while_the_receiver_is_down_a_call_is_answered_at_once_and_its_event_waits() {
    let (service, port) = down(&[]).await;
    let uuid = new_uuid();
    assert!(fallback_within(&service, &uuid).await < Duration::from_secs(3));
    let start = Instant::now();
    let event = relay(&service, &new_uuid(), "call_initiated").await;
    assert_eq!(event.status, 200, "{event:?}");
    assert!(start.elapsed() < Duration::from_secs(3), "a relayed one too");
    let receiver = Receiver::start_on(port, |_| Reply::route("ws://late.test/a")).await;
    let seen = receiver.seen(2).await;
    assert!(seen.iter().any(|seen| seen.uuid() == uuid && seen.kind() == "call_initiated"));
    let next = announce(&service, &new_uuid(), &json!({})).await;
    assert_eq!(next.json(), routed("ws://late.test/a"), "up again, decisions count again");
}

#[tokio::test]
async fn a_receiver_that_goes_down_under_a_waiting_call_lets_it_go() {
    let (_, url) = nobody();
    let settings = [
        ("WEBHOOK_BREAKER", "2"),
        ("WEBHOOK_RETRY", "9"),
        ("WEBHOOK_BACKOFF", "1"),
        ("ROUTING_TIMEOUT", "15000"),
    ];
    let service = serve(&url, &settings).await;
    assert!(fallback_within(&service, &new_uuid()).await < Duration::from_secs(5));
}

#[tokio::test]
async fn after_some_errors_in_a_row_calls_do_not_wait_until_one_succeeds() {
    let (gate, count) = (closed_gate(), AtomicUsize::new(0));
    let script = gate.clone();
    let receiver = Receiver::start(move |seen| {
        if seen.kind() != "call_initiated" {
            return Reply::ok(); // other events say nothing about the router
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0..3 => Reply::status(500),
            3 => Reply::route("ws://sts.test/a").when(&script),
            _ => Reply::route("ws://sts.test/a"),
        }
    })
    .await;
    let settings =
        [("WEBHOOK_BREAKER", "3"), ("ROUTING_TIMEOUT", "15000"), ("WEBHOOK_TIMEOUT", "15000")];
    let service = serve(&receiver.url, &settings).await;
    for _ in 0..3 {
        let uuid = new_uuid();
        fallback_within(&service, &uuid).await;
        assert_eq!(settled(&service, &receiver, &uuid).await, ["call_initiated", "call_ended"]);
    }
    let uuid = new_uuid();
    let took = fallback_within(&service, &uuid).await;
    assert!(took < Duration::from_secs(3), "the fourth does not wait: {took:?}");
    gate.add_permits(1);
    assert_eq!(settled(&service, &receiver, &uuid).await, ["call_initiated", "call_ended"]);
    let next = announce(&service, &new_uuid(), &json!({})).await;
    assert_eq!(next.json(), routed("ws://sts.test/a"), "one success ends it");
}

#[tokio::test]
async fn an_error_less_than_the_breaker_allows_keeps_calls_waiting() {
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 | 1 | 3 | 4 => Reply::status(500),
        _ => Reply::route("ws://sts.test/a").after(Duration::from_millis(300)),
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_BREAKER", "3")]).await;
    for n in 0..6 {
        let answer = announce(&service, &new_uuid(), &json!({})).await.json();
        assert_eq!(answer["override"], matches!(n, 2 | 5), "call {n}");
    }
}

#[tokio::test]
async fn a_full_queue_holds_up_no_call_and_the_loss_is_logged() {
    let (service, port) = down(&[("QUEUE_LIMIT", "1")]).await;
    let waiting = new_uuid();
    assert_eq!(relay(&service, &waiting, "call_started").await.status, 202);
    let uuid = new_uuid();
    assert!(fallback_within(&service, &uuid).await < Duration::from_secs(3));
    let loss = |line: &Value| {
        let level = line["level"].as_str().unwrap_or_default().to_lowercase();
        line.to_string().contains(&uuid) && (level == "error" || is_warning(line))
    };
    service.log_line(loss).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    receiver.seen(1).await;
    let next = new_uuid();
    let room = async { while relay(&service, &next, "call_started").await.status == 503 {} };
    tokio::time::timeout(Duration::from_secs(10), room).await.expect("there is room again");
    let seen = receiver.seen(2).await;
    assert_eq!(
        (seen[0].uuid(), seen[1].uuid()),
        (waiting.as_str(), next.as_str()),
        "the call's own event is lost"
    );
}

#[tokio::test]
async fn a_relayed_call_initiated_is_answered_within_the_routing_timeout() {
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3600))).await;
    let settings = [("ROUTING_TIMEOUT", "500"), ("WEBHOOK_TIMEOUT", "20000")];
    let service = serve(&receiver.url, &settings).await;
    let start = Instant::now();
    let answer = relay(&service, &new_uuid(), "call_initiated").await;
    assert_eq!((answer.status, answer.json().get("sts_url")), (200, None), "{answer:?}");
    let took = start.elapsed();
    assert!((Duration::from_millis(490)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_relayed_call_initiated_is_not_held_up_by_a_broken_router() {
    let receiver = Receiver::start(|seen| match seen.body["payload"]["n"].as_u64() {
        Some(1) => Reply::ok().after(Duration::from_secs(3600)),
        _ => Reply::status(500),
    })
    .await;
    let settings =
        [("WEBHOOK_BREAKER", "2"), ("ROUTING_TIMEOUT", "15000"), ("WEBHOOK_TIMEOUT", "20000")];
    let service = serve(&receiver.url, &settings).await;
    for _ in 0..2 {
        fallback_within(&service, &new_uuid()).await;
    }
    let start = Instant::now();
    assert_eq!(relay(&service, &new_uuid(), "call_initiated").await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
