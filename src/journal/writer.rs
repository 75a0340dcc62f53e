//! The writer: the thread that brings what waits in the inbox to the disk.
//!
//! Owns when it writes, and what follows for those who wait. Everything that waits goes into one
//! transaction and one fsync; a disk that fails is tried again every [`TRY_AGAIN`].

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::inbox::{Due, Inbox, Work};
use super::store::{Batch, Committed, Store};
use super::ticket::Promises;
use super::{DiskError, Shared, gauged};

/// How long the writer waits for company, and for events to be settled, before it writes: some fsyncs
/// long, and well under the 20 ms that a sender may wait.
const LINGER: Duration = Duration::from_millis(5);

/// How often a disk that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn write_until_closed(&self) {
        while let Some(work) = self.next_work() {
            match self.commit(&work.batch) {
                Ok(committed) => self.written(work, committed),
                Err(fault) => {
                    if self.not_written(work, fault) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for something to write; `None` when there is nothing left and nothing will come.
    fn next_work(&self) -> Option<Work> {
        loop {
            let mut inbox = self.rest();
            if !inbox.closing {
                drop(inbox);
                std::thread::sleep(LINGER);
                inbox = self.lock();
            }
            if !inbox.is_empty() {
                inbox.taken += 1;
                return Some(Work::of(&mut inbox));
            }
            inbox.due = Due::Never;
            if inbox.closing {
                return None;
            }
        }
    }

    /// Waits until something is due, or nothing more will come.
    fn rest(&self) -> MutexGuard<'_, Inbox> {
        let mut inbox = self.lock();
        while !inbox.closing {
            let left = match inbox.due {
                Due::Soon => break,
                Due::Look { at, seen } if at <= Instant::now() => match inbox.is_overdue(seen) {
                    true => break,
                    false => continue,
                },
                Due::Look { at, .. } => at.saturating_duration_since(Instant::now()),
                Due::Never => Duration::MAX,
            };
            inbox.resting = Some(inbox.due);
            let woken = self.wake.wait_timeout(inbox, left);
            (inbox, _) = woken.expect("nothing panics while it holds this lock");
            inbox.resting = None;
        }
        inbox
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, DiskError> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if store.is_none() {
            let opened = Store::open(&self.opener);
            *store = Some(opened.map_err(|error| DiskError(error.to_string().into()))?);
        }
        let open = store.as_ref().expect("it was opened if it was not open");
        let begun = Instant::now();
        let committed = open.commit(batch, self.dead_limit);
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        committed.map_err(|error| {
            // After a fault redb wants to be opened anew.
            *store = None;
            DiskError(error.to_string().into())
        })
    }

    fn written(&self, work: Work, Committed { dead, dropped }: Committed) {
        self.metrics.batch_changes.observe(work.batch.changes() as f64);
        self.metrics.dead.set(gauged(dead));
        self.metrics.dead_dropped.inc_by(dropped);
        if dropped > 0 {
            warn!(
                dropped,
                limit = self.dead_limit,
                "oldest dead letters are dropped; see DEAD_LIMIT"
            );
        }
        let mut inbox = self.lock();
        let promises = work.keep(&mut inbox);
        inbox.done += 1;
        if inbox.failing.take().is_some() {
            info!("the journal is written again");
        }
        drop(inbox);
        self.done.notify_all();
        self.keep(promises);
    }

    /// Keeps promises, all from one task on the runtime: each that this thread kept itself would wake
    /// the runtime anew, with a system call. A task without a runtime is dropped, which keeps them too,
    /// so nobody need track it.
    fn keep(&self, promises: Promises) {
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(async move { drop(promises) }));
        }
    }

    /// Puts the work back and rests; `true` if there is no time to try again.
    fn not_written(&self, work: Work, fault: DiskError) -> bool {
        self.metrics.failures.inc();
        let mut inbox = self.lock();
        work.put_back(&mut inbox);
        inbox.done += 1;
        self.done.notify_all();
        if inbox.failing.is_none() {
            error!(error = %fault, "the journal cannot be written: new events are refused until it can");
        }
        inbox.failing = Some(fault);
        self.refused.notify_one();
        if inbox.closing {
            error!(
                events = inbox.appends.len(),
                "the journal could not be written before the stop"
            );
            return true;
        }
        let rested = self.wake.wait_timeout_while(inbox, TRY_AGAIN, |inbox| !inbox.closing);
        drop(rested);
        false
    }
}
