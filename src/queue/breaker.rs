//! Breaker: is anybody there?
//!
//! Judges by the outcomes of attempts whether the receiver is down ([`Breaker`]), and whether its routing is
//! broken ([`RoutingBreaker`]). Neither sees a clock; time is an argument.
//!
//! Invariants:
//! - While the receiver is down, one probe at a time is sent, with growing delays in between.
//! - Any answer, to whichever attempt, means that the receiver is up again.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Delays;

const PROBE_DELAYS: Delays = Delays::fixed(Duration::from_secs(1), Duration::from_secs(30));

/// Finds the receiver down after `limit` consecutive attempts without an answer; 0 = never.
#[derive(Debug)]
pub struct Breaker {
    limit: u32,
    state: BreakerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// `unanswered` counts consecutive attempts.
    Up { unanswered: u32 },
    /// The next probe is due at `probe_at`, after `probes` failed ones.
    Down { probe_at: Instant, probes: u32 },
    /// A probe is in flight, after `probes` failed ones.
    Probing { probes: u32 },
}

/// What an attempt tells about the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerSign {
    /// With any answer but 502, 503 and 504.
    Answered,
    /// No answer to a regular attempt.
    NobodyThere,
    /// No answer to a probe.
    ProbeFailed,
    ProbeSent,
}

/// A change that operators want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverChange {
    WentDown,
    CameBack,
    /// `failed` counts consecutive `call_initiated`.
    RoutingBroke {
        failed: u32,
    },
    RoutingWorks,
    /// The receiver sent `Retry-After`.
    Paused {
        wait: Duration,
    },
}

impl Breaker {
    pub fn new(limit: u32) -> Self {
        let state = BreakerState::Up { unanswered: 0 };
        Self { limit, state }
    }

    /// Whether events wait for a probe to be answered.
    pub fn is_down(&self) -> bool {
        !matches!(self.state, BreakerState::Up { .. })
    }

    pub fn state(&self) -> BreakerState {
        self.state
    }

    pub fn note(&mut self, sign: BreakerSign, now: Instant) -> Option<ReceiverChange> {
        let was_down = self.is_down();
        self.state = step(self.state, sign, self.limit, now);
        match (was_down, self.is_down()) {
            (false, true) => Some(ReceiverChange::WentDown),
            (true, false) => Some(ReceiverChange::CameBack),
            (true, true) | (false, false) => None,
        }
    }
}

fn step(state: BreakerState, sign: BreakerSign, limit: u32, now: Instant) -> BreakerState {
    let down = |probes| BreakerState::Down { probe_at: now + PROBE_DELAYS.nth(probes), probes };
    match (state, sign) {
        (
            BreakerState::Up { .. } | BreakerState::Down { .. } | BreakerState::Probing { .. },
            BreakerSign::Answered,
        ) => BreakerState::Up { unanswered: 0 },
        // A probe that fails after another attempt was answered counts like any attempt.
        (BreakerState::Up { unanswered }, BreakerSign::NobodyThere | BreakerSign::ProbeFailed) => {
            match unanswered.saturating_add(1) {
                enough if limit > 0 && enough >= limit => down(0),
                unanswered => BreakerState::Up { unanswered },
            }
        }
        // Attempts that were in flight when the receiver went down tell nothing new.
        (BreakerState::Down { .. } | BreakerState::Probing { .. }, BreakerSign::NobodyThere) => {
            state
        }
        // Nor does a probe that was sent before the receiver came back and went down again.
        (BreakerState::Down { .. }, BreakerSign::ProbeFailed) => state,
        (BreakerState::Probing { probes }, BreakerSign::ProbeFailed) => {
            down(probes.saturating_add(1))
        }
        (
            BreakerState::Down { probes, .. } | BreakerState::Probing { probes },
            BreakerSign::ProbeSent,
        ) => BreakerState::Probing { probes },
        (BreakerState::Up { .. }, BreakerSign::ProbeSent) => state,
    }
}

/// Opens after `limit` consecutive `call_initiated` failed, so that callers do not wait for a decision. One
/// that is delivered closes it.
#[derive(Debug)]
pub struct RoutingBreaker {
    limit: u32,
    failed: u32,
}

impl RoutingBreaker {
    /// `limit` 0 = never open.
    pub fn new(limit: u32) -> Self {
        Self { limit, failed: 0 }
    }

    pub fn is_open(&self) -> bool {
        self.limit > 0 && self.failed >= self.limit
    }

    /// A `call_initiated` was delivered. Returns whether this closed the breaker.
    pub fn note_success(&mut self) -> bool {
        let was_open = self.is_open();
        self.failed = 0;
        was_open
    }

    /// The first attempt at a `call_initiated` failed; its retries do not count. Returns whether this opened the
    /// breaker.
    pub fn note_failure(&mut self) -> bool {
        let was_open = self.is_open();
        self.failed = self.failed.saturating_add(1);
        self.is_open() && !was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 2;

    #[test]
    fn every_sign_in_every_state_leads_where_the_table_says() {
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let up = |unanswered| BreakerState::Up { unanswered };
        let down = |secs, probes| BreakerState::Down { probe_at: at(secs), probes };
        let probing = |probes| BreakerState::Probing { probes };
        let table = [
            (up(0), BreakerSign::Answered, up(0)),
            (up(0), BreakerSign::NobodyThere, up(1)),
            (up(0), BreakerSign::ProbeFailed, up(1)),
            (up(0), BreakerSign::ProbeSent, up(0)),
            (up(1), BreakerSign::Answered, up(0)),
            (up(1), BreakerSign::NobodyThere, down(1, 0)),
            (up(1), BreakerSign::ProbeFailed, down(1, 0)),
            (down(7, 3), BreakerSign::Answered, up(0)),
            (down(7, 3), BreakerSign::NobodyThere, down(7, 3)),
            (down(7, 3), BreakerSign::ProbeFailed, down(7, 3)),
            (down(7, 3), BreakerSign::ProbeSent, probing(3)),
            (probing(0), BreakerSign::Answered, up(0)),
            (probing(0), BreakerSign::NobodyThere, probing(0)),
            (probing(0), BreakerSign::ProbeFailed, down(2, 1)),
            (probing(9), BreakerSign::ProbeFailed, down(30, 10)),
            (probing(3), BreakerSign::ProbeSent, probing(3)),
        ];
        for (state, sign, expected) in table {
            assert_eq!(step(state, sign, LIMIT, now), expected, "{state:?} {sign:?}");
        }
    }

    #[test]
    fn probes_grow_from_one_second_to_thirty() {
        let delays: Vec<u64> = (0..7).map(|probes| PROBE_DELAYS.nth(probes).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_limit_of_zero_never_takes_the_receiver_for_down() {
        let mut breaker = Breaker::new(0);
        let mut routing = RoutingBreaker::new(0);
        for _ in 0..1000 {
            assert_eq!(breaker.note(BreakerSign::NobodyThere, Instant::now()), None);
            routing.note_failure();
        }
        assert!(!breaker.is_down());
        assert!(!routing.is_open());
    }

    #[test]
    fn each_change_is_told_once() {
        let mut breaker = Breaker::new(2);
        let now = Instant::now();
        let told: Vec<_> = [
            BreakerSign::NobodyThere,
            BreakerSign::NobodyThere,
            BreakerSign::NobodyThere,
            BreakerSign::ProbeSent,
            BreakerSign::ProbeFailed,
            BreakerSign::ProbeSent,
            BreakerSign::Answered,
            BreakerSign::Answered,
        ]
        .map(|sign| breaker.note(sign, now))
        .into_iter()
        .collect();
        let (down, back) = (Some(ReceiverChange::WentDown), Some(ReceiverChange::CameBack));
        assert_eq!(told, [None, down, None, None, None, None, back, None]);
    }

    #[test]
    fn the_routing_breaker_opens_after_errors_in_a_row_and_closes_with_one_success() {
        let mut routing = RoutingBreaker::new(2);
        routing.note_failure();
        routing.note_success();
        routing.note_failure();
        assert!(!routing.is_open());
        routing.note_failure();
        assert!(routing.is_open());
        routing.note_success();
        assert!(!routing.is_open());
    }
}
