//! What counts as success, when a failed attempt is made again, and how long that takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{as_told, texts};
use crate::support::event::{bare, event, new_uuid};
use crate::support::receiver::{Receiver, Reply, Seen, of_call};
use crate::support::service::serve;

/// The pauses between one request and the next, in milliseconds.
fn pauses(seen: &[Seen]) -> Vec<u128> {
    seen.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect()
}

#[tokio::test]
async fn any_2xx_with_any_body_is_success() {
    let bodies = ["", "OK", "{", "null", "<html>", r#"{"error":"no"}"#, r#"{"status":"ok"}"#];
    let receiver = Receiver::start(move |seen| {
        let body = seen.body["payload"]["body"].as_u64().expect("an index");
        as_told(seen).body(bodies[usize::try_from(body).expect("small")])
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "2"), ("WEBHOOK_BACKOFF", "1")]).await;
    let uuid = new_uuid();
    let mut cases = Vec::new();
    for status in [200, 201, 202, 203, 206, 207, 226, 299] {
        cases.extend((0..bodies.len()).map(|body| json!({ "status": status, "body": body })));
    }
    cases.push(json!({ "status": 204, "body": 0 }));
    cases.push(json!({ "status": 205, "body": 0 }));
    cases.push(json!({ "status": 200, "body": 0 })); // shows that the last but one was not retried
    for case in &cases {
        service.relay(event(&uuid, "dtmf_digit", case.clone())).await;
    }
    let seen = receiver.seen(cases.len()).await;
    let payloads: Vec<Value> = seen.iter().map(|seen| seen.body["payload"].clone()).collect();
    assert_eq!(payloads, cases);
}

/// How often an event is sent that gets this status each time, with two retries allowed.
async fn attempts_at(statuses: &[u16], attempts: usize) {
    let receiver = Receiver::start(as_told).await;
    let settings = [("WEBHOOK_RETRY", "2"), ("WEBHOOK_BACKOFF", "1"), ("WEBHOOK_BREAKER", "0")];
    let service = serve(&receiver.url, &settings).await;
    let calls: Vec<(u16, String)> = statuses.iter().map(|status| (*status, new_uuid())).collect();
    for (status, uuid) in &calls {
        service.relay(event(uuid, "call_started", json!({ "status": status }))).await;
        service.relay(bare(uuid, "call_ended")).await;
    }
    let seen = receiver.seen(calls.len() * (attempts + 1)).await;
    for (status, uuid) in &calls {
        let kinds: Vec<&str> = of_call(&seen, uuid).map(Seen::kind).collect();
        let expected = [vec!["call_started"; attempts], vec!["call_ended"]].concat();
        assert_eq!(kinds, expected, "status {status}");
    }
}

#[tokio::test]
async fn every_other_status_is_retried_and_given_up_after_the_last_attempt() {
    let statuses = [
        300, 301, 302, 303, 304, 307, 308, 401, 402, 403, 404, 405, 406, 407, 408, 409, 411, 412,
        414, 416, 417, 418, 421, 423, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504,
        507, 599,
    ];
    attempts_at(&statuses, 3).await;
}

#[tokio::test]
async fn a_400_410_413_415_and_422_are_final_at_once() {
    attempts_at(&[400, 410, 413, 415, 422], 1).await;
}

#[tokio::test]
async fn an_event_is_given_up_after_one_attempt_and_the_allowed_retries() {
    for (retry, attempts) in [(None, 1), (Some("0"), 1), (Some("1"), 2), (Some("4"), 5)] {
        let receiver = Receiver::start(as_told).await;
        let mut settings = vec![("WEBHOOK_BACKOFF", "1")];
        settings.extend(retry.map(|retry| ("WEBHOOK_RETRY", retry)));
        let service = serve(&receiver.url, &settings).await;
        let uuid = new_uuid();
        service.relay(event(&uuid, "call_started", json!({ "status": 500 }))).await;
        service.relay(bare(&uuid, "call_ended")).await;
        let seen = receiver.seen(attempts + 1).await;
        assert_eq!(seen[attempts].kind(), "call_ended", "WEBHOOK_RETRY={retry:?}");
        let counted: Vec<String> = (1..=attempts).map(|n| n.to_string()).collect();
        assert_eq!(texts(&seen[..attempts], "x-avr-webhook-attempt"), counted);
    }
}

#[tokio::test]
async fn delay_before_a_retry_doubles_each_time() {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "3"), ("WEBHOOK_BACKOFF", "300")]).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    let pauses = pauses(&receiver.seen(4).await);
    for (pause, nominal) in pauses.iter().zip([300, 600, 1200]) {
        // Jitter of up to a half each way, and what a busy machine adds.
        assert!((nominal * 4 / 10..nominal * 2 + 800).contains(pause), "{pauses:?}");
    }
}

#[tokio::test]
async fn delay_before_a_retry_has_a_ceiling() {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let settings =
        [("WEBHOOK_RETRY", "9"), ("WEBHOOK_BACKOFF", "40"), ("WEBHOOK_BACKOFF_MAX", "80")];
    let service = serve(&receiver.url, &settings).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    let total: u128 = pauses(&receiver.seen(10).await).iter().sum();
    // 0.7 s with the ceiling, 20 s without.
    assert!((250..6000).contains(&total), "{total} ms");
}

/// <https://www.rfc-editor.org/rfc/rfc9110#name-retry-after>
#[tokio::test]
async fn retry_after_is_honoured_as_seconds_and_as_a_date() {
    for date in [false, true] {
        let receiver = Receiver::start(move |seen| {
            let then = std::time::SystemTime::now() + Duration::from_secs(3);
            let when = if date { httpdate::fmt_http_date(then) } else { "2".to_owned() };
            match seen.header("x-avr-webhook-attempt") {
                Some("1") => Reply::status(500).header("retry-after", &when),
                _ => Reply::ok(),
            }
        })
        .await;
        let service =
            serve(&receiver.url, &[("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")]).await;
        service.relay(bare(&new_uuid(), "call_started")).await;
        let pauses = pauses(&receiver.seen(2).await);
        // A date has whole seconds: 3 s from now may mean 2.
        assert!((1900..6000).contains(&pauses[0]), "date: {date}, {pauses:?}");
    }
}

#[tokio::test]
async fn a_retry_after_that_is_none_changes_nothing() {
    for nonsense in ["soon", "-5", "1.5.2", "", "2035-01-01", "Wed, 21 Oct 2015 07:28:00 GMT"] {
        let receiver = Receiver::start(move |seen| match seen.header("x-avr-webhook-attempt") {
            Some("1") => Reply::status(500).header("retry-after", nonsense),
            _ => Reply::ok(),
        })
        .await;
        let service =
            serve(&receiver.url, &[("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")]).await;
        service.relay(bare(&new_uuid(), "call_started")).await;
        receiver.seen(2).await;
    }
}

/// What another call's event waits, after this status with `Retry-After: 2`, in milliseconds.
async fn other_call_waits(status: u16, retry: &str) -> u128 {
    let first = new_uuid();
    let script = first.clone();
    let receiver = Receiver::start(move |seen| {
        if seen.uuid() == script && seen.kind() == "call_started" {
            Reply::status(status).header("retry-after", "2")
        } else {
            Reply::ok()
        }
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", retry), ("WEBHOOK_BACKOFF", "1")]).await;
    service.relay(bare(&first, "call_started")).await;
    // The failure is logged when the attempt is over, so the pause has begun.
    service.log_line(|line| line["status"] == status).await;
    let other = new_uuid();
    service.relay(bare(&other, "call_started")).await;
    let pause = |seen: &[Seen]| of_call(seen, &other).next().map(|found| found.at - seen[0].at);
    receiver.until("the other call's event", pause).await.as_millis()
}

#[tokio::test]
async fn a_429_or_503_with_retry_after_pauses_the_whole_receiver() {
    for (status, retry) in [(429, "1"), (503, "1"), (429, "0"), (503, "0")] {
        let waited = other_call_waits(status, retry).await;
        assert!((1900..8000).contains(&waited), "{status}, {retry} retries: {waited} ms");
    }
}

#[tokio::test]
async fn a_500_with_retry_after_pauses_its_own_call_only() {
    let waited = other_call_waits(500, "1").await;
    assert!(waited < 1500, "{waited} ms");
}
