//! Receivers with one flaw each, and good ones, for what judges receivers.
//!
//! The strict one behaves as avr-app does: exactly the four fields, the six documented types, 400 to
//! all else. A flaw changes that one behaviour and nothing beside.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::receiver::{Reply, Seen};

const TYPES: [&str; 6] =
    ["call_initiated", "call_started", "transcription", "interruption", "dtmf_digit", "call_ended"];

/// What the receiver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// 500 to every `call_initiated`, as avr-webhook.
    FailsToRoute,
    /// An `sts_url` that is not one.
    RoutesNowhere,
    /// Takes any secret.
    IgnoresTheSecret,
    /// 403 in place of 401.
    Forbids,
    /// Takes any signature.
    IgnoresTheSignature,
    /// Takes a good signature of any age.
    IgnoresTheAge,
    /// 409 to an id that it knows.
    RefusesRepeats,
    /// Routes each `call_initiated` elsewhere, also a repeat.
    RoutesRepeatsElsewhere,
    /// 500 while it works on another request.
    BreaksOnConcurrency,
    /// 429 after 100 requests.
    LimitsTheRate,
    /// Announces the end of each connection, and ends it.
    DropsKeepAlive,
    /// Every answer takes longer than the sender gives it.
    Slow,
    /// 200 to what it cannot read.
    AcceptsBadJson,
    /// 500 to what it cannot read.
    BreaksOnBadJson,
    /// 500 to a type that it does not know.
    BreaksOnUnknownTypes,
    /// 400 to payload keys that it does not know.
    RefusesUnknownKeys,
    /// 500 to characters beyond 16 bits, as a database with three bytes a character.
    BreaksOnEmoji,
    /// 413 to bodies over 16 KB.
    RefusesLongTexts,
    /// 500 to an event of a call that has ended.
    ForgetsEndedCalls,
}

/// How long each answer of the slow one takes.
pub const SLOW: Duration = Duration::from_millis(40);
/// How long it works on one request, where requests must not overlap.
const WORK: Duration = Duration::from_millis(10);
/// How many requests the limited one takes.
pub const ALLOWED: usize = 100;

/// The secret and the signing key that it wants.
#[derive(Default)]
pub struct Wants {
    pub secret: Option<&'static str>,
    pub signing_key: Option<&'static str>,
}

pub fn receiver(flaw: Flaw, wants: Wants) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let memory = Memory::default();
    move |seen| {
        let number = memory.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if flaw == Flaw::LimitsTheRate && number > ALLOWED {
            return Reply::status(429).header("retry-after", "900");
        }
        let reply = memory.answer(flaw, &wants, seen, number);
        match flaw {
            Flaw::DropsKeepAlive => reply.header("connection", "close"),
            Flaw::Slow => reply.after(SLOW),
            Flaw::BreaksOnConcurrency => memory.alone(reply),
            _ => reply,
        }
    }
}

#[derive(Default)]
struct Memory {
    requests: AtomicUsize,
    ids: Mutex<Vec<String>>,
    ended: Mutex<Vec<String>>,
    busy_until: Mutex<Option<Instant>>,
}

impl Memory {
    fn answer(&self, flaw: Flaw, wants: &Wants, seen: &Seen, number: usize) -> Reply {
        if let Some(refusal) = refusal_of_sender(flaw, wants, seen) {
            return refusal;
        }
        let Some(event) = seen.body.as_object() else {
            return Reply::status(match flaw {
                Flaw::AcceptsBadJson => 200,
                Flaw::BreaksOnBadJson => 500,
                _ => 400,
            });
        };
        if !TYPES.contains(&seen.kind()) {
            return Reply::status(if flaw == Flaw::BreaksOnUnknownTypes { 500 } else { 400 });
        }
        let fields: Vec<&String> = event.keys().collect();
        if fields != ["uuid", "type", "timestamp", "payload"] {
            return Reply::status(400);
        }
        if let Some(status) = self.trips(flaw, seen) {
            return Reply::status(status);
        }
        if seen.kind() == "call_initiated" {
            return route(flaw, seen, number);
        }
        Reply::status(201).body(r#"{"status":"ok"}"#)
    }

    /// The status of a flaw that this event meets.
    fn trips(&self, flaw: Flaw, seen: &Seen) -> Option<u16> {
        let id = seen.header("webhook-id").unwrap_or_default();
        let known = |list: &Mutex<Vec<String>>, text: &str| {
            let mut list = list.lock().expect("no test panics in here");
            let known = list.iter().any(|known| known == text);
            list.push(text.to_owned());
            known
        };
        let payload = &seen.body["payload"];
        match flaw {
            Flaw::FailsToRoute => (seen.kind() == "call_initiated").then_some(500),
            Flaw::RefusesRepeats => known(&self.ids, id).then_some(409),
            Flaw::RefusesUnknownKeys => payload.get("vip").is_some().then_some(400),
            Flaw::BreaksOnEmoji => seen.raw.chars().any(|c| c as u32 > 0xffff).then_some(500),
            Flaw::RefusesLongTexts => (seen.raw.len() > 16 * 1024).then_some(413),
            Flaw::ForgetsEndedCalls => {
                let ended = self.ended.lock().expect("no test panics in here");
                let over = ended.iter().any(|ended| ended == seen.uuid());
                drop(ended);
                if seen.kind() == "call_ended" {
                    known(&self.ended, seen.uuid());
                }
                over.then_some(500)
            }
            _ => None,
        }
    }

    /// Takes its time, and breaks if another request comes meanwhile.
    fn alone(&self, reply: Reply) -> Reply {
        let mut busy = self.busy_until.lock().expect("no test panics in here");
        let now = Instant::now();
        if busy.is_some_and(|until| now < until) {
            return Reply::status(500);
        }
        *busy = Some(now + WORK);
        reply.after(WORK)
    }
}

fn route(flaw: Flaw, seen: &Seen, number: usize) -> Reply {
    match flaw {
        Flaw::RoutesNowhere => Reply::status(200).body(r#"{"sts_url":"http://sts"}"#),
        Flaw::RoutesRepeatsElsewhere => Reply::route(&format!("ws://sts-{number}:6030")),
        _ => Reply::route(&format!("ws://sts:6030/?call={}", seen.uuid())),
    }
}

fn refusal_of_sender(flaw: Flaw, wants: &Wants, seen: &Seen) -> Option<Reply> {
    let unauthorized = if flaw == Flaw::Forbids { 403 } else { 401 };
    if let Some(secret) = wants.secret
        && flaw != Flaw::IgnoresTheSecret
        && seen.header("x-avr-webhook-secret") != Some(secret)
    {
        return Some(Reply::status(unauthorized));
    }
    let key = wants.signing_key.filter(|_| flaw != Flaw::IgnoresTheSignature)?;
    let key = standardwebhooks::Webhook::new(key).expect("a signing key");
    let verified = if flaw == Flaw::IgnoresTheAge {
        signed(&key, seen).is_some_and(|good| seen.header("webhook-signature") == Some(&good))
    } else {
        key.verify(seen.raw.as_bytes(), &seen.headers).is_ok()
    };
    (!verified).then(|| Reply::status(401))
}

/// The signature that the event should have, whatever its age.
fn signed(key: &standardwebhooks::Webhook, seen: &Seen) -> Option<String> {
    let timestamp = seen.header("webhook-timestamp")?.parse().ok()?;
    key.sign(seen.header("webhook-id")?, timestamp, seen.raw.as_bytes()).ok()
}

/// Repeats all that it got, with an error: what a receiver in a developer's hands may do.
pub fn parrot(seen: &Seen) -> Reply {
    let headers: Vec<(String, String)> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let said: Value = json!({ "headers": headers, "body": seen.raw });
    Reply::status(500).body(said.to_string())
}

/// Answers well, and then closes each connection without having said so.
pub async fn close_after_each() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(body) = read_request(&mut stream).await else { continue };
            let event = serde_json::from_str::<Value>(&body).is_ok_and(|event| event.is_object());
            write_answer(&mut stream, if event { "200 OK" } else { "400 Bad Request" }).await;
        }
    });
    url
}

/// The body of the next request; None once the peer has closed.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
            if body.len() >= length {
                return Some(body.to_owned());
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Answers without a body.
pub async fn write_answer(stream: &mut TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    // The peer may have gone, which is its own affair.
    stream.write_all(answer.as_bytes()).await.ok();
}
