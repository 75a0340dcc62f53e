//! The store in a file, or in memory: how it is opened and upgraded, what is done to it in one transaction, and what it
//! holds.
//!
//! The only place that names redb. One transaction is one fsync; a transaction that fails leaves what was there before.
//! [`layout`] has the tables, [`rows`] what is done to events and dead letters.

mod layout;
mod rows;

use std::io::ErrorKind;
use std::iter::Peekable;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageError, WriteTransaction,
};

use self::layout::{
    ANSWERS, BODIES, CALLS, COPIES, ENDED, EVENTS, FORMAT, IDS, LIVE_AT, META, NEXT, RECEIVERS,
    SPENT, dead_letter, dead_letters_in, dead_table, event, no_receiver,
};
use self::rows::Rows;
use super::row::{Changes, DeadLetter, EndedCall, GivenId};
use super::store::{
    DiskError, ENDED_KEPT, LettersLeft, LiveCall, OpenError, Opener, Recovered, Store,
};
use crate::event::{CallId, EventId, Item, Origin, Share, Spent};
use crate::receiver::{ReceiverId, ReceiverName, Receivers};
use crate::routing::destination::Destination;

/// What redb may hold of the file in memory, in bytes. The queue itself is in memory anyway, so
/// this serves commits alone.
const CACHE: usize = 1024 * 1024;

/// A file with more than this free, in bytes, and more than half of it, is compacted: it grows again in an outage, so
/// a small one may keep its size.
const FREE: u64 = 64 * 1024 * 1024;

/// An open redb database with callhook's tables.
struct FileStore {
    database: Database,
    receivers: Receivers,
    /// The names of their tables of dead letters.
    dead: Vec<String>,
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
    Box::new(move |configured| {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = open(&mut builder).map_err(open_error)?;
        let damaged = |error: redb::Error| OpenError::Damaged(error.to_string());
        let receivers = match prepare(&database, configured).map_err(damaged)? {
            Prepared::For(receivers) => receivers,
            Prepared::Later(found) => {
                return Err(OpenError::OtherFormat { found, reads: FORMAT });
            }
        };
        let dead = receivers.iter().map(|(_, name)| dead_table(name.as_str())).collect();
        Ok(Box::new(FileStore { database, receivers, dead, path: path.clone() }))
    })
}

impl Store for FileStore {
    fn receivers(&self) -> &Receivers {
        &self.receivers
    }

    fn commit(&self, changes: &Changes, dead_limit: u64) -> Result<Vec<LettersLeft>, DiskError> {
        Ok(self.write(changes, dead_limit)?)
    }

    fn recover(&self) -> Result<Recovered, DiskError> {
        Ok(self.read()?)
    }

    fn dead_letters(
        &self,
        of: Option<ReceiverId>,
        from: u64,
        visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        Ok(self.visit_dead(of, from, visit)?)
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

    fn dead_counts(&self) -> Result<Vec<u64>, DiskError> {
        let read = || -> Result<Vec<u64>, redb::Error> {
            let read = self.database.begin_read()?;
            let count = |name: &String| Ok(read.open_table(dead_letters_in(name))?.len()?);
            self.dead.iter().map(count).collect()
        };
        Ok(read()?)
    }
}

impl From<redb::Error> for DiskError {
    fn from(error: redb::Error) -> Self {
        Self(error.to_string().into())
    }
}

/// What a file was found to be.
enum Prepared {
    /// It is in order, for these receivers.
    For(Receivers),
    /// A later callhook made it, with that format.
    Later(u64),
}

/// Makes the tables that do not exist, and upgrades what an earlier callhook left, in one transaction.
fn prepare(database: &Database, configured: &Receivers) -> Result<Prepared, redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let found = meta.get("format")?.map(|value| value.value());
        if let Some(later) = found.filter(|found| *found > FORMAT) {
            return Ok(Prepared::Later(later));
        }
        meta.insert("format", FORMAT)?;
    }
    write.open_table(EVENTS)?;
    write.open_table(COPIES)?;
    write.open_table(BODIES)?;
    write.open_table(SPENT)?;
    write.open_table(IDS)?;
    write.open_table(ANSWERS)?;
    write.open_table(CALLS)?;
    write.open_table(ENDED)?;
    write.open_table(NEXT)?;
    let receivers = note_receivers(&write, configured)?;
    for (_, name) in receivers.iter() {
        write.open_table(dead_letters_in(&dead_table(name.as_str())))?;
    }
    write.commit()?;
    Ok(Prepared::For(receivers))
}

/// Those of the settings, and others for which there is something; the names of the rest are forgotten.
fn note_receivers(
    write: &WriteTransaction,
    configured: &Receivers,
) -> Result<Receivers, redb::Error> {
    let mut table = write.open_table(RECEIVERS)?;
    let known: Vec<String> = table
        .iter()?
        .map(|row| row.map(|(name, _)| name.value().to_owned()))
        .collect::<Result<_, _>>()?;
    let mut names: Vec<ReceiverName> = configured.iter().map(|(_, name)| name.clone()).collect();
    for name in known.iter().filter(|name| configured.id(name).is_none()) {
        let dead = write.open_table(dead_letters_in(&dead_table(name)))?;
        let has_letters = !dead.is_empty()?;
        drop(dead);
        if has_letters || waits_for(write, name)? {
            names.extend(name.parse::<ReceiverName>());
        } else {
            table.remove(name.as_str())?;
            write.delete_table(dead_letters_in(&dead_table(name)))?;
        }
    }
    for name in &names {
        table.insert(name.as_str(), ())?;
    }
    Ok(Receivers::new(names))
}

fn waits_for(write: &WriteTransaction, name: &str) -> Result<bool, redb::Error> {
    for row in write.open_table(COPIES)?.iter()? {
        if row?.1.value().iter().any(|(_, receiver, _)| *receiver == name) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl FileStore {
    fn write(&self, changes: &Changes, dead_limit: u64) -> Result<Vec<LettersLeft>, redb::Error> {
        let write = self.database.begin_write()?;
        let mut rows = Rows::open(&write, &self.receivers, &self.dead)?;
        for (place, row) in &changes.rows {
            rows.write(*place, row)?;
        }
        let letters = rows.finish(dead_limit)?;
        write_ids(&write, changes)?;
        write_calls(&write, changes)?;
        write.commit()?;
        Ok(letters)
    }

    fn read(&self) -> Result<Recovered, redb::Error> {
        let read = self.database.begin_read()?;
        let mut recovered = Recovered { items: self.items(&read)?, ..Recovered::default() };
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
        let mut last = recovered.items.last().map(|item| item.place);
        for name in &self.dead {
            let dead = read.open_table(dead_letters_in(name))?;
            last = last.max(dead.last()?.map(|(place, _)| place.value()));
        }
        recovered.next_place = last.map_or(0, |last| last + 1);
        Ok(recovered)
    }

    /// Those that are not settled, by their place.
    fn items(&self, read: &ReadTransaction) -> Result<Vec<Item>, redb::Error> {
        let spent = read.open_table(SPENT)?;
        let spent_of = |place: u64| -> Result<Spent, redb::Error> {
            let (attempts, first_at) =
                spent.get(place)?.map(|value| value.value()).unwrap_or_default();
            Ok(Spent { attempts, first_failed_at: NonZero::new(first_at) })
        };
        let mut items = Vec::new();
        for row in read.open_table(EVENTS)?.iter()? {
            let (place, row) = row?;
            let (sequence, call, id, kind, agent, envelope) = row.value();
            let event = Arc::new(event((call, id, kind, agent, envelope))?);
            let (place, receiver) = (place.value(), ReceiverId::MAIN);
            let (spent, origin, share) = (spent_of(place)?, Origin::Relayed, Share::Own);
            items.push(Item { event, receiver, place, sequence, spent, origin, share });
        }
        let bodies = read.open_table(BODIES)?;
        for row in read.open_table(COPIES)?.iter()? {
            let (body, copies) = row?;
            let body = body.value();
            let row = bodies.get(body)?.ok_or_else(|| no_body(body))?;
            let event = Arc::new(event(row.value())?);
            for (nth, name, sequence) in copies.value() {
                let (event, place) = (Arc::clone(&event), body + u64::from(nth));
                let receiver = self.receivers.id(name).ok_or_else(|| no_receiver(body, name))?;
                let (spent, origin, share) = (spent_of(place)?, Origin::Relayed, Share::Nth(nth));
                items.push(Item { event, receiver, place, sequence, spent, origin, share });
            }
        }
        items.sort_unstable_by_key(|item| item.place);
        Ok(items)
    }

    fn visit_dead(
        &self,
        of: Option<ReceiverId>,
        from: u64,
        visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), redb::Error> {
        let read = self.database.begin_read()?;
        let answers = read.open_table(ANSWERS)?;
        let mut letters = Vec::new();
        for (receiver, _) in self.receivers.iter().filter(|(id, _)| of.is_none_or(|of| of == *id)) {
            let table = read.open_table(dead_letters_in(&self.dead[receiver.index()]))?;
            let rows = table.range(from..)?.map(move |row| {
                let (place, row) = row?;
                dead_letter(receiver, place.value(), row.value())
            });
            letters.push(rows.peekable());
        }
        while let Some(letter) = pop_oldest(&mut letters) {
            let mut letter = letter?;
            if let Some(answer) = answers.get(letter.item.place)?
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

/// The letter with the lowest place among those that each of the rows would give next.
fn pop_oldest<L: Iterator<Item = Result<DeadLetter, redb::Error>>>(
    letters: &mut [Peekable<L>],
) -> Option<L::Item> {
    let place = |next: &L::Item| next.as_ref().map_or(0, |letter| letter.item.place);
    let next = letters.iter_mut().filter_map(|rows| Some((place(rows.peek()?), rows)));
    next.min_by_key(|(place, _)| *place)?.1.next()
}

fn no_body(place: u64) -> redb::Error {
    redb::Error::Corrupted(format!("the event at {place} has no body"))
}

fn ended_calls(read: &ReadTransaction) -> Result<Vec<EndedCall>, redb::Error> {
    let (table, nexts) = (read.open_table(ENDED)?, read.open_table(NEXT)?);
    let ended = table.iter()?.map(|row| {
        let (key, value) = row?;
        let ((at, call), (reason, duration_ms)) = (key.value(), value.value());
        let next = nexts.get((at, call))?;
        // What is no destination would be of no use to a dialplan.
        let next = next.and_then(|next| Destination::new(next.value().0, next.value().1).ok());
        let (call, reason) = (CallId::from_bytes(call), reason.to_owned().into());
        Ok(EndedCall { call, reason, duration_ms, at, next })
    });
    ended.collect()
}

/// In bytes.
fn used(database: &Database) -> Result<u64, redb::Error> {
    let stats = database.begin_write()?.stats()?;
    Ok(stats.allocated_pages() * stats.page_size() as u64)
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
