//! Breaker: is anybody there?
//!
//! Two answers, from what attempts brought: whether the receiver is down ([`Breaker`]), and
//! whether its routing is broken ([`RoutingGuard`]). Neither sees a clock; time is an argument.
//!
//! Invariants:
//! - While the receiver is down, one probe at a time goes out, with growing delay between them.
//! - Any answer, from whichever attempt, means that somebody is there again.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Delays;

/// Between two probes of a receiver that is down.
const PROBE_DELAYS: Delays = Delays::fixed(Duration::from_secs(1), Duration::from_secs(30));

/// Whether the receiver is there, after `limit` attempts in a row without an answer (0 = always).
#[derive(Debug)]
pub struct Breaker {
    limit: u32,
    state: State,
}

/// What is known of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers; so many attempts in a row did not.
    Up { unanswered: u32 },
    /// It does not answer; the next probe is due then, after so many in vain.
    Down { probe_at: Instant, probes: u32 },
    /// A probe is on its way, after so many in vain.
    Probing { probes: u32 },
}

/// What happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Something answered, be it a 500.
    Answered,
    /// A regular attempt found nobody.
    NobodyThere,
    /// The probe found nobody.
    ProbeInVain,
    /// The probe goes out.
    ProbeSent,
}

/// A change that operators want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The receiver has just been found down.
    WentDown,
    /// It answers again.
    CameBack,
    /// So many `call_initiated` in a row failed.
    RoutingBroke {
        /// How many.
        failed: u32,
    },
    /// A `call_initiated` was delivered again.
    RoutingWorks,
    /// It asked to be left alone.
    Paused {
        /// For how long.
        wait: Duration,
    },
}

impl Breaker {
    /// A receiver that is thought to be up; `limit` 0 never doubts it.
    pub fn new(limit: u32) -> Self {
        let state = State::Up { unanswered: 0 };
        Self { limit, state }
    }

    /// Whether events wait.
    pub fn is_down(&self) -> bool {
        !matches!(self.state, State::Up { .. })
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes note of what happened.
    pub fn note(&mut self, sign: Sign, now: Instant) -> Option<Change> {
        let was_down = self.is_down();
        self.state = step(self.state, sign, self.limit, now);
        match (was_down, self.is_down()) {
            (false, true) => Some(Change::WentDown),
            (true, false) => Some(Change::CameBack),
            (true, true) | (false, false) => None,
        }
    }
}

fn step(state: State, sign: Sign, limit: u32, now: Instant) -> State {
    let down = |probes| State::Down { probe_at: now + PROBE_DELAYS.nth(probes), probes };
    match (state, sign) {
        (State::Up { .. } | State::Down { .. } | State::Probing { .. }, Sign::Answered) => {
            State::Up { unanswered: 0 }
        }
        // A probe that fails after another attempt was answered counts as any attempt.
        (State::Up { unanswered }, Sign::NobodyThere | Sign::ProbeInVain) => {
            match unanswered.saturating_add(1) {
                enough if limit > 0 && enough >= limit => down(0),
                unanswered => State::Up { unanswered },
            }
        }
        // Attempts that were on their way when the receiver went down tell nothing new.
        (State::Down { .. } | State::Probing { .. }, Sign::NobodyThere) => state,
        // The same for a probe that was overtaken by an answer and another outage.
        (State::Down { .. }, Sign::ProbeInVain) => state,
        (State::Probing { probes }, Sign::ProbeInVain) => down(probes.saturating_add(1)),
        (State::Down { probes, .. } | State::Probing { probes }, Sign::ProbeSent) => {
            State::Probing { probes }
        }
        (State::Up { .. }, Sign::ProbeSent) => state,
    }
}

/// Whether asking the receiver for a route is of use: not while the last `limit` `call_initiated`
/// in a row brought an error. One success opens it again.
#[derive(Debug)]
pub struct RoutingGuard {
    limit: u32,
    failed: u32,
}

impl RoutingGuard {
    /// Open; `limit` 0 never closes it.
    pub fn new(limit: u32) -> Self {
        Self { limit, failed: 0 }
    }

    /// Whether calls are answered without waiting for the receiver.
    pub fn is_closed(&self) -> bool {
        self.limit > 0 && self.failed >= self.limit
    }

    /// A `call_initiated` was delivered; whether that opens it.
    pub fn note_success(&mut self) -> bool {
        let was_closed = self.is_closed();
        self.failed = 0;
        was_closed
    }

    /// A `call_initiated` failed for the first time; its retries count no further. Whether that
    /// closes it.
    pub fn note_failure(&mut self) -> bool {
        let was_closed = self.is_closed();
        self.failed = self.failed.saturating_add(1);
        self.is_closed() && !was_closed
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
        let up = |unanswered| State::Up { unanswered };
        let down = |secs, probes| State::Down { probe_at: at(secs), probes };
        let probing = |probes| State::Probing { probes };
        let table = [
            (up(0), Sign::Answered, up(0)),
            (up(0), Sign::NobodyThere, up(1)),
            (up(0), Sign::ProbeInVain, up(1)),
            (up(0), Sign::ProbeSent, up(0)),
            (up(1), Sign::Answered, up(0)),
            (up(1), Sign::NobodyThere, down(1, 0)),
            (up(1), Sign::ProbeInVain, down(1, 0)),
            (down(7, 3), Sign::Answered, up(0)),
            (down(7, 3), Sign::NobodyThere, down(7, 3)),
            (down(7, 3), Sign::ProbeInVain, down(7, 3)),
            (down(7, 3), Sign::ProbeSent, probing(3)),
            (probing(0), Sign::Answered, up(0)),
            (probing(0), Sign::NobodyThere, probing(0)),
            (probing(0), Sign::ProbeInVain, down(2, 1)),
            (probing(9), Sign::ProbeInVain, down(30, 10)),
            (probing(3), Sign::ProbeSent, probing(3)),
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
        let mut guard = RoutingGuard::new(0);
        for _ in 0..1000 {
            assert_eq!(breaker.note(Sign::NobodyThere, Instant::now()), None);
            guard.note_failure();
        }
        assert!(!breaker.is_down());
        assert!(!guard.is_closed());
    }

    #[test]
    fn each_change_is_told_once() {
        let mut breaker = Breaker::new(2);
        let now = Instant::now();
        let told: Vec<_> = [
            Sign::NobodyThere,
            Sign::NobodyThere,
            Sign::NobodyThere,
            Sign::ProbeSent,
            Sign::ProbeInVain,
            Sign::ProbeSent,
            Sign::Answered,
            Sign::Answered,
        ]
        .map(|sign| breaker.note(sign, now))
        .into_iter()
        .collect();
        let (down, back) = (Some(Change::WentDown), Some(Change::CameBack));
        assert_eq!(told, [None, down, None, None, None, None, back, None]);
    }

    #[test]
    fn the_guard_closes_after_errors_in_a_row_and_opens_with_one_success() {
        let mut guard = RoutingGuard::new(2);
        guard.note_failure();
        guard.note_success();
        guard.note_failure();
        assert!(!guard.is_closed());
        guard.note_failure();
        assert!(guard.is_closed());
        guard.note_success();
        assert!(!guard.is_closed());
    }
}
