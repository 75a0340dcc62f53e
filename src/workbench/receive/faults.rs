//! Faults: what goes wrong with which request.
//!
//! Pure: the orders and a request's call and type in, its fate out.
//!
//! Invariants:
//! - The same orders, seed and place of a request (the third of the second call, say) give the same
//!   fate, whatever the calls' uuids are.
//! - Orders add up: `--fail 10%:503 --fail 10%:500` fails one request in five, `--fail 2:500 --fail
//!   1:503` the first three of a call. A dropped request counts for neither. Delays are added.
//!
//! Limit: the last [`CALLS`] calls are told apart; one that comes back after that is a new one.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use rand_distr::StandardUniform;

use super::orders::{Dose, FaultOrder};
use super::reply::Ending;
use crate::workbench::dice::Dice;

/// How many calls are remembered; those that were silent the longest are forgotten first.
pub const CALLS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not 0");

/// The low bits of a dice stream are the request's place in its call, the others the call's number.
const REQUESTS_BITS: u32 = 24;

/// The orders, and how far each call has come with them.
#[derive(Debug)]
pub struct Faults {
    endings: Vec<FaultOrder<Ending>>,
    delays: Vec<FaultOrder<Duration>>,
    seed: u64,
    calls: LruCache<u64, OrderedCall>,
    /// Calls seen so far.
    begun: u64,
}

#[derive(Debug)]
struct OrderedCall {
    /// 1, 2, …
    number: u64,
    requests: u64,
    /// For each order, endings first, how often it struck by count.
    spent: Box<[u8]>,
}

impl Faults {
    pub fn new(
        endings: Vec<FaultOrder<Ending>>,
        delays: Vec<FaultOrder<Duration>>,
        seed: u64,
    ) -> Self {
        Self { endings, delays, seed, calls: LruCache::new(CALLS), begun: 0 }
    }

    /// Whether anything depends on the seed.
    pub fn by_chance(&self) -> bool {
        let endings = self.endings.iter().map(|order| order.dose);
        let mut doses = endings.chain(self.delays.iter().map(|order| order.dose));
        let uncertain = |share: f64| share > 0.0 && share < 1.0;
        doses.any(|dose| matches!(dose, Dose::Share(share) if uncertain(share.fraction())))
    }

    /// What becomes of the next request of this call and type: how much later it is answered, and
    /// what goes wrong.
    pub fn fate(&mut self, call: u64, kind: &str) -> (Duration, Option<Ending>) {
        let (begun, orders) = (&mut self.begun, self.endings.len() + self.delays.len());
        let call = self.calls.get_or_insert_mut(call, || {
            *begun += 1;
            OrderedCall { number: *begun, requests: 0, spent: vec![0; orders].into() }
        });
        call.requests += 1;
        let stream = (call.number << REQUESTS_BITS) ^ call.requests;
        let mut dice = Dice::new(self.seed, stream);
        let (for_endings, for_delays) = call.spent.split_at_mut(self.endings.len());
        // One throw for all shares, which therefore add up; those below the throw have been passed.
        let throw: f64 = dice.throw(&StandardUniform);
        let mut passed = 0.0;
        let mut orders = self.endings.iter().zip(for_endings);
        let ending = orders.find_map(|(order, spent)| {
            let meant = order.admits(kind);
            (meant && strikes(order.dose, spent, throw, &mut passed)).then(|| order.effect.clone())
        });
        let mut delay = Duration::ZERO;
        for (order, spent) in self.delays.iter().zip(for_delays) {
            let throw: f64 = dice.throw(&StandardUniform);
            if order.admits(kind) && strikes(order.dose, spent, throw, &mut 0.0) {
                delay += order.effect;
            }
        }
        (delay, ending)
    }
}

fn strikes(dose: Dose, spent: &mut u8, throw: f64, passed: &mut f64) -> bool {
    match dose {
        Dose::Share(share) => {
            *passed += share.fraction();
            throw < *passed
        }
        Dose::Times(times) => {
            let left = *spent < times;
            *spent += u8::from(left);
            left
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::super::orders;
    use super::*;

    fn faults(fails: &[&str], drops: &[&str], delays: &[&str], seed: u64) -> Faults {
        let drops = drops.iter().map(|text| orders::drop(text).unwrap());
        let endings = drops.chain(fails.iter().map(|text| orders::fail(text).unwrap())).collect();
        let delays = delays.iter().map(|text| orders::delay(text).unwrap()).collect();
        Faults::new(endings, delays, seed)
    }

    /// 0 for a closed connection.
    fn statuses(faults: &mut Faults, calls: u64, requests: u64) -> Vec<u16> {
        let places = (0..calls).flat_map(|call| (0..requests).map(move |_| call));
        let fate = places.map(|call| match faults.fate(call, "transcription").1 {
            Some(ending) => ending.status().map_or(0, |status| status.as_u16()),
            None => 200,
        });
        fate.collect()
    }

    #[test]
    fn shares_add_up() {
        let mut faults = faults(&["10%:503", "20%:500"], &["5%"], &[], 1);
        let statuses = statuses(&mut faults, 1000, 10);
        for (status, least, most) in [(503, 900, 1100), (500, 1850, 2150), (0, 400, 600)] {
            let count = statuses.iter().filter(|given| **given == status).count();
            assert!((least..=most).contains(&count), "{status}: {count}");
        }
    }

    #[test]
    fn counts_add_up_in_each_call() {
        let mut faults = faults(&["2:500", "1:503"], &[], &[], 1);
        let each = [500, 500, 503, 200, 200];
        assert_eq!(statuses(&mut faults, 3, 5), [each, each, each].concat());
    }

    #[test]
    fn a_type_is_counted_for_itself() {
        let mut faults = faults(&["call_ended:1:500"], &[], &["call_ended:1s", "2s"], 1);
        for (kind, ending, seconds) in [
            ("call_started", None, 2),
            ("call_ended", Some(Ending::Fault(StatusCode::INTERNAL_SERVER_ERROR)), 3),
            ("call_ended", None, 3),
        ] {
            let delay = Duration::from_secs(seconds);
            assert_eq!(faults.fate(1, kind), (delay, ending), "{kind}");
        }
    }

    #[test]
    fn a_seed_repeats_the_shares_for_calls_with_other_names() {
        let throws = |seed, named: u64| -> Vec<(Duration, Option<Ending>)> {
            let mut faults = faults(&["30%"], &[], &["30%:1s"], seed);
            (0..200).map(|n| faults.fate(named + n % 7, "x")).collect()
        };
        assert_eq!(throws(1, 0), throws(1, 900));
        assert_ne!(throws(1, 0), throws(2, 0));
    }

    #[test]
    fn only_the_last_calls_are_told_apart() {
        let mut faults = faults(&["1:500"], &[], &[], 1);
        let most = u64::try_from(CALLS.get()).unwrap();
        assert!(statuses(&mut faults, most, 1).iter().all(|status| *status == 500));
        assert_eq!(faults.fate(0, "x").1, None, "it is remembered still");
        assert!(faults.fate(most, "x").1.is_some());
        assert!(faults.fate(1, "x").1.is_some(), "it was silent the longest");
    }
}
