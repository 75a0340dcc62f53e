//! The store in a file, or in memory: its tables, and what is done to them in one transaction.
//!
//! The only file that names redb. One transaction is one fsync; a transaction that fails leaves
//! what was there before.
//!
//! Layout, format version [`FORMAT`]:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | name | number: the format version, and when the calls that are bridged were last alive |
//! | `events` | place | sequence, call, id, type, agent, envelope |
//! | `spent` | place | attempts spent, when the first one failed |
//! | `ids` | id that a client gave | when, the decision it brought |
//! | `dead` | place | as `events`, and why it was given up |
//! | `answers` | place of a dead letter | its time, what the receiver said of it |
//! | `calls` | call that is bridged | when it began |
//! | `ended` | when, call | why it ended, and how many milliseconds it took |
//! | `next` | as `ended`, of those that have one | context and extension where the caller is sent on to |
//!
//! `ended`, `next`, `answers`, and the second number of `meta`, came later than the rest: a file may lack them, and a
//! callhook that does not know them loses nothing. Should that one use the place of an answer again, the letter's
//! time tells that the answer is not its own. Each is a table of its own because a table's type is fixed once it is made.
//! Times are Unix milliseconds.

use std::io::ErrorKind;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase as _,
    ReadableTable as _, ReadableTableMetadata as _, StorageError, TableDefinition, TableError,
    Value, WriteTransaction,
};

use super::row::{Changes, DeadLetter, End, EndedCall, GivenId};
use super::store::{
    Committed, DiskError, ENDED_KEPT, LiveCall, OpenError, Opener, Recovered, Store,
};
use crate::event::{CallId, Event, EventHeaders, EventId, EventType, Item, Origin, Spent};
use crate::routing::destination::Destination;

/// The version of the layout; another one is refused, not guessed at.
const FORMAT: u64 = 1;

/// What redb may hold of the file in memory, in bytes. The queue itself is in memory anyway, so
/// this serves commits alone.
const CACHE: usize = 1024 * 1024;

/// A file with more than this free, in bytes, and more than half of it, is compacted: it grows again in an outage, so
/// a small one may keep its size.
const FREE: u64 = 64 * 1024 * 1024;

/// Sequence, call, id, type, agent, envelope.
type EventRow<'a> = (u64, [u8; 16], &'a str, &'a str, Option<&'a str>, &'a [u8]);
/// The same, then attempts, status, code, error, first failed at, last failed at.
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
const ANSWERS: TableDefinition<'_, u64, (u64, &str)> = TableDefinition::new("answers");
const CALLS: TableDefinition<'_, [u8; 16], u64> = TableDefinition::new("calls");
const ENDED: TableDefinition<'_, (u64, [u8; 16]), (&str, u64)> = TableDefinition::new("ended");
const NEXT: TableDefinition<'_, (u64, [u8; 16]), (&str, &str)> = TableDefinition::new("next");

/// In `meta`.
const LIVE_AT: &str = "live_at";

/// An open redb database with callhook's tables.
struct FileStore {
    database: Database,
    /// Where it is a file.
    path: Option<PathBuf>,
}

/// Opens a file, made with its directory where it does not exist.
pub fn in_file(path: &Path) -> Opener {
    let path = path.to_owned();
    opener(Some(path.clone()), move |builder| {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        builder.create(&path)
    })
}

/// For what need not survive.
pub fn in_memory() -> Opener {
    on(|builder| builder.create_with_backend(InMemoryBackend::new()))
}

/// Opens whatever redb can work on.
pub fn on(
    open: impl Fn(&mut Builder) -> Result<Database, DatabaseError> + Send + Sync + 'static,
) -> Opener {
    opener(None, open)
}

fn opener(
    path: Option<PathBuf>,
    open: impl Fn(&mut Builder) -> Result<Database, DatabaseError> + Send + Sync + 'static,
) -> Opener {
    Box::new(move || {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = open(&mut builder).map_err(open_error)?;
        let store = FileStore { database, path: path.clone() };
        match store.prepare().map_err(|error| OpenError::Damaged(error.to_string()))? {
            FORMAT => Ok(Box::new(store)),
            found => Err(OpenError::OtherFormat { found, reads: FORMAT }),
        }
    })
}

impl Store for FileStore {
    fn commit(&self, changes: &Changes, dead_limit: u64) -> Result<Committed, DiskError> {
        Ok(self.write(changes, dead_limit)?)
    }

    fn recover(&self) -> Result<Recovered, DiskError> {
        Ok(self.read()?)
    }

    fn dead_letters(
        &self,
        from: u64,
        visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        Ok(self.visit_dead(from, visit)?)
    }

    fn compact(&mut self) -> Result<Option<(u64, u64)>, DiskError> {
        let Some(path) = &self.path else { return Ok(None) };
        let length = || std::fs::metadata(path).map_or(0, |file| file.len());
        let before = length();
        if before <= FREE {
            return Ok(None);
        }
        let free = before.saturating_sub(used(&self.database)?);
        if free <= FREE || free <= before / 2 {
            return Ok(None);
        }
        self.database.compact().map_err(|error| DiskError(error.to_string().into()))?;
        Ok(Some((before, length())))
    }

    fn dead_count(&self) -> Result<u64, DiskError> {
        let count = || -> Result<u64, redb::Error> {
            Ok(self.database.begin_read()?.open_table(DEAD)?.len()?)
        };
        Ok(count()?)
    }
}

impl From<redb::Error> for DiskError {
    fn from(error: redb::Error) -> Self {
        Self(error.to_string().into())
    }
}

impl FileStore {
    /// Makes the tables where they do not exist; returns the version of the layout.
    fn prepare(&self) -> Result<u64, redb::Error> {
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

    fn write(&self, changes: &Changes, dead_limit: u64) -> Result<Committed, redb::Error> {
        let write = self.database.begin_write()?;
        let committed = write_rows(&write, changes, dead_limit)?;
        write_ids(&write, changes)?;
        write_calls(&write, changes)?;
        write.commit()?;
        Ok(committed)
    }

    fn read(&self) -> Result<Recovered, redb::Error> {
        let read = self.database.begin_read()?;
        let (events, spent) = (read.open_table(EVENTS)?, read.open_table(SPENT)?);
        let mut recovered = Recovered::default();
        for row in events.iter()? {
            let (place, row) = row?;
            let place = place.value();
            let spent = spent.get(place)?.map(|value| value.value()).unwrap_or_default();
            recovered.items.push(item(place, row.value(), spent)?);
        }
        for row in read.open_table(IDS)?.iter()? {
            let (id, row) = row?;
            let (at, decision) = row.value();
            let given = GivenId { at, decision: decision.map(Into::into) };
            recovered.ids.push((EventId::Given(id.value().into()), given));
        }
        let live_at = read.open_table(META)?.get(LIVE_AT)?.map_or(0, |at| at.value());
        for row in read.open_table(CALLS)?.iter()? {
            let (call, since) = row?;
            let (call, since) = (CallId::from_bytes(call.value()), since.value());
            recovered.calls.push(LiveCall { call, since, seen: live_at.max(since) });
        }
        recovered.ended = ended_calls(&read)?;
        let last_dead = read.open_table(DEAD)?.last()?.map(|(place, _)| place.value());
        let last_item = recovered.items.last().map(|item| item.place);
        recovered.next_place = last_dead.max(last_item).map_or(0, |last| last + 1);
        Ok(recovered)
    }

    fn visit_dead(
        &self,
        from: u64,
        visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), redb::Error> {
        let read = self.database.begin_read()?;
        let answers = later_table(&read, ANSWERS)?;
        for row in read.open_table(DEAD)?.range(from..)? {
            let (place, row) = row?;
            let mut letter = dead_letter(place.value(), row.value())?;
            if let Some(answer) =
                answers.as_ref().map(|answers| answers.get(place.value())).transpose()?.flatten()
                && answer.value().0 == letter.last_at
            {
                letter.answer = Some(answer.value().1.into());
            }
            if visit(letter).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn ended_calls(read: &ReadTransaction) -> Result<Vec<EndedCall>, redb::Error> {
    let Some(table) = later_table(read, ENDED)? else { return Ok(Vec::new()) };
    let next = later_table(read, NEXT)?;
    let ended = table.iter()?.map(|row| {
        let (key, value) = row?;
        let ((at, call), (reason, duration_ms)) = (key.value(), value.value());
        let next = next.as_ref().map(|next| next.get((at, call))).transpose()?.flatten();
        // What is no destination would be of no use to a dialplan.
        let next = next.and_then(|next| Destination::new(next.value().0, next.value().1).ok());
        let (call, reason) = (CallId::from_bytes(call), reason.to_owned().into());
        Ok(EndedCall { call, reason, duration_ms, at, next })
    });
    ended.collect()
}

/// A table that an older callhook did not make.
fn later_table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, redb::Error> {
    match read.open_table(definition) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(Some(table?)),
    }
}

/// In bytes.
fn used(database: &Database) -> Result<u64, redb::Error> {
    let stats = database.begin_write()?.stats()?;
    Ok(stats.allocated_pages() * stats.page_size() as u64)
}

fn write_rows(
    write: &WriteTransaction,
    changes: &Changes,
    dead_limit: u64,
) -> Result<Committed, redb::Error> {
    let (mut events, mut spent) = (write.open_table(EVENTS)?, write.open_table(SPENT)?);
    let (mut dead, mut answers) = (write.open_table(DEAD)?, write.open_table(ANSWERS)?);
    for (place, row) in &changes.rows {
        if let Some(item) = &row.put {
            events.insert(place, event_row(item, &item.event.id.to_string()))?;
        }
        if let Some(Spent { attempts, first_failed_at }) = row.spent {
            spent.insert(place, (attempts, millis(first_failed_at)))?;
        }
        let Some(end) = &row.end else { continue };
        events.remove(place)?;
        spent.remove(place)?;
        match end {
            End::Gone if dead.remove(place)?.is_some() => drop(answers.remove(place)?),
            End::Gone => {}
            End::Dead(letter) => {
                let id = letter.item.event.id.to_string();
                dead.insert(place, dead_row(letter, &id))?;
                match &letter.answer {
                    Some(answer) => answers.insert(place, (letter.last_at, &**answer))?,
                    None => answers.remove(place)?,
                };
            }
        }
    }
    let surplus = dead.len()?.saturating_sub(dead_limit);
    for _ in 0..surplus {
        if let Some((place, _)) = dead.pop_first()? {
            answers.remove(place.value())?;
        }
    }
    Ok(Committed { dead: dead.len()?, dropped: surplus })
}

fn write_ids(write: &WriteTransaction, changes: &Changes) -> Result<(), redb::Error> {
    let mut ids = write.open_table(IDS)?;
    for (id, given) in &changes.ids {
        let id = id.to_string();
        match given {
            Some(GivenId { at, decision }) => {
                ids.insert(id.as_str(), (*at, decision.as_deref()))?
            }
            None => ids.remove(id.as_str())?,
        };
    }
    Ok(())
}

fn write_calls(write: &WriteTransaction, changes: &Changes) -> Result<(), redb::Error> {
    let mut calls = write.open_table(CALLS)?;
    for (call, since) in &changes.calls {
        match since {
            Some(since) => calls.insert(call.to_bytes(), since)?,
            None => calls.remove(call.to_bytes())?,
        };
    }
    if let Some(live_at) = changes.live_at {
        write.open_table(META)?.insert(LIVE_AT, live_at)?;
    }
    let Some((newest, _)) = changes.ended.last() else { return Ok(()) };
    let (mut table, mut nexts) = (write.open_table(ENDED)?, write.open_table(NEXT)?);
    for (EndedCall { call, reason, duration_ms, at, next }, _) in &changes.ended {
        let key = (*at, call.to_bytes());
        table.insert(key, (&**reason, *duration_ms))?;
        if let Some(next) = next {
            nexts.insert(key, (next.context(), next.exten()))?;
        }
    }
    let oldest = (newest.at.saturating_sub(crate::time::millis(ENDED_KEPT)), [0; 16]);
    table.retain_in(..oldest, |_, _| false)?;
    nexts.retain_in(..oldest, |_, _| false)?;
    Ok(())
}

fn event_row<'a>(item: &'a Item, id: &'a str) -> EventRow<'a> {
    let event = &*item.event;
    let (call, kind) = (event.call.to_bytes(), event.kind.name());
    (item.sequence, call, id, kind, event.agent(), &event.body)
}

fn dead_row<'a>(letter: &'a DeadLetter, id: &'a str) -> DeadRow<'a> {
    let (sequence, call, id, kind, agent, body) = event_row(&letter.item, id);
    let Spent { attempts, first_failed_at } = letter.item.spent;
    let (code, error) = (letter.code.as_str(), letter.error.as_str());
    let (first_at, last_at) = (millis(first_failed_at), letter.last_at);
    (sequence, call, id, kind, agent, body, attempts, letter.status, code, error, first_at, last_at)
}

fn item(place: u64, row: EventRow<'_>, spent: (u32, u64)) -> Result<Item, redb::Error> {
    let (sequence, call, id, kind, agent, body) = row;
    let kind: EventType =
        kind.parse().map_err(|_| redb::Error::Corrupted(format!("{kind:?} is no event type")))?;
    let event = Event {
        id: EventId::from_text(id),
        call: CallId::from_bytes(call),
        kind,
        headers: EventHeaders { agent: agent.map(Into::into), ..EventHeaders::default() }.shared(),
        body: Bytes::copy_from_slice(body),
    };
    let (attempts, first_at) = spent;
    let spent = Spent { attempts, first_failed_at: NonZero::new(first_at) };
    Ok(Item { event: Arc::new(event), place, sequence, spent, origin: Origin::Relayed })
}

fn dead_letter(place: u64, row: DeadRow<'_>) -> Result<DeadLetter, redb::Error> {
    let (sequence, call, id, kind, agent, body, attempts, status, code, error, first_at, last_at) =
        row;
    Ok(DeadLetter {
        item: item(place, (sequence, call, id, kind, agent, body), (attempts, first_at))?,
        status,
        code: code.to_owned(),
        error: error.to_owned(),
        answer: None,
        last_at,
    })
}

/// 0 stands for never.
fn millis(at: Option<NonZero<u64>>) -> u64 {
    at.map_or(0, NonZero::get)
}

fn open_error(error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse
        }
        DatabaseError::UpgradeRequired(found) => {
            OpenError::OtherFormat { found: found.into(), reads: FORMAT }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            OpenError::Unreachable(error.to_string())
        }
        other => OpenError::Damaged(other.to_string()),
    }
}
