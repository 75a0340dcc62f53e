//! Server: takes requests, has them judged, and answers as it is told to.
//!
//! Owns the connections, the reading of an event and the writing of an answer. What is answered, and
//! what is odd, is decided by a [`Conduct`].
//!
//! Invariants:
//! - A request is told of as arrived once, before any delay, and as ended once, before a byte of its
//!   answer goes out; also when its sender goes away in the meantime.
//! - Everything that was told to the conduct is a [`Notice`], too, in the same order; but for senders
//!   that go away while nobody takes notices.
//!
//! Limits: [`MAX_BODY`], [`MAX_CONNECTIONS`], [`BACKLOG`], [`IDLE`].

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::{Envelope, Received};
use super::remark::Remark;
use super::trust::Refusal;
pub use super::watch::End;
use crate::listener;

/// The longest body that is read, in bytes: far more than any event of a phone call.
pub const MAX_BODY: usize = 1024 * 1024;

/// The most connections at a time: callhook opens as many as it makes attempts at once.
pub const MAX_CONNECTIONS: usize = 4096;

/// Notices that wait to be taken; more make the receiver wait.
pub const BACKLOG: usize = 1024;

/// How long a connection may stay without a request's whole head.
pub const IDLE: Duration = Duration::from_secs(60);

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `sts_url` in the body.
    pub sts_url: Option<String>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// How long it takes its time.
    pub delay: Duration,
    /// Why it is what it is.
    pub verdict: Verdict,
    /// What is odd about the request.
    pub remarks: Vec<Remark>,
}

/// Why an answer is what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// As events are usually answered.
    #[default]
    Usual,
    /// A fault on order: the status says which.
    Fault,
    /// A fault on order: the connection is closed, and there is no answer.
    Drop,
    /// The sender is not trusted.
    Refused(Refusal),
}

/// Decides what is answered, and is told how it ended.
pub trait Conduct: Send + Sync + 'static {
    /// An event has arrived.
    fn arrived(&self, received: &Received) -> Answer;

    /// What arrived is answered now, or will never be.
    fn ended(&self, _received: &Received, _answer: &Answer, _end: End) {}

    /// A request came that is no event.
    fn strayed(&self, _stray: &Stray) {}
}

impl<F: Fn(&Received) -> Answer + Send + Sync + 'static> Conduct for F {
    fn arrived(&self, received: &Received) -> Answer {
        self(received)
    }
}

/// How a receiver behaves.
pub type Behaviour = Arc<dyn Conduct>;

/// A request that is no event.
#[derive(Clone, Debug)]
pub struct Stray {
    /// When it arrived.
    pub time: DateTime<Utc>,
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its body, where it was read.
    pub body: Bytes,
    /// The status that it is answered with.
    pub status: StatusCode,
    /// Why.
    pub reason: String,
}

/// An event with its answer.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The event.
    pub received: Arc<Received>,
    /// What was to be answered.
    pub answer: Answer,
    /// How it ended.
    pub end: End,
    /// How long after it had arrived.
    pub took: Duration,
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub enum Notice {
    /// An event whose answer comes later.
    Arrived(Arc<Received>, Duration),
    /// An event that is answered now, or will never be.
    Ended(Box<Ended>),
    /// A request that is no event.
    Strayed(Box<Stray>),
}

/// A receiver that listens.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it saw.
    pub notices: mpsc::Receiver<Notice>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    behaviour: Behaviour,
    notices: mpsc::Sender<Notice>,
}

impl Receiver {
    /// Starts to listen.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn start(host: &str, port: u16, behaviour: Behaviour) -> io::Result<Self> {
        // An IPv6 address comes with or without brackets.
        let listener = TcpListener::bind((host.trim_matches(['[', ']']), port)).await?;
        let address = listener.local_addr()?;
        let (sender, notices) = mpsc::channel(BACKLOG);
        let shared = Arc::new(Shared { behaviour, notices: sender });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        let connect = move |stream| connection(stream, Arc::clone(&shared), stopped.clone());
        tasks.spawn(listener::accept(listener, MAX_CONNECTIONS, stop.clone(), connect));
        Ok(Self { address, notices, stop, tasks })
    }

    /// Stops listening and waits for the answers under way, which somebody has to take notice of
    /// where they are many.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        let Self { mut notices, tasks, .. } = self;
        let ignored = async { while notices.recv().await.is_some() {} };
        tokio::join!(tasks.wait(), ignored);
    }

    /// Stops listening; the notices end when the answers under way have been given.
    pub fn close(&self) {
        self.stop.cancel();
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, stop: CancellationToken) {
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Whether it ended well is the sender's business.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}

/// An error makes hyper close the connection without a byte.
#[derive(Debug, thiserror::Error)]
#[error("closed on order")]
struct ClosedOnOrder;

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ClosedOnOrder> {
    let (head, body) = request.into_parts();
    let received = match read(head, body).await {
        Ok(received) => Arc::new(received),
        Err(stray) => return Ok(shared.turn_away(stray).await),
    };
    let answer = shared.behaviour.arrived(&received);
    let delay = answer.delay;
    let open = Open { shared: &shared, pending: Some((Arc::clone(&received), answer)) };
    if !delay.is_zero() {
        // Whoever watches may have gone; the receiver goes on answering.
        shared.notices.send(Notice::Arrived(received, delay)).await.ok();
        sleep(delay).await;
    }
    open.close().await
}

/// A request that has arrived and is not answered.
struct Open<'s> {
    shared: &'s Shared,
    /// Until it has ended.
    pending: Option<(Arc<Received>, Answer)>,
}

impl Open<'_> {
    async fn close(mut self) -> Result<Response<Full<Bytes>>, ClosedOnOrder> {
        let (_, answer) = self.pending.as_ref().expect("it is open until here");
        let end = match answer.verdict {
            Verdict::Drop => End::Closed,
            Verdict::Usual | Verdict::Fault | Verdict::Refused(_) => End::Answered(answer.status),
        };
        let response = response(answer);
        let notice = self.end(end).expect("it is open until here");
        self.shared.notices.send(notice).await.ok();
        if end == End::Closed { Err(ClosedOnOrder) } else { Ok(response) }
    }

    fn end(&mut self, end: End) -> Option<Notice> {
        let (received, answer) = self.pending.take()?;
        self.shared.behaviour.ended(&received, &answer, end);
        let took = received.at.elapsed();
        Some(Notice::Ended(Box::new(Ended { received, answer, end, took })))
    }
}

impl Drop for Open<'_> {
    /// hyper drops what it serves when the sender closes the connection.
    fn drop(&mut self) {
        if let Some(notice) = self.end(End::Gone) {
            // Nobody can wait here; what does not fit is in the report all the same.
            self.shared.notices.try_send(notice).ok();
        }
    }
}

impl Shared {
    async fn turn_away(&self, stray: Stray) -> Response<Full<Bytes>> {
        self.behaviour.strayed(&stray);
        let mut response = json_response(stray.status, &json!({"error": stray.reason}));
        if stray.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        self.notices.send(Notice::Strayed(Box::new(stray))).await.ok();
        response
    }
}

async fn read(head: Parts, body: Incoming) -> Result<Received, Stray> {
    let Parts { method, uri, headers, .. } = head;
    let (at, path) = (Instant::now(), uri.path().to_owned());
    let stray = |method, path, body, status, reason: &str| {
        Err(Stray { time: Utc::now(), method, path, body, status, reason: reason.to_owned() })
    };
    if method != Method::POST {
        let reason = "events are sent with POST";
        return stray(method, path, Bytes::new(), StatusCode::METHOD_NOT_ALLOWED, reason);
    }
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let reason = format!("the body is over {MAX_BODY} bytes long");
            return stray(method, path, Bytes::new(), StatusCode::PAYLOAD_TOO_LARGE, &reason);
        }
        Err(_) => {
            let reason = "the body broke off";
            return stray(method, path, Bytes::new(), StatusCode::BAD_REQUEST, reason);
        }
    };
    match Envelope::read(&body) {
        Ok(event) => Ok(received(at, path, headers, body, event)),
        Err(why) => stray(method, path, body, StatusCode::BAD_REQUEST, &why),
    }
}

fn received(
    at: Instant,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    event: Envelope,
) -> Received {
    Received { at, time: Utc::now(), path, headers, body, event }
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let body = match &answer.verdict {
        Verdict::Usual => match &answer.sts_url {
            Some(sts_url) => json!({"sts_url": sts_url}),
            None => json!({}),
        },
        Verdict::Fault | Verdict::Drop => json!({"error": "a fault on order"}),
        Verdict::Refused(refusal) => json!({"error": refusal.to_string()}),
    };
    let mut response = json_response(answer.status, &body);
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
