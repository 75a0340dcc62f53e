//! After a backlog memory and disk are given back.

use std::sync::Arc;
use std::time::Duration;

use crate::support::event::{event, new_uuid};
use crate::support::journal::{Journal, terminate};
use crate::support::receiver::{Receiver, Reply, closed_gate};
use crate::support::service::Service;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Events of 90 KB: 54 MB.
const EVENTS: usize = 600;
const TEXT: usize = 90_000;

/// So many at a time: 4.5 MB.
const ARRAY: usize = 50;

/// For a receiver that takes its time.
const PATIENT: [(&str, &str); 2] = [("WEBHOOK_TIMEOUT", "60000"), ("INSPECTOR_CALLS", "10")];

/// What the child has resident now, in bytes.
fn resident(service: &Service) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", service.pid())).expect("a child");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let number: u64 = line.trim().strip_suffix(" kB").expect("kB").parse().expect("a number");
    number * 1024
}

async fn relay_many(service: &Service, count: usize) {
    let text = "x".repeat(TEXT);
    let event =
        || json!({ "uuid": new_uuid(), "type": "transcription", "payload": { "text": text } });
    for taken in (0..count).step_by(ARRAY) {
        let array: Vec<Value> = (taken..count.min(taken + ARRAY)).map(|_| event()).collect();
        service.relay(Value::from(array)).await;
    }
}

#[tokio::test]
async fn memory_is_given_back_within_30_s_of_a_drain() {
    let (receiver, gate) = Receiver::held().await;
    let journal = Journal::new();
    let service = journal.serve(&receiver.url, &PATIENT).await;
    relay_many(&service, 5).await;
    let before = resident(&service);
    relay_many(&service, EVENTS).await;
    let full = resident(&service);
    assert!(full > before + (EVENTS * TEXT) as u64 / 2, "{before} {full}");
    gate.add_permits(EVENTS + 5);
    receiver.seen(EVENTS + 5).await;
    let drained = Instant::now();
    loop {
        let now = resident(&service);
        if now < before + 16 * 1024 * 1024 {
            break;
        }
        let after = drained.elapsed();
        assert!(after < Duration::from_secs(30), "{before} {full} {now} after {after:?}");
        assert_eq!(service.get("/health").await.status, 200);
    }
}

#[tokio::test]
async fn a_journal_that_is_mostly_free_is_compacted_at_a_start() {
    const MANY: usize = 1000;
    // The last event stays where the file ends, which redb by itself could cut off else.
    let gate = closed_gate();
    let held = Arc::clone(&gate);
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_ended" => Reply::status(503),
        _ => Reply::ok().when(&held),
    })
    .await;
    let vars = [&PATIENT[..], &[("WEBHOOK_RETRY", "100"), ("WEBHOOK_BREAKER", "0")]].concat();
    let journal = Journal::new();
    let service = journal.serve(&receiver.url, &vars).await;
    relay_many(&service, MANY).await;
    let text = "x".repeat(TEXT);
    let payload = json!({ "text": text });
    service.relay(event(&new_uuid(), "call_ended", payload)).await;
    gate.add_permits(MANY);
    let mut count = MANY;
    loop {
        let seen = receiver.seen(count).await;
        if seen.iter().filter(|seen| seen.kind() == "transcription").count() == MANY {
            break;
        }
        count = seen.len() + 1;
    }
    terminate(service).await;
    let grown = journal.bytes().len();
    assert!(grown > 80 * 1024 * 1024, "{grown}");
    let service = journal.serve(&receiver.url, &vars).await;
    let log = terminate(service).await;
    assert!(log.contains("the journal's file was compacted"), "{log}");
    let compacted = journal.bytes().len();
    assert!(compacted < 16 * 1024 * 1024, "{compacted} of {grown}");
    let service = journal.serve(&receiver.url, &vars).await;
    let log = terminate(service).await;
    assert!(!log.contains("compacted"), "once is enough: {log}");
    assert!(log.contains(r#""waiting":1"#), "the event is still there: {log}");
}
