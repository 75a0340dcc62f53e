//! The queue on a disk that is full for a while: what it promises meanwhile, what it keeps, and that
//! deliveries do not wait for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callhook::attempt::{Attempt, Deliver, Outcome};
use callhook::event::{CallId, Event, EventFilter, EventId, EventType, Payload};
use callhook::history::History;
use callhook::journal::Journal;
use callhook::queue::{Limits, Queue, QueueParts, QueueSettings, Refused};
use callhook::retry::RetryPolicy;
use callhook::routing::AllowedHosts;
use callhook::time::timestamp_now;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::disk::Disk;

/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(10);

/// A receiver that accepts as many events as it is told to, and counts them.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    seen: Arc<Semaphore>,
}

impl Gate {
    fn closed() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), seen: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until so many events were delivered.
    async fn delivered(&self, events: u32) {
        timeout(LIMIT, self.seen.acquire_many(events)).await.unwrap().unwrap().forget();
    }
}

impl Deliver for Gate {
    fn attempt(&self, _: Attempt) -> BoxFuture<'static, Outcome> {
        let gate = self.clone();
        Box::pin(async move {
            gate.open.acquire().await.unwrap().forget();
            gate.seen.add_permits(1);
            Outcome::Delivered { status: 200, answer: Some(Bytes::new()) }
        })
    }
}

fn queue(disk: &Disk, gate: &Gate) -> (Queue, Arc<Journal>) {
    let settings = QueueSettings {
        filter: EventFilter::All,
        limits: Limits { concurrency: 4, queue: 1000, breaker: 5 },
        retry: RetryPolicy::once(),
        routing_timeout: LIMIT,
        allowed_hosts: AllowedHosts::Any,
        receiver: String::new(),
    };
    let (journal, recovered) = Journal::open(disk.opener(), true, 100).unwrap();
    let parts = QueueParts {
        deliver: Some(Arc::new(gate.clone())),
        journal: Arc::new(journal),
        history: History::default(),
        metrics: Arc::default(),
    };
    let journal = Arc::clone(&parts.journal);
    (Queue::start(settings, parts, recovered), journal)
}

fn event(call: CallId, id: &str) -> Event {
    let id = EventId::given(id).unwrap();
    Event::new(id, call, EventType::Transcription, &timestamp_now(), &Payload::empty())
}

/// Hands the event in and waits for the promise.
async fn promised(queue: &Queue, call: CallId, id: &str) -> Result<(), Refused> {
    let receipt = queue.accept(vec![event(call, id)])?;
    timeout(LIMIT, receipt.promised()).await.unwrap().map(drop)
}

/// Waits until the journal is written again.
async fn recovered(journal: &Journal) {
    let written = async {
        while journal.fault().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, written).await.unwrap();
}

#[tokio::test]
async fn a_keyed_event_that_arrived_is_acknowledged_though_the_disk_is_full() {
    let (disk, gate, call) = (Disk::default(), Gate::closed(), CallId::random());
    let (queue, journal) = queue(&disk, &gate);
    gate.open.add_permits(1);
    disk.fill_up(true);
    assert_eq!(promised(&queue, call, "a").await, Ok(()));
    assert_eq!(promised(&queue, call, "a").await, Ok(()), "and so is its repeat");
    disk.fill_up(false);
    recovered(&journal).await;
    assert_eq!(promised(&queue, call, "a").await, Ok(()));
    gate.delivered(1).await;
    assert_eq!(queue.unsettled(), 0, "it was queued once");
}

#[tokio::test]
async fn the_id_of_an_event_that_was_refused_is_not_known_after_a_crash() {
    let (disk, gate, call) = (Disk::default(), Gate::closed(), CallId::random());
    let (queue, journal) = queue(&disk, &gate);
    disk.fill_up(true);
    let under_way = queue.accept(vec![event(call, "under-way")]).unwrap();
    let refused = promised(&queue, call, "refused").await;
    assert!(matches!(refused, Err(Refused::Disk(_))), "{refused:?}");
    disk.fill_up(false);
    recovered(&journal).await;
    // As a crash leaves it at this moment.
    let after = Disk::holding(disk.bytes());
    let (_journal, found) = Journal::open(after.opener(), true, 100).unwrap();
    let ids: Vec<String> = found.ids.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(ids, ["under-way"]);
    let events: Vec<String> = found.items.iter().map(|item| item.event.id.to_string()).collect();
    assert_eq!(events, ["under-way"]);
    assert!(under_way.promised().await.is_ok());
}

#[tokio::test]
async fn deliveries_of_a_call_do_not_wait_for_a_disk_that_fails() {
    let (disk, gate, call) = (Disk::default(), Gate::closed(), CallId::random());
    let (queue, journal) = queue(&disk, &gate);
    let events = (0..30).map(|n| event(call, &n.to_string())).collect();
    queue.accept(events).unwrap().promised().await.unwrap();
    disk.fill_up(true);
    // One of them notices.
    gate.open.add_permits(1);
    gate.delivered(1).await;
    let noticed = async {
        while journal.fault().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, noticed).await.unwrap();
    // A wait for the next try, which is a second away, for each of these would be too long.
    gate.open.add_permits(29);
    gate.delivered(29).await;
}
