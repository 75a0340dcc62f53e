//! Tickets: the promise that events are kept, to be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The promise for some events, to be waited for.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<Countdown>);

#[derive(Debug)]
struct Countdown {
    left: AtomicUsize,
    failed: AtomicBool,
    done: Notify,
}

impl Ticket {
    pub(super) fn new(events: usize) -> Self {
        let left = AtomicUsize::new(events);
        Self(Arc::new(Countdown { left, failed: AtomicBool::new(false), done: Notify::new() }))
    }

    /// Waits until every event is on disk or settled; `false` if the disk refused one.
    pub async fn kept(&self) -> bool {
        loop {
            let done = self.0.done.notified();
            if self.0.left.load(Ordering::Acquire) == 0 {
                return !self.0.failed.load(Ordering::Acquire);
            }
            done.await;
        }
    }

    /// Refuses the promise for an event that is kept and tried again all the same; the new ticket is
    /// for that, and nobody waits for it.
    pub(super) fn renewed(&self) -> Self {
        self.refuse();
        Self::new(1)
    }

    /// One of the events is on disk or settled.
    pub(super) fn keep(&self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.done.notify_waiters();
        }
    }

    /// The disk does not take one of the events.
    pub(super) fn refuse(&self) {
        self.0.failed.store(true, Ordering::Release);
        self.keep();
    }
}

/// Promises that are kept as soon as this goes, wherever that happens.
pub struct Promises(pub Vec<Ticket>);

impl Drop for Promises {
    fn drop(&mut self) {
        self.0.iter().for_each(Ticket::keep);
    }
}
