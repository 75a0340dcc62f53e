//! What was recorded is played again: by the reader of scenarios, and by `callhook simulate`.

use std::path::PathBuf;
use std::time::Duration;

use callhook::workbench::scenario::{Planned, Scenario, plan};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Receive;
use crate::support::event::{bare, new_uuid};
use crate::support::service::run;

/// A directory with a place for a recording.
fn place() -> (TempDir, PathBuf, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("calls.toml");
    let text = path.to_str().unwrap().to_owned();
    (directory, path, text)
}

/// What the recording's calls come to, each as times in milliseconds, types and payloads.
fn recorded(text: &str) -> Vec<Vec<(u128, String, String)>> {
    let scenario = Scenario::parse("calls", text).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let each = scenario.scripts.iter().map(|script| {
        let alone = Scenario { scripts: vec![script.clone()], ..scenario.clone() };
        let told = |event: &Planned| {
            (event.at.as_millis(), event.kind.to_string(), event.payload.as_str().to_owned())
        };
        plan(&[alone], 1, 1).events.iter().map(told).collect()
    });
    each.collect()
}

/// An event that happened so many seconds after noon.
fn at(uuid: &str, kind: &str, seconds: f64, payload: &str) -> String {
    let time = chrono::DateTime::parse_from_rfc3339("2026-01-02T12:00:00Z").unwrap();
    let time = (time + Duration::from_secs_f64(seconds)).to_rfc3339();
    format!(r#"{{"uuid":"{uuid}","type":"{kind}","timestamp":"{time}","payload":{payload}}}"#)
}

#[tokio::test]
async fn calls_are_kept_with_their_times_and_payloads_and_without_repeats() {
    let (_directory, path, file) = place();
    let receive = Receive::json(&["--record", &file, "--fail", "call_started:1"]).await;
    let (one, two) = (new_uuid(), new_uuid());
    let odd = r#"{ "it's": "{{any}} \u0000 é \u007f", "n": 1.50, "n": 12345678901234567890123 }"#;
    for (id, body) in [
        ("1", at(&one, "call_initiated", 0.0, r#"{"from":"2000"}"#)),
        ("2", at(&two, "call_started", 0.1, "{}")),
        ("3", at(&one, "call_started", 0.75, "{}")),
        ("3", at(&one, "call_started", 0.75, "{}")),
        ("4", at(&one, "transcription", 2.0, odd)),
        ("5", at(&one, "call_ended", 2.5, "null")),
        ("6", at(&two, "tool", 61.1, r#"{"name":"book"}"#)),
    ] {
        receive.post(&[("webhook-id", id)], &body).await;
    }
    let report = receive.report().await;
    let expected = json!({ "file": file, "calls": 2, "events": 6, "left_out": 0 });
    assert_eq!(report["recorded"], expected);
    let text = std::fs::read_to_string(path).unwrap();
    let told = |at, kind: &str, payload: &str| (at, kind.to_owned(), payload.to_owned());
    assert_eq!(
        recorded(&text),
        [
            vec![
                told(0, "call_initiated", r#"{"from":"2000"}"#),
                told(750, "call_started", "{}"),
                told(2000, "transcription", odd),
                told(2500, "call_ended", "{}"),
            ],
            vec![told(0, "call_started", "{}"), told(61_000, "tool", r#"{"name":"book"}"#)],
        ],
        "{text}"
    );
    assert!(text.contains(&one) && text.contains(&two), "{text}");
}

#[tokio::test]
async fn what_simulate_plays_is_recorded_and_played_again() {
    let (_directory, path, file) = place();
    let args = ["--scenario", "ivr", "--calls", "1", "--seed", "5", "--speed", "max", "--json"];
    let receive = Receive::json(&["--record", &file]).await;
    let (code, _, err) = run(&[&["simulate", &receive.url()], &args[..]].concat(), &[]).await;
    assert_eq!(code, 0, "{err}");
    receive.report().await;
    let first = recorded(&std::fs::read_to_string(&path).unwrap());
    let again = path.with_file_name("again.toml");
    let receive = Receive::json(&["--record", again.to_str().unwrap()]).await;
    let args = ["--scenario", &file, "--calls", "1", "--speed", "max", "--json"];
    let (code, _, err) = run(&[&["simulate", &receive.url()], &args[..]].concat(), &[]).await;
    assert_eq!(code, 0, "{err}");
    receive.report().await;
    let second = recorded(&std::fs::read_to_string(again).unwrap());
    let contents = |calls: &[Vec<(u128, String, String)>]| -> Vec<(String, String)> {
        calls.iter().flatten().map(|(_, kind, json)| (kind.clone(), json.clone())).collect()
    };
    assert!(first[0].len() > 3, "{first:?}");
    assert_eq!(contents(&first), contents(&second));
}

#[tokio::test]
async fn what_is_refused_or_no_scenario_can_hold_is_left_out() {
    let (_directory, path, file) = place();
    let mut receive = Receive::json(&["--record", &file, "--secret", "tulip"]).await;
    let uuid = new_uuid();
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(64 * 1024));
    for (secret, body) in [
        ("rose", bare(&uuid, "call_started")),
        ("tulip", bare(&uuid, "call_started")),
        ("tulip", bare(&uuid, "two words")),
        ("tulip", at(&uuid, "transcription", 0.0, "[1]")),
        ("tulip", at(&uuid, "transcription", 0.0, &long)),
    ] {
        receive.post(&[("X-AVR-WEBHOOK-SECRET", secret)], &body).await;
        receive.object().await;
    }
    let report = receive.report().await;
    assert_eq!(
        (&report["recorded"]["events"], &report["recorded"]["left_out"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(recorded(&std::fs::read_to_string(path).unwrap())[0].len(), 1);
}

#[tokio::test]
async fn where_nothing_came_a_file_is_left_as_it_was() {
    let (_directory, path, file) = place();
    let report = Receive::json(&["--record", &file]).await.report().await;
    assert_eq!(report["recorded"]["calls"], 0);
    assert!(!path.exists(), "a new one is not there");
    std::fs::write(&path, "precious").unwrap();
    let end = Receive::start(&["--record", &file]).await.end().await.concat();
    assert!(end.contains("left as it was"), "{end}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let receive = Receive::json(&["--record", &file]).await;
    receive.post(&[], &bare(&new_uuid(), "call_started")).await;
    let report: Value = receive.report().await;
    assert_eq!(report["recorded"]["events"], 1);
    assert!(!std::fs::read_to_string(&path).unwrap().contains("precious"));
}

#[tokio::test]
async fn where_the_port_is_taken_no_file_is_left_behind() {
    let (_directory, path, file) = place();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, err) = run(&["receive", "--port", &port, "--record", &file], &[]).await;
    assert_eq!(code, 69, "{err}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_cannot_be_written_ends_it_with_1_at_once() {
    let (directory, _, _) = place();
    let file = directory.path().join("no/such/calls.toml");
    let args = ["receive", "--port", "0", "--record", file.to_str().unwrap()];
    let (code, out, err) = run(&args, &[]).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("--record") && err.contains("calls.toml"), "{err}");
}
