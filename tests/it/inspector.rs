//! The inspector's API, from outside: what it remembers and forgets, whom it lets in, and that nobody who
//! watches slowly holds anything up. The page itself is tested in a browser (`tests/browser/`).

mod access;
mod receivers;
mod requests;
mod stream;

use std::net::SocketAddr;

use crate::support::asterisk::{Asterisk, HANGUP};
use crate::support::receiver::{Receiver, Reply};
use crate::support::record::LIMIT;
use crate::support::service::{Answer, Service, Wire};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

const HOST: (&str, &str) = ("Host", "127.0.0.1:6002");

/// A service and its admin port.
struct Admin {
    service: Service,
    address: SocketAddr,
}

impl Admin {
    async fn start(receiver: &Receiver, vars: &[(&str, &str)]) -> Self {
        Self::with(&[&[("WEBHOOK_URL", receiver.url.as_str())], vars].concat()).await
    }

    async fn with(vars: &[(&str, &str)]) -> Self {
        let service = Service::start(vars).await;
        let address = service.admin().await;
        Self { service, address }
    }

    /// A request with exactly these headers.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut wire = Wire::open(self.address).await;
        let head: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        wire.send(format!("{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n{head}\r\n")).await;
        wire.answer().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &[HOST]).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    async fn send(&self, call: Uuid, kind: &str, payload: Value) {
        let body = json!({"uuid": call.to_string(), "type": kind, "payload": payload});
        let answer = self.service.post("/events", body.to_string()).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
    }

    /// The call, once it is as wanted. The stream tells when something changed, and then comes the next
    /// look.
    async fn call(&self, call: Uuid, wanted: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            let mut changes = stream::watch(self).await;
            loop {
                let answer = self.ask("GET", &format!("/api/calls/{call}"), &[HOST]).await;
                if answer.status == 200 && wanted(&answer.json()) {
                    return answer.json();
                }
                stream::read_more(&mut changes, &mut String::new()).await;
            }
        };
        timeout(LIMIT, looking).await.expect("the call gets there in time")
    }

    async fn uuids(&self, query: &str) -> Vec<String> {
        let page = self.get(&format!("/api/calls{query}")).await;
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["uuid"].as_str().unwrap().to_owned()).collect()
    }
}

fn is_settled(call: &Value) -> bool {
    call["waiting"] == 0
}

#[tokio::test]
async fn a_call_tells_who_when_where_to_and_every_attempt() {
    let receiver =
        Receiver::start(|seen| match (seen.kind(), seen.header("x-avr-webhook-attempt")) {
            ("call_initiated", _) => Reply::route("ws://sts.test:6031/x?key=hush-hush"),
            ("call_started", Some("1")) => Reply::status(500),
            ("dtmf_digit", _) => Reply::status(422),
            _ => Reply::status(201),
        })
        .await;
    let vars = [
        ("WEBHOOK_RETRY", "2"),
        ("WEBHOOK_BACKOFF", "1"),
        ("WEBHOOK_SECRET", "hush-hush"),
        ("WEBHOOK_SIGNING_KEY", "whsec_aHVzaC1zaWduaW5nLWtleS1odXNoLXNpZ25pbmc="),
        ("AGENT_ID", "desk"),
    ];
    let admin = Admin::start(&receiver, &vars).await;
    let call = Uuid::new_v4();
    admin.send(call, "call_initiated", json!({"from": "+39 055", "to": "2000"})).await;
    admin.send(call, "call_started", json!({})).await;
    admin.send(call, "dtmf_digit", json!({"digit": "1"})).await;
    let seen = admin.call(call, |call| call["events"] == 3 && is_settled(call)).await;
    assert_eq!((&seen["from"], &seen["to"]), (&json!("+39 055"), &json!("2000")));
    assert_eq!(seen["routed_to"], "sts.test:6031");
    assert_eq!((&seen["state"], &seen["health"]), (&json!("live"), &json!("dead")));
    assert_eq!(seen["types"], json!(["call_initiated", "call_started", "dtmf_digit"]));
    let timeline = seen["timeline"].as_array().unwrap();
    let standings: Vec<_> = timeline.iter().map(|event| &event["state"]).collect();
    assert_eq!(standings, ["delivered", "delivered", "dead"]);
    let attempts = timeline[1]["attempts"].as_array().unwrap();
    assert_eq!(
        (&attempts[0]["status"], &attempts[0]["code"]),
        (&json!(500), &json!("ERR_BAD_RESPONSE"))
    );
    assert_eq!((&attempts[1]["status"], &attempts[1]["code"]), (&json!(201), &Value::Null));
    assert_eq!((&attempts[1]["number"], &attempts[1]["probe"]), (&json!(2), &json!(false)));
    assert_eq!(timeline[2]["attempts"][0]["error"], "Request failed with status code 422");
    assert_eq!(
        (&timeline[2]["sequence"], &timeline[2]["payload"]),
        (&json!(3), &json!({"digit": "1"}))
    );
    let sent = receiver.so_far();
    for (index, event) in [(0, &timeline[0]), (3, &timeline[2])] {
        let headers: Vec<(String, String)> =
            serde_json::from_value(event["headers"].clone()).unwrap();
        for (name, shown) in headers {
            let truth = sent[index].header(&name).unwrap_or_else(|| panic!("{name} was sent"));
            if ["x-avr-webhook-secret", "webhook-signature"].contains(&name.as_str()) {
                assert_eq!(shown, "••••••••", "{name}");
            } else if name == "traceparent" {
                let (trace, span) = shown.rsplit_once('-').unwrap().0.rsplit_once('-').unwrap();
                assert!(truth.starts_with(&format!("{trace}-")), "{shown} of {truth}");
                assert_eq!(span, "…", "nobody knows it any more");
            } else if name != "webhook-timestamp" {
                assert_eq!(shown, truth, "{name}");
            }
        }
    }
    assert!(!seen.to_string().contains("hush"), "{seen}");
}

#[tokio::test]
async fn calls_are_listed_newest_first_filtered_and_paged() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[]).await;
    let calls: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    for (index, call) in calls.iter().enumerate() {
        let from = format!("+39{index}");
        admin.send(*call, "call_initiated", json!({"from": from, "to": "Bar"})).await;
    }
    admin.send(calls[1], "call_started", json!({})).await;
    admin.send(calls[2], "call_ended", json!({})).await;
    let expected: Vec<String> = calls.iter().rev().map(Uuid::to_string).collect();
    assert_eq!(admin.uuids("").await, expected);
    let first = admin.get("/api/calls?limit=3").await;
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    let rest = format!("?limit=3&cursor={}", first["next"]);
    assert_eq!(admin.uuids(&rest).await, expected[3..]);
    assert_eq!(admin.get(&format!("/api/calls{rest}")).await["next"], Value::Null);
    for (query, found) in [
        ("number=394", vec![4]),
        ("number=bAR&limit=1", vec![4]),
        ("state=live", vec![1]),
        ("state=ended", vec![2]),
        ("state=abandoned", vec![]),
        ("type=call_started", vec![1]),
        ("type=dtmf_digit", vec![]),
        ("health=dead", vec![]),
        (&format!("uuid={}", calls[3].to_string().to_uppercase()), vec![3]),
    ] {
        let found: Vec<String> =
            found.into_iter().map(|index: usize| calls[index].to_string()).collect();
        assert_eq!(admin.uuids(&format!("?{query}")).await, found, "{query}");
    }
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("type=a%20b", "type"),
        ("state=odd", "state"),
        ("x=1", "x"),
    ] {
        let answer = admin.ask("GET", &format!("/api/calls?{query}"), &[HOST]).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.error().contains(named), "{query}: {answer:?}");
    }
    assert_eq!(admin.ask("GET", "/api/calls/nonsense", &[HOST]).await.status, 400);
    let unknown = admin.ask("GET", &format!("/api/calls/{}", Uuid::new_v4()), &[HOST]).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.error().contains("INSPECTOR_CALLS=1000"), "{unknown:?}");
}

#[tokio::test]
async fn only_so_many_calls_are_remembered_the_newest() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[("INSPECTOR_CALLS", "3")]).await;
    let calls: Vec<Uuid> = (0..7).map(|_| Uuid::new_v4()).collect();
    for call in &calls {
        admin.send(*call, "call_started", json!({})).await;
    }
    let expected: Vec<String> = calls[4..].iter().rev().map(Uuid::to_string).collect();
    assert_eq!(admin.uuids("").await, expected);
    let state = admin.get("/api/state").await;
    assert_eq!(state["calls"], json!({"remembered": 3, "live": 3, "limit": 3}));
}

#[tokio::test]
async fn of_a_long_call_the_last_events_are_remembered() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[]).await;
    let call = Uuid::new_v4();
    let text = "x".repeat(30_000);
    for _ in 0..12 {
        admin.send(call, "transcription", json!({"role": "user", "text": text})).await;
    }
    let seen = admin.call(call, |call| call["events"] == 12 && is_settled(call)).await;
    let timeline = seen["timeline"].as_array().unwrap();
    assert_eq!(seen["events_omitted"].as_u64().unwrap() + timeline.len() as u64, 12);
    assert!((7..9).contains(&timeline.len()), "{} events of 30 KB in 256 KiB", timeline.len());
    assert_eq!(timeline.last().unwrap()["sequence"], 12);
    assert_eq!(seen["health"], "ok");
}

#[tokio::test]
async fn without_a_memory_nothing_is_shown_and_all_else_works() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[("INSPECTOR_CALLS", "0")]).await;
    let call = Uuid::new_v4();
    admin.send(call, "call_started", json!({})).await;
    receiver.seen(1).await;
    assert_eq!(admin.get("/api/calls").await, json!({"items": [], "next": null}));
    assert_eq!(admin.get("/api/state").await["calls"]["limit"], 0);
    let answer = admin.ask("GET", &format!("/api/calls/{call}"), &[HOST]).await;
    assert!(answer.error().contains("INSPECTOR_CALLS=0"), "{answer:?}");
}

#[tokio::test]
async fn a_type_that_is_not_delivered_is_shown_as_dropped() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[]).await;
    let call = Uuid::new_v4();
    admin.send(call, "tool_call", json!({})).await;
    let seen = admin.call(call, |call| call["events"] == 1).await;
    assert_eq!(seen["timeline"][0]["state"], "dropped");
    assert_eq!((&seen["timeline"][0]["sequence"], &seen["health"]), (&Value::Null, &json!("ok")));
}

#[tokio::test]
async fn a_replay_and_a_deletion_are_seen_in_the_call() {
    let receiver = Receiver::start(|seen| match seen.kind() {
        "call_ended" => Reply::ok(),
        _ => Reply::status(422),
    })
    .await;
    let admin = Admin::start(&receiver, &[]).await;
    let call = Uuid::new_v4();
    admin.send(call, "dtmf_digit", json!({})).await;
    let seen = admin.call(call, |call| call["dead"] == 1).await;
    let id = seen["timeline"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/dead/{id}");
    let found = async {
        while admin.ask("POST", &format!("{path}/replay"), &[HOST]).await.status == 404 {}
    };
    timeout(LIMIT, found).await.unwrap();
    let again = |call: &Value| {
        call["dead"] == 1 && call["timeline"][0]["attempts"].as_array().unwrap().len() == 2
    };
    let seen = admin.call(call, again).await;
    assert_eq!(seen["timeline"].as_array().unwrap().len(), 1);
    assert_eq!(seen["timeline"][0]["replays"], 1);
    let found = async { while admin.ask("DELETE", &path, &[HOST]).await.status == 404 {} };
    timeout(LIMIT, found).await.unwrap();
    let seen = admin.call(call, |call| call["dead"] == 0).await;
    assert_eq!((&seen["timeline"][0]["state"], &seen["health"]), (&json!("deleted"), &json!("ok")));
}

#[tokio::test]
async fn a_bridged_call_tells_why_it_ended() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[]).await;
    let call = Uuid::new_v4();
    let mut caller = Asterisk::connect(admin.service.audiosocket().await).await;
    assert!(caller.uuid(&call.to_string()).await);
    let live = admin.call(call, |call| call["state"] == "live").await;
    assert_eq!((&live["bridged"], &live["reason"]), (&json!(true), &Value::Null));
    assert!(caller.frame(HANGUP, &[]).await);
    let ended = admin.call(call, |call| call["state"] == "ended" && is_settled(call)).await;
    assert_eq!(ended["reason"], "hangup");
    assert!(ended["duration_ms"].as_u64().unwrap() < 15_000);
}

#[tokio::test]
async fn the_state_tells_of_a_receiver_that_is_down_or_asked_for_a_pause() {
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let admin = Admin::start(&receiver, &[("WEBHOOK_BREAKER", "1"), ("WEBHOOK_RETRY", "1")]).await;
    let state = admin.get("/api/state").await;
    assert_eq!(
        (&state["receivers"][0]["state"], &state["receivers"][0]["url"]),
        (&json!("up"), &json!(receiver.url))
    );
    let call = Uuid::new_v4();
    admin.send(call, "call_started", json!({})).await;
    admin.call(call, |call| call["retrying"] == 1).await;
    let state = admin.get("/api/state").await;
    assert_eq!(state["receivers"][0]["state"], "down");
    assert_eq!(
        (&state["queue"]["waiting"], &state["queue"]["limit"]),
        (&json!(1), &json!(100_000))
    );
    let probe =
        state["receivers"][0]["next_probe_at"].as_str().map(chrono::DateTime::parse_from_rfc3339);
    assert!(probe.is_none_or(|probe| probe.is_ok()), "{state}");
    let paused = Receiver::start(|_| Reply::status(429).header("Retry-After", "60")).await;
    let admin = Admin::start(&paused, &[("WEBHOOK_RETRY", "1")]).await;
    let call = Uuid::new_v4();
    admin.send(call, "call_started", json!({})).await;
    admin.call(call, |call| call["retrying"] == 1).await;
    let state = admin.get("/api/state").await;
    assert_eq!(state["receivers"][0]["state"], "paused");
    assert!(state["receivers"][0]["paused_until"].is_string());
    let none = Admin::with(&[("WEBHOOK_URL", "none")]).await;
    assert_eq!(none.get("/api/state").await["receivers"][0]["state"], "none");
}

#[tokio::test]
async fn a_waiting_event_is_told_apart_from_one_that_is_tried_again() {
    let (receiver, gate) = Receiver::held().await;
    let admin = Admin::start(&receiver, &[]).await;
    let call = Uuid::new_v4();
    admin.send(call, "call_started", json!({})).await;
    let seen = admin.call(call, |call| call["waiting"] == 1).await;
    assert_eq!((&seen["retrying"], &seen["health"]), (&json!(0), &json!("waiting")));
    assert_eq!(seen["timeline"][0]["headers"], Value::Null);
    gate.add_permits(1);
    let seen = admin.call(call, is_settled).await;
    assert_eq!(seen["health"], "ok");
}
