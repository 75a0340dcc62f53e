//! The journal: what was promised and must survive.
//!
//! Owns the durable copy of the queue, the dead letters, and the ids given in the last hour. Asks
//! nobody why. Everything that waits goes into one transaction and one fsync, in a thread of its
//! own. Those who want a promise wait for it, on a [`Ticket`]; and so does the next event of a call
//! whose last one is on disk, until that is taken away. No other delivery does.
//!
//! Invariants:
//! - A ticket is fulfilled when each of its events is on disk, or settled: an event that is
//!   delivered before its turn to be written never touches the disk. Ids that clients gave are
//!   always written, so that a repeat is known after a crash too.
//! - After a crash at most one event of a call is delivered again.
//! - What was written stays until it is settled, through any fault of the disk.
//! - An event that was refused because of the disk is not found in the journal later, nor its id.
//! - An event that nobody waits for, which a `call_initiated` of `POST /call` is, may take twice
//!   [`UNHURRIED`], and the write, until it is on disk: a crash before loses it if it was not delivered.
//!
//! Limits: what waits to be written is bounded by `QUEUE_LIMIT`, as it is part of the queue.
//!
//! Without a file (`JOURNAL_PATH=none`) events are kept by the queue alone, every ticket is
//! fulfilled at once, and the dead letters live in memory.

mod inbox;
mod metrics;
mod store;
mod ticket;
mod writer;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::error;

use self::inbox::Inbox;
pub use self::metrics::JournalMetrics;
pub use self::store::Opener;
use self::store::{IdChange, Store, Wanted};
pub use self::ticket::Ticket;
use crate::event::{CallId, Event, EventId, EventType};

/// How often the writer looks for events that nobody waits for. One that it sees twice is written: a
/// receiver that is well has answered by then, and its events never touch the disk.
const UNHURRIED: Duration = Duration::from_millis(25);

/// An event in the journal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place among all events ever accepted.
    pub order: u64,
    /// Its place within the call.
    pub sequence: u64,
    /// Attempts spent.
    pub spent: u32,
    /// When the first attempt failed, in Unix milliseconds; 0 before.
    pub first_at: u64,
    /// The event.
    pub event: Arc<Event>,
    /// The dead letter that this event was, if it is replayed.
    pub replays: Option<u64>,
    /// Whether callhook saw it happen in a call that it bridges. Nobody sent it who could be refused
    /// and send it again, so it is kept in memory when the disk does not take it.
    pub bridged: bool,
}

/// A call that is being bridged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCall {
    /// Which.
    pub call: CallId,
    /// When it began, in Unix milliseconds.
    pub since: u64,
}

/// A bridged call's begin or end. What is left of it after a crash tells which calls need an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It began.
    Live(LiveCall),
    /// It ended.
    Over(CallId),
}

/// An event that was given up.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its place among all events ever accepted.
    pub order: u64,
    /// Its place within the call.
    pub sequence: u64,
    /// The event.
    pub event: Arc<Event>,
    /// Attempts made.
    pub attempts: u32,
    /// The status of the last one, if it was answered.
    pub status: Option<u16>,
    /// The code of the last failure.
    pub code: String,
    /// The last failure.
    pub error: String,
    /// When the first attempt failed, in Unix milliseconds.
    pub first_at: u64,
    /// When the last attempt failed, in Unix milliseconds.
    pub last_at: u64,
}

/// An id that a client gave, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownId {
    /// The id.
    pub id: EventId,
    /// When it was given, in Unix milliseconds.
    pub at: u64,
    /// The receiver's `sts_url`, for a `call_initiated` that brought one.
    pub decision: Option<Box<str>>,
}

/// How soon something is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Somebody waits for it, or may.
    Soon,
    /// Nobody waits for it.
    Unhurried,
}

/// What a journal holds at the start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Events that are not settled, in the order they were accepted.
    pub events: Vec<Entry>,
    /// Ids that were given, in no order, perhaps longer than an hour ago.
    pub ids: Vec<KnownId>,
    /// The order of the next event.
    pub next_order: u64,
    /// Calls that were being bridged.
    pub calls: Vec<LiveCall>,
}

/// Which dead letters are asked for.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Of this call.
    pub call: Option<CallId>,
    /// Of this type.
    pub kind: Option<EventType>,
    /// With this id.
    pub id: Option<String>,
    /// Given up at or after this time, in Unix milliseconds.
    pub since: Option<u64>,
}

impl DeadFilter {
    fn admits(&self, letter: &DeadLetter) -> bool {
        self.call.is_none_or(|call| letter.event.call == call)
            && self.kind.as_ref().is_none_or(|kind| letter.event.kind == *kind)
            && self.id.as_ref().is_none_or(|id| letter.event.id.to_string() == *id)
            && self.since.is_none_or(|since| letter.last_at >= since)
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "is in use by another process; stop that one, or give this one a JOURNAL_PATH of its own"
    )]
    InUse,
    /// Another version of callhook wrote it.
    #[error(
        "has format {found}, and this callhook reads {}: let the callhook that wrote it deliver \
         what it holds, or move the file away to begin anew",
        store::FORMAT
    )]
    OtherFormat {
        /// Its version.
        found: u64,
    },
    /// It is not what was written.
    #[error(
        "is damaged, or no journal: {0}. Nothing was deleted. Restore it from a backup, or move it \
         away to begin anew without the events it holds"
    )]
    Damaged(String),
    /// The file system does not let it be opened.
    #[error("cannot be opened: {0}. The directory must exist or be makeable, and be writable")]
    Unreachable(String),
}

/// The disk does not take what is to be promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub struct DiskError(pub Arc<str>);

/// The durable queue's handle.
pub struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    opener: Opener,
    /// Whether events are written at all.
    durable: bool,
    dead_limit: u64,
    metrics: JournalMetrics,
    inbox: Mutex<Inbox>,
    /// The writer rests too long for what came meanwhile.
    wake: Condvar,
    /// The writer is done with a batch.
    done: Condvar,
    /// The writer could not write.
    refused: Notify,
    /// Gone while a disk that failed is tried again.
    store: RwLock<Option<Store>>,
    /// Where those run who wait on tickets.
    runtime: Option<Handle>,
}

impl Journal {
    /// Opens the journal in a file.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn in_file(path: &Path, dead_limit: u64) -> Result<(Self, Recovered), OpenError> {
        Self::open(Store::in_file(path), true, dead_limit)
    }

    /// Keeps dead letters in memory, and events not at all.
    pub fn in_memory(dead_limit: u64) -> Self {
        let opened = Self::open(Store::in_memory(), false, dead_limit);
        opened.expect("an empty store in memory can be opened").0
    }

    /// Opens a journal wherever the opener finds it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed then.
    pub fn open(
        opener: Opener,
        durable: bool,
        dead_limit: u64,
    ) -> Result<(Self, Recovered), OpenError> {
        let store = Store::open(&opener)?;
        let damaged = |error: store::StoreError| OpenError::Damaged(error.to_string());
        let recovered = store.recover().map_err(damaged)?;
        let metrics = JournalMetrics::default();
        metrics.dead.set(gauged(store.dead_count().map_err(damaged)?));
        metrics.dead_limit.set(gauged(dead_limit));
        let shared = Arc::new(Shared {
            opener,
            durable,
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
                OpenError::Unreachable(format!("no thread for its writer: {error}"))
            })?;
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, recovered))
    }

    /// The promise for so many events and ids; without a file it is fulfilled at once.
    pub fn ticket(&self, events: usize, ids: usize) -> Ticket {
        Ticket::new(if self.shared.durable { events + ids } else { 0 })
    }

    /// Takes events to be kept, for which the ticket was made, and the ids among them that clients
    /// gave. Both get into one transaction: an id that is known without its event would be taken for
    /// a repeat, and the event be lost.
    pub fn append(&self, entries: Vec<Entry>, ids: Vec<KnownId>, ticket: &Ticket, haste: Haste) {
        let durable = self.shared.durable;
        self.shared.change(|inbox| match durable {
            true => inbox.append(entries, ids, ticket, haste),
            false => inbox.revive(entries.into_iter().filter_map(|entry| entry.replays)),
        });
    }

    /// Takes what happened in a bridged call, and the mark that goes with it, into one transaction. The
    /// ticket is refused as soon as the disk does not take the event; it is tried again all the same.
    pub fn record(&self, entry: Option<Entry>, mark: Option<Mark>, ticket: &Ticket) {
        if self.shared.durable {
            self.shared.change(|inbox| {
                inbox.mark(mark);
                inbox.append(entry.into_iter().collect(), Vec::new(), ticket, Haste::Soon);
            });
        }
    }

    /// The event was delivered. With a ticket, it is on disk, and the call's next event must wait
    /// until it is taken away: a crash in between would deliver both again.
    pub fn delivered(&self, order: u64) -> Option<Ticket> {
        if self.shared.durable { self.shared.change(|inbox| inbox.deliver(order)) } else { None }
    }

    /// The event was given up; the call's next one waits for the ticket, as with a delivery.
    pub fn died(&self, letter: DeadLetter) -> Option<Ticket> {
        let ticket = self.shared.change(|inbox| inbox.bury(letter));
        ticket.filter(|_| self.shared.durable)
    }

    /// The event spent another attempt.
    pub fn spent(&self, order: u64, attempts: u32, first_at: u64) {
        if self.shared.durable {
            self.shared.change(|inbox| {
                inbox.spent.insert(order, (attempts, first_at));
                inbox.hasten(Haste::Soon);
            });
        }
    }

    /// Remembers an id, or the decision that it brought.
    pub fn remember(&self, known: KnownId) {
        if self.shared.durable {
            self.shared.change(|inbox| inbox.note_ids([IdChange::Known(known)]));
        }
    }

    /// Forgets ids.
    pub fn forget(&self, ids: Vec<EventId>) {
        if self.shared.durable && !ids.is_empty() {
            let forgotten = ids.into_iter().map(IdChange::Forgotten);
            self.shared.change(|inbox| inbox.note_ids(forgotten));
        }
    }

    /// Takes dead letters away.
    pub fn bury(&self, orders: Vec<u64>) {
        self.shared.change(|inbox| inbox.revive(orders));
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
    pub fn unwritten(&self) -> Vec<Entry> {
        self.shared.lock().appends.values().map(|(entry, _)| entry.clone()).collect()
    }

    /// What it counts and measures.
    pub fn metrics(&self) -> &JournalMetrics {
        &self.shared.metrics
    }

    /// Whether events outlive the process.
    pub fn is_durable(&self) -> bool {
        self.shared.durable
    }

    /// The queue does not keep the event: whoever waits for the promise is refused.
    pub fn withdraw(&self, order: u64) {
        let promise = self.shared.change(|inbox| inbox.withdraw(order));
        promise.into_iter().for_each(|promise| promise.refuse());
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
            store.dead(from, |letter| {
                if !filter.admits(&letter) {
                    return Wanted::More;
                }
                if found.len() == limit {
                    next = Some(letter.order);
                    return Wanted::NoMore;
                }
                found.push(letter);
                Wanted::More
            })
        })?;
        Ok((found, next))
    }

    /// How many dead letters are on disk. Reads the disk: not for the async threads.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn dead_count(&self) -> Result<u64, DiskError> {
        let mut count = 0;
        self.shared.read(|store| {
            count = store.dead_count()?;
            Ok(())
        })?;
        Ok(count)
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
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics while it holds this lock")
    }

    /// Changes the inbox, and wakes the writer where it rests longer than it now may. Waking costs a
    /// system call, even if nobody rests.
    fn change<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let mut inbox = self.lock();
        let result = change(&mut inbox);
        let late = inbox.resting.is_some_and(|known| known != inbox.due);
        if late {
            inbox.resting = None;
        }
        drop(inbox);
        if late {
            self.wake.notify_one();
        }
        result
    }

    /// Waits until what was handed in so far is written, or cannot be.
    ///
    /// Of what waits, only what concerns dead letters: that leaves the inbox with a batch and in no other
    /// way, while an event that is delivered leaves it unwritten, and no batch might ever follow.
    fn wait_written(&self) {
        let inbox = self.lock();
        let target = inbox.taken + u64::from(inbox.concerns_dead_letters());
        let waits = |inbox: &mut Inbox| inbox.done < target && inbox.failing.is_none();
        drop(self.done.wait_while(inbox, waits).expect("nothing panics while it holds this lock"));
    }

    fn read(
        &self,
        read: impl FnOnce(&Store) -> Result<(), store::StoreError>,
    ) -> Result<(), DiskError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let open = store.as_ref().ok_or_else(|| DiskError("it is being opened again".into()))?;
        read(open).map_err(|error| DiskError(error.to_string().into()))
    }
}

fn gauged(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
