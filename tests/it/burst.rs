//! A burst of thousands of events on a receiver that is moody: all arrive, each call's in its order, and the log and the
//! totals at the end say just that.

use std::collections::HashMap;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::backlog::pour;
use crate::support::event::new_uuid;
use crate::support::receiver::{Receiver, Reply, Seen, of_call};
use crate::support::routing::serve;
use crate::support::service::Service;

/// How a moody receiver answers the requests for one event before it takes it.
type Moods = HashMap<(String, usize), Vec<u16>>;

/// Some events fail, each up to five times in ways that are tried again.
fn moods(seed: u64, calls: &[String], events: usize) -> Moods {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut moods = Moods::new();
    for uuid in calls {
        for n in 0..events {
            let failures = if rng.random_bool(0.25) { rng.random_range(1..=5) } else { 0 };
            let statuses = [500, 503, 404, 429, 302, 401];
            let status = |_| statuses[rng.random_range(0..statuses.len())];
            moods.insert((uuid.clone(), n), (0..failures).map(status).collect());
        }
    }
    moods
}

fn key(seen: &Seen) -> (String, usize) {
    (seen.uuid().to_owned(), seen.n())
}

async fn moody(moods: &Moods) -> Receiver {
    let left = Mutex::new(moods.clone());
    Receiver::start(move |seen| {
        let mut left = left.lock().expect("no panic");
        let statuses = left.get_mut(&key(seen)).expect("an event that was sent");
        statuses.pop().map_or_else(Reply::ok, Reply::status)
    })
    .await
}

/// Each event of a call is there as often as its moods say, and once more; none begins before the one
/// before it was taken.
fn assert_in_order(seen: &[Seen], uuid: &str, events: usize, moods: &Moods) {
    let mut requests = of_call(seen, uuid);
    for n in 0..events {
        let mut ids = Vec::new();
        for attempt in 1..=moods[&(uuid.to_owned(), n)].len() + 1 {
            let request = requests.next().unwrap_or_else(|| panic!("event {n} of {uuid} came"));
            assert_eq!(key(request).1, n, "attempt {attempt} of event {n} of {uuid}");
            let header = |name| request.header(name).expect(name).to_owned();
            assert_eq!(header("x-avr-webhook-sequence"), (n + 1).to_string(), "{request:?}");
            assert_eq!(header("x-avr-webhook-attempt"), attempt.to_string(), "{request:?}");
            ids.push(header("webhook-id"));
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "one id on all attempts of event {n} of {uuid}");
    }
    assert_eq!(requests.count(), 0, "nothing more of {uuid}");
}

#[tokio::test]
async fn a_burst_on_a_moody_receiver_arrives_in_full_and_each_call_in_its_order() {
    const EVENTS: usize = 40;
    for seed in [1, 4711] {
        println!("seed {seed}");
        let calls: Vec<String> = (0..50).map(|_| new_uuid()).collect();
        let moods = moods(seed, &calls, EVENTS);
        let receiver = moody(&moods).await;
        let mut service = serve(
            &receiver.url,
            &[
                ("WEBHOOK_RETRY", "5"),
                ("WEBHOOK_BACKOFF", "5"),
                ("WEBHOOK_BACKOFF_MAX", "20"),
                // A receiver in such a mood is there all the time.
                ("WEBHOOK_BREAKER", "0"),
            ],
        )
        .await;
        let fifths: Vec<&[String]> = calls.chunks(10).collect();
        tokio::join!(
            pour(&service, fifths[0], 0..EVENTS),
            pour(&service, fifths[1], 0..EVENTS),
            pour(&service, fifths[2], 0..EVENTS),
            pour(&service, fifths[3], 0..EVENTS),
            pour(&service, fifths[4], 0..EVENTS),
        );
        let requests = moods.values().map(|statuses| statuses.len() + 1).sum();
        receiver.seen(requests).await;
        service.terminate();
        assert_eq!(service.wait().await, 0, "seed {seed}");
        let seen = receiver.so_far();
        for uuid in &calls {
            assert_in_order(&seen, uuid, EVENTS, &moods);
            assert_eq!(receiver.in_flight_peak_of(uuid), 1, "{uuid}, seed {seed}");
        }
        assert_log_is_calm(&service, requests - calls.len() * EVENTS).await;
    }
}

/// So many failed attempts, every one of them told by a warning, and nothing that is no line of the log.
async fn assert_log_is_calm(service: &Service, failures: usize) {
    let log = service.whole_log().await;
    let mut warnings: u64 = 0;
    for line in log.lines() {
        let record: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert_ne!(record["level"], "error", "{line}");
        warnings += match record["message"].as_str() {
            Some("webhook attempt failed") => 1,
            Some("webhook failures summed up") => record["count"].as_u64().expect("a number"),
            _ => 0,
        };
    }
    assert_eq!(warnings, failures as u64, "each failed attempt is told, or summed up");
    let stopped = log.lines().last().expect("a last line");
    for settled in [r#""dead":0"#, r#""lost":0"#] {
        assert!(stopped.contains(settled), "{settled} in {stopped}");
    }
}
