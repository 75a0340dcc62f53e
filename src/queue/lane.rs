//! Lane: the events of one call that wait, in the order they were accepted.
//!
//! A state machine that sees no clock: what happens comes in as a [`LaneStep`], with the time in it.
//!
//! Invariants:
//! - A lane holds at least one event. The front one is the only one that may be on its way; it stays at the
//!   front until it is delivered or given up, so no later event overtakes it.
//! - Sequence numbers count what is to be delivered: 1, 2, …, never twice.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::slot::Slot;
use crate::event::Item;

/// An item that waits in its lane.
#[derive(Debug)]
pub struct Queued {
    pub item: Item,
    /// Who waits for the decision, for `call_initiated`.
    pub slot: Option<Slot>,
}

/// What the lane's front event is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// It may go.
    Ready,
    /// It is on its way.
    InFlight,
    /// It waits for its next attempt until then.
    Held(Instant),
}

/// What happens to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneStep {
    /// The front event was sent.
    Sent,
    /// The attempt is over; the front event, the same or the next, may go at once.
    Concluded,
    /// The front event is to be tried again at that time.
    Retry(Instant),
    /// The wait is over.
    Released,
    /// The front event is taken away unsent.
    Withdrawn,
}

impl LaneState {
    /// Where a step leads; `None` for a step that cannot happen in this state.
    pub fn after(self, step: LaneStep) -> Option<Self> {
        match (self, step) {
            (Self::Ready, LaneStep::Sent) => Some(Self::InFlight),
            (Self::InFlight, LaneStep::Concluded)
            | (Self::Held(_), LaneStep::Released)
            | (Self::Ready | Self::Held(_), LaneStep::Withdrawn) => Some(Self::Ready),
            (Self::InFlight, LaneStep::Retry(at)) => Some(Self::Held(at)),
            (Self::InFlight | Self::Held(_), LaneStep::Sent)
            | (Self::Ready | Self::Held(_), LaneStep::Concluded | LaneStep::Retry(_))
            | (Self::Ready | Self::InFlight, LaneStep::Released)
            | (Self::InFlight, LaneStep::Withdrawn) => None,
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
    /// For a call whose last event had this sequence, 0 before its first; an event joins at once.
    pub fn after(last_sequence: u64) -> Self {
        // Most lanes hold one event at a time; the deque's own first step is four.
        Self { state: LaneState::Ready, waiting: VecDeque::with_capacity(1), last_sequence }
    }

    pub fn state(&self) -> LaneState {
        self.state
    }

    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// Takes an item at the end; `true` for the first one.
    pub fn join(&mut self, queued: Queued) -> bool {
        self.last_sequence = self.last_sequence.max(queued.item.sequence);
        self.waiting.push_back(queued);
        self.waiting.len() == 1
    }

    /// Takes an item away that is not on its way. The sequence of the last one is given again, so that it
    /// leaves no gap. Says whether it was the front one.
    pub fn withdraw(&mut self, place: u64) -> Option<(Queued, bool)> {
        // What the disk refuses came last.
        let index = self.waiting.iter().rposition(|queued| queued.item.place == place)?;
        let withdrawn = self.waiting.remove(index)?;
        if index == self.waiting.len() && withdrawn.item.sequence == self.last_sequence {
            self.last_sequence -= 1;
        }
        if index == 0 {
            self.step(LaneStep::Withdrawn);
        }
        Some((withdrawn, index == 0))
    }

    /// Whether the item is on its way.
    pub fn is_sending(&self, place: u64) -> bool {
        self.state == LaneState::InFlight && self.front().item.place == place
    }

    /// # Panics
    /// On a step that cannot happen, which would break the order of the call.
    pub fn step(&mut self, step: LaneStep) {
        let next = self.state.after(step);
        self.state = next.unwrap_or_else(|| panic!("a lane that is {:?} met {step:?}", self.state));
    }

    /// # Panics
    /// If the last event is gone, and so should be the lane.
    pub fn front(&self) -> &Queued {
        self.waiting.front().expect("a lane holds at least one event")
    }

    /// # Panics
    /// If the last event is gone, and so should be the lane.
    pub fn front_mut(&mut self) -> &mut Queued {
        self.waiting.front_mut().expect("a lane holds at least one event")
    }

    /// Takes the front event away, which is delivered or given up.
    ///
    /// # Panics
    /// If nothing is on its way.
    pub fn settle_front(&mut self) -> Queued {
        self.step(LaneStep::Concluded);
        self.waiting.pop_front().expect("a lane holds at least one event")
    }

    /// Whether its last event is gone.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
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
        use LaneState::{Held, InFlight, Ready};
        let now = Instant::now();
        let steps = [
            LaneStep::Sent,
            LaneStep::Concluded,
            LaneStep::Retry(now),
            LaneStep::Released,
            LaneStep::Withdrawn,
        ];
        let (ready, flying, held) = (Some(Ready), Some(InFlight), Some(Held(now)));
        let table = [
            (Ready, [flying, None, None, None, ready]),
            (InFlight, [None, ready, held, None, None]),
            (Held(now), [None, None, None, ready, ready]),
        ];
        for (state, row) in table {
            for (step, expected) in steps.into_iter().zip(row) {
                assert_eq!(state.after(step), expected, "{state:?} {step:?}");
            }
        }
    }
}
