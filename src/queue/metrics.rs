//! What the queue counts and measures.
//!
//! Gauges of a state (depth, age, up or down) are set when metrics are exposed, by the inspector.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strum::VariantArray as _;

use crate::attempt::FailureCode;
use crate::event::EventType;
use crate::label::{Each, Label};
use crate::routing::NoDecision;

/// From a receiver on the same host to the longest `WEBHOOK_TIMEOUT` in use.
const ATTEMPT_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Up to `ROUTING_TIMEOUT`'s default; a caller takes a few seconds of silence for a dead line.
const DECISION_SECONDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0];

#[derive(Debug, Default)]
pub struct QueueMetrics {
    pub events: EventMetrics,
    pub attempts: AttemptMetrics,
    pub routing: RoutingMetrics,
    pub waiting: WaitingMetrics,
}

/// The help texts below say what each one is.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    pub accepted: Each<TypeLabel>,
    pub dropped: Each<TypeLabel>,
    pub delivered: Each<TypeLabel>,
    pub retried: Each<TypeLabel>,
    pub dead: Each<TypeLabel>,
    pub refused: Each<RefusalReason>,
    pub recovered: Counter,
    pub replayed: Counter,
    pub repeated: Counter,
}

#[derive(Clone, Debug)]
pub struct AttemptMetrics {
    pub seconds: Each<AttemptResult, Histogram>,
    pub failures: Each<FailureCode>,
    pub in_flight: Gauge,
    pub limit: Gauge,
}

#[derive(Clone, Debug)]
pub struct RoutingMetrics {
    pub seconds: Histogram,
    pub answers: Each<RoutingAnswer>,
    pub late: Counter,
    pub works: Gauge,
}

#[derive(Clone, Debug, Default)]
pub struct WaitingMetrics {
    pub events: Gauge,
    pub limit: Gauge,
    /// In seconds.
    pub oldest: Gauge<f64, AtomicU64>,
    pub receiver_up: Gauge,
    pub receiver_paused: Gauge,
}

impl QueueMetrics {
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
        let help = "Events sent again, under an id of the last hour or as the same body within a minute, and accepted only once";
        to.register("events_repeated", help, self.repeated.clone());
    }
}

impl AttemptMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Time of one request to the receiver, to the end of its answer";
        to.register_with_unit("attempt_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Requests to the receiver that failed, by the code in the log";
        to.register("attempt_failures", help, self.failures.clone());
        let help = "Requests to the receiver in flight";
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
            "Answers to callers who waited for a routing decision; all but decided mean STS_URL";
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

/// An event's type; `None` stands for all types that callhook does not know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeLabel(Option<&'static EventType>);

impl From<&EventType> for TypeLabel {
    fn from(kind: &EventType) -> Self {
        Self(EventType::KNOWN.iter().find(|known| *known == kind))
    }
}

impl Label for TypeLabel {
    fn all() -> Vec<Self> {
        EventType::KNOWN.iter().map(Some).chain([None]).map(Self).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("type", self.0.map_or("other", EventType::name))]
    }
}

/// Why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RefusalReason {
    /// `QUEUE_LIMIT` is reached, or would be exceeded.
    Full,
    /// The journal cannot be written.
    Disk,
    Stopping,
    /// An id was given before, to another event.
    KeyReused,
    /// Too many events of one bridged call wait for the journal.
    Backlog,
}

impl Label for RefusalReason {
    fn all() -> Vec<Self> {
        Self::VARIANTS.to_vec()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.into())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum AttemptResult {
    /// Any 2xx.
    Delivered,
    Failed,
}

impl Label for AttemptResult {
    fn all() -> Vec<Self> {
        Self::VARIANTS.to_vec()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("outcome", self.into())]
    }
}

/// What a waiting caller got: `None` is a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingAnswer(pub Option<NoDecision>);

impl Label for RoutingAnswer {
    fn all() -> Vec<Self> {
        let without = NoDecision::VARIANTS.iter().copied().map(Some);
        [None].into_iter().chain(without).map(Self).collect()
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
