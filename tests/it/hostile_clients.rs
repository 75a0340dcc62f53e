//! Clients that are slow, broken or malicious: each is refused or cut off, nothing of theirs reaches the
//! receiver, and others are served on.

use std::time::Duration;

use crate::support::receiver::{Receiver, Reply, closed_gate};
use crate::support::service::{Service, Wire, request, serve};
use serde_json::json;
use tokio::time::{Instant, interval};

/// How often a dripping client sends a byte.
const DRIP: Duration = Duration::from_millis(250);
/// How much longer a busy machine may take.
const LATE: Duration = Duration::from_secs(4);
/// A call that nothing is wrong with.
const GOOD: &str = r#"{"uuid":"00000000-0000-4000-8000-00000000900d","payload":{"from":"1"}}"#;

/// A service with its receiver.
struct Pair {
    receiver: Receiver,
    service: Service,
}

impl Pair {
    async fn start() -> Pair {
        let receiver = Receiver::content().await;
        let service = serve(&receiver.url, &[("STS_URL", "ws://localhost:6030")]).await;
        Pair { receiver, service }
    }

    async fn wire(&self) -> Wire {
        self.service.wire().await
    }

    /// A good call is still answered, and its event is the only one that came.
    async fn is_well(&self) {
        let answer = self.service.post("/call", GOOD).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["sts_url"], "ws://localhost:6030/?from=1");
        let seen = self.receiver.seen(1).await;
        assert_eq!(seen.len(), 1, "{seen:#?}");
        assert_eq!(seen[0].raw.matches("900d").count(), 1);
    }

    /// Sends these bytes and nothing more, and expects a refusal: a 4xx or none, then a close.
    async fn refuses(&self, what: &str, bytes: &[u8]) {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        if let Some(answer) = wire.answer().await {
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
            wire.rest().await;
        }
    }
}

/// A `POST /call` with this body, whatever bytes it is made of.
fn post_of(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn call_of(payload: &str) -> String {
    format!(r#"{{"uuid":"00000000-0000-4000-8000-000000000bad","payload":{payload}}}"#)
}

/// Sends `text` a byte at a time until the peer closes or answers; how long that took.
async fn drip(wire: &mut Wire, text: &str) -> Duration {
    let start = Instant::now();
    let mut beat = interval(DRIP);
    for byte in text.bytes() {
        tokio::select! {
            answer = wire.answer() => {
                if let Some(answer) = answer {
                    assert_eq!(answer.status, 408, "{answer:?}");
                }
                return start.elapsed();
            }
            _ = beat.tick() => {}
        }
        wire.send([byte]).await;
    }
    panic!("a drip of {:?} went through", start.elapsed());
}

fn assert_cut(what: &str, after: Duration, limit: u64) {
    let limit = Duration::from_secs(limit);
    let early = limit - Duration::from_millis(500);
    assert!((early..limit + LATE).contains(&after), "{what}: cut after {after:?}, limit {limit:?}");
}

/// Asks for something on a connection that has to be open still.
async fn asks(wire: &mut Wire) {
    wire.send(request("GET", "/health", &[], "")).await;
    let answer = wire.answer().await.expect("an idle connection stays open");
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_client_that_is_slow_in_mid_request_is_cut_off_but_an_idle_one_is_not() {
    let pair = Pair::start().await;
    let mut silent = pair.wire().await;
    let mut idle = pair.wire().await;
    asks(&mut idle).await;
    let head = format!("POST /call HTTP/1.1\r\nHost: x\r\nX-Slow: {}\r\n\r\n", "y".repeat(99));
    let slow_head = async { assert_cut("head", drip(&mut pair.wire().await, &head).await, 5) };
    let stuck_head = async {
        let mut wire = pair.wire().await;
        let start = Instant::now();
        wire.send("POST /call HTTP/1.1\r\nHost:").await;
        wire.rest().await;
        assert_cut("stuck head", start.elapsed(), 5);
    };
    let slow_body = async {
        let mut wire = pair.wire().await;
        let body = call_of(&format!(r#"{{"from":"{}"}}"#, "1".repeat(99)));
        wire.send(format!(
            "POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
        assert_cut("body", drip(&mut wire, &body).await, 10);
    };
    let slow_chunks = async {
        let mut wire = pair.wire().await;
        wire.send("POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        assert_cut("chunks", drip(&mut wire, &"1\r\n \r\n".repeat(20)).await, 10);
    };
    tokio::join!(slow_head, stuck_head, slow_body, slow_chunks);
    // These two were idle for as long as all that took: one after a request, one before its first.
    asks(&mut idle).await;
    asks(&mut silent).await;
    assert_cut("second head", drip(&mut idle, &head).await, 5);
    pair.is_well().await;
}

#[tokio::test]
async fn a_client_that_shuts_its_side_meanwhile_still_gets_its_answer() {
    let gate = closed_gate();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::route("ws://chosen:1").when(&held)).await;
    let service = serve(&receiver.url, &[]).await;
    let mut wire = service.wire().await;
    wire.send(post_of(GOOD.as_bytes())).await;
    wire.finish().await;
    receiver.seen(1).await;
    gate.add_permits(1);
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.json()["sts_url"], "ws://chosen:1/?from=1");
}

#[tokio::test]
async fn a_wrong_content_length_is_refused() {
    let pair = Pair::start().await;
    let body = call_of("{}");
    let shorter = String::from_utf8(post_of(body.as_bytes())).expect("text");
    let shorter = shorter.replace(&body.len().to_string(), &(body.len() - 5).to_string());
    let mut wire = pair.wire().await;
    wire.send(shorter).await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.status, 400, "a body cut by its length is no JSON");
    assert!(answer.error().contains("column"), "{}", answer.error());

    let mut wire = pair.wire().await;
    wire.send(format!("POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{body}")).await;
    wire.finish().await;
    if let Some(answer) = wire.answer().await {
        assert_eq!(answer.status, 400, "a body that ends early is none");
    }

    let table = [
        ("two lengths", format!("Content-Length: {}\r\nContent-Length: 3", body.len())),
        ("no number", "Content-Length: many".to_owned()),
        ("negative", "Content-Length: -1".to_owned()),
        ("over 64 bits", "Content-Length: 99999999999999999999".to_owned()),
        ("an unknown coding", "Transfer-Encoding: identity, gzip".to_owned()),
        ("no chunk size", "Transfer-Encoding: chunked".to_owned()),
    ];
    for (what, header) in table {
        let text = format!("POST /call HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n{body}");
        pair.refuses(what, text.as_bytes()).await;
    }
    pair.is_well().await;
}

#[tokio::test]
async fn json_that_is_meant_to_break_a_parser_is_refused_naming_the_fault() {
    let pair = Pair::start().await;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let lists = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let table: [(&str, Vec<u8>); 7] = [
        ("200 objects deep", call_of(&deep).into()),
        ("200 lists deep", call_of(&lists).into()),
        ("60 KB of brackets", "[".repeat(60_000).into()),
        ("a raw NUL", call_of("{\"from\":\"a\0b\"}").into()),
        ("a NUL at the end", format!("{}\0", call_of("{}")).into()),
        ("invalid UTF-8", call_of(r#"{"from":"?"}"#).replace('?', "\u{1}").into_bytes()),
        ("a byte order mark", format!("\u{feff}{}", call_of("{}")).into()),
    ];
    for (what, mut body) in table {
        if what == "invalid UTF-8" {
            body.iter_mut().filter(|byte| **byte == 1).for_each(|byte| *byte = 0xff);
        }
        let mut wire = pair.wire().await;
        wire.send(post_of(&body)).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("{what}: an answer"));
        assert_eq!(answer.status, 400, "{what}");
        assert!(!answer.error().is_empty(), "{what}");
    }
    pair.is_well().await;
}

#[tokio::test]
async fn a_key_that_stands_twice_is_found_at_any_depth_and_in_any_spelling() {
    let pair = Pair::start().await;
    let table = [
        (r#"{"a":{"b":{"deep":1,"deep":2}}}"#, "deep"),
        (r#"{"a":[1,{"listed":1,"x":2,"listed":1}]}"#, "listed"),
        (r#"{"to":"1","\u0074o":"2"}"#, "to"),
        (r#"{"to":null,"to":"2"}"#, "to"),
        (r#"{"":1,"":2,"x":3}"#, ""),
    ];
    for (payload, key) in table {
        for (path, kind) in [("/call", ""), ("/events", r#""type":"call_started","#)] {
            let body = call_of(payload).replace(r#""payload""#, &format!(r#"{kind}"payload""#));
            let answer = pair.service.post(path, body).await;
            assert_eq!(answer.status, 400, "{path} {payload}");
            assert!(answer.error().contains(key), "{path} {payload}: {}", answer.error());
        }
    }
    pair.is_well().await;
}

#[tokio::test]
async fn lone_surrogates_are_text_like_any_other() {
    let pair = Pair::start().await;
    for (text, shown) in [(r"\ud800", "%EF%BF%BD"), (r"\udc00\ud800", "%EF%BF%BD%EF%BF%BD")] {
        let payload = format!(r#"{{"from":"{text}"}}"#);
        let answer = pair.service.post("/call", call_of(&payload)).await;
        assert_eq!(answer.status, 200, "{payload}");
        assert_eq!(answer.json()["sts_url"], format!("ws://localhost:6030/?from={shown}"));
    }
    let twice = call_of(r#"{"\ud800":1,"\uD800":2}"#);
    assert_eq!(pair.service.post("/call", twice).await.status, 400);
}

#[tokio::test]
async fn an_escaped_nul_is_text_like_any_other() {
    let pair = Pair::start().await;
    let answer = pair.service.post("/call", call_of(r#"{"from":"a\u0000b"}"#)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["sts_url"], "ws://localhost:6030/?from=a%00b");
    assert_eq!(pair.receiver.seen(1).await[0].body["payload"], json!({ "from": "a\0b" }));
}

#[tokio::test]
async fn too_much_of_a_head_is_refused() {
    let pair = Pair::start().await;
    let long = "y".repeat(100 * 1024);
    let many: String = (0..5000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let table = [
        (
            "a header of 100 KB",
            format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        ),
        ("a target of 100 KB", format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("5000 headers", format!("GET /health HTTP/1.1\r\nHost: x\r\n{many}\r\n")),
        ("a name of 100 KB", format!("GET /health HTTP/1.1\r\nHost: x\r\n{long}: y\r\n\r\n")),
    ];
    for (what, head) in table {
        pair.refuses(what, head.as_bytes()).await;
    }
    pair.is_well().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused() {
    let pair = Pair::start().await;
    let table: [(&str, &[u8]); 10] = [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("NULs", &[0; 1000]),
        ("high bytes", &[0xff; 1000]),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        ("SIP", b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/TCP y\r\n\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("HTTP/0.9", b"GET /health\r\n\r\n"),
        ("an AudioSocket frame", b"\x01\x00\x100123456789abcdef\r\n\r\n"),
        ("a folded header", b"GET /health HTTP/1.1\r\nHost: x\r\n y: z\r\n : \r\n\r\n"),
        ("a space in a name", b"GET /health HTTP/1.1\r\nHo st: x\r\n\r\n"),
    ];
    for (what, bytes) in table {
        pair.refuses(what, bytes).await;
    }
    pair.is_well().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let pair = Pair::start().await;
    let mut wire = pair.wire().await;
    let mut all = Vec::new();
    for n in 0..20 {
        let body = GOOD.replace("900d", &format!("{n:04}")).replace(r#""1""#, &n.to_string());
        all.extend(post_of(body.as_bytes()));
    }
    wire.send(all).await;
    for n in 0..20 {
        let answer = wire.answer().await.unwrap_or_else(|| panic!("answer {n}"));
        assert_eq!(answer.json()["sts_url"], format!("ws://localhost:6030/?from={n}"));
    }
    assert_eq!(pair.receiver.seen(20).await.len(), 20);
}

#[tokio::test]
async fn a_request_after_a_refused_one_is_served() {
    let pair = Pair::start().await;
    let mut wire = pair.wire().await;
    wire.send(post_of(b"{\"uuid\":")).await;
    assert_eq!(wire.answer().await.expect("an answer").status, 400);
    wire.send(post_of(GOOD.as_bytes())).await;
    assert_eq!(wire.answer().await.expect("the connection stays open").status, 200);
}

#[tokio::test]
async fn requests_go_on_beside_300_connections_that_are_idle() {
    let pair = Pair::start().await;
    let mut idle = Vec::new();
    for n in 0..300 {
        let mut wire = pair.wire().await;
        if n % 2 == 0 {
            wire.send(request("GET", "/health", &[], "")).await;
            assert_eq!(wire.answer().await.expect("an answer").status, 200);
        }
        idle.push(wire);
    }
    pair.is_well().await;
    for wire in &mut idle {
        wire.send(request("GET", "/health", &[], "")).await;
        assert_eq!(wire.answer().await.expect("an idle one is still served").status, 200);
    }
}

/// Asterisk keeps one connection for each call. As many as the limit of open files admits.
#[tokio::test]
async fn ten_thousand_idle_connections_do_no_harm() {
    let limit = rlimit::increase_nofile_limit(12_000).expect("the limit of open files");
    let pair = Pair::start().await;
    let mut idle = Vec::new();
    for _ in 0..limit.saturating_sub(500).min(10_000) {
        let mut wire = pair.wire().await;
        wire.send(request("GET", "/health", &[], "")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, 200);
        idle.push(wire);
    }
    let start = Instant::now();
    pair.is_well().await;
    assert!(start.elapsed() < LATE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_call_is_routed_takes_nothing_with_it() {
    let (receiver, gate) = Receiver::held().await;
    let service = serve(&receiver.url, &[]).await;
    let mut wire = service.wire().await;
    wire.send(post_of(GOOD.as_bytes())).await;
    receiver.seen(1).await;
    drop(wire);
    gate.add_permits(2);
    let ended = GOOD.replace(r#""payload""#, r#""type":"call_ended","payload""#);
    service.relay(ended).await;
    let seen = receiver.seen(2).await;
    assert_eq!((seen[0].kind(), seen[1].kind()), ("call_initiated", "call_ended"));
    assert!(seen[0].done.get().is_some(), "the attempt was not broken off");
}
