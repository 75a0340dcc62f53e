//! Faults: what is spoiled on purpose, and how much of it.
//!
//! Pure: a call's events and dice in, what is sent out. How an attempt is spoiled on its way is
//! [`super::sender`]'s.
//!
//! Invariants:
//! - The number of throws depends on the events alone, so that one fault asked for more or less
//!   leaves the others where they are.
//! - An event keeps the number and the time that it has in a call without faults: the receiver can
//!   tell from `X-AVR-WEBHOOK-SEQUENCE` that one is missing or out of place.

use std::time::Duration;

use crate::event::{EventType, Payload};
use crate::workbench::dice::Dice;
use crate::workbench::scenario::Planned;
use crate::workbench::share::Share;

/// How long after `call_ended` a late event is sent, in the scenario's time.
pub const LATE_BY: Duration = Duration::from_millis(300);

/// What can be spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The event is sent a second time.
    Duplicate,
    /// The event and the next one of its call change places.
    Reorder,
    /// The event is sent after `call_ended`.
    Late,
    /// The event is not sent.
    Drop,
    /// The event is sent with another secret.
    WrongSecret,
    /// The event's body comes slowly.
    SlowBody,
    /// The event's body comes in several TCP segments.
    Split,
}

impl Fault {
    /// All of them, in the order of their throws.
    pub const ALL: [Self; 7] = [
        Self::Duplicate,
        Self::Reorder,
        Self::Late,
        Self::Drop,
        Self::WrongSecret,
        Self::SlowBody,
        Self::Split,
    ];

    /// Its name, which is its option's, too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Late => "late",
            Self::Drop => "drop",
            Self::WrongSecret => "wrong-secret",
            Self::SlowBody => "slow-body",
            Self::Split => "split",
        }
    }

    /// Its place in [`Fault::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Duplicate => 0,
            Self::Reorder => 1,
            Self::Late => 2,
            Self::Drop => 3,
            Self::WrongSecret => 4,
            Self::SlowBody => 5,
            Self::Split => 6,
        }
    }
}

/// How much of each fault is asked for.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Faults on purpose, each with a share (5% where none is given)")]
pub struct Shares {
    /// So many events, once answered with 2xx, are sent again: the same request with the same
    /// webhook-id, as after a crash
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub duplicate: Share,
    /// So many events change places with the next one of their call; each keeps its own timestamp
    /// and X-AVR-WEBHOOK-SEQUENCE
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub reorder: Share,
    /// In so many of the calls that have a call_ended, the event before it is sent 300 ms after it
    /// (by --speed)
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub late: Share,
    /// So many events are never sent: a gap in X-AVR-WEBHOOK-SEQUENCE, as after a dead letter
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub drop: Share,
    /// So many events are sent with another X-AVR-WEBHOOK-SECRET, on every attempt; 401 is the
    /// right answer
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub wrong_secret: Share,
    /// So many events' bodies trickle in: the head, then 20 pieces over 1 s (or half of --timeout,
    /// if that is shorter)
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub slow_body: Share,
    /// So many events come in six TCP segments: the head, then five pieces of the body, 2 ms apart
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%",
          default_value = "0%", hide_default_value = true)]
    pub split: Share,
}

impl Shares {
    /// The share of this fault.
    pub fn of(&self, fault: Fault) -> Share {
        match fault {
            Fault::Duplicate => self.duplicate,
            Fault::Reorder => self.reorder,
            Fault::Late => self.late,
            Fault::Drop => self.drop,
            Fault::WrongSecret => self.wrong_secret,
            Fault::SlowBody => self.slow_body,
            Fault::Split => self.split,
        }
    }
}

/// An event as it is to be sent.
#[derive(Clone, Debug)]
pub struct Sending {
    /// When it is sent, in the scenario's time from the beginning of the call.
    pub at: Duration,
    /// When it happened, which its timestamp says.
    pub happened: Duration,
    /// Its number in the call: 1, 2, …
    pub sequence: u64,
    /// Its type.
    pub kind: EventType,
    /// Its payload.
    pub payload: Payload,
    /// What is spoiled.
    pub faults: Vec<Fault>,
}

/// A call's events as they are sent, in that order; those that are dropped are missing.
pub fn spoil(events: Vec<Planned>, shares: &Shares, dice: &mut Dice) -> Vec<Sending> {
    let is_late = dice.hits(shares.late);
    let mut sendings: Vec<Sending> =
        (1..).zip(events).map(|(sequence, event)| throw(sequence, event, shares, dice)).collect();
    sendings.retain(|sending| !sending.faults.contains(&Fault::Drop));
    swap_neighbours(&mut sendings);
    if is_late {
        send_late(&mut sendings);
    }
    sendings
}

fn throw(sequence: u64, event: Planned, shares: &Shares, dice: &mut Dice) -> Sending {
    let of_event = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Late);
    let mut faults: Vec<Fault> = of_event.filter(|fault| dice.hits(shares.of(*fault))).collect();
    if faults.contains(&Fault::SlowBody) {
        // It comes in several segments anyway.
        faults.retain(|fault| *fault != Fault::Split);
    }
    let Planned { at, kind, payload } = event;
    Sending { at, happened: at, sequence, kind, payload, faults }
}

fn swap_neighbours(sendings: &mut [Sending]) {
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

fn send_late(sendings: &mut Vec<Sending>) {
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

    fn all(fault: Fault) -> Shares {
        let mut shares = Shares::default();
        let share = match fault {
            Fault::Duplicate => &mut shares.duplicate,
            Fault::Reorder => &mut shares.reorder,
            Fault::Late => &mut shares.late,
            Fault::Drop => &mut shares.drop,
            Fault::WrongSecret => &mut shares.wrong_secret,
            Fault::SlowBody => &mut shares.slow_body,
            Fault::Split => &mut shares.split,
        };
        *share = "100%".parse().unwrap();
        shares
    }

    fn spoiled(kinds: &[&str], shares: &Shares) -> Vec<(u128, u128, u64)> {
        let sendings = spoil(call(kinds), shares, &mut Dice::new(1, 1));
        let told = |sending: &Sending| {
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
        let some = Shares { drop: "50%".parse().unwrap(), ..Shares::default() };
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
        let some = Shares { duplicate: "30%".parse().unwrap(), ..Shares::default() };
        let more = Shares { late: "100%".parse().unwrap(), split: "50%".parse().unwrap(), ..some };
        assert_eq!(duplicated(&some), duplicated(&more));
        assert!(!duplicated(&some).is_empty());
    }

    #[test]
    fn names_and_places_are_one_list() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault.index(), index, "{}", fault.name());
        }
    }
}
