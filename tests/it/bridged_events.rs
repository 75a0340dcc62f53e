//! The events of bridged calls in the queue: nobody sent them who could send them again, so they get
//! through a full queue and a full disk, and a crash at any moment leaves each call one end.

use callhook::event::{CallId, Event, EventFilter, EventType, Payload};
use callhook::journal::DeadFilter;
use callhook::queue::{Limits, Queue, ReceiverRules};
use tokio::time::{Instant, timeout};

use crate::support::disk::Disk;
use crate::support::queue::{Taker, of_main, open, rules, settings};
use crate::support::record::LIMIT;

fn event(call: CallId, kind: EventType) -> Event {
    Event::now(call, kind, &Payload::empty())
}

/// The calls that a start on these bytes would find unfinished.
fn live_after_a_crash(bytes: Vec<u8>) -> Vec<CallId> {
    let (_journal, recovered) = open(&Disk::holding(bytes));
    recovered.calls.into_iter().map(|live| live.call).collect()
}

async fn stop(queue: &Queue) {
    assert_eq!(queue.drain(Instant::now() + LIMIT).await, 0);
}

#[tokio::test]
async fn a_crash_finds_a_call_live_from_its_first_event_to_its_last() {
    let disk = Disk::default();
    let receiver = Taker::of(&disk).opened();
    let (queue, _, _) = receiver.queue(settings());
    let call = CallId::random();
    let kinds = [EventType::CallStarted, EventType::Transcription, EventType::CallEnded];
    for (before, kind) in kinds.into_iter().enumerate() {
        queue.record(event(call, kind)).await;
        receiver.taken(before + 1).await;
    }
    let live: Vec<_> = receiver
        .taken(3)
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
    let receiver = Taker::of(&disk);
    let (queue, _, _) = receiver.queue(settings());
    let call = CallId::random();
    queue.record(event(call, EventType::CallStarted)).await;
    let begun = disk.writes();
    queue.record(event(call, EventType::CallEnded)).await;
    let ended = disk.writes();
    for writes in begun..ended {
        for part in [0.0, 0.5] {
            let torn = disk.torn_after(writes, part);
            let (_journal, recovered) = open(&torn);
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
    let receiver = Taker::of(&disk).opened();
    let filter = EventFilter::Only(vec![EventType::CallEnded]);
    let only = || of_main(ReceiverRules { filter: filter.clone(), ..rules() });
    let (first, _, _) = receiver.queue(only());
    let call = CallId::random();
    first.record(event(call, EventType::CallStarted)).await;
    stop(&first).await;
    let (second, _, recovered) = receiver.queue(only());
    assert_eq!(recovered.calls.iter().map(|live| live.call).collect::<Vec<_>>(), [call]);
    second.record(event(call, EventType::CallEnded)).await;
    receiver.taken(1).await;
    stop(&second).await;
    assert_eq!(live_after_a_crash(disk.bytes()), []);
}

#[tokio::test]
async fn what_finds_the_queue_full_becomes_a_dead_letter_and_leaves_a_gap() {
    let disk = Disk::default();
    let receiver = Taker::of(&disk);
    let limits = Limits { queue: 1, ..rules().limits };
    let (queue, journal, _) = receiver.queue(of_main(ReceiverRules { limits, ..rules() }));
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
    receiver.gate.add_permits(1);
    assert_eq!(receiver.taken(1).await[0].0.item.sequence, 1);
    stop(&queue).await;
    assert_eq!(live_after_a_crash(disk.bytes()), [], "its end is a dead letter, and not made anew");
}

#[tokio::test]
async fn a_full_disk_holds_up_no_event_of_a_call() {
    let disk = Disk::default();
    let receiver = Taker::of(&disk).opened();
    let (queue, _, _) = receiver.queue(settings());
    let call = CallId::random();
    disk.fill_up(true);
    for kind in [EventType::CallStarted, EventType::Transcription] {
        timeout(LIMIT, queue.record(event(call, kind))).await.unwrap();
    }
    let kinds: Vec<_> = receiver
        .taken(2)
        .await
        .into_iter()
        .map(|(attempt, _)| attempt.item.event.kind.clone())
        .collect();
    assert_eq!(kinds, [EventType::CallStarted, EventType::Transcription]);
    disk.fill_up(false);
    queue.record(event(call, EventType::CallEnded)).await;
    receiver.taken(3).await;
    stop(&queue).await;
    assert_eq!(live_after_a_crash(disk.bytes()), []);
}
