//! Lanes: which call's turn is it?
//!
//! Owns every lane, which of them may go, and in what order. Leaves to the dispatcher whether one may go at
//! all, and what an attempt brought.
//!
//! Invariants:
//! - A lane that is ready stands in one place: among those whose front event a caller waits for, or among the
//!   others. One that is held stands with its time; one in flight nowhere.
//! - The numbering of a call goes on where it stopped, also when it had no events for a while.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::lane::{Lane, LaneState, LaneStep, Queued};
use super::slot::Slot;
use crate::event::{CallId, Item};
use crate::expiring::Expiring;
use crate::routing::NoDecision;

/// How long the numbering of a call without events is kept: longer than calls stay silent.
const NUMBERING_KEPT: Duration = Duration::from_secs(4 * 60 * 60);

/// The most calls without events whose numbering is kept, the longest silent forgotten first.
/// At under 128 bytes each that is 13 MB.
const MOST_NUMBERINGS: usize = 100_000;

/// Lanes by the time of their release and the place of their front event.
type Held = BTreeMap<(Instant, u64), CallId>;

#[derive(Debug)]
pub struct Lanes {
    /// Of the calls with events.
    lanes: HashMap<CallId, Lane>,
    /// The last sequence of calls without events.
    numbering: Expiring<CallId, u64>,
    /// Lanes whose front event may go, by its place: those that a caller waits for, and the others.
    awaited: BTreeMap<u64, CallId>,
    ready: BTreeMap<u64, CallId>,
    /// Lanes whose front event waits for its next attempt.
    held: Held,
    /// Lanes whose front event timed out as a probe too often.
    aside: Held,
    /// The place of the last probe; the next one has a larger one, if there is one.
    probed: u64,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            numbering: Expiring::with_room(NUMBERING_KEPT, MOST_NUMBERINGS),
            awaited: BTreeMap::new(),
            ready: BTreeMap::new(),
            held: Held::new(),
            aside: Held::new(),
            probed: 0,
        }
    }
}

impl Lanes {
    /// Numbers an item, and takes it into its call's lane.
    pub fn accept(&mut self, item: &mut Item, slot: Option<Slot>, now: Instant) {
        item.sequence = self.lane(item.event.call, now).next_sequence();
        self.join(Queued { item: item.clone(), slot }, now);
    }

    /// Numbers an event that joins later, or never.
    pub fn reserve(&mut self, call: CallId, now: Instant) -> u64 {
        if let Some(lane) = self.lanes.get_mut(&call) {
            return lane.next_sequence();
        }
        let next = self.numbering.get(&call, now).map_or(1, |last| last + 1);
        self.numbering.insert(call, next, now, |_, _| {});
        next
    }

    /// Takes an item that is numbered.
    pub fn join(&mut self, queued: Queued, now: Instant) {
        let call = queued.item.event.call;
        if self.lane(call, now).join(queued) {
            self.enqueue(call);
        }
    }

    /// Takes an item away that is not on its way, if `confirm` agrees.
    pub fn withdraw(
        &mut self,
        call: CallId,
        place: u64,
        now: Instant,
        confirm: impl FnOnce() -> bool,
    ) -> Option<Queued> {
        let lane = self.lanes.get_mut(&call)?;
        if lane.is_sending(place) || !confirm() {
            return None;
        }
        let before = lane.state();
        let (withdrawn, was_front) = lane.withdraw(place)?;
        if was_front {
            self.awaited.remove(&place);
            self.ready.remove(&place);
            if let LaneState::Held(at) = before {
                self.held.remove(&(at, place));
                self.aside.remove(&(at, place));
            }
            self.go_on(call, now);
        }
        Some(withdrawn)
    }

    /// How many events of the call wait, or are on their way.
    pub fn waiting_of(&self, call: CallId) -> usize {
        self.lanes.get(&call).map_or(0, Lane::len)
    }

    /// Whether any lane may go.
    pub fn any_ready(&self) -> bool {
        !self.ready.is_empty() || !self.awaited.is_empty()
    }

    /// When the next lane that waits for its time may go.
    pub fn next_release(&self) -> Option<Instant> {
        let first = |held: &Held| held.first_key_value().map(|((at, _), _)| *at);
        first(&self.held).into_iter().chain(first(&self.aside)).min()
    }

    /// The oldest lane whose front event a caller waits for.
    pub fn pop_awaited(&mut self, now: Instant) -> Option<CallId> {
        while let Some((place, call)) = self.awaited.pop_first() {
            if self.front(call).slot.as_ref().is_some_and(|slot| slot.is_open(now)) {
                return Some(call);
            }
            // Nobody waits for it any more.
            self.ready.insert(place, call);
        }
        None
    }

    /// The lane with the oldest front event.
    pub fn pop_ready(&mut self) -> Option<CallId> {
        self.ready.pop_first().map(|(_, call)| call)
    }

    /// The lane whose turn it is to probe.
    pub fn pop_in_turn(&mut self) -> Option<CallId> {
        let next = self.ready.range(self.probed + 1..).next().or_else(|| self.ready.iter().next());
        self.probed = *next?.0;
        self.ready.remove(&self.probed)
    }

    /// The front event of a lane that was popped is on its way.
    pub fn send(&mut self, call: CallId) -> &Item {
        let lane = self.lane_mut(call);
        lane.step(LaneStep::Sent);
        &lane.front().item
    }

    /// The front event of a call that has events.
    pub fn front(&mut self, call: CallId) -> &mut Queued {
        self.lane_mut(call).front_mut()
    }

    /// The attempt is over, and the front event may go again at once.
    pub fn put_back(&mut self, call: CallId) {
        self.lane_mut(call).step(LaneStep::Concluded);
        self.enqueue(call);
    }

    /// The attempt is over, and the front event waits until then.
    pub fn hold(&mut self, call: CallId, at: Instant) {
        let place = self.hold_until(call, at);
        self.held.insert((at, place), call);
    }

    /// The attempt is over; the front event lets others go first until then, or until
    /// [`Lanes::release_aside`].
    pub fn set_aside(&mut self, call: CallId, at: Instant) {
        let place = self.hold_until(call, at);
        self.aside.insert((at, place), call);
    }

    /// The front event is settled and gone.
    pub fn settle(&mut self, call: CallId, now: Instant) -> Queued {
        let settled = self.lane_mut(call).settle_front();
        self.go_on(call, now);
        settled
    }

    /// Lets those go whose time has come.
    pub fn release(&mut self, now: Instant) {
        for due in [take_due(&mut self.held, now), take_due(&mut self.aside, now)] {
            due.into_iter().for_each(|call| self.make_ready(call));
        }
    }

    /// Delays between attempts are void.
    pub fn release_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        held.into_values().for_each(|call| self.make_ready(call));
    }

    /// Nobody need be let go first any more.
    pub fn release_aside(&mut self) {
        let aside = std::mem::take(&mut self.aside);
        aside.into_values().for_each(|call| self.make_ready(call));
    }

    /// No decision will come for anybody who waits now, and why.
    pub fn close_slots(&self, why: NoDecision) {
        for queued in self.lanes.values().flat_map(Lane::waiting) {
            if let Some(slot) = &queued.slot {
                slot.close(why);
            }
        }
    }

    /// The same for those whose event is not on its way.
    pub fn close_unsent_slots(&self, why: NoDecision) {
        for lane in self.lanes.values() {
            for queued in lane.waiting().filter(|queued| !lane.is_sending(queued.item.place)) {
                if let Some(slot) = &queued.slot {
                    slot.close(why);
                }
            }
        }
    }

    /// The same for callers in front whose time ends before then.
    pub fn close_slots_before(&self, at: Instant, why: NoDecision) {
        for call in self.awaited.values() {
            let slot = self.lanes.get(call).and_then(|lane| lane.front().slot.as_ref());
            if let Some(slot) = slot.filter(|slot| slot.deadline() < at) {
                slot.close(why);
            }
        }
    }

    /// The call's lane, which is made where there is none; an item joins it at once.
    fn lane(&mut self, call: CallId, now: Instant) -> &mut Lane {
        match self.lanes.entry(call) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(vacant) => {
                let last = self.numbering.get(&call, now).copied().unwrap_or_default();
                self.numbering.remove(&call);
                vacant.insert(Lane::after(last))
            }
        }
    }

    fn lane_mut(&mut self, call: CallId) -> &mut Lane {
        self.lanes.get_mut(&call).expect("a call with events has a lane")
    }

    fn hold_until(&mut self, call: CallId, at: Instant) -> u64 {
        let lane = self.lane_mut(call);
        lane.step(LaneStep::Retry(at));
        lane.front().item.place
    }

    /// The front event is gone: the next one may go, or the call has none.
    fn go_on(&mut self, call: CallId, now: Instant) {
        let lane = self.lane_mut(call);
        if lane.is_over() {
            let last = lane.last_sequence();
            self.lanes.remove(&call);
            self.numbering.insert(call, last, now, |_, _| {});
        } else {
            self.enqueue(call);
        }
    }

    fn enqueue(&mut self, call: CallId) {
        let front = self.lane_mut(call).front();
        let awaited = front.slot.as_ref().is_some_and(|slot| !slot.is_settled());
        let place = front.item.place;
        let queue = if awaited { &mut self.awaited } else { &mut self.ready };
        queue.insert(place, call);
    }

    fn make_ready(&mut self, call: CallId) {
        self.lane_mut(call).step(LaneStep::Released);
        self.enqueue(call);
    }
}

/// The lanes whose time has come.
fn take_due(held: &mut Held, now: Instant) -> Vec<CallId> {
    let mut due = Vec::new();
    while let Some(entry) = held.first_entry().filter(|entry| entry.key().0 <= now) {
        due.push(entry.remove());
    }
    due
}
