//! The failure log's measure: so much in full, the rest summed up.
//!
//! A receiver that answers each attempt with an error at once would fill a disk with its failures. So
//! [`AT_ONCE`] records a second are written in full; what is beyond is counted by what operators sort by, and
//! written once that second is over. Each event that is given up is a dead letter all the same.
//!
//! Limit: [`MOST_KINDS`] sums a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::attempt::{Attempt, Failure};
use crate::log::FAILURE;
use crate::receiver::ReceiverName;

/// In full, each second.
const AT_ONCE: u32 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// Types may come from outside; those beyond are summed up as `other`.
const MOST_KINDS: usize = 100;

pub struct FailureLog {
    summary: Arc<Mutex<Summary>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Summary {
    /// When the current second began.
    since: Option<Instant>,
    in_full: u32,
    sums: BTreeMap<Kind, Sum>,
}

/// What failures are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    receiver: ReceiverName,
    /// As it is shown.
    url: String,
    r#type: String,
    code: &'static str,
    status: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    failed: u64,
    given_up: u64,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    InFull,
    /// It is the first of its second, whose end must be waited for.
    SummedFirst(Instant),
    Summed,
}

impl Summary {
    fn record(&mut self, kind: Kind, given_up: bool, now: Instant) -> Recorded {
        if self.sums.is_empty() && self.since.is_none_or(|since| now >= since + SECOND) {
            (self.since, self.in_full) = (Some(now), 0);
        }
        if self.in_full < AT_ONCE {
            self.in_full += 1;
            return Recorded::InFull;
        }
        let is_first = self.sums.is_empty();
        let has_room = self.sums.len() < MOST_KINDS || self.sums.contains_key(&kind);
        let kind = if has_room { kind } else { Kind { r#type: "other".to_owned(), ..kind } };
        let sum = self.sums.entry(kind).or_default();
        sum.failed += 1;
        sum.given_up += u64::from(given_up);
        match self.since.filter(|_| is_first) {
            Some(since) => Recorded::SummedFirst(since + SECOND),
            None => Recorded::Summed,
        }
    }

    /// Ends the second.
    fn take(&mut self) -> BTreeMap<Kind, Sum> {
        self.since = None;
        std::mem::take(&mut self.sums)
    }
}

impl FailureLog {
    pub fn new(tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { summary: Arc::default(), tasks, stop }
    }

    /// Whether a failure is to be logged in full; if not, it is summed up.
    pub fn wants_in_full(
        &self,
        (receiver, url): (&ReceiverName, &str),
        attempt: &Attempt,
        failure: &Failure,
        given_up: bool,
    ) -> bool {
        let kind = Kind {
            receiver: receiver.clone(),
            url: url.to_owned(),
            r#type: attempt.item.event.kind.name().to_owned(),
            code: failure.code.name(),
            status: failure.status,
        };
        let recorded = lock(&self.summary).record(kind, given_up, Instant::now());
        if let Recorded::SummedFirst(end) = recorded {
            let summary = Arc::clone(&self.summary);
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                stop.run_until_cancelled(sleep_until(end)).await;
                sum_up(lock(&summary).take());
            });
        }
        recorded == Recorded::InFull
    }
}

fn lock(summary: &Mutex<Summary>) -> MutexGuard<'_, Summary> {
    summary.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sum_up(sums: BTreeMap<Kind, Sum>) {
    for (kind, sum) in sums {
        macro_rules! record {
            ($level:ident) => {
                $level!(
                    target: FAILURE,
                    r#type = kind.r#type,
                    code = kind.code,
                    status = kind.status,
                    count = sum.failed,
                    given_up = sum.given_up,
                    url = kind.url,
                    receiver = %kind.receiver,
                    "webhook failures summed up"
                )
            };
        }
        match sum.given_up {
            0 => record!(warn),
            _ => record!(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(r#type: &str) -> Kind {
        let (receiver, url) = (ReceiverName::main(), String::new());
        let (r#type, code) = (r#type.to_owned(), "ERR_BAD_RESPONSE");
        Kind { receiver, url, r#type, code, status: Some(500) }
    }

    #[tokio::test]
    async fn twenty_a_second_are_in_full_and_the_rest_is_summed_up_by_kind() {
        let (mut summary, now) = (Summary::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert_eq!(summary.record(kind("a"), true, now), Recorded::InFull);
        }
        let end = Recorded::SummedFirst(now + SECOND);
        assert_eq!(summary.record(kind("a"), true, now), end);
        assert_eq!(summary.record(kind("b"), false, now), Recorded::Summed);
        // Late, but whoever waits for the end of the second has not come yet.
        assert_eq!(summary.record(kind("a"), false, now + 2 * SECOND), Recorded::Summed);
        let sums = summary.take();
        assert_eq!(sums[&kind("a")], Sum { failed: 2, given_up: 1 });
        assert_eq!(sums[&kind("b")], Sum { failed: 1, given_up: 0 });
        assert_eq!(summary.record(kind("a"), true, now + 2 * SECOND), Recorded::InFull);
    }

    #[tokio::test]
    async fn a_second_that_was_not_full_ends_by_itself() {
        let (mut summary, now) = (Summary::default(), Instant::now());
        for second in 0..3 {
            for _ in 0..AT_ONCE {
                let recorded = summary.record(kind("a"), false, now + second * SECOND);
                assert_eq!(recorded, Recorded::InFull);
            }
        }
    }

    #[tokio::test]
    async fn made_up_types_are_one() {
        let (mut summary, now) = (Summary::default(), Instant::now());
        for n in 0..AT_ONCE + 3 * 100 {
            summary.record(kind(&n.to_string()), false, now);
        }
        let sums = summary.take();
        assert_eq!(sums.len(), MOST_KINDS + 1);
        assert_eq!(sums[&kind("other")].failed, 200);
    }
}
