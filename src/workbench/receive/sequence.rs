//! Sequence: are the numbers of a call's events (`X-AVR-WEBHOOK-SEQUENCE`) 1, 2, 3, …?
//!
//! Pure: numbers of events that are new in, what is odd about each out. callhook counts what is to
//! be delivered, so a number that never comes is a dead letter; after a restart it may begin anew.
//!
//! Limit: [`MAX_GAPS`] gaps of a call are remembered; a number out of an older one counts as late.

use std::ops::RangeInclusive;

/// The most gaps of a call that are remembered; the oldest is forgotten first.
pub const MAX_GAPS: usize = 64;

/// How a number stands to those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the next one.
    Next,
    /// These are missing before it.
    Gap(RangeInclusive<u64>),
    /// It was missing, and came after this one.
    Late(u64),
    /// It came before, as the number of another event.
    Again,
    /// It is 1 again: the numbers begin anew.
    Anew,
}

/// The numbers of a call.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    highest: u64,
    /// Disjoint, in ascending order.
    gaps: Vec<RangeInclusive<u64>>,
    forgot: bool,
}

impl Sequence {
    /// Takes the number of a new event.
    pub fn take(&mut self, number: u64) -> Place {
        if number > self.highest {
            let gap = self.highest + 1..=number - 1;
            self.highest = number;
            if gap.is_empty() {
                return Place::Next;
            }
            if self.gaps.len() == MAX_GAPS {
                self.gaps.remove(0);
                self.forgot = true;
            }
            self.gaps.push(gap.clone());
            return Place::Gap(gap);
        }
        if self.fill(number) {
            return Place::Late(self.highest);
        }
        if number == 1 {
            *self = Self { highest: 1, ..Self::default() };
            return Place::Anew;
        }
        if self.forgot { Place::Late(self.highest) } else { Place::Again }
    }

    /// Takes a number out of the gaps; whether it was in one.
    fn fill(&mut self, number: u64) -> bool {
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&number)) else {
            return false;
        };
        let gap = self.gaps.remove(at);
        // The gap has the number, so neither sum leaves it by more than one.
        let parts = [number + 1..=*gap.end(), *gap.start()..=number - 1];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            self.gaps.insert(at, part);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_place() {
        let mut sequence = Sequence::default();
        for (number, place) in [
            (1, Place::Next),
            (2, Place::Next),
            (6, Place::Gap(3..=5)),
            (4, Place::Late(6)),
            (4, Place::Again),
            (2, Place::Again),
            (7, Place::Next),
            (3, Place::Late(7)),
            (5, Place::Late(7)),
            (9, Place::Gap(8..=8)),
            (1, Place::Anew),
            (2, Place::Next),
        ] {
            assert_eq!(sequence.take(number), place, "{number}");
        }
    }

    #[test]
    fn a_number_that_came_late_can_be_the_first() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(2), Place::Gap(1..=1));
        assert_eq!(sequence.take(1), Place::Late(2));
        assert_eq!(sequence.take(1), Place::Anew);
    }

    #[test]
    fn the_greatest_numbers_are_numbers_like_others() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(u64::MAX), Place::Gap(1..=u64::MAX - 1));
        assert_eq!(sequence.take(u64::MAX), Place::Again);
        assert_eq!(sequence.take(u64::MAX - 1), Place::Late(u64::MAX));
    }

    #[test]
    fn the_oldest_gaps_are_forgotten_and_nothing_false_is_said_of_them() {
        let mut sequence = Sequence::default();
        let most = u64::try_from(MAX_GAPS).unwrap();
        for number in 1..=most + 1 {
            assert_eq!(sequence.take(2 * number), Place::Gap(2 * number - 1..=2 * number - 1));
        }
        assert_eq!(sequence.gaps.len(), MAX_GAPS);
        assert_eq!(sequence.take(3), Place::Late(2 * most + 2));
        assert_eq!(sequence.take(2), Place::Late(2 * most + 2));
    }
}
