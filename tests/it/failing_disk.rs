//! The queue on a disk that is full for a while: what it promises meanwhile, what it keeps, and that
//! deliveries do not wait for it.

use std::sync::Arc;

use callhook::event::{CallId, Event, EventId, EventType, Payload};
use callhook::journal::Journal;
use callhook::queue::{Queue, Refused};
use callhook::time::timestamp_now;
use tokio::time::timeout;

use crate::support::disk::Disk;
use crate::support::queue::{Taker, open, settings};
use crate::support::record::LIMIT;

/// A disk, a receiver that takes nothing yet, their queue and journal, and a new call.
fn stage() -> (Disk, Taker, Queue, Arc<Journal>, CallId) {
    let disk = Disk::default();
    let receiver = Taker::of(&disk);
    let (queue, journal, _) = receiver.queue(settings());
    (disk, receiver, queue, journal, CallId::random())
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
    let (disk, receiver, queue, journal, call) = stage();
    receiver.gate.add_permits(1);
    disk.fill_up(true);
    assert_eq!(promised(&queue, call, "a").await, Ok(()));
    assert_eq!(promised(&queue, call, "a").await, Ok(()), "and so is its repeat");
    disk.fill_up(false);
    recovered(&journal).await;
    assert_eq!(promised(&queue, call, "a").await, Ok(()));
    receiver.taken(1).await;
    assert_eq!(queue.unsettled(), 0, "it was queued once");
}

#[tokio::test]
async fn the_id_of_an_event_that_was_refused_is_not_known_after_a_crash() {
    let (disk, _receiver, queue, journal, call) = stage();
    disk.fill_up(true);
    let under_way = queue.accept(vec![event(call, "under-way")]).unwrap();
    let refused = promised(&queue, call, "refused").await;
    assert!(matches!(refused, Err(Refused::Disk(_))), "{refused:?}");
    disk.fill_up(false);
    recovered(&journal).await;
    // As a crash leaves it at this moment.
    let after = Disk::holding(disk.bytes());
    let (_journal, found) = open(&after);
    let ids: Vec<String> = found.ids.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(ids, ["under-way"]);
    let events: Vec<String> = found.items.iter().map(|item| item.event.id.to_string()).collect();
    assert_eq!(events, ["under-way"]);
    assert!(under_way.promised().await.is_ok());
}

#[tokio::test]
async fn deliveries_of_a_call_do_not_wait_for_a_disk_that_fails() {
    let (disk, receiver, queue, journal, call) = stage();
    let events = (0..30).map(|n| event(call, &n.to_string())).collect();
    queue.accept(events).unwrap().promised().await.unwrap();
    disk.fill_up(true);
    // One of them notices.
    receiver.gate.add_permits(1);
    receiver.taken(1).await;
    let noticed = async {
        while journal.fault().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, noticed).await.unwrap();
    // A wait for the next try, which is a second away, for each of these would be too long.
    receiver.gate.add_permits(29);
    receiver.taken(30).await;
}

/// Waits until the journal is known to fail.
async fn fails(journal: &Journal) {
    let failing = async {
        while journal.fault().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, failing).await.unwrap();
}

#[tokio::test]
async fn a_single_event_is_sent_at_once_while_the_disk_fails_and_its_delivery_is_the_promise() {
    let (disk, receiver, queue, journal, call) = stage();
    disk.fill_up(true);
    receiver.gate.add_permits(1);
    assert_eq!(promised(&queue, call, "notices").await, Ok(()));
    fails(&journal).await;
    receiver.gate.add_permits(1);
    assert_eq!(promised(&queue, call, "single").await, Ok(()));
    let array = ["a", "b"].map(|id| event(CallId::random(), id)).to_vec();
    assert!(matches!(queue.accept(array).err(), Some(Refused::Disk(_))), "an array is not");
    let under_way = queue.accept(vec![event(call, "under-way")]).unwrap();
    let behind = queue.accept(vec![event(call, "behind")]).err();
    assert!(matches!(behind, Some(Refused::Disk(_))), "nor one behind another");
    receiver.gate.add_permits(1);
    assert!(under_way.promised().await.is_ok());
    assert_eq!(receiver.taken(3).await.len(), 3);
}

#[tokio::test]
async fn the_question_of_a_call_is_asked_from_memory_while_the_disk_fails() {
    let (disk, receiver, queue, journal, call) = stage();
    disk.fill_up(true);
    receiver.gate.add_permits(1);
    assert_eq!(promised(&queue, call, "notices").await, Ok(()));
    fails(&journal).await;
    let question = Event::now(call, EventType::CallInitiated, &Payload::empty());
    let slot = queue.ask(question).unwrap();
    // Longer than the disk is tried again, which takes back what can be refused.
    assert!(timeout(LIMIT, journal.refused()).await.is_ok());
    assert_eq!(slot.no_decision(), None);
    receiver.gate.add_permits(1);
    assert_eq!(receiver.taken(2).await[1].0.item.event.kind, EventType::CallInitiated);
}
