//! `POST /call`: the effective STS URL, the event behind it, and what is refused. How the receiver's
//! answer becomes a decision, and what it may do to a caller's patience, is in `routing.rs`.

use serde_json::{Value, json};

use super::{STS_URL, call_of, event, lone_service, names_a_place, service_for, uuid};
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::{Service, request, serve};
use crate::support::wire::decode;

/// The receiver's URL, the payload, the URL that Asterisk's call goes to.
const URLS: &[(&str, &str, &str)] = &[
    (
        "ws://localhost:6030",
        r#"{"from":"2000","to":"5001","uniqueid":"1","channel":"PJSIP/2000-00000013"}"#,
        "ws://localhost:6030/?from=2000&to=5001&uniqueid=1&channel=PJSIP%2F2000-00000013",
    ),
    ("wss://sts.test/v1", r#"{"from":"1"}"#, "wss://sts.test/v1?from=1"),
    ("ws://h:1", r#"{"z":"1","10":"2","a":"3","9":"4"}"#, "ws://h:1/?z=1&10=2&a=3&9=4"),
    ("ws://h:1/?agent=7", r#"{"from":"1"}"#, "ws://h:1/?agent=7&from=1"),
    ("ws://h:1/?from=9", r#"{"from":"1","to":"2"}"#, "ws://h:1/?from=9&to=2"),
    ("ws://h:1/?from=", r#"{"from":"1","to":"2"}"#, "ws://h:1/?from=&to=2"),
    ("ws://h:1", r#"{"recording":false,"vip":true}"#, "ws://h:1/?recording=false&vip=true"),
    ("ws://h:1", r#"{"a":7,"b":1.5,"c":-2,"d":0}"#, "ws://h:1/?a=7&b=1.5&c=-2&d=0"),
    (
        "ws://h:1",
        r#"{"a":1.50,"b":1e2,"c":12345678901234567890123}"#,
        "ws://h:1/?a=1.50&b=1e2&c=12345678901234567890123",
    ),
    ("ws://h:1/?a=%7e", r#"{"from":"1"}"#, "ws://h:1/?a=%7e&from=1"),
    ("ws://h:1", r#"{"o":{"b":1,"a":[]}}"#, "ws://h:1/?o=%7B%22b%22%3A1%2C%22a%22%3A%5B%5D%7D"),
    ("ws://h:1", r#"{"l":[1,"x"]}"#, "ws://h:1/?l=%5B1%2C%22x%22%5D"),
    ("ws://h:1", r#"{"a":null,"b":"null","c":null}"#, "ws://h:1/?b=null"),
    ("ws://h:1", r#"{"from":""}"#, "ws://h:1/?from="),
    ("ws://h:1/#part", r#"{"from":"1"}"#, "ws://h:1/?from=1"),
    ("ws://h:1/a?b=c#part", r#"{"from":"1"}"#, "ws://h:1/a?b=c&from=1"),
    // application/x-www-form-urlencoded: https://url.spec.whatwg.org/#urlencoded-serializing
    (
        "ws://h:1",
        r#"{"name":"J. Doe & Sön","n":"+49*1"}"#,
        "ws://h:1/?name=J.+Doe+%26+S%C3%B6n&n=%2B49*1",
    ),
    ("ws://h:1", r#"{"a b":"~'()"}"#, "ws://h:1/?a+b=%7E%27%28%29"),
    ("ws://h:1", r#"{"q":"a\"b\\c\td"}"#, "ws://h:1/?q=a%22b%5Cc%09d"),
];

/// Requests that a real Asterisk sent, byte for byte.
const RECORDED: [(&str, &[u8]); 3] = [
    ("app-sip-ulaw", include_bytes!("../../captures/app-sip-ulaw.http")),
    ("chan-local-slin", include_bytes!("../../captures/chan-local-slin.http")),
    ("chan-sip-ulaw", include_bytes!("../../captures/chan-sip-ulaw.http")),
];

#[tokio::test]
async fn payload_fields_become_query_parameters_of_the_receivers_url() {
    let by_uuid =
        |wanted: &str| (0..URLS.len()).find(|n| uuid(*n) == wanted).expect("of the table");
    let receiver = Receiver::start(move |seen| Reply::route(URLS[by_uuid(seen.uuid())].0)).await;
    let service = service_for(&receiver).await;
    for (n, (base, payload, expected)) in URLS.iter().enumerate() {
        let answer = service.post("/call", call_of(n, payload)).await;
        assert_eq!(answer.status, 200, "{base} with {payload}: {}", answer.body);
        let expected = json!({ "sts_url": expected, "override": true });
        assert_eq!(answer.json(), expected, "{base} with {payload}");
    }
}

#[tokio::test]
async fn a_lone_surrogate_in_a_payload_is_a_replacement_character_in_the_url() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let payload = r#"{"name":"Jo \ud83c","n":1E400,"\udf89":"x"}"#;
    let answer = service.post("/call", call_of(1, payload)).await;
    let url = "ws://localhost:6030/?name=Jo+%EF%BF%BD&n=1E400&%EF%BF%BD=x";
    assert_eq!(answer.json(), json!({ "sts_url": url, "override": false }));
    let seen = &receiver.seen(1).await[0];
    assert!(seen.raw.contains(payload), "passed on byte for byte: {}", seen.raw);
}

#[tokio::test]
async fn the_answer_is_one_object_of_two_fields_in_order() {
    let service = lone_service().await;
    let answer = service.post("/call", call_of(1, r#"{"from":"1"}"#)).await;
    assert_eq!(answer.body, r#"{"sts_url":"ws://localhost:6030/?from=1","override":false}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_receiver_that_decides_nothing_leaves_the_call_to_sts_url() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let answer = service.post("/call", call_of(1, r#"{"from":"1"}"#)).await.json();
    assert_eq!(answer, json!({ "sts_url": "ws://localhost:6030/?from=1", "override": false }));
}

#[tokio::test]
async fn sts_url_is_null_where_neither_exists() {
    let receiver = Receiver::content().await;
    for url in ["none", &receiver.url] {
        let service = Service::start(&[("WEBHOOK_URL", url)]).await;
        let answer = service.post("/call", call_of(1, r#"{"from":"1"}"#)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), json!({ "sts_url": null, "override": false }));
    }
}

#[tokio::test]
async fn recorded_asterisk_requests_are_routed() {
    let receiver = Receiver::start(|_| Reply::route("ws://sts.test:6036")).await;
    let service = service_for(&receiver).await;
    for (n, (name, bytes)) in RECORDED.into_iter().enumerate() {
        let answer = decode(&service.raw(bytes).await);
        assert_eq!(answer.status, 200, "{name}");
        let body = bytes.split(|byte| *byte == b'\n').next_back().expect("a body");
        let sent: Value = serde_json::from_slice(body).expect("a recorded body is JSON");
        let url = answer.json()["sts_url"].as_str().expect("a URL").to_owned();
        let url = url::Url::parse(&url).expect("a URL");
        let fields = sent["payload"].as_object().expect("an object").iter();
        let fields =
            fields.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()));
        assert_eq!(url.query_pairs().into_owned().collect::<Vec<_>>(), fields.collect::<Vec<_>>());
        let seen = receiver.seen(n + 1).await;
        assert_eq!(seen[n].kind(), "call_initiated", "{name}");
        assert_eq!(seen[n].body["uuid"], sent["uuid"], "{name}");
        assert_eq!(seen[n].body["payload"].to_string(), sent["payload"].to_string(), "{name}");
    }
}

#[tokio::test]
async fn a_form_content_type_or_none_is_read_as_json() {
    let service = lone_service().await;
    let types: [&[(&str, &str)]; 4] = [
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/json; charset=utf-8")],
        &[],
    ];
    for (n, headers) in types.into_iter().enumerate() {
        let answer = service.post_with("/call", headers, call_of(n, r#"{"a":"1"}"#)).await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert_eq!(answer.json()["sts_url"], "ws://localhost:6030/?a=1", "{headers:?}");
    }
}

#[tokio::test]
async fn an_absent_or_null_payload_is_an_empty_one() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let bodies = [format!(r#"{{"uuid":"{}"}}"#, uuid(0)), call_of(1, "null"), call_of(2, "{}")];
    for (n, body) in bodies.into_iter().enumerate() {
        let answer = service.post("/call", body.as_str()).await;
        assert_eq!(answer.status, 200, "{body}");
        let url = answer.json()["sts_url"].as_str().expect("a URL").to_owned();
        assert_eq!(url.trim_end_matches('/'), STS_URL, "{body}");
        assert_eq!(receiver.seen(n + 1).await[n].body["payload"], json!({}), "{body}");
    }
}

#[tokio::test]
async fn a_uuid_is_sent_on_in_lower_case_with_dashes() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let given = [
        ("ABCDEF01-2345-4789-8BCD-EF0123456789", "abcdef01-2345-4789-8bcd-ef0123456789"),
        ("abcdef01234547898bcdef0123456780", "abcdef01-2345-4789-8bcd-ef0123456780"),
        ("ABCDEF01234547898BCDEF0123456781", "abcdef01-2345-4789-8bcd-ef0123456781"),
    ];
    for (n, (given, sent)) in given.into_iter().enumerate() {
        let call = json!({ "uuid": given }).to_string();
        assert_eq!(service.post("/call", call).await.status, 200, "{given}");
        let started = json!({ "uuid": given, "type": "call_started", "payload": {} }).to_string();
        assert_eq!(service.post("/events", started).await.status, 202, "{given}");
        let seen = receiver.seen(2 * n + 2).await;
        assert_eq!((seen[2 * n].uuid(), seen[2 * n + 1].uuid()), (sent, sent));
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused_naming_the_field_and_emits_nothing() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let table = [
        (r#"{}"#.to_owned(), "uuid"),
        (r#"{"payload":{"from":"1"}}"#.to_owned(), "uuid"),
        (r#"{"uuid":null}"#.to_owned(), "uuid"),
        (r#"{"uuid":7}"#.to_owned(), "uuid"),
        (r#"{"uuid":""}"#.to_owned(), "uuid"),
        (r#"{"uuid":"1795457910.571"}"#.to_owned(), "uuid"),
        (r#"{"uuid":"00000000-0000-4000-8000-00000000000g"}"#.to_owned(), "uuid"),
        (r#"{"uuid":"00000000-0000-4000-8000-0000000000001"}"#.to_owned(), "uuid"),
        (call_of(1, "[]"), "payload"),
        (call_of(1, r#""from""#), "payload"),
        (call_of(1, "7"), "payload"),
        (call_of(1, "false"), "payload"),
    ];
    for (body, field) in table {
        let answer = service.post("/call", body.as_str()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().contains(field), "{body}: {}", answer.error());
    }
    for body in ["", "[]", "\"uuid\"", "null", "uuid=1&payload=2"] {
        let answer = service.post("/call", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(!answer.error().is_empty(), "{body}");
    }
    service.post("/call", call_of(9, "{}")).await;
    assert_eq!(receiver.seen(1).await.len(), 1);
}

#[tokio::test]
async fn bad_json_is_refused_naming_the_place() {
    let service = lone_service().await;
    let good = call_of(1, r#"{"from":"1","to":"2"}"#);
    let table = [
        good.replace(r#""from":"1""#, r#""from":"Joe "Jo" Doe""#), // a caller id with quotes
        good.replace(r#""from":"1""#, r#""from":"back\slash""#),
        good.replace(r#""from":"1""#, "\"from\":\"a\tb\""),
        good[..good.len() - 9].to_owned(), // cut, as Asterisk does at an unbalanced parenthesis
        format!("{good}x"),
        good.replace(',', ",,"),
    ];
    for body in table {
        let answer = service.post("/call", body.as_str()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(names_a_place(&answer.error()), "{body}: {}", answer.error());
    }
}

#[tokio::test]
async fn a_key_that_stands_twice_is_refused_naming_it() {
    let service = lone_service().await;
    let injected = r#"{"from":"1","to":"666","to":"5001"}"#;
    let twice = format!(r#"{{"uuid":"{0}","uuid":"{0}"}}"#, uuid(1));
    let payloads = format!(r#"{{"uuid":"{}","payload":{{}},"payload":{{}}}}"#, uuid(1));
    for (body, key) in [(call_of(1, injected), "to"), (twice, "uuid"), (payloads, "payload")] {
        let answer = service.post("/call", body.as_str()).await;
        assert_eq!(answer.status, 400, "{body}");
        let error = answer.error();
        let named = error.split(|char: char| !char.is_alphanumeric()).any(|word| word == key);
        assert!(named && names_a_place(&error), "{body}: {error}");
    }
}

#[tokio::test]
async fn a_body_of_64_kib_is_read_and_a_byte_more_is_413() {
    let service = lone_service().await;
    let call = call_of(1, r#"{"from":"1"}"#);
    let fits = call.clone() + &" ".repeat(64 * 1024 - call.len());
    assert_eq!(service.post("/call", fits.as_str()).await.status, 200);
    let answer = service.post("/call", fits + " ").await;
    assert_eq!(answer.status, 413);
    assert!(!answer.error().is_empty());
}

#[tokio::test]
async fn a_body_that_grows_past_64_kib_without_announcing_it_is_413() {
    let service = lone_service().await;
    let mut wire = service.wire().await;
    let head = request("POST", "/call", &[("Transfer-Encoding", "chunked")], "");
    let head = String::from_utf8(head).expect("text").replace("Content-Length: 0\r\n", "");
    wire.send(head).await;
    for _ in 0..65 {
        let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
        if !wire.send(chunk).await {
            break;
        }
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("an answer").status, 413);
    assert_eq!(service.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_full_queue_answers_with_the_fallback_and_logs_the_loss() {
    let (receiver, gate) = Receiver::held().await;
    let vars = [("STS_URL", STS_URL), ("QUEUE_LIMIT", "1")];
    let service = serve(&receiver.url, &vars).await;
    service.relay(event(1, "call_started")).await;
    let answer = service.post("/call", call_of(2, r#"{"from":"1"}"#)).await;
    let expected = json!({ "sts_url": "ws://localhost:6030/?from=1", "override": false });
    assert_eq!((answer.status, answer.json()), (200, expected));
    service.log_line(|line| line.to_string().contains(&uuid(2))).await;
    gate.add_permits(9);
}
