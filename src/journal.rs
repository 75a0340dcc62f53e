//! The journal: what was promised and must survive.
//!
//! Owns the durable copy of the queue, the dead letters, and the ids given in the last hour. Asks
//! nobody why. Everything that waits goes into one transaction and one fsync, in a thread of its
//! own. Those who want a promise wait for it, on a [`Ticket`]; and so does the next event of a call
//! whose last one is on disk, until that is taken away. No other delivery does.
//!
//! Invariants:
//! - A ticket is kept when each of its events is on disk, or delivered: an event that is delivered before
//!   its turn to be written never touches the disk. Ids that clients gave are always written, so that a
//!   repeat is known after a crash too.
//! - After a crash at most one event of a call is delivered again.
//! - What was written stays until it is settled, through any fault of the disk.
//! - An event that was refused because of the disk is not found in the journal later, nor its id.
//! - An event that nobody waits for, which a `call_initiated` of `POST /call` is, may take twice 25 ms, and
//!   the write, until it is on disk: a crash before loses it if it was not delivered.
//!
//! Limits: what waits to be written is bounded by `QUEUE_LIMIT`, as it is part of the queue, but for dead letters of
//! copies that had no room, of which a thousand wait.
//!
//! Without a file (`JOURNAL_PATH=none`) events are kept by the queue alone, every ticket is
//! kept at once, and the dead letters live in memory.

mod file;
mod inbox;
mod metrics;
mod row;
mod store;
mod ticket;
mod writer;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{error, info, warn};

pub use self::file::{in_file, in_memory, on};
use self::inbox::Inbox;
pub use self::metrics::JournalMetrics;
pub use self::row::{Changes, DeadLetter, EndedCall, GivenId};
pub use self::store::{
    DiskError, ENDED_KEPT, LettersLeft, LiveCall, OpenError, Opener, Recovered, Store,
};
pub use self::ticket::Ticket;
use self::writer::WriterState;
use crate::event::{CallId, Event, EventId, EventType, Item};
use crate::receiver::{ReceiverId, Receivers};
use crate::time::unix_millis;

/// Which dead letters are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    pub receiver: Option<ReceiverId>,
    pub call: Option<CallId>,
    pub kind: Option<EventType>,
    /// The event's.
    pub id: Option<String>,
    /// Of the last failure.
    pub code: Option<String>,
    /// Of the last answer.
    pub status: Option<u16>,
    /// Given up at or after this time, in Unix milliseconds.
    pub since: Option<u64>,
    /// Given up before this time, in Unix milliseconds.
    pub before: Option<u64>,
}

impl DeadFilter {
    fn admits(&self, letter: &DeadLetter) -> bool {
        let event = &letter.item.event;
        self.call.is_none_or(|call| event.call == call)
            && self.kind.as_ref().is_none_or(|kind| event.kind == *kind)
            && self.id.as_ref().is_none_or(|id| event.id.to_string() == *id)
            && self.code.as_ref().is_none_or(|code| letter.code == *code)
            && self.status.is_none_or(|status| letter.status == Some(status))
            && self.since.is_none_or(|since| letter.last_at >= since)
            && self.before.is_none_or(|before| letter.last_at < before)
    }
}

/// The durable queue's handle.
pub struct Journal {
    shared: Arc<WriterState>,
    /// Whether events are written at all.
    durable: bool,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// The places of what waits for receivers that are not in the settings any more.
    retired: Mutex<HashMap<ReceiverId, Vec<u64>>>,
}

impl Journal {
    /// For the receivers of the settings.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn in_file(
        path: &Path,
        receivers: &Receivers,
        dead_limit: u64,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open(in_file(path), true, receivers, dead_limit)
    }

    /// Keeps dead letters in memory, and events not at all.
    pub fn in_memory(receivers: &Receivers, dead_limit: u64) -> Self {
        let opened = Self::open(in_memory(), false, receivers, dead_limit);
        opened.expect("an empty store in memory can be opened").0
    }

    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn open(
        opener: Opener,
        durable: bool,
        receivers: &Receivers,
        dead_limit: u64,
    ) -> Result<(Self, Recovered), OpenError> {
        let mut store = opener(receivers)?;
        match store.compact() {
            Ok(Some((before, after))) => info!(before, after, "the journal's file was compacted"),
            Ok(None) => {}
            Err(error) => warn!(%error, "the journal's file cannot be compacted"),
        }
        let damaged = |error: DiskError| OpenError::Damaged(error.0.to_string());
        let mut recovered = store.recover().map_err(damaged)?;
        let all = store.receivers().clone();
        let retired = take_retired(&mut recovered, receivers);
        let metrics = JournalMetrics::of_receivers(all.iter().len());
        let gauged = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for ((receiver, _), dead) in all.iter().zip(store.dead_counts().map_err(damaged)?) {
            metrics.of(receiver).dead.set(gauged(dead));
        }
        metrics.dead_limit.set(gauged(dead_limit));
        let shared = Arc::new(WriterState {
            opener,
            receivers: all,
            dead_limit,
            metrics,
            inbox: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            refused: Notify::new(),
            store: RwLock::new(Some(store)),
            runtime: Handle::try_current().ok(),
        });
        let writing = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writing.write_until_closed())
            .map_err(|error| {
                OpenError::Unreachable(format!("cannot start its writer thread: {error}"))
            })?;
        let (writer, retired) = (Mutex::new(Some(writer)), Mutex::new(retired));
        Ok((Self { shared, durable, writer, retired }, recovered))
    }

    /// Takes events into one transaction, with copies that find no room and are dead letters from the start, and
    /// promises that they are kept. With the `call_started` and `call_ended` of a bridged call goes that the call is
    /// live, or not any more. The promise for a bridged call's event is refused as soon as the disk does not take it;
    /// it is tried again all the same.
    pub fn put(&self, items: Vec<Item>, unsent: Vec<DeadLetter>) -> Ticket {
        let ticket = self.promise_of(items.len() + unsent.len());
        self.add(items, unsent, Some(&ticket));
        ticket
    }

    /// The same for what nobody waits for: an event is written only if it is not delivered soon.
    pub fn put_unhurried(&self, items: Vec<Item>, unsent: Vec<DeadLetter>) {
        self.add(items, unsent, None);
    }

    fn add(&self, items: Vec<Item>, unsent: Vec<DeadLetter>, promise: Option<&Ticket>) {
        let now = unix_millis();
        if self.durable || !unsent.is_empty() {
            let promise = promise.filter(|_| self.durable);
            self.shared.change(|inbox| {
                if self.durable {
                    items.into_iter().for_each(|item| inbox.put(item, promise.cloned(), now));
                }
                unsent.into_iter().for_each(|letter| inbox.bury(letter, promise.cloned(), now));
            });
        }
    }

    /// Takes the events of dead letters that are replayed, each with the letter's place, into one transaction
    /// with the end of the letters, and promises that they are kept.
    pub fn replay(&self, items: Vec<(Item, u64)>) -> Ticket {
        let ticket = self.promise_of(items.len());
        self.shared.change(|inbox| {
            for (item, dead) in items {
                match self.durable {
                    true => inbox.replay(item, dead, ticket.clone()),
                    false => inbox.delete(dead),
                }
            }
        });
        ticket
    }

    fn promise_of(&self, events: usize) -> Ticket {
        Ticket::new(if self.durable { events } else { 0 })
    }

    /// If the event begins or ends a bridged call, the call is live or not any more, though the event is not
    /// put.
    pub fn note_bounds(&self, event: &Event) {
        let now = unix_millis();
        self.change(|inbox| inbox.note_bounds(event, now));
    }

    /// Promises that it is kept how a call ended. The promise is refused as soon as the disk does not take it;
    /// it is tried again all the same.
    pub fn call_ended(&self, ended: EndedCall) -> Ticket {
        let ticket = self.promise_of(1);
        self.change(|inbox| inbox.end_call(ended, ticket.clone()));
        ticket
    }

    /// All calls that were begun, and not ended, are alive now.
    pub fn calls_live(&self) {
        let now = unix_millis();
        self.change(|inbox| inbox.note_live(now));
    }

    /// The event was delivered. With a ticket, it is on disk, and the call's next event must wait
    /// until it is taken away: a crash in between would deliver both again.
    pub fn delivered(&self, place: u64) -> Option<Ticket> {
        self.change(|inbox| inbox.deliver(place)).flatten()
    }

    /// The event was given up; the call's next one waits for the ticket, as with a delivery.
    pub fn died(&self, letter: DeadLetter) -> Option<Ticket> {
        let ticket = self.shared.change(|inbox| inbox.give_up(letter));
        ticket.filter(|_| self.durable)
    }

    /// The event spent another attempt.
    pub fn spent(&self, item: &Item) {
        self.change(|inbox| inbox.spend(item.place, item.spent));
    }

    /// The event with this id, which a client gave, brought a decision.
    pub fn decided(&self, id: EventId, decision: Box<str>) {
        let given = GivenId { at: unix_millis(), decision: Some(decision) };
        self.change(|inbox| inbox.note_id(id, Some(given)));
    }

    /// Ids may be given again, as if they never had been.
    pub fn forget(&self, ids: Vec<EventId>) {
        if !ids.is_empty() {
            self.change(|inbox| ids.into_iter().for_each(|id| inbox.note_id(id, None)));
        }
    }

    /// Takes away some of what waits for a receiver that is not in the settings any more, once what was taken away
    /// before is written; returns how many events, which is 0 when nothing is left. Waits for the disk: not for the
    /// async threads.
    pub fn drop_waiting(&self, receiver: ReceiverId) -> usize {
        // Calls wait for the lock under which a batch is filled, and copied.
        const AT_ONCE: usize = 1000;
        self.shared.wait_written();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(places) = retired.get_mut(&receiver) else { return 0 };
        // The last ones first: should callhook end meanwhile, calls keep their beginnings.
        let dropped = places.split_off(places.len().saturating_sub(AT_ONCE));
        drop(retired);
        let count = dropped.len();
        self.delete(dropped);
        count
    }

    /// How many events wait for a receiver that is not in the settings any more.
    pub fn waiting_retired(&self, receiver: ReceiverId) -> usize {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.get(&receiver).map_or(0, Vec::len)
    }

    /// Those of the settings, then others that the journal held something for at the start.
    pub fn receivers(&self) -> &Receivers {
        &self.shared.receivers
    }

    /// Takes dead letters away.
    pub fn delete(&self, places: impl IntoIterator<Item = u64>) {
        self.shared.change(|inbox| places.into_iter().for_each(|place| inbox.delete(place)));
    }

    /// Why nothing can be promised now, if so.
    pub fn fault(&self) -> Option<DiskError> {
        self.shared.lock().failing.clone()
    }

    /// Waits until the writer could not write. What it could not promise is in
    /// [`Journal::unwritten`], to be taken back with [`Journal::withdraw`].
    pub async fn refused(&self) {
        self.shared.refused.notified().await;
    }

    /// The events that are promised to nobody yet, oldest first.
    pub fn unwritten(&self) -> Vec<Item> {
        self.shared.lock().unwritten().cloned().collect()
    }

    /// The events that are dead letters from the start, and promised to nobody yet, oldest first.
    pub fn unsent(&self) -> Vec<Item> {
        self.shared.lock().unsent().cloned().collect()
    }

    /// Whether a dead letter more may be handed in that was never sent: not while the disk fails, or hangs for long.
    pub fn can_bury(&self) -> bool {
        self.shared.lock().can_bury()
    }

    /// The queue does not keep the event: whoever waits for the promise is refused, and its id may be given
    /// again. `false` where the disk has it, or is about to.
    pub fn withdraw(&self, place: u64) -> bool {
        self.shared.change(|inbox| inbox.withdraw(place))
    }

    pub fn metrics(&self) -> &JournalMetrics {
        &self.shared.metrics
    }

    /// Whether events outlive the process.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Dead letters, oldest first, at most `limit`, from the cursor on; and the next cursor.
    /// Reads the disk: not for the async threads.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn dead_letters(
        &self,
        filter: &DeadFilter,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, Option<u64>), DiskError> {
        self.shared.wait_written();
        let (mut found, mut next) = (Vec::new(), None);
        self.shared.read(|store| {
            store.dead_letters(filter.receiver, from, &mut |letter| {
                if !filter.admits(&letter) {
                    return ControlFlow::Continue(());
                }
                if found.len() == limit {
                    next = Some(letter.item.place);
                    return ControlFlow::Break(());
                }
                found.push(letter);
                ControlFlow::Continue(())
            })
        })?;
        Ok((found, next))
    }

    /// How many dead letters of each receiver are on disk, by its id. Reads the disk: not for the async threads.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn dead_counts(&self) -> Result<Vec<u64>, DiskError> {
        self.shared.read(|store| store.dead_counts())
    }

    /// Writes what waits and stops. Blocks for that long: not for the async threads.
    pub fn close(&self) {
        self.shared.lock().closing = true;
        // It may rest for any reason.
        self.shared.wake.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            error!("the journal's writer ended with a panic");
        }
        // Closed properly, the file need not be repaired at the next start.
        *self.shared.store.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Changes what concerns events, of which there are none without a file.
    fn change<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> Option<T> {
        self.durable.then(|| self.shared.change(change))
    }
}

/// Takes what waits for receivers that are not in the settings out of the items; returns its places.
fn take_retired(recovered: &mut Recovered, receivers: &Receivers) -> HashMap<ReceiverId, Vec<u64>> {
    let mut retired: HashMap<ReceiverId, Vec<u64>> = HashMap::new();
    let configured = receivers.iter().len();
    recovered.items.retain(|item| {
        let is_kept = item.receiver.index() < configured;
        if !is_kept {
            retired.entry(item.receiver).or_default().push(item.place);
        }
        is_kept
    });
    retired
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}
