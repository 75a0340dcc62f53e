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
use crate::label::{ByReceiver, Each, Label};
use crate::receiver::{ReceiverId, Receivers};
use crate::routing::NoDecision;

/// From a receiver on the same host to the longest `WEBHOOK_TIMEOUT` in use.
const ATTEMPT_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Up to `ROUTING_TIMEOUT`'s default; a caller takes a few seconds of silence for a dead line.
const DECISION_SECONDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0];

#[derive(Debug)]
pub struct QueueMetrics {
    pub events: EventMetrics,
    pub routing: RoutingMetrics,
    /// `QUEUE_LIMIT` and `WEBHOOK_CONCURRENCY`, which hold for each receiver.
    pub queue_limit: Gauge,
    pub attempts_limit: Gauge,
    receivers: Vec<ReceiverMetrics>,
}

/// What is counted once, however many receivers there are. The help texts below say what each one is.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    pub accepted: Each<TypeLabel>,
    pub dropped: Each<TypeLabel>,
    pub refused: Each<RefusalReason>,
    pub repeated: Counter,
}

/// What is counted for each receiver.
#[derive(Debug)]
pub struct ReceiverMetrics {
    pub delivered: Each<TypeLabel>,
    pub retried: Each<TypeLabel>,
    pub dead: Each<TypeLabel>,
    pub missed: Counter,
    pub recovered: Counter,
    pub replayed: Counter,
    pub attempt_seconds: Each<AttemptResult, Histogram>,
    pub failures: Each<FailureCode>,
    pub in_flight: Gauge,
    pub waiting: Gauge,
    /// In seconds.
    pub oldest: Gauge<f64, AtomicU64>,
    pub up: Gauge,
    pub paused: Gauge,
}

#[derive(Clone, Debug)]
pub struct RoutingMetrics {
    pub seconds: Histogram,
    pub answers: Each<RoutingAnswer>,
    pub late: Counter,
    pub works: Gauge,
}

/// Those of the main receiver alone.
impl Default for QueueMetrics {
    fn default() -> Self {
        Self::of_receivers(1)
    }
}

impl QueueMetrics {
    /// For that many receivers.
    pub fn of_receivers(count: usize) -> Self {
        Self {
            events: EventMetrics::default(),
            routing: RoutingMetrics::default(),
            queue_limit: Gauge::default(),
            attempts_limit: Gauge::default(),
            receivers: (0..count).map(|_| ReceiverMetrics::default()).collect(),
        }
    }

    pub fn of(&self, receiver: ReceiverId) -> &ReceiverMetrics {
        &self.receivers[receiver.index()]
    }

    pub fn receivers(&self) -> &[ReceiverMetrics] {
        &self.receivers
    }

    /// With the names of its receivers.
    pub fn register(&self, names: &Receivers, to: &mut Registry) {
        self.events.register(to);
        self.routing.register(to);
        to.register(
            "queue_limit_events",
            "QUEUE_LIMIT, for each receiver",
            self.queue_limit.clone(),
        );
        let help = "WEBHOOK_CONCURRENCY, for each receiver";
        to.register("attempts_limit", help, self.attempts_limit.clone());
        self.register_events(names, to);
        self.register_attempts(names, to);
        self.register_waiting(names, to);
    }

    fn register_events(&self, names: &Receivers, to: &mut Registry) {
        let help = "Events that the receiver answered with 2xx";
        to.register("events_delivered", help, self.each(names, |of| &of.delivered));
        let help = "Failed attempts that are followed by another";
        to.register("events_retried", help, self.each(names, |of| &of.retried));
        let help = "Events given up, each now a dead letter";
        to.register("events_dead", help, self.each(names, |of| &of.dead));
        let help =
            "Events that the receiver does not get, as there was no room while the disk failed";
        to.register("events_missed", help, self.each(names, |of| &of.missed));
        let help = "Events that the last process left in the journal";
        to.register("events_recovered", help, self.each(names, |of| &of.recovered));
        let help = "Dead letters that were sent again on request";
        to.register("events_replayed", help, self.each(names, |of| &of.replayed));
    }

    fn register_attempts(&self, names: &Receivers, to: &mut Registry) {
        let help = "Time of one request to the receiver, to the end of its answer";
        let seconds = self.each(names, |of| &of.attempt_seconds);
        to.register_with_unit("attempt_duration", help, Unit::Seconds, seconds);
        let help = "Requests to the receiver that failed, by the code in the log";
        to.register("attempt_failures", help, self.each(names, |of| &of.failures));
        let help = "Requests to the receiver in flight";
        to.register("attempts_in_flight", help, self.each(names, |of| &of.in_flight));
    }

    fn register_waiting(&self, names: &Receivers, to: &mut Registry) {
        let help = "Events accepted and not yet settled";
        to.register("queue_events", help, self.each(names, |of| &of.waiting));
        let help = "Age of the oldest event that is not yet settled, 0 if there is none";
        let oldest = self.each(names, |of| &of.oldest);
        to.register_with_unit("queue_oldest", help, Unit::Seconds, oldest);
        let help = "1 while the receiver answers, 0 while it counts as down; 1 where there is none";
        to.register("receiver_up", help, self.each(names, |of| &of.up));
        let help = "1 while all its events wait because the receiver sent Retry-After";
        to.register("receiver_paused", help, self.each(names, |of| &of.paused));
    }

    fn each<M: Clone>(
        &self,
        names: &Receivers,
        of: impl Fn(&ReceiverMetrics) -> &M,
    ) -> ByReceiver<M> {
        let each = names.iter().zip(&self.receivers);
        ByReceiver::new(each.map(|((_, name), metrics)| (name.to_string(), of(metrics).clone())))
    }
}

impl EventMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Events taken into the queue, each once, however many receivers get it";
        to.register("events_accepted", help, self.accepted.clone());
        let help = "Events accepted and dropped, as no receiver takes their type";
        to.register("events_dropped", help, self.dropped.clone());
        let help = "Events that were not taken, or not kept because the disk failed";
        to.register("events_refused", help, self.refused.clone());
        let help = "Events sent again, under an id of the last hour or as the same body within a minute, and accepted only once";
        to.register("events_repeated", help, self.repeated.clone());
    }
}

impl Default for ReceiverMetrics {
    fn default() -> Self {
        Self {
            delivered: Each::default(),
            retried: Each::default(),
            dead: Each::default(),
            missed: Counter::default(),
            recovered: Counter::default(),
            replayed: Counter::default(),
            attempt_seconds: Each::made_by(|| Histogram::new(ATTEMPT_SECONDS)),
            failures: Each::default(),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            oldest: Gauge::default(),
            up: Gauge::default(),
            paused: Gauge::default(),
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
