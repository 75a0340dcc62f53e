//! What is odd about a call is marked where it happens, and counted in the report.

use serde_json::{Value, json};

use super::{FOR_EVER, Receive};
use crate::support::event::{bare, new_uuid};
use crate::support::service::{Wire, request};

/// An event as callhook sends it.
struct Sent<'a> {
    uuid: &'a str,
    kind: &'a str,
    id: &'a str,
    sequence: &'a str,
    attempt: &'a str,
}

impl Sent<'_> {
    fn headers(&self) -> [(&str, &str); 3] {
        [
            ("webhook-id", self.id),
            ("X-AVR-WEBHOOK-SEQUENCE", self.sequence),
            ("X-AVR-WEBHOOK-ATTEMPT", self.attempt),
        ]
    }
}

/// Sends events one after the other; what is remarked of each, and the report.
async fn remarks(args: &[&str], events: &[(&str, Sent<'_>)]) -> Value {
    let mut receive = Receive::json(args).await;
    for (expected, sent) in events {
        let body = bare(sent.uuid, sent.kind);
        receive.try_post(&sent.headers(), &body).await;
        let object = receive.object().await;
        let remarks = object["remarks"].as_array().unwrap().iter();
        let names: Vec<&str> = remarks.map(|remark| remark["name"].as_str().unwrap()).collect();
        let place = format!("{} #{} (attempt {})", sent.kind, sent.sequence, sent.attempt);
        assert_eq!(names.join(" "), *expected, "{place}: {object}");
    }
    receive.report().await
}

fn sent<'a>(uuid: &'a str, kind: &'a str, id: &'a str, sequence: &'a str) -> Sent<'a> {
    Sent { uuid, kind, id, sequence, attempt: "1" }
}

#[tokio::test]
async fn an_event_that_was_answered_and_comes_again_is_a_duplicate() {
    let uuid = new_uuid();
    let again = Sent { attempt: "2", ..sent(&uuid, "call_started", "a", "1") };
    let first = || sent(&uuid, "call_started", "a", "1");
    let report = remarks(&[], &[("", first()), ("duplicate", again)]).await;
    assert_eq!((&report["duplicates"], &report["repeats"]), (&json!(1), &json!(1)));
    assert_eq!(report["events"], 1);
    let crashed = [("", first()), ("duplicate", first())];
    assert_eq!(remarks(&[], &crashed).await["duplicates"], 1);
}

#[tokio::test]
async fn an_attempt_at_what_failed_is_no_duplicate() {
    let uuid = new_uuid();
    let attempt = |attempt| Sent { attempt, ..sent(&uuid, "call_started", "a", "1") };
    let attempts = [("", attempt("1")), ("", attempt("2")), ("", attempt("3"))];
    let report = remarks(&["--fail", "1:500", "--drop", "1"], &attempts).await;
    assert_eq!((&report["duplicates"], &report["repeats"]), (&json!(0), &json!(2)));
    let skipping = [("", attempt("1")), ("attempt", attempt("3"))];
    remarks(&["--fail", "1"], &skipping).await;
}

#[tokio::test]
async fn an_event_without_an_id_is_known_again_by_its_body_if_that_has_a_timestamp() {
    let mut receive = Receive::json(&[]).await;
    let body =
        json!({ "uuid": new_uuid(), "type": "call_started", "timestamp": "2026-01-02T03:04:05Z" });
    for (body, remarks) in [
        (body.to_string(), json!([])),
        (body.to_string(), json!(["duplicate"])),
        (bare("x", "call_started"), json!([])),
        (bare("x", "call_started"), json!([])),
    ] {
        receive.post(&[], &body).await;
        let object = receive.object().await;
        let names: Vec<&Value> =
            object["remarks"].as_array().unwrap().iter().map(|remark| &remark["name"]).collect();
        assert_eq!(json!(names), remarks, "{body}");
    }
}

#[tokio::test]
async fn gaps_and_what_comes_late_are_marked_and_what_never_comes_is_counted() {
    let (uuid, other) = (new_uuid(), new_uuid());
    let report = remarks(
        &[],
        &[
            ("", sent(&uuid, "call_started", "a", "1")),
            ("gap", sent(&uuid, "transcription", "d", "4")),
            ("", sent(&other, "call_started", "o", "1")),
            ("out_of_order", sent(&uuid, "transcription", "b", "2")),
            ("number_twice", sent(&uuid, "transcription", "x", "4")),
            ("", sent(&uuid, "transcription", "e", "5")),
            ("numbers_anew", sent(&uuid, "transcription", "f", "1")),
            ("", sent(&uuid, "call_ended", "g", "2")),
            ("after_call_ended", sent(&uuid, "transcription", "h", "3")),
        ],
    )
    .await;
    for (count, expected) in [
        ("gaps", 1),
        ("out_of_order", 1),
        ("after_call_ended", 1),
        ("other_remarks", 2),
        ("without_call_ended", 1),
        ("calls", 2),
        ("events", 9),
    ] {
        assert_eq!(report[count], expected, "{count} in {report}");
    }
    assert_eq!(report["unended"], json!([other]));
}

#[tokio::test]
async fn a_text_line_has_its_remarks() {
    let mut receive = Receive::start(&[]).await;
    let uuid = new_uuid();
    for (sent, mark) in [
        (sent(&uuid, "call_ended", "a", "3"), "→ 200 ! gap: #1 to #2 are missing"),
        (sent(&uuid, "dtmf_digit", "b", "2"), " ! after call_ended ! out of order: #3 came before"),
    ] {
        receive.post(&sent.headers(), &bare(sent.uuid, sent.kind)).await;
        let line = receive.line().await;
        assert!(line.ends_with(mark), "{mark:?} in {line:?}");
    }
}

#[tokio::test]
async fn two_requests_of_a_call_at_once_are_marked_and_of_two_calls_are_not() {
    let mut receive = Receive::json(&["--delay", &format!("call_started:{FOR_EVER}")]).await;
    let (uuid, other) = (new_uuid(), new_uuid());
    let mut held = Vec::new();
    for uuid in [&uuid, &other] {
        let mut wire = Wire::open(receive.addr).await;
        wire.send(request("POST", "/events", &[], &bare(uuid, "call_started"))).await;
        assert_eq!(receive.object().await["line"], "arrived");
        held.push(wire);
    }
    receive.post(&[], &bare(&uuid, "dtmf_digit")).await;
    let object = receive.object().await;
    assert_eq!(object["remarks"][0]["name"], "at_once", "{object}");
    drop(held);
    for _ in 0..2 {
        assert_eq!(receive.object().await["verdict"], "gone");
    }
    receive.post(&[], &bare(&uuid, "dtmf_digit")).await;
    assert_eq!(receive.object().await["remarks"], json!([]));
    assert_eq!(receive.report().await["at_once"], 1);
}
