//! What a transaction does to events and dead letters.
//!
//! Invariant: a body that several items share is there as long as one of them is, and no longer.
//!
//! Rows come in the order of their places.

use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction};

use super::super::row::{DeadLetter, End, Row};
use super::super::store::LettersLeft;
use super::layout::{
    ANSWERS, BODIES, BodyRow, COPIES, CopiesRow, DeadRow, EVENTS, EventRow, SPENT, body_row,
    dead_letters_in, dead_row, millis, no_receiver,
};
use crate::event::{Item, Spent};
use crate::receiver::{MOST_RECEIVERS, ReceiverId, Receivers};

/// The tables that hold events and dead letters, during a transaction.
pub struct Rows<'t> {
    events: Table<'t, u64, EventRow<'static>>,
    copies: Copies<'t>,
    spent: Table<'t, u64, (u32, u64)>,
    answers: Table<'t, u64, (u64, &'static str)>,
    /// By receiver.
    dead: Vec<Table<'t, u64, DeadRow<'static>>>,
}

/// Those of them that hold events for several receivers.
struct Copies<'t> {
    receivers: &'t Receivers,
    copies: Table<'t, u64, CopiesRow<'static>>,
    bodies: Table<'t, u64, BodyRow<'static>>,
    /// The copies at hand: those of an event come one after the other, and are written together.
    group: Option<Group>,
}

/// The copies of an event that are left.
struct Group {
    /// The place of the first, left or not.
    body: u64,
    /// Which of them, for whom, and its sequence.
    left: Vec<(u8, ReceiverId, u64)>,
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
            events: write.open_table(EVENTS)?,
            copies: Copies::open(write, receivers)?,
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
        if let Some(body) = item.shared_at() {
            return self.copies.put(item, body);
        }
        let id = item.event.id.to_string();
        let (call, id, kind, agent, envelope) = body_row(&item.event, &id);
        self.events.insert(item.place, (item.sequence, call, id, kind, agent, envelope))?;
        Ok(())
    }

    /// Whatever is at the place: an event, or a dead letter.
    fn take_away(&mut self, place: u64) -> Result<(), redb::Error> {
        self.spent.remove(place)?;
        if self.events.remove(place)?.is_some() || self.copies.take_away(place)? {
            return Ok(());
        }
        for dead in &mut self.dead {
            if dead.remove(place)?.is_some() {
                self.answers.remove(place)?;
                break;
            }
        }
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

    /// Ends the transaction's work: the oldest dead letters of each receiver go that are too many.
    pub fn finish(mut self, limit: u64) -> Result<Vec<LettersLeft>, redb::Error> {
        if let Some(done) = self.copies.group.take() {
            self.copies.write_group(done)?;
        }
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

impl<'t> Copies<'t> {
    fn open(write: &'t WriteTransaction, receivers: &'t Receivers) -> Result<Self, redb::Error> {
        let (copies, bodies) = (write.open_table(COPIES)?, write.open_table(BODIES)?);
        Ok(Self { receivers, copies, bodies, group: None })
    }

    fn put(&mut self, item: &Item, body: u64) -> Result<(), redb::Error> {
        self.turn_to(body)?;
        let group = self.group.get_or_insert_with(|| Group { body, left: Vec::new() });
        if group.left.is_empty() {
            let id = item.event.id.to_string();
            self.bodies.insert(body, body_row(&item.event, &id))?;
        }
        let nth = nth_of(body, item.place);
        group.left.retain(|(known, ..)| *known != nth);
        group.left.push((nth, item.receiver, item.sequence));
        Ok(())
    }

    /// `false` if none is at the place.
    fn take_away(&mut self, place: u64) -> Result<bool, redb::Error> {
        if self.takes_copy(place) {
            return Ok(true);
        }
        let Some(group) = self.group_at(place)? else { return Ok(false) };
        self.turn_to(group.body)?;
        self.group = Some(group);
        Ok(self.takes_copy(place))
    }

    /// Takes a copy of the event at hand away.
    fn takes_copy(&mut self, place: u64) -> bool {
        let Some(group) = &mut self.group else { return false };
        let before = group.left.len();
        group.left.retain(|(nth, ..)| group.body + u64::from(*nth) != place);
        group.left.len() < before
    }

    /// The copies on disk among which the place is.
    fn group_at(&self, place: u64) -> Result<Option<Group>, redb::Error> {
        let first = place.saturating_sub(MOST_RECEIVERS as u64 - 1);
        let Some(row) = self.copies.range(first..=place)?.next_back() else { return Ok(None) };
        let (body, left) = row?;
        let body = body.value();
        let copies = left.value().into_iter().map(|(nth, name, sequence)| {
            let receiver = self.receivers.id(name).ok_or_else(|| no_receiver(body, name))?;
            Ok((nth, receiver, sequence))
        });
        let left = copies.collect::<Result<Vec<_>, redb::Error>>()?;
        let is_there = left.iter().any(|(nth, ..)| body + u64::from(*nth) == place);
        Ok(is_there.then_some(Group { body, left }))
    }

    /// Writes what is at hand, unless it is the event with this body.
    fn turn_to(&mut self, body: u64) -> Result<(), redb::Error> {
        let Some(done) = self.group.take_if(|group| group.body != body) else { return Ok(()) };
        self.write_group(done)
    }

    fn write_group(&mut self, Group { body, left }: Group) -> Result<(), redb::Error> {
        if left.is_empty() {
            self.copies.remove(body)?;
            self.bodies.remove(body)?;
            return Ok(());
        }
        let name = |receiver| self.receivers.name(receiver).as_str();
        let row: Vec<_> = left
            .iter()
            .map(|(nth, receiver, sequence)| (*nth, name(*receiver), *sequence))
            .collect();
        self.copies.insert(body, row)?;
        Ok(())
    }
}

fn nth_of(body: u64, place: u64) -> u8 {
    u8::try_from(place - body).expect("the copies of an event are few, and at adjacent places")
}
