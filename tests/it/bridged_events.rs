//! The events of bridged calls in the queue: nobody sent them who could send them again, so they get
//! through a full queue and a full disk, and a crash at any moment leaves each call one end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use callhook::attempt::{Attempt, Deliver, Outcome};
use callhook::event::{CallId, Event, EventFilter, EventType, Payload};
use callhook::history::History;
use callhook::journal::{DeadFilter, Journal, Recovered};
use callhook::queue::{Limits, Queue, QueueParts, QueueSettings};
use callhook::retry::RetryPolicy;
use callhook::routing::AllowedHosts;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::disk::Disk;

/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(10);

/// What was sent, and what was on the disk then.
type Seen = (Attempt, Vec<u8>);

/// A receiver that notes each event, and what a crash at that moment would leave on the disk.
#[derive(Clone)]
struct Witness {
    disk: Disk,
    open: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: Arc<Semaphore>,
}

impl Witness {
    fn of(disk: &Disk) -> Self {
        let (open, count) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        Self { disk: disk.clone(), open, seen: Arc::default(), count }
    }

    fn opened(self) -> Self {
        self.open.add_permits(1000);
        self
    }

    /// Waits for so many events more; returns all.
    async fn seen(&self, events: u32) -> Vec<Seen> {
        timeout(LIMIT, self.count.acquire_many(events)).await.unwrap().unwrap().forget();
        self.seen.lock().unwrap().clone()
    }
}

impl Deliver for Witness {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let witness = self.clone();
        Box::pin(async move {
            witness.open.acquire().await.unwrap().forget();
            witness.seen.lock().unwrap().push((attempt, witness.disk.bytes()));
            witness.count.add_permits(1);
            Outcome::Delivered { status: 200, answer: Some(Bytes::new()) }
        })
    }
}

fn queue(
    disk: &Disk,
    witness: &Witness,
    limit: usize,
    filter: EventFilter,
) -> (Queue, Arc<Journal>, Recovered) {
    let settings = QueueSettings {
        filter,
        limits: Limits { concurrency: 4, queue: limit, breaker: 5 },
        retry: RetryPolicy::once(),
        routing_timeout: LIMIT,
        allowed_hosts: AllowedHosts::Any,
        receiver: String::new(),
    };
    let (journal, mut recovered) = Journal::open(disk.opener(), true, 100).unwrap();
    let calls = std::mem::take(&mut recovered.calls);
    let parts = QueueParts {
        deliver: Some(Arc::new(witness.clone())),
        journal: Arc::new(journal),
        history: History::default(),
        metrics: Arc::default(),
    };
    let journal = Arc::clone(&parts.journal);
    let queue = Queue::start(settings, parts, recovered);
    (queue, journal, Recovered { calls, ..Recovered::default() })
}

fn event(call: CallId, kind: EventType) -> Event {
    Event::now(call, kind, &Payload::empty())
}

/// The calls that a start on these bytes would find unfinished.
fn live_after_a_crash(bytes: Vec<u8>) -> Vec<CallId> {
    let (_journal, recovered) = Journal::open(Disk::holding(bytes).opener(), true, 100).unwrap();
    recovered.calls.into_iter().map(|live| live.call).collect()
}

async fn stop(queue: &Queue) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    assert_eq!(queue.drain(deadline).await, 0);
}

#[tokio::test]
async fn a_crash_finds_a_call_live_from_its_first_event_to_its_last() {
    let disk = Disk::default();
    let witness = Witness::of(&disk).opened();
    let (queue, _, _) = queue(&disk, &witness, 100, EventFilter::All);
    let call = CallId::random();
    for kind in [EventType::CallStarted, EventType::Transcription, EventType::CallEnded] {
        queue.record(event(call, kind)).await;
        witness.seen(1).await;
    }
    let live: Vec<_> = witness
        .seen(0)
        .await
        .into_iter()
        .map(|(attempt, bytes)| {
            (attempt.item.event.kind.clone(), live_after_a_crash(bytes), attempt.item.sequence)
        })
        .collect();
    let expected = [
        (EventType::CallStarted, vec![call], 1),
        (EventType::Transcription, vec![call], 2),
        (EventType::CallEnded, vec![], 3),
    ];
    assert_eq!(live, expected);
    stop(&queue).await;
    assert_eq!(live_after_a_crash(disk.bytes()), []);
}

#[tokio::test]
async fn a_crash_at_any_write_leaves_an_end_in_the_journal_or_the_call_unfinished() {
    let disk = Disk::default();
    let witness = Witness::of(&disk);
    let (queue, _, _) = queue(&disk, &witness, 100, EventFilter::All);
    let call = CallId::random();
    queue.record(event(call, EventType::CallStarted)).await;
    let begun = disk.writes();
    queue.record(event(call, EventType::CallEnded)).await;
    let ended = disk.writes();
    for writes in begun..ended {
        for part in [0.0, 0.5] {
            let torn = disk.torn_after(writes, part);
            let (_journal, recovered) = Journal::open(torn.opener(), true, 100).unwrap();
            let kinds: Vec<_> =
                recovered.items.iter().map(|item| item.event.kind.clone()).collect();
            let unfinished = recovered.calls.len();
            assert_eq!(kinds.first(), Some(&EventType::CallStarted), "{writes} writes");
            let has_end = kinds.contains(&EventType::CallEnded);
            assert_eq!(unfinished, usize::from(!has_end), "{writes} writes: {kinds:?}");
        }
    }
}

#[tokio::test]
async fn calls_of_types_that_are_not_delivered_are_remembered_all_the_same() {
    let disk = Disk::default();
    let witness = Witness::of(&disk).opened();
    let only = EventFilter::Only(vec![EventType::CallEnded]);
    let (first, _, _) = queue(&disk, &witness, 100, only.clone());
    let call = CallId::random();
    first.record(event(call, EventType::CallStarted)).await;
    stop(&first).await;
    let (second, _, recovered) = queue(&disk, &witness, 100, only);
    assert_eq!(recovered.calls.iter().map(|live| live.call).collect::<Vec<_>>(), [call]);
    second.record(event(call, EventType::CallEnded)).await;
    witness.seen(1).await;
    stop(&second).await;
    assert_eq!(live_after_a_crash(disk.bytes()), []);
}

#[tokio::test]
async fn what_finds_the_queue_full_becomes_a_dead_letter_and_leaves_a_gap() {
    let disk = Disk::default();
    let witness = Witness::of(&disk);
    let (queue, journal, _) = queue(&disk, &witness, 1, EventFilter::All);
    let call = CallId::random();
    for kind in [EventType::CallStarted, EventType::DtmfDigit, EventType::CallEnded] {
        queue.record(event(call, kind)).await;
    }
    let (letters, _) = journal.dead_letters(&DeadFilter::default(), 0, 10).unwrap();
    let found: Vec<_> = letters
        .iter()
        .map(|letter| (letter.item.event.kind.clone(), letter.item.sequence, letter.code.as_str()))
        .collect();
    let full = "ERR_QUEUE_FULL";
    assert_eq!(found, [(EventType::DtmfDigit, 2, full), (EventType::CallEnded, 3, full)]);
    witness.open.add_permits(1);
    assert_eq!(witness.seen(1).await[0].0.item.sequence, 1);
    stop(&queue).await;
    assert_eq!(live_after_a_crash(disk.bytes()), [], "its end is a dead letter, and not made anew");
}

#[tokio::test]
async fn a_full_disk_holds_up_no_event_of_a_call() {
    let disk = Disk::default();
    let witness = Witness::of(&disk).opened();
    let (queue, _, _) = queue(&disk, &witness, 100, EventFilter::All);
    let call = CallId::random();
    disk.fill_up(true);
    for kind in [EventType::CallStarted, EventType::Transcription] {
        timeout(LIMIT, queue.record(event(call, kind))).await.unwrap();
    }
    let kinds: Vec<_> = witness
        .seen(2)
        .await
        .into_iter()
        .map(|(attempt, _)| attempt.item.event.kind.clone())
        .collect();
    assert_eq!(kinds, [EventType::CallStarted, EventType::Transcription]);
    disk.fill_up(false);
    queue.record(event(call, EventType::CallEnded)).await;
    witness.seen(1).await;
    stop(&queue).await;
    assert_eq!(live_after_a_crash(disk.bytes()), []);
}
