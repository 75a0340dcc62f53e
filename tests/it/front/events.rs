//! `POST /events`: what a relay hands over, the ids it gets back, and what is refused.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{array, call_of, event, names_a_place, received, service_for, uuid};
use crate::support::receiver::{Receiver, Reply, Seen, closed_gate};
use crate::support::service::serve;

/// The ids that an array of events was answered with.
fn ids(answer: &Value) -> Vec<String> {
    let ids = answer["ids"].as_array().expect("an array of ids").iter();
    ids.map(|id| id.as_str().expect("an id is text").to_owned()).collect()
}

#[tokio::test]
async fn an_event_is_accepted_and_passed_on_under_its_id() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let fields = [
        r#""uuid":"00000000-0000-4000-8000-000000000001""#,
        r#""type":"transcription""#,
        r#""timestamp":"2026-01-02T03:04:05.678Z""#,
        r#""payload":{"z":1,"a":{"b":[]}}"#,
    ];
    let sent = format!("{{{}}}", fields.join(","));
    let posted = format!("{{{},{},{},{}}}", fields[3], fields[2], fields[1], fields[0]);
    let answer = service.post("/events", posted).await;
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.json(), json!({ "id": id }));
    let seen = &receiver.seen(1).await[0];
    assert_eq!(seen.header("webhook-id"), Some(id.as_str()));
    assert_eq!(seen.raw, sent);
}

#[tokio::test]
async fn a_payload_is_passed_on_as_it_was_written() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let payload =
        r#"{"b":1.50,"a":12345678901234567890123,"e":1e2,"u":"\u00e9é","s":"a\/b","n":null}"#;
    for (n, kind) in ["transcription", "call_initiated"].into_iter().enumerate() {
        service.post("/events", event(n, kind).replace("{}", payload)).await;
        let sent = &receiver.seen(n + 1).await[n];
        let numbers = r#""b":1.50,"a":12345678901234567890123,"e":1e2"#;
        assert!(sent.raw.contains(numbers), "{}", sent.raw);
        let given: Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!(sent.body["payload"], given, "{kind}");
    }
}

/// JavaScript writes both: a text that is cut in mid-emoji, and a number beyond a double.
#[tokio::test]
async fn text_that_not_everybody_can_read_costs_neither_its_event_nor_its_array() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let payload = r#"{"text":"party \ud83c","\udf89":[1E400,{"a":"\udc00\ud800"}]}"#;
    let odd = event(1, "transcription").replace("{}", payload);
    assert_eq!(service.post("/events", odd.as_str()).await.status, 202);
    let many = format!("[{},{odd}]", event(1, "call_started"));
    assert_eq!(service.post("/events", many).await.status, 202);
    let routed = odd.replace("transcription", "call_initiated");
    assert_eq!(service.post("/events", routed).await.status, 200);
    let outside = odd.replace(r#""payload""#, r#""\ud800":"\udc00","payload""#);
    assert_eq!(service.post("/events", outside).await.status, 202);
    let seen = receiver.seen(5).await;
    let odd = seen.iter().filter(|seen| seen.raw.ends_with(&format!(r#""payload":{payload}}}"#)));
    assert_eq!(odd.count(), 4, "passed on byte for byte: {seen:#?}");
}

/// AVR's dashboard refuses them for good.
#[tokio::test]
async fn a_timestamp_that_is_no_iso_8601_date_and_time_is_refused() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let stamped = |timestamp: &str| {
        let timestamp = format!(r#""timestamp":{timestamp},"payload""#);
        event(1, "call_started").replace(r#""payload""#, &timestamp)
    };
    let bad = [
        "1767225600",
        r#""1767225600""#,
        r#""2026-01-31""#,
        r#""2026-02-30T12:00:00Z""#,
        r#""now""#,
    ];
    for timestamp in bad {
        let answer = service.post("/events", stamped(timestamp)).await;
        assert_eq!(answer.status, 400, "{timestamp}");
        assert!(answer.error().contains("timestamp"), "{}", answer.error());
    }
    let good = ["null", r#""2026-01-31T12:00:00+0100""#, r#""2026-01-31T12:00:00.123456""#];
    for timestamp in good {
        assert_eq!(service.post("/events", stamped(timestamp)).await.status, 202, "{timestamp}");
    }
    received(&service, &receiver, good.len()).await;
}

#[tokio::test]
async fn an_id_that_nobody_gave_is_a_uuid_of_version_7() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let answer = service.post("/events", event(1, "call_started")).await.json();
    let id: uuid::Uuid = answer["id"].as_str().expect("an id").parse().expect("a uuid");
    assert_eq!(id.get_version_num(), 7);
}

#[tokio::test]
async fn a_timestamp_is_passed_on_as_given() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    for (n, given) in ["2026-01-02T03:04:05.678+01:00", "2025-12-31T23:59:59Z"].iter().enumerate() {
        let event =
            json!({ "uuid": uuid(1), "type": "call_started", "payload": {}, "timestamp": given });
        assert_eq!(service.post("/events", event.to_string()).await.status, 202, "{given}");
        assert_eq!(receiver.seen(n + 1).await[n].body["timestamp"], *given);
    }
}

#[tokio::test]
async fn a_timestamp_that_is_absent_is_now_in_utc_with_milliseconds() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let before = Utc::now().timestamp_millis();
    service.post("/events", event(1, "call_started")).await;
    let after = Utc::now().timestamp_millis();
    let seen = &receiver.seen(1).await[0];
    let text = seen.body["timestamp"].as_str().expect("a timestamp");
    let time: DateTime<Utc> = text.parse().expect("RFC 3339");
    assert_eq!(time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(), text);
    assert!((before..=after).contains(&time.timestamp_millis()), "{text}");
}

#[tokio::test]
async fn an_array_is_accepted_as_a_whole_with_an_id_for_each_in_order() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let answer = service.post("/events", array(0..3)).await;
    assert_eq!(answer.status, 202);
    let ids = ids(&answer.json());
    for seen in received(&service, &receiver, 3).await {
        let n = (0..3).find(|n| uuid(*n) == seen.uuid()).expect("one of the three");
        assert_eq!(seen.header("webhook-id"), Some(ids[n].as_str()));
    }
}

#[tokio::test]
async fn an_array_holds_up_to_1000_events() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let answer = service.post("/events", array(1000..2001)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("1000"), "{}", answer.error());
    let answer = service.post("/events", array(0..1000)).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(ids(&answer.json()).len(), 1000);
    let seen = received(&service, &receiver, 1000).await;
    assert!(seen.iter().all(|seen| *seen.uuid() < *uuid(1000)), "a refused one was sent");
}

#[tokio::test]
async fn an_array_with_one_fault_is_refused_as_a_whole() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let fault = event(5, "call_started").replace(&uuid(5), "five");
    let body = array(0..3).replace(']', &format!(",{fault}]"));
    let answer = service.post("/events", body).await;
    assert_eq!(answer.status, 400);
    let error = answer.error();
    assert!(error.contains("uuid") && error.contains('3'), "which one and what: {error}");
    received(&service, &receiver, 0).await;
}

#[tokio::test]
async fn a_malformed_event_is_refused_naming_the_fault() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let good = event(1, "call_started");
    let table = [
        (good.replace("uuid", "id"), "uuid"),
        (good.replace(&uuid(1), "one"), "uuid"),
        (good.replace("type", "kind"), "type"),
        (good.replace(r#""call_started""#, "7"), "type"),
        (good.replace("{}", "[]"), "payload"),
        (good.replace("{}", r#""text""#), "payload"),
        (good.replace("{}", r#"{"digit":"1","digit":"2"}"#), "digit"),
        (good.replace(r#""type""#, r#""type":"call_ended","type""#), "type"),
    ];
    for (body, named) in table {
        let answer = service.post("/events", body.as_str()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().contains(named), "{body}: {}", answer.error());
    }
    let answer = service.post("/events", &good[..good.len() - 1]).await;
    assert_eq!(answer.status, 400);
    assert!(names_a_place(&answer.error()), "{}", answer.error());
    received(&service, &receiver, 0).await;
}

#[tokio::test]
async fn an_id_has_1_to_128_visible_ascii_characters() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let (longest, too_long) = ("k".repeat(128), "k".repeat(129));
    let visible: String = ('!'..='~').collect();
    let table = [
        (longest.as_str(), 202),
        ("k", 202),
        (&visible, 202),
        (&too_long, 400),
        ("", 400),
        ("two words", 400),
        ("naïve", 400),
        ("tab\there", 400),
    ];
    let good = table.iter().filter(|(_, status)| *status == 202).count();
    for (n, (key, status)) in table.into_iter().enumerate() {
        let headers = [("Idempotency-Key", key)];
        let answer = service.post_with("/events", &headers, event(n, "call_started")).await;
        assert_eq!(answer.status, status, "{key:?}: {}", answer.body);
    }
    received(&service, &receiver, good).await;
}

#[tokio::test]
async fn the_key_of_an_array_leaves_room_for_the_place() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    // KEY.9 is two characters longer than KEY, KEY.10 is three.
    let table = [(10, 126, 202), (10, 127, 400), (11, 125, 202), (11, 126, 400)];
    for (events, length, status) in table {
        let key = format!("{events:x>length$}");
        let keyed = [("Idempotency-Key", key.as_str())];
        let answer = service.post_with("/events", &keyed, array(0..events)).await;
        assert_eq!(answer.status, status, "{events} events, a key of {length}");
    }
    received(&service, &receiver, 21).await;
}

#[tokio::test]
async fn the_agent_of_the_request_stands_in_for_the_one_of_the_settings() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("AGENT_ID", "of-settings")]).await;
    let agent = [("X-AVR-AGENT-ID", "of-request")];
    service.post_with("/events", &agent, event(1, "call_started")).await;
    service.post("/events", event(1, "call_ended")).await;
    let seen = receiver.seen(2).await;
    assert_eq!(seen[0].header("x-avr-agent-id"), Some("of-request"));
    assert_eq!(seen[1].header("x-avr-agent-id"), Some("of-settings"));
}

#[tokio::test]
async fn a_type_that_is_not_to_be_delivered_is_accepted_and_dropped() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    for kind in ["tool_invocation", "error", "CALL_STARTED"] {
        let answer = service.post("/events", event(1, kind)).await;
        assert_eq!((answer.status, answer.json()), (202, json!({ "id": null })), "{kind}");
    }
    let mixed = format!("[{},{}]", event(1, "error"), event(1, "call_started"));
    let answer = service.post("/events", mixed).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["ids"][0], Value::Null);
    assert!(answer.json()["ids"][1].is_string(), "{}", answer.body);
    received(&service, &receiver, 1).await;
}

#[tokio::test]
async fn with_a_star_any_type_is_delivered() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("WEBHOOK_EVENTS", "*")]).await;
    for (n, kind) in ["tool_invocation", "error", "call_started"].into_iter().enumerate() {
        let answer = service.post("/events", event(1, kind)).await;
        assert!(answer.json()["id"].is_string(), "{kind}: {}", answer.body);
        assert_eq!(receiver.seen(n + 1).await[n].kind(), kind);
    }
}

#[tokio::test]
async fn call_initiated_waits_and_gets_the_receivers_url_untouched() {
    let url = "WS://Sts.Test:80/a?x=%7e#part";
    let gate = closed_gate();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::route(url).when(&held)).await;
    let service = service_for(&receiver).await;
    let posted = event(1, "call_initiated").replace("{}", r#"{"from":"1"}"#);
    let keyed = [("Idempotency-Key", "k1")];
    let (answer, ()) = tokio::join!(service.post_with("/events", &keyed, posted), async {
        receiver.seen(1).await;
        gate.add_permits(1);
    });
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "id": "k1", "sts_url": url }));
}

#[tokio::test]
async fn call_initiated_without_a_decision_has_no_sts_url() {
    let receiver = Receiver::start(|_| Reply::status(200).body("OK")).await;
    let service = service_for(&receiver).await;
    let keyed = [("Idempotency-Key", "k1")];
    let answer = service.post_with("/events", &keyed, event(1, "call_initiated")).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "id": "k1" })));
}

#[tokio::test]
async fn call_initiated_waits_no_longer_than_the_routing_timeout() {
    let (receiver, _gate) = Receiver::held().await;
    let service = serve(&receiver.url, &[("ROUTING_TIMEOUT", "300")]).await;
    let keyed = [("Idempotency-Key", "k1")];
    let answer = service.post_with("/events", &keyed, event(1, "call_initiated"));
    let answer =
        timeout(Duration::from_millis(2500), answer).await.expect("well before the receiver");
    assert_eq!((answer.status, answer.json()), (200, json!({ "id": "k1" })));
}

/// Below AVR Core's own `WEBHOOK_TIMEOUT` of 3 s, after which it would not hear the answer.
#[tokio::test]
async fn call_initiated_of_a_relay_waits_for_2500_ms_unless_told_otherwise() {
    let (receiver, _gate) = Receiver::held().await;
    for (vars, least) in [(&[][..], 2500), (&[("ROUTING_TIMEOUT", "5000")], 5000)] {
        let service = serve(&receiver.url, &[&[("WEBHOOK_TIMEOUT", "20000")], vars].concat()).await;
        let begun = Instant::now();
        let answer = service.post("/events", event(1, "call_initiated")).await;
        assert_eq!((answer.status, answer.json().get("sts_url")), (200, None));
        let (took, least) = (begun.elapsed(), Duration::from_millis(least));
        assert!((least..least + Duration::from_millis(2400)).contains(&took), "{took:?}");
    }
}

#[tokio::test]
async fn a_full_queue_is_503_with_retry_after_until_there_is_room() {
    let (receiver, gate) = Receiver::held().await;
    let service = serve(&receiver.url, &[("QUEUE_LIMIT", "3")]).await;
    service.relay(array(0..2)).await;
    let two_more = service.post("/events", array(2..4)).await;
    assert_eq!(two_more.status, 503, "two do not fit where there is room for one");
    service.relay(event(4, "call_started")).await;
    let one_more = service.post("/events", event(5, "call_started")).await;
    for refused in [two_more, one_more] {
        assert_eq!(refused.status, 503);
        let seconds = refused.header("retry-after").expect("a Retry-After");
        assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{seconds}");
        assert!(!refused.error().is_empty());
    }
    gate.add_permits(99);
    let room =
        async { while service.post("/events", event(6, "call_started")).await.status != 202 {} };
    timeout(Duration::from_secs(10), room).await.expect("room once events are settled");
    let mut uuids: Vec<_> =
        receiver.seen(4).await.iter().map(|seen| seen.uuid().to_owned()).collect();
    uuids.sort();
    assert_eq!(uuids, [uuid(0), uuid(1), uuid(4), uuid(6)]);
}

#[tokio::test]
async fn a_call_announced_by_both_routes_keeps_its_order() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    service.post("/call", call_of(1, "{}")).await;
    for kind in ["call_started", "transcription", "call_ended"] {
        service.post("/events", event(1, kind)).await;
    }
    let seen = receiver.seen(4).await;
    let kinds: Vec<_> = seen.iter().map(Seen::kind).collect();
    assert_eq!(kinds, ["call_initiated", "call_started", "transcription", "call_ended"]);
}
