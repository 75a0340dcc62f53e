//! What is asked twice: by a dialplan that tries `POST /call` again, by a relay that repeats an event.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::collection::btree_map;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::{array, call_of, event, received, service_for};
use crate::support::receiver::{Receiver, Reply, Seen, closed_gate};

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
