//! What the receiver says of a failure: kept with the attempt and the dead letter, and nowhere else.

use serde_json::{Value, json};

use crate::support::event::{bare, event, new_uuid};
use crate::support::flawed::parrot;
use crate::support::journal::Journal;
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::{Service, serve};

async fn dead_letters(service: &Service) -> Vec<Value> {
    let answer = service.ask_admin("GET", "/api/dead", &[]).await;
    answer.json()["items"].as_array().expect("a list").clone()
}

/// Waits until the event of this call is given up.
async fn given_up(service: &Service, uuid: &str) {
    let given_up =
        |line: &Value| line["message"] == "webhook delivery failed" && line["uuid"] == uuid;
    service.log_line(given_up).await;
}

/// The attempts of the only event of a call.
async fn attempts(service: &Service, uuid: &str) -> Vec<Value> {
    let answer = service.ask_admin("GET", &format!("/api/calls/{uuid}"), &[]).await;
    answer.json()["timeline"][0]["attempts"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn what_the_receiver_says_is_with_each_attempt_and_with_the_dead_letter_also_after_a_restart()
{
    let journal = Journal::new();
    let receiver = Receiver::start(|seen| match seen.header("x-avr-webhook-attempt") {
        Some("1") => Reply::status(500).body("res is\r\nnot \u{1b}[31mdefined\u{0}"),
        _ => Reply::status(422).body(format!("{{\"no\":\"{}\"}}", "é".repeat(2000))),
    })
    .await;
    let service =
        journal.serve(&receiver.url, &[("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")]).await;
    let (uuid, silent) = (new_uuid(), new_uuid());
    service.relay(bare(&uuid, "call_started")).await;
    given_up(&service, &uuid).await;
    let attempts = attempts(&service, &uuid).await;
    assert_eq!(attempts[0]["answer"], r"res is\r\nnot \u{1b}[31mdefined\u{0}");
    let last = format!("{{\"no\":\"{}", "é".repeat(508));
    assert_eq!(attempts[1]["answer"], last, "1 KB");
    let letters = dead_letters(&service).await;
    assert_eq!(letters[0]["answer"], last);
    drop(receiver);
    service.relay(bare(&silent, "call_started")).await;
    given_up(&service, &silent).await;
    // Reading waits until all is written.
    assert_eq!(dead_letters(&service).await.len(), 2);
    crate::support::journal::kill(service).await;
    let service = journal.serve("http://127.0.0.1:1/events", &[]).await;
    let answers: Vec<Value> =
        dead_letters(&service).await.iter().map(|letter| letter["answer"].clone()).collect();
    assert_eq!(answers, [json!(last), Value::Null], "the second got none");
}

#[tokio::test]
async fn what_the_receiver_says_is_logged_at_debug_only_and_never_shows_a_secret() {
    let receiver = Receiver::start(parrot).await;
    for level in ["info", "debug"] {
        let url = receiver.url.replace("http://", "http://joe:p%22ss@");
        let vars = [("WEBHOOK_SECRET", "s3cret\"s"), ("LOG_LEVEL", level)];
        let service = serve(&url, &vars).await;
        let uuid = new_uuid();
        service.relay(event(&uuid, "transcription", json!({ "text": "sotto voce" }))).await;
        given_up(&service, &uuid).await;
        let answer = &dead_letters(&service).await[0]["answer"];
        let answer = answer.as_str().expect("what the parrot says");
        assert!(answer.contains("***"), "{answer}");
        let log = service.log_so_far().iter().map(Value::to_string).collect::<String>();
        assert_eq!(log.contains("sotto voce"), level == "debug", "{level}: {log}");
        for text in [answer, &log] {
            for secret in ["s3cret", "p%22ss", "p\"ss", "am9lOnAic3M="] {
                assert!(!text.contains(secret), "{secret} is in {text}");
            }
        }
    }
}
