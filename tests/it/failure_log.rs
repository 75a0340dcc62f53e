//! What the operator reads when an attempt fails: the JSON fields, the codes, AVR's block in the text
//! format, and what no log may ever hold.

use std::cell::RefCell;
use std::time::Duration;

use crate::support::event::{event, new_uuid};
use crate::support::receiver::{Receiver, Reply, free_port, nobody};
use crate::support::service::{Service, level};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uuid::Uuid;

async fn relay(service: &Service, uuid: &str, kind: &str) {
    let event = event(uuid, kind, json!({ "from": "+39-06-555-0199" }));
    service.relay(event).await;
}

/// A service that retries once and is not kept from it by the breaker.
async fn serve(url: &str, vars: &[(&str, &str)]) -> Service {
    let usual = [
        ("WEBHOOK_URL", url),
        ("WEBHOOK_RETRY", "1"),
        ("WEBHOOK_BACKOFF", "1"),
        ("WEBHOOK_BREAKER", "0"),
        ("WEBHOOK_TIMEOUT", "2000"),
        ("STS_URL", "ws://sts.test"),
    ];
    let usual = usual.into_iter().filter(|(name, _)| !vars.iter().any(|(given, _)| given == name));
    Service::start(&usual.chain(vars.iter().copied()).collect::<Vec<_>>()).await
}

/// The record of this attempt of this call's event.
async fn record(service: &Service, uuid: &str, attempt: u64) -> Value {
    let wanted = |line: &Value| {
        line["uuid"] == uuid
            && line["attempt"] == attempt
            && line["message"].as_str().is_some_and(|text| text.starts_with("webhook "))
    };
    service.log_line(wanted).await
}

/// What a peer does to each connection.
#[derive(Clone, Copy)]
enum Peer {
    /// Closes with the request unread, which resets the connection.
    Resets,
    /// Reads the request and closes in an orderly way without an answer.
    HangsUp,
    /// Answers anything, a TLS hello too, with a plain-text HTTP error.
    SpeaksPlainText,
    /// Resets the connection after the head of a 2xx and a part of the body.
    ResetsInBody,
}

/// A peer on loopback; it lives as long as the returned tasks.
async fn peer(what: Peer) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            treat(stream, what).await;
        }
    });
    (port, tasks)
}

async fn treat(mut stream: TcpStream, what: Peer) {
    stream.readable().await.expect("a request comes");
    let mut request = Vec::new();
    match what {
        Peer::Resets => {} // dropped with bytes unread
        Peer::ResetsInBody => {
            let head = b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\npart";
            stream.write_all(head).await.ok();
        }
        Peer::HangsUp => {
            // To the end of the body: anything left unread would make it a reset.
            while !request.ends_with(b"}}") {
                let size = stream.read_buf(&mut request).await.expect("a request is whole");
                assert_ne!(size, 0, "a request is whole");
            }
        }
        Peer::SpeaksPlainText => {
            stream.read_buf(&mut request).await.expect("a hello or a request");
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.ok();
        }
    }
}

/// The record's fields, all of them, after one event of a call went wrong in both of its attempts.
async fn assert_records(url: &str, vars: &[(&str, &str)], code: &str, status: Option<u16>) {
    let service = serve(url, vars).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "call_started").await;
    let (first, last) = (record(&service, &uuid, 1).await, record(&service, &uuid, 2).await);
    assert!(level(&first).starts_with("warn"), "{first}");
    assert_eq!(first["message"], "webhook attempt failed", "{first}");
    assert_eq!(level(&last), "error", "{last}");
    assert_eq!(last["message"], "webhook delivery failed", "{last}");
    assert_eq!(first["id"], last["id"]);
    for record in [first, last] {
        let expected = json!({
            "type": "call_started", "uuid": uuid, "attempts": 2, "code": code, "url": url,
            "method": "POST", "status": status,
        });
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(record.get(field), Some(value), "{field} in {record}");
        }
        let id = record["id"].as_str().expect("an id is text");
        assert_eq!(Uuid::parse_str(id).map(|id| id.get_version_num()), Ok(7), "{record}");
        assert!(record["error"].as_str().is_some_and(|text| !text.is_empty()), "{record}");
        assert!(record["duration_ms"].as_u64().is_some_and(|time| time < 15_000), "{record}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_econnrefused() {
    let (_, url) = nobody();
    assert_records(&url, &[], "ECONNREFUSED", None).await;
}

#[tokio::test]
async fn a_reset_connection_is_econnreset() {
    for what in [Peer::Resets, Peer::HangsUp] {
        let (port, _peer) = peer(what).await;
        assert_records(&format!("http://127.0.0.1:{port}/events"), &[], "ECONNRESET", None).await;
    }
}

#[tokio::test]
async fn an_unknown_host_is_enotfound() {
    let settings = [("WEBHOOK_TIMEOUT", "6000")];
    assert_records("http://nowhere.invalid:9000/events", &settings, "ENOTFOUND", None).await;
}

#[tokio::test]
async fn a_timeout_is_econnaborted_and_took_as_long_as_allowed() {
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3600))).await;
    let settings = [("WEBHOOK_TIMEOUT", "400")];
    assert_records(&receiver.url, &settings, "ECONNABORTED", None).await;
    let service = serve(&receiver.url, &settings).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "call_started").await;
    let took = record(&service, &uuid, 1).await["duration_ms"].as_u64().expect("a number");
    assert!((390..2000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn tls_with_a_plain_text_server_is_eproto() {
    let (port, _peer) = peer(Peer::SpeaksPlainText).await;
    assert_records(&format!("https://127.0.0.1:{port}/events"), &[], "EPROTO", None).await;
}

#[tokio::test]
async fn a_3xx_or_4xx_is_err_bad_request_and_a_5xx_err_bad_response() {
    let cases = [(302, "ERR_BAD_REQUEST"), (401, "ERR_BAD_REQUEST"), (404, "ERR_BAD_REQUEST")];
    let cases = cases.into_iter().chain([(500, "ERR_BAD_RESPONSE"), (503, "ERR_BAD_RESPONSE")]);
    for (status, code) in cases {
        let receiver = Receiver::start(move |_| Reply::status(status)).await;
        assert_records(&receiver.url, &[], code, Some(status)).await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_hide_the_status() {
    let (port, _peer) = peer(Peer::ResetsInBody).await;
    let service = serve(&format!("http://127.0.0.1:{port}/events"), &[]).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "call_started").await;
    // Reset may overtake the head, then it is one; what it is must be told consistently.
    let record = record(&service, &uuid, 2).await;
    match record["status"].as_u64() {
        Some(500) => assert_eq!(record["code"], "ERR_BAD_RESPONSE", "{record}"),
        None => assert_eq!(record["code"], "ECONNRESET", "{record}"),
        other => panic!("{other:?} in {record}"),
    }
}

#[tokio::test]
async fn a_status_that_is_final_is_one_error_with_the_attempts_that_were_allowed() {
    let receiver = Receiver::start(|seen| match seen.kind() {
        "call_started" => Reply::status(422),
        _ => Reply::ok(),
    })
    .await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "3")]).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "call_started").await;
    let record = record(&service, &uuid, 1).await;
    assert_eq!(
        (level(&record).as_str(), &record["message"]),
        ("error", &json!("webhook delivery failed"))
    );
    assert_eq!((&record["attempts"], &record["status"]), (&json!(4), &json!(422)), "{record}");
    relay(&service, &uuid, "call_ended").await;
    assert_eq!(receiver.seen(2).await[1].kind(), "call_ended");
    let failures = service.log_so_far().into_iter().filter(|line| line["uuid"] == uuid);
    assert_eq!(failures.filter(|line| line["attempt"].is_u64()).count(), 1);
}

#[tokio::test]
async fn a_success_after_a_failure_leaves_one_warning_and_no_error() {
    let receiver = Receiver::start(|seen| {
        let first = seen.header("x-avr-webhook-attempt") == Some("1");
        if first && seen.kind() == "call_started" { Reply::status(500) } else { Reply::ok() }
    })
    .await;
    let service = serve(&receiver.url, &[]).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "call_started").await;
    relay(&service, &uuid, "call_ended").await;
    receiver.seen(3).await;
    assert!(level(&record(&service, &uuid, 1).await).starts_with("warn"));
    let lines = service.log_so_far();
    assert!(lines.iter().all(|line| level(line) != "error"), "{lines:#?}");
    assert_eq!(
        lines.iter().filter(|line| level(line).starts_with("warn")).count(),
        1,
        "{lines:#?}"
    );
}

#[tokio::test]
async fn each_attempt_has_its_own_record() {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "3")]).await;
    let uuid = new_uuid();
    relay(&service, &uuid, "dtmf_digit").await;
    record(&service, &uuid, 4).await;
    let lines = service.log_so_far();
    let records: Vec<(u64, String)> = lines
        .iter()
        .filter(|line| line["uuid"] == uuid && line["type"] == "dtmf_digit")
        .filter_map(|line| Some((line["attempt"].as_u64()?, level(line))))
        .collect();
    assert_eq!(records.iter().map(|record| record.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(records[..3].iter().all(|record| record.1.starts_with("warn")), "{records:?}");
    assert_eq!(records[3].1, "error");
}

#[tokio::test]
async fn text_log_of_the_last_failure_is_avrs_block() {
    let (port, url) = nobody();

    let service = serve(&url, &[("LOG_FORMAT", "text")]).await;
    relay(&service, &new_uuid(), "call_started").await;
    let block = format!(
        "[WEBHOOK][CALL_STARTED] Retry failed\n\
         Webhook Error:\n\
         Message: connect ECONNREFUSED 127.0.0.1:{port}\n\
         Code: ECONNREFUSED\n\
         URL: {url}\n\
         Method: POST\n\
         Status: "
    );
    let log = service.text_log("Status: ").await;
    assert!(log.contains(&block), "{log}");
    assert_eq!(log.matches("Retry failed").count(), 1, "only the last one:\n{log}");
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.contains(&"[WEBHOOK][CALL_STARTED] Retry failed"), "nothing before it:\n{log}");
    assert!(lines.contains(&"Status: "), "nothing after it:\n{log}");
}

#[tokio::test]
async fn text_log_of_a_status_has_its_code_and_status() {
    for (status, code) in
        [(500, "ERR_BAD_RESPONSE"), (404, "ERR_BAD_REQUEST"), (400, "ERR_BAD_REQUEST")]
    {
        let receiver = Receiver::start(move |_| Reply::status(status)).await;
        let service = serve(&receiver.url, &[("LOG_FORMAT", "text")]).await;
        relay(&service, &new_uuid(), "dtmf_digit").await;
        let log = service.text_log(&format!("\nStatus: {status}")).await;
        let lines: Vec<&str> = log.lines().collect();
        let at = lines.iter().position(|line| *line == "[WEBHOOK][DTMF_DIGIT] Retry failed");
        let block = &lines[at.unwrap_or_else(|| panic!("a block in\n{log}"))..][..7];
        let (code, url) = (format!("Code: {code}"), format!("URL: {}", receiver.url));
        let status = format!("Status: {status}");
        assert_eq!(block[1], "Webhook Error:");
        assert!(block[2].strip_prefix("Message: ").is_some_and(|text| !text.is_empty()), "{log}");
        assert_eq!(block[3..], [code.as_str(), url.as_str(), "Method: POST", status.as_str()]);
    }
}

/// All that is logged until an event that succeeds at last, and the call's end.
async fn log_of_a_bad_day(format: &str, log_level: &str) -> String {
    let port = free_port();
    let user = format!("http://urluser:urlpassword@127.0.0.1:{port}/events");
    let settings = [
        ("LOG_FORMAT", format),
        ("LOG_LEVEL", log_level),
        ("WEBHOOK_SECRET", "webhooksecret"),
        ("WEBHOOK_SIGNING_KEY", "whsec_c2lnbmluZ2tleXNpZ25pbmdrZXlzaWduaW5na2V5"),
        ("HTTP_SECRET", "frontsecret"),
        ("ADMIN_TOKEN", "admintoken"),
        ("STS_URL", "ws://stsuser:stspassword@sts.test:6030"),
    ];
    let service = serve(&user, &settings).await;
    let event = |kind: &str| {
        event(&new_uuid(), kind, json!({ "from": "callernumber", "text": "saidtext" })).to_string()
    };
    let key = [("Authorization", "Bearer frontsecret")];
    let wrong = [("X-AVR-WEBHOOK-SECRET", "wrongsecret")];
    assert_eq!(service.post_with("/events", &wrong, event("call_started")).await.status, 401);
    let call_body =
        json!({ "uuid": new_uuid(), "payload": { "from": "callernumber" } }).to_string();
    assert_eq!(service.post_with("/call", &key, call_body).await.status, 200);
    assert_eq!(service.post_with("/events", &key, event("transcription")).await.status, 202);
    let all = RefCell::new(Vec::new());
    if format == "text" {
        return service.text_log("[TRANSCRIPTION] Retry failed").await;
    }
    let last = |line: &Value| {
        all.borrow_mut().push(line.to_string());
        line["type"] == "transcription" && line["message"] == "webhook delivery failed"
    };
    service.log_line(last).await;
    all.into_inner().join("\n")
}

#[tokio::test]
async fn no_log_holds_a_secret_or_the_user_part_of_a_url() {
    let secrets = [
        "webhooksecret",
        "c2lnbmluZ2tle",
        "signingkey",
        "frontsecret",
        "admintoken",
        "urluser",
        "urlpassword",
        "stsuser",
        "stspassword",
        "wrongsecret",
        "dXJsdXNlcjp1cmxwYXNzd29yZA",
    ];
    for (format, level) in
        [("json", "info"), ("text", "info"), ("json", "debug"), ("text", "debug")]
    {
        let log = log_of_a_bad_day(format, level).await;
        for secret in secrets {
            assert!(!log.contains(secret), "{secret} in the {format} log at {level}:\n{log}");
        }
        assert!(log.contains("127.0.0.1"), "the receiver is named all the same:\n{log}");
    }
}

#[tokio::test]
async fn no_log_holds_a_payload_at_info() {
    for format in ["json", "text"] {
        let log = log_of_a_bad_day(format, "info").await;
        for text in ["callernumber", "saidtext"] {
            assert!(!log.contains(text), "{text} in the {format} log:\n{log}");
        }
    }
}

#[tokio::test]
async fn beyond_twenty_a_second_failures_are_summed_up_and_each_is_a_dead_letter() {
    const EVENTS: usize = 400;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "0")]).await;
    let began = std::time::Instant::now();
    let events: Vec<Value> =
        (0..EVENTS).map(|_| event(&new_uuid(), "transcription", json!({}))).collect();
    service.relay(Value::from(events)).await;
    let summed = "webhook failures summed up";
    let total = || {
        let log = service.log_so_far();
        let full = log.iter().filter(|line| line["message"] == "webhook delivery failed").count();
        let sums = log.iter().filter(|line| line["message"] == summed);
        let sums: u64 = sums.map(|line| line["count"].as_u64().unwrap()).sum();
        (full, usize::try_from(sums).unwrap())
    };
    let line = service.log_line(|line| line["message"] == summed).await;
    for (field, value) in [
        ("level", json!("error")),
        ("type", json!("transcription")),
        ("code", json!("ERR_BAD_RESPONSE")),
        ("status", json!(500)),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    while total().0 + total().1 < EVENTS {
        assert_eq!(service.get("/health").await.status, 200);
    }
    let (full, sums) = total();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert_eq!(full + sums, EVENTS);
    assert!(full <= 20 * seconds, "{full} in full within {seconds} s");
    let dead = service.ask_admin("GET", "/api/dead?limit=1000", &[]).await;
    assert_eq!(dead.json()["items"].as_array().unwrap().len(), EVENTS);
}
