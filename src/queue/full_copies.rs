//! Full copies: what a receiver does not get because it has no room, summed up once a minute.
//!
//! A copy that is down for a week would fill the log otherwise. What each is about is with its dead letter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::receiver::{ReceiverId, ReceiverName};

const MINUTE: Duration = Duration::from_secs(60);

pub struct FullCopies {
    counts: Arc<Mutex<Vec<Count>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// In the current minute.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Those that are dead letters.
    dead: u64,
    /// Those that the disk did not take either.
    missed: u64,
}

impl FullCopies {
    pub fn new(receivers: usize, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let counts = Arc::new(Mutex::new(vec![Count::default(); receivers]));
        Self { counts, tasks, stop }
    }

    /// With the receiver's name and `QUEUE_LIMIT`.
    pub fn note(&self, receiver: ReceiverId, name: &ReceiverName, limit: usize, is_kept: bool) {
        let mut counts = lock(&self.counts);
        let count = &mut counts[receiver.index()];
        let is_first = count.dead + count.missed == 0;
        match is_kept {
            true => count.dead += 1,
            false => count.missed += 1,
        }
        drop(counts);
        if is_first {
            let (counts, stop) = (Arc::clone(&self.counts), self.stop.clone());
            let name = name.clone();
            self.tasks.spawn(async move {
                stop.run_until_cancelled(sleep(MINUTE)).await;
                let Count { dead, missed } = std::mem::take(&mut lock(&counts)[receiver.index()]);
                error!(
                    receiver = %name,
                    count = dead,
                    missed,
                    limit,
                    "a receiver has no room: its events become dead letters, see QUEUE_LIMIT and QUEUE_BYTES; what \
                     is missed the disk did not take either"
                );
            });
        }
    }
}

fn lock(counts: &Mutex<Vec<Count>>) -> MutexGuard<'_, Vec<Count>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
