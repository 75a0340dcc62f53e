//! How much the journal takes, as a whole or not at all, and how long it takes to begin with much.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, timeout};

use super::{Journal, PATIENT, all_of, array, end, kill, relay};
use crate::support::event::{new_uuid, numbered};
use crate::support::receiver::{Receiver, Reply, nobody, numbers_of};
use crate::support::service::request;

#[tokio::test]
async fn what_waited_before_a_restart_counts_against_queue_limit() {
    for signal in ["KILL", "TERM"] {
        let journal = Journal::new();
        let (port, url) = nobody();
        let limited = [&PATIENT[..], &[("QUEUE_LIMIT", "3")]].concat();
        let service = journal.serve(&url, &limited).await;
        let uuid = new_uuid();
        for n in 0..3 {
            relay(&service, &uuid, n).await;
        }
        service.post("/events", numbered(&uuid, 3).to_string()).await.assert_full();
        end(service, signal).await;
        let service = journal.serve(&url, &limited).await;
        service.post("/events", numbered(&uuid, 4).to_string()).await.assert_full();
        let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
        receiver.seen(3).await;
        let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
        assert_eq!(numbers_of(&seen, &uuid), [0, 1, 2], "what was refused is nowhere");
    }
}

#[tokio::test]
async fn a_limit_below_what_waits_costs_no_event() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let service = journal.serve(&url, &PATIENT).await;
    let uuid = new_uuid();
    for n in 0..5 {
        relay(&service, &uuid, n).await;
    }
    kill(service).await;
    let limited = [&PATIENT[..], &[("QUEUE_LIMIT", "2")]].concat();
    let service = journal.serve(&url, &limited).await;
    service.post("/events", numbered(&uuid, 5).to_string()).await.assert_full();
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers_of(&receiver.seen(5).await, &uuid), [0, 1, 2, 3, 4]);
}

/// Killed at any moment of taking an array: all of it arrives, or nothing, and all if that was promised.
#[tokio::test]
async fn an_array_is_kept_as_a_whole_or_not_at_all() {
    const SEED: u64 = 21;
    const SIZE: usize = 200;
    let mut rng = StdRng::seed_from_u64(SEED);
    let journal = Journal::new();
    let (port, url) = nobody();
    let mut calls = Vec::new();
    let mut promised = Vec::new();
    for _ in 0..12 {
        let service = journal.serve(&url, &PATIENT).await;
        let uuid = new_uuid();
        let mut wire = service.wire().await;
        wire.send(request("POST", "/events", &[], &array(&uuid, 0..SIZE))).await;
        let patience = Duration::from_micros(rng.random_range(0..30_000));
        // When the kill comes is chance; an answer before it makes the promise.
        let answer = timeout(patience, wire.answer()).await.ok().flatten();
        promised.push(answer.is_some_and(|answer| answer.status == 202));
        calls.push(uuid);
        kill(service).await;
    }
    let service = journal.serve(&url, &PATIENT).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let seen = all_of(&service, &receiver, &calls).await;
    for (uuid, promised) in calls.iter().zip(promised) {
        let numbers = numbers_of(&seen, uuid);
        if promised || !numbers.is_empty() {
            assert_eq!(numbers, (0..SIZE).collect::<Vec<_>>(), "promised: {promised}, seed {SEED}");
        }
    }
}

#[tokio::test]
async fn five_thousand_waiting_events_hold_up_the_start_for_less_than_five_seconds() {
    let journal = Journal::new();
    let (_, away) = nobody();
    let service = journal.serve(&away, &PATIENT).await;
    let calls: Vec<String> = (0..500).map(|_| new_uuid()).collect();
    for hundred in calls.chunks(100) {
        let events = hundred.iter().flat_map(|uuid| (0..10).map(|n| numbered(uuid, n)));
        let body = serde_json::Value::from(events.collect::<Vec<_>>()).to_string();
        service.relay(body).await;
    }
    kill(service).await;
    let receiver = Receiver::content().await;
    let begun = Instant::now();
    let service = journal.serve(&receiver.url, &PATIENT).await;
    assert_eq!(service.get("/health").await.status, 200);
    let took = begun.elapsed();
    println!("{took:?} from the start to the first answer, with 5000 events waiting");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let seen = receiver.seen(5000).await;
    println!("{:?} until all had arrived", begun.elapsed());
    let mut numbers: std::collections::HashMap<&str, Vec<usize>> = Default::default();
    for seen in &seen {
        numbers.entry(seen.uuid()).or_default().push(seen.n());
    }
    assert_eq!(numbers.len(), 500);
    assert!(numbers.values().all(|numbers| numbers.iter().copied().eq(0..10)), "{numbers:?}");
}
