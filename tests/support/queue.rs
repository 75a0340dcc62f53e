//! The queue without a process: its settings, and a stand-in for the HTTP client that takes events when the
//! test lets it, and notes them.

use std::sync::Arc;

use bytes::Bytes;
use callhook::attempt::{Attempt, Deliver, Outcome};
use callhook::history::History;
use callhook::journal::{Journal, Recovered};
use callhook::queue::metrics::QueueMetrics;
use callhook::queue::{Limits, Queue, QueueParts, QueueSettings, ReceiverRules};
use callhook::receiver::Receivers;
use callhook::routing::RouteRules;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::disk::Disk;
use super::record::{LIMIT, Record};

/// Those of the main receiver unless a test says otherwise: all types are delivered, with one attempt each.
pub fn rules() -> ReceiverRules {
    ReceiverRules {
        limits: Limits { concurrency: 4, queue: 1000, routing_timeout: LIMIT, ..Limits::default() },
        ..ReceiverRules::default()
    }
}

/// The settings of a test unless it says otherwise: one receiver.
pub fn settings() -> QueueSettings {
    of_main(rules())
}

/// The same with other rules.
pub fn of_main(rules: ReceiverRules) -> QueueSettings {
    QueueSettings { receivers: vec![rules], relay_timeout: LIMIT, rules: RouteRules::ANYWHERE }
}

/// An attempt, and what a crash at that moment would leave on the disk.
pub type Taken = (Attempt, Vec<u8>);

/// Takes one event for each permit of its gate. Clones share everything.
#[derive(Clone)]
pub struct Taker {
    pub gate: Arc<Semaphore>,
    disk: Disk,
    taken: Arc<Record<Taken>>,
}

impl Taker {
    /// A taker with a closed gate.
    pub fn of(disk: &Disk) -> Taker {
        Taker { gate: Arc::new(Semaphore::new(0)), disk: disk.clone(), taken: Arc::default() }
    }

    /// Opens the gate for a thousand events.
    pub fn opened(self) -> Taker {
        self.gate.add_permits(1000);
        self
    }

    /// Waits until at least `n` events were taken; returns all that were.
    pub async fn taken(&self, n: usize) -> Vec<Taken> {
        let enough = |taken: &[Taken]| (taken.len() >= n).then(|| taken.to_vec());
        self.taken.until(&format!("{n} events"), enough).await
    }

    /// A queue on the disk that delivers to this taker, its journal, and the calls that it found unfinished.
    pub fn queue(&self, settings: QueueSettings) -> (Queue, Arc<Journal>, Recovered) {
        queue_to(&[self], settings)
    }
}

/// The same for several receivers on one disk, as the settings name them.
pub fn queue_to(takers: &[&Taker], settings: QueueSettings) -> (Queue, Arc<Journal>, Recovered) {
    queue_measured(takers, settings, &Arc::new(QueueMetrics::of_receivers(takers.len())))
}

/// The same with these metrics.
pub fn queue_measured(
    takers: &[&Taker],
    settings: QueueSettings,
    metrics: &Arc<QueueMetrics>,
) -> (Queue, Arc<Journal>, Recovered) {
    let disk = &takers[0].disk;
    let opened = Journal::open(disk.opener(), true, &settings.names(), 100);
    let (journal, mut recovered) = opened.expect("a journal that is whole");
    let (journal, calls) = (Arc::new(journal), std::mem::take(&mut recovered.calls));
    let deliver = takers.iter().map(|taker| Some(Arc::new((*taker).clone()) as _)).collect();
    let parts = QueueParts {
        deliver,
        journal: Arc::clone(&journal),
        history: History::default(),
        metrics: Arc::clone(metrics),
    };
    let queue = Queue::start(settings, parts, recovered);
    (queue, journal, Recovered { calls, ..Recovered::default() })
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

pub fn open(disk: &Disk) -> (Journal, Recovered) {
    Journal::open(disk.opener(), true, &Receivers::main(), 100).expect("a journal that is whole")
}
