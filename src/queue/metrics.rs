//! What the queue counts and measures. States (depth, age, up or down) are gauges, set when they are
//! asked for.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::attempt::FailureCode;
use crate::event::EventType;
use crate::label::{Each, Label};
use crate::routing::NoDecision;

/// An attempt: from a receiver next door to the longest `WEBHOOK_TIMEOUT` that people set.
const ATTEMPT_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A decision: around `ROUTING_TIMEOUT` of 5 s, and what a caller takes for a dead line.
const DECISION_SECONDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0];

/// All that the queue counts and measures.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// What becomes of events.
    pub events: EventMetrics,
    /// Requests to the receiver.
    pub attempts: AttemptMetrics,
    /// What callers are answered.
    pub routing: RoutingMetrics,
    /// What waits, and for what.
    pub waiting: WaitingMetrics,
}

/// What becomes of events, by type.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    /// Taken into the queue.
    pub accepted: Each<TypeLabel>,
    /// Accepted and dropped, as their type is not delivered.
    pub dropped: Each<TypeLabel>,
    /// Answered with 2xx by the receiver.
    pub delivered: Each<TypeLabel>,
    /// Failed attempts that are followed by another.
    pub retried: Each<TypeLabel>,
    /// Given up.
    pub dead: Each<TypeLabel>,
    /// Not taken.
    pub refused: Each<RefusalReason>,
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
    pub seconds: Each<AttemptResult, Histogram>,
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
    pub answers: Each<RoutingAnswer>,
    /// Decisions that came after the answer.
    pub late: Counter,
    /// Whether callers wait for decisions; set when asked for.
    pub works: Gauge,
}

/// What waits, and for what; set when asked for.
#[derive(Clone, Debug, Default)]
pub struct WaitingMetrics {
    /// Events accepted and not yet settled.
    pub events: Gauge,
    /// `QUEUE_LIMIT`.
    pub limit: Gauge,
    /// How long the oldest of them waits, in seconds.
    pub oldest: Gauge<f64, AtomicU64>,
    /// Whether the receiver answers.
    pub receiver_up: Gauge,
    /// Whether it asked to be left alone.
    pub receiver_paused: Gauge,
}

impl QueueMetrics {
    /// Registers all of them.
    pub fn register(&self, to: &mut Registry) {
        self.events.register(to);
        self.attempts.register(to);
        self.routing.register(to);
        self.waiting.register(to);
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

impl WaitingMetrics {
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

/// An event's type; all that callhook does not know by name are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeLabel(usize);

impl From<&EventType> for TypeLabel {
    fn from(kind: &EventType) -> Self {
        let known = EventType::KNOWN.iter().position(|known| known == kind);
        Self(known.unwrap_or(EventType::KNOWN.len()))
    }
}

impl Label for TypeLabel {
    fn all() -> Vec<Self> {
        (0..=EventType::KNOWN.len()).map(Self).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        const KNOWN: [EventType; 7] = EventType::KNOWN;
        vec![("type", KNOWN.get(self.0).map_or("other", |kind| kind.name()))]
    }
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// `QUEUE_LIMIT` is reached, or would be.
    Full,
    /// The journal cannot be written.
    Disk,
    /// callhook is stopping.
    Stopping,
    /// Too many events of one bridged call wait for the journal.
    Backlog,
}

impl Label for RefusalReason {
    fn all() -> Vec<Self> {
        vec![Self::Full, Self::Disk, Self::Stopping, Self::Backlog]
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        let reason = match self {
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Stopping => "stopping",
            Self::Backlog => "backlog",
        };
        vec![("reason", reason)]
    }
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// A 2xx came back.
    Delivered,
    /// Anything else.
    Failed,
}

impl Label for AttemptResult {
    fn all() -> Vec<Self> {
        vec![Self::Delivered, Self::Failed]
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        let outcome = match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        };
        vec![("outcome", outcome)]
    }
}

/// What somebody who waited for a decision was answered: a decision, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingAnswer(pub Option<NoDecision>);

impl Label for RoutingAnswer {
    fn all() -> Vec<Self> {
        let without = NoDecision::ALL.into_iter().map(Some);
        std::iter::once(None).chain(without).map(Self).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("outcome", self.0.map_or("decided", NoDecision::name))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_not_known_is_one_value() {
        let shown = |kind: EventType| TypeLabel::from(&kind).pairs();
        assert_eq!(shown(EventType::DtmfDigit), [("type", "dtmf_digit")]);
        assert_eq!(shown(EventType::Error), [("type", "error")]);
        for name in ["tool", "other", "call_id_4711"] {
            assert_eq!(shown(name.parse().unwrap()), [("type", "other")]);
        }
        assert_eq!(TypeLabel::all().len(), 8);
    }
}
