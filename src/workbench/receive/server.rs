//! Server: takes requests, has a [`Conduct`] judge them, and answers accordingly.
//!
//! Owns the connections, the reading of an event and the writing of an answer.
//!
//! Invariants:
//! - The conduct hears of a request when it has arrived, before any delay, and once more when it
//!   ends, before a byte of its answer goes out, also where its sender goes away in the meantime.
//! - Every [`Notice`] goes to the conduct, then to whoever shows it; only that of a sender that goes
//!   away while [`BACKLOG`] others wait is not shown.
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
use axum::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::{EventBody, Received};
use super::reply::{Ending, Reply};
use crate::listener;

/// The longest body that is read, in bytes: far more than any event of a phone call.
pub const MAX_BODY: usize = 1024 * 1024;

/// The most connections at a time: callhook opens as many as it makes attempts at once.
pub const MAX_CONNECTIONS: usize = 4096;

/// Notices that wait to be taken; more make the receiver wait.
pub const BACKLOG: usize = 1024;

/// How long a connection may stay without a request's whole head.
pub const IDLE: Duration = Duration::from_secs(60);

/// How a receiver behaves: decides what is answered, and hears what came of it.
pub trait Conduct: Send + Sync + 'static {
    fn arrived(&self, received: &Received) -> Reply;

    fn noticed(&self, _notice: &Notice) {}
}

impl<F: Fn(&Received) -> Reply + Send + Sync + 'static> Conduct for F {
    fn arrived(&self, received: &Received) -> Reply {
        self(received)
    }
}

/// A request without a valid event.
#[derive(Clone, Debug)]
pub struct Stray {
    pub time: DateTime<Utc>,
    pub method: Method,
    pub path: String,
    /// Empty where it was not read.
    pub body: Bytes,
    pub status: StatusCode,
    pub reason: String,
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub enum Notice {
    /// An event whose answer comes this much later.
    Arrived(Arc<Received>, Duration),
    /// An event that is answered now, or will never be.
    Ended {
        received: Arc<Received>,
        reply: Reply,
        took: Duration,
    },
    Strayed(Stray),
}

impl Notice {
    fn ended(received: Arc<Received>, reply: Reply) -> Self {
        Self::Ended { took: received.at.elapsed(), received, reply }
    }
}

/// A receiver that listens.
pub struct Receiver {
    pub address: SocketAddr,
    pub notices: mpsc::Receiver<Notice>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct ServerState {
    conduct: Arc<dyn Conduct>,
    notices: mpsc::Sender<Notice>,
}

impl Receiver {
    /// Starts to listen.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn start(host: &str, port: u16, conduct: Arc<dyn Conduct>) -> io::Result<Self> {
        // An IPv6 address comes with or without brackets.
        let listener = TcpListener::bind((host.trim_matches(['[', ']']), port)).await?;
        let address = listener.local_addr()?;
        let (sender, notices) = mpsc::channel(BACKLOG);
        let shared = Arc::new(ServerState { conduct, notices: sender });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        let connect = move |stream| connection(stream, Arc::clone(&shared), stopped.clone());
        tasks.spawn(listener::accept(listener, MAX_CONNECTIONS, stop.clone(), connect));
        Ok(Self { address, notices, stop, tasks })
    }

    /// Stops listening and waits for the answers under way; their notices are dropped.
    pub async fn stop(mut self) {
        self.close();
        self.tasks.close();
        let ignored = async { while self.notices.recv().await.is_some() {} };
        tokio::join!(self.tasks.wait(), ignored);
    }

    /// Stops listening; the notices end when the answers under way have been given.
    pub fn close(&self) {
        self.stop.cancel();
    }
}

async fn connection(stream: TcpStream, shared: Arc<ServerState>, stop: CancellationToken) {
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
    shared: Arc<ServerState>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ClosedOnOrder> {
    let (head, body) = request.into_parts();
    let received = match read(head, body).await {
        Ok(received) => Arc::new(received),
        Err(stray) => return Ok(shared.turn_away(stray).await),
    };
    let reply = shared.conduct.arrived(&received);
    let delay = reply.delay;
    let open = Open { shared: &shared, pending: Some((Arc::clone(&received), reply)) };
    if !delay.is_zero() {
        shared.tell(Notice::Arrived(received, delay)).await;
        sleep(delay).await;
    }
    open.close().await
}

/// A request that has arrived and is not answered.
struct Open<'s> {
    shared: &'s ServerState,
    /// Until it has ended.
    pending: Option<(Arc<Received>, Reply)>,
}

impl Open<'_> {
    async fn close(mut self) -> Result<Response<Full<Bytes>>, ClosedOnOrder> {
        let (received, reply) = self.pending.take().expect("it is open until here");
        let response = response(&reply);
        self.shared.tell(Notice::ended(received, reply)).await;
        response
    }
}

impl Drop for Open<'_> {
    /// hyper drops what it serves when the sender closes the connection.
    fn drop(&mut self) {
        if let Some((received, reply)) = self.pending.take() {
            let notice = Notice::ended(received, Reply { ending: Ending::Gone, ..reply });
            self.shared.conduct.noticed(&notice);
            // Nobody can wait here; what does not fit is in the report all the same.
            self.shared.notices.try_send(notice).ok();
        }
    }
}

impl ServerState {
    /// The receiver goes on answering where nobody takes its notices.
    async fn tell(&self, notice: Notice) {
        self.conduct.noticed(&notice);
        self.notices.send(notice).await.ok();
    }

    async fn turn_away(&self, stray: Stray) -> Response<Full<Bytes>> {
        let mut response = json_response(stray.status, &json!({"error": stray.reason}));
        if stray.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        self.tell(Notice::Strayed(stray)).await;
        response
    }
}

async fn read(head: Parts, body: Incoming) -> Result<Received, Stray> {
    let Parts { method, uri, headers, .. } = head;
    let (at, path) = (Instant::now(), uri.path().to_owned());
    let (body, event) = match read_body(&method, body).await {
        Ok(body) => {
            let event = EventBody::read(&body).map_err(|why| (StatusCode::BAD_REQUEST, why));
            (body, event)
        }
        Err(refusal) => (Bytes::new(), Err(refusal)),
    };
    let time = Utc::now();
    match event {
        Ok(event) => Ok(Received { at, time, path, headers, body, event }),
        Err((status, reason)) => Err(Stray { time, method, path, body, status, reason }),
    }
}

async fn read_body(method: &Method, body: Incoming) -> Result<Bytes, (StatusCode, String)> {
    if method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "events are sent with POST".to_owned()));
    }
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let reason = format!("the body is over {MAX_BODY} bytes long");
            Err((StatusCode::PAYLOAD_TOO_LARGE, reason))
        }
        Err(_) => Err((StatusCode::BAD_REQUEST, "the body broke off".to_owned())),
    }
}

fn response(reply: &Reply) -> Result<Response<Full<Bytes>>, ClosedOnOrder> {
    let body = match &reply.ending {
        Ending::Usual(_) => usual(reply),
        Ending::Fault(_) => json!({"error": "a fault on order"}),
        Ending::Refused(refusal) => json!({"error": refusal.to_string()}),
        Ending::Closed | Ending::Gone => json!(null),
    };
    let status = reply.ending.status().ok_or(ClosedOnOrder)?;
    let mut response = json_response(status, &body);
    if let Some(seconds) = reply.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

fn usual(reply: &Reply) -> Value {
    let mut body = json!({});
    if let Some(sts_url) = &reply.sts_url {
        body["sts_url"] = json!(sts_url);
    }
    if let Some(next) = &reply.next {
        body["next"] = json!(next);
    }
    body
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
