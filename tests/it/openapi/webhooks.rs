//! What a receiver is really sent, against what the document says under `webhooks`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Running;
use super::document::Document;
use crate::support::asterisk::{Asterisk, FRAME, HANGUP};
use crate::support::receiver::{Receiver, Reply, Seen};
use crate::support::sts::{Manner, Sts};

/// Headers that any HTTP request may have.
const PLAIN: [&str; 4] = ["host", "accept", "content-length", "content-type"];

/// Every setting that adds a header.
const DRESSED: [(&str, &str); 4] = [
    ("WEBHOOK_SECRET", "s3cret"),
    ("AGENT_ID", "front-desk"),
    ("WEBHOOK_SIGNING_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("WEBHOOK_EVENTS", "*"),
];

/// Panics unless the request is as documented.
fn check(document: &Document, seen: &Seen) {
    let kind = seen.kind();
    let operation = document.at(&format!("#/webhooks/{kind}/post"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    document.validate_by(kind, schema, &seen.body);
    let order: Vec<&String> = seen.body.as_object().unwrap().keys().collect();
    assert_eq!(order, ["uuid", "type", "timestamp", "payload"]);
    let mut documented: BTreeSet<String> = PLAIN.iter().map(ToString::to_string).collect();
    for parameter in operation["parameters"].as_array().unwrap() {
        let parameter = document.resolved(parameter);
        let name = parameter["name"].as_str().unwrap();
        documented.insert(name.to_lowercase());
        match seen.header(name) {
            Some(value) => document.check_text(&format!("{name} of {kind}"), parameter, value),
            None => assert_ne!(parameter["required"], true, "{kind} lacks {name}"),
        }
    }
    for name in seen.headers.keys() {
        assert!(documented.contains(name.as_str()), "{kind} has {name}, which is not documented");
    }
}

/// The bodies that the document shows.
fn examples(document: &Document) -> Vec<Value> {
    let kinds = document.at("#/webhooks").as_object().unwrap().keys();
    let content = |kind| {
        document.at(&format!("#/webhooks/{kind}/post/requestBody/content/application~1json"))
    };
    kinds
        .flat_map(|kind| match content(kind).get("example") {
            Some(example) => vec![example.clone()],
            None => {
                let named = content(kind)["examples"].as_object().unwrap();
                named.values().map(|example| example["value"].clone()).collect()
            }
        })
        .collect()
}

#[tokio::test]
async fn what_a_relay_hands_over_is_sent_as_documented_and_as_shown() {
    let document = Document::read();
    let examples = examples(&document);
    for dress in [&DRESSED[..], &DRESSED[3..]] {
        let receiver = Receiver::content().await;
        let running = Running::start(&[&[("WEBHOOK_URL", &*receiver.url)], dress].concat()).await;
        for example in &examples {
            let answer = running.ask("POST", "/events", &[], &example.to_string()).await;
            assert!([200, 202].contains(&answer.status), "{answer:?}");
        }
        let seen = receiver.seen(examples.len()).await;
        for (seen, example) in seen.iter().zip(&examples) {
            assert_eq!(&seen.body, example, "the examples are of one call, so they come in order");
            check(&document, seen);
            let dressed = dress.len() == DRESSED.len();
            for header in ["x-avr-webhook-secret", "x-avr-agent-id", "webhook-signature"] {
                assert_eq!(seen.header(header).is_some(), dressed, "{header}");
            }
        }
    }
}

#[tokio::test]
async fn what_happens_in_a_bridged_call_is_sent_as_documented() {
    let document = Document::read();
    let receiver = Receiver::content().await;
    let sts = Sts::start(Manner::Usual).await;
    let own = [
        ("WEBHOOK_URL", &*receiver.url),
        ("STS_URL", &*sts.url),
        ("CALL_ENDED_DETAILS", "true"),
        ("ADMIN_TOKEN", "sesame"),
    ];
    let running = Running::start(&[&own[..], &DRESSED].concat()).await;
    let mut asterisk = Asterisk::dial(running.service.audiosocket().await).await;
    let session = sts.session(0).await;
    session.audio(&[7; 50 * FRAME]).await;
    session.transcript("agent", "Good evening.").await;
    session.interruption().await;
    session.say(json!({"type": "error", "message": "the model is overloaded"})).await;
    // What the server says is all there once its last message is.
    receiver.seen(4).await;
    asterisk.digit('5').await;
    assert!(asterisk.frame(HANGUP, &[]).await, "the call is live");
    let seen = receiver.seen(6).await;
    let kinds: Vec<&str> = seen.iter().map(Seen::kind).collect();
    let expected =
        ["call_started", "transcription", "interruption", "error", "dtmf_digit", "call_ended"];
    assert_eq!(kinds, expected);
    for seen in &seen {
        check(&document, seen);
        let place = "#/components/schemas/Time";
        document.validate("callhook's own timestamp", place, &seen.body["timestamp"]);
    }
    assert_eq!(seen[5].body["payload"]["reason"], "hangup");
    for (path, place) in [
        (format!("/api/calls/{}", seen[0].uuid()), "CallTimeline"),
        ("/api/calls".to_owned(), "Calls"),
        ("/api/state".to_owned(), "State"),
    ] {
        let headers = [("Authorization", "Bearer sesame")];
        let answer = running.ask("GET", &path, &headers, "").await;
        document.validate(&path, &format!("#/components/schemas/{place}"), &answer.json());
    }
}

#[tokio::test]
async fn every_attempt_is_as_documented() {
    let document = Document::read();
    let receiver = Receiver::start(|seen| match seen.header("x-avr-webhook-attempt") {
        Some("3") => Reply::ok(),
        _ => Reply::status(500),
    })
    .await;
    let vars = [
        ("WEBHOOK_URL", &*receiver.url),
        ("WEBHOOK_RETRY", "2"),
        ("WEBHOOK_BACKOFF", "1"),
        ("WEBHOOK_EVENTS", "*"),
    ];
    let running = Running::start(&vars).await;
    let body = json!({"uuid": "7F9C1F3E0D6C4C7E9F430B6F6A0F3D21", "type": "call_started"});
    let headers = [("X-AVR-AGENT-ID", "back-office"), ("webhook-id", "booking-4711")];
    let answer = running.ask("POST", "/events", &headers, &body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let seen = receiver.seen(3).await;
    for seen in &seen {
        check(&document, seen);
        assert_eq!(seen.header("webhook-id"), Some("booking-4711"));
        assert_eq!(seen.header("x-avr-agent-id"), Some("back-office"));
    }
}
