//! The front as Asterisk and relays see it: what is the same for every route. `front/call.rs` has
//! `POST /call`, `front/standing.rs` `GET /call/{uuid}`, `front/events.rs` `POST /events`,
//! `front/repeats.rs` what is asked twice, `front/circle.rs` what comes back to the callhook that sent it,
//! `front/stop.rs` the way out.

mod call;
mod circle;
mod events;
mod repeats;
mod standing;
mod stop;

use serde_json::json;
use tokio::time::Instant;

use crate::support::receiver::{Receiver, Seen};
use crate::support::service::{Service, level, request, serve};

/// The STS server that calls go to when the receiver decides nothing.
const STS_URL: &str = "ws://localhost:6030";

/// A service that delivers to this receiver and falls back to [`STS_URL`].
async fn service_for(receiver: &Receiver) -> Service {
    serve(&receiver.url, &[("STS_URL", STS_URL)]).await
}

/// A service that has no receiver.
async fn lone_service() -> Service {
    Service::start(&[("WEBHOOK_URL", "none"), ("STS_URL", STS_URL)]).await
}

/// The n-th uuid of a test.
fn uuid(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// The body of a `POST /call`; `payload` is JSON text.
fn call_of(n: usize, payload: &str) -> String {
    format!(r#"{{"uuid":"{}","payload":{payload}}}"#, uuid(n))
}

/// One event as AVR Core posts it, without a timestamp.
fn event(n: usize, kind: &str) -> String {
    format!(r#"{{"uuid":"{}","type":"{kind}","payload":{{}}}}"#, uuid(n))
}

/// Events of calls `range`, as one JSON array.
fn array(calls: std::ops::Range<usize>) -> String {
    let events: Vec<_> = calls.map(|n| event(n, "call_started")).collect();
    format!("[{}]", events.join(","))
}

/// Ends a test by one more event, and tells what the receiver got in all, that event left out.
async fn received(service: &Service, receiver: &Receiver, expected: usize) -> Vec<Seen> {
    service.relay(event(9999, "call_ended")).await;
    let mut seen = receiver.seen(expected + 1).await;
    seen.retain(|seen| seen.uuid() != uuid(9999));
    assert_eq!(seen.len(), expected, "{seen:#?}");
    seen
}

/// Whether an error about JSON says where in the body it is.
fn names_a_place(error: &str) -> bool {
    ["column", "byte", "offset", "position"].iter().any(|unit| {
        let after = error.split_once(unit).map_or("", |(_, rest)| rest);
        after.trim_start_matches([' ', ':']).starts_with(|char: char| char.is_ascii_digit())
    })
}

#[tokio::test]
async fn health_is_ok_while_the_process_lives() {
    let service = lone_service().await;
    let answer = service.get("/health").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn ready_is_200_once_started() {
    let service = lone_service().await;
    assert_eq!(service.get("/ready").await.status, 200);
}

#[tokio::test]
async fn an_unknown_path_is_404() {
    let service = lone_service().await;
    for (method, path) in [("GET", "/"), ("POST", "/"), ("POST", "/calls"), ("GET", "/call/x")] {
        let answer = service.ask(method, path, &[], "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert!(!answer.error().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_known_path_with_another_method_is_405_with_allow() {
    let service = lone_service().await;
    let table = [
        ("GET", "/call", "POST"),
        ("PUT", "/call", "POST"),
        ("GET", "/events", "POST"),
        ("DELETE", "/events", "POST"),
        ("POST", "/health", "GET"),
        ("POST", "/ready", "GET"),
        ("POST", "/call/00000000-0000-4000-8000-000000000001", "GET"),
    ];
    for (method, path, allowed) in table {
        let answer = service.ask(method, path, &[], "").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        let allow = answer.header("allow").unwrap_or_default();
        let named = allow.split(',').any(|allow| allow.trim() == allowed);
        assert!(named, "{method} {path} has Allow: {allow}");
        assert!(!answer.error().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn with_a_secret_both_posts_need_it_in_either_header() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("HTTP_SECRET", "s3cret")]).await;
    let table = [
        ("X-AVR-WEBHOOK-SECRET", "s3cret", true),
        ("Authorization", "Bearer s3cret", true),
        ("X-AVR-WEBHOOK-SECRET", "s3cre", false),
        ("X-AVR-WEBHOOK-SECRET", "s3crets", false),
        ("X-AVR-WEBHOOK-SECRET", "", false),
        ("X-AVR-WEBHOOK-SECRET", "Bearer s3cret", false),
        ("Authorization", "Bearer S3CRET", false),
        ("Authorization", "Basic s3cret", false),
        ("Authorization", "s3cret", false),
        ("X-Nothing", "s3cret", false),
    ];
    let mut let_in = 0;
    for (n, (name, value, enough)) in table.into_iter().enumerate() {
        let posts = [("/call", call_of(n, "{}"), 200), ("/events", event(n, "call_started"), 202)];
        for (path, body, good) in posts {
            let answer = service.post_with(path, &[(name, value)], body).await;
            let expected = if enough { good } else { 401 };
            assert_eq!(answer.status, expected, "{path} with {name}: {value}");
            assert!(enough || !answer.error().is_empty(), "{path} with {name}: {value}");
            let_in += usize::from(enough);
        }
    }
    let last = event(999, "call_ended");
    service.post_with("/events", &[("X-AVR-WEBHOOK-SECRET", "s3cret")], last).await;
    let seen = receiver.seen(let_in + 1).await;
    assert_eq!(seen.len(), let_in + 1, "what was refused reached the receiver");
}

/// A page that somebody on the network looks at could announce calls and hand in events.
#[tokio::test]
async fn a_request_with_an_origin_is_a_web_pages_and_403_on_every_route() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let (call, event) = (call_of(1, "{}"), event(1, "call_started"));
    let table = [
        ("POST", "/call", call.as_str()),
        ("POST", "/events", event.as_str()),
        ("OPTIONS", "/events", ""),
        ("GET", "/health", ""),
        ("GET", "/ready", ""),
        ("GET", "/call/00000000-0000-4000-8000-000000000001", ""),
        ("GET", "/nowhere", ""),
    ];
    for (method, path, body) in table {
        for origin in ["https://page.test", "null"] {
            let answer = service.ask(method, path, &[("Origin", origin)], body).await;
            assert_eq!(answer.status, 403, "{method} {path} of {origin}");
            assert!(answer.error().contains("Origin"), "{}", answer.error());
        }
    }
    received(&service, &receiver, 0).await;
}

/// They are closed only 5 s later (`src/http/connection.rs`).
#[tokio::test]
async fn answers_say_for_how_long_an_idle_connection_is_kept() {
    let service = lone_service().await;
    for (path, body) in [("/health", ""), ("/call", "{}"), ("/nowhere", "")] {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let answer = service.ask(method, path, &[], body).await;
        assert_eq!(answer.header("keep-alive"), Some("timeout=60"), "{path}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_warning_with_its_reason_and_the_peer() {
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("HTTP_SECRET", "s3cret")]).await;
    let right = ("X-AVR-WEBHOOK-SECRET", "s3cret");
    let long = " ".repeat(64 * 1024 + 1);
    let (call, event) = (call_of(1, "{}"), event(1, "call_started"));
    let table = [
        ("/call", ("X-AVR-WEBHOOK-SECRET", "old"), call.as_str(), 401, "HTTP_SECRET"),
        ("/call", right, r#"{"uuid":"1"}"#, 400, "uuid"),
        ("/call", right, &long, 413, "65536"),
        ("/events", ("X-Nothing", ""), &event, 401, "HTTP_SECRET"),
        ("/events", right, "[", 400, "column"),
    ];
    for (path, header, body, status, named) in table {
        let mut wire = service.wire().await;
        let own = wire.local_addr().to_string();
        wire.send(request("POST", path, &[header], body)).await;
        assert_eq!(wire.answer().await.expect("an answer").status, status);
        let line = service.log_line(|line| line["peer"] == own).await;
        assert_eq!((level(&line), &line["status"]), ("warn".to_owned(), &json!(status)), "{line}");
        assert!(line["error"].as_str().expect("a reason").contains(named), "{line}");
        assert!(!line.to_string().contains("s3cret"), "{line}");
    }
}

#[tokio::test]
async fn refusals_are_at_most_ten_lines_a_second_and_all_are_counted() {
    let mut service = lone_service().await;
    let begun = Instant::now();
    let mut wire = service.wire().await;
    for _ in 0..300 {
        wire.send(request("POST", "/call", &[], "{")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, 400);
    }
    let seconds = begun.elapsed().as_secs() + 1;
    service.terminate();
    service.wait().await;
    let log = service.whole_log().await;
    let lines = log.lines().filter(|line| line.contains("request refused")).count();
    assert!((10..=10 * seconds).contains(&(lines as u64)), "{lines} lines in {seconds} s");
}

/// RFC 9110, 11.1: the scheme is a token whose case does not count.
/// <https://www.rfc-editor.org/rfc/rfc9110#name-authentication-scheme>
#[tokio::test]
async fn the_bearer_scheme_may_be_written_in_any_case() {
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("HTTP_SECRET", "s3cret")]).await;
    for (n, scheme) in ["bearer", "BEARER"].into_iter().enumerate() {
        let header = format!("{scheme} s3cret");
        let headers = [("Authorization", header.as_str())];
        let answer = service.post_with("/call", &headers, call_of(n, "{}")).await;
        assert_eq!(answer.status, 200, "{header}");
    }
}

#[tokio::test]
async fn a_secret_does_not_hide_health_and_ready() {
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("HTTP_SECRET", "s3cret")]).await;
    assert_eq!(service.get("/health").await.status, 200);
    assert_eq!(service.get("/ready").await.status, 200);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let receiver = Receiver::content().await;
    let service = service_for(&receiver).await;
    let mut wire = service.wire().await;
    for n in 0..200 {
        wire.send(request("POST", "/events", &[], &event(n % 7, "call_started"))).await;
        let answer = wire.answer().await.expect("the connection stays open");
        assert_eq!(answer.status, 202, "request {n}");
    }
    receiver.seen(200).await;
}
