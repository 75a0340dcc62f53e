//! A webhook receiver on loopback that keeps what it got and answers by the test's script.
//!
//! It counts a request once its body was fully received, and a request is in flight from then on until
//! its answer was handed to the connection or the sender went away.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::record::{LIMIT, Record};

#[derive(Clone, Debug)]
pub struct Seen {
    /// When its body was complete.
    pub at: Instant,
    /// When it was answered; stays unset if the sender went away before.
    pub done: Arc<OnceLock<Instant>>,
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub raw: String,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
}

impl Seen {
    /// The event's type.
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    pub fn uuid(&self) -> &str {
        self.body["uuid"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of plain text"))
    }

    /// The event's number within its call.
    pub fn sequence(&self) -> u64 {
        let number = self.header("x-avr-webhook-sequence").expect("a sequence number");
        number.parse().expect("a whole number")
    }

    /// The number that the test gave it: `n` of its payload.
    pub fn n(&self) -> usize {
        usize::try_from(self.body["payload"]["n"].as_u64().expect("a number")).expect("small")
    }
}

/// The requests of this call.
pub fn of_call<'a>(seen: &'a [Seen], uuid: &'a str) -> impl Iterator<Item = &'a Seen> {
    seen.iter().filter(move |seen| seen.uuid() == uuid)
}

/// The numbers that the test gave this call's events.
pub fn numbers_of(seen: &[Seen], uuid: &str) -> Vec<usize> {
    of_call(seen, uuid).map(Seen::n).collect()
}

#[derive(Clone)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    delay: Duration,
    gate: Option<Arc<Semaphore>>,
}

impl Reply {
    /// 200 with a JSON object that decides nothing.
    pub fn ok() -> Reply {
        Reply::status(200).body(r#"{"status":"ok"}"#)
    }

    /// A status with an empty body.
    pub fn status(status: u16) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).expect("a status has three digits"),
            headers: HeaderMap::new(),
            body: String::new(),
            delay: Duration::ZERO,
            gate: None,
        }
    }

    /// 200 with this routing decision.
    pub fn route(sts_url: &str) -> Reply {
        Reply::status(200).body(serde_json::json!({ "sts_url": sts_url }).to_string())
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        let name = HeaderName::try_from(name).expect("a legal header name");
        self.headers.append(name, HeaderValue::try_from(value).expect("a legal header value"));
        self
    }

    pub fn body(mut self, body: impl Into<String>) -> Reply {
        self.body = body.into();
        self
    }

    /// Answers after this delay.
    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }

    /// Answers once the gate has a permit, and uses it up: `add_permits(1)` releases one answer.
    pub fn when(mut self, gate: &Arc<Semaphore>) -> Reply {
        self.gate = Some(Arc::clone(gate));
        self
    }
}

/// A gate for [`Reply::when`] that nobody has opened yet.
pub fn closed_gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// Stops when dropped.
pub struct Receiver {
    /// `http://127.0.0.1:PORT/events`
    pub url: String,
    port: u16,
    book: Arc<Book>,
    tasks: JoinSet<()>,
}

impl Receiver {
    /// Starts on a free port.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::start_on(0, script).await
    }

    /// Starts one that answers everything with 200.
    pub async fn content() -> Receiver {
        Receiver::start(|_| Reply::ok()).await
    }

    /// Starts one that answers a request for each permit that the test adds to the gate.
    pub async fn held() -> (Receiver, Arc<Semaphore>) {
        let gate = closed_gate();
        let held = Arc::clone(&gate);
        (Receiver::start(move |_| Reply::ok().when(&held)).await, gate)
    }

    /// Starts on this port, for a receiver that comes back.
    pub async fn start_on(
        port: u16,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        Receiver::start_at((Ipv4Addr::LOCALHOST, port), script).await
    }

    /// Starts at this address, for a receiver whose name moves.
    pub async fn start_at(
        address: (Ipv4Addr, u16),
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind(address).await;
        let listener = listener.unwrap_or_else(|error| panic!("{address:?} is free: {error}"));
        let address = listener.local_addr().expect("a bound listener has an address");
        let book = Arc::new(Book::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&book), Arc::new(script)));
        Receiver { url: format!("http://{address}/events"), port: address.port(), book, tasks }
    }

    /// Waits until at least `n` requests were received, each within the limit; returns all that were.
    pub async fn seen(&self, n: usize) -> Vec<Seen> {
        let mut count = 0;
        while count < n {
            let more = |seen: &[Seen]| Some(seen.len()).filter(|now| *now > count);
            count = self.until(&format!("{n} requests"), more).await;
        }
        self.so_far()
    }

    /// Waits until `look` finds something in what was received.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&[Seen]) -> Option<T>) -> T {
        let found = self.book.seen.found(look).await;
        found.unwrap_or_else(|| {
            let seen = self.so_far();
            panic!("{what}: not within {LIMIT:?}, only {} requests: {seen:#?}", seen.len())
        })
    }

    /// The requests received so far, in the order of their arrival.
    pub fn so_far(&self) -> Vec<Seen> {
        self.book.seen.look(<[_]>::to_vec)
    }

    /// The most requests of one call that were in flight at the same time.
    pub fn in_flight_peak_of(&self, uuid: &str) -> usize {
        self.book.flights().get(uuid).map_or(0, |flight| flight.peak)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes the listener and all connections; returns once the port is free.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A port that nobody listens on and that nobody is given by chance: below those that Linux hands out, and
/// never twice to the tests of one process.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    let mut tries =
        std::iter::repeat_with(|| 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000);
    let free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    tries.find(free).expect("one of twelve thousand ports is free")
}

/// A port that nobody listens on, and the URL that a receiver there would have.
pub fn nobody() -> (u16, String) {
    let port = free_port();
    (port, format!("http://127.0.0.1:{port}/events"))
}

#[derive(Default)]
struct Book {
    seen: Record<Seen>,
    /// The requests of each call that are in flight.
    in_flight: Mutex<HashMap<String, Flight>>,
}

#[derive(Default)]
struct Flight {
    now: usize,
    peak: usize,
}

impl Book {
    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; it is in flight until the returned guard goes.
    fn enter(self: &Arc<Book>, seen: &Seen) -> InFlight {
        let uuid = seen.uuid().to_owned();
        let mut flights = self.flights();
        let flight = flights.entry(uuid.clone()).or_default();
        flight.now += 1;
        flight.peak = flight.peak.max(flight.now);
        drop(flights);
        self.seen.push(seen.clone());
        InFlight { book: Arc::clone(self), uuid }
    }
}

struct InFlight {
    book: Arc<Book>,
    uuid: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(flight) = self.book.flights().get_mut(&self.uuid) {
            flight.now -= 1;
        }
    }
}

/// Owns the connections, so that they end with it.
async fn accept(listener: TcpListener, book: Arc<Book>, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (book, script) = (Arc::clone(&book), Arc::clone(&script));
        let service =
            service_fn(move |request| answer(request, Arc::clone(&book), Arc::clone(&script)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // A sender that breaks off is its own affair; the test looks at what was seen.
            connection.await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    book: Arc<Book>,
    script: Arc<Script>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let raw = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    let seen = Seen {
        at: Instant::now(),
        done: Arc::default(),
        headers: head.headers,
        body: serde_json::from_str(&raw).unwrap_or_default(),
        raw,
    };
    let in_flight = book.enter(&seen);
    let reply = script(&seen);
    tokio::time::sleep(reply.delay).await;
    if let Some(gate) = &reply.gate {
        gate.acquire().await.expect("a gate is never closed for good").forget();
    }
    drop(in_flight);
    seen.done.get_or_init(Instant::now);
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers);
    Ok(response)
}
