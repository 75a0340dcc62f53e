//! Whom it refuses: by the secret, by the signature, by the age of the signature.

use std::time::{Duration, SystemTime};

use callhook::delivery::signature::SigningKeys;
use serde_json::json;

use super::Receive;
use crate::support::event::{bare, new_uuid};
use crate::support::service::{Service, run};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The headers of an event that this key signed so long ago.
fn signed(key: &str, body: &str, age: Duration) -> [(&'static str, String); 3] {
    let keys: SigningKeys = key.parse().unwrap();
    let signed = keys.sign("an-id", SystemTime::now() - age, body.as_bytes());
    [
        ("webhook-id", "an-id".to_owned()),
        ("webhook-timestamp", signed.timestamp.to_string()),
        ("webhook-signature", signed.signatures),
    ]
}

#[tokio::test]
async fn a_wrong_secret_is_refused_with_401() {
    const SECRET: &str = "X-AVR-WEBHOOK-SECRET";
    let mut receive = Receive::start(&["--secret", "tulip"]).await;
    let body = bare(&new_uuid(), "call_started");
    for (headers, status) in [
        ([].as_slice(), 401),
        (&[(SECRET, "rose")], 401),
        (&[(SECRET, "tuli")], 401),
        (&[(SECRET, "tulips")], 401),
        (&[(SECRET, "tulip")], 200),
    ] {
        assert_eq!(receive.post(headers, &body).await.status, status, "{headers:?}");
        let line = receive.line().await;
        assert!(line.contains(&status.to_string()), "{line:?}");
    }
    assert!(!receive.end().await.concat().contains("tulip"));
}

#[tokio::test]
async fn a_refusal_says_why_in_the_answer_and_in_its_line() {
    let mut receive =
        Receive::start(&["--verify", "--secret", "tulip", "--signing-key", KEY]).await;
    let body = bare(&new_uuid(), "call_started");
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let now = Duration::ZERO;
    for (secret, (key, content, age), missing, reason) in [
        (None, (KEY, &*body, now), None, "X-AVR-WEBHOOK-SECRET is missing"),
        (Some("rose"), (KEY, &body, now), None, "X-AVR-WEBHOOK-SECRET is wrong"),
        (Some("tulip"), (KEY, &body, now), Some("webhook-id"), "webhook-id is missing"),
        (
            Some("tulip"),
            (KEY, &body, now),
            Some("webhook-timestamp"),
            "webhook-timestamp is missing",
        ),
        (
            Some("tulip"),
            (KEY, &body, now),
            Some("webhook-signature"),
            "webhook-signature is missing",
        ),
        (Some("tulip"), (OTHER, &body, now), None, "webhook-signature is not this key's"),
        (Some("tulip"), (KEY, "{}", now), None, "webhook-signature is not this key's"),
        (Some("tulip"), (KEY, &body, minutes(6)), None, " s old; 300 s are taken"),
    ] {
        let signed = signed(key, content, age);
        let secret = secret.map(|secret| ("X-AVR-WEBHOOK-SECRET", secret));
        let given = signed.iter().map(|(name, value)| (*name, &**value));
        let headers: Vec<(&str, &str)> =
            given.filter(|(name, _)| missing != Some(*name)).chain(secret).collect();
        let answer = receive.post(&headers, &body).await;
        assert_eq!(answer.status, 401, "{reason}");
        assert!(answer.error().contains(reason), "{reason:?} in {answer:?}");
        let line = receive.line().await;
        assert!(line.contains("→ 401 refused: ") && line.contains(reason), "{line:?}");
    }
    let end = receive.end().await.concat();
    assert!(end.starts_with("0 calls, 0 events in 8 requests"), "they are no events: {end}");
}

#[tokio::test]
async fn what_callhook_signs_is_taken() {
    let mut receive = Receive::json(&["--verify", "--secret", "tulip", "--signing-key", KEY]).await;
    let url = receive.url();
    let vars = [("WEBHOOK_URL", &*url), ("WEBHOOK_SECRET", "tulip"), ("WEBHOOK_SIGNING_KEY", KEY)];
    let service = Service::start(&vars).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    assert_eq!(receive.object().await["status"], 200);
}

#[tokio::test]
async fn no_fault_strikes_who_is_refused() {
    let receive = Receive::json(&["--secret", "tulip", "--fail", "1:500", "--delay", "1h"]).await;
    let body = bare(&new_uuid(), "call_started");
    for _ in 0..2 {
        assert_eq!(receive.post(&[], &body).await.status, 401);
    }
    let report = receive.report().await;
    assert_eq!((&report["refused"], &report["answers"]), (&json!(2), &json!({ "401": 2 })));
}

#[tokio::test]
async fn verify_without_anything_to_verify_is_a_wrong_option() {
    let (code, _, err) = run(&["receive", "--verify"], &[]).await;
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("--secret") && err.contains("--signing-key"), "{err}");
}

#[tokio::test]
async fn a_misspelt_key_is_not_repeated() {
    let (code, _, err) = run(&["receive", "--signing-key", "wsec_MfKQ9r8GKYqrT"], &[]).await;
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("--signing-key") && !err.contains("MfKQ"), "{err}");
}
