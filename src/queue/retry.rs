//! Retry: how long to wait?
//!
//! The only file that names the `backoff` crate, of which it takes the exponential policy and
//! nothing else: the crate is unmaintained (RUSTSEC-2025-0012), the arithmetic is sound.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// How far a delay strays from its nominal length, as a fraction: enough to spread the retries of
/// calls that failed together, too little to turn a doubled delay into a shorter one.
const JITTER: f64 = 0.25;

/// The first delay between two probes of a receiver that is down, and the longest one.
const PROBE_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// When an event is tried again (`WEBHOOK_RETRY`, `WEBHOOK_BACKOFF`, `WEBHOOK_BACKOFF_MAX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts: u32,
    first: Duration,
    ceiling: Duration,
}

impl RetryPolicy {
    /// `retries` additional attempts, the first after `first`, none after more than `ceiling`.
    pub fn new(retries: u32, first: Duration, ceiling: Duration) -> Self {
        Self { attempts: retries.saturating_add(1), first, ceiling }
    }

    /// Attempts allowed in all.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The delay before the next attempt when `made` attempts failed: doubled each time, with
    /// jitter, never above the ceiling.
    pub fn delay_after(&self, made: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(made.saturating_sub(1));
        let nominal = self.first.saturating_mul(doubled).min(self.ceiling);
        jittered(nominal).min(self.ceiling)
    }
}

/// The delay before the probe that follows `probes` unanswered ones.
pub fn probe_delay(probes: u32) -> Duration {
    let (first, ceiling) = PROBE_DELAYS;
    first.saturating_mul(2_u32.saturating_pow(probes)).min(ceiling)
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

    #[test]
    fn delays_double_with_jitter_up_to_the_ceiling() {
        let policy = RetryPolicy::new(9, MS(100), MS(1000));
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
        assert_eq!(RetryPolicy::new(0, MS(1), MS(1)).attempts(), 1);
        let policy = RetryPolicy::new(u32::MAX, MS(1), MS(5));
        assert_eq!(policy.attempts(), u32::MAX);
        assert!(policy.delay_after(u32::MAX) <= MS(5));
    }

    #[test]
    fn probes_grow_from_one_second_to_thirty() {
        let delays: Vec<u64> = (0..7).map(|n| probe_delay(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(probe_delay(u32::MAX).as_secs(), 30);
    }
}
