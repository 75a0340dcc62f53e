//! The store: the journal's tables, and what is done to them in one transaction.
//!
//! The only file that names redb. One transaction is one fsync; a transaction that fails leaves
//! what was there before.
//!
//! Layout, format version [`FORMAT`]:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | name | number: the format version |
//! | `events` | order of acceptance | sequence, call, id, type, agent, envelope |
//! | `spent` | order | attempts spent, time of the first one |
//! | `ids` | id that a client gave | time, the decision it brought |
//! | `dead` | order | as `events`, and why it was given up |
//! | `calls` | call that is bridged | when it began |
//!
//! Times are Unix milliseconds.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageError, TableDefinition,
};

use super::{DeadLetter, Entry, KnownId, LiveCall, Mark, OpenError, Recovered};
use crate::event::{CallId, Event, EventId, EventType};

/// The version of the layout; another one is refused, not guessed at.
pub const FORMAT: u64 = 1;

/// What redb may hold of the file in memory, in bytes. The queue itself is in memory anyway, so
/// this serves commits alone.
const CACHE: usize = 1024 * 1024;

type EventRow<'a> = (u64, [u8; 16], &'a str, &'a str, Option<&'a str>, &'a [u8]);
type DeadRow<'a> = (
    u64,
    [u8; 16],
    &'a str,
    &'a str,
    Option<&'a str>,
    &'a [u8],
    u32,
    Option<u16>,
    &'a str,
    &'a str,
    u64,
    u64,
);

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const EVENTS: TableDefinition<'_, u64, EventRow<'_>> = TableDefinition::new("events");
const SPENT: TableDefinition<'_, u64, (u32, u64)> = TableDefinition::new("spent");
const IDS: TableDefinition<'_, &str, (u64, Option<&str>)> = TableDefinition::new("ids");
const DEAD: TableDefinition<'_, u64, DeadRow<'_>> = TableDefinition::new("dead");
const CALLS: TableDefinition<'_, [u8; 16], u64> = TableDefinition::new("calls");

/// What one transaction does.
#[derive(Debug)]
pub struct Batch {
    /// Events to keep.
    pub appends: Vec<Entry>,
    /// Events to forget.
    pub gone: Vec<u64>,
    /// Attempts spent, with the time of the first one.
    pub spent: Vec<(u64, u32, u64)>,
    /// Events that were given up.
    pub dead: Vec<DeadLetter>,
    /// Dead letters that are replayed or deleted.
    pub undead: Vec<u64>,
    /// What happened to ids, in this order.
    pub ids: Vec<IdChange>,
    /// Calls that began or ended, in this order.
    pub marks: Vec<Mark>,
}

impl Batch {
    /// How many rows are written or taken away.
    pub fn changes(&self) -> usize {
        self.appends.len()
            + self.gone.len()
            + self.spent.len()
            + self.dead.len()
            + self.undead.len()
            + self.ids.len()
            + self.marks.len()
    }
}

/// What a transaction found of dead letters.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// So many are kept.
    pub dead: u64,
    /// So many had to go because there were more than the limit.
    pub dropped: u64,
}

/// What happens to an id that a client gave.
#[derive(Debug)]
pub enum IdChange {
    /// It was given, or learnt its decision.
    Known(KnownId),
    /// Its hour is over, or its event was not kept.
    Forgotten(EventId),
}

/// How a store is opened, again after a fault.
pub type Opener = Box<dyn Fn(&mut Builder) -> Result<Database, DatabaseError> + Send + Sync>;

/// An open store.
pub struct Store {
    database: Database,
}

/// Why the store could not do something, in its own words.
pub type StoreError = redb::Error;

impl Store {
    /// A store in a file, made with its directory where it does not exist.
    pub fn in_file(path: &Path) -> Opener {
        let path = path.to_owned();
        Box::new(move |builder| {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            builder.create(&path)
        })
    }

    /// A store in memory, for what need not survive.
    pub fn in_memory() -> Opener {
        Box::new(|builder| builder.create_with_backend(InMemoryBackend::new()))
    }

    /// Opens the store, checks that it is whole and of this layout.
    pub fn open(opener: &Opener) -> Result<Self, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let store = Self { database: opener(&mut builder).map_err(open_error)? };
        match store.prepare().map_err(|error| OpenError::Damaged(error.to_string()))? {
            FORMAT => Ok(store),
            found => Err(OpenError::OtherFormat { found }),
        }
    }

    /// Makes the tables where they do not exist; returns the version of the layout.
    fn prepare(&self) -> Result<u64, StoreError> {
        let write = self.database.begin_write()?;
        let found = {
            let mut meta = write.open_table(META)?;
            let found = meta.get("format")?.map(|value| value.value());
            if found.is_none() {
                meta.insert("format", FORMAT)?;
            }
            found
        };
        if found.is_none() {
            write.open_table(EVENTS)?;
            write.open_table(SPENT)?;
            write.open_table(IDS)?;
            write.open_table(DEAD)?;
            write.open_table(CALLS)?;
            write.commit()?;
        }
        Ok(found.unwrap_or(FORMAT))
    }

    /// Everything that was promised and is not settled.
    pub fn recover(&self) -> Result<Recovered, StoreError> {
        let read = self.database.begin_read()?;
        let (events, spent) = (read.open_table(EVENTS)?, read.open_table(SPENT)?);
        let mut recovered = Recovered::default();
        for row in events.iter()? {
            let (order, row) = row?;
            let order = order.value();
            let (attempts, first_at) =
                spent.get(order)?.map(|value| value.value()).unwrap_or_default();
            recovered.events.push(entry(order, row.value(), attempts, first_at)?);
        }
        for row in read.open_table(IDS)?.iter()? {
            let (id, row) = row?;
            let (at, decision) = row.value();
            let id = EventId::Given(id.value().into());
            recovered.ids.push(KnownId { id, at, decision: decision.map(Into::into) });
        }
        for row in read.open_table(CALLS)?.iter()? {
            let (call, since) = row?;
            let call = CallId::from_bytes(call.value());
            recovered.calls.push(LiveCall { call, since: since.value() });
        }
        let last_dead = read.open_table(DEAD)?.last()?.map(|(order, _)| order.value());
        let last_event = recovered.events.last().map(|entry| entry.order);
        recovered.next_order = last_dead.max(last_event).map_or(0, |last| last + 1);
        Ok(recovered)
    }

    /// How many dead letters there are.
    pub fn dead_count(&self) -> Result<u64, StoreError> {
        Ok(self.database.begin_read()?.open_table(DEAD)?.len()?)
    }

    /// Does all of the batch, or nothing; on return it is on disk. There are at most `dead_limit` dead
    /// letters then.
    pub fn commit(&self, batch: &Batch, dead_limit: u64) -> Result<Committed, StoreError> {
        let write = self.database.begin_write()?;
        write_events(&write, batch)?;
        write_ids(&write, batch)?;
        write_marks(&write, batch)?;
        let committed = write_dead(&write, batch, dead_limit)?;
        write.commit()?;
        Ok(committed)
    }

    /// Dead letters from `from` on, oldest first, as long as `wanted` says so.
    pub fn dead(
        &self,
        from: u64,
        mut wanted: impl FnMut(DeadLetter) -> Wanted,
    ) -> Result<(), StoreError> {
        let read = self.database.begin_read()?;
        for row in read.open_table(DEAD)?.range(from..)? {
            let (order, row) = row?;
            if let Wanted::NoMore = wanted(dead_letter(order.value(), row.value())?) {
                break;
            }
        }
        Ok(())
    }
}

/// Whether the next dead letter is wanted too.
pub enum Wanted {
    /// Go on.
    More,
    /// This was the last one.
    NoMore,
}

fn write_events(write: &redb::WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let (mut events, mut spent) = (write.open_table(EVENTS)?, write.open_table(SPENT)?);
    for entry in &batch.appends {
        let event = &*entry.event;
        let id = event.id.to_string();
        let row = (
            entry.sequence,
            event.call.to_bytes(),
            id.as_str(),
            event.kind.name(),
            event.agent.as_deref(),
            &*event.body,
        );
        events.insert(entry.order, row)?;
    }
    for (order, attempts, first_at) in &batch.spent {
        spent.insert(order, (*attempts, *first_at))?;
    }
    for order in &batch.gone {
        events.remove(order)?;
        spent.remove(order)?;
    }
    Ok(())
}

fn write_ids(write: &redb::WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let mut ids = write.open_table(IDS)?;
    for change in &batch.ids {
        match change {
            IdChange::Known(KnownId { id, at, decision }) => {
                ids.insert(id.to_string().as_str(), (*at, decision.as_deref()))?;
            }
            IdChange::Forgotten(id) => {
                ids.remove(id.to_string().as_str())?;
            }
        }
    }
    Ok(())
}

fn write_marks(write: &redb::WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let mut calls = write.open_table(CALLS)?;
    for mark in &batch.marks {
        match mark {
            Mark::Live(LiveCall { call, since }) => calls.insert(call.to_bytes(), since)?,
            Mark::Over(call) => calls.remove(call.to_bytes())?,
        };
    }
    Ok(())
}

fn write_dead(
    write: &redb::WriteTransaction,
    batch: &Batch,
    limit: u64,
) -> Result<Committed, StoreError> {
    let mut dead = write.open_table(DEAD)?;
    for letter in &batch.dead {
        let event = &*letter.event;
        let id = event.id.to_string();
        let row = (
            letter.sequence,
            event.call.to_bytes(),
            id.as_str(),
            event.kind.name(),
            event.agent.as_deref(),
            &*event.body,
            letter.attempts,
            letter.status,
            letter.code.as_str(),
            letter.error.as_str(),
            letter.first_at,
            letter.last_at,
        );
        dead.insert(letter.order, row)?;
    }
    for order in &batch.undead {
        dead.remove(order)?;
    }
    let surplus = dead.len()?.saturating_sub(limit);
    for _ in 0..surplus {
        dead.pop_first()?;
    }
    Ok(Committed { dead: dead.len()?, dropped: surplus })
}

fn entry(order: u64, row: EventRow<'_>, spent: u32, first_at: u64) -> Result<Entry, StoreError> {
    let (sequence, call, id, kind, agent, body) = row;
    let event = event(call, id, kind, agent, body)?;
    Ok(Entry { order, sequence, spent, first_at, event, replays: None, bridged: false })
}

fn dead_letter(order: u64, row: DeadRow<'_>) -> Result<DeadLetter, StoreError> {
    let (sequence, call, id, kind, agent, body, attempts, status, code, error, first_at, last_at) =
        row;
    Ok(DeadLetter {
        order,
        sequence,
        event: event(call, id, kind, agent, body)?,
        attempts,
        status,
        code: code.to_owned(),
        error: error.to_owned(),
        first_at,
        last_at,
    })
}

fn event(
    call: [u8; 16],
    id: &str,
    kind: &str,
    agent: Option<&str>,
    body: &[u8],
) -> Result<Arc<Event>, StoreError> {
    let kind: EventType =
        kind.parse().map_err(|_| redb::Error::Corrupted(format!("{kind:?} is no event type")))?;
    Ok(Arc::new(Event {
        id: EventId::from_text(id),
        call: CallId::from_bytes(call),
        kind,
        agent: agent.map(Into::into),
        body: Bytes::copy_from_slice(body),
    }))
}

fn open_error(error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse
        }
        DatabaseError::UpgradeRequired(found) => OpenError::OtherFormat { found: found.into() },
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            OpenError::Unreachable(error.to_string())
        }
        other => OpenError::Damaged(other.to_string()),
    }
}
