//! Metrics: what is counted and measured, for `GET /metrics`.
//!
//! Owns every metric's name, help and unit; README has the same table, which a test compares. Who counts
//! does so through a field of [`Metrics`], where the event happens. Values that are states rather than
//! counts (depth, age, up or down) are gauges, set when they are asked for.
//!
//! Invariants:
//! - Counting neither allocates nor waits. A histogram's lock is held for one observation.
//! - No label holds what comes from outside: a type that callhook does not know is `other`.
//! - Exposing takes no lock of the queue's or the journal's.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process;
use super::values::{Answered, Attempted, Kind, Refusal, Routed};
use crate::attempt::FailureCode;
use crate::bridge::life::Reason;
use crate::label::Each;
use crate::time::unix_millis;

/// What an OpenMetrics text is sent as
/// (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An attempt: from a receiver next door to the longest `WEBHOOK_TIMEOUT` that people set.
const ATTEMPT_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A decision: around `ROUTING_TIMEOUT` of 5 s, and what a caller takes for a dead line.
const DECISION_SECONDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0];

/// A commit: an fsync takes well under 10 ms on a good disk, and seconds on a failing one.
const COMMIT_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Changes in a batch: from one event to a queue that waited for its disk.
const BATCH_CHANGES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 10_000.0];

/// A call: from a wrong number to an hour.
const CALL_SECONDS: [f64; 10] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Until a speech-to-speech server is connected, which is tried for 5 s.
const CONNECT_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// A number with a fraction, set when it is asked for.
type Level = Gauge<f64, AtomicU64>;

/// Everything that is counted and measured, since the start.
#[derive(Debug)]
pub struct Metrics {
    /// What becomes of events.
    pub events: EventMetrics,
    /// Requests to the receiver.
    pub attempts: AttemptMetrics,
    /// What callers are answered.
    pub routing: RoutingMetrics,
    /// What waits, and for what.
    pub queue: QueueMetrics,
    /// What is written.
    pub journal: JournalMetrics,
    /// Bridged calls.
    pub calls: CallMetrics,
    /// What is played to callers.
    pub playout: PlayoutMetrics,
    /// Requests to the front.
    pub requests: Each<Answered>,
    /// Memory that the process holds, in bytes.
    resident: Gauge<u64, AtomicU64>,
    registry: Registry,
}

/// What becomes of events, by type.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    /// Taken into the queue.
    pub accepted: Each<Kind>,
    /// Accepted and dropped, as their type is not delivered.
    pub dropped: Each<Kind>,
    /// Answered with 2xx by the receiver.
    pub delivered: Each<Kind>,
    /// Failed attempts that are followed by another.
    pub retried: Each<Kind>,
    /// Given up.
    pub dead: Each<Kind>,
    /// Not taken.
    pub refused: Each<Refusal>,
    /// Taken again from the journal at the start.
    pub recovered: Counter,
    /// Dead letters taken again.
    pub replayed: Counter,
    /// Given again with an id that is known.
    pub repeated: Counter,
}

/// Requests to the receiver.
#[derive(Clone, Debug)]
pub struct AttemptMetrics {
    /// How long they took.
    pub seconds: Each<Attempted, Histogram>,
    /// Why they failed.
    pub failures: Each<FailureCode>,
    /// Under way; set when asked for.
    pub in_flight: Gauge,
    /// `WEBHOOK_CONCURRENCY`.
    pub limit: Gauge,
}

/// What callers are answered.
#[derive(Clone, Debug)]
pub struct RoutingMetrics {
    /// How long they waited.
    pub seconds: Histogram,
    /// With what outcome.
    pub answers: Each<Routed>,
    /// Decisions that came after the answer.
    pub late: Counter,
    /// Whether callers wait for decisions; set when asked for.
    pub works: Gauge,
}

/// What waits, and for what; set when asked for.
#[derive(Clone, Debug, Default)]
pub struct QueueMetrics {
    /// Events accepted and not yet settled.
    pub events: Gauge,
    /// `QUEUE_LIMIT`.
    pub limit: Gauge,
    /// How long the oldest of them waits, in seconds.
    pub oldest: Level,
    /// Whether the receiver answers.
    pub receiver_up: Gauge,
    /// Whether it asked to be left alone.
    pub receiver_paused: Gauge,
}

/// What is written.
#[derive(Clone, Debug)]
pub struct JournalMetrics {
    /// How long a transaction took, with its fsync.
    pub commit_seconds: Histogram,
    /// How many changes it wrote.
    pub batch_changes: Histogram,
    /// Transactions that failed.
    pub failures: Counter,
    /// Whether the last one did; set when asked for.
    pub failing: Gauge,
    /// Dead letters that are kept.
    pub dead: Gauge,
    /// `DEAD_LIMIT`.
    pub dead_limit: Gauge,
    /// Dead letters dropped because of it.
    pub dead_dropped: Counter,
}

/// Bridged calls.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    /// Live now.
    pub live: Gauge,
    /// Why they ended.
    pub ended: Each<Reason>,
    /// How long they were.
    pub seconds: Histogram,
    /// Frames of audio that callers sent.
    pub caller_frames: Counter,
    /// Of those, frames that the server was not sent.
    pub caller_frames_dropped: Counter,
    /// The agent's audio that found no room, in bytes.
    pub surplus_bytes: Counter,
    /// How long it took to connect to a server.
    pub connect_seconds: Histogram,
    /// Servers that could not be connected to.
    pub connect_failures: Counter,
}

/// What is played to callers.
#[derive(Clone, Debug, Default)]
pub struct PlayoutMetrics {
    /// Frames that were written.
    pub played: Counter,
    /// Frames that were not, as Asterisk does not read.
    pub unread: Counter,
    /// Ticks of the clock while something was to be played.
    pub ticks: Counter,
    /// Of those, ticks that were a frame late or more.
    pub late: Counter,
}

impl Metrics {
    /// All at zero, with those that the journal counts in.
    pub fn new(journal: JournalMetrics) -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            events: EventMetrics::default(),
            attempts: AttemptMetrics::default(),
            routing: RoutingMetrics::default(),
            queue: QueueMetrics::default(),
            journal,
            calls: CallMetrics::default(),
            playout: PlayoutMetrics::default(),
            requests: Each::default(),
            resident: Gauge::default(),
            registry: Registry::default(),
        };
        let own = registry.sub_registry_with_prefix("callhook");
        metrics.events.register(own);
        metrics.attempts.register(own);
        metrics.routing.register(own);
        metrics.queue.register(own);
        metrics.journal.register(own);
        metrics.calls.register(own);
        metrics.playout.register(own);
        let (name, help) = ("http_requests", "Requests to the front that were answered");
        own.register(name, help, metrics.requests.clone());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The version of callhook that runs; always 1", version);
        metrics.register_process(&mut registry);
        Self { registry, ..metrics }
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// None that is known: text can always be written to a string.
    pub fn exposed(&self) -> Result<String, fmt::Error> {
        self.resident.set(process::resident_bytes().unwrap_or_default());
        let mut text = String::with_capacity(32 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Under the names that every program's are found by.
    fn register_process(&self, to: &mut Registry) {
        let start = Level::default();
        start.set(unix_millis() as f64 / 1000.0);
        let help = "When the process started, in seconds since 1970";
        to.register_with_unit("process_start_time", help, Unit::Seconds, start);
        let help = "Memory that the process holds";
        to.register_with_unit("process_resident_memory", help, Unit::Bytes, self.resident.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(JournalMetrics::default())
    }
}

impl EventMetrics {
    fn register(&self, to: &mut Registry) {
        for (name, help, metric) in [
            ("events_accepted", "Events taken into the queue", &self.accepted),
            (
                "events_dropped",
                "Events accepted and dropped, as WEBHOOK_EVENTS lacks their type",
                &self.dropped,
            ),
            ("events_delivered", "Events that the receiver answered with 2xx", &self.delivered),
            ("events_retried", "Failed attempts that are followed by another", &self.retried),
            ("events_dead", "Events given up, each now a dead letter", &self.dead),
        ] {
            to.register(name, help, metric.clone());
        }
        let help = "Events that were not taken, or not kept because the disk failed";
        to.register("events_refused", help, self.refused.clone());
        let help = "Events that the last process left in the journal";
        to.register("events_recovered", help, self.recovered.clone());
        let help = "Dead letters that were sent again on request";
        to.register("events_replayed", help, self.replayed.clone());
        let help = "Events given again under an id of the last hour, and not taken twice";
        to.register("events_repeated", help, self.repeated.clone());
    }
}

impl AttemptMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Time of one request to the receiver, to the end of its answer";
        to.register_with_unit("attempt_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Requests to the receiver that failed, by the code in the log";
        to.register("attempt_failures", help, self.failures.clone());
        let help = "Requests to the receiver under way";
        to.register("attempts_in_flight", help, self.in_flight.clone());
        to.register("attempts_limit", "WEBHOOK_CONCURRENCY", self.limit.clone());
    }
}

impl Default for AttemptMetrics {
    fn default() -> Self {
        Self {
            seconds: Each::made_by(|| Histogram::new(ATTEMPT_SECONDS)),
            failures: Each::default(),
            in_flight: Gauge::default(),
            limit: Gauge::default(),
        }
    }
}

impl RoutingMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Time that a caller waited for a routing decision";
        to.register_with_unit("routing_decision", help, Unit::Seconds, self.seconds.clone());
        let help =
            "Answers to those who waited for a routing decision; all but decided mean STS_URL";
        to.register("routing_answers", help, self.answers.clone());
        let help = "Routing decisions that came after the caller was answered, and were ignored";
        to.register("routing_late", help, self.late.clone());
        let help = "1 while callers wait for decisions, 0 while the last WEBHOOK_BREAKER call_initiated failed";
        to.register("routing_works", help, self.works.clone());
    }
}

impl Default for RoutingMetrics {
    fn default() -> Self {
        Self {
            seconds: Histogram::new(DECISION_SECONDS),
            answers: Each::default(),
            late: Counter::default(),
            works: Gauge::default(),
        }
    }
}

impl QueueMetrics {
    fn register(&self, to: &mut Registry) {
        to.register("queue_events", "Events accepted and not yet settled", self.events.clone());
        to.register("queue_limit_events", "QUEUE_LIMIT", self.limit.clone());
        let help = "Age of the oldest event that is not yet settled, 0 if there is none";
        to.register_with_unit("queue_oldest", help, Unit::Seconds, self.oldest.clone());
        let help = "1 while the receiver answers, 0 while it counts as down; 1 where there is none";
        to.register("receiver_up", help, self.receiver_up.clone());
        let help = "1 while all events wait because the receiver sent Retry-After";
        to.register("receiver_paused", help, self.receiver_paused.clone());
    }
}

impl JournalMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Time of one transaction, with its fsync";
        to.register_with_unit("journal_commit", help, Unit::Seconds, self.commit_seconds.clone());
        let help = "Changes written in one transaction";
        to.register("journal_batch_changes", help, self.batch_changes.clone());
        let help = "Transactions that the disk refused";
        to.register("journal_failures", help, self.failures.clone());
        let help = "1 while the journal cannot be written and new events are refused";
        to.register("journal_failing", help, self.failing.clone());
        to.register("dead_letters", "Dead letters that are kept", self.dead.clone());
        to.register("dead_letters_limit", "DEAD_LIMIT", self.dead_limit.clone());
        let help = "Dead letters that had to go because there were more than DEAD_LIMIT";
        to.register("dead_letters_dropped", help, self.dead_dropped.clone());
    }
}

impl Default for JournalMetrics {
    fn default() -> Self {
        Self {
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            batch_changes: Histogram::new(BATCH_CHANGES),
            failures: Counter::default(),
            failing: Gauge::default(),
            dead: Gauge::default(),
            dead_limit: Gauge::default(),
            dead_dropped: Counter::default(),
        }
    }
}

impl CallMetrics {
    fn register(&self, to: &mut Registry) {
        to.register("calls_live", "Calls that are bridged now", self.live.clone());
        to.register("calls_ended", "Calls that ended, by reason", self.ended.clone());
        let help = "Time from a call's first frame to its end";
        to.register_with_unit("call_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Frames of audio that callers sent";
        to.register("caller_frames", help, self.caller_frames.clone());
        let help = "Caller's frames that the STS server was not sent: not connected in time, or not reading";
        to.register("caller_frames_dropped", help, self.caller_frames_dropped.clone());
        let help = "Audio of the STS server that found no room, being 30 s ahead of what is played";
        let (name, metric) = ("agent_audio_dropped", self.surplus_bytes.clone());
        to.register_with_unit(name, help, Unit::Bytes, metric);
        let help = "Time until an STS server was connected";
        to.register_with_unit("sts_connect", help, Unit::Seconds, self.connect_seconds.clone());
        let help = "STS servers that could not be connected to within 5 s";
        to.register("sts_connect_failures", help, self.connect_failures.clone());
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            live: Gauge::default(),
            ended: Each::default(),
            seconds: Histogram::new(CALL_SECONDS),
            caller_frames: Counter::default(),
            caller_frames_dropped: Counter::default(),
            surplus_bytes: Counter::default(),
            connect_seconds: Histogram::new(CONNECT_SECONDS),
            connect_failures: Counter::default(),
        }
    }
}

impl PlayoutMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Frames of 20 ms that were played to callers";
        to.register("agent_frames_played", help, self.played.clone());
        let help = "Frames that were not played, because Asterisk does not read";
        to.register("agent_frames_unread", help, self.unread.clone());
        let help = "Ticks of the clock of 20 ms, which runs while anything is to be played";
        to.register("playout_ticks", help, self.ticks.clone());
        let help = "Ticks that came 20 ms late or later";
        to.register("playout_late_ticks", help, self.late.clone());
    }
}
