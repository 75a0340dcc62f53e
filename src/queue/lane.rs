//! Lane: the events of one call, in the order they were accepted.
//!
//! A state machine that sees no clock: what happens comes in as a [`Step`], with the time in it.
//!
//! Invariants:
//! - The front event is the only one that may be on its way; it stays at the front until it is
//!   delivered or given up, so no later event overtakes it.
//! - Sequence numbers count what is to be delivered: 1, 2, …, never twice.

use std::collections::VecDeque;
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
    /// Whether an attempt failed, be it one that was not counted.
    pub failed: bool,
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
            (Self::Idle(_) | Self::InFlight | Self::Held(_), Step::Sent)
            | (
                Self::Idle(_) | Self::Ready | Self::Held(_),
                Step::Settled { .. } | Step::Retry(_) | Step::Unspent,
            )
            | (Self::Idle(_) | Self::Ready | Self::InFlight, Step::Released) => None,
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

    /// Takes an event at the end.
    pub fn join(&mut self, event: Arc<Event>, order: u64, slot: Option<Slot>) {
        self.last_sequence += 1;
        self.waiting.push_back(Queued {
            event,
            order,
            sequence: self.last_sequence,
            spent: 0,
            failed: false,
            slot,
        });
        self.step(Step::Joined);
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
        let steps = [
            Step::Joined,
            Step::Sent,
            settled(true),
            settled(false),
            Step::Retry(now),
            Step::Unspent,
            Step::Released,
        ];
        let table = [
            (Idle(now), [Some(Ready), None, None, None, None, None, None]),
            (Ready, [Some(Ready), Some(InFlight), None, None, None, None, None]),
            (
                InFlight,
                [
                    Some(InFlight),
                    None,
                    Some(Ready),
                    Some(Idle(now)),
                    Some(Held(now)),
                    Some(Ready),
                    None,
                ],
            ),
            (Held(now), [Some(Held(now)), None, None, None, None, None, Some(Ready)]),
        ];
        for (state, row) in table {
            for (step, expected) in steps.into_iter().zip(row) {
                assert_eq!(state.after(step), expected, "{state:?} {step:?}");
            }
        }
    }
}
