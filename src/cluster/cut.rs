//! Cut off: should another node deliver, since this one does not reach the receiver?
//!
//! A node that is cut off gives its partitions to others, and then has nothing left by which it could find out that it is
//! not any more. So after a while it counts as well again; the partitions that it gets back are the probe.
//!
//! Limit: each time that this was wrong it takes twice as long, from [`AWAY`]'s first delay to its ceiling.

use std::time::Duration;

use crate::lease::BootTime;
use crate::retry::Delays;

/// Longer than the 30 s between two probes, so that a node that still probes does not count as well in between.
const AWAY: Delays = Delays::fixed(Duration::from_secs(60), Duration::from_secs(15 * 60));

#[derive(Debug, Default)]
pub struct CutOff {
    /// Until when it counts as cut off where nothing is delivered; `None` = it is not cut off.
    until: Option<BootTime>,
    /// How often it was taken for well without having reached anybody.
    hoped: u32,
}

impl CutOff {
    /// The receiver counts as down, and was not there just now.
    pub fn found_nobody(&mut self, now: BootTime) {
        self.until = Some(now + AWAY.nth(self.hoped));
    }

    /// The receiver answered.
    pub fn found_somebody(&mut self) {
        *self = Self::default();
    }

    /// Whether others should deliver, where this node now delivers, or does not.
    pub fn look(&mut self, delivers: bool, now: BootTime) -> bool {
        if self.until.is_some_and(|until| !delivers && now >= until) {
            self.until = None;
            self.hoped = self.hoped.saturating_add(1);
        }
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_partitions_counts_as_well_after_ever_longer_times() {
        let (mut cut, mut now) = (CutOff::default(), BootTime::after(Duration::ZERO));
        let mut minutes = Vec::new();
        for _ in 0..6 {
            cut.found_nobody(now);
            assert!(cut.look(true, now + AWAY.nth(9)), "while it delivers it finds out by itself");
            let since = now;
            while cut.look(false, now) {
                now = now + Duration::from_secs(60);
            }
            minutes.push(now.saturating_since(since).as_secs() / 60);
        }
        assert_eq!(minutes, [1, 2, 4, 8, 15, 15]);
        cut.found_somebody();
        cut.found_nobody(now);
        assert!(!cut.look(false, now + AWAY.nth(0)), "an answer makes it begin anew");
    }

    #[test]
    fn a_node_that_was_never_cut_off_is_well() {
        assert!(!CutOff::default().look(false, BootTime::after(Duration::ZERO)));
    }
}
