//! Receivers that break HTTP, or never come to an end. Whatever one does with `call_initiated`: callhook
//! stays alive, the caller gets an answer in time, and the call's next event goes on.
//!
//! The receiver here writes to the socket itself: an HTTP library would not let it misbehave.

use std::sync::Arc;
use std::time::Duration;

use crate::support::event::{bare, new_uuid};
use crate::support::flawed::read_request;
use crate::support::record::Record;
use crate::support::routing::{fallback, serve};
use crate::support::service::Service;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bounds the answer to `POST /call`; two attempts of `WEBHOOK_TIMEOUT` fit into it.
const ROUTING_TIMEOUT: Duration = Duration::from_millis(2500);
const WEBHOOK_TIMEOUT: &str = "600";

/// What a rogue does with a connection that brought `call_initiated`.
#[derive(Clone)]
enum Act {
    /// Writes this and leaves the connection open.
    Hold(Vec<u8>),
    /// Writes this and closes.
    Close(Vec<u8>),
    /// Writes this and resets the connection.
    Reset(Vec<u8>),
    /// Writes the first, then the second again and again, with a pause after each.
    Endless(Vec<u8>, Vec<u8>, Duration),
}

/// A receiver that treats `call_initiated` badly and answers all else with 200.
struct Rogue {
    url: String,
    seen: Arc<Record<Value>>,
    _tasks: JoinSet<()>,
}

impl Rogue {
    async fn start(act: Act, keep_alive: bool) -> Rogue {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/events", listener.local_addr().expect("an address"));
        let (seen, act) = (Arc::<Record<Value>>::default(), Arc::new(act));
        let book = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(
                    stream,
                    Arc::clone(&act),
                    keep_alive,
                    Arc::clone(&book),
                ));
            }
        });
        Rogue { url, seen, _tasks: tasks }
    }

    /// Waits until an event of this type came for this call; returns the types it saw of the call.
    async fn types_until(&self, uuid: &str, kind: &str) -> Vec<String> {
        let types = |bodies: &[Value]| -> Option<Vec<String>> {
            let mine = bodies.iter().filter(|body| body["uuid"] == uuid);
            let types = mine.map(|body| body["type"].as_str().unwrap_or_default().to_owned());
            Some(types.collect())
                .filter(|types: &Vec<String>| types.iter().any(|found| found == kind))
        };
        self.seen.until(&format!("{kind} of {uuid}"), types).await
    }
}

async fn converse(
    mut stream: TcpStream,
    act: Arc<Act>,
    keep_alive: bool,
    seen: Arc<Record<Value>>,
) {
    while let Some(body) = read_request(&mut stream).await {
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let bad = body["type"] == "call_initiated";
        seen.push(body);
        if !bad {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").await.ok();
            if keep_alive {
                continue;
            }
            return;
        }
        match &*act {
            Act::Close(bytes) => {
                stream.write_all(bytes).await.ok();
                return;
            }
            Act::Reset(bytes) => {
                stream.write_all(bytes).await.ok();
                stream.set_zero_linger().expect("SO_LINGER can be set");
                return;
            }
            Act::Hold(bytes) => {
                stream.write_all(bytes).await.ok();
            }
            Act::Endless(first, again, pause) => {
                stream.write_all(first).await.ok();
                while stream.write_all(again).await.is_ok() {
                    tokio::time::sleep(*pause).await;
                }
                return;
            }
        }
    }
}

async fn serve_to(rogue: &Rogue) -> Service {
    let routing_timeout = ROUTING_TIMEOUT.as_millis().to_string();
    let vars = [
        ("WEBHOOK_TIMEOUT", WEBHOOK_TIMEOUT),
        ("WEBHOOK_RETRY", "1"),
        ("WEBHOOK_BACKOFF", "1"),
        ("WEBHOOK_BREAKER", "0"),
        ("ROUTING_TIMEOUT", &routing_timeout),
    ];
    serve(&rogue.url, &vars).await
}

/// `POST /call` and its answer, which comes in time.
async fn announce(service: &Service, uuid: &str) -> Value {
    let start = Instant::now();
    let answer = service.post("/call", json!({ "uuid": uuid }).to_string()).await;
    let took = start.elapsed();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(took < ROUTING_TIMEOUT + Duration::from_secs(2), "answered after {took:?}");
    answer.json()
}

/// One call with a rogue: what `POST /call` answered, and how often `call_initiated` was sent.
async fn one_call(act: Act) -> (Value, usize) {
    let rogue = Rogue::start(act, false).await;
    let service = serve_to(&rogue).await;
    let uuid = new_uuid();
    let answer = announce(&service, &uuid).await;
    service.relay(bare(&uuid, "call_ended")).await;
    let types = rogue.types_until(&uuid, "call_ended").await;
    assert_eq!(service.get("/health").await.status, 200, "alive");
    (answer, types.len() - 1)
}

/// The rogue's answer decides nothing, and the event is sent so often.
async fn survives(act: Act, attempts: impl Into<Option<usize>>) {
    let (answer, sent) = one_call(act).await;
    assert_eq!(answer, fallback());
    match attempts.into() {
        Some(attempts) => assert_eq!(sent, attempts, "attempts"),
        None => assert!((1..=2).contains(&sent), "{sent} attempts"),
    }
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// 200 with this body and its length.
fn answer_of(body: &str) -> Vec<u8> {
    bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A routing decision of exactly so many bytes.
fn decision_of(size: usize) -> String {
    let frame = json!({ "pad": "", "sts_url": "ws://sts.test/a" }).to_string().len();
    json!({ "pad": "x".repeat(size - frame), "sts_url": "ws://sts.test/a" }).to_string()
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_body_without_end_is_a_delivery() {
    let chunk = bytes(&format!("4000\r\n{}\r\n", "x".repeat(0x4000)));
    survives(Act::Endless(bytes(CHUNKED), chunk, Duration::ZERO), 1).await;
}

#[tokio::test]
async fn a_body_that_drips_is_a_delivery() {
    let drip = (bytes("1\r\nx\r\n"), Duration::from_millis(20));
    survives(Act::Endless(bytes(CHUNKED), drip.0, drip.1), 1).await;
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    survives(Act::Endless(bytes(long), bytes("x"), drip.1), 1).await;
}

#[tokio::test]
async fn a_2xx_whose_body_never_comes_is_a_delivery() {
    survives(Act::Hold(bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")), 1).await;
    survives(Act::Hold(bytes("HTTP/1.1 201 Created\r\n\r\n")), 1).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_body_without_end_takes_no_memory() {
    let rest = vec![b'x'; 1 << 20];
    let act = Act::Endless(bytes("HTTP/1.1 200 OK\r\n\r\n"), rest, Duration::ZERO);
    let rogue = Rogue::start(act, false).await;
    let service = serve_to(&rogue).await;
    let uuid = new_uuid();
    announce(&service, &uuid).await;
    service.relay(bare(&uuid, "call_ended")).await;
    rogue.types_until(&uuid, "call_ended").await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid()));
    let status = status.expect("a live process has a status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 100_000, "{peak} kB at its peak");
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_its_timeout_only() {
    survives(Act::Hold(Vec::new()), 2).await;
}

#[tokio::test]
async fn a_head_without_end_is_a_failure() {
    let head = bytes("HTTP/1.1 200 OK\r\n");
    let header = bytes("X-Again: and again and again\r\n");
    survives(Act::Endless(head.clone(), header.clone(), Duration::ZERO), 2).await;
    survives(Act::Endless(head, bytes("X"), Duration::from_millis(20)), 2).await;
}

#[tokio::test]
async fn interim_answers_without_end_are_a_failure() {
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let act = Act::Endless(Vec::new(), bytes(interim), Duration::from_millis(5));
        survives(act, 2).await;
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_failure() {
    let cases: [&[u8]; 9] = [
        b"\0\xff\xfe\0garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"220 mail.test ESMTP\r\n\r\n",
        b"<html>200 OK</html>\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad\0Header: 1\r\n\r\n",
    ];
    for case in cases {
        survives(Act::Close(case.to_vec()), 2).await;
        survives(Act::Hold(case.to_vec()), 2).await;
    }
}

#[tokio::test]
async fn a_status_that_is_no_final_answer_is_a_failure() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
    survives(Act::Hold(bytes(upgrade)), 2).await;
    survives(Act::Close(bytes("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n")), 2).await;
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_head_is_a_failure() {
    survives(Act::Close(Vec::new()), 2).await;
    survives(Act::Reset(Vec::new()), 2).await;
    survives(Act::Close(bytes("HTTP/1.1 200 OK\r\nContent-")), 2).await;
    survives(Act::Reset(bytes("HTTP/1.1 20")), 2).await;
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_head_holds_up_nothing() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"sts_url\":";
    survives(Act::Close(bytes(head)), None).await;
    survives(Act::Reset(bytes(head)), None).await;
    survives(Act::Reset(bytes(CHUNKED)), None).await;
}

#[tokio::test]
async fn chunks_that_are_nonsense_hold_up_nothing() {
    let cases = [
        format!("{CHUNKED}ZZZ\r\nabc\r\n0\r\n\r\n"),
        format!("{CHUNKED}FFFFFFFFFFFFFFFFFFFF\r\nabc"),
        format!("{CHUNKED}-1\r\n\r\n"),
        format!("{CHUNKED}3\r\nabcdef\r\n0\r\n\r\n"),
        format!("{CHUNKED}1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(100_000)),
        format!("{CHUNKED}0\r\n{}\r\n", "T: trailer\r\n".repeat(10_000)),
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 7\r\n\r\nabc".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
    ];
    for case in cases {
        survives(Act::Hold(bytes(&case)), None).await;
        survives(Act::Close(bytes(&case)), None).await;
    }
}

#[tokio::test]
async fn a_hundred_kilobytes_of_headers_hold_up_nothing() {
    let one = format!("X-Long: {}\r\n", "x".repeat(100_000));
    let hundred = format!("X-Long: {}\r\n", "x".repeat(1_000)).repeat(90);
    let many = "X-Short: x\r\n".repeat(8_000);
    for headers in [one, hundred, many] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{headers}\r\n");
        survives(Act::Hold(bytes(&head)), None).await;
    }
}

#[tokio::test]
async fn a_redirect_loop_is_one_failure_for_each_attempt() {
    for status in [301, 302, 307, 308] {
        let head =
            format!("HTTP/1.1 {status} Again\r\nLocation: /events\r\nContent-Length: 0\r\n\r\n");
        survives(Act::Hold(bytes(&head)), 2).await;
    }
}

#[tokio::test]
async fn a_decision_body_is_read_up_to_64_kib() {
    let inside = decision_of(64 * 1024);
    assert_eq!(inside.len(), 65_536);
    let (answer, attempts) = one_call(Act::Close(answer_of(&inside))).await;
    assert_eq!(answer, json!({ "sts_url": "ws://sts.test/a", "override": true }));
    assert_eq!(attempts, 1);
    survives(Act::Close(answer_of(&decision_of(64 * 1024 + 1))), 1).await;
    survives(Act::Hold(answer_of(&decision_of(1 << 20))), 1).await;
}

#[tokio::test]
async fn json_of_any_depth_is_no_decision() {
    let deep = "[".repeat(60_000);
    survives(Act::Close(answer_of(&deep)), 1).await;
    let deep = format!("{{\"sts_url\":{}", "{\"sts_url\":".repeat(5_000));
    survives(Act::Close(answer_of(&deep)), 1).await;
    survives(Act::Close([answer_of("").as_slice(), &[0xff; 100]].concat()), 1).await;
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_answers_nothing() {
    let extra = [answer_of("OK"), answer_of(r#"{"sts_url":"ws://evil.test/"}"#)].concat();
    let rogue = Rogue::start(Act::Hold(extra), true).await;
    let service = serve_to(&rogue).await;
    for _ in 0..5 {
        let uuid = new_uuid();
        let answer = announce(&service, &uuid).await;
        assert_eq!(answer, fallback());
        service.relay(bare(&uuid, "call_ended")).await;
        assert_eq!(rogue.types_until(&uuid, "call_ended").await.len(), 2);
    }
}

#[tokio::test]
async fn a_receiver_that_closes_after_each_answer_gets_every_event() {
    for head in ["Connection: close\r\n", ""] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nOK");
        let rogue = Rogue::start(Act::Close(bytes(&answer)), false).await;
        let service = serve_to(&rogue).await;
        let uuid = new_uuid();
        announce(&service, &uuid).await;
        for _ in 0..30 {
            service.relay(bare(&uuid, "dtmf_digit")).await;
        }
        service.relay(bare(&uuid, "call_ended")).await;
        let types = rogue.types_until(&uuid, "call_ended").await;
        let digits = types.iter().filter(|kind| *kind == "dtmf_digit").count();
        assert_eq!(digits, 30, "{types:?}");
    }
}

#[tokio::test]
async fn calls_that_find_every_place_taken_are_answered_in_time() {
    let rogue = Rogue::start(Act::Hold(Vec::new()), false).await;
    let settings =
        [("WEBHOOK_TIMEOUT", "20000"), ("WEBHOOK_CONCURRENCY", "2"), ("ROUTING_TIMEOUT", "1000")];
    let service = Arc::new(serve(&rogue.url, &settings).await);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let service = Arc::clone(&service);
        calls.spawn(async move { announce(&service, &new_uuid()).await });
    }
    for answer in calls.join_all().await {
        assert_eq!(answer["override"], false);
    }
    assert_eq!(service.get("/health").await.status, 200);
}

/// The warning that a decision may be lost.
async fn lost(service: &Service, uuid: &str) -> String {
    let text = "the body of the receiver's answer cannot be read; a routing decision in it is lost";
    let line = service.log_line(|line| line["message"] == text && line["uuid"] == uuid).await;
    line["error"].as_str().expect("a reason").to_owned()
}

#[tokio::test]
async fn a_decision_without_a_length_counts_though_the_connection_stays_open() {
    let decision = decision_of(200);
    let (start, end) = decision.split_at(100);
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    for act in [
        Act::Hold(bytes(&format!("{head}{decision}"))),
        Act::Hold(bytes(&format!("{head}  {decision}\r\n"))),
        Act::Close(bytes(&format!("{head}{decision}"))),
        // All of it that was announced never comes.
        Act::Hold(bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{decision}"))),
        Act::Hold(bytes(&format!("{CHUNKED}64\r\n{start}\r\n64\r\n{end}\r\n"))),
    ] {
        let (answer, sent) = one_call(act).await;
        assert_eq!(
            (&answer["sts_url"], &answer["override"]),
            (&"ws://sts.test/a".into(), &true.into())
        );
        assert_eq!(sent, 1);
    }
}

#[tokio::test]
async fn a_decision_that_cannot_be_read_is_lost_with_a_warning_that_says_why() {
    let gzip = |encoding: &str| {
        bytes(&format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 4\r\n\r\n\x1f{}",
            "abc"
        ))
    };
    let long = "x".repeat(70_000);
    for (act, why) in [
        (Act::Hold(gzip("gzip")), "it is encoded as \"gzip\""),
        (Act::Hold(gzip("br, gzip")), "it is encoded as \"br, gzip\""),
        (Act::Hold(bytes("HTTP/1.1 200 OK\r\n\r\n{\"sts_url\":")), "has no length"),
        (Act::Hold(bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")), "did not end in time"),
        (Act::Close(bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")), "it broke off"),
        (Act::Close(bytes(&format!("HTTP/1.1 200 OK\r\n\r\n{long}"))), "longer than 65536 bytes"),
    ] {
        let rogue = Rogue::start(act, false).await;
        let service = serve_to(&rogue).await;
        let uuid = new_uuid();
        assert_eq!(announce(&service, &uuid).await, fallback());
        let error = lost(&service, &uuid).await;
        assert!(error.contains(why), "{why:?}: {error:?}");
    }
}
