//! The end of the process, by SIGKILL or by SIGTERM, and what the next one makes of the journal.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Journal, PATIENT, all_of, array, end, headers_of, ids_of, kill, relay, terminate};
use crate::support::event::{new_uuid, numbered};
use crate::support::receiver::{Receiver, Reply, Seen, nobody, numbers_of};
use crate::support::service::{Answer, Service};

/// What an exit may take beyond its reason on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_came_while_the_receiver_was_away_arrives_after_a_kill() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let service = journal.serve(&url, &PATIENT).await;
    let calls = [new_uuid(), new_uuid(), new_uuid()];
    let mut ids = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..4 {
        for (uuid, ids) in calls.iter().zip(&mut ids) {
            ids.push(relay(&service, uuid, n).await);
        }
    }
    kill(service).await;
    let service = journal.serve(&url, &PATIENT).await;
    for (uuid, ids) in calls.iter().zip(&mut ids) {
        ids.push(relay(&service, uuid, 4).await);
    }
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let seen = receiver.seen(15).await;
    for (uuid, ids) in calls.iter().zip(&ids) {
        assert_eq!(numbers_of(&seen, uuid), [0, 1, 2, 3, 4]);
        assert_eq!(&ids_of(&seen, uuid), ids);
        assert_eq!(headers_of(&seen, uuid, "x-avr-webhook-sequence"), ["1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn an_announcement_that_nobody_took_survives_a_kill_once_it_is_written() {
    let journal = Journal::new();
    let (_, url) = nobody();
    let service = journal.serve(&url, &PATIENT).await;
    let (announced, other) = (new_uuid(), new_uuid());
    let body = json!({ "uuid": announced, "payload": { "n": 0 } }).to_string();
    assert_eq!(service.post("/call", body).await.status, 200);
    // What comes later is on disk now, and everything that waited was written with it.
    relay(&service, &other, 1).await;
    kill(service).await;
    let receiver = Receiver::content().await;
    let _service = journal.serve(&receiver.url, &PATIENT).await;
    let seen = receiver.seen(2).await;
    assert_eq!(numbers_of(&seen, &announced), [0]);
    assert_eq!(numbers_of(&seen, &other), [1]);
}

#[tokio::test]
async fn an_event_waits_through_restart_after_restart_with_the_same_bytes() {
    let journal = Journal::new();
    let held = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3600))).await;
    let uuid = new_uuid();
    let service = journal.serve(&held.url, &PATIENT).await;
    let stamped = r#","timestamp":"2026-01-02T03:04:05.678Z","payload":{"z":1,"a":[1.50,null]}}"#;
    let body = format!(r#"{{"uuid":"{uuid}","type":"transcription"{stamped}"#);
    service.relay(body).await;
    relay(&service, &uuid, 1).await;
    held.seen(1).await;
    end(service, "KILL").await;
    for (count, signal) in ["KILL", "KILL", "TERM", "KILL"].into_iter().enumerate() {
        let quick = [("DRAIN_TIMEOUT", "100"), PATIENT[0]];
        let service = journal.serve(&held.url, &quick).await;
        held.seen(count + 2).await;
        end(service, signal).await;
    }
    let receiver = Receiver::content().await;
    let service = journal.serve(&receiver.url, &PATIENT).await;
    relay(&service, &uuid, 2).await;
    let (before, after) = (held.so_far(), receiver.seen(3).await);
    for seen in before.iter().chain(&after[..1]) {
        assert_eq!(seen.raw, before[0].raw);
        assert_eq!(seen.header("webhook-id"), before[0].header("webhook-id"));
    }
    assert_eq!(after[1..].iter().map(Seen::n).collect::<Vec<_>>(), [1, 2]);
    let sequence = headers_of(&after, &uuid, "x-avr-webhook-sequence");
    assert_eq!(sequence, ["1", "2", "3"]);
}

#[tokio::test]
async fn attempts_that_were_used_stay_used() {
    let journal = Journal::new();
    let receiver = Receiver::start(|seen| match seen.header("x-avr-webhook-attempt") {
        Some("1" | "2") => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let retries = ("WEBHOOK_RETRY", "50");
    let service = journal.serve(&receiver.url, &[retries, ("WEBHOOK_BACKOFF", "1000")]).await;
    let uuid = new_uuid();
    relay(&service, &uuid, 0).await;
    service.log_line(|line| line["attempt"] == 2).await;
    relay(&service, &uuid, 1).await; // on disk, and so is what was to be written before
    kill(service).await;
    let service = journal.serve(&receiver.url, &[retries, ("WEBHOOK_BACKOFF", "1")]).await;
    let seen = receiver.seen(4).await;
    assert_eq!(numbers_of(&seen, &uuid)[..3], [0, 0, 0]);
    assert_eq!(headers_of(&seen, &uuid, "x-avr-webhook-attempt")[..3], ["1", "2", "3"]);
    drop(service);
}

#[tokio::test]
async fn what_was_given_up_is_not_sent_again() {
    let journal = Journal::new();
    let receiver =
        Receiver::start(|seen| Reply::status(if seen.n() == 0 { 400 } else { 200 })).await;
    let service = journal.serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    relay(&service, &uuid, 0).await;
    service.log_line(|line| line["message"] == "webhook delivery failed").await;
    relay(&service, &uuid, 1).await;
    receiver.seen(2).await;
    kill(service).await;
    let service = journal.serve(&receiver.url, &[]).await;
    let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
    let zeros = seen.iter().filter(|seen| seen.n() == 0).count();
    assert_eq!(zeros, 1, "{seen:#?}");
}

#[tokio::test]
async fn sigterm_ends_the_attempt_in_flight_and_keeps_the_rest() {
    let journal = Journal::new();
    let (receiver, gate) = Receiver::held().await;
    let mut service = journal.serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for n in 0..3 {
        relay(&service, &uuid, n).await;
    }
    receiver.seen(1).await;
    service.terminate();
    service.drains().await;
    gate.add_permits(100);
    assert_eq!(service.wait().await, 0);
    let before = receiver.so_far().len();
    assert!(receiver.so_far().iter().all(|seen| seen.done.get().is_some()), "all were answered");
    assert_eq!(before, 1, "the rest is kept");
    let service = journal.serve(&receiver.url, &[]).await;
    let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
    assert_eq!(numbers_of(&seen, &uuid), [0, 1, 2], "each once");
    assert_eq!(headers_of(&seen, &uuid, "x-avr-webhook-sequence"), ["1", "2", "3"]);
}

#[tokio::test]
async fn sigterm_does_not_wait_longer_than_drain_timeout_and_loses_nothing() {
    let journal = Journal::new();
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3600))).await;
    let patient = [("DRAIN_TIMEOUT", "500"), ("WEBHOOK_TIMEOUT", "60000")];
    let service = journal.serve(&receiver.url, &patient).await;
    let uuid = new_uuid();
    let ids = [relay(&service, &uuid, 0).await, relay(&service, &uuid, 1).await];
    receiver.seen(1).await;
    let signalled = Instant::now();
    let log = terminate(service).await;
    assert!(signalled.elapsed() < SLACK, "{:?}", signalled.elapsed());
    let lost = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lost = lost.filter_map(|line| line["lost"].as_u64()).sum::<u64>();
    assert_eq!(lost, 0, "nothing is lost:\n{log}");
    let back = Receiver::content().await;
    let service = journal.serve(&back.url, &[]).await;
    let seen = all_of(&service, &back, std::slice::from_ref(&uuid)).await;
    assert_eq!(ids_of(&seen, &uuid), ids);
}

#[tokio::test]
async fn a_key_given_before_a_restart_queues_nothing_after_it() {
    for signal in ["KILL", "TERM"] {
        for header in ["Idempotency-Key", "webhook-id"] {
            a_key_is_remembered(signal, header).await;
        }
    }
}

async fn a_key_is_remembered(signal: &str, header: &str) {
    let journal = Journal::new();
    let receiver = Receiver::content().await;
    let uuid = new_uuid();
    let posts = [
        ("delivered", numbered(&uuid, 0).to_string()),
        ("delivered-array", array(&uuid, 1..4)),
        ("delivered-last", numbered(&uuid, 4).to_string()),
    ];
    let ask = async |service: &Service, posts: &[(&str, String)]| -> Vec<Answer> {
        let mut answers = Vec::new();
        for (key, body) in posts {
            let answer = service.post_with("/events", &[(header, key)], body.clone()).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            answers.push(answer);
        }
        answers
    };
    let service = journal.serve(&receiver.url, &[]).await;
    let given = ask(&service, &posts).await;
    receiver.seen(5).await;
    relay(&service, &new_uuid(), 0).await; // so that the outcome before it is on disk
    receiver.seen(6).await;
    end(service, signal).await;
    let service = journal.serve(&receiver.url, &[]).await;
    let again = ask(&service, &posts).await;
    let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
    for (given, again) in given.iter().zip(&again) {
        assert_eq!(given.body, again.body, "after SIG{signal}");
    }
    let [first, rest @ ..] = &ids_of(&seen, &uuid)[..] else { panic!("{seen:#?}") };
    assert_eq!(first, "delivered");
    let expected =
        ["delivered-array.0", "delivered-array.1", "delivered-array.2", "delivered-last"];
    let mut rest = rest.to_vec();
    // A crash may deliver the last event once more.
    rest.dedup();
    assert_eq!(rest, expected, "each once, after SIG{signal} with {header}");
}

#[tokio::test]
async fn a_key_whose_event_still_waits_queues_nothing_after_a_kill() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let uuid = new_uuid();
    let key = [("Idempotency-Key", "only-once")];
    for _ in 0..3 {
        let service = journal.serve(&url, &PATIENT).await;
        let answer = service.post_with("/events", &key, numbered(&uuid, 0).to_string()).await;
        assert_eq!((answer.status, answer.json()), (202, json!({ "id": "only-once" })));
        kill(service).await;
    }
    let service = journal.serve(&url, &PATIENT).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
    assert_eq!(ids_of(&seen, &uuid), ["only-once"]);
}

#[tokio::test]
async fn a_routed_call_initiated_is_answered_alike_after_a_restart() {
    for signal in ["TERM", "KILL"] {
        let journal = Journal::new();
        let receiver = Receiver::start(|seen| match seen.kind() {
            "call_initiated" => Reply::route("wss://sts.example/agent?tenant=7"),
            _ => Reply::ok(),
        })
        .await;
        let uuid = new_uuid();
        let body = json!({ "uuid": uuid, "type": "call_initiated", "payload": { "n": 0 } });
        let key = [("Idempotency-Key", "caller-1")];
        let service = journal.serve(&receiver.url, &[]).await;
        let given = service.post_with("/events", &key, body.to_string()).await;
        let expected = json!({ "id": "caller-1", "sts_url": "wss://sts.example/agent?tenant=7" });
        assert_eq!((given.status, given.json()), (200, expected));
        // Its id is on disk when it is answered, and so is what came before.
        let (later, body_of_later) = ([("Idempotency-Key", "later")], numbered(&new_uuid(), 0));
        let later = service.post_with("/events", &later, body_of_later.to_string()).await;
        assert_eq!(later.status, 202);
        end(service, signal).await;
        let service = journal.serve(&receiver.url, &[]).await;
        let again = service.post_with("/events", &key, body.to_string()).await;
        assert_eq!((again.status, again.json()), (200, given.json()), "after SIG{signal}");
        let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
        assert_eq!(numbers_of(&seen, &uuid), [0], "one event, after SIG{signal}");
    }
}

#[tokio::test]
async fn an_outage_goes_on_over_a_restart_and_all_arrive_when_it_is_over() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let down = [&PATIENT[..], &[("WEBHOOK_BREAKER", "3")]].concat();
    let calls = [new_uuid(), new_uuid(), new_uuid()];
    for (life, signal) in ["KILL", "TERM", "KILL"].into_iter().enumerate() {
        let service = journal.serve(&url, &down).await;
        for uuid in &calls {
            for n in 0..5 {
                relay(&service, uuid, life * 5 + n).await;
            }
        }
        service.log_line(|line| line["code"] == "ECONNREFUSED").await;
        end(service, signal).await;
    }
    let service = journal.serve(&url, &down).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let seen = all_of(&service, &receiver, &calls).await;
    for uuid in &calls {
        assert_eq!(numbers_of(&seen, uuid), (0..15).collect::<Vec<_>>());
    }
}
