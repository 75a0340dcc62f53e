//! Connections: HTTP/1.1 requests to one server, over connections that are kept.
//!
//! Each connection is a task, which ends once nobody holds the connection any more: what several requests write
//! at once goes out in one turn of the runtime, and a server that closes an idle connection is noticed at once.
//!
//! Invariants and limits:
//! - One request at a time on a connection, so at most as many connections as requests under way at once.
//! - A connection takes no request [`MAX_AGE`] after it was opened, so that a name that moves is followed.
//! - It is closed after [`MAX_IDLE`] without one.
//! - A request on a kept connection that breaks before a byte of its answer arrived is sent again, once, on a
//!   new one: a server that closes its idle connections costs nobody anything.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::response;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::dial::{Destination, DialError, Stream};

/// Of a connection, when a request is about to use it. A minute of deliveries to a host that moved away is
/// what people bear.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Node closes after 5 s by default; closing first avoids sending an event on a connection that is about to
/// go.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// How long a server may take to read what ends a connection in good order: without that, TLS says that somebody
/// cut it off.
const MAX_CLOSING: Duration = Duration::from_secs(1);

/// How much is read at once, in bytes: an answer with its head is seldom longer.
const READ: usize = 4 * 1024;

/// Whole, or made piece by piece, and then sent once only.
pub type RequestBody = Either<Full<Bytes>, BoxBody<Bytes, Infallible>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// To one server.
pub struct Connections(Arc<Pool>);

struct Pool {
    destination: Destination,
    idle: Mutex<Idle>,
    /// The connections, and what ends them; each ends by itself.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Idle {
    /// The one that is idle longest first.
    connections: Vec<Connection>,
    /// Whether a task closes those that were idle for too long.
    is_swept: bool,
}

/// The head of an answer, and the body that is still to come. Its connection is kept once the body was read to
/// its end, else closed.
pub struct WireAnswer {
    pub head: response::Parts,
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

struct Connection {
    requests: SendRequest<RequestBody>,
    traffic: Arc<Traffic>,
    local: Option<SocketAddr>,
    opened: Instant,
    idle_since: Instant,
    _transport: Transport,
}

/// The task that reads and writes.
struct Transport {
    task: AbortHandle,
    tasks: TaskTracker,
}

/// What went over a connection, in bytes.
#[derive(Default)]
struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

/// A stream that counts.
struct Metered {
    stream: Stream,
    traffic: Arc<Traffic>,
}

impl Connections {
    /// Does not connect yet.
    pub fn to(destination: Destination) -> Self {
        let (idle, tasks) = (Mutex::default(), TaskTracker::new());
        Self(Arc::new(Pool { destination, idle, tasks }))
    }

    /// Sends a request, whose URI is a path and which has a `Host`. `again` makes it anew; `None` if it can be sent
    /// only once. Waits for ever; `until` says how long the caller does.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        request: Request<RequestBody>,
        again: impl FnOnce() -> Option<Request<RequestBody>>,
        until: Instant,
    ) -> Result<WireAnswer, AskError> {
        let mut request = request;
        if let Some(mut kept) = self.0.take().await {
            let before = kept.traffic.read();
            match kept.requests.send_request(request).await {
                Ok(answer) => return Ok(self.answer(answer, kept)),
                Err(error) if kept.traffic.read().received == before.received => {
                    let sent = kept.traffic.read().sent - before.sent;
                    debug!(%error, sent, "a kept connection broke; the request is sent on a new one");
                    request = again().ok_or(error)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut new = self.0.open(until).await?;
        let answer = new.requests.send_request(request).await?;
        Ok(self.answer(answer, new))
    }

    fn answer(&self, answer: Response<Incoming>, connection: Connection) -> WireAnswer {
        let (head, body) = answer.into_parts();
        WireAnswer { head, body, connection: Some(connection), pool: Arc::clone(&self.0) }
    }
}

/// `None` if the body can be sent only once.
pub fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let Either::Left(whole) = request.body() else { return None };
    let mut copy = Request::new(Either::Left(whole.clone()));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("nothing panics while it holds this lock")
    }

    /// The one that was used last, so that those that are not needed end.
    async fn take(&self) -> Option<Connection> {
        loop {
            let mut taken = self.idle().connections.pop()?;
            if taken.is_usable(Instant::now()) && taken.requests.ready().await.is_ok() {
                return Some(taken);
            }
        }
    }

    async fn open(&self, until: Instant) -> Result<Connection, AskError> {
        let stream = self.destination.dial(until).await?;
        let local = match &stream {
            tokio_util::either::Either::Left(tcp) => tcp.local_addr(),
            tokio_util::either::Either::Right(tls) => tls.get_ref().0.local_addr(),
        };
        let traffic = Arc::<Traffic>::default();
        let io = TokioIo::new(Metered { stream, traffic: Arc::clone(&traffic) });
        let mut http = http1::Builder::new();
        // Head and body go out together; copying some hundred bytes costs less than a list of buffers.
        http.writev(false).read_buf_exact_size(Some(READ));
        let (requests, transport) = http.handshake(io).await?;
        // Errors reach whoever waits for the answer.
        let task = self.tasks.spawn(async { drop(transport.await) }).abort_handle();
        let transport = Transport { task, tasks: self.tasks.clone() };
        let (local, now) = (local.ok(), Instant::now());
        Ok(Connection {
            requests,
            traffic,
            local,
            opened: now,
            idle_since: now,
            _transport: transport,
        })
    }

    fn keep(self: &Arc<Self>, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let mut idle = self.idle();
        idle.connections.push(connection);
        if !idle.is_swept {
            idle.is_swept = true;
            self.tasks.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what was idle for too long; returns when there is more to do, if ever.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = self.idle();
        idle.connections.retain(|connection| connection.is_usable(now));
        idle.is_swept = !idle.connections.is_empty();
        idle.connections.first().map(|longest| longest.idle_since + MAX_IDLE)
    }
}

/// Ends when nothing is idle any more.
async fn sweep(pool: Weak<Pool>) {
    let mut next = Instant::now() + MAX_IDLE;
    loop {
        sleep_until(next).await;
        let Some(later) = pool.upgrade().and_then(|pool| pool.sweep()) else { return };
        next = later;
    }
}

impl Connection {
    fn is_usable(&self, now: Instant) -> bool {
        !self.requests.is_closed()
            && now.duration_since(self.opened) < MAX_AGE
            && now.duration_since(self.idle_since) < MAX_IDLE
    }
}

/// The task ends by itself now, but for a server that does not read.
impl Drop for Transport {
    fn drop(&mut self) {
        if !self.task.is_finished() {
            let task = self.task.clone();
            self.tasks.spawn(async move {
                sleep(MAX_CLOSING).await;
                task.abort();
            });
        }
    }
}

impl WireAnswer {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// If the body breaks off.
    pub async fn piece(&mut self) -> hyper::Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => return Ok(Some(piece)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Err(error),
                None => {
                    if let Some(connection) = self.connection.take() {
                        self.pool.keep(connection);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// This end of the connection, which tells connections apart.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.connection.as_ref()?.local
    }
}

impl Traffic {
    fn read(&self) -> Count {
        Count {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

/// [`Traffic`] at one moment.
struct Count {
    sent: u64,
    received: u64,
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        count(&self.traffic.received, buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Metered {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            count(&self.traffic.sent, bytes);
        }
        written
    }
}
