//! A webhook receiver on loopback that keeps what it got and answers by the test's script.
//!
//! It counts a request once its body was fully received, and a request is in flight from then on until
//! its answer was handed to the connection or the sender went away.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The longest wait for requests to come.
const LIMIT: Duration = Duration::from_secs(15);

/// One request as it was received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its body was complete.
    pub at: Instant,
    /// When it was answered; unset while it is not, and for ever if the sender went away before.
    pub done: Arc<OnceLock<Instant>>,
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub raw: String,
    /// The body as JSON; null if it is none.
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
}

/// How a request is answered.
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

    /// Answers so much later.
    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }

    /// Answers when the semaphore gives a permit, and uses that up: `add_permits(1)` releases one.
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

/// A running receiver; it goes away when dropped.
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

    /// Starts on this port, for a receiver that comes back.
    pub async fn start_on(
        port: u16,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.unwrap_or_else(|error| panic!("port {port} is free: {error}"));
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let book = Arc::new(Book::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&book), Arc::new(script)));
        Receiver { url: format!("http://127.0.0.1:{port}/events"), port, book, tasks }
    }

    /// Waits until at least `n` requests were received; returns all that were.
    pub async fn seen(&self, n: usize) -> Vec<Seen> {
        let mut count = self.book.count.subscribe();
        if timeout(LIMIT, count.wait_for(|count| *count >= n)).await.is_err() {
            let seen = self.so_far();
            panic!("{} requests instead of {n} within {LIMIT:?}: {seen:#?}", seen.len());
        }
        self.so_far()
    }

    /// Waits until `look` finds something in what was received.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&[Seen]) -> Option<T>) -> T {
        let mut count = self.book.count.subscribe();
        let search = async {
            loop {
                count.mark_unchanged();
                if let Some(found) = look(&self.so_far()) {
                    return found;
                }
                count.changed().await.expect("the book outlives the wait");
            }
        };
        let found = timeout(LIMIT, search).await;
        found.unwrap_or_else(|_| panic!("{what} within {LIMIT:?}: {:#?}", self.so_far()))
    }

    /// The requests received so far, in the order of their arrival.
    pub fn so_far(&self) -> Vec<Seen> {
        self.book.pages().seen.clone()
    }

    /// The most requests of one call that were in flight at the same time.
    pub fn in_flight_peak_of(&self, uuid: &str) -> usize {
        self.book.pages().in_flight.get(uuid).map_or(0, |flight| flight.peak)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes the listener and all connections; returns once the port is free.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// What a receiver remembers.
#[derive(Default)]
struct Book {
    pages: Mutex<Pages>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Pages {
    seen: Vec<Seen>,
    in_flight: HashMap<String, Flight>,
}

#[derive(Default)]
struct Flight {
    now: usize,
    peak: usize,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; it is in flight until the returned guard goes.
    fn enter(self: &Arc<Book>, seen: &Seen) -> InFlight {
        let mut pages = self.pages();
        pages.seen.push(seen.clone());
        let flight = pages.in_flight.entry(seen.uuid().to_owned()).or_default();
        flight.now += 1;
        flight.peak = flight.peak.max(flight.now);
        self.count.send_replace(pages.seen.len());
        InFlight { book: Arc::clone(self), uuid: seen.uuid().to_owned() }
    }
}

struct InFlight {
    book: Arc<Book>,
    uuid: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(flight) = self.book.pages().in_flight.get_mut(&self.uuid) {
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
