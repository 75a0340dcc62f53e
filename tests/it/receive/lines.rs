//! What it prints, whatever it gets, and how it ends.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{FOR_EVER, Receive, report_in, service_for};
use crate::support::event::{bare, new_uuid};
use crate::support::service::{Wire, request, run};

/// What `receive` prints on events that carry this text wherever text can be, sent by hand and relayed.
async fn printed(text: &str, args: &[&str]) -> Vec<String> {
    let receive = Receive::start(args).await;
    let service = service_for(&receive.url()).await;
    let own = json!({ "uuid": text, "type": text, "timestamp": text, "payload": { text: text } });
    receive.post(&[("X-AVR-WEBHOOK-SEQUENCE", "1\u{9b}31m")], &own.to_string()).await;
    receive.post(&[], &json!({ "uuid": text, "type": text, "payload": text }).to_string()).await;
    // With the characters themselves between the quotes, as far as JSON allows.
    let raw = text.replace(|char| char < ' ', "");
    let relayed = format!(
        r#"{{"uuid":"{}","type":"call_started","payload":{{"from":"{raw}"}}}}"#,
        new_uuid()
    );
    service.relay(relayed).await;
    service.terminate();
    service.whole_log().await;
    receive.end().await
}

/// Every kind of line, as text and as JSON, on events of this text.
async fn printed_by_all(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for args in [[].as_slice(), &["--json"], &["--delay", "1"], &["--status", "500"]] {
        lines.extend(printed(text, args).await);
    }
    lines
}

#[tokio::test]
async fn control_characters_in_an_event_do_not_reach_the_terminal() {
    let text = "a\u{1b}[31mb\u{7}\r\n\0\t\u{7f}\u{85}\u{9b}1mz\u{2028}";
    for line in printed_by_all(text).await {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let lines = printed(text, &[]).await;
    let events = lines.iter().take_while(|line| !line.contains(" calls, ")).count();
    assert_eq!(events, 3, "one line an event: {lines:?}");
}

#[tokio::test]
async fn marks_that_turn_text_around_do_not_reach_the_terminal() {
    let marks = ['\u{202a}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2069}', '\u{200f}'];
    for line in printed_by_all(&marks.iter().collect::<String>()).await {
        assert!(!line.contains(marks), "{line:?}");
    }
}

#[tokio::test]
async fn what_is_no_event_is_answered_400_and_shown_safely_and_cut() {
    let mut receive = Receive::start(&[]).await;
    let long = format!("{{\u{1b}[31m\u{202e}{}", "x".repeat(5000));
    for (body, shown) in [
        ("no JSON", "no JSON → 400 "),
        ("[1,2]", "[1,2] → 400 "),
        (r#"["u","t","now",{}]"#, r#"["u","t","now",{}] → 400 "#),
        ("{}", "{} → 400 the event has no uuid"),
        (r#"{"uuid":"u"}"#, "→ 400 the event has no type"),
        (r#"{"uuid":5,"type":"t"}"#, "→ 400 "),
        ("", "POST /events → 400 "),
        (&long, "… (5009 bytes) → 400 "),
    ] {
        let answer = receive.post(&[], body).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert!(!answer.error().is_empty());
        let line = receive.line().await;
        assert!(line.contains(shown), "{shown:?} in {line:?}");
        assert!(line.chars().count() < 400, "{line:?}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_answered_413() {
    let receive = Receive::json(&[]).await;
    let most = 1024 * 1024;
    for (length, status) in [(most, 200), (most + 1, 413)] {
        let frame = bare("u", "t").len() - 2;
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(length - frame - 8));
        let body = bare("u", "t").replace("{}", &text);
        assert_eq!(body.len(), length);
        assert_eq!(receive.post(&[], &body).await.status, status, "{length} bytes");
    }
    assert_eq!(receive.report().await["answers"], json!({"200": 1, "413": 1}));
}

#[tokio::test]
async fn another_method_than_post_is_answered_405_and_shown() {
    let mut receive = Receive::start(&[]).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let mut wire = Wire::open(receive.addr).await;
        wire.send(request(method, "/events?a=1", &[], "")).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        let line = receive.line().await;
        assert!(line.contains(&format!("{method} /events → 405")), "{line:?}");
    }
}

#[tokio::test]
async fn an_event_without_a_number_shows_a_dash() {
    let mut receive = Receive::start(&[]).await;
    let uuid = new_uuid();
    for (headers, shown) in [
        ([].as_slice(), format!("{uuid} - call_started")),
        (&[("X-AVR-WEBHOOK-SEQUENCE", "0")], format!("{uuid} - call_started")),
        (&[("X-AVR-WEBHOOK-SEQUENCE", "one")], format!("{uuid} - call_started")),
        (&[("X-AVR-WEBHOOK-SEQUENCE", "1")], format!("{uuid} #1 call_started")),
    ] {
        receive.post(headers, &bare(&uuid, "call_started")).await;
        let line = receive.line().await;
        assert!(line.contains(&shown), "{shown:?} in {line:?}");
    }
}

#[tokio::test]
async fn a_long_payload_is_cut_in_text_and_whole_in_json() {
    let payload = json!({ "text": "x".repeat(20_000) });
    let body =
        json!({ "uuid": new_uuid(), "type": "transcription", "payload": payload }).to_string();
    let mut text = Receive::start(&[]).await;
    text.post(&[], &body).await;
    let line = text.line().await;
    assert!(line.len() < 1200 && line.contains("… (20011 bytes) → 200"), "{line:?}");
    let mut json = Receive::json(&[]).await;
    json.post(&[], &body).await;
    assert_eq!(json.object().await["payload"], payload);
}

#[tokio::test]
async fn json_has_an_object_a_line_with_what_matters_and_no_secret() {
    let mut receive = Receive::json(&["--secret", "tulip"]).await;
    let uuid = new_uuid();
    let headers = [
        ("X-AVR-WEBHOOK-SECRET", "tulip"),
        ("X-AVR-WEBHOOK-ATTEMPT", "2"),
        ("X-AVR-WEBHOOK-SEQUENCE", "1"),
        ("X-AVR-AGENT-ID", "agent-1"),
        ("webhook-id", "an-id"),
        ("User-Agent", "test/1"),
        ("Cookie", "tulip"),
    ];
    let body = json!({ "uuid": uuid, "type": "call_started", "timestamp": "2026-01-02T03:04:05.678Z",
        "payload": { "b": 1, "a": "é" } });
    receive.post(&headers, &body.to_string()).await;
    let line = receive.line().await;
    assert!(!line.contains("tulip"), "{line}");
    let object: Value = serde_json::from_str(&line).unwrap();
    for (field, value) in [
        ("line", json!("event")),
        ("path", json!("/events")),
        ("uuid", json!(uuid)),
        ("type", json!("call_started")),
        ("timestamp", json!("2026-01-02T03:04:05.678Z")),
        ("payload", json!({ "b": 1, "a": "é" })),
        ("sequence", json!(1)),
        ("attempt", json!(2)),
        ("status", json!(200)),
        ("verdict", json!("usual")),
        ("reason", Value::Null),
        ("remarks", json!([])),
        (
            "headers",
            json!({ "webhook-id": "an-id", "x-avr-webhook-attempt": "2",
                "x-avr-webhook-sequence": "1", "x-avr-agent-id": "agent-1",
                "user-agent": "test/1" }),
        ),
    ] {
        assert_eq!(object[field], value, "{field} in {line}");
    }
    let report = receive.report().await;
    assert_eq!((&report["events"], &report["calls"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn the_report_counts_everything() {
    let mut receive = Receive::start(&[]).await;
    let (ended, open, announced) = (new_uuid(), new_uuid(), new_uuid());
    for (uuid, kind) in [
        (&ended, "call_started"),
        (&ended, "dtmf_digit"),
        (&ended, "call_ended"),
        (&open, "call_started"),
        (&announced, "call_initiated"),
    ] {
        receive.post(&[], &bare(uuid, kind)).await;
        receive.line().await;
    }
    receive.post(&[], "nothing").await;
    let lines = receive.end().await;
    let report: Vec<String> = lines[1..]
        .iter()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(report[0].starts_with("3 calls, 5 events in 6 requests in "), "{report:#?}");
    assert_eq!(
        report[1..],
        [
            "by type call_ended 1, call_initiated 1, call_started 2, dtmf_digit 1",
            "answers 200 × 5, 400 × 1",
            "repeats 0",
            "duplicates 0",
            "out of order 0",
            "gaps 0",
            "two at once 0",
            "after call_ended 0",
            "refused 0",
            &format!("without call_ended 1: {open}"),
            "announced only 1",
            "no events 1",
        ]
    );
}

#[tokio::test]
async fn it_ends_by_itself_after_so_many_events_however_often_each_came() {
    let receive = Receive::json(&["--events", "3", "--fail", "call_started:1"]).await;
    let uuid = new_uuid();
    for (id, kind, status) in [
        ("1", "call_started", 503),
        ("1", "call_started", 200),
        ("1", "call_started", 200),
        ("2", "dtmf_digit", 200),
        ("3", "call_ended", 200),
    ] {
        let answer = receive.post(&[("webhook-id", id)], &bare(&uuid, kind)).await;
        assert_eq!(answer.status, status, "{kind}");
    }
    let report = report_in(&receive.rest().await);
    assert_eq!((&report["events"], &report["requests"]), (&json!(3), &json!(5)));
}

#[tokio::test]
async fn it_ends_by_itself_after_a_time() {
    let report = report_in(&Receive::json(&["--for", "50ms"]).await.rest().await);
    assert_eq!(report["requests"], 0);
    assert!(report["took_ms"].as_u64() >= Some(50), "{report}");
}

#[tokio::test]
async fn it_ends_with_0_when_nobody_reads_its_output_any_more() {
    let Receive { addr, mut child, lines } = Receive::start(&[]).await;
    drop(lines);
    // The first line after that cannot be written.
    while let Ok(mut wire) = Wire::try_open(addr).await {
        wire.send(request("POST", "/events", &[], &bare(&new_uuid(), "call_started"))).await;
        wire.answer().await;
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_stuck_output_holds_up_neither_the_signal_nor_the_end() {
    let mut receive = Receive::start(&[]).await;
    let text = "x".repeat(1000);
    let body = json!({ "uuid": new_uuid(), "type": "t", "payload": { "text": text } }).to_string();
    // Over three times what a pipe holds, and fewer than wait in memory.
    for _ in 0..200 {
        assert_eq!(receive.post(&[], &body).await.status, 200);
    }
    assert_eq!(receive.signal("INT").await, 0);
}

#[tokio::test]
async fn receive_ends_with_69_where_the_port_is_taken() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, out, err) = run(&["receive", "--port", &port], &[]).await;
    assert_eq!((code, out.as_str()), (69, ""), "{err}");
    assert!(err.contains(&port) && err.contains("--port"), "{err}");
}

#[tokio::test]
async fn a_signal_ends_receive_at_once_with_0_though_an_answer_is_due_later() {
    for signal in ["TERM", "INT"] {
        let mut receive = Receive::start(&["--delay", FOR_EVER]).await;
        let mut wire = Wire::open(receive.addr).await;
        // The interim answer tells that the body is being read, so that the answer is due.
        let body = bare(&new_uuid(), "call_started");
        let head = request("POST", "/events", &[("Expect", "100-continue")], &body);
        wire.send(&head[..head.len() - body.len()]).await;
        assert_eq!(wire.answer().await.expect("an interim answer").status, 100);
        wire.send(body).await;
        let start = Instant::now();
        assert_eq!(receive.signal(signal).await, 0, "SIG{signal} with an answer due");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_signal_ends_receive_with_0_from_its_first_line_on() {
    // Often, as a signal that is not caught yet is a matter of microseconds.
    for _ in 0..40 {
        for signal in ["TERM", "INT"] {
            assert_eq!(Receive::start(&[]).await.signal(signal).await, 0, "SIG{signal}");
        }
    }
}
