//! Status: how the receiver and the queue stand, for those who look.

use tokio::time::Instant;

use super::{Dispatcher, State};

/// Whether the receiver takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It does; so many attempts in a row found nobody.
    Up {
        /// How many.
        unanswered: u32,
    },
    /// Nobody is there.
    Down {
        /// When the next probe is due; `None` while one is on its way.
        probe_at: Option<Instant>,
        /// Probes in vain.
        probes: u32,
    },
    /// It asked to be left alone until then.
    Paused {
        /// Until when.
        until: Instant,
    },
}

/// How the receiver and the queue stand.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Whether the receiver takes events.
    pub receiver: Availability,
    /// Whether so many `call_initiated` in a row failed that callers are not kept waiting.
    pub routing_broken: bool,
    /// Events accepted and not yet settled.
    pub unsettled: usize,
    /// Those on their way.
    pub in_flight: usize,
    /// Since when the oldest event that is not settled waits.
    pub oldest_since: Option<Instant>,
}

impl Dispatcher {
    /// How things stand.
    pub fn status(&self, now: Instant) -> Status {
        let paused = self.paused_until.filter(|until| *until > now);
        let receiver = match (self.breaker.state(), paused) {
            (State::Down { probe_at, probes }, paused) => {
                let probe_at = Some(paused.map_or(probe_at, |until| until.max(probe_at)));
                Availability::Down { probe_at, probes }
            }
            (State::Probing { probes }, _) => Availability::Down { probe_at: None, probes },
            (State::Up { .. }, Some(until)) => Availability::Paused { until },
            (State::Up { unanswered }, None) => Availability::Up { unanswered },
        };
        Status {
            receiver,
            routing_broken: self.guard.is_closed(),
            unsettled: self.unsettled,
            in_flight: self.in_flight,
            oldest_since: self.ages.oldest(),
        }
    }
}
