//! One HTTP connection, and how long it may take.
//!
//! Asterisk's `CURL()` leaves its connection open and idle until the call ends, so an idle connection
//! is kept for a minute, and a little longer; a client that stalls in the middle of a head is cut off much sooner. hyper's
//! own header timeout does not tell the two apart, hence the [`Phase`].
//!
//! A streamed answer lasts for as long as its client reads it; a client that reads nothing for a
//! minute is cut off.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, HeaderName, HeaderValue};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a connection may stay without a request. Longer than clients are told, so that none of their requests
/// meets the end.
const IDLE: Duration = Duration::from_secs(65);

/// How long clients may count on an idle connection. Node's HTTP client obeys this header.
const KEEP_ALIVE: HeaderValue = HeaderValue::from_static("timeout=60");

/// How long a request's head may take, from its first byte on.
const HEAD: Duration = Duration::from_secs(5);

/// The longest head, in bytes: Asterisk's is under 250, a relay's under 1000.
const MAX_HEAD: usize = 16 * 1024;

/// Who sends the requests of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a port answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAnswers {
    /// Of known length, and soon complete. A client that shuts its sending side still gets its answer,
    /// and nothing is read ahead, which would cost a buffer of 8 KiB a request.
    Whole,
    /// Streams too. Reading ahead tells when the client has gone, which ends its stream.
    Streamed,
}

/// Serves requests until the client goes or takes too long, or until `stop`, after which the request
/// under way is still answered.
pub async fn serve<A: Future<Output = Response>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request) -> A,
    answers: HttpAnswers,
    stop: CancellationToken,
) {
    let phase = Arc::new(PhaseCell::default());
    let io = TokioIo::new(Watched { stream, phase: Arc::clone(&phase) });
    let serving = Arc::clone(&phase);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        serving.enter(Phase::Serving);
        let answer = answer(request.map(Body::new));
        let serving = Arc::clone(&serving);
        async move {
            let mut answer = answer.await;
            let headers = answer.headers_mut();
            if !headers.contains_key(CONNECTION) {
                headers.insert(HeaderName::from_static("keep-alive"), KEEP_ALIVE);
            }
            if answer.body().size_hint().exact().is_some() {
                serving.enter(Phase::Idle);
                return Ok::<_, Infallible>(answer);
            }
            Ok(answer.map(|body| Body::new(Streaming { body, phase: serving })))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .half_close(answers == HttpAnswers::Whole)
            // Head and body go out together; copying some hundred bytes costs less than a list of buffers.
            .writev(false)
            .serve_connection(io, service)
    );
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let mut deadline = Deadline::new(phase);
    poll_fn(|context| {
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        // An error here is the client's: no call ends with its connection.
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        deadline.poll(context)
    })
    .await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Phase {
    /// No byte of a request has come.
    Idle = 0,
    /// A request's head is coming in.
    Head = 1,
    /// A request is being served, within the route's own limits.
    Serving = 2,
    /// An answer of unknown length goes out.
    Streaming = 3,
}

/// The body of a streamed answer, which notes when it begins and when it ends.
struct Streaming {
    body: Body,
    phase: Arc<PhaseCell>,
}

impl HttpBody for Streaming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // From here on, writing tells whether the client reads.
        if polled.is_ready() && !self.phase.is(Phase::Streaming) {
            self.phase.enter(Phase::Streaming);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.phase.enter(Phase::Idle);
    }
}

/// The current phase in the low bits. The rest counts phases, so that a full round between two looks
/// is noticed.
#[derive(Debug, Default)]
struct PhaseCell(AtomicU32);

impl PhaseCell {
    const PHASE: u32 = 0b11;

    /// All accesses are from the connection's own task, so the plain load and store do not race.
    fn enter(&self, phase: Phase) {
        let count = (self.current() & !Self::PHASE).wrapping_add(Self::PHASE + 1);
        self.0.store(count | phase as u32, Ordering::Relaxed);
    }

    fn current(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn is(&self, phase: Phase) -> bool {
        self.current() & Self::PHASE == phase as u32
    }

    fn note_written(&self, result: &Poll<io::Result<usize>>) {
        if self.is(Phase::Streaming) && matches!(result, Poll::Ready(Ok(1..))) {
            self.enter(Phase::Streaming);
        }
    }

    fn limit(&self) -> Option<Duration> {
        if self.is(Phase::Serving) {
            None
        } else if self.is(Phase::Head) {
            Some(HEAD)
        } else {
            Some(IDLE)
        }
    }
}

/// Ready when the current phase has taken too long.
struct Deadline {
    phase: Arc<PhaseCell>,
    known: u32,
    at: Instant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Deadline {
    fn new(phase: Arc<PhaseCell>) -> Self {
        let at = Instant::now() + IDLE;
        Self { known: phase.current(), at, timer: Box::pin(sleep_until(at)), phase }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.phase.limit() else {
            return Poll::Pending;
        };
        if self.known != self.phase.current() {
            self.known = self.phase.current();
            self.at = Instant::now() + limit;
        }
        // Resetting a timer costs more than letting it fire too early now and then.
        if self.timer.deadline() > self.at {
            self.timer.as_mut().reset(self.at);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            let at = self.at;
            self.timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

/// A stream that notes the first byte of each request, and each write of a streamed answer.
struct Watched<S> {
    stream: S,
    phase: Arc<PhaseCell>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.phase.is(Phase::Idle) {
            self.phase.enter(Phase::Head);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.phase.note_written(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::http::routed;

    /// The buffer between client and server, in bytes: more than an answer, less than a stream.
    const ROOM: usize = 4096;

    /// How long a client is served that does this and then nothing, by a clock that advances when all
    /// tasks are idle.
    async fn served(client: impl AsyncFnOnce(&mut DuplexStream)) -> Duration {
        let endless = || async {
            let chunk = || Ok::<_, Infallible>(Bytes::from_static(&[b'x'; ROOM]));
            Body::from_stream(stream::repeat_with(chunk))
        };
        let router =
            Router::new().route("/health", get(|| async { "ok" })).route("/stream", get(endless));
        let answer = |request| routed(router.clone(), request);
        let (mut near, far) = duplex(ROOM);
        let begun = Instant::now();
        let stop = CancellationToken::new();
        let serving = serve(far, answer, HttpAnswers::Streamed, stop);
        tokio::join!(client(&mut near), serving);
        begun.elapsed()
    }

    async fn ask(client: &mut DuplexStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; ROOM];
        let length = client.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "the connection was closed");
        let head = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(head.contains("\r\nkeep-alive: timeout=60\r\n"), "{head}");
    }

    /// The pause between two bytes.
    const DRIP: Duration = Duration::from_millis(250);

    fn assert_about(expected: Duration, served: Duration) {
        assert!((expected..expected + 2 * DRIP).contains(&served), "{served:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_for_longer_than_clients_are_told_after_each_answer() {
        let pause = IDLE - Duration::from_secs(1);
        let client = async |client: &mut DuplexStream| {
            for _ in 0..3 {
                sleep(pause).await;
                ask(client, "/health").await;
            }
        };
        assert_about(3 * pause + IDLE, served(client).await);
        assert!(IDLE >= Duration::from_secs(60 + 5), "a request may be on its way for seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_cut_off_soon_however_it_drips() {
        let pause = IDLE / 2;
        let client = async |client: &mut DuplexStream| {
            ask(client, "/health").await;
            sleep(pause).await;
            for byte in std::iter::repeat(b'G') {
                if client.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(DRIP).await;
            }
        };
        assert_about(pause + HEAD, served(client).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_lasts_while_its_client_takes_it_and_a_minute_longer() {
        let pause = IDLE / 2;
        let client = async |client: &mut DuplexStream| {
            ask(client, "/stream").await;
            for _ in 0..5 {
                sleep(pause).await;
                client.read_exact(&mut [0; ROOM]).await.unwrap();
            }
        };
        assert_about(5 * pause + IDLE, served(client).await);
    }
}
