//! Retry: how long to wait?
//!
//! Owns the delays between attempts at events, probes and connections. Leaves to its callers whether to try
//! again at all.
//!
//! Invariant: delays never start above their ceiling; [`Delays`] rejects such a pair.
//!
//! The only file that uses the `backoff` crate, and only its exponential policy: the crate is unmaintained
//! (RUSTSEC-2025-0012), but the arithmetic is sound.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// As a fraction of the delay, in both directions: enough to spread the retries of calls that failed
/// together, too little to make a doubled delay shorter than the one before.
const JITTER: f64 = 0.25;

/// Each twice the one before, up to a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    first: Duration,
    ceiling: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first delay is longer than the ceiling")]
pub struct BadDelays;

impl Delays {
    /// # Errors
    /// If `first` is above `ceiling`.
    pub const fn try_new(first: Duration, ceiling: Duration) -> Result<Self, BadDelays> {
        if first.as_nanos() > ceiling.as_nanos() {
            return Err(BadDelays);
        }
        Ok(Self { first, ceiling })
    }

    /// For constants, where a bad pair does not compile.
    ///
    /// # Panics
    /// If `first` is above `ceiling`.
    pub const fn fixed(first: Duration, ceiling: Duration) -> Self {
        match Self::try_new(first, ceiling) {
            Ok(delays) => delays,
            Err(BadDelays) => panic!("the first delay is longer than the ceiling"),
        }
    }

    /// Counted from 0.
    pub fn nth(self, n: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(n)).min(self.ceiling)
    }
}

/// `WEBHOOK_RETRY`, `WEBHOOK_BACKOFF`, `WEBHOOK_BACKOFF_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts: u32,
    delays: Delays,
}

impl RetryPolicy {
    /// `retries` are additional attempts, after the first.
    pub fn new(retries: u32, delays: Delays) -> Self {
        Self { attempts: retries.saturating_add(1), delays }
    }

    pub const fn once() -> Self {
        Self { attempts: 1, delays: Delays::fixed(Duration::ZERO, Duration::ZERO) }
    }

    /// The first one included.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Before the first retry, without jitter.
    pub fn first_delay(&self) -> Duration {
        self.delays.nth(0)
    }

    /// With jitter, and never above the ceiling.
    pub fn delay_after(&self, failed_attempts: u32) -> Duration {
        jittered(self.delays.nth(failed_attempts.saturating_sub(1))).min(self.delays.ceiling)
    }
}

fn jittered(nominal: Duration) -> Duration {
    let mut policy = ExponentialBackoff {
        current_interval: nominal,
        initial_interval: nominal,
        max_interval: nominal,
        randomization_factor: JITTER,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    policy.next_backoff().expect("a policy without a time limit always has a next delay")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn policy(retries: u32, first: u64, ceiling: u64) -> RetryPolicy {
        RetryPolicy::new(retries, Delays::try_new(MS(first), MS(ceiling)).unwrap())
    }

    #[test]
    fn delays_double_with_jitter_up_to_the_ceiling() {
        let policy = policy(9, 100, 1000);
        for _ in 0..100 {
            for (made, nominal) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
                let delay = policy.delay_after(made);
                let low = MS(nominal * 3 / 4);
                let high = MS(nominal * 5 / 4).min(MS(1000));
                assert!(delay >= low && delay <= high, "after {made}: {delay:?}");
            }
        }
    }

    #[test]
    fn no_retry_is_one_attempt_and_the_most_retries_do_not_overflow() {
        assert_eq!(policy(0, 1, 1).attempts(), 1);
        assert_eq!(RetryPolicy::once().attempts(), 1);
        let policy = policy(u32::MAX, 1, 5);
        assert_eq!(policy.attempts(), u32::MAX);
        assert!(policy.delay_after(u32::MAX) <= MS(5));
    }

    #[test]
    fn delays_grow_from_the_first_to_the_ceiling() {
        let delays = Delays::fixed(Duration::from_secs(1), Duration::from_secs(30));
        let seconds: Vec<u64> = (0..7).map(|n| delays.nth(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delays.nth(u32::MAX).as_secs(), 30);
    }

    #[test]
    fn a_first_delay_above_the_ceiling_is_refused() {
        assert!(Delays::try_new(MS(5), MS(5)).is_ok());
        assert_eq!(Delays::try_new(MS(6), MS(5)), Err(BadDelays));
    }
}
