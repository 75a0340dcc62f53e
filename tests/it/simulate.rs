//! `callhook simulate` as a process against a receiver of the test: what arrives, what is counted and
//! how it ends. `simulate/faults.rs` has the faults on purpose.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crate::support::receiver::{Receiver, Reply, Seen, closed_gate, nobody};
use crate::support::record::LIMIT;
use crate::support::service::{command, run, signal};
use callhook::workbench::scenario::{Scenario, plan};
use chrono::DateTime;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::time::timeout;

/// What a receiver answers that sends a caller to people.
const TO_PEOPLE: &str = r#"{"next":{"context":"people","exten":"100"}}"#;

/// How a simulation ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// The summary, which has to be all of stdout.
    fn summary(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// Runs a simulation without any waiting in it.
async fn simulate(url: &str, args: &[&str]) -> Ended {
    simulate_as(url, &[&["--speed", "max", "--rate", "max"], args].concat()).await
}

async fn simulate_as(url: &str, args: &[&str]) -> Ended {
    let (code, out, err) = run(&[&["simulate", url], args].concat(), &[]).await;
    Ended { code, out, err }
}

/// The events as they arrived, by call.
fn by_call(seen: &[Seen]) -> BTreeMap<String, Vec<Seen>> {
    let mut calls: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for seen in seen {
        calls.entry(seen.uuid().to_owned()).or_default().push(seen.clone());
    }
    calls
}

fn kinds_and_payloads(seen: &[Seen]) -> Vec<(String, Value)> {
    seen.iter().map(|seen| (seen.kind().to_owned(), seen.body["payload"].clone())).collect()
}

#[tokio::test]
async fn every_event_arrives_once_in_the_order_of_its_call_as_planned() {
    let receiver = Receiver::content().await;
    let args = ["--scenario", "booking", "--scenario", "ivr", "--calls", "30", "--seed", "7"];
    let ended = simulate(&receiver.url, &[&args[..], &["--json"]].concat()).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let calls = by_call(&receiver.so_far());
    assert_eq!(calls.len(), 30);
    let scenarios = ["booking", "ivr"].map(|name| Scenario::load(name).unwrap());
    for number in 1..=30 {
        let plan = plan(&scenarios, 7, number);
        let seen = &calls[&plan.call.to_string()];
        let planned: Vec<(String, Value)> = plan
            .events
            .iter()
            .map(|event| {
                let payload = serde_json::from_str(event.payload.as_str()).unwrap();
                (event.kind.to_string(), payload)
            })
            .collect();
        assert_eq!(kinds_and_payloads(seen), planned);
        let sequences: Vec<u64> = seen.iter().map(Seen::sequence).collect();
        assert_eq!(sequences, (1..=planned.len() as u64).collect::<Vec<_>>());
        assert_eq!(receiver.in_flight_peak_of(&plan.call.to_string()), 1);
    }
}

#[tokio::test]
async fn the_summarys_counts_are_those_of_the_receiver() {
    let receiver = Receiver::start(|seen| match seen.body["payload"]["from"].as_str() {
        Some(from) if from.ends_with(['0', '1', '2', '3', '4']) => {
            Reply::route("wss://vip.test/a?key=hush")
        }
        Some(from) if from.ends_with('5') => Reply::route("http://no-sts.test"),
        Some(from) if from.ends_with('6') => Reply::status(200).body(TO_PEOPLE),
        Some(_) => Reply::status(204),
        None => Reply::status(201),
    })
    .await;
    let ended = simulate(&receiver.url, &["--calls", "40", "--seed", "1", "--json"]).await;
    let summary = ended.summary();
    let seen = receiver.so_far();
    let count = |holds: &dyn Fn(&Seen) -> bool| seen.iter().filter(|seen| holds(seen)).count();
    let events = seen.len();
    assert_eq!(summary["calls"], json!({"asked": 40, "begun": 40, "over": 40}));
    assert_eq!(
        summary["events"],
        json!({"planned": events, "sent": events, "delivered": events, "failed": 0, "spoiled": 0, "unsettled": 0})
    );
    assert_eq!(summary["attempts"], events);
    let last = |digits: &'static [char]| {
        move |seen: &Seen| {
            seen.body["payload"]["from"].as_str().is_some_and(|from| from.ends_with(digits))
        }
    };
    let routed = count(&last(&['0', '1', '2', '3', '4']));
    let invalid = count(&last(&['5']));
    let people = count(&last(&['6']));
    let other = count(&last(&['7', '8', '9']));
    assert_eq!(
        summary["decisions"],
        json!({
            "routed": routed, "people": people, "fallback": other, "invalid": invalid, "failed": 0,
            "places": {"people/100": people, "vip.test": routed},
        })
    );
    let initiated = count(&|seen| seen.kind() == "call_initiated");
    assert_eq!(
        summary["answers"],
        json!({"200": routed + invalid + people, "201": events - initiated, "204": other})
    );
    for kind in ["call_initiated", "call_started", "transcription", "call_ended"] {
        let latency = &summary["latency_ms"][kind];
        assert_eq!(latency["count"], count(&|seen| seen.kind() == kind), "{kind}");
        assert!(latency["p50"].as_f64() <= latency["max"].as_f64(), "{latency}");
    }
    assert_eq!(summary["latency_ms"]["all"]["count"], events);
    assert!(summary["events_per_second"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_seed_plays_the_same_calls_again_and_another_run_others() {
    let receiver = Receiver::content().await;
    let mut runs = Vec::new();
    for args in [&["--seed", "5"][..], &["--seed", "5"], &["--seed", "6"], &[]] {
        let before = receiver.so_far().len();
        let ended = simulate(&receiver.url, &[args, &["--calls", "5", "--json"]].concat()).await;
        assert_eq!(ended.code, 0, "{}", ended.err);
        let calls = by_call(&receiver.so_far()[before..]);
        let told = calls.into_iter().map(|(uuid, seen)| (uuid, kinds_and_payloads(&seen)));
        runs.push(told.collect::<BTreeMap<_, _>>());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert_ne!(runs[2], runs[3]);
    let ids: BTreeSet<String> = receiver
        .so_far()
        .iter()
        .map(|seen| seen.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), receiver.so_far().len(), "each event has an id of its own, in each run");
}

#[tokio::test]
async fn the_seed_that_was_taken_is_told_and_a_scenarios_own_holds_unless_another_is_given() {
    let receiver = Receiver::content().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = "seed = 77\n[[script]]\nsteps = [{ started = {} }, { hang_up = \"idle\" }]\n";
    std::fs::write(file.path(), source).unwrap();
    let path = file.path().to_str().unwrap();
    for (args, seed) in [(&[][..], 77), (&["--seed", "78"], 78)] {
        let args = [&["--scenario", path, "--calls", "1", "--json"], args].concat();
        let ended = simulate(&receiver.url, &args).await;
        assert_eq!(ended.summary()["seed"], seed);
        assert!(ended.err.contains(&format!("seed {seed}")), "{}", ended.err);
    }
}

#[tokio::test]
async fn time_goes_by_as_the_scenario_says_at_its_speed_and_rate() {
    let receiver = Receiver::content().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let source =
        "[[script]]\nsteps = [{ started = {} }, { pause = 2000 }, { hang_up = \"idle\" }]\n";
    std::fs::write(file.path(), source).unwrap();
    let args = ["--scenario", file.path().to_str().unwrap(), "--calls", "3"];
    let ended =
        simulate_as(&receiver.url, &[&args[..], &["--rate", "10", "--speed", "20x"]].concat())
            .await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let seen = receiver.so_far();
    for call in by_call(&seen).values() {
        let time = |seen: &Seen| {
            DateTime::parse_from_rfc3339(seen.body["timestamp"].as_str().unwrap()).unwrap()
        };
        let told = (time(&call[1]) - time(&call[0])).num_milliseconds();
        // Each is cut to whole milliseconds.
        assert!((99..=101).contains(&told), "{told} ms by the timestamps");
    }
    let started: Vec<_> = seen.iter().filter(|seen| seen.kind() == "call_started").collect();
    let ended: Vec<_> = seen.iter().filter(|seen| seen.kind() == "call_ended").collect();
    // The first request may be late, and nothing is early.
    let least = Duration::from_millis(150);
    assert!(started[2].at.duration_since(started[0].at) >= least, "calls 100 ms apart");
    assert!(ended[2].at.duration_since(started[0].at) >= least + Duration::from_millis(50));
}

#[tokio::test]
async fn with_one_call_at_a_time_the_next_begins_when_the_last_is_settled() {
    let receiver = Receiver::content().await;
    let ended = simulate(&receiver.url, &["--calls", "8", "--concurrency", "1"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let mut order: Vec<String> =
        receiver.so_far().iter().map(|seen| seen.uuid().to_owned()).collect();
    order.dedup();
    assert_eq!(order.len(), 8, "one call after the other");
}

#[tokio::test]
async fn an_event_that_is_refused_makes_it_fail_and_is_told_by_its_code() {
    let receiver = Receiver::start(|seen| match seen.kind() {
        "call_initiated" => Reply::status(500),
        "call_started" => Reply::status(400),
        _ => Reply::ok(),
    })
    .await;
    let ended = simulate(&receiver.url, &["--calls", "3", "--json"]).await;
    assert_eq!(ended.code, 1);
    let summary = ended.summary();
    let sent = summary["events"]["sent"].as_u64().unwrap();
    assert!(
        ended.err.contains(&format!("6 of {sent} events were not answered with 2xx")),
        "{}",
        ended.err
    );
    assert_eq!(summary["events"]["failed"], 6);
    assert_eq!(summary["decisions"]["failed"], 3);
    assert_eq!(
        summary["failures"],
        json!({
            "ERR_BAD_REQUEST": {"events": 3, "error": "Request failed with status code 400"},
            "ERR_BAD_RESPONSE": {"events": 3, "error": "Request failed with status code 500"},
        })
    );
}

#[tokio::test]
async fn an_event_is_tried_again_as_often_as_asked_and_its_success_counts() {
    let receiver = Receiver::start(|seen| match seen.header("x-avr-webhook-attempt") {
        Some("1") => Reply::status(503),
        _ => Reply::ok(),
    })
    .await;
    let args = ["--scenario", "abandoned", "--calls", "2", "--retry", "1", "--json"];
    let ended = simulate(&receiver.url, &args).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let summary = ended.summary();
    assert_eq!(summary["answers"], json!({"200": 2, "503": 2}));
    assert_eq!((&summary["events"]["sent"], &summary["attempts"]), (&json!(2), &json!(4)));
}

#[tokio::test]
async fn a_receiver_that_is_not_there_fails_each_event_and_does_not_hold_it_up() {
    let (_, url) = nobody();
    let ended = simulate(&url, &["--calls", "20"]).await;
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("ECONNREFUSED"), "{}", ended.out);
    assert!(ended.out.contains("20 of 20 begun, 20 over"), "{}", ended.out);
}

#[tokio::test]
async fn attempts_are_signed_and_carry_the_secret() {
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let receiver = Receiver::content().await;
    let args = ["--calls", "1", "--secret", "tulip", "--signing-key", KEY];
    let ended = simulate(&receiver.url, &args).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let reference = standardwebhooks::Webhook::new(KEY).unwrap();
    for seen in receiver.so_far() {
        assert_eq!(seen.header("x-avr-webhook-secret"), Some("tulip"));
        reference.verify(seen.raw.as_bytes(), &seen.headers).unwrap();
    }
    assert!(!(ended.out + &ended.err).contains("tulip"));
}

/// A simulation that can be signalled.
fn start(url: &str, args: &[&str]) -> Child {
    let args = [&["simulate", url], args].concat();
    let mut command = command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

async fn interrupt(mut child: Child) -> (ExitStatus, String) {
    signal(&child, "INT");
    let mut out = String::new();
    let ends = async {
        child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        child.wait().await.unwrap()
    };
    let status = timeout(LIMIT, ends).await.expect("an end soon after Ctrl-C");
    (status, out)
}

#[tokio::test]
async fn ctrl_c_prints_the_summary_so_far() {
    let gate = closed_gate();
    let held = std::sync::Arc::clone(&gate);
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_ended" => Reply::ok().when(&held),
        _ => Reply::ok(),
    })
    .await;
    let args = ["--calls", "3", "--seed", "1", "--speed", "max", "--rate", "max"];
    let planned: usize = {
        let scenarios = [Scenario::load("booking").unwrap()];
        (1..=3).map(|number| plan(&scenarios, 1, number).events.len()).sum()
    };
    let child = start(&receiver.url, &[&args[..], &["--json"]].concat());
    receiver.seen(planned).await;
    let (status, out) = interrupt(child).await;
    assert_eq!(status.code(), Some(0), "nothing was refused");
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(summary["interrupted"], true);
    assert_eq!(summary["calls"], json!({"asked": 3, "begun": 3, "over": 0}));
    assert_eq!(summary["events"]["unsettled"], 3);
    assert_eq!(summary["events"]["delivered"], planned - 3);

    let child = start(&receiver.url, &args);
    receiver.seen(2 * planned).await;
    let (_, out) = interrupt(child).await;
    assert!(out.contains("interrupted; so far:") && out.contains("3 unanswered"), "{out}");
}

#[tokio::test]
async fn callers_who_are_sent_to_people_are_told_beside_those_who_are_routed() {
    let receiver = Receiver::start(|seen| match seen.kind() {
        "call_initiated" => Reply::status(200).body(TO_PEOPLE),
        _ => Reply::ok(),
    })
    .await;
    let ended = simulate(&receiver.url, &["--calls", "3", "--seed", "9"]).await;
    let told = "decisions     0 routed, 3 sent to people (people/100: 3), 0 left to STS_URL\n";
    assert!(ended.out.contains(told), "{}", ended.out);
}

#[tokio::test]
async fn where_there_is_no_terminal_it_writes_plain_lines() {
    let receiver = Receiver::content().await;
    let ended =
        simulate(&receiver.url, &["--calls", "4", "--seed", "9", "--scenario", "lost"]).await;
    let first = format!("4 calls of lost to {}: rate max, speed max, seed 9\n", receiver.url);
    assert_eq!(ended.err, first);
    let odd = |text: &str| text.contains(|char: char| char.is_control() && char != '\n');
    assert!(!odd(&ended.out) && !odd(&ended.err), "{:?}", ended.out);
    for part in [
        "calls         4 of 4 begun, 4 over",
        "answers       200: ",
        "latency in ms",
        "p99",
        "decisions",
    ] {
        assert!(ended.out.contains(part), "{part}:\n{}", ended.out);
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_ends_with_64_and_says_why_without_secrets() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[[script]]\nsteps = [{ stared = {} }]\n").unwrap();
    let path = file.path().to_str().unwrap();
    let place = format!("{path}:2:12: a step has no `stared`; did you mean `started`?");
    let url = "http://127.0.0.1:9/events";
    for (args, part) in [
        (&["ftp://user:hush@host/"][..], "expected the receiver's http:// or https:// URL"),
        (&["hush"], "<URL>: expected"),
        (&[url, "--secret", "hu\nsh"], "--secret <SECRET>: expected visible ASCII"),
        (&[url, "--signing-key", "whsec_hush%"], "--signing-key <SIGNING_KEY>: expected whsec_"),
        (&[url, "--scenario", path], &place),
        (&[url, "--scenario", "bookin"], "did you mean booking?"),
        (&[url, "--drop", "5"], "expected a share from 0% to 100%"),
        (&[url, "--speed", "fast"], "expected how many times faster"),
        (&[url, "--rate", "0"], "expected calls a second"),
        (&[url, "--calls", "0"], "0 is not in 1.."),
        (&[url, "--retry", "101"], "101 is not in 0..=100"),
        (&[], "<URL>"),
    ] {
        let (code, out, err) = run(&[&["simulate"], args].concat(), &[]).await;
        assert_eq!((code, out.as_str()), (64, ""), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
        assert!(!err.contains("hush"), "{err}");
    }
}
