//! Faults: what is spoiled on purpose, and how much of it.
//!
//! Pure: a call's events and dice in, what is sent out. How a request is spoiled on its way is
//! [`Alteration`]'s.
//!
//! Invariants:
//! - The number of throws depends on the events alone, so that one fault asked for more or less
//!   leaves the others where they are.
//! - An event keeps the number and the time that it has in a call without faults: the receiver can
//!   tell from `X-AVR-WEBHOOK-SEQUENCE` that one is missing or out of place.

use std::time::Duration;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use strum::{EnumCount, EnumIter, EnumMessage, IntoEnumIterator as _, IntoStaticStr};

use crate::event::{EventType, Payload};
use crate::workbench::alteration::Alteration;
use crate::workbench::dice::Dice;
use crate::workbench::scenario::Planned;
use crate::workbench::share::Share;

/// How long after `call_ended` a late event is sent, in the scenario's time.
pub const LATE_BY: Duration = Duration::from_millis(300);

/// The pieces of a body that trickles in.
const SLOW_PIECES: u32 = 20;
/// How long such a body takes, unless half of the timeout is shorter.
const SLOW: Duration = Duration::from_secs(1);

/// The pieces of a body in several segments.
const SPLIT_PIECES: u32 = 5;
/// Between two of them: long enough for each to leave on its own.
const SPLIT_PAUSE: Duration = Duration::from_millis(2);

/// What can be spoiled, in the order of the throws. The name is that of the option, the comment its
/// help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, EnumIter, EnumMessage, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// So many events, once answered with 2xx, are sent again: the same request with the same
    /// webhook-id, as after a crash
    Duplicate,
    /// So many events change places with the next one of their call; each keeps its own timestamp
    /// and X-AVR-WEBHOOK-SEQUENCE
    Reorder,
    /// In so many of the calls that have a call_ended, the event before it is sent 300 ms after it
    /// (by --speed)
    Late,
    /// So many events are never sent: a gap in X-AVR-WEBHOOK-SEQUENCE, as after a dead letter
    Drop,
    /// So many events are sent with another X-AVR-WEBHOOK-SECRET, on every attempt; 401 is the
    /// right answer
    WrongSecret,
    /// So many events' bodies trickle in: the head, then 20 pieces over 1 s (or half of --timeout,
    /// if that is shorter)
    SlowBody,
    /// So many events come in six TCP segments: the head, then five pieces of the body, 2 ms apart
    Split,
}

impl Fault {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What the fault does to each request of its event, within this timeout.
    pub fn alteration(self, timeout: Duration) -> Option<Alteration> {
        match self {
            Self::WrongSecret => Some(Alteration::WrongSecret),
            Self::SlowBody => {
                let pause = SLOW.min(timeout / 2) / SLOW_PIECES;
                Some(Alteration::Pieces(SLOW_PIECES, pause))
            }
            Self::Split => Some(Alteration::Pieces(SPLIT_PIECES, SPLIT_PAUSE)),
            Self::Duplicate | Self::Reorder | Self::Late | Self::Drop => None,
        }
    }
}

/// How much of each fault is asked for: one option each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares([Share; Fault::COUNT]);

impl Shares {
    pub fn of(&self, fault: Fault) -> Share {
        self.0[fault as usize]
    }
}

impl Args for Shares {
    fn augment_args(command: Command) -> Command {
        command.args(Fault::iter().map(|fault| {
            Arg::new(fault.name())
                .long(fault.name())
                .value_name("SHARE")
                .value_parser(str::parse::<Share>)
                .num_args(0..=1)
                .default_missing_value("5%")
                .default_value("0%")
                .hide_default_value(true)
                .help(fault.get_documentation().unwrap_or_default().trim_end().replace('\n', " "))
                .help_heading("Faults on purpose, each with a share (5% where none is given)")
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Shares {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut shares = Self::default();
        shares.update_from_arg_matches(matches)?;
        Ok(shares)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for fault in Fault::iter() {
            self.0[fault as usize] = matches.get_one(fault.name()).copied().unwrap_or_default();
        }
        Ok(())
    }
}

/// An event as it is to be sent.
#[derive(Clone, Debug)]
pub struct EventSending {
    /// When it is sent, in the scenario's time from the beginning of the call.
    pub at: Duration,
    /// When it happened, by the same clock; its timestamp says so.
    pub happened: Duration,
    /// 1, 2, … in the call without faults.
    pub sequence: u64,
    pub kind: EventType,
    pub payload: Payload,
    pub faults: Vec<Fault>,
}

/// A call's events as they are sent, in that order; those that are dropped are missing.
pub fn spoil(events: Vec<Planned>, shares: &Shares, dice: &mut Dice) -> Vec<EventSending> {
    let is_late = dice.hits(shares.of(Fault::Late));
    let mut sendings: Vec<EventSending> =
        (1..).zip(events).map(|(sequence, event)| throw(sequence, event, shares, dice)).collect();
    sendings.retain(|sending| !sending.faults.contains(&Fault::Drop));
    swap_neighbours(&mut sendings);
    if is_late {
        send_late(&mut sendings);
    }
    sendings
}

fn throw(sequence: u64, event: Planned, shares: &Shares, dice: &mut Dice) -> EventSending {
    let of_event = Fault::iter().filter(|fault| *fault != Fault::Late);
    let mut faults: Vec<Fault> = of_event.filter(|fault| dice.hits(shares.of(*fault))).collect();
    if faults.contains(&Fault::SlowBody) {
        // It comes in several segments anyway.
        faults.retain(|fault| *fault != Fault::Split);
    }
    let Planned { at, kind, payload } = event;
    EventSending { at, happened: at, sequence, kind, payload, faults }
}

fn swap_neighbours(sendings: &mut [EventSending]) {
    let mut rest = sendings;
    loop {
        match rest {
            [first, second, ..] if first.faults.contains(&Fault::Reorder) => {
                std::mem::swap(first, second);
                std::mem::swap(&mut first.at, &mut second.at);
                if !first.faults.contains(&Fault::Reorder) {
                    first.faults.push(Fault::Reorder);
                }
                rest = &mut rest[2..];
            }
            [first, tail @ ..] => {
                // The last one has nobody to change places with.
                first.faults.retain(|fault| *fault != Fault::Reorder);
                rest = tail;
            }
            [] => return,
        }
    }
}

fn send_late(sendings: &mut Vec<EventSending>) {
    let end = sendings.iter().position(|sending| sending.kind == EventType::CallEnded);
    let Some(before) = end.and_then(|end| end.checked_sub(1)) else {
        return;
    };
    let mut late = sendings.remove(before);
    late.at = sendings.last().map_or(late.at, |last| last.at) + LATE_BY;
    late.faults.push(Fault::Late);
    sendings.push(late);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kinds: &[&str]) -> Vec<Planned> {
        let event = |(index, kind): (u64, &&str)| Planned {
            at: Duration::from_secs(index),
            kind: kind.parse().unwrap(),
            payload: Payload::empty(),
        };
        (0..).zip(kinds).map(event).collect()
    }

    fn shares(shares: &[(Fault, &str)]) -> Shares {
        let mut asked = Shares::default();
        for (fault, share) in shares {
            asked.0[*fault as usize] = share.parse().unwrap();
        }
        asked
    }

    fn all(fault: Fault) -> Shares {
        shares(&[(fault, "100%")])
    }

    fn spoiled(kinds: &[&str], shares: &Shares) -> Vec<(u128, u128, u64)> {
        let sendings = spoil(call(kinds), shares, &mut Dice::new(1, 1));
        let told = |sending: &EventSending| {
            (sending.at.as_millis(), sending.happened.as_millis(), sending.sequence)
        };
        sendings.iter().map(told).collect()
    }

    const KINDS: [&str; 5] =
        ["call_initiated", "call_started", "transcription", "transcription", "call_ended"];

    #[test]
    fn without_faults_everything_is_sent_when_it_happens() {
        let sent = spoiled(&KINDS, &Shares::default());
        let expected: Vec<_> = (0..5).map(|n| (n * 1000, n * 1000, n as u64 + 1)).collect();
        assert_eq!(sent, expected);
    }

    #[test]
    fn neighbours_change_places_and_keep_their_own_time_and_number() {
        let sent = spoiled(&KINDS, &all(Fault::Reorder));
        let expected =
            [(0, 1000, 2), (1000, 0, 1), (2000, 3000, 4), (3000, 2000, 3), (4000, 4000, 5)];
        assert_eq!(sent, expected);
    }

    #[test]
    fn who_has_no_neighbour_is_not_out_of_place() {
        let sendings = spoil(call(&KINDS), &all(Fault::Reorder), &mut Dice::new(1, 1));
        let marked: Vec<bool> = sendings.iter().map(|sending| !sending.faults.is_empty()).collect();
        assert_eq!(marked, [true, true, true, true, false]);
    }

    #[test]
    fn the_event_before_call_ended_comes_after_it() {
        let sent = spoiled(&KINDS, &all(Fault::Late));
        assert_eq!(sent[3..], [(4000, 4000, 5), (4300, 3000, 4)]);
        let lost = spoiled(&KINDS[..4], &all(Fault::Late));
        assert_eq!(
            lost,
            spoiled(&KINDS[..4], &Shares::default()),
            "nothing is late in a lost call"
        );
        assert_eq!(spoiled(&["call_ended"], &all(Fault::Late)).len(), 1);
    }

    #[test]
    fn what_is_dropped_leaves_a_gap() {
        assert_eq!(spoiled(&KINDS, &all(Fault::Drop)), []);
        let some = shares(&[(Fault::Drop, "50%")]);
        let sent = spoiled(&["transcription"; 100], &some);
        assert!((30..70).contains(&sent.len()));
        assert!(sent.iter().all(|(at, _, sequence)| u128::from(*sequence) * 1000 == at + 1000));
    }

    #[test]
    fn one_fault_more_leaves_the_others_where_they_are() {
        let duplicated = |shares: &Shares| -> Vec<u64> {
            let sendings = spoil(call(&["transcription"; 50]), shares, &mut Dice::new(3, 1));
            let twice =
                sendings.iter().filter(|sending| sending.faults.contains(&Fault::Duplicate));
            twice.map(|sending| sending.sequence).collect()
        };
        let some = shares(&[(Fault::Duplicate, "30%")]);
        let more =
            shares(&[(Fault::Duplicate, "30%"), (Fault::Late, "100%"), (Fault::Split, "50%")]);
        assert_eq!(duplicated(&some), duplicated(&more));
        assert!(!duplicated(&some).is_empty());
    }
}
