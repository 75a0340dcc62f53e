//! One connection to the front, and how long it may take its time.
//!
//! Asterisk's `CURL()` leaves its connection open and idle until the call ends, so an idle one is
//! kept for a minute; a client that dawdles in the middle of a head is cut off much sooner. hyper's
//! own header timeout does not tell the two apart, hence the [`Phase`].
//!
//! An answer that streams is being served for as long as its client takes what there is; one that takes
//! nothing for a minute is cut off.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_secs(60);

/// How long a request's head may take from its first byte on.
const HEAD: Duration = Duration::from_secs(5);

/// The longest head, in bytes: Asterisk's is under 250, a relay's under 1000.
const MAX_HEAD: usize = 16 * 1024;

/// What the answers to a client are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Of a known length, and soon there. A client that shuts its side meanwhile still gets its answer;
    /// and nothing is read ahead, which would cost a buffer of 8 KiB a request.
    Whole,
    /// Also streams, which end when the client goes.
    Streams,
}

/// Serves requests until the client goes, dawdles, or `stop` is given and the request under way is
/// answered.
pub async fn serve(stream: TcpStream, router: Router, answers: Answers, stop: CancellationToken) {
    let phase = Arc::new(Phase::default());
    let io = TokioIo::new(Watched { stream, phase: Arc::clone(&phase) });
    let serving = Arc::clone(&phase);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        serving.enter(Step::Serving);
        let answer = router.clone().call(request.map(Body::new));
        let serving = Arc::clone(&serving);
        async move {
            let answer: Result<_, Infallible> = answer.await;
            answer.map(|answer| {
                if answer.body().size_hint().exact().is_some() {
                    serving.enter(Step::Idle);
                    return answer;
                }
                answer.map(|body| Body::new(Streaming { body, phase: serving }))
            })
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .half_close(answers == Answers::Whole)
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
        // Whether it ended well is the client's business: there is no call to end with it.
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        deadline.poll(context)
    })
    .await;
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Step {
    /// No byte of a request has come.
    Idle = 0,
    /// A request's head is coming in.
    Head = 1,
    /// A request is being served, which has limits of its own.
    Serving = 2,
    /// An answer without an end in sight goes out.
    Streaming = 3,
}

/// The body of an answer that streams: it notes that the client takes it, and when it ends.
struct Streaming {
    body: Body,
    phase: Arc<Phase>,
}

impl HttpBody for Streaming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.phase.enter(Step::Streaming);
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
        self.phase.enter(Step::Idle);
    }
}

/// The current step, and a count of steps taken so that a quick round is noticed too.
#[derive(Debug, Default)]
struct Phase(AtomicU32);

impl Phase {
    const STEP: u32 = 0b11;

    /// All accesses are from the connection's own task, so the plain load and store do not race.
    fn enter(&self, step: Step) {
        let count = (self.0.load(Ordering::Relaxed) & !Self::STEP).wrapping_add(Self::STEP + 1);
        self.0.store(count | step as u32, Ordering::Relaxed);
    }

    fn current(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn is(&self, step: Step) -> bool {
        self.current() & Self::STEP == step as u32
    }

    fn limit(&self) -> Option<Duration> {
        if self.is(Step::Serving) {
            None
        } else if self.is(Step::Head) {
            Some(HEAD)
        } else {
            Some(IDLE)
        }
    }
}

/// Ends when the current step has taken too long.
struct Deadline {
    phase: Arc<Phase>,
    known: u32,
    at: Instant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Deadline {
    fn new(phase: Arc<Phase>) -> Self {
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
        // Setting a timer costs more than letting it ring too early now and then.
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

/// A stream that notes when a request's first byte comes in.
struct Watched {
    stream: TcpStream,
    phase: Arc<Phase>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.phase.is(Step::Idle) {
            self.phase.enter(Step::Head);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
