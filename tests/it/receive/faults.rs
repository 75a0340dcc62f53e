//! Faults on order: each strikes those that it was asked for, and the shares repeat by their seed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{FOR_EVER, Receive};
use crate::support::event::{bare, new_uuid};
use crate::support::service::{Wire, request, run};

/// Sends events of one call after the other; the statuses, 0 for a closed connection.
async fn statuses(args: &[&str], calls: usize, kinds: &[&str]) -> Vec<u16> {
    let receive = Receive::json(args).await;
    let mut statuses = Vec::new();
    for _ in 0..calls {
        let uuid = new_uuid();
        for kind in kinds {
            let answer = receive.try_post(&[], &bare(&uuid, kind)).await;
            statuses.push(answer.map_or(0, |answer| answer.status));
        }
    }
    statuses
}

#[tokio::test]
async fn the_first_requests_of_a_type_fail_in_each_call() {
    let kinds = ["call_initiated", "call_started", "call_started", "call_started", "call_ended"];
    let given = statuses(&["--fail", "call_started:2:500"], 2, &kinds).await;
    let each = [200, 500, 500, 200, 200];
    assert_eq!(given, [each, each].concat());
}

#[tokio::test]
async fn options_that_are_repeated_add_up() {
    let args = ["--fail", "1:500", "--fail", "1:429", "--fail", "call_ended:100%", "--drop", "1"];
    let kinds = ["call_started", "dtmf_digit", "dtmf_digit", "dtmf_digit", "call_ended"];
    assert_eq!(statuses(&args, 1, &kinds).await, [0, 500, 429, 200, 503]);
}

#[tokio::test]
async fn shares_are_kept_and_repeat_by_their_seed_for_other_calls() {
    let args = ["--fail", "20%:503", "--fail", "20%:500", "--drop", "10%", "--seed", "7"];
    let kinds = ["transcription"; 10];
    let given = statuses(&args, 20, &kinds).await;
    assert_eq!(given, statuses(&args, 20, &kinds).await, "seed 7");
    let mut counts = BTreeMap::<u16, usize>::new();
    for status in given {
        *counts.entry(status).or_default() += 1;
    }
    for (status, least, most) in [(0, 8, 35), (200, 75, 125), (500, 22, 60), (503, 22, 60)] {
        let count = counts.get(&status).copied().unwrap_or_default();
        assert!((least..=most).contains(&count), "seed 7: {counts:?}");
    }
}

#[tokio::test]
async fn a_seed_that_was_not_given_is_told() {
    let mut receive = Receive::start(&["--fail", "50%"]).await;
    let line = receive.line().await;
    assert!(line.starts_with("--seed "), "{line:?}");
    let lines = Receive::start(&["--fail", "1", "--delay", "1"]).await.end().await;
    assert!(!lines.concat().contains("--seed"), "nothing is left to chance: {lines:?}");
}

#[tokio::test]
async fn a_dropped_request_gets_no_byte_and_is_shown() {
    let mut receive = Receive::start(&["--drop", "call_started:1"]).await;
    let (uuid, mut wire) = (new_uuid(), Wire::open(receive.addr).await);
    wire.send(request("POST", "/events", &[], &bare(&uuid, "call_started"))).await;
    assert_eq!(wire.rest().await, b"");
    let line = receive.line().await;
    assert!(line.ends_with("→ closed on order"), "{line:?}");
    let answer = receive.post(&[], &bare(&uuid, "call_started")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn drop_alone_is_for_all() {
    assert_eq!(statuses(&["--drop"], 2, &["call_started"; 3]).await, [0; 6]);
}

#[tokio::test]
async fn retry_after_goes_with_429_and_503_and_nothing_else() {
    for (status, expected) in [("429", Some("7")), ("503", Some("7")), ("500", None)] {
        for args in [["--fail", &format!("100%:{status}")], ["--status", status]] {
            let receive = Receive::start(&[&args[..], &["--retry-after", "7"]].concat()).await;
            let answer = receive.post(&[], &bare(&new_uuid(), "call_started")).await;
            assert_eq!(answer.status.to_string(), status);
            assert_eq!(answer.header("retry-after"), expected, "{status}");
        }
    }
}

#[tokio::test]
async fn an_answer_on_order_routes_no_call() {
    let receive = Receive::start(&["--fail", "1", "--sts-url", "ws://sts.test"]).await;
    let (uuid, mut answers) = (new_uuid(), Vec::new());
    for _ in 0..2 {
        answers.push(receive.post(&[], &bare(&uuid, "call_initiated")).await.json());
    }
    assert_eq!(answers[0]["sts_url"], Value::Null);
    assert_eq!(answers[1]["sts_url"], "ws://sts.test");
}

#[tokio::test]
async fn receive_waits_before_each_answer() {
    let receive = Receive::start(&["--delay", "300"]).await;
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(receive.post(&[], &bare(&new_uuid(), "call_started")).await.status, 200);
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_delay_is_for_its_type_and_delays_add_up() {
    let args =
        ["--delay", "call_started:200ms", "--delay", "call_started:1:100", "--delay", "x:1h"];
    let receive = Receive::start(&args).await;
    let uuid = new_uuid();
    let mut took = Vec::new();
    for kind in ["call_ended", "call_started", "call_started"] {
        let start = Instant::now();
        assert_eq!(receive.post(&[], &bare(&uuid, kind)).await.status, 200);
        took.push(start.elapsed());
    }
    assert!(took[1] >= Duration::from_millis(300), "{took:?}");
    assert!(took[2] >= Duration::from_millis(200), "{took:?}");
}

#[tokio::test]
async fn an_event_whose_answer_comes_later_is_shown_when_it_arrives() {
    let mut text = Receive::start(&["--delay", FOR_EVER]).await;
    let mut json = Receive::json(&["--delay", FOR_EVER]).await;
    let uuid = new_uuid();
    for addr in [text.addr, json.addr] {
        let mut wire = Wire::open(addr).await;
        wire.send(request("POST", "/events", &[], &bare(&uuid, "call_started"))).await;
        let line = if addr == text.addr { text.line().await } else { json.line().await };
        assert!(line.contains(&uuid) && line.contains("call_started"), "{line:?}");
        if addr == text.addr {
            assert!(line.ends_with("answer in 60s"), "{line:?}");
            drop(wire);
            let line = text.line().await;
            assert!(line.contains("→ no answer, the sender went away after "), "{line:?}");
        } else {
            let object: Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&object["line"], &object["delay_ms"]), (&json!("arrived"), &json!(60_000)));
            drop(wire);
            let object = json.object().await;
            assert_eq!((&object["verdict"], &object["status"]), (&json!("gone"), &Value::Null));
        }
    }
    assert_eq!(json.report().await["gone"], 1);
}

#[tokio::test]
async fn what_is_no_order_is_a_wrong_option_that_says_what_is_expected() {
    for (option, value, expected) in [
        ("--fail", "503", "[TYPE:]SHARE[:STATUS]"),
        ("--fail", "10%:99", "300 to 599"),
        ("--drop", "10%:503", "[TYPE:]SHARE"),
        ("--delay", "10%", "[TYPE:][SHARE:]TIME"),
        ("--for", "30", "30s"),
        ("--events", "0", "--events"),
    ] {
        let (code, out, err) = run(&["receive", "--port", "0", option, value], &[]).await;
        assert_eq!((code, out.as_str()), (64, ""), "{option} {value}: {err}");
        assert!(err.contains(option) && err.contains(expected), "{option} {value}: {err}");
    }
}
