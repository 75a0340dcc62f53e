//! Status: how the receiver and the queue stand, for those who look.

use tokio::time::Instant;

/// Whether the receiver takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverStatus {
    /// It does; so many attempts in a row found nobody.
    Up { unanswered: u32 },
    /// Nobody is there.
    Down {
        /// When the next probe is due; `None` while one is on its way.
        probe_at: Option<Instant>,
        /// Those in vain.
        probes: u32,
    },
    /// It asked to be left alone until then.
    Paused { until: Instant },
}

/// How the receiver and the queue stand.
#[derive(Clone, Copy, Debug)]
pub struct QueueStatus {
    pub receiver: ReceiverStatus,
    /// Whether so many `call_initiated` in a row failed that callers are not kept waiting.
    pub routing_broken: bool,
    /// Events accepted and not yet settled.
    pub unsettled: usize,
    /// Those on their way.
    pub in_flight: usize,
    /// Since when the oldest event that is not settled waits.
    pub oldest_since: Option<Instant>,
}
