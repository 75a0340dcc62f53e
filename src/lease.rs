//! Lease: a right to send that ends by itself.
//!
//! Where several callhooks share a journal, one of them delivers a partition's events, and only for as long as it is
//! known to live. Owns when that time is over, and by which clock. Leaves to `cluster`, which alone holds a [`Term`], when
//! it is renewed and for what it is given; and to whoever sends to ask [`Lease::holds`] as the last thing before the
//! system call, not before the attempt: a connection can take longer than a lease.
//!
//! Invariants:
//! - A term ends [`SKEW`] less than `LEASE_TIME` after the last beat that the journal confirmed was *sent*. Others
//!   cannot have seen that beat earlier, so whoever counts `LEASE_TIME` from then ends later.
//! - What was found over stays over: a confirmation that comes late renews nothing, also of a beat sent in time.
//! - Neither asking nor renewing waits: a look at the clock and two atomic loads.
//!
//! The clock is `CLOCK_BOOTTIME`. It runs on while the process is stopped (SIGSTOP, a debugger, a cgroup that is frozen),
//! as every system clock does, and while the machine sleeps, as that of [`std::time::Instant`] does not; nobody can set it. Clocks
//! of two machines are never compared, only the speeds at which they run.
//!
//! Limits: a process that is stopped between the look at the clock and the system call still sends that one piece when it
//! goes on. A hypervisor that halts a machine together with its clocks is noticed by nobody on it; what it then sends
//! late it cannot settle, as the journal has another owner by then.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Clocks that are disciplined run at most a thousandth apart; a term is shorter by its tenfold, as part of
/// `LEASE_TIME`.
pub const SKEW: f64 = 0.01;

/// No time is before it, so a term that ends here is over.
const VOID: u64 = 0;

/// Since this machine was started, by a clock that runs on while it sleeps; in nanoseconds, of which a `u64` holds 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    pub fn now() -> Self {
        let time = Duration::try_from(clock_gettime(ClockId::Boottime));
        Self::after(time.expect("no machine was started in the future"))
    }

    /// That long after the start.
    pub fn after(time: Duration) -> Self {
        Self(nanos(time))
    }

    /// Zero where `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long one incarnation of a node is taken to live. Whoever lets it go ends it.
#[derive(Debug)]
pub struct Term {
    end: Arc<AtomicU64>,
    length: Duration,
}

/// The right to send one partition's events. Clones share it.
#[derive(Clone, Debug)]
pub struct Lease {
    end: Arc<AtomicU64>,
    withdrawn: Arc<AtomicBool>,
}

impl Term {
    /// With the statement that made the incarnation known, and was sent then.
    pub fn begin(sent: BootTime, lease_time: Duration) -> Self {
        let length = lease_time.mul_f64(1.0 - SKEW);
        Self { end: Arc::new(AtomicU64::new((sent + length).0)), length }
    }

    /// A beat that was sent then is confirmed now. `false` if the term is over, which it stays.
    pub fn renew(&self, sent: BootTime, now: BootTime) -> bool {
        let renewed = (sent + self.length).0;
        let later = |end: u64| (now.0 < end).then_some(end.max(renewed));
        self.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, later).is_ok() || self.void()
    }

    pub fn is_over(&self, now: BootTime) -> bool {
        !lasts(&self.end, now)
    }

    /// When it will be over unless it is renewed.
    pub fn end(&self) -> BootTime {
        BootTime(self.end.load(Ordering::Acquire))
    }

    /// For as long as the term lasts.
    pub fn lease(&self) -> Lease {
        Lease { end: Arc::clone(&self.end), withdrawn: Arc::default() }
    }

    /// Ends this lease alone, for good.
    pub fn withdraw(&self, lease: &Lease) {
        lease.withdrawn.store(true, Ordering::Release);
    }

    fn void(&self) -> bool {
        self.end.store(VOID, Ordering::Release);
        false
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.void();
    }
}

impl Lease {
    /// Whether it may be sent now.
    pub fn holds(&self) -> bool {
        self.holds_at(BootTime::now())
    }

    pub fn holds_at(&self, now: BootTime) -> bool {
        !self.withdrawn.load(Ordering::Acquire) && lasts(&self.end, now)
    }
}

/// Whether a term lasts. One that does not is void from now on: the thread that renews it may have looked at the clock
/// earlier than this one.
fn lasts(end: &AtomicU64, now: BootTime) -> bool {
    let void = |end: u64| (now.0 >= end).then_some(VOID);
    now.0 < end.load(Ordering::Acquire)
        || end.fetch_update(Ordering::AcqRel, Ordering::Acquire, void).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_TIME: Duration = Duration::from_millis(3000);
    const LENGTH: Duration = Duration::from_millis(2970);
    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> BootTime {
        BootTime::after(Duration::from_millis(ms))
    }

    #[test]
    fn a_lease_ends_by_itself_a_little_before_others_may_count_it_out() {
        let term = Term::begin(at(1000), LEASE_TIME);
        let lease = term.lease();
        assert_eq!(term.end(), at(1000) + LENGTH);
        assert!(lease.holds_at(at(1000) + (LENGTH - MS)));
        assert!(!lease.holds_at(at(1000) + LENGTH));
    }

    #[test]
    fn a_renewal_counts_from_when_the_beat_was_sent() {
        let term = Term::begin(at(1000), LEASE_TIME);
        let lease = term.lease();
        assert!(term.renew(at(1750), at(3000)), "it took long to be confirmed");
        assert!(lease.holds_at(at(1750) + (LENGTH - MS)));
        assert!(!lease.holds_at(at(1750) + LENGTH));
    }

    #[test]
    fn a_renewal_begun_before_the_end_and_answered_after_it_is_none() {
        let term = Term::begin(at(1000), LEASE_TIME);
        let lease = term.lease();
        assert!(!term.renew(at(3900), at(3970)));
        assert!(!lease.holds_at(at(3960)), "the earlier time is over with it");
        assert!(term.is_over(at(0)));
    }

    #[test]
    fn what_was_found_over_is_not_renewed_by_a_thread_that_looked_at_the_clock_earlier() {
        for found in [Term::is_over, |term: &Term, now| !term.lease().holds_at(now)] {
            let term = Term::begin(at(1000), LEASE_TIME);
            assert!(found(&term, at(3970)));
            assert!(!term.renew(at(3900), at(3960)));
            assert!(!term.lease().holds_at(at(3961)));
        }
    }

    #[test]
    fn an_older_beat_confirmed_later_takes_nothing_back() {
        let term = Term::begin(at(1000), LEASE_TIME);
        assert!(term.renew(at(2500), at(2510)));
        assert!(term.renew(at(1750), at(2520)));
        assert_eq!(term.end(), at(2500) + LENGTH);
    }

    #[test]
    fn one_lease_is_withdrawn_and_the_others_of_the_term_go_on() {
        let term = Term::begin(at(1000), LEASE_TIME);
        let (given_up, kept) = (term.lease(), term.lease());
        let in_use = given_up.clone();
        term.withdraw(&given_up);
        assert!(!in_use.holds_at(at(1001)));
        assert!(term.renew(at(1750), at(1751)));
        assert!(!in_use.holds_at(at(1752)), "no renewal brings it back");
        assert!(kept.holds_at(at(1752)));
    }

    #[test]
    fn a_term_that_is_let_go_ends_its_leases_at_once() {
        let term = Term::begin(at(1000), LEASE_TIME);
        let lease = term.lease();
        drop(term);
        assert!(!lease.holds_at(at(1001)));
    }

    #[test]
    fn no_length_overflows() {
        let term = Term::begin(BootTime(u64::MAX - 1), Duration::from_secs(u64::MAX / 2));
        assert!(term.lease().holds_at(BootTime(u64::MAX - 1)));
    }

    /// Of threads that ask and one that renews as fast as they can, over a clock that they all advance.
    #[test]
    fn nobody_sees_a_lease_hold_again_that_somebody_found_over() {
        for _ in 0..200 {
            let term = Term::begin(at(1), LEASE_TIME);
            let clock = AtomicU64::new(at(1).0);
            let is_over = AtomicBool::new(false);
            let tick = || BootTime(clock.fetch_add(nanos(MS) * 100, Ordering::SeqCst));
            std::thread::scope(|threads| {
                for _ in 0..2 {
                    let lease = term.lease();
                    let (tick, is_over) = (&tick, &is_over);
                    threads.spawn(move || {
                        for _ in 0..500 {
                            let was_over = is_over.load(Ordering::SeqCst);
                            let holds = lease.holds_at(tick());
                            assert!(!(was_over && holds));
                            is_over.fetch_or(!holds, Ordering::SeqCst);
                        }
                    });
                }
                for _ in 0..100 {
                    let sent = tick();
                    term.renew(sent, tick());
                }
            });
        }
    }

    #[test]
    fn the_clock_is_the_one_that_runs_on_while_the_machine_sleeps() {
        let before = BootTime::now();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let after = BootTime::now();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let uptime = BootTime::after(Duration::from_secs_f64(seconds));
        let hundredth = Duration::from_millis(10);
        assert!(before.saturating_since(uptime) <= hundredth, "it is cut off to hundredths");
        assert!(uptime <= after);
    }
}
