//! The writer: the thread that brings what waits in the inbox to the store.
//!
//! Owns when it writes, and that a store that failed is opened anew. Everything that waits goes into one
//! transaction and one fsync; a disk that fails is tried again every [`TRY_AGAIN`].

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::inbox::{Due, Inbox};
use super::metrics::JournalMetrics;
use super::row::Changes;
use super::store::{DiskError, LettersLeft, Opener, Store};
use super::ticket::Answers;
use crate::receiver::Receivers;

/// How long the writer waits for company, and for events to be settled, before it writes: some fsyncs
/// long, and well under the 20 ms that a sender may wait.
const LINGER: Duration = Duration::from_millis(5);

/// How often a disk that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the journal's handle and its writer share.
pub struct WriterState {
    pub opener: Opener,
    /// As the first store that was opened knows them.
    pub receivers: Receivers,
    /// For each receiver.
    pub dead_limit: u64,
    pub metrics: JournalMetrics,
    pub inbox: Mutex<Inbox>,
    /// The writer rests too long for what came meanwhile.
    pub wake: Condvar,
    /// The writer is done with a batch.
    pub done: Condvar,
    /// The writer could not write.
    pub refused: Notify,
    /// Gone while a disk that failed is tried again.
    pub store: RwLock<Option<Box<dyn Store>>>,
    /// Where those run who wait on tickets.
    pub runtime: Option<Handle>,
}

impl WriterState {
    pub fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics while it holds this lock")
    }

    /// Changes the inbox, and wakes the writer where it rests longer than it now may. Waking costs a
    /// system call, even if nobody rests.
    pub fn change<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let mut inbox = self.lock();
        let result = change(&mut inbox);
        let late = inbox.resting.is_some_and(|known| known != inbox.due);
        if late {
            inbox.resting = None;
        }
        drop(inbox);
        if late {
            self.wake.notify_one();
        }
        result
    }

    /// Waits until the changes to dead letters that were handed in so far are written, or cannot be.
    pub fn wait_written(&self) {
        let inbox = self.lock();
        let target = inbox.taken + u64::from(inbox.has_ends());
        let waits = |inbox: &mut Inbox| inbox.done < target && inbox.failing.is_none();
        drop(self.done.wait_while(inbox, waits).expect("nothing panics while it holds this lock"));
    }

    pub fn read<T>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        read(store.as_deref().ok_or_else(|| DiskError("it is being opened again".into()))?)
    }

    pub fn write_until_closed(&self) {
        while let Some(changes) = self.next_changes() {
            match self.commit(&changes) {
                Ok(letters) => self.written(&changes, &letters),
                Err(fault) => {
                    if self.not_written(fault) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for something to write; `None` when there is nothing left and nothing will come.
    fn next_changes(&self) -> Option<Changes> {
        loop {
            let mut inbox = self.rest();
            if !inbox.closing {
                drop(inbox);
                std::thread::sleep(LINGER);
                inbox = self.lock();
            }
            if !inbox.pending.is_empty() {
                return Some(inbox.take());
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

    fn commit(&self, changes: &Changes) -> Result<Vec<LettersLeft>, DiskError> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if store.is_none() {
            let opened = (self.opener)(&self.receivers);
            *store = Some(opened.map_err(|error| DiskError(error.to_string().into()))?);
        }
        let open = store.as_ref().expect("it was opened if it was not open");
        let begun = Instant::now();
        let committed = open.commit(changes, self.dead_limit);
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        if committed.is_err() {
            *store = None;
        }
        committed
    }

    fn written(&self, changes: &Changes, letters: &[LettersLeft]) {
        self.metrics.batch_changes.observe(changes.len() as f64);
        for ((receiver, name), LettersLeft { kept, dropped }) in self.receivers.iter().zip(letters)
        {
            let metrics = self.metrics.of(receiver);
            metrics.dead.set(i64::try_from(*kept).unwrap_or(i64::MAX));
            metrics.dropped.inc_by(*dropped);
            if *dropped > 0 {
                warn!(
                    receiver = %name,
                    dropped,
                    limit = self.dead_limit,
                    "oldest dead letters are dropped; see DEAD_LIMIT"
                );
            }
        }
        let mut inbox = self.lock();
        let answers = inbox.written();
        if inbox.failing.take().is_some() {
            info!("the journal is written again");
        }
        drop(inbox);
        self.done.notify_all();
        self.give(answers);
    }

    /// Gives answers, all from one task on the runtime: each that this thread gave itself would wake the
    /// runtime anew, with a system call. A task without a runtime is dropped, which gives them too, so
    /// nobody need track it.
    fn give(&self, answers: Answers) {
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(async move { drop(answers) }));
        }
    }

    /// Puts the batch back and rests; `true` if there is no time to try again.
    fn not_written(&self, fault: DiskError) -> bool {
        self.metrics.failures.inc();
        let mut inbox = self.lock();
        if inbox.failing.is_none() {
            error!(error = %fault, "the journal cannot be written: new events are refused until it can");
        }
        inbox.failing = Some(fault);
        let answers = inbox.not_written();
        self.done.notify_all();
        self.give(answers);
        self.refused.notify_one();
        if inbox.closing {
            let events = inbox.unwritten().count();
            error!(events, "the journal could not be written before the stop");
            return true;
        }
        let rested = self.wake.wait_timeout_while(inbox, TRY_AGAIN, |inbox| !inbox.closing);
        drop(rested);
        false
    }
}
