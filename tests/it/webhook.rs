//! What the receiver gets: body, headers, signature, order, and which types of event. Seen from the
//! receiver's side only. `webhook/retries.rs` has what counts as success and when an attempt is made
//! again.

mod answers;
mod copies;
mod headers;
mod retries;

use std::time::Duration;

use crate::support::event::{bare, event, new_uuid};
use crate::support::receiver::{Receiver, Reply, Seen, closed_gate, of_call};
use crate::support::service::{Service, serve};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use uuid::Uuid;

const SIGNING_KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const DOCUMENTED: [&str; 6] =
    ["call_initiated", "call_started", "call_ended", "interruption", "transcription", "dtmf_digit"];

/// Answers with the status that the payload asks for, else with 200.
fn as_told(seen: &Seen) -> Reply {
    seen.body["payload"]["status"].as_u64().map_or_else(Reply::ok, |status| {
        Reply::status(u16::try_from(status).expect("a status is small"))
    })
}

fn texts(seen: &[Seen], header: &str) -> Vec<String> {
    seen.iter().map(|seen| seen.header(header).unwrap_or("-").to_owned()).collect()
}

#[tokio::test]
async fn body_is_exactly_the_four_fields_in_order() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    let payload = r#"{"b":1,"a":[true,null,"é"],"0":{}}"#;
    let time = "2025-01-02T03:04:05.678Z";
    let event = format!(
        r#"{{"payload":{payload},"timestamp":"{time}","type":"call_started","uuid":"{uuid}"}}"#
    );
    service.relay(event).await;
    let expected = format!(
        r#"{{"uuid":"{uuid}","type":"call_started","timestamp":"{time}","payload":{payload}}}"#
    );
    assert_eq!(receiver.seen(1).await[0].raw, expected);
}

#[tokio::test]
async fn timestamp_is_utc_with_milliseconds_and_z() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    service.post("/call", json!({ "uuid": new_uuid() }).to_string()).await;
    for seen in receiver.seen(2).await {
        let text = seen.body["timestamp"].as_str().expect("a timestamp is text");
        let form = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.3fZ");
        let time = form.unwrap_or_else(|error| panic!("{error} in {text}")).and_utc();
        assert_eq!(text.len(), "2025-01-02T03:04:05.678Z".len(), "{text}");
        assert!((chrono::Utc::now() - time).num_seconds().abs() < 60, "{text} is now");
    }
}

#[tokio::test]
async fn uuid_is_sent_in_lower_case_with_dashes() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = Uuid::new_v4();
    for (n, form) in [uuid.to_string().to_uppercase(), uuid.simple().to_string()].iter().enumerate()
    {
        service.relay(bare(form, "call_started")).await;
        assert_eq!(receiver.seen(n + 1).await[n].uuid(), uuid.to_string(), "from {form}");
    }
}

#[tokio::test]
async fn every_header_is_sent_when_its_setting_is_there() {
    let receiver = Receiver::content().await;
    let settings = [("WEBHOOK_SECRET", "s3cret"), ("AGENT_ID", "agent-7")];
    let service = serve(&receiver.url, &settings).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    let seen = receiver.seen(1).await.remove(0);
    let expected = [
        ("content-type", "application/json"),
        ("user-agent", concat!("callhook/", env!("CARGO_PKG_VERSION"))),
        ("x-avr-webhook-secret", "s3cret"),
        ("x-avr-agent-id", "agent-7"),
        ("x-avr-webhook-attempt", "1"),
        ("x-avr-webhook-sequence", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let length = seen.raw.len().to_string();
    assert_eq!(seen.header("content-length"), Some(length.as_str()), "a body of known length");
}

#[tokio::test]
async fn headers_without_a_setting_are_left_out() {
    let receiver = Receiver::content().await;
    let settings = [("WEBHOOK_SECRET", "undefined"), ("AGENT_ID", "")];
    let service = serve(&receiver.url, &settings).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    let seen = receiver.seen(1).await.remove(0);
    let unset =
        ["x-avr-webhook-secret", "x-avr-agent-id", "webhook-timestamp", "webhook-signature"];
    for name in unset {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_relayed_agent_id_takes_the_place_of_the_setting() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("AGENT_ID", "mine")]).await;
    let event = json!({ "uuid": new_uuid(), "type": "call_started", "payload": {} }).to_string();
    service.post_with("/events", &[("X-AVR-AGENT-ID", "theirs")], event).await;
    assert_eq!(texts(&receiver.seen(1).await, "x-avr-agent-id"), ["theirs"]);
}

#[tokio::test]
async fn id_is_a_uuid_v7_and_the_same_on_each_attempt() {
    let receiver = Receiver::start(|seen| {
        if seen.header("x-avr-webhook-attempt") == Some("3") {
            Reply::ok()
        } else {
            Reply::status(500)
        }
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "3"), ("WEBHOOK_BACKOFF", "1")]).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    service.relay(bare(&uuid, "call_ended")).await;
    let seen = receiver.seen(6).await;
    assert_eq!(texts(&seen, "x-avr-webhook-attempt"), ["1", "2", "3", "1", "2", "3"]);
    let ids = texts(&seen, "webhook-id");
    assert!(ids[..3].iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(ids[3..].iter().all(|id| *id == ids[3]), "{ids:?}");
    assert_ne!(ids[0], ids[3], "one id for each event");
    for id in ids {
        assert_eq!(Uuid::parse_str(&id).expect("a UUID").get_version_num(), 7, "{id}");
    }
    assert!(seen[..3].iter().all(|attempt| attempt.raw == seen[0].raw), "the same body");
}

#[tokio::test]
async fn sequence_counts_what_is_to_be_delivered_so_that_a_gap_is_a_dead_letter() {
    let receiver = Receiver::start(as_told).await;
    let service =
        serve(&receiver.url, &[("WEBHOOK_EVENTS", "call_started,call_ended,dtmf_digit")]).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    service.relay(bare(&uuid, "transcription")).await; // filtered: not counted
    service.relay(event(&uuid, "dtmf_digit", json!({ "status": 400 }))).await; // a dead letter
    service.relay(bare(&uuid, "call_ended")).await;
    let seen = receiver.seen(3).await;
    let delivered: Vec<Seen> =
        seen.into_iter().filter(|seen| seen.kind() != "dtmf_digit").collect();
    assert_eq!(texts(&delivered, "x-avr-webhook-sequence"), ["1", "3"]);
    service.relay(bare(&new_uuid(), "call_started")).await;
    assert_eq!(
        texts(&receiver.seen(4).await[3..], "x-avr-webhook-sequence"),
        ["1"],
        "anew per call"
    );
}

#[tokio::test]
async fn each_attempt_bears_a_signature_that_standard_webhooks_accepts() {
    let receiver = Receiver::start(|seen| {
        let first = seen.header("x-avr-webhook-attempt") == Some("1");
        if first { Reply::status(500) } else { Reply::ok() }
    })
    .await;
    let settings =
        [("WEBHOOK_SIGNING_KEY", SIGNING_KEY), ("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")];
    let service = serve(&receiver.url, &settings).await;
    service.relay(event(&new_uuid(), "transcription", json!({ "text": "così è, \"no\"?" }))).await;
    let right = Webhook::new(SIGNING_KEY).expect("a key");
    let wrong = Webhook::new("whsec_AAAABBBBCCCCDDDDEEEEFFFFGGGGHHHH").expect("a key");
    for seen in receiver.seen(2).await {
        let verdict = right.verify(seen.raw.as_bytes(), &seen.headers);
        verdict.unwrap_or_else(|error| panic!("{error}: {seen:?}"));
        assert!(wrong.verify(seen.raw.as_bytes(), &seen.headers).is_err());
        assert!(right.verify(seen.raw.replace("no", "yes").as_bytes(), &seen.headers).is_err());
    }
}

#[tokio::test]
async fn each_of_several_keys_signs_each_attempt() {
    const NEXT: &str = "whsec_AAAABBBBCCCCDDDDEEEEFFFFGGGGHHHH";
    let receiver = Receiver::content().await;
    let keys = format!("{SIGNING_KEY} {NEXT}");
    let service = serve(&receiver.url, &[("WEBHOOK_SIGNING_KEY", &keys)]).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    let seen = receiver.seen(1).await.remove(0);
    for key in [SIGNING_KEY, NEXT] {
        let verdict = Webhook::new(key).expect("a key").verify(seen.raw.as_bytes(), &seen.headers);
        verdict.unwrap_or_else(|error| panic!("{error}: {seen:?}"));
    }
}

#[tokio::test]
async fn all_of_a_call_is_one_trace_with_a_span_for_each_attempt() {
    let receiver = Receiver::start(|seen| match seen.header("x-avr-webhook-attempt") {
        Some("1") => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")]).await;
    let uuid = Uuid::new_v4();
    service.relay(bare(&uuid.to_string(), "call_started")).await;
    service.relay(bare(&uuid.to_string(), "call_ended")).await;
    let mut spans = Vec::new();
    for trace in texts(&receiver.seen(4).await, "traceparent") {
        let parts: Vec<&str> = trace.split('-').collect();
        let [version, id, span, flags] = parts[..] else { panic!("{trace}") };
        assert_eq!((version, id, flags), ("00", &*uuid.simple().to_string(), "01"), "{trace}");
        assert_eq!(u64::from_str_radix(span, 16).map(|span| span > 0), Ok(true), "{trace}");
        spans.push(span.to_owned());
    }
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), 4, "{spans:?}");
}

#[tokio::test]
async fn a_relayed_trace_is_passed_on_and_what_is_none_is_not() {
    const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for own in [OWN, "not a trace"] {
        let headers = [("traceparent", own)];
        service.post_with("/events", &headers, bare(&uuid, "call_started").to_string()).await;
    }
    let traces = texts(&receiver.seen(2).await, "traceparent");
    assert_eq!(traces[0], OWN);
    assert!(traces[1].starts_with(&format!("00-{}-", uuid.replace('-', ""))), "{traces:?}");
}

#[tokio::test]
async fn an_event_tells_which_callhooks_it_went_through() {
    let receiver = Receiver::content().await;
    let second = serve(&receiver.url, &[]).await;
    let first = serve(&format!("http://{}/events", second.addr), &[]).await;
    first.relay(bare(&new_uuid(), "call_started")).await;
    second.relay(bare(&new_uuid(), "call_started")).await;
    let mut via = texts(&receiver.seen(2).await, "x-callhook-via");
    via.sort_by_key(String::len);
    let (alone, chain) = (&via[0], via[1].split(", ").collect::<Vec<_>>());
    assert_eq!(chain.len(), 2, "{via:?}");
    assert_eq!(chain[1], alone, "the last one adds itself");
    assert_ne!(chain[0], alone);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Receiver::content().await;
    let target = elsewhere.url.clone();
    let receiver = Receiver::start(move |seen| {
        seen.body["payload"]["status"].as_u64().map_or_else(Reply::ok, |status| {
            Reply::status(status.try_into().expect("small")).header("location", &target)
        })
    })
    .await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for status in [301, 302, 303, 307, 308] {
        service.relay(event(&uuid, "dtmf_digit", json!({ "status": status }))).await;
    }
    service.relay(bare(&uuid, "call_ended")).await;
    let seen = receiver.seen(6).await;
    assert_eq!(seen[5].kind(), "call_ended");
    assert_eq!(elsewhere.so_far().len(), 0);
}

#[tokio::test]
async fn events_of_a_call_arrive_in_the_order_they_were_accepted() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for n in 0..20 {
        service.relay(event(&uuid, "dtmf_digit", json!({ "n": n }))).await;
    }
    let batch: Vec<Value> = (20..60)
        .map(|n| json!({ "uuid": uuid, "type": "dtmf_digit", "payload": { "n": n } }))
        .collect();
    service.relay(Value::from(batch)).await;
    let seen = receiver.seen(60).await;
    let order: Vec<_> = seen.iter().filter_map(|seen| seen.body["payload"]["n"].as_u64()).collect();
    assert_eq!(order, (0..60).collect::<Vec<_>>());
    let counted: Vec<String> = (1..=60).map(|n| n.to_string()).collect();
    assert_eq!(texts(&seen, "x-avr-webhook-sequence"), counted);
    assert_eq!(receiver.in_flight_peak_of(&uuid), 1);
}

#[tokio::test]
async fn second_event_of_a_call_waits_for_the_first_and_another_call_does_not() {
    let (gate, held) = (closed_gate(), new_uuid());
    let script = (gate.clone(), held.clone());
    let receiver = Receiver::start(move |seen| {
        if seen.uuid() == script.1 { Reply::ok().when(&script.0) } else { Reply::ok() }
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_TIMEOUT", "15000")]).await;
    service.relay(bare(&held, "call_started")).await;
    service.relay(bare(&held, "call_ended")).await;
    let other = new_uuid();
    for n in 0..10 {
        service.relay(event(&other, "dtmf_digit", json!({ "n": n }))).await;
    }
    let seen = receiver.seen(11).await;
    assert_eq!(of_call(&seen, &held).count(), 1, "its second event waits");
    assert_eq!(of_call(&seen, &other).count(), 10, "the other call does not");
    gate.add_permits(2);
    assert_eq!(receiver.seen(12).await[11].kind(), "call_ended");
    assert_eq!(receiver.in_flight_peak_of(&held), 1);
}

#[tokio::test]
async fn a_call_that_is_retried_holds_up_no_other() {
    let sick = new_uuid();
    let script = sick.clone();
    let receiver =
        Receiver::start(
            move |seen| {
                if seen.uuid() == script { Reply::status(500) } else { Reply::ok() }
            },
        )
        .await;
    let settings = [("WEBHOOK_RETRY", "3"), ("WEBHOOK_BACKOFF", "30000")];
    let service = serve(&receiver.url, &settings).await;
    service.relay(bare(&sick, "call_started")).await;
    receiver.seen(1).await;
    let well = new_uuid();
    service.relay(bare(&well, "call_started")).await;
    assert_eq!(receiver.seen(2).await[1].uuid(), well);
}

#[tokio::test]
async fn concurrency_is_a_ceiling_over_all_calls() {
    const PAUSE: Duration = Duration::from_millis(200);
    let receiver = Receiver::start(|_| Reply::ok().after(PAUSE)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_CONCURRENCY", "2")]).await;
    for _ in 0..6 {
        service.relay(bare(&new_uuid(), "call_started")).await;
    }
    let seen = receiver.seen(6).await;
    for three in seen.windows(3) {
        let span = three[2].at - three[0].at;
        assert!(span >= PAUSE, "a third request came {span:?} after the first of two");
    }
    let all = seen[5].at - seen[0].at;
    assert!(all < PAUSE * 5, "both places are used: {all:?}");
}

#[tokio::test]
async fn the_six_documented_types_are_delivered_and_error_is_off_by_default() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for kind in ["error", "made_up"] {
        let event = json!({ "uuid": uuid, "type": kind, "payload": {} });
        let answer = service.post("/events", event.to_string()).await;
        assert_eq!((answer.status, answer.json()), (202, json!({ "id": null })), "{kind}");
    }
    for kind in DOCUMENTED {
        let event = json!({ "uuid": uuid, "type": kind, "payload": {} });
        let answer = service.post("/events", event.to_string()).await;
        assert_eq!(answer.status, if kind == "call_initiated" { 200 } else { 202 }, "{kind}");
    }
    let seen = receiver.seen(6).await;
    assert_eq!(seen.iter().map(Seen::kind).collect::<Vec<_>>(), DOCUMENTED);
}

#[tokio::test]
async fn only_the_listed_types_are_delivered() {
    let cases: [(&str, &[&str]); 3] = [
        ("call_ended,error", &["error", "call_ended"]),
        (" call_started , call_ended ", &["call_started", "call_ended"]),
        ("*", &["call_started", "error", "made_up", "call_ended"]),
    ];
    for (listed, expected) in cases {
        let receiver = Receiver::content().await;
        let service = serve(&receiver.url, &[("WEBHOOK_EVENTS", listed)]).await;
        let uuid = new_uuid();
        for kind in ["call_started", "error", "made_up", "call_ended"] {
            service.relay(bare(&uuid, kind)).await;
        }
        let seen = receiver.seen(expected.len()).await;
        assert_eq!(seen.iter().map(Seen::kind).collect::<Vec<_>>(), expected, "{listed:?}");
    }
}

#[tokio::test]
async fn without_a_receiver_events_are_accepted_and_calls_get_the_fallback() {
    let service =
        Service::start(&[("WEBHOOK_URL", "none"), ("STS_URL", "ws://sts.test:6030")]).await;
    let uuid = new_uuid();
    let body = json!({ "uuid": uuid, "payload": { "from": "2000" } }).to_string();
    let answer = service.post("/call", body).await;
    let expected = json!({ "sts_url": "ws://sts.test:6030/?from=2000", "override": false });
    assert_eq!((answer.status, answer.json()), (200, expected));
    service.relay(bare(&uuid, "call_ended")).await;
    assert_eq!(service.get("/health").await.status, 200);
}
