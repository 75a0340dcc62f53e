//! Each documented limit, just inside and just outside, and as the code has it.

use callhook::attempt::Failure;
use callhook::delivery::MAX_RETRY_AFTER;
use callhook::delivery::answer::MAX_ANSWER;
use callhook::event::{MAX_EVENT_ID, MAX_EVENT_TYPE, MAX_TIMESTAMP};
use callhook::routing::MAX_STS_URL;
use serde_json::{Value, json};
use std::time::Duration;

use super::Running;
use super::document::Document;
use crate::support::receiver::{Receiver, Reply};

const UUID: &str = "7f9c1f3e-0d6c-4c7e-9f43-0b6f6a0f3d21";

fn number(document: &Document, place: &str) -> usize {
    let number = document.at(place).as_u64();
    usize::try_from(number.unwrap_or_else(|| panic!("a number at {place}"))).unwrap()
}

async fn status(running: &Running, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    running.ask("POST", path, headers, body).await.status
}

/// The shortest timestamp.
const SHORTEST: &str = "20260131T1200";

/// An event whose type and timestamp have so many characters.
fn event_with(kind: usize, timestamp: usize) -> String {
    let long = format!("{:0<timestamp$}", "2026-01-31T12:00:00.");
    let timestamp = if timestamp > SHORTEST.len() { &long } else { &SHORTEST[..timestamp] };
    json!({"uuid": UUID, "type": "t".repeat(kind), "timestamp": timestamp}).to_string()
}

#[test]
fn lengths_are_those_of_the_code() {
    let document = Document::read();
    for (place, expected) in [
        ("#/components/schemas/EventId/maxLength", MAX_EVENT_ID),
        ("#/components/schemas/EventType/maxLength", MAX_EVENT_TYPE),
        ("#/components/schemas/Timestamp/maxLength", MAX_TIMESTAMP),
        ("#/components/schemas/StsUrl/maxLength", MAX_STS_URL),
        ("#/webhooks/call_initiated/post/responses/2XX/x-max-bytes", MAX_ANSWER),
    ] {
        assert_eq!(number(&document, place), expected, "{place}");
    }
    assert_eq!(MAX_RETRY_AFTER, Duration::from_secs(15 * 60));
    let told = document.at("#/components/responses/Retried/headers/Retry-After/description");
    assert!(told.as_str().unwrap().contains("15 minutes"));
}

#[tokio::test]
async fn bodies_are_taken_up_to_their_limit() {
    let document = Document::read();
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    let (call, event) = (json!({"uuid": UUID}), json!({"uuid": UUID, "type": "call_started"}));
    let agents = ["/hangup", "/transfer", "/variables"].map(|path| {
        // Of no call that is live.
        (path, json!({"uuid": "7f9c1f3e-0d6c-4c7e-9f43-0b6f6a0f3d22", "exten": "100"}), 404)
    });
    let others = [("/call", call, 200), ("/events", event, 202)];
    for (path, body, taken) in others.into_iter().chain(agents) {
        let place = format!("#/paths/{}/post/requestBody/x-max-bytes", path.replace('/', "~1"));
        let most = number(&document, &place);
        let body = body.to_string();
        let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len()));
        assert_eq!(status(&running, path, &[], &padded(most)).await, taken, "{path}");
        assert_eq!(status(&running, path, &[], &padded(most + 1)).await, 413, "{path}");
    }
}

#[tokio::test]
async fn events_are_taken_up_to_their_size_and_number() {
    let document = Document::read();
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    let most = number(&document, "#/components/schemas/Event/x-max-bytes");
    let frame = json!({"uuid": UUID, "type": "transcription", "payload": {"text": ""}}).to_string();
    let sized = |length: usize| {
        frame.replace(r#""text":"""#, &format!(r#""text":"{}""#, "x".repeat(length - frame.len())))
    };
    assert_eq!(status(&running, "/events", &[], &sized(most)).await, 202);
    assert_eq!(status(&running, "/events", &[], &sized(most + 1)).await, 413);
    let place =
        "#/paths/~1events/post/requestBody/content/application~1json/schema/oneOf/1/maxItems";
    let most = number(&document, place);
    let many = |count: usize| {
        json!(vec![json!({"uuid": UUID, "type": "call_started"}); count]).to_string()
    };
    assert_eq!(status(&running, "/events", &[], &many(most)).await, 202);
    assert_eq!(status(&running, "/events", &[], &many(most + 1)).await, 400);
}

#[tokio::test]
async fn ids_types_and_timestamps_are_taken_up_to_their_length() {
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    for (kind, timestamp, expected) in [
        (MAX_EVENT_TYPE, MAX_TIMESTAMP, 202),
        (1, SHORTEST.len(), 202),
        (MAX_EVENT_TYPE + 1, SHORTEST.len(), 400),
        (1, MAX_TIMESTAMP + 1, 400),
        (1, SHORTEST.len() - 1, 400),
        (0, SHORTEST.len(), 400),
        (1, 0, 400),
    ] {
        let answer = status(&running, "/events", &[], &event_with(kind, timestamp)).await;
        assert_eq!(answer, expected, "type of {kind}, timestamp of {timestamp}");
    }
    for header in ["Idempotency-Key", "webhook-id"] {
        for (length, expected) in [(1, 202), (MAX_EVENT_ID, 202), (MAX_EVENT_ID + 1, 400), (0, 400)]
        {
            let id = "i".repeat(length);
            let answer =
                status(&running, "/events", &[(header, &id)], &event_with(1, SHORTEST.len())).await;
            assert_eq!(answer, expected, "{header} of {length}");
        }
    }
}

#[tokio::test]
async fn what_a_schema_refuses_the_binary_refuses_and_the_other_way_round() {
    let document = Document::read();
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    let with = |field: &str, value: Value| {
        let mut event = json!({"uuid": UUID, "type": "call_started", "payload": {}});
        event[field] = value;
        event
    };
    for event in [
        with("uuid", json!(UUID.replace('-', "").to_uppercase())),
        with("uuid", json!(format!("{{{UUID}}}"))),
        with("uuid", json!("7f9c1f3e0-d6c-4c7e-9f43-0b6f6a0f3d21")),
        with("uuid", json!(7)),
        with("uuid", Value::Null),
        with("type", json!("two words")),
        with("type", json!("süß")),
        with("type", json!("tool_call")),
        with("timestamp", Value::Null),
        with("timestamp", json!(1_767_225_600)),
        with("timestamp", json!("yesterday")),
        with("timestamp", json!("2026-01-31")),
        with("timestamp", json!("2026-01-31 12:00:00")),
        with("timestamp", json!("2026-01-31T12:00:00,5+01")),
        with("timestamp", json!("2026-01-31T120000Z")),
        with("timestamp", json!("20260131T120000Z")),
        with("payload", Value::Null),
        with("payload", json!([])),
        with("payload", json!("text")),
        with("other", json!(1)),
        json!({}),
        json!({"uuid": UUID}),
    ] {
        let valid = document.faults(document.at("#/components/schemas/Event"), &event).is_empty();
        let answer = status(&running, "/events", &[], &event.to_string()).await;
        assert_eq!(answer, if valid { 202 } else { 400 }, "{event}");
        let valid =
            document.faults(document.at("#/components/schemas/Announcement"), &event).is_empty();
        let answer = status(&running, "/call", &[], &event.to_string()).await;
        assert_eq!(answer, if valid { 200 } else { 400 }, "{event}");
    }
}

#[tokio::test]
async fn a_receivers_url_is_followed_exactly_where_the_schema_admits_it() {
    let document = Document::read();
    let long = |length: usize| format!("{:x<length$}", "ws://vip.test/");
    for (url, followed) in [
        ("wss://vip.test/a?b=c".to_owned(), true),
        ("WS://vip.test".to_owned(), true),
        (long(MAX_STS_URL), true),
        (long(MAX_STS_URL + 1), false),
        ("http://vip.test".to_owned(), false),
        ("vip.test:6030".to_owned(), false),
    ] {
        let schema = document.at("#/components/schemas/RoutingAnswer");
        let valid = document.faults(schema, &json!({"sts_url": url})).is_empty();
        assert_eq!(valid, followed, "{url}");
        let reply = Reply::route(&url);
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let running = Running::start(&[("WEBHOOK_URL", &receiver.url)]).await;
        let body = json!({"uuid": UUID}).to_string();
        let answer = running.ask("POST", "/call", &[], &body).await;
        assert_eq!(answer.json()["override"], followed, "{url}");
    }
}

#[tokio::test]
async fn a_receivers_next_is_followed_exactly_where_the_schema_admits_it() {
    let document = Document::read();
    let schema = document.at("#/components/schemas/RoutingAnswer");
    let name = |length: usize| "1".repeat(length);
    for (next, followed) in [
        (json!({"context": "people", "exten": "100"}), true),
        (json!({"context": "people", "exten": 100, "priority": 1, "more": []}), true),
        (json!({"context": "people", "exten": "100", "priority": "1"}), true),
        (json!({"context": "people", "exten": name(80), "priority": null}), true),
        (json!({"context": "people", "exten": name(81)}), false),
        (json!({"context": "people", "exten": "h"}), false),
        (json!({"context": "people", "exten": "-h-"}), false),
        (json!({"context": "people", "exten": "1,1"}), false),
        (json!({"context": "people", "exten": -1}), false),
        (json!({"context": "people", "exten": "100", "priority": 2}), false),
        (json!({"context": "people"}), false),
        (json!("people"), false),
    ] {
        let answer = json!({"next": next});
        assert_eq!(document.faults(schema, &answer).is_empty(), followed, "{answer}");
        let reply = Reply::status(200).body(answer.to_string());
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let vars = [("WEBHOOK_URL", &*receiver.url), ("ROUTE_TO", "people/*")];
        let running = Running::start(&vars).await;
        let body = json!({"uuid": UUID}).to_string();
        let routed = running.ask("POST", "/call", &[], &body).await;
        assert_eq!(routed.json()["override"], followed, "{answer}");
    }
}

#[tokio::test]
async fn a_page_of_dead_letters_has_at_most_and_usually_the_documented_items() {
    let document = Document::read();
    let limit = document.at("#/components/parameters/Limit");
    let receiver = Receiver::start(|_| Reply::status(422)).await;
    let running = Running::start(&[("WEBHOOK_URL", &receiver.url)]).await;
    let usual = usize::try_from(limit["schema"]["default"].as_u64().unwrap()).unwrap();
    let event = json!({"uuid": UUID, "type": "dtmf_digit"});
    let many = json!(vec![event; usual + 1]).to_string();
    assert_eq!(status(&running, "/events", &[], &many).await, 202);
    receiver.seen(usual + 1).await;
    let page = loop {
        let page = running.ask("GET", "/api/dead", &[], "").await.json();
        if page["items"].as_array().unwrap().len() >= usual && !page["next"].is_null() {
            break page;
        }
    };
    assert_eq!(page["items"].as_array().unwrap().len(), usual);
    let [least, most] =
        ["minimum", "maximum"].map(|bound| limit["schema"][bound].as_u64().unwrap());
    for (asked, expected) in [(least, 200), (most, 200), (most + 1, 400), (least - 1, 400)] {
        for path in ["/api/dead", "/api/calls"] {
            let answer = running.ask("GET", &format!("{path}?limit={asked}"), &[], "").await;
            assert_eq!(answer.status, expected, "{path}?limit={asked}");
        }
    }
}

#[test]
fn what_an_answer_of_the_receiver_means_is_what_the_queue_makes_of_it() {
    let document = Document::read();
    for kind in document.at("#/webhooks").as_object().unwrap().keys() {
        let responses = document.at(&format!("#/webhooks/{kind}/post/responses"));
        assert_eq!(document.resolved(&responses["2XX"])["x-outcome"], "delivered");
        for status in 300..600_u16 {
            let class = format!("{}XX", status / 100);
            let response = responses.get(status.to_string()).unwrap_or(&responses[class]);
            let wait = Duration::from_secs(1);
            let failure = Failure::of_status(status, Some(wait), Duration::ZERO);
            let expected = if failure.is_final() { "final" } else { "retried" };
            assert_eq!(document.resolved(response)["x-outcome"], expected, "{kind} {status}");
            let pauses = response["$ref"] == "#/components/responses/Pause";
            assert_eq!(pauses, failure.pause().is_some(), "{kind} {status}");
        }
    }
}
