//! A receiver that is slow, silent or moody while there is much to do: what a new caller feels of it, what
//! becomes of callers that wait as the service stops, what a repeat adds, and that a burst outlives an outage
//! (`burst` has those that it has on a moody one).

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::event::new_uuid;
use crate::support::receiver::{Receiver, Reply, Seen, closed_gate, numbers_of};
use crate::support::routing::{fallback, routed, serve};
use crate::support::service::{Answer, Service, request};
use serde_json::{Value, json};
use tokio::time::Instant;

const ROUTE: &str = "wss://sts.test/a";

fn announcement(uuid: &str) -> String {
    json!({ "uuid": uuid, "payload": {} }).to_string()
}

pub fn event(uuid: &str, kind: &str, n: usize) -> Value {
    json!({ "uuid": uuid, "type": kind, "payload": { "n": n } })
}

/// Announces a new call, which is answered whatever happens.
async fn announce(service: &Service) -> Value {
    let answer = service.post("/call", announcement(&new_uuid())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Routes calls, and takes so long for each answer.
async fn slow_router(each: Duration) -> Receiver {
    Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => Reply::route(ROUTE).after(each),
        _ => Reply::ok().after(each),
    })
    .await
}

/// Hands over one event each of so many calls.
async fn fill(service: &Service, calls: usize) {
    let events: Vec<Value> = (0..calls).map(|n| event(&new_uuid(), "call_started", n)).collect();
    service.relay(Value::from(events)).await;
}

#[tokio::test]
async fn a_new_caller_does_not_wait_for_the_backlog() {
    let receiver = slow_router(Duration::from_millis(50)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_CONCURRENCY", "2")]).await;
    fill(&service, 300).await;
    receiver.seen(4).await;
    assert_eq!(announce(&service).await, routed(ROUTE));
    let before = receiver.so_far().len();
    assert!(before < 50, "{before} requests came before the answer");
    receiver.seen(301).await;
}

#[tokio::test]
async fn many_new_callers_do_not_wait_for_the_backlog() {
    let receiver = slow_router(Duration::from_millis(50)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_CONCURRENCY", "2")]).await;
    fill(&service, 300).await;
    receiver.seen(4).await;
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = service.wire().await;
        wire.send(request("POST", "/call", &[], &announcement(&new_uuid()))).await;
        wires.push(wire);
    }
    for mut wire in wires {
        assert_eq!(wire.answer().await.expect("an answer").json(), routed(ROUTE));
    }
    let before = receiver.so_far().len();
    assert!(before < 100, "{before} requests came before the last of 20 answers");
    let seen = receiver.seen(320).await;
    assert_eq!(seen.len(), 320, "the backlog is delivered too");
}

#[tokio::test]
async fn a_relayed_question_does_not_wait_for_the_backlog() {
    let receiver = slow_router(Duration::from_millis(50)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_CONCURRENCY", "2")]).await;
    fill(&service, 300).await;
    receiver.seen(4).await;
    let question = event(&new_uuid(), "call_initiated", 0).to_string();
    assert_eq!(service.post("/events", question).await.json()["sts_url"], ROUTE);
    let before = receiver.so_far().len();
    assert!(before < 50, "{before} requests came before the answer");
}

#[tokio::test]
async fn a_caller_that_waits_is_answered_with_the_fallback_when_the_drain_ends_first() {
    let gate = closed_gate();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::route(ROUTE).when(&held)).await;
    let settings =
        [("DRAIN_TIMEOUT", "500"), ("ROUTING_TIMEOUT", "60000"), ("WEBHOOK_TIMEOUT", "60000")];
    let mut service = serve(&receiver.url, &settings).await;
    let mut caller = service.wire().await;
    caller.send(request("POST", "/call", &[], &announcement(&new_uuid()))).await;
    let mut relay = service.wire().await;
    let question = event(&new_uuid(), "call_initiated", 0).to_string();
    relay.send(request("POST", "/events", &[], &question)).await;
    receiver.seen(2).await;
    let start = Instant::now();
    service.terminate();
    let answer = caller.answer().await.expect("the caller is answered, not cut off");
    assert_eq!((answer.status, answer.json()), (200, fallback()));
    let answer = relay.answer().await.expect("the relay is answered, not cut off");
    assert_eq!((answer.status, answer.json().get("sts_url")), (200, None), "{answer:?}");
    assert!(answer.json()["id"].is_string(), "{answer:?}");
    assert_eq!(service.wait().await, 0);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_caller_that_waits_while_it_drains_still_gets_the_decision() {
    for journal in ["none", "callhook.redb"] {
        let gate = closed_gate();
        let held = gate.clone();
        let receiver = Receiver::start(move |_| Reply::route(ROUTE).when(&held)).await;
        let vars = [("ROUTING_TIMEOUT", "9000"), ("JOURNAL_PATH", journal)];
        let mut service = serve(&receiver.url, &vars).await;
        let mut caller = service.wire().await;
        caller.send(request("POST", "/call", &[], &announcement(&new_uuid()))).await;
        receiver.seen(1).await;
        service.terminate();
        service.drains().await;
        gate.add_permits(1);
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(answer.json(), routed(ROUTE), "JOURNAL_PATH={journal}");
        assert_eq!(service.wait().await, 0);
    }
}

/// Answers the first call's question with these statuses, one a request, and routes every other call.
async fn sick_for_one(statuses: &'static [u16]) -> Receiver {
    let (first, at) = (Mutex::new(String::new()), AtomicUsize::new(0));
    Receiver::start(move |seen| {
        let mut first = first.lock().expect("no panic");
        if first.is_empty() {
            seen.uuid().clone_into(&mut first);
        }
        if *first != seen.uuid() {
            return Reply::route(ROUTE);
        }
        let status = statuses.get(at.fetch_add(1, Ordering::Relaxed)).copied();
        Reply::status(status.unwrap_or(200))
    })
    .await
}

#[tokio::test]
async fn one_call_that_fails_many_times_does_not_end_the_asking() {
    // Three times 503 make the receiver down; then come probes, until one is answered otherwise.
    for statuses in [
        [500, 500, 500, 500, 500, 422].as_slice(),
        [503, 503, 503, 503, 422].as_slice(),
        [503, 503, 503, 500, 500, 422].as_slice(),
    ] {
        let receiver = sick_for_one(statuses).await;
        let settings = [
            ("WEBHOOK_BREAKER", "3"),
            ("WEBHOOK_RETRY", "20"),
            ("WEBHOOK_BACKOFF", "10"),
            ("WEBHOOK_BACKOFF_MAX", "10"),
        ];
        let service = serve(&receiver.url, &settings).await;
        assert_eq!(announce(&service).await, fallback(), "{statuses:?}");
        service.log_line(|line| line["message"] == "webhook delivery failed").await;
        assert_eq!(receiver.so_far().len(), statuses.len(), "{statuses:?}");
        assert_eq!(announce(&service).await, routed(ROUTE), "after {statuses:?}");
    }
}

/// Sends this event twice under one key while the receiver keeps the first waiting, then lets all through.
/// Returns both answers and what the receiver got, up to a mark sent after them.
async fn twice(kind: &str) -> (Answer, Answer, Vec<Seen>) {
    let gate = closed_gate();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::route(ROUTE).when(&held)).await;
    let service = serve(&receiver.url, &[("ROUTING_TIMEOUT", "15000")]).await;
    let uuid = new_uuid();
    let body = event(&uuid, kind, 0).to_string();
    let keyed = request("POST", "/events", &[("Idempotency-Key", "again")], &body);
    let (mut first, mut second) = (service.wire().await, service.wire().await);
    first.send(&keyed).await;
    receiver.seen(1).await;
    second.send(&keyed).await;
    let mark = event(&uuid, "call_ended", 0).to_string();
    service.relay(mark).await;
    gate.add_permits(10);
    let answers = (first.answer().await, second.answer().await);
    receiver.seen(2).await;
    service.terminate();
    service.whole_log().await;
    let seen = receiver.so_far();
    (answers.0.expect("an answer"), answers.1.expect("an answer to the repeat"), seen)
}

#[tokio::test]
async fn a_repeat_while_the_first_still_waits_queues_nothing() {
    for (kind, status) in [("call_started", 202), ("call_initiated", 200)] {
        let (first, second, seen) = twice(kind).await;
        assert_eq!((first.status, second.status), (status, status), "{kind}: {first:?} {second:?}");
        assert_eq!(first.json()["id"], "again", "{kind}: {first:?}");
        assert_eq!(second.json(), first.json(), "{kind}: the repeat is answered the same");
        let kinds: Vec<&str> = seen.iter().map(Seen::kind).collect();
        assert_eq!(kinds, [kind, "call_ended"], "one event and the mark");
    }
}

/// Sends the events of these calls in turns, twenty to a request, one request at a time.
pub async fn pour(service: &Service, calls: &[String], events: Range<usize>) {
    let all = events.flat_map(|n| calls.iter().map(move |uuid| event(uuid, "transcription", n)));
    for array in all.collect::<Vec<_>>().chunks(20) {
        service.relay(json!(array)).await;
    }
}

#[tokio::test]
async fn a_burst_outlives_an_outage_in_its_middle() {
    let calls: Vec<String> = (0..50).map(|_| new_uuid()).collect();
    let count = AtomicUsize::new(0);
    // Ten failures in a row make it down, whatever order the attempts end in.
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        300..310 => Reply::status(503),
        _ => Reply::ok(),
    })
    .await;
    let settings =
        [("WEBHOOK_RETRY", "5"), ("WEBHOOK_BACKOFF", "5"), ("WEBHOOK_CONCURRENCY", "10")];
    let service = serve(&receiver.url, &settings).await;
    pour(&service, &calls, 0..20).await;
    let seen = receiver.seen(1010).await;
    for uuid in &calls {
        let mut numbers: Vec<usize> = numbers_of(&seen, uuid);
        numbers.dedup();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{uuid}");
        assert_eq!(receiver.in_flight_peak_of(uuid), 1, "{uuid}");
    }
}
