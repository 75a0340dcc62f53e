//! Lane: the events of one call, in the order they were accepted.
//!
//! A state machine that sees no clock: what happens comes in as a [`Step`], with the time in it.
//!
//! Invariants:
//! - The front event is the only one that may be on its way; it stays at the front until it is
//!   delivered or given up, so no later event overtakes it.
//! - Sequence numbers count what is to be delivered: 1, 2, …, never twice.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::Arc;

use tokio::time::Instant;

use super::slot::Slot;
use crate::event::Event;

/// An event that waits in its lane.
#[derive(Debug)]
pub struct Queued {
    /// What is to be sent.
    pub event: Arc<Event>,
    /// Its place among all events that were accepted; smaller is older.
    pub order: u64,
    /// Its place within the call: 1, 2, …
    pub sequence: u64,
    /// Attempts spent so far.
    pub spent: u32,
    /// When the first attempt failed, in Unix milliseconds, be it one that was not counted.
    pub first_failed_at: Option<NonZero<u64>>,
    /// Who waits for the decision, for `call_initiated`.
    pub slot: Option<Slot>,
}

/// What the lane's front event is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// There is no event, since then.
    Idle(Instant),
    /// The front event may go.
    Ready,
    /// The front event is on its way.
    InFlight,
    /// The front event waits for its next attempt until then.
    Held(Instant),
}

/// What happens to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An event joined at the end.
    Joined,
    /// The front event was sent.
    Sent,
    /// The front event is settled and gone; others may be left. The time is now.
    Settled { more: bool, now: Instant },
    /// The front event is to be tried again at that time.
    Retry(Instant),
    /// The front event may be tried again as soon as the receiver is there.
    Unspent,
    /// The wait is over.
    Released,
    /// The front event is taken away unsent; others may be left. The time is now.
    Withdrawn { more: bool, now: Instant },
}

impl LaneState {
    /// Where a step leads; `None` for a step that cannot happen in this state.
    pub fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Idle(_), Step::Joined) => Some(Self::Ready),
            (Self::Ready | Self::InFlight | Self::Held(_), Step::Joined) => Some(self),
            (Self::Ready, Step::Sent) => Some(Self::InFlight),
            (Self::InFlight, Step::Settled { more: true, .. }) => Some(Self::Ready),
            (Self::InFlight, Step::Settled { more: false, now }) => Some(Self::Idle(now)),
            (Self::InFlight, Step::Retry(at)) => Some(Self::Held(at)),
            (Self::InFlight, Step::Unspent) => Some(Self::Ready),
            (Self::Held(_), Step::Released) => Some(Self::Ready),
            (Self::Ready | Self::Held(_), Step::Withdrawn { more: true, .. }) => Some(Self::Ready),
            (Self::Ready | Self::Held(_), Step::Withdrawn { more: false, now }) => {
                Some(Self::Idle(now))
            }
            (Self::Idle(_) | Self::InFlight | Self::Held(_), Step::Sent)
            | (
                Self::Idle(_) | Self::Ready | Self::Held(_),
                Step::Settled { .. } | Step::Retry(_) | Step::Unspent,
            )
            | (Self::Idle(_) | Self::Ready | Self::InFlight, Step::Released)
            | (Self::Idle(_) | Self::InFlight, Step::Withdrawn { .. }) => None,
        }
    }
}

/// One call's events and the state of the front one.
#[derive(Debug)]
pub struct Lane {
    state: LaneState,
    waiting: VecDeque<Queued>,
    last_sequence: u64,
}

impl Lane {
    /// A lane without events.
    pub fn new(now: Instant) -> Self {
        Self { state: LaneState::Idle(now), waiting: VecDeque::new(), last_sequence: 0 }
    }

    /// What the front event is doing.
    pub fn state(&self) -> LaneState {
        self.state
    }

    /// The place of an event that joins later.
    pub fn reserve(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// Takes a new event at the end; returns its place within the call.
    pub fn join(&mut self, event: Arc<Event>, order: u64, slot: Option<Slot>) -> u64 {
        let sequence = self.last_sequence + 1;
        self.rejoin(Queued { event, order, sequence, spent: 0, first_failed_at: None, slot });
        sequence
    }

    /// Takes an event at the end that was counted before: one that was recovered or is replayed.
    pub fn rejoin(&mut self, queued: Queued) {
        self.last_sequence = self.last_sequence.max(queued.sequence);
        if self.waiting.is_empty() {
            // Most lanes hold one event at a time; the deque's own first step is four.
            self.waiting.reserve_exact(1);
        }
        self.waiting.push_back(queued);
        self.step(Step::Joined);
    }

    /// Takes an event away that is not on its way and shall not be sent. The number of the last one
    /// is given again, so that it leaves no gap.
    pub fn withdraw(&mut self, order: u64, now: Instant) -> Option<Queued> {
        let place = self.waiting.iter().position(|queued| queued.order == order)?;
        if place == 0 && self.state == LaneState::InFlight {
            return None;
        }
        let withdrawn = self.waiting.remove(place)?;
        if place == self.waiting.len() && withdrawn.sequence == self.last_sequence {
            self.last_sequence -= 1;
        }
        if place == 0 {
            let more = !self.waiting.is_empty();
            self.step(Step::Withdrawn { more, now });
        }
        Some(withdrawn)
    }

    /// Moves on.
    ///
    /// # Panics
    /// On a step that cannot happen, which would break the order of the call.
    pub fn step(&mut self, step: Step) {
        let next = self.state.after(step);
        self.state = next.unwrap_or_else(|| panic!("a lane that is {:?} met {step:?}", self.state));
    }

    /// The front event.
    pub fn front(&self) -> Option<&Queued> {
        self.waiting.front()
    }

    /// The front event, to be changed in place.
    pub fn front_mut(&mut self) -> Option<&mut Queued> {
        self.waiting.front_mut()
    }

    /// Takes the settled front event away.
    ///
    /// # Panics
    /// If nothing is on its way.
    pub fn settle_front(&mut self, now: Instant) -> Queued {
        let settled = self.waiting.pop_front().expect("a lane in flight has a front event");
        let more = !self.waiting.is_empty();
        if !more {
            // A call's lane stays for its numbering; its room for waiting events need not.
            self.waiting = VecDeque::new();
        }
        self.step(Step::Settled { more, now });
        settled
    }

    /// Everything that waits, front first.
    pub fn waiting(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_in_every_state_leads_where_the_table_says() {
        use LaneState::{Held, Idle, InFlight, Ready};
        let now = Instant::now();
        let settled = |more| Step::Settled { more, now };
        let withdrawn = |more| Step::Withdrawn { more, now };
        let steps = [
            Step::Joined,
            Step::Sent,
            settled(true),
            settled(false),
            Step::Retry(now),
            Step::Unspent,
            Step::Released,
            withdrawn(true),
            withdrawn(false),
        ];
        let (idle, ready) = (Some(Idle(now)), Some(Ready));
        let (flying, held) = (Some(InFlight), Some(Held(now)));
        let table = [
            (Idle(now), [ready, None, None, None, None, None, None, None, None]),
            (Ready, [ready, flying, None, None, None, None, None, ready, idle]),
            (InFlight, [flying, None, ready, idle, held, ready, None, None, None]),
            (Held(now), [held, None, None, None, None, None, ready, ready, idle]),
        ];
        for (state, row) in table {
            for (step, expected) in steps.into_iter().zip(row) {
                assert_eq!(state.after(step), expected, "{state:?} {step:?}");
            }
        }
    }
}
