//! The journal against a plain model, on a disk that fails or loses power at any write.
//!
//! The disk is redb's own backend trait over memory: it records every write, so that what a crash
//! leaves behind can be rebuilt for any moment, the last write torn.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Arc;

use callhook::event::{CallId, Event, EventId, EventType, Item, Origin, Payload, Share, Spent};
use callhook::journal::{DeadFilter, DeadLetter, Journal, OpenError, Recovered};
use callhook::receiver::Receivers;
use proptest::prelude::*;

use crate::support::disk::Disk;

const DEAD_LIMIT: u64 = 1000;

fn open(disk: &Disk) -> (Journal, Recovered) {
    Journal::open(disk.opener(), true, &Receivers::main(), DEAD_LIMIT).unwrap()
}

fn three() -> Receivers {
    Receivers::new(["main", "crm", "n8n"].map(|name| name.parse().unwrap()))
}

fn open_for(disk: &Disk, receivers: &Receivers) -> (Journal, Recovered) {
    Journal::open(disk.opener(), true, receivers, DEAD_LIMIT).unwrap()
}

fn item(place: u64) -> Item {
    let call = CallId::from_bytes([u8::try_from(place % 5).unwrap(); 16]);
    let (id, kind) = (EventId::make(), EventType::Transcription);
    let event = Event::new(id, call, kind, "2026-01-02T03:04:05.678Z", &Payload::empty());
    Item { sequence: place + 1, ..Item::new(Arc::new(event), place, Origin::Relayed) }
}

/// Of the events, every other goes to all three receivers, the rest to the main one alone. Returns them from that place
/// on.
fn items(first: u64, events: usize) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for nth in 0..events {
        let own = item(first + items.len() as u64);
        if nth % 2 == 0 {
            items.push(own);
            continue;
        }
        for (copy, (receiver, _)) in (0..).zip(three().iter()) {
            let (event, place) = (Arc::clone(&own.event), own.place + u64::from(copy));
            let origin = if copy == 0 { Origin::Relayed } else { Origin::Copy };
            let share = Share::Nth(copy);
            items.push(Item { receiver, share, sequence: 1, ..Item::new(event, place, origin) });
        }
    }
    items
}

fn spent(item: &Item, attempts: u32) -> Item {
    let spent = Spent { attempts, first_failed_at: NonZero::new(1) };
    Item { spent, ..item.clone() }
}

fn dead(item: &Item) -> DeadLetter {
    DeadLetter {
        item: spent(item, 3),
        status: Some(500),
        code: "ERR_BAD_RESPONSE".to_owned(),
        error: "Request failed with status code 500".to_owned(),
        answer: None,
        last_at: 2,
    }
}

/// Whether the promise for these events is kept.
fn kept(journal: &Journal, items: Vec<Item>) -> bool {
    block_on(journal.put(items, Vec::new()).kept())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn dead_places(journal: &Journal) -> BTreeSet<u64> {
    let (letters, next) = journal.dead_letters(&DeadFilter::default(), 0, 10_000).unwrap();
    assert_eq!(next, None);
    letters.iter().map(|letter| letter.item.place).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Deliver(prop::sample::Index),
    Fail(prop::sample::Index),
    GiveUp(prop::sample::Index),
    Delete(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (1_usize..6).prop_map(Step::Append),
        3 => index().prop_map(Step::Deliver),
        1 => index().prop_map(Step::Fail),
        2 => index().prop_map(Step::GiveUp),
        1 => index().prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..25)
}

/// What must be found after a crash.
#[derive(Clone, Debug, Default)]
struct Model {
    waiting: BTreeMap<u64, u32>,
    dead: BTreeSet<u64>,
}

fn play(journal: &Journal, model: &mut Model, items: &mut Vec<Item>, step: &Step) {
    let pick = |keys: Vec<u64>, index: &prop::sample::Index| match keys.is_empty() {
        true => None,
        false => Some(*index.get(&keys)),
    };
    let waiting = || model.waiting.keys().copied().collect::<Vec<u64>>();
    match step {
        Step::Append(count) => {
            let new = self::items(items.len() as u64, *count);
            model.waiting.extend(new.iter().map(|item| (item.place, 0)));
            items.extend(new.clone());
            assert!(kept(journal, new));
        }
        Step::Deliver(index) => {
            if let Some(place) = pick(waiting(), index) {
                model.waiting.remove(&place);
                drop(journal.delivered(place));
            }
        }
        Step::Fail(index) => {
            if let Some(place) = pick(waiting(), index) {
                let attempts = model.waiting.get_mut(&place).unwrap();
                *attempts += 1;
                journal.spent(&spent(&items[usize::try_from(place).unwrap()], *attempts));
            }
        }
        Step::GiveUp(index) => {
            if let Some(place) = pick(waiting(), index) {
                model.waiting.remove(&place);
                model.dead.insert(place);
                journal.died(dead(&items[usize::try_from(place).unwrap()]));
            }
        }
        Step::Delete(index) => {
            if let Some(place) = pick(model.dead.iter().copied().collect(), index) {
                model.dead.remove(&place);
                journal.delete([place]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_reopened_is_what_the_model_says(steps in steps()) {
        let disk = Disk::default();
        let (journal, _) = open_for(&disk, &three());
        let (mut model, mut items) = (Model::default(), Vec::new());
        for step in &steps {
            play(&journal, &mut model, &mut items, step);
        }
        journal.close();
        let (journal, recovered) = open_for(&disk, &three());
        let found: BTreeMap<u64, u32> =
            recovered.items.iter().map(|item| (item.place, item.spent.attempts)).collect();
        prop_assert_eq!(found, model.waiting);
        for kept in &recovered.items {
            let put = &items[usize::try_from(kept.place).unwrap()];
            let told = |item: &Item| (item.receiver, item.share, item.sequence, item.event.id.clone());
            prop_assert_eq!(told(kept), told(put));
            prop_assert_eq!(&kept.event.body, &put.event.body);
        }
        prop_assert_eq!(dead_places(&journal), model.dead);
    }

    #[test]
    fn a_crash_at_any_write_loses_nothing_that_was_promised(
        steps in steps(),
        moment in any::<prop::sample::Index>(),
        part in 0.0..1.0_f64,
    ) {
        let disk = Disk::default();
        let (journal, _) = open_for(&disk, &three());
        let (mut model, mut items) = (Model::default(), Vec::new());
        // How many writes there were when this much had been promised.
        let mut promised = vec![(disk.writes(), 0)];
        for step in &steps {
            play(&journal, &mut model, &mut items, step);
            if matches!(step, Step::Append(_)) {
                promised.push((disk.writes(), items.len()));
            }
        }
        journal.close();
        let first = promised[0].0;
        let at = first + moment.index(disk.writes() - first + 1);
        let (_, safe) = promised.iter().rev().find(|(writes, _)| *writes <= at).unwrap();
        let (journal, recovered) = open_for(&disk.torn_after(at, part), &three());
        let found: BTreeSet<u64> = recovered.items.iter().map(|item| item.place).collect();
        let dead = dead_places(&journal);
        for place in 0..*safe as u64 {
            // What was settled meanwhile may be gone, or still be there, but not become something else.
            let settled = !model.waiting.contains_key(&place);
            prop_assert!(settled || found.contains(&place), "{place} of {safe} is lost: {found:?}");
            prop_assert!(!(found.contains(&place) && dead.contains(&place)), "{place} is both");
        }
        prop_assert!(recovered.items.is_sorted_by_key(|item| item.place));
        prop_assert!(found.iter().all(|place| *place < recovered.next_place));
    }
}

#[test]
fn a_full_disk_refuses_new_events_keeps_the_old_and_recovers_by_itself() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    assert!(kept(&journal, vec![item(0), item(1)]));
    disk.fill_up(true);
    let ticket = journal.put(vec![item(2), item(3)], Vec::new());
    block_on(journal.refused());
    assert!(journal.fault().is_some());
    drop(journal.delivered(0));
    let unwritten: Vec<u64> = journal.unwritten().iter().map(|item| item.place).collect();
    assert_eq!(unwritten, [2, 3]);
    assert!(journal.withdraw(2));
    // The other one was on its way meanwhile, and arrived: then nothing needs the disk.
    drop(journal.delivered(3));
    assert!(!block_on(ticket.kept()));
    disk.fill_up(false);
    assert!(kept(&journal, vec![item(4)]));
    assert!(journal.fault().is_none());
    journal.close();
    let (_, recovered) = open(&disk);
    let found: Vec<u64> = recovered.items.iter().map(|item| item.place).collect();
    assert_eq!(found, [1, 4]);
}

#[test]
fn an_event_that_is_given_up_while_the_disk_is_full_is_a_dead_letter_later() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    disk.fill_up(true);
    let lost = item(0);
    let ticket = journal.put(vec![lost.clone()], Vec::new());
    block_on(journal.refused());
    journal.died(dead(&lost));
    disk.fill_up(false);
    assert!(block_on(ticket.kept()));
    assert_eq!(dead_places(&journal), BTreeSet::from([0]));
}

#[test]
fn a_replay_moves_a_dead_letter_into_the_queue() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    journal.died(dead(&item(0)));
    let again = Item { origin: Origin::Replay, ..item(1) };
    assert!(block_on(journal.replay(vec![(again, 0)]).kept()));
    assert_eq!(dead_places(&journal), BTreeSet::new());
    journal.close();
    assert_eq!(open(&disk).1.items[0].place, 1);
}

#[test]
fn beyond_their_limit_the_oldest_dead_letters_go() {
    let disk = Disk::default();
    let (journal, _) = Journal::open(disk.opener(), true, &Receivers::main(), 2).unwrap();
    for place in 0..5 {
        journal.died(dead(&item(place)));
    }
    assert_eq!(dead_places(&journal), BTreeSet::from([3, 4]));
}

#[test]
fn a_journal_of_another_format_is_refused_with_its_version() {
    let disk = Disk::default();
    drop(open(&disk));
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(meta).unwrap().insert("format", 7).unwrap();
    write.commit().unwrap();
    drop(database);
    let refused = Journal::open(disk.opener(), true, &Receivers::main(), DEAD_LIMIT).err().unwrap();
    assert!(matches!(refused, OpenError::OtherFormat { found: 7, .. }), "{refused}");
}

#[test]
fn a_journal_with_changed_bytes_is_refused() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    assert!(kept(&journal, (0..200).map(item).collect()));
    journal.close();
    drop(journal);
    let length = disk.bytes().len();
    let mut refused = 0;
    for place in (4096..length).step_by(length / 64) {
        let mut bytes = disk.bytes();
        bytes[place..].iter_mut().take(512).for_each(|byte| *byte ^= 0x5a);
        let damaged = Disk::holding(bytes);
        match Journal::open(damaged.opener(), true, &Receivers::main(), DEAD_LIMIT) {
            Err(error) => refused += usize::from(matches!(error, OpenError::Damaged(_))),
            // Pages that hold nothing may change.
            Ok((_, recovered)) => assert_eq!(recovered.items.len(), 200, "at {place}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same_unless_it_is_delivered_before() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    journal.put_unhurried(vec![item(0)], Vec::new());
    assert!(journal.delivered(0).is_none(), "it was on disk already");
    let before = disk.writes();
    journal.put_unhurried(vec![item(1)], Vec::new());
    while disk.writes() == before {
        std::thread::yield_now();
    }
    assert!(journal.delivered(1).is_some(), "it was not on disk");
    assert!(kept(&journal, vec![item(2)]));
    journal.close();
    let found: Vec<u64> = open(&disk).1.items.iter().map(|item| item.place).collect();
    assert_eq!(found, [2]);
}

#[test]
fn a_promise_is_kept_though_the_runtime_that_opened_the_journal_is_gone() {
    let disk = Disk::default();
    let (journal, _) = block_on(async { open(&disk) });
    assert!(kept(&journal, vec![item(0)]));
}

/// How many bytes are in use on a disk where a thousand events wait for each of the receivers.
fn bytes_for(receivers: &Receivers) -> u64 {
    let disk = Disk::default();
    let (journal, _) = open_for(&disk, receivers);
    let mut waiting: Vec<Item> = Vec::new();
    for nth in 0..1000 {
        let payload =
            serde_json::json!({"role": "user", "text": "I'd like to book a table for four."});
        let call = CallId::from_bytes([nth.try_into().unwrap_or(7); 16]);
        let event = Arc::new(Event::now(call, EventType::Transcription, &Payload::of(&payload)));
        for ((receiver, _), copy) in receivers.iter().zip(0..) {
            let share = if receivers.iter().len() == 1 { Share::Own } else { Share::Nth(copy) };
            let place = waiting.len() as u64;
            let item = Item::new(Arc::clone(&event), place, Origin::Relayed);
            waiting.push(Item { receiver, share, sequence: 1, ..item });
        }
    }
    assert!(kept(&journal, waiting));
    journal.close();
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    let stats = database.begin_write().unwrap().stats().unwrap();
    stats.allocated_pages() * stats.page_size() as u64
}

#[test]
fn three_receivers_take_little_more_room_than_one() {
    let (one, three) = (bytes_for(&Receivers::main()), bytes_for(&three()));
    assert!(three * 10 <= one * 16, "{one} bytes for one, {three} for three");
}
