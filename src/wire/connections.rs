//! Connections: HTTP/1.1 requests to one server, over connections that are kept.
//!
//! Each connection is driven by whoever uses it, so no task runs between a request and the socket; while it
//! is idle nobody drives it, and it is looked at before it is used again.
//!
//! Invariants and limits:
//! - One request at a time on a connection, so at most as many connections as requests under way at once.
//! - A connection takes no request [`MAX_AGE`] after it was opened, so that a name that moves is followed.
//! - It is closed after [`MAX_IDLE`] without one.
//! - A request on a kept connection that breaks before a byte of its answer arrived is sent again, once, on a
//!   new one: a server that closes its idle connections costs nobody anything.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body_util::combinators::BoxBody;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::response;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::dial::{Destination, DialError, Stream};

/// Of a connection, when a request is about to use it. A minute of deliveries to a host that moved away is
/// what people bear.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Node closes after 5 s by default; closing first avoids sending an event on a connection that is about to
/// go.
const MAX_IDLE: Duration = Duration::from_secs(4);

const MAX_CLOSING: Duration = Duration::from_secs(1);

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
    /// Those that close connections; each ends by itself.
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
    /// `None` once it is over.
    transport: Option<http1::Connection<TokioIo<Metered>, RequestBody>>,
    traffic: Arc<Traffic>,
    local: Option<SocketAddr>,
    opened: Instant,
    idle_since: Instant,
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

    /// Sends a request, whose URI is a path and which has a `Host`. Waits for ever; `within` says how long the
    /// caller does.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        request: Request<RequestBody>,
        within: Duration,
    ) -> Result<WireAnswer, AskError> {
        let mut request = request;
        if let Some(mut kept) = self.0.take().await {
            let again = copy(&request);
            let before = kept.traffic.read();
            match (kept.ask(request).await, again) {
                (Ok(answer), _) => return Ok(self.answer(answer, kept)),
                (Err(error), Some(again)) if kept.traffic.read().received == before.received => {
                    let sent = kept.traffic.read().sent - before.sent;
                    debug!(%error, sent, "a kept connection broke; the request is sent on a new one");
                    request = again;
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        let mut new = Connection::open(&self.0.destination, within).await?;
        let answer = new.ask(request).await?;
        Ok(self.answer(answer, new))
    }

    fn answer(&self, answer: Response<Incoming>, connection: Connection) -> WireAnswer {
        let (head, body) = answer.into_parts();
        WireAnswer { head, body, connection: Some(connection), pool: Arc::clone(&self.0) }
    }
}

/// `None` if the body can be sent only once.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
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
        poll_fn(|context| {
            let now = Instant::now();
            loop {
                let taken = self.idle().connections.pop();
                let Some(mut taken) = taken else { return Poll::Ready(None) };
                if taken.is_usable(now) && taken.is_ready(context) {
                    return Poll::Ready(Some(taken));
                }
                self.tasks.spawn(taken.close());
            }
        })
        .await
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
        for old in idle.connections.extract_if(.., |connection| !connection.is_usable(now)) {
            self.tasks.spawn(old.close());
        }
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
    async fn open(destination: &Destination, within: Duration) -> Result<Self, AskError> {
        let stream = destination.dial(within).await?;
        let local = match &stream {
            tokio_util::either::Either::Left(tcp) => tcp.local_addr(),
            tokio_util::either::Either::Right(tls) => tls.get_ref().0.local_addr(),
        };
        let traffic = Arc::<Traffic>::default();
        let metered = Metered { stream, traffic: Arc::clone(&traffic) };
        let (requests, transport) = http1::handshake(TokioIo::new(metered)).await?;
        let now = Instant::now();
        Ok(Self {
            requests,
            transport: Some(transport),
            traffic,
            local: local.ok(),
            opened: now,
            idle_since: now,
        })
    }

    fn is_usable(&self, now: Instant) -> bool {
        now.duration_since(self.opened) < MAX_AGE && now.duration_since(self.idle_since) < MAX_IDLE
    }

    /// Whether it is still open and takes a request, as far as can be known.
    fn is_ready(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context);
        self.transport.is_some() && self.requests.is_ready()
    }

    /// In good order: without its end, TLS says that somebody cut it off.
    async fn close(self) {
        drop(self.requests);
        if let Some(transport) = self.transport {
            // A server that does not read is left alone.
            timeout(MAX_CLOSING, transport).await.ok();
        }
    }

    /// Writes and reads what can be. Errors reach whoever waits for the answer.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(transport) = &mut self.transport
            && Pin::new(transport).poll(context).is_ready()
        {
            self.transport = None;
        }
    }

    async fn ask(&mut self, request: Request<RequestBody>) -> hyper::Result<Response<Incoming>> {
        let mut answer = pin!(self.requests.send_request(request));
        poll_fn(|context| {
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await
    }
}

impl WireAnswer {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// If the body breaks off.
    pub async fn piece(&mut self) -> hyper::Result<Option<Bytes>> {
        loop {
            match poll_fn(|context| self.poll_frame(context)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => return Ok(Some(piece)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Err(error),
                None => {
                    self.keep_connection().await;
                    return Ok(None);
                }
            }
        }
    }

    /// This end of the connection, which tells connections apart.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.connection.as_ref()?.local
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<hyper::body::Frame<Bytes>>>> {
        if let Some(connection) = &mut self.connection {
            connection.drive(context);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    async fn keep_connection(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if poll_fn(|context| Poll::Ready(connection.is_ready(context))).await {
            self.pool.keep(connection);
        }
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
