//! What a transaction does to events and dead letters.
//!
//! Invariant: a body that several items share is there as long as one of them is, and no longer.

use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction};

use super::super::row::{DeadLetter, End, Row};
use super::super::store::LettersLeft;
use super::layout::{
    ANSWERS, BODIES, BodyRow, COPIES, CopyRow, DeadRow, EVENTS, EventRow, SPENT, body_row,
    dead_letters_in, dead_row, millis,
};
use crate::event::{Item, Spent};
use crate::receiver::{MOST_RECEIVERS, Receivers};

/// The tables that hold events and dead letters, during a transaction.
pub struct Rows<'t> {
    receivers: &'t Receivers,
    events: Table<'t, u64, EventRow<'static>>,
    copies: Table<'t, u64, CopyRow<'static>>,
    bodies: Table<'t, u64, BodyRow<'static>>,
    spent: Table<'t, u64, (u32, u64)>,
    answers: Table<'t, u64, (u64, &'static str)>,
    /// By receiver.
    dead: Vec<Table<'t, u64, DeadRow<'static>>>,
}

impl<'t> Rows<'t> {
    /// With the names of the receivers' tables of dead letters.
    pub fn open(
        write: &'t WriteTransaction,
        receivers: &'t Receivers,
        dead: &[String],
    ) -> Result<Self, redb::Error> {
        let letters = |name: &String| Ok(write.open_table(dead_letters_in(name))?);
        Ok(Self {
            receivers,
            events: write.open_table(EVENTS)?,
            copies: write.open_table(COPIES)?,
            bodies: write.open_table(BODIES)?,
            spent: write.open_table(SPENT)?,
            answers: write.open_table(ANSWERS)?,
            dead: dead.iter().map(letters).collect::<Result<_, redb::Error>>()?,
        })
    }

    pub fn write(&mut self, place: u64, row: &Row) -> Result<(), redb::Error> {
        if let Some(item) = &row.put {
            self.put(item)?;
        }
        if let Some(Spent { attempts, first_failed_at }) = row.spent {
            self.spent.insert(place, (attempts, millis(first_failed_at)))?;
        }
        match &row.end {
            None => Ok(()),
            Some(End::Gone) => self.take_away(place),
            Some(End::Dead(letter)) => {
                self.take_away(place)?;
                self.bury(letter)
            }
        }
    }

    fn put(&mut self, item: &Item) -> Result<(), redb::Error> {
        let id = item.event.id.to_string();
        let (call, id, kind, agent, envelope) = body_row(&item.event, &id);
        let Some(body) = item.shared_at() else {
            let row = (item.sequence, call, id, kind, agent, envelope);
            self.events.insert(item.place, row)?;
            return Ok(());
        };
        let name = self.receivers.name(item.receiver).as_str();
        self.copies.insert(item.place, (name, item.sequence, body))?;
        if self.bodies.get(body)?.is_none() {
            self.bodies.insert(body, (call, id, kind, agent, envelope))?;
        }
        Ok(())
    }

    /// Whatever is at the place: an event, or a dead letter.
    fn take_away(&mut self, place: u64) -> Result<(), redb::Error> {
        self.spent.remove(place)?;
        if self.events.remove(place)?.is_some() {
            return Ok(());
        }
        let body = self.copies.remove(place)?.map(|row| row.value().2);
        if let Some(body) = body {
            return self.take_body_away(body);
        }
        for dead in &mut self.dead {
            if dead.remove(place)?.is_some() {
                self.answers.remove(place)?;
                break;
            }
        }
        Ok(())
    }

    /// Unless another copy of its event is left.
    fn take_body_away(&mut self, body: u64) -> Result<(), redb::Error> {
        for row in self.copies.range(body..body + MOST_RECEIVERS as u64)? {
            if row?.1.value().2 == body {
                return Ok(());
            }
        }
        self.bodies.remove(body)?;
        Ok(())
    }

    fn bury(&mut self, letter: &DeadLetter) -> Result<(), redb::Error> {
        let (place, id) = (letter.item.place, letter.item.event.id.to_string());
        self.dead[letter.item.receiver.index()].insert(place, dead_row(letter, &id))?;
        match &letter.answer {
            Some(answer) => self.answers.insert(place, (letter.last_at, &**answer))?,
            None => self.answers.remove(place)?,
        };
        Ok(())
    }

    /// The oldest dead letters of each receiver that are too many.
    pub fn drop_beyond(&mut self, limit: u64) -> Result<Vec<LettersLeft>, redb::Error> {
        let answers = &mut self.answers;
        let drop_of = |dead: &mut Table<'t, u64, DeadRow<'static>>| {
            let dropped = dead.len()?.saturating_sub(limit);
            for _ in 0..dropped {
                if let Some((place, _)) = dead.pop_first()? {
                    answers.remove(place.value())?;
                }
            }
            Ok(LettersLeft { kept: dead.len()?, dropped })
        };
        self.dead.iter_mut().map(drop_of).collect()
    }
}
