//! Slot: where `POST /call` waits for the receiver's decision.
//!
//! Invariants:
//! - A slot is settled once: by a decision, by the news that none will come, or by its deadline.
//!   Whoever asks afterwards gets the same answer, so a repeated request is answered alike.
//! - A decision after the deadline is refused, whether somebody waits or not.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::routing::{Decision, NoDecision};

/// A place for one decision, with a deadline. Clones share the place.
#[derive(Clone, Debug)]
pub struct Slot(Arc<Place>);

#[derive(Debug)]
enum Settled {
    Decided(Arc<Decision>),
    /// None will be followed any more.
    Without(NoDecision),
}

#[derive(Debug)]
struct Place {
    deadline: Instant,
    /// Empty as long as it is open.
    settled: OnceLock<Settled>,
    changed: Notify,
}

impl Slot {
    /// Open until the deadline.
    pub fn until(deadline: Instant) -> Self {
        Self(Arc::new(Place { deadline, settled: OnceLock::new(), changed: Notify::new() }))
    }

    /// Settled from the start: nobody is asked.
    pub fn without_decision() -> Self {
        let slot = Self::until(Instant::now());
        slot.close(NoDecision::NotAsked);
        slot
    }

    /// Settled from the start by a decision that is known.
    pub fn decided(decision: Decision) -> Self {
        let slot = Self::until(Instant::now());
        slot.settle(Settled::Decided(Arc::new(decision)));
        slot
    }

    /// When waiting ends.
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Whether there is an answer, or the news that none will come.
    pub fn is_settled(&self) -> bool {
        self.0.settled.get().is_some()
    }

    /// Whether a decision is still of use.
    pub fn is_open(&self, now: Instant) -> bool {
        now <= self.0.deadline && !self.is_settled()
    }

    /// Puts a decision in; `false` if it comes too late.
    pub fn decide(&self, decision: Decision, now: Instant) -> bool {
        now <= self.0.deadline && self.settle(Settled::Decided(Arc::new(decision)))
    }

    /// No decision will come, and why.
    pub fn close(&self, why: NoDecision) {
        self.settle(Settled::Without(why));
    }

    /// Why there is no decision, once that is settled.
    pub fn no_decision(&self) -> Option<NoDecision> {
        match self.0.settled.get() {
            Some(Settled::Without(why)) => Some(*why),
            Some(Settled::Decided(_)) | None => None,
        }
    }

    /// Waits for the decision, at most until the deadline, which settles the slot.
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

    fn decision() -> Decision {
        Decision { given: "ws://h".into(), url: "ws://h".parse().unwrap() }
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
        assert_eq!(first.as_deref(), Some(&decision()));
        assert_eq!(second.as_deref(), Some(&decision()));
        assert_eq!(slot.wait().await.as_deref(), Some(&decision()));
    }
}
