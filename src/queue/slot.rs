//! Slot: where `POST /call` waits for the receiver's decision.
//!
//! Invariants:
//! - A slot is settled once: by a decision, by the certainty that none will come, or by its deadline. Every
//!   later reader gets the same result, so a repeated request gets the same answer.
//! - A decision after the deadline is refused, whether anybody waits or not.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::routing::{Decision, NoDecision};

/// Holds one decision, and has a deadline. Clones share it.
#[derive(Clone, Debug)]
pub struct Slot(Arc<SlotState>);

#[derive(Debug)]
enum Settled {
    Decided(Arc<Decision>),
    Without(NoDecision),
}

#[derive(Debug)]
struct SlotState {
    deadline: Instant,
    settled: OnceLock<Settled>,
    changed: Notify,
}

impl Slot {
    pub fn until(deadline: Instant) -> Self {
        Self(Arc::new(SlotState { deadline, settled: OnceLock::new(), changed: Notify::new() }))
    }

    /// Settled from the start, as nobody is asked.
    pub fn without_decision() -> Self {
        Self::closed(NoDecision::NotAsked)
    }

    /// Settled from the start, as the question was refused.
    pub fn refused() -> Self {
        Self::closed(NoDecision::Refused)
    }

    fn closed(why: NoDecision) -> Self {
        let slot = Self::until(Instant::now());
        slot.close(why);
        slot
    }

    /// Settled from the start.
    pub fn decided(decision: Arc<Decision>) -> Self {
        let slot = Self::until(Instant::now());
        slot.settle(Settled::Decided(decision));
        slot
    }

    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    pub fn is_settled(&self) -> bool {
        self.0.settled.get().is_some()
    }

    /// Whether a decision would still be taken.
    pub fn is_open(&self, now: Instant) -> bool {
        now <= self.0.deadline && !self.is_settled()
    }

    /// `false` if the decision comes too late.
    pub fn decide(&self, decision: Arc<Decision>, now: Instant) -> bool {
        now <= self.0.deadline && self.settle(Settled::Decided(decision))
    }

    /// Settles the slot without a decision, unless it is settled.
    pub fn close(&self, why: NoDecision) {
        self.settle(Settled::Without(why));
    }

    /// `None` while the slot is open, and if there is none.
    pub fn decision(&self) -> Option<Arc<Decision>> {
        match self.0.settled.get() {
            Some(Settled::Decided(decision)) => Some(Arc::clone(decision)),
            Some(Settled::Without(_)) | None => None,
        }
    }

    /// `None` while the slot is open, and if there is a decision.
    pub fn no_decision(&self) -> Option<NoDecision> {
        match self.0.settled.get() {
            Some(Settled::Without(why)) => Some(*why),
            Some(Settled::Decided(_)) | None => None,
        }
    }

    /// Waits at most until the deadline, which settles the slot.
    pub async fn wait(&self) -> Option<Arc<Decision>> {
        loop {
            let changed = self.0.changed.notified();
            match self.0.settled.get() {
                Some(Settled::Decided(decision)) => return Some(Arc::clone(decision)),
                Some(Settled::Without(_)) => return None,
                None => {}
            }
            if timeout_at(self.0.deadline, changed).await.is_err() {
                self.close(NoDecision::TimedOut);
            }
        }
    }

    fn settle(&self, settled: Settled) -> bool {
        let first = self.0.settled.set(settled).is_ok();
        self.0.changed.notify_waiters();
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn decision() -> Arc<Decision> {
        Decision::recall("ws://h").unwrap().into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_settles_and_a_later_decision_is_refused() {
        let slot = Slot::until(Instant::now() + Duration::from_secs(5));
        let begun = Instant::now();
        assert_eq!(slot.wait().await, None);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert!(!slot.decide(decision(), Instant::now()));
        assert_eq!(slot.wait().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_decision_after_the_deadline_is_refused_though_nobody_waited() {
        let slot = Slot::until(Instant::now());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!slot.decide(decision(), Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_gets_the_same_decision() {
        let slot = Slot::until(Instant::now() + Duration::from_secs(5));
        let decide = async { assert!(slot.decide(decision(), Instant::now())) };
        let (first, second, ()) = tokio::join!(slot.wait(), slot.wait(), decide);
        assert_eq!(first, Some(decision()));
        assert_eq!(second, Some(decision()));
        assert_eq!(slot.wait().await, Some(decision()));
    }
}
