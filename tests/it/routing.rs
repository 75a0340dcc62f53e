//! `POST /call` and a relayed `call_initiated`: which STS URL comes back. `routing/delays.rs` has how soon,
//! whatever the receiver does, and what becomes of the event.

mod delays;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::event::{event, new_uuid};
use crate::support::receiver::{Receiver, Reply, Seen, of_call};
use crate::support::routing::{fallback, routed, serve};
use crate::support::service::{Answer, Service};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Announces a call as Asterisk does: JSON that is declared as a form.
async fn announce(service: &Service, uuid: &str, payload: &Value) -> Answer {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = json!({ "uuid": uuid, "payload": payload }).to_string();
    let answer = service.post_with("/call", &form, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

async fn relay(service: &Service, uuid: &str, kind: &str) -> Answer {
    service.post("/events", event(uuid, kind, json!({ "n": 1 })).to_string()).await
}

/// What a call without payload is told if the receiver answers so.
async fn told(reply: Reply, vars: &[(&str, &str)]) -> (Service, String, Value) {
    let receiver = Receiver::start(move |_| reply.clone()).await;
    let service = serve(&receiver.url, vars).await;
    let uuid = new_uuid();
    let answer = announce(&service, &uuid, &json!({})).await.json();
    (service, uuid, answer)
}

fn is_warning(line: &Value) -> bool {
    line["level"].as_str().is_some_and(|level| level.to_lowercase().starts_with("warn"))
}

/// Sends `call_ended` and waits for it: then everything before it in this call is settled. Returns the
/// types the receiver saw of the call.
async fn settled(service: &Service, receiver: &Receiver, uuid: &str) -> Vec<String> {
    assert_eq!(relay(service, uuid, "call_ended").await.status, 202);
    let kinds = |seen: &[Seen]| {
        let kinds: Vec<String> = of_call(seen, uuid).map(|seen| seen.kind().to_owned()).collect();
        kinds.iter().any(|kind| kind == "call_ended").then_some(kinds)
    };
    receiver.until("call_ended", kinds).await
}

#[tokio::test]
async fn receivers_decision_is_used_and_the_payload_is_its_query() {
    let payload = json!({ "from": "2000", "channel": "PJSIP/2000-00000013" });
    let query = "from=2000&channel=PJSIP%2F2000-00000013";
    let odd = json!({ "t": "+39 06&=#é", "recording": false, "n": 1.5, "nothing": null,
        "list": [1, "a"], "map": { "a": true }, "empty": "" });
    let odd_query = "t=%2B39+06%26%3D%23%C3%A9&recording=false&n=1.5&list=%5B1%2C%22a%22%5D&map=%7B%22a%22%3Atrue%7D&empty=";
    let cases = [
        ("ws://sts.test:6033", &payload, format!("ws://sts.test:6033/?{query}")),
        ("wss://sts.test/a/b", &payload, format!("wss://sts.test/a/b?{query}")),
        ("ws://sts.test/?agent=7", &payload, format!("ws://sts.test/?agent=7&{query}")),
        ("ws://sts.test/a#fragment", &payload, format!("ws://sts.test/a?{query}")),
        (
            "ws://sts.test/?from=9&x=1",
            &payload,
            "ws://sts.test/?from=9&x=1&channel=PJSIP%2F2000-00000013".to_owned(),
        ),
        ("ws://sts.test", &odd, format!("ws://sts.test/?{odd_query}")),
        ("ws://sts.test/a", &json!({}), "ws://sts.test/a".to_owned()),
    ];
    for (decision, payload, expected) in cases {
        let receiver = Receiver::start(move |_| Reply::route(decision)).await;
        let service = serve(&receiver.url, &[]).await;
        let uuid = new_uuid();
        let answer = announce(&service, &uuid, payload).await;
        assert_eq!(answer.json(), routed(&expected), "{decision}");
        let seen = receiver.seen(1).await.remove(0);
        assert_eq!((seen.kind(), seen.uuid()), ("call_initiated", uuid.as_str()));
        assert_eq!(&seen.body["payload"], payload);
    }
}

#[tokio::test]
async fn without_a_decision_the_fallback_is_answered_with_override_false() {
    let replies = [
        Reply::ok(),
        Reply::status(204),
        Reply::status(200).body("OK"),
        Reply::status(200).body("{\"sts_url\":"),
        Reply::status(200).body("[{\"sts_url\":\"ws://sts.test\"}]"),
        Reply::status(200).body("\"ws://sts.test\""),
        Reply::status(200).body(r#"{"data":{"sts_url":"ws://sts.test"}}"#),
        Reply::status(200).body(r#"{"sts_url":null}"#),
        Reply::status(200).body(r#"{"sts_url":""}"#),
        Reply::status(500).body(r#"{"sts_url":"ws://sts.test"}"#),
        Reply::status(400).body(r#"{"sts_url":"ws://sts.test"}"#),
        Reply::status(302).body(r#"{"sts_url":"ws://sts.test"}"#).header("location", "/"),
    ];
    for reply in replies {
        let (_service, _, answer) = told(reply.clone(), &[]).await;
        assert_eq!(answer, fallback());
        let (_service, _, answer) = told(reply, &[("STS_URL", "")]).await;
        assert_eq!(answer, json!({ "sts_url": null, "override": false }));
    }
}

#[tokio::test]
async fn a_decision_counts_with_any_2xx_and_whatever_the_content_type() {
    for status in [200, 201, 202, 299] {
        let reply = Reply::route("ws://sts.test/a").header("content-type", "text/plain");
        let body = r#"{"sts_url":"ws://sts.test/a"}"#;
        for reply in [reply, Reply::status(status).body(body)] {
            assert_eq!(told(reply, &[]).await.2, routed("ws://sts.test/a"), "{status}");
        }
    }
}

#[tokio::test]
async fn an_invalid_sts_url_is_ignored_with_a_warning() {
    let invalid = [
        json!(42),
        json!(true),
        json!({ "url": "ws://sts.test" }),
        json!(["ws://sts.test"]),
        json!("sts.test:6033"),
        json!("ws://"),
        json!("ws://[::1"),
        json!("ws://sts.test:99999"),
        json!("http://sts.test"),
        json!("https://sts.test"),
        json!("file:///etc/passwd"),
        json!("not a url"),
        json!("//sts.test"),
    ];
    for sts_url in invalid {
        let body = json!({ "sts_url": sts_url }).to_string();
        let (service, uuid, answer) = told(Reply::status(200).body(body), &[]).await;
        assert_eq!(answer, fallback(), "{sts_url}");
        println!("the warning about {sts_url}"); // shown when it does not come
        service.log_line(|line| is_warning(line) && line.to_string().contains(&uuid)).await;
    }
}

#[tokio::test]
async fn whatever_else_an_answer_holds_costs_no_decision() {
    let bodies = [
        r#"{"note":"party \ud83c","sts_url":"ws://sts.test/a"}"#,
        r#"{"sts_url":"ws://sts.test/a","\udf89":1E400}"#,
        "\u{feff}{\"sts_url\":\"ws://sts.test/a\"}",
    ];
    for body in bodies {
        let (_service, _, answer) = told(Reply::status(200).body(body), &[]).await;
        assert_eq!(answer, routed("ws://sts.test/a"), "{body}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_or_names_two_urls_is_ignored_with_a_warning() {
    let bodies = [
        r#"{"sts_url":"ws://sts.te"#,
        r#"{"sts_url":"ws://sts.test/a","sts_url":"ws://sts.test/b"}"#,
    ];
    for body in bodies {
        let (service, uuid, answer) = told(Reply::status(200).body(body), &[]).await;
        assert_eq!(answer, fallback(), "{body}");
        service.log_line(|line| is_warning(line) && line.to_string().contains(&uuid)).await;
    }
}

#[tokio::test]
async fn a_receiver_may_route_to_allowed_hosts_only() {
    let allowed = [("STS_ALLOWED_HOSTS", "sts.test, other.test:7000,127.0.0.1")];
    let cases = [
        ("ws://sts.test", true),
        ("ws://sts.test:6033/a", true),
        ("wss://STS.test/a", true),
        ("ws://other.test:7000", true),
        ("ws://127.0.0.1:6030", true),
        ("ws://other.test", false),
        ("ws://other.test:7001", false),
        ("ws://evil.test", false),
        ("ws://sts.test.evil.test", false),
        ("ws://evil.test/sts.test", false),
        ("ws://sts.test@evil.test", false),
        ("ws://evil.test?sts.test", false),
        ("ws://evil.test\\@sts.test", false),
        ("ws://evilsts.test", false),
    ];
    for (sts_url, is_allowed) in cases {
        let (service, uuid, answer) = told(Reply::route(sts_url), &allowed).await;
        assert_eq!(answer["override"], is_allowed, "{sts_url} gave {answer}");
        if !is_allowed {
            assert_eq!(answer, fallback(), "{sts_url}");
            service.log_line(|line| is_warning(line) && line.to_string().contains(&uuid)).await;
        }
    }
}

/// How long `POST /call` took to answer with the fallback.
async fn fallback_within(service: &Service, uuid: &str) -> Duration {
    let start = Instant::now();
    assert_eq!(announce(service, uuid, &json!({})).await.json(), fallback());
    start.elapsed()
}

#[tokio::test]
async fn same_uuid_and_payload_again_is_the_same_answer_and_no_second_event() {
    let count = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        Reply::route(&format!("ws://sts.test/{n}")).after(Duration::from_millis(300))
    })
    .await;
    let service = serve(&receiver.url, &[]).await;
    let (uuid, payload) = (new_uuid(), json!({ "from": "2000" }));
    let upper = uuid.to_uppercase();
    let (one, two, three) = tokio::join!(
        announce(&service, &uuid, &payload),
        announce(&service, &uuid, &payload),
        announce(&service, &upper, &payload),
    );
    let four = announce(&service, &uuid, &payload).await;
    for answer in [one, two, three, four] {
        assert_eq!(answer.json(), routed("ws://sts.test/0?from=2000"));
    }
    assert_eq!(settled(&service, &receiver, &uuid).await, ["call_initiated", "call_ended"]);
}

#[tokio::test]
async fn a_changed_payload_is_routed_again() {
    let receiver = Receiver::start(|seen| {
        let to = seen.body["payload"]["to"].as_str().expect("text");
        Reply::route(&format!("ws://sts.test/{to}"))
    })
    .await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    for to in ["sales", "support", "sales"] {
        let answer = announce(&service, &uuid, &json!({ "to": to })).await;
        assert_eq!(answer.json(), routed(&format!("ws://sts.test/{to}?to={to}")));
    }
    let kinds = settled(&service, &receiver, &uuid).await;
    assert!(kinds.len() >= 3, "two events at least before the end: {kinds:?}");
}

#[tokio::test]
async fn a_type_that_is_not_delivered_is_not_waited_for() {
    let receiver = Receiver::start(|_| Reply::route("ws://sts.test")).await;
    let service = serve(&receiver.url, &[("WEBHOOK_EVENTS", "call_started,call_ended")]).await;
    let uuid = new_uuid();
    assert!(fallback_within(&service, &uuid).await < Duration::from_secs(3));
    assert_eq!(settled(&service, &receiver, &uuid).await, ["call_ended"]);
}

#[tokio::test]
async fn a_relayed_call_initiated_gets_the_receivers_own_sts_url_untouched() {
    let allowed = [("STS_ALLOWED_HOSTS", "sts.test")];
    let cases = [
        (json!({ "sts_url": "ws://sts.test:6033?a=1#x" }), Some("ws://sts.test:6033?a=1#x")),
        (json!({ "sts_url": "ws://sts.test" }), Some("ws://sts.test")),
        (json!({}), None),
        (json!({ "sts_url": 42 }), None),
        (json!({ "sts_url": "http://sts.test" }), None),
        (json!({ "sts_url": "ws://evil.test" }), None),
    ];
    for (body, expected) in cases {
        let text = body.to_string();
        let receiver = Receiver::start(move |_| Reply::status(200).body(text.clone())).await;
        let service = serve(&receiver.url, &allowed).await;
        let answer = relay(&service, &new_uuid(), "call_initiated").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        let id = receiver.seen(1).await[0].header("webhook-id").expect("an id").to_owned();
        assert_eq!(json["id"], id);
        let sts_url = json.get("sts_url");
        assert_eq!(sts_url, expected.map(Value::from).as_ref(), "{body}");
    }
}
