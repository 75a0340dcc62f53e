//! Reach: is the receiver there, and how long does it take?
//!
//! A state machine that sees no clock: what attempts brought comes in as a [`ReachSign`], with the time.
//!
//! Invariants:
//! - While the receiver is down, or was asked to be left alone, or nobody has heard of it since the start,
//!   events wait, and one at a time goes first, as a probe.
//! - Any answer, from whichever attempt, means that a receiver that was down is there again. Only the
//!   answer to a probe ends a pause.
//! - A receiver that is slow is not down: a probe waits for longer each time, and what it finds is the time
//!   that every attempt gets then.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Delays;

/// Between two probes of a receiver that is down.
const PROBE_DELAYS: Delays = Delays::fixed(Duration::from_secs(1), Duration::from_secs(30));

/// The longest that a probe, or an attempt at a slow receiver, waits for its answer, unless
/// `WEBHOOK_TIMEOUT` is longer.
const MOST_PATIENCE: Duration = Duration::from_secs(30);

/// How many answers in a row must be in time before a receiver is no longer slow.
const IN_TIME: u32 = 10;

/// Whether the receiver is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachState {
    /// It answers; so many attempts in a row did not.
    Up { unanswered: u32 },
    /// Events wait; one goes first at that time, after so many probes in vain.
    Waiting { at: Instant, cause: Cause, failed: u32 },
    /// That one is on its way.
    Probing { cause: Cause, failed: u32 },
}

/// Why events wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Events waited when callhook started: whether the receiver is there is not known.
    Start,
    /// It asked to be left alone.
    Pause,
    /// So many attempts in a row found nobody.
    Down,
}

/// What happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachSign {
    ProbeSent,
    /// Something answered, be it a 500.
    Answered {
        probe: bool,
    },
    NobodyThere {
        probe: bool,
    },
    /// It asked to be left alone for so long.
    NotNow {
        probe: bool,
        wait: Duration,
    },
}

/// A change that operators want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverChange {
    /// The receiver has just been found down.
    WentDown,
    /// It answers again.
    CameBack,
    /// So many `call_initiated` in a row brought no decision in time.
    RoutingBroke { failed: u32 },
    /// A `call_initiated` was answered in time again.
    RoutingWorks,
    /// It asked to be left alone.
    Paused { wait: Duration },
    /// A probe was answered later than `WEBHOOK_TIMEOUT`.
    Slow { took: Duration, timeout: Duration },
}

/// The receiver's state, and the time that attempts get.
#[derive(Debug)]
pub struct Reach {
    /// Attempts in a row without an answer after which it counts as down; 0 = never.
    limit: u32,
    /// `WEBHOOK_TIMEOUT`.
    timeout: Duration,
    state: ReachState,
    slow: Option<Slow>,
}

#[derive(Debug)]
struct Slow {
    /// What every attempt gets.
    patience: Duration,
    /// Answers in a row within `WEBHOOK_TIMEOUT`.
    in_time: u32,
}

impl Reach {
    /// Up.
    pub fn new(limit: u32, timeout: Duration) -> Self {
        Self { limit, timeout, state: ReachState::Up { unanswered: 0 }, slow: None }
    }

    /// Events of an earlier process wait: one goes first.
    pub fn start_waiting(&mut self, now: Instant) {
        if self.limit > 0 {
            self.state = ReachState::Waiting { at: now, cause: Cause::Start, failed: 0 };
        }
    }

    pub fn state(&self) -> ReachState {
        self.state
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, ReachState::Up { .. })
    }

    pub fn is_down(&self) -> bool {
        match self.state {
            ReachState::Up { .. } => false,
            ReachState::Waiting { cause, .. } | ReachState::Probing { cause, .. } => {
                cause == Cause::Down
            }
        }
    }

    /// How long the next attempt may take.
    pub fn patience(&self) -> Duration {
        let regular = self.slow.as_ref().map_or(self.timeout, |slow| slow.patience);
        match self.state {
            ReachState::Up { .. } => regular,
            ReachState::Waiting { failed, .. } | ReachState::Probing { failed, .. } => {
                let probes = self.timeout.saturating_mul(2_u32.saturating_pow(failed));
                probes.max(regular).min(self.most_patience())
            }
        }
    }

    pub fn note(&mut self, sign: ReachSign, now: Instant) -> Option<ReceiverChange> {
        let was_down = self.is_down();
        self.state = step(self.state, sign, self.limit, now);
        match (was_down, self.is_down(), sign) {
            (false, true, _) => Some(ReceiverChange::WentDown),
            (true, false, _) => Some(ReceiverChange::CameBack),
            (false, false, ReachSign::NotNow { wait, .. }) => Some(ReceiverChange::Paused { wait }),
            (true, true, _) | (false, false, _) => None,
        }
    }

    /// An attempt was answered after that time: a probe that took too long finds a slow receiver.
    pub fn note_took(&mut self, probe: bool, took: Duration) -> Option<ReceiverChange> {
        let in_time = took <= self.timeout;
        let patience = took.saturating_mul(2).min(self.most_patience()).max(self.timeout);
        match &mut self.slow {
            None if probe && !in_time => {
                self.slow = Some(Slow { patience, in_time: 0 });
                Some(ReceiverChange::Slow { took, timeout: self.timeout })
            }
            None => None,
            Some(slow) if in_time => {
                slow.in_time += 1;
                if slow.in_time >= IN_TIME {
                    self.slow = None;
                }
                None
            }
            Some(slow) => {
                slow.in_time = 0;
                slow.patience = slow.patience.max(patience);
                None
            }
        }
    }

    fn most_patience(&self) -> Duration {
        MOST_PATIENCE.max(self.timeout)
    }
}

fn step(state: ReachState, sign: ReachSign, limit: u32, now: Instant) -> ReachState {
    use Cause::{Down, Pause, Start};
    use ReachState::{Probing, Up, Waiting};
    let down = |failed| Waiting { at: now + PROBE_DELAYS.nth(failed), cause: Down, failed };
    let paused = |wait| Waiting { at: now + wait, cause: Pause, failed: 0 };
    match (state, sign) {
        (Waiting { cause, failed, .. }, ReachSign::ProbeSent) => Probing { cause, failed },
        // Of a start, several may be on their way.
        (Up { .. } | Probing { .. }, ReachSign::ProbeSent) => state,
        (
            Up { .. }
            | Waiting { cause: Start | Down, .. }
            | Probing { cause: Start | Down, .. }
            | Probing { cause: Pause, .. },
            ReachSign::Answered { probe: true },
        )
        | (
            Up { .. } | Waiting { cause: Start | Down, .. } | Probing { cause: Start | Down, .. },
            ReachSign::Answered { probe: false },
        ) => Up { unanswered: 0 },
        // It was on its way before the receiver asked for the pause.
        (Waiting { cause: Pause, .. }, ReachSign::Answered { .. })
        | (Probing { cause: Pause, .. }, ReachSign::Answered { probe: false }) => state,
        // A probe that fails after another attempt was answered counts as any attempt.
        (Up { unanswered }, ReachSign::NobodyThere { .. }) => match unanswered.saturating_add(1) {
            enough if limit > 0 && enough >= limit => down(0),
            unanswered => Up { unanswered },
        },
        (Probing { cause: Pause, .. }, ReachSign::NobodyThere { probe: true }) if limit == 0 => {
            Up { unanswered: 1 }
        }
        (Probing { failed, .. }, ReachSign::NobodyThere { probe: true }) => {
            down(failed.saturating_add(1))
        }
        (Waiting { cause: Start, .. }, ReachSign::NobodyThere { probe: true }) => down(1),
        // What was on its way when events began to wait tells nothing new.
        (Waiting { .. } | Probing { .. }, ReachSign::NobodyThere { .. }) => state,
        (
            Up { .. } | Waiting { cause: Start, .. } | Probing { cause: Start | Pause, .. },
            ReachSign::NotNow { wait, .. },
        ) => paused(wait),
        (Waiting { at, cause, failed }, ReachSign::NotNow { wait, .. }) => {
            Waiting { at: at.max(now + wait), cause, failed }
        }
        (Probing { cause: Down, failed }, ReachSign::NotNow { probe: true, wait }) => {
            Waiting { at: now + wait, cause: Down, failed }
        }
        (Probing { cause: Down, .. }, ReachSign::NotNow { probe: false, .. }) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 2;
    const TIMEOUT: Duration = Duration::from_secs(3);

    #[test]
    fn every_sign_in_every_state_leads_where_the_table_says() {
        use Cause::{Down, Pause, Start};
        use ReachSign::{Answered, NobodyThere, NotNow, ProbeSent};
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let wait = Duration::from_secs(60);
        let up = |unanswered| ReachState::Up { unanswered };
        let waiting = |secs, cause, failed| ReachState::Waiting { at: at(secs), cause, failed };
        let probing = |cause, failed| ReachState::Probing { cause, failed };
        let signs = [
            ProbeSent,
            Answered { probe: false },
            Answered { probe: true },
            NobodyThere { probe: false },
            NobodyThere { probe: true },
            NotNow { probe: false, wait },
            NotNow { probe: true, wait },
        ];
        let (paused, leaving) = (waiting(60, Pause, 0), waiting(90, Pause, 0));
        let (start, starting) = (waiting(0, Start, 0), probing(Start, 0));
        let (down, tripped, vain) = (waiting(7, Down, 3), waiting(1, Down, 0), waiting(2, Down, 1));
        let (first, later, probe) = (probing(Pause, 0), waiting(60, Down, 3), probing(Down, 9));
        #[rustfmt::skip]
        let table = [
            (up(0), [up(0), up(0), up(0), up(1), up(1), paused, paused]),
            (up(1), [up(1), up(0), up(0), tripped, tripped, paused, paused]),
            (start, [starting, up(0), up(0), start, vain, paused, paused]),
            (starting, [starting, up(0), up(0), starting, vain, paused, paused]),
            (leaving, [first, leaving, leaving, leaving, leaving, leaving, leaving]),
            (first, [first, first, up(0), first, vain, paused, paused]),
            (down, [probing(Down, 3), up(0), up(0), down, down, later, later]),
            (probe, [probe, up(0), up(0), probe, waiting(30, Down, 10), probe, waiting(60, Down, 9)]),
        ];
        for (state, row) in table {
            for (sign, expected) in signs.into_iter().zip(row) {
                assert_eq!(step(state, sign, LIMIT, now), expected, "{state:?} {sign:?}");
            }
        }
    }

    #[test]
    fn probes_grow_from_one_second_to_thirty() {
        let delays: Vec<u64> = (0..7).map(|probes| PROBE_DELAYS.nth(probes).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_limit_of_zero_never_takes_the_receiver_for_down() {
        let (mut reach, now) = (Reach::new(0, TIMEOUT), Instant::now());
        reach.start_waiting(now);
        for _ in 0..1000 {
            assert_eq!(reach.note(ReachSign::NobodyThere { probe: false }, now), None);
        }
        assert!(reach.is_up());
    }

    #[test]
    fn each_change_is_told_once() {
        let (mut reach, now) = (Reach::new(2, TIMEOUT), Instant::now());
        let (found, vain) =
            (ReachSign::NobodyThere { probe: false }, ReachSign::NobodyThere { probe: true });
        let answered = ReachSign::Answered { probe: true };
        let signs = [
            found,
            found,
            found,
            ReachSign::ProbeSent,
            vain,
            ReachSign::ProbeSent,
            answered,
            answered,
        ];
        let told = signs.map(|sign| reach.note(sign, now));
        let (down, back) = (Some(ReceiverChange::WentDown), Some(ReceiverChange::CameBack));
        assert_eq!(told, [None, down, None, None, None, None, back, None]);
    }

    #[test]
    fn each_probe_waits_twice_as_long_as_the_one_before_up_to_thirty_seconds() {
        let now = Instant::now();
        let mut reach = Reach::new(1, TIMEOUT);
        assert_eq!(reach.patience(), TIMEOUT);
        reach.note(ReachSign::NobodyThere { probe: false }, now);
        let mut patience = Vec::new();
        for _ in 0..6 {
            patience.push(reach.patience().as_secs());
            reach.note(ReachSign::ProbeSent, now);
            reach.note(ReachSign::NobodyThere { probe: true }, now);
        }
        assert_eq!(patience, [3, 6, 12, 24, 30, 30]);
        let longer = Duration::from_secs(60);
        assert_eq!(Reach::new(1, longer).patience(), longer);
    }

    #[test]
    fn a_receiver_is_slow_until_ten_answers_in_a_row_are_in_time() {
        let mut reach = Reach::new(1, TIMEOUT);
        let late = Duration::from_secs(8);
        assert_eq!(reach.note_took(false, late), None, "only a probe can wait for so long");
        let slow = ReceiverChange::Slow { took: late, timeout: TIMEOUT };
        assert_eq!(reach.note_took(true, late), Some(slow));
        assert_eq!(reach.note_took(true, late), None, "it is told once");
        assert_eq!(reach.patience(), late * 2);
        for in_time in [9, 1, 9] {
            for _ in 0..in_time {
                reach.note_took(false, TIMEOUT);
            }
            assert_eq!(reach.patience(), late * 2);
            reach.note_took(false, late);
        }
        for _ in 0..10 {
            reach.note_took(false, TIMEOUT);
        }
        assert_eq!(reach.patience(), TIMEOUT);
    }
}
