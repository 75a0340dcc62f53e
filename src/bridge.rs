//! Bridge: what happens in one call?
//!
//! Owns the port that Asterisk connects to, and a call from its first event to its last. The rest of a
//! call is in these files, none of which knows this one:
//!
//! ```text
//!             ┌── frames ─► caller ──┐         ┌──► sts ◄── reach
//!  Asterisk ──┤                      ├── talk ─┤
//!             └── playout ◄──────────┘    │    └──► report ──► queue
//!                                life, ending
//! ```
//!
//! [`talk`] has both sockets, and [`life`] says what follows from what happens on them. [`frames`] cuts
//! what Asterisk sends into frames, [`caller`] turns those into audio at 8 kHz ([`codec`] says what they
//! are, [`g722`] what one that cannot be read is), [`playout`] paces the agent's audio. [`deadlines`] says what the time
//! alone brings, [`response`] how long callers wait for the agent. [`mod@reach`] connects to the STS server, [`report`]
//! takes the events to the queue and the waits to the history, and [`ending`] lets it be known how the call ended. Calls that cannot begin are
//! [`refused`]'s.
//!
//! Invariants:
//! - `call_started` is the first event that a bridged call makes, `call_ended` the last, and each
//!   comes once, also when the code in between panics.
//! - Neither party is waited for: a slow one loses audio, and the other does not notice.
//!
//! Limits: [`MOST_CALLS`], and what [`CallRules`](crate::calls::CallRules) say; a UUID within [`UUID_TIME`].

pub mod caller;
pub mod codec;
mod deadlines;
mod ending;
mod frames;
mod g722;
pub mod life;
pub mod metrics;
pub mod playout;
mod reach;
mod refused;
mod report;
mod response;
mod settings;
mod talk;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::ending::CallEnd;
pub use self::ending::Ends;
use self::frames::{FrameReader, NoCall};
use self::life::EndReason;
use self::metrics::BridgeMetrics;
use self::playout::{CallerLine, Clock};
use self::reach::reach;
pub use self::refused::RefusedCalls;
use self::report::{Reporter, record};
pub use self::settings::{AudioCodec, CallSettings};
use self::talk::Talk;
use crate::audiosocket::HANG_UP;
use crate::event::{CallId, Event, EventId, EventType, Payload};
use crate::history::History;
use crate::journal::{EndedCall, LiveCall};
use crate::listener;
use crate::queue::Queue;
use crate::routing::StsUrl;
use crate::sts::{Close, Connector};
use crate::time::{millis, timestamp_of, unix_millis};

/// The most calls at a time: as many as Asterisk holds connections to the front for.
const MOST_CALLS: usize = 10_000;

/// How long a connection may take to say which call it is. Asterisk takes 5 ms.
const UUID_TIME: Duration = Duration::from_secs(5);

/// How long Asterisk is given to close its end, so that it reads what was sent to it.
const CLOSING_TIME: Duration = Duration::from_millis(500);

/// How long a dialplan may take to ask where a transfer goes: Dial returns within milliseconds.
const NEXT_TIME: Duration = Duration::from_secs(5);

/// How often it is written that the live calls are alive: after a crash their ends are known to within 10 s,
/// of which one is for the disk.
const LIVE_NOTED: Duration = Duration::from_secs(9);

/// The port that Asterisk connects to, and what every call needs.
pub struct Bridge {
    pub queue: Queue,
    pub history: History,
    pub ends: Ends,
    /// `STS_URL`.
    pub fallback: Option<StsUrl>,
    pub settings: CallSettings,
    pub connector: RwLock<Arc<Connector>>,
    /// The one clock of all calls.
    pub clock: Arc<Clock>,
    pub metrics: Arc<BridgeMetrics>,
    pub refused: RefusedCalls,
    /// The tasks that hand calls' events on.
    pub recording: TaskTracker,
}

impl Bridge {
    /// Takes calls until `stop`, then ends those that are live.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let clock = Arc::clone(&self.clock);
        // It ends last, with the calls that it plays.
        let silence = CancellationToken::new();
        let serve = |stream| Arc::clone(&self).take(stream, stop.clone());
        let calls = async {
            listener::accept(listener, MOST_CALLS, stop.clone(), serve).await;
            silence.cancel();
        };
        let noting = silence.run_until_cancelled(self.note_live());
        tokio::join!(calls, clock.run(silence.clone()), noting);
    }

    async fn note_live(&self) {
        let mut due = interval(LIVE_NOTED);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            if self.metrics.calls.live.get() > 0 {
                self.ends.journal.calls_live();
            }
        }
    }

    /// Ends calls that were live when callhook died; each was begun in the journal. Where a call itself had
    /// ended, and only its last events were waited for, `ended` has its end.
    pub async fn end_recovered(&self, calls: Vec<LiveCall>, ended: &[EndedCall]) {
        let ends = calls.into_iter().map(|live| async move {
            let is_its_own = |ended: &&EndedCall| ended.call == live.call && ended.at >= live.since;
            let end = match ended.iter().rfind(is_its_own) {
                Some(ended) => CallEnd {
                    reason: ended.reason.parse().unwrap_or(EndReason::Restart),
                    lasted: Duration::from_millis(ended.duration_ms),
                    at: ended.at,
                    close: None,
                    next: ended.next.clone(),
                },
                None => {
                    let lasted = Duration::from_millis(live.seen.saturating_sub(live.since));
                    let reason = EndReason::Restart;
                    let end = CallEnd { reason, lasted, at: live.seen, close: None, next: None };
                    self.ends.note(live.call, &end).await;
                    end
                }
            };
            self.queue.record(self.ended(live.call, &end)).await;
        });
        futures_util::future::join_all(ends).await;
    }

    /// Later calls connect with the certificates as they are now.
    pub fn renew(&self) {
        *self.connector.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn connector(&self) -> Arc<Connector> {
        Arc::clone(&self.connector.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn take(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        let (reader, writer) = stream.into_split();
        let mut frames = FrameReader::new(reader);
        let first = timeout(UUID_TIME, frames.uuid()).map(|uuid| uuid.unwrap_or(Err(NoCall::Late)));
        let call = match stop.run_until_cancelled(first).await {
            Some(Ok(call)) => call,
            Some(Err(error)) => return warn!(peer, %error, "no call on this connection"),
            None => return,
        };
        let (live, announcement) = match self.ends.calls.begin(call, Instant::now()) {
            Ok(begun) => begun,
            Err(error) => {
                self.metrics.calls.turned_away.count(error);
                self.refused.note(&self.ends.calls, call, &peer, error);
                // Whoever does not listen need not be told.
                writer.try_write(&HANG_UP).ok();
                drop(writer);
                return frames.close(CLOSING_TIME).await;
            }
        };
        info!(uuid = %call, announced = announcement.is_some(), "call started");
        let (calls, fallback) = (&self.metrics.calls, self.fallback.as_ref());
        let connector = self.connector();
        let talk = |reporter| {
            let reaching = reach(&connector, calls, call, announcement.clone(), fallback);
            let line = CallerLine::new(writer);
            let asked = (Arc::clone(&live.asked), announcement);
            let talk =
                Talk::new(reporter, line, &self.clock, &self.settings, calls, &self.ends, asked);
            talk.run(&mut frames, Box::pin(reaching), stop.clone())
        };
        calls.live.inc();
        self.report_all(call, talk).await;
        calls.live.dec();
        drop(live);
        frames.close(CLOSING_TIME).await;
        let missing = self.ends.calls.misses_next(call, NEXT_TIME);
        if stop.run_until_cancelled(missing).await == Some(true) {
            warn!(
                uuid = %call,
                "nobody asked where to transfer this call; its caller was hung up on unless the dialplan goes on:                  Dial(AudioSocket/…,,g), and then GET /call/UUID/next, as in config/extensions.conf"
            );
        }
    }

    /// One call, from its first event to its last.
    async fn report_all<F>(&self, call: CallId, talk: impl FnOnce(Reporter) -> F)
    where
        F: Future<Output = CallEnd>,
    {
        let (metrics, history) = (Arc::clone(&self.metrics), self.history.clone());
        let (reporter, reported) = Reporter::new(call, metrics, history);
        // A task of its own: it wakes for events, and the call for each of its frames.
        let recording = self.recording.spawn(record(self.queue.clone(), reported));
        let begun = Instant::now();
        self.history.started(call);
        reporter.report(EventType::CallStarted, &Payload::empty());
        let talk = AssertUnwindSafe(talk(reporter.clone())).catch_unwind();
        let end = match talk.await {
            Ok(end) => end,
            Err(_) => {
                error!(uuid = %call, "a call broke off, which is a bug; other calls go on");
                let (reason, at) = (EndReason::Restart, unix_millis());
                let lasted = begun.elapsed();
                let end = CallEnd { reason, lasted, at, close: None, next: None };
                self.ends.note(call, &end).await;
                end
            }
        };
        reporter.send(self.ended(call, &end));
        drop(reporter);
        if recording.await.is_err() {
            error!(uuid = %call, "the events of a call could not be handed on, which is a bug");
        }
    }

    fn ended(&self, call: CallId, end: &CallEnd) -> Event {
        let CallEnd { reason, lasted, at, close, .. } = end;
        let (name, duration_ms) = (reason.name(), millis(*lasted));
        self.metrics.calls.ended.count(*reason);
        self.metrics.calls.seconds.observe(lasted.as_secs_f64());
        self.history.ended(call, name, *lasted, *at);
        let sts_code = close.as_ref().and_then(Close::code);
        let sts_reason = close.as_ref().and_then(Close::reason);
        if reason.is_agents_failure() {
            warn!(uuid = %call, reason = name, duration_ms, sts_code, sts_reason, "call ended");
        } else {
            info!(uuid = %call, reason = name, duration_ms, sts_code, sts_reason, "call ended");
        }
        let payload = if self.settings.ended_details {
            Payload::of(&json!({"reason": name, "duration_ms": duration_ms}))
        } else {
            Payload::empty()
        };
        Event::new(EventId::make(), call, EventType::CallEnded, &timestamp_of(*at), &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Attempt, Deliver, Outcome};
    use crate::journal::{Journal, Recovered};
    use crate::queue::{QueueParts, QueueSettings, ReceiverRules};
    use crate::receiver::Receivers;
    use crate::routing::RouteRules;
    use futures_util::future::BoxFuture;
    use std::sync::Mutex;

    /// A receiver that notes bodies.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Deliver for Notes {
        fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
            let body = String::from_utf8(attempt.item.event.body.to_vec()).unwrap();
            self.0.lock().unwrap().push(body);
            Box::pin(async { Outcome::Delivered { status: 200, answer: None } })
        }
    }

    fn bridge(notes: &Notes) -> Bridge {
        let settings = QueueSettings {
            receivers: vec![ReceiverRules::default()],
            relay_timeout: Duration::from_secs(5),
            rules: RouteRules::ANYWHERE,
        };
        let journal = Arc::new(Journal::in_memory(&Receivers::main(), 1));
        let parts = QueueParts {
            deliver: vec![Some(Arc::new(notes.clone()))],
            journal: Arc::clone(&journal),
            history: History::default(),
            metrics: Arc::default(),
        };
        let queue = Queue::start(settings, parts, Recovered::default());
        Bridge {
            queue,
            history: History::default(),
            ends: Ends { calls: Arc::default(), journal },
            fallback: None,
            settings: CallSettings {
                listen: listener::ListenAddress { host: String::new(), port: 0 },
                codec: AudioCodec::Auto,
                idle_timeout: UUID_TIME,
                max_duration: None,
                ended_details: true,
            },
            connector: RwLock::default(),
            clock: Arc::default(),
            recording: TaskTracker::new(),
            metrics: Arc::default(),
            refused: RefusedCalls::default(),
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_call_ends_that_call_alone() {
        let notes = Notes::default();
        let bridge = Arc::new(bridge(&notes));
        let (broken, other) = (CallId::random(), CallId::random());
        let breaks = bridge.report_all(broken, |_| async { panic!("on purpose") });
        let goes_on = bridge.report_all(other, |reporter| async move {
            tokio::task::yield_now().await;
            reporter.report(EventType::Interruption, &Payload::empty());
            let (reason, lasted) = (EndReason::Hangup, Duration::from_millis(7));
            CallEnd { reason, lasted, at: 1_767_323_045_678, close: None, next: None }
        });
        tokio::join!(breaks, goes_on);
        bridge.queue.drain(Instant::now() + UUID_TIME).await;
        let bodies = notes.0.lock().unwrap().clone();
        let of = |call: CallId| {
            let call = call.to_string();
            bodies.iter().filter(|body| body.contains(&call)).cloned().collect::<Vec<_>>()
        };
        let (broken, other) = (of(broken), of(other));
        assert_eq!((broken.len(), other.len()), (2, 3), "{bodies:#?}");
        assert!(broken[0].contains("call_started"));
        assert!(broken[1].contains("call_ended") && broken[1].contains("restart"));
        assert!(other[2].contains("call_ended") && other[2].contains("hangup"));
        let when = r#""timestamp":"2026-01-02T03:04:05.678Z""#;
        assert!(other[2].contains(when) && other[2].contains(r#""duration_ms":7"#), "{}", other[2]);
    }
}
