//! Status: a snapshot of the queue and its receiver, for metrics and the inspector.

use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverStatus {
    /// `unanswered` counts consecutive attempts.
    Up { unanswered: u32 },
    Down {
        /// When the next probe is due; `None` while one is in flight.
        probe_at: Option<Instant>,
        /// Failed ones.
        probes: u32,
    },
    /// The receiver sent `Retry-After`.
    Paused { until: Instant },
}

#[derive(Clone, Copy, Debug)]
pub struct QueueStatus {
    pub receiver: ReceiverStatus,
    /// Callers are not kept waiting, as too many consecutive `call_initiated` failed.
    pub routing_broken: bool,
    /// Accepted, and neither delivered nor given up.
    pub unsettled: usize,
    /// Among `unsettled`.
    pub in_flight: usize,
    /// When the oldest unsettled event was accepted.
    pub oldest_since: Option<Instant>,
}
