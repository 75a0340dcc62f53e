//! What is asked twice: by a dialplan that tries `POST /call` again, by a relay that repeats an event.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::collection::btree_map;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use tokio::time::timeout;

use super::{array, call_of, event, received, service_for, uuid};
use crate::support::receiver::{Receiver, Reply, Seen, closed_gate};
use crate::support::record::LIMIT;
use crate::support::service::{request, serve};

/// A receiver that gives each request another URL, numbered from 0.
async fn numbering_receiver() -> Receiver {
    let asked = AtomicUsize::new(0);
    let number = move |_: &Seen| {
        Reply::route(&format!("ws://sts.test/{}", asked.fetch_add(1, Ordering::Relaxed)))
    };
    Receiver::start(number).await
}

#[tokio::test]
async fn the_same_uuid_and_payload_get_the_same_answer_and_no_second_event() {
    let receiver = numbering_receiver().await;
    let service = service_for(&receiver).await;
    let body = call_of(0xA, r#"{"from":"1"}"#).replace("4000", "4aaa");
    let first = service.post("/call", body.as_str()).await;
    assert_eq!(first.json()["sts_url"], "ws://sts.test/0?from=1");
    for repeat in [body.clone(), body.replace("4aaa", "4AAA")] {
        let again = service.post("/call", repeat).await;
        assert_eq!((again.status, again.body), (200, first.body.clone()));
    }
    service.post("/events", event(2, "call_started")).await;
    let kinds: Vec<_> = receiver.seen(2).await.iter().map(|seen| seen.kind().to_owned()).collect();
    assert_eq!(kinds, ["call_initiated", "call_started"]);
}

#[tokio::test]
async fn a_changed_payload_is_routed_again() {
    let receiver = Receiver::start(|seen| match seen.body["payload"]["to"].as_str() {
        Some("5001") => Reply::route("ws://one.test"),
        _ => Reply::route("ws://two.test"),
    });
    let receiver = receiver.await;
    let service = service_for(&receiver).await;
    for (to, url) in [("5001", "ws://one.test/?to=5001"), ("5002", "ws://two.test/?to=5002")] {
        let answer = service.post("/call", call_of(1, &json!({ "to": to }).to_string())).await;
        assert_eq!(answer.json()["sts_url"], url);
    }
    assert_eq!(receiver.seen(2).await.len(), 2);
}

#[tokio::test]
async fn two_that_ask_for_one_call_at_the_same_time_get_one_answer() {
    let gate = closed_gate();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::route("ws://sts.test").when(&held)).await;
    let service = service_for(&receiver).await;
    let body = call_of(1, r#"{"from":"1"}"#);
    let (first, second, ()) = tokio::join!(
        service.post("/call", body.as_str()),
        async {
            receiver.seen(1).await;
            service.post("/call", body.as_str()).await
        },
        async {
            receiver.seen(1).await;
            // Room for the second one to arrive; if it comes later, it gets the same answer.
            service.post("/events", event(2, "call_started")).await;
            gate.add_permits(9);
        },
    );
    let expected = json!({ "sts_url": "ws://sts.test/?from=1", "override": true });
    assert_eq!((first.json(), second.json()), (expected.clone(), expected));
    service.post("/events", event(1, "call_ended")).await;
    let mut kinds: Vec<_> =
        receiver.seen(3).await.iter().map(|seen| seen.kind().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["call_ended", "call_initiated", "call_started"]);
}

#[tokio::test]
async fn a_key_of_the_request_becomes_the_id_and_a_repeat_queues_nothing() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    for (n, header) in ["Idempotency-Key", "webhook-id"].into_iter().enumerate() {
        let key = format!("key-{n}/of:{header}");
        for _ in 0..3 {
            let headers = [(header, key.as_str())];
            let answer = service.post_with("/events", &headers, event(n, "call_started")).await;
            assert_eq!((answer.status, answer.json()), (202, json!({ "id": key })));
        }
        assert_eq!(receiver.seen(n + 1).await[n].header("webhook-id"), Some(key.as_str()));
    }
    received(&service, &receiver, 2).await;
}

#[tokio::test]
async fn the_ids_of_an_array_are_the_key_and_the_place() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    for _ in 0..2 {
        let answer =
            service.post_with("/events", &[("Idempotency-Key", "batch")], array(0..3)).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.json(), json!({ "ids": ["batch.0", "batch.1", "batch.2"] }));
    }
    for seen in received(&service, &receiver, 3).await {
        let place = seen.uuid().chars().last().expect("a digit");
        assert_eq!(seen.header("webhook-id"), Some(format!("batch.{place}").as_str()));
    }
}

#[tokio::test]
async fn a_repeated_call_initiated_gets_the_same_route() {
    let receiver = numbering_receiver().await;
    let service = service_for(&receiver).await;
    for _ in 0..3 {
        let keyed = [("webhook-id", "k1")];
        let answer = service.post_with("/events", &keyed, event(1, "call_initiated")).await;
        let expected = json!({ "id": "k1", "sts_url": "ws://sts.test/0" });
        assert_eq!((answer.status, answer.json()), (200, expected));
    }
    service.post("/events", event(2, "call_started")).await;
    assert_eq!(receiver.seen(2).await.len(), 2);
}

/// The event that AVR Core posts, as it writes it.
fn stamped(n: usize, kind: &str) -> String {
    event(n, kind).replace(r#""payload""#, r#""timestamp":"2026-01-02T03:04:05.678Z","payload""#)
}

#[tokio::test]
async fn a_key_that_was_given_to_another_event_is_422_naming_it() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let key = "7f9c1f3e-0d6c-4c7e-9f43-0b6f6a0f3d21";
    let keyed = [("Idempotency-Key", key)];
    let first = stamped(1, "call_started");
    assert_eq!(service.post_with("/events", &keyed, first.as_str()).await.status, 202);
    let others = [
        first.replace("call_started", "call_ended"),
        first.replace("call_started", "of_no_receiver"),
        first.replace(&uuid(1), &uuid(2)),
        first.replace("{}", r#"{"digit":"1"}"#),
    ];
    for other in &others {
        let answer = service.post_with("/events", &keyed, other.as_str()).await;
        assert_eq!(answer.status, 422, "{other}");
        assert!(answer.error().contains(key), "{}", answer.error());
    }
    let later = first.replace("05.678", "06.000");
    for repeat in [first.as_str(), &later, &event(1, "call_started")] {
        let answer = service.post_with("/events", &keyed, repeat).await;
        assert_eq!((answer.status, answer.json()), (202, json!({ "id": key })), "{repeat}");
    }
    service.post_with("/events", &keyed, array(1..3)).await;
    let answer = service.post_with("/events", &keyed, array(2..4)).await;
    assert_eq!(answer.status, 422);
    assert!(answer.error().contains(&format!("{key}.0")), "{}", answer.error());
    received(&service, &receiver, 3).await;
}

#[tokio::test]
async fn a_body_that_comes_again_without_a_key_is_the_event_before() {
    let receiver = numbering_receiver().await;
    let service = service_for(&receiver).await;
    let many = format!("[{},{}]", stamped(1, "call_started"), stamped(1, "call_ended"));
    let bodies = [stamped(1, "call_initiated"), stamped(1, "dtmf_digit"), many];
    for body in &bodies {
        let first = service.post("/events", body.as_str()).await;
        assert!([200, 202].contains(&first.status), "{first:?}");
        for _ in 0..3 {
            let again = service.post("/events", body.as_str()).await;
            assert_eq!((again.status, again.body), (first.status, first.body.clone()), "{body}");
        }
    }
    received(&service, &receiver, 4).await;
}

#[tokio::test]
async fn a_body_that_may_be_meant_twice_is_taken_twice() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let whole = stamped(1, "dtmf_digit");
    let bodies = [
        event(1, "dtmf_digit"),
        whole.replace(".678", ""),
        whole.replace(".678", ".67"),
        format!("[{whole},{}]", event(1, "dtmf_digit")),
    ];
    for body in &bodies {
        let (one, two) = (service.relay(body).await, service.relay(body).await);
        assert_ne!(one.body, two.body, "{body}");
    }
    // Other bytes are another body.
    for body in [whole.clone(), whole + " "] {
        service.relay(body).await;
    }
    received(&service, &receiver, 2 * 5 + 2).await;
}

#[tokio::test]
async fn a_repeat_of_what_is_being_taken_waits_for_the_same_answer() {
    let gate = closed_gate();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::route("ws://sts.test").when(&held)).await;
    let service = service_for(&receiver).await;
    let body = stamped(1, "call_initiated");
    // AVR Core closes its connection before it tries again.
    let mut gone = service.wire().await;
    gone.send(request("POST", "/events", &[], &body)).await;
    receiver.seen(1).await;
    drop(gone);
    let (one, two, ()) = tokio::join!(
        service.post("/events", body.as_str()),
        service.post("/events", body.as_str()),
        async {
            service.post("/events", event(2, "call_started")).await;
            gate.add_permits(9);
        }
    );
    assert_eq!(one.json()["sts_url"], "ws://sts.test");
    assert_eq!(one.body, two.body);
    received(&service, &receiver, 2).await;
}

#[tokio::test]
async fn a_refused_body_is_not_remembered() {
    let (receiver, gate) = Receiver::held().await;
    let service = serve(&receiver.url, &[("QUEUE_LIMIT", "1")]).await;
    service.relay(event(1, "call_started")).await;
    let body = stamped(2, "call_started");
    assert_eq!(service.post("/events", body.as_str()).await.status, 503);
    gate.add_permits(99);
    let room = async { while service.post("/events", body.as_str()).await.status != 202 {} };
    timeout(LIMIT, room).await.expect("room once events are settled");
    let last = event(3, "call_started");
    let room = async { while service.post("/events", last.as_str()).await.status != 202 {} };
    timeout(LIMIT, room).await.expect("room once events are settled");
    let seen = receiver.until("the last one", |seen| {
        seen.iter().any(|seen| seen.uuid() == uuid(3)).then_some(seen.len())
    });
    assert_eq!(seen.await, 3);
}

/// Whatever a payload of texts holds, the STS server reads back the same pairs.
#[test]
fn any_text_in_a_payload_comes_back_as_a_query_pair() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let service = runtime.block_on(super::lone_service());
    let calls = AtomicUsize::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(200) };
    let payloads = btree_map(".{0,20}", ".{0,40}", 0..8);
    let outcome = TestRunner::new(config).run(&payloads, |payload| {
        let text = json!(payload).to_string();
        let n = calls.fetch_add(1, Ordering::Relaxed);
        let answer = runtime.block_on(service.post("/call", call_of(n, &text)));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let url =
            url::Url::parse(answer.json()["sts_url"].as_str().expect("a URL")).expect("a URL");
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        assert_eq!(pairs, payload.into_iter().collect::<Vec<_>>());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
