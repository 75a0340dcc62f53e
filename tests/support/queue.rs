//! The queue without a process: its settings, and in place of the HTTP client somebody who takes events once
//! the test lets it, and notes each.

use std::sync::Arc;

use bytes::Bytes;
use callhook::attempt::{Attempt, Deliver, Outcome};
use callhook::event::EventFilter;
use callhook::history::History;
use callhook::journal::{Journal, Recovered};
use callhook::queue::{Limits, Queue, QueueParts, QueueSettings};
use callhook::retry::RetryPolicy;
use callhook::routing::AllowedHosts;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::disk::Disk;
use super::record::{LIMIT, Record};

/// What a test has unless it says otherwise: all types are delivered, each at most once and without a pause.
pub fn settings() -> QueueSettings {
    QueueSettings {
        filter: EventFilter::All,
        limits: Limits { concurrency: 4, queue: 1000, breaker: 5 },
        retry: RetryPolicy::once(),
        routing_timeout: LIMIT,
        allowed_hosts: AllowedHosts::Any,
        receiver: String::new(),
    }
}

/// What was sent, and what a crash at that moment would leave on the disk.
pub type Taken = (Attempt, Vec<u8>);

/// Takes an event for each permit of its gate. The clones are the same one.
#[derive(Clone)]
pub struct Taker {
    pub gate: Arc<Semaphore>,
    disk: Disk,
    taken: Arc<Record<Taken>>,
}

impl Taker {
    /// One whose gate is closed.
    pub fn of(disk: &Disk) -> Taker {
        Taker { gate: Arc::new(Semaphore::new(0)), disk: disk.clone(), taken: Arc::default() }
    }

    /// The same with its gate wide open.
    pub fn opened(self) -> Taker {
        self.gate.add_permits(1000);
        self
    }

    /// Waits until at least so many events were taken; all that were.
    pub async fn taken(&self, n: usize) -> Vec<Taken> {
        let enough = |taken: &[Taken]| (taken.len() >= n).then(|| taken.to_vec());
        self.taken.until(&format!("{n} events"), enough).await
    }

    /// A queue on the disk that delivers to it, and the calls that it found unfinished.
    pub fn queue(&self, settings: QueueSettings) -> (Queue, Arc<Journal>, Recovered) {
        let (journal, mut recovered) = open(&self.disk);
        let (journal, calls) = (Arc::new(journal), std::mem::take(&mut recovered.calls));
        let parts = QueueParts {
            deliver: Some(Arc::new(self.clone())),
            journal: Arc::clone(&journal),
            history: History::default(),
            metrics: Arc::default(),
        };
        let queue = Queue::start(settings, parts, recovered);
        (queue, journal, Recovered { calls, ..Recovered::default() })
    }
}

impl Deliver for Taker {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let taker = self.clone();
        Box::pin(async move {
            taker.gate.acquire().await.expect("a gate is never closed for good").forget();
            taker.taken.push((attempt, taker.disk.bytes()));
            Outcome::Delivered { status: 200, answer: Some(Bytes::new()) }
        })
    }
}

/// The journal on this disk, and what it finds there.
pub fn open(disk: &Disk) -> (Journal, Recovered) {
    Journal::open(disk.opener(), true, 100).expect("a journal that is whole")
}
