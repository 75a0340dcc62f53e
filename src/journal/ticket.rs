//! Tickets: what is promised, to be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The promise for some rows. Clones share it.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<Countdown>);

#[derive(Debug)]
struct Countdown {
    left: AtomicUsize,
    refused: AtomicBool,
    done: Notify,
}

impl Ticket {
    pub(super) fn new(rows: usize) -> Self {
        let left = AtomicUsize::new(rows);
        Self(Arc::new(Countdown { left, refused: AtomicBool::new(false), done: Notify::new() }))
    }

    /// Waits until every row is kept, or one of them is refused, which is `false`.
    pub async fn kept(&self) -> bool {
        loop {
            let done = self.0.done.notified();
            if let Some(kept) = self.answered() {
                return kept;
            }
            done.await;
        }
    }

    /// Whether all are kept, once that is known.
    pub fn answered(&self) -> Option<bool> {
        let all = self.0.left.load(Ordering::Acquire) == 0;
        let refused = self.0.refused.load(Ordering::Acquire);
        (all || refused).then_some(!refused)
    }

    /// One of the rows is kept, or refused.
    pub(super) fn answer(&self, kept: bool) {
        if !kept {
            self.0.refused.store(true, Ordering::Release);
        }
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1 || !kept {
            self.0.done.notify_waiters();
        }
    }
}

/// Answers that are given as soon as this goes, wherever that happens.
#[derive(Default)]
pub struct Answers(pub Vec<(Ticket, bool)>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.iter().for_each(|(ticket, kept)| ticket.answer(*kept));
    }
}
