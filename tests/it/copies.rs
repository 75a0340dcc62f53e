//! The queue with several receivers: each gets what it takes, in its own order and at its own pace, and only the main
//! one decides whether an event is taken.

use std::sync::Arc;
use std::time::Duration;

use callhook::event::{CallId, Event, EventFilter, EventId, EventType, Payload};
use callhook::journal::{DeadFilter, Journal, Recovered};
use callhook::queue::metrics::QueueMetrics;
use callhook::queue::{Limits, Queue, QueueSettings, ReceiverRules, Refused};
use callhook::receiver::{ReceiverId, Receivers};
use callhook::time::timestamp_now;
use tokio::time::{Instant, timeout};

use crate::support::disk::Disk;
use crate::support::queue::{Taker, queue_measured, queue_to, rules, settings};
use crate::support::record::LIMIT;

/// A main receiver and a copy, `crm`, of these rules.
fn with_copy(copy: ReceiverRules) -> QueueSettings {
    let copy = ReceiverRules { name: "crm".parse().unwrap(), ..copy };
    QueueSettings { receivers: vec![rules(), copy], ..settings() }
}

/// The copy's id.
fn crm(journal: &Journal) -> ReceiverId {
    journal.receivers().id("crm").unwrap()
}

struct Stage {
    disk: Disk,
    main: Taker,
    copy: Taker,
    queue: Queue,
    journal: Arc<Journal>,
    call: CallId,
}

/// Both receivers take nothing yet.
fn stage(settings: QueueSettings) -> Stage {
    let disk = Disk::default();
    let (main, copy) = (Taker::of(&disk), Taker::of(&disk));
    let (queue, journal, _) = queue_to(&[&main, &copy], settings);
    Stage { disk, main, copy, queue, journal, call: CallId::random() }
}

fn event(call: CallId, kind: EventType) -> Event {
    Event::new(EventId::make(), call, kind, &timestamp_now(), &Payload::empty())
}

fn transcriptions(call: CallId, count: usize) -> Vec<Event> {
    (0..count).map(|_| event(call, EventType::Transcription)).collect()
}

async fn promised(queue: &Queue, events: Vec<Event>) -> Result<(), Refused> {
    timeout(LIMIT, queue.accept(events)?.promised()).await.unwrap().map(drop)
}

async fn ids_at(taker: &Taker, count: usize) -> Vec<String> {
    let taken = taker.taken(count).await;
    taken.iter().map(|(attempt, _)| attempt.item.event.id.to_string()).collect()
}

async fn sequences_at(taker: &Taker, count: usize) -> Vec<u64> {
    taker.taken(count).await.iter().map(|(attempt, _)| attempt.item.sequence).collect()
}

async fn until(done: impl Fn() -> bool) {
    let done = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, done).await.unwrap();
}

/// Waits until the journal is known to fail.
async fn fails(journal: &Journal) {
    until(|| journal.fault().is_some()).await;
}

/// Waits until the journal is written again.
async fn works(journal: &Journal) {
    until(|| journal.fault().is_none()).await;
}

async fn settled(queue: &Queue, left: usize) {
    until(|| queue.unsettled() == left).await;
}

/// Breaks attempts under way off soon.
async fn stop(queue: &Queue) {
    queue.drain(Instant::now() + Duration::from_millis(50)).await;
}

/// What a journal for both receivers finds on the disk as a crash leaves it.
fn after_a_crash(bytes: Vec<u8>) -> (Journal, Recovered) {
    let names = with_copy(rules()).names();
    Journal::open(Disk::holding(bytes).opener(), true, &names, 9).unwrap()
}

#[tokio::test]
async fn each_receiver_gets_every_event_under_one_id_and_in_order_at_its_own_pace() {
    let at = stage(with_copy(rules()));
    let events = transcriptions(at.call, 20);
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    promised(&at.queue, events).await.unwrap();
    at.main.gate.add_permits(20);
    assert_eq!(ids_at(&at.main, 20).await, ids);
    settled(&at.queue, 20).await;
    at.copy.gate.add_permits(20);
    assert_eq!(ids_at(&at.copy, 20).await, ids);
    assert_eq!(sequences_at(&at.copy, 20).await, (1..=20).collect::<Vec<u64>>());
    settled(&at.queue, 0).await;
}

#[tokio::test]
async fn each_receiver_numbers_what_it_takes() {
    let only = EventFilter::Only(vec![EventType::CallEnded]);
    let at = stage(with_copy(ReceiverRules { filter: only, ..rules() }));
    let kinds = [EventType::CallStarted, EventType::Transcription, EventType::CallEnded];
    let events = kinds.map(|kind| event(at.call, kind)).to_vec();
    promised(&at.queue, events).await.unwrap();
    at.main.gate.add_permits(3);
    at.copy.gate.add_permits(1);
    assert_eq!(sequences_at(&at.main, 3).await, [1, 2, 3]);
    let taken = at.copy.taken(1).await;
    let item = &taken[0].0.item;
    assert_eq!((item.sequence, &item.event.kind), (1, &EventType::CallEnded));
}

#[tokio::test]
async fn a_promise_is_for_every_receiver_through_a_crash() {
    let at = stage(with_copy(rules()));
    at.main.gate.add_permits(1);
    let event = event(at.call, EventType::Transcription);
    let id = event.id.to_string();
    promised(&at.queue, vec![event]).await.unwrap();
    at.main.taken(1).await;
    let (journal, found) = after_a_crash(at.disk.bytes());
    let of_copy: Vec<String> = found
        .items
        .iter()
        .filter(|item| item.receiver == crm(&journal))
        .map(|item| item.event.id.to_string())
        .collect();
    assert_eq!(of_copy, [id]);
}

#[tokio::test]
async fn a_body_is_on_disk_until_its_last_receiver_has_it() {
    let at = stage(with_copy(rules()));
    promised(&at.queue, transcriptions(at.call, 3)).await.unwrap();
    at.main.gate.add_permits(3);
    settled(&at.queue, 3).await;
    stop(&at.queue).await;
    let (main, copy) = (Taker::of(&at.disk).opened(), Taker::of(&at.disk));
    let (queue, journal, _) = queue_to(&[&main, &copy], with_copy(rules()));
    assert_eq!(queue.unsettled(), 3);
    copy.gate.add_permits(3);
    settled(&queue, 0).await;
    stop(&queue).await;
    drop(journal);
    let read = redb::Builder::new().create_with_backend(at.disk.clone()).unwrap();
    let read = redb::ReadableDatabase::begin_read(&read).unwrap();
    for table in ["events", "copies", "bodies", "spent"] {
        let table = read
            .list_tables()
            .unwrap()
            .find(|handle| redb::TableHandle::name(handle) == table)
            .map(|handle| read.open_untyped_table(handle).unwrap());
        let left = redb::ReadableTableMetadata::len(&table.unwrap()).unwrap();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn a_copy_that_is_full_gets_dead_letters_and_costs_the_main_receiver_nothing() {
    let limits = Limits { queue: 2, ..rules().limits };
    let at = stage(with_copy(ReceiverRules { limits, ..rules() }));
    at.main.gate.add_permits(1000);
    for _ in 0..3 {
        promised(&at.queue, transcriptions(at.call, 2)).await.unwrap();
    }
    at.main.taken(6).await;
    let filter = DeadFilter { receiver: Some(crm(&at.journal)), ..DeadFilter::default() };
    let (letters, _) = at.journal.dead_letters(&filter, 0, 10).unwrap();
    let found: Vec<_> =
        letters.iter().map(|letter| (letter.item.sequence, letter.code.as_str())).collect();
    assert_eq!(found, [3, 4, 5, 6].map(|sequence| (sequence, "ERR_QUEUE_FULL")));
    assert_eq!(at.journal.dead_counts().unwrap(), [0, 4]);
    at.copy.gate.add_permits(2);
    assert_eq!(sequences_at(&at.copy, 2).await, [1, 2]);
    settled(&at.queue, 0).await;
    // There is room again: they can be sent again.
    let replayed = at.queue.replay(crm(&at.journal), letters).await;
    assert_eq!(replayed, Ok(2));
    at.copy.gate.add_permits(2);
    assert_eq!(sequences_at(&at.copy, 4).await[2..], [3, 4]);
    assert_eq!(at.journal.dead_counts().unwrap(), [0, 2]);
}

#[tokio::test]
async fn a_dead_letter_of_a_full_copy_names_the_limit_that_is_reached() {
    for (limits, name) in [
        (Limits { queue: 1, ..rules().limits }, "QUEUE_LIMIT=1"),
        (Limits { bytes: 200, ..rules().limits }, "QUEUE_BYTES=200"),
    ] {
        let at = stage(with_copy(ReceiverRules { limits, ..rules() }));
        promised(&at.queue, transcriptions(at.call, 2)).await.unwrap();
        let (letters, _) = at.journal.dead_letters(&DeadFilter::default(), 0, 9).unwrap();
        assert!(letters[0].error.contains(name), "{}", letters[0].error);
    }
}

#[tokio::test]
async fn dead_letters_are_sent_again_as_far_as_their_bytes_have_room() {
    let bytes = 3 * transcriptions(CallId::random(), 1)[0].body.len();
    let limits = Limits { bytes, ..rules().limits };
    let at = stage(with_copy(ReceiverRules { limits, ..rules() }));
    promised(&at.queue, transcriptions(at.call, 10)).await.unwrap();
    let (letters, _) = at.journal.dead_letters(&DeadFilter::default(), 0, 99).unwrap();
    assert_eq!(letters.len(), 7);
    let full = at.queue.replay(crm(&at.journal), letters.clone()).await;
    assert_eq!(full, Err(Refused::FullOfBytes { limit: bytes }));
    at.copy.gate.add_permits(3);
    settled(&at.queue, 10).await;
    assert_eq!(at.queue.replay(crm(&at.journal), letters).await, Ok(3));
}

#[tokio::test]
async fn the_id_of_an_event_that_only_a_full_copy_takes_is_known_after_a_crash() {
    let limits = Limits { queue: 1, ..rules().limits };
    let mut settings = with_copy(ReceiverRules { limits, ..rules() });
    settings.receivers[0].filter = EventFilter::Only(vec![EventType::CallEnded]);
    let at = stage(settings);
    promised(&at.queue, transcriptions(at.call, 1)).await.unwrap();
    let id = EventId::given("once").unwrap();
    let keyed = Event { id: id.clone(), ..event(at.call, EventType::Transcription) };
    promised(&at.queue, vec![keyed]).await.unwrap();
    let (_journal, found) = after_a_crash(at.disk.bytes());
    let ids: Vec<EventId> = found.ids.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [id]);
}

#[tokio::test]
async fn while_the_disk_hangs_a_full_copy_has_a_thousand_letters_waiting_and_misses_the_rest() {
    let limits = Limits { queue: 1, ..rules().limits };
    let disk = Disk::default();
    let (main, copy) = (Taker::of(&disk).opened(), Taker::of(&disk));
    let settings = with_copy(ReceiverRules { limits, ..rules() });
    let metrics = Arc::new(QueueMetrics::of_receivers(2));
    let (queue, journal, _) = queue_measured(&[&main, &copy], settings, &metrics);
    promised(&queue, transcriptions(CallId::random(), 1)).await.unwrap();
    disk.slow_down(Duration::from_secs(5));
    // One is being written by then, the others come behind it.
    let missed = || metrics.of(crm(&journal)).missed.get();
    let mut taken = 0;
    while missed() == 0 {
        queue.accept(transcriptions(CallId::random(), 1)).unwrap();
        taken += 1;
        assert!(taken < 10_000, "no limit");
        main.gate.add_permits(1);
        tokio::task::yield_now().await;
    }
    assert!((1000..9000).contains(&taken), "{taken}");
    disk.slow_down(Duration::ZERO);
}

#[tokio::test]
async fn only_the_main_receivers_limits_refuse() {
    let disk = Disk::default();
    let (main, copy) = (Taker::of(&disk), Taker::of(&disk).opened());
    let limits = Limits { queue: 2, ..rules().limits };
    let mut settings = with_copy(rules());
    settings.receivers[0].limits = limits;
    let (queue, _journal, _) = queue_to(&[&main, &copy], settings);
    let call = CallId::random();
    promised(&queue, transcriptions(call, 2)).await.unwrap();
    assert_eq!(promised(&queue, transcriptions(call, 1)).await, Err(Refused::Full { limit: 2 }));
    assert_eq!(copy.taken(2).await.len(), 2);
}

#[tokio::test]
async fn what_no_receiver_takes_is_dropped_and_what_a_copy_alone_takes_is_not() {
    let only = |kind| EventFilter::Only(vec![kind]);
    let copy = ReceiverRules { filter: only(EventType::DtmfDigit), ..rules() };
    let mut settings = with_copy(copy);
    settings.receivers[0].filter = only(EventType::CallEnded);
    let at = stage(settings);
    let kinds = [EventType::Interruption, EventType::DtmfDigit];
    let events = kinds.map(|kind| event(at.call, kind)).to_vec();
    let accepted = at.queue.accept(events).unwrap().promised().await.unwrap();
    let taken: Vec<bool> = accepted.iter().map(|accepted| accepted.id.is_some()).collect();
    assert_eq!(taken, [false, true]);
    at.copy.gate.add_permits(1);
    assert_eq!(sequences_at(&at.copy, 1).await, [1]);
    settled(&at.queue, 0).await;
}

#[tokio::test]
async fn while_the_disk_fails_the_main_receiver_answers_and_copies_get_it_from_memory() {
    let at = stage(with_copy(rules()));
    at.disk.fill_up(true);
    at.main.gate.add_permits(1);
    assert_eq!(promised(&at.queue, transcriptions(at.call, 1)).await, Ok(()));
    fails(&at.journal).await;
    at.main.gate.add_permits(1);
    assert_eq!(promised(&at.queue, transcriptions(at.call, 1)).await, Ok(()));
    // Longer than the disk is tried again, which takes back what can be refused.
    timeout(LIMIT, at.journal.refused()).await.unwrap();
    timeout(LIMIT, at.journal.refused()).await.unwrap();
    at.copy.gate.add_permits(2);
    assert_eq!(sequences_at(&at.copy, 2).await, [1, 2]);
}

#[tokio::test]
async fn what_the_sender_is_refused_no_copy_gets_later() {
    let at = stage(with_copy(rules()));
    promised(&at.queue, transcriptions(at.call, 1)).await.unwrap();
    at.disk.fill_up(true);
    let refused = promised(&at.queue, transcriptions(at.call, 3)).await;
    assert!(matches!(refused, Err(Refused::Disk(_))), "{refused:?}");
    settled(&at.queue, 2).await;
    at.disk.fill_up(false);
    at.main.gate.add_permits(1000);
    at.copy.gate.add_permits(1000);
    assert_eq!(sequences_at(&at.copy, 1).await, [1]);
    settled(&at.queue, 0).await;
    // Its number is given again.
    works(&at.journal).await;
    promised(&at.queue, transcriptions(at.call, 1)).await.unwrap();
    assert_eq!(sequences_at(&at.copy, 2).await, [1, 2]);
    assert_eq!(sequences_at(&at.main, 2).await, [1, 2]);
}

#[tokio::test]
async fn what_the_sender_is_refused_is_no_dead_letter_of_a_full_copy() {
    let only = EventFilter::Only(vec![EventType::Transcription]);
    let copy = ReceiverRules { limits: Limits { queue: 1, ..rules().limits }, ..rules() };
    for main in [EventFilter::All, EventFilter::Only(vec![EventType::CallEnded])] {
        let mut settings = with_copy(ReceiverRules { filter: only.clone(), ..copy.clone() });
        settings.receivers[0].filter = main;
        let at = stage(settings);
        promised(&at.queue, transcriptions(at.call, 1)).await.unwrap();
        at.disk.fill_up(true);
        let refused = promised(&at.queue, transcriptions(at.call, 3)).await;
        assert!(matches!(refused, Err(Refused::Disk(_))), "{refused:?}");
        timeout(LIMIT, at.journal.refused()).await.unwrap();
        at.disk.fill_up(false);
        at.main.gate.add_permits(1000);
        at.copy.gate.add_permits(1000);
        settled(&at.queue, 0).await;
        works(&at.journal).await;
        promised(&at.queue, transcriptions(at.call, 1)).await.unwrap();
        settled(&at.queue, 0).await;
        assert_eq!(at.journal.dead_counts().unwrap(), [0, 0]);
    }
}

#[tokio::test]
async fn a_bridged_calls_begin_is_sent_to_no_receiver_before_it_is_on_disk() {
    let at = stage(with_copy(rules()));
    at.main.gate.add_permits(1000);
    at.copy.gate.add_permits(1000);
    at.queue.record(event(at.call, EventType::CallStarted)).await;
    for taker in [&at.main, &at.copy] {
        let taken = taker.taken(1).await;
        let (_journal, found) = after_a_crash(taken[0].1.clone());
        assert_eq!(found.calls.len(), 1);
    }
}

#[tokio::test]
async fn what_waits_for_a_receiver_that_is_gone_is_kept_until_it_is_back_or_dropped() {
    let at = stage(with_copy(rules()));
    at.main.gate.add_permits(1000);
    promised(&at.queue, transcriptions(at.call, 3)).await.unwrap();
    settled(&at.queue, 3).await;
    stop(&at.queue).await;
    for _ in 0..2 {
        let main = Taker::of(&at.disk).opened();
        let (queue, journal, _) = main.queue(settings());
        assert_eq!((queue.unsettled(), journal.waiting_retired(crm(&journal))), (0, 3));
        stop(&queue).await;
    }
    let (main, copy) = (Taker::of(&at.disk).opened(), Taker::of(&at.disk));
    let (queue, _journal, _) = queue_to(&[&main, &copy], with_copy(rules()));
    assert_eq!(queue.unsettled(), 3, "it is back");
    copy.gate.add_permits(1);
    assert_eq!(sequences_at(&copy, 1).await, [1]);
    settled(&queue, 2).await;
    stop(&queue).await;
    let (queue, journal, _) = Taker::of(&at.disk).opened().queue(settings());
    assert_eq!(journal.drop_waiting(crm(&journal)), 2);
    stop(&queue).await;
    let (_, journal, _) = Taker::of(&at.disk).opened().queue(settings());
    assert_eq!(*journal.receivers(), Receivers::main(), "nothing reminds of it");
}

#[tokio::test]
async fn what_is_left_for_the_main_receiver_alone_is_taken_off_the_disk_though_the_copy_is_gone() {
    let at = stage(with_copy(rules()));
    at.copy.gate.add_permits(1000);
    promised(&at.queue, transcriptions(at.call, 3)).await.unwrap();
    settled(&at.queue, 3).await;
    stop(&at.queue).await;
    for left in [3, 0] {
        let main = Taker::of(&at.disk).opened();
        let (queue, _journal, _) = main.queue(settings());
        main.taken(left).await;
        settled(&queue, 0).await;
        stop(&queue).await;
        assert_eq!(main.taken(0).await.len(), left);
    }
}

#[tokio::test]
async fn a_copy_that_takes_nothing_holds_up_nobody_at_the_main_receiver() {
    let at = stage(with_copy(rules()));
    at.main.gate.add_permits(10_000);
    let begun = Instant::now();
    for _ in 0..400 {
        promised(&at.queue, transcriptions(CallId::random(), 1)).await.unwrap();
    }
    at.main.taken(400).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    settled(&at.queue, 400).await;
}
