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

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;
    use crate::receiver::Receivers;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        /// The fields of each sum, in order.
        fn sums(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let fields =
                |line: &str| line.split_once(" receiver=").map(|(_, rest)| rest.to_owned());
            text.lines().filter_map(fields).collect()
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_summed_up_once_a_minute_for_each_receiver() {
        let (log, tasks, stop) = (Log::default(), TaskTracker::new(), CancellationToken::new());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let names = Receivers::new(["main", "crm", "erp"].map(|name| name.parse().unwrap()));
        let copies = FullCopies::new(3, tasks.clone(), stop.clone());
        let note = |name: &str, is_kept| {
            let id = names.id(name).unwrap();
            copies.note(id, names.name(id), 7, is_kept);
        };
        let instant = Duration::from_millis(1);
        note("crm", false);
        for _ in 0..1000 {
            note("crm", true);
        }
        sleep(MINUTE - instant).await;
        note("erp", true);
        note("crm", true);
        assert_eq!(log.sums(), Vec::<String>::new(), "its minute is not over");
        sleep(2 * instant).await;
        assert_eq!(log.sums(), ["crm count=1001 missed=1 limit=7"]);
        sleep(10 * MINUTE).await;
        let both = ["crm count=1001 missed=1 limit=7", "erp count=1 missed=0 limit=7"];
        assert_eq!(log.sums(), both, "nothing is said of minutes without any");
        note("crm", true);
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        assert_eq!(log.sums()[2..], ["crm count=1 missed=0 limit=7"], "a stop does not wait");
    }
}
