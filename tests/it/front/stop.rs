//! The way out: SIGTERM makes the service not ready, ends what is in flight and exits 0 within
//! `DRAIN_TIMEOUT`.

use std::time::Duration;

use tokio::time::Instant;

use super::{event, lone_service, service_for};
use crate::support::receiver::Receiver;
use crate::support::service::{Wire, request, serve};

/// What an exit may take beyond its reason on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test]
async fn sigterm_exits_0_after_delivering_what_it_has() {
    let (receiver, gate) = Receiver::held().await;
    let mut service = service_for(&receiver).await;
    for n in [1, 2, 2, 3, 3, 3] {
        service.relay(event(n, "transcription")).await;
    }
    receiver.seen(3).await;
    service.terminate();
    service.drains().await;
    gate.add_permits(6);
    assert_eq!(service.wait().await, 0);
    let seen = receiver.so_far();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|seen| seen.done.get().is_some()), "each was answered: {seen:#?}");
    let log = service.whole_log().await;
    assert!(!log.contains("webhook attempt failed"), "nothing was broken off:\n{log}");
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_says_so() {
    let (receiver, gate) = Receiver::held().await;
    let mut service = service_for(&receiver).await;
    service.post("/events", event(1, "call_started")).await;
    receiver.seen(1).await;
    let mut wire = service.wire().await;
    // In mid-request at the signal: the rest of the head comes once the drain has begun.
    wire.send("GET /ready HTTP/1.1\r\nHost: callhook.test\r\n").await;
    service.terminate();
    service.drains().await;
    wire.send("\r\n").await;
    let answer = wire.answer().await.expect("a request that had begun is answered");
    assert_eq!(answer.status, 503);
    assert!(!answer.error().is_empty());
    gate.add_permits(1);
    assert_eq!(service.wait().await, 0);
}

#[tokio::test]
async fn while_it_drains_it_accepts_no_event() {
    let (receiver, gate) = Receiver::held().await;
    let mut service = service_for(&receiver).await;
    service.post("/events", event(1, "call_started")).await;
    receiver.seen(1).await;
    service.terminate();
    service.drains().await;
    // Refused at the door or inside, but never promised.
    if let Ok(mut wire) = Wire::try_open(service.addr).await {
        wire.send(request("POST", "/events", &[], &event(2, "call_started"))).await;
        if let Some(answer) = wire.answer().await {
            assert_eq!(answer.status, 503);
            assert!(!answer.error().is_empty());
        }
    }
    gate.add_permits(2);
    assert_eq!(service.wait().await, 0);
    assert_eq!(receiver.so_far().len(), 1);
}

#[tokio::test]
async fn without_a_journal_it_logs_how_many_events_are_lost() {
    let (receiver, _gate) = Receiver::held().await;
    let vars = [("WEBHOOK_TIMEOUT", "60000"), ("DRAIN_TIMEOUT", "1000")];
    let mut service = serve(&receiver.url, &vars).await;
    for kind in ["call_started", "transcription", "call_ended"] {
        service.relay(event(1, kind)).await;
    }
    receiver.seen(1).await;
    let signalled = Instant::now();
    service.terminate();
    assert_eq!(service.wait().await, 0);
    assert!(signalled.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", signalled.elapsed());
    let log = service.whole_log().await;
    let counted = log.lines().any(|line| line.contains("lost") && line.contains('3'));
    assert!(counted, "a line with the number of lost events in:\n{log}");
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let (receiver, _gate) = Receiver::held().await;
    let vars = [("WEBHOOK_TIMEOUT", "60000"), ("DRAIN_TIMEOUT", "60000")];
    let mut service = serve(&receiver.url, &vars).await;
    service.post("/events", event(1, "call_started")).await;
    receiver.seen(1).await;
    service.terminate();
    service.drains().await;
    let second = Instant::now();
    service.terminate();
    service.ended().await;
    assert!(second.elapsed() < SLACK, "{:?}", second.elapsed());
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_exit() {
    let mut service = lone_service().await;
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = service.wire().await;
        wire.send(request("GET", "/health", &[], "")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, 200);
        wires.push(wire);
    }
    wires.push(service.wire().await); // one that never said a word
    let signalled = Instant::now();
    service.terminate();
    assert_eq!(service.wait().await, 0);
    assert!(signalled.elapsed() < SLACK, "{:?}", signalled.elapsed());
}
