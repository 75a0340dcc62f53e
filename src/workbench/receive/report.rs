//! Report: what came of it all, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use serde::Serialize;

use super::remark::Remark;
use super::reply::Ending;
use crate::text::printable;
use crate::workbench::by_name::ByName;

/// How many types are counted by name; a phone has seven.
pub const TYPES: usize = 50;

/// How many calls without `call_ended` are named.
pub const NAMED: usize = 10;

/// Counts over all that was received.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReceiveReport {
    pub took_ms: u64,
    /// Requests of any kind.
    pub requests: u64,
    /// Calls that events came of.
    pub calls: u64,
    /// Each counted once however often it came.
    pub events: u64,
    pub types: ByName<u64, TYPES>,
    /// Requests by the status of their answer.
    pub answers: BTreeMap<u16, u64>,
    /// Requests whose connection was closed in place of an answer.
    pub closed: u64,
    /// Requests whose sender went away before the answer.
    pub gone: u64,
    /// Requests that repeated an event.
    pub repeats: u64,
    /// Those of them whose event had been answered with 2xx.
    pub duplicates: u64,
    /// Events that came after one with a higher number.
    pub out_of_order: u64,
    /// Numbers that never came.
    pub gaps: u64,
    /// Requests that came while another one of their call was not answered.
    pub at_once: u64,
    pub after_call_ended: u64,
    /// Numbers that came twice or began anew, attempts that did not count up by one, ids of other
    /// calls.
    pub other_remarks: u64,
    /// Requests that were refused with 401.
    pub refused: u64,
    /// Requests that had no event, or another method than POST.
    pub no_events: u64,
    /// Calls that had begun and did not end.
    pub without_call_ended: u64,
    /// The first [`NAMED`] of them.
    pub unended: Vec<String>,
    /// Calls that had a `call_initiated` and nothing else.
    pub announced_only: u64,
    /// Calls that were forgotten, for want of room, before they ended.
    pub forgotten: u64,
    pub recorded: Option<Recorded>,
}

/// What a recording holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recorded {
    pub file: String,
    pub calls: u64,
    pub events: u64,
    /// Events that it could not hold.
    pub left_out: u64,
}

impl ReceiveReport {
    pub fn count(&mut self, remark: &Remark) {
        match remark {
            Remark::Duplicate => self.duplicates += 1,
            Remark::AtOnce => self.at_once += 1,
            Remark::AfterCallEnded => self.after_call_ended += 1,
            Remark::Gap(missing) => {
                let missing = (missing.end() - missing.start()).saturating_add(1);
                self.gaps = self.gaps.saturating_add(missing);
            }
            Remark::OutOfOrder { .. } => {
                self.out_of_order += 1;
                self.gaps = self.gaps.saturating_sub(1);
            }
            // What overlaps is at once, too.
            Remark::Overlap => {}
            Remark::NumberTwice(_) | Remark::NumbersAnew => self.other_remarks += 1,
            Remark::Attempt { .. } | Remark::OtherCall => self.other_remarks += 1,
        }
    }

    /// Counts the end of a request.
    pub fn end(&mut self, ending: &Ending) {
        if let Some(status) = ending.status() {
            *self.answers.entry(status.as_u16()).or_default() += 1;
        }
        self.closed += u64::from(*ending == Ending::Closed);
        self.gone += u64::from(*ending == Ending::Gone);
    }

    /// Counts how far a call came that is remembered.
    pub fn close(&mut self, started: bool, ended: bool, uuid: &str) {
        if !started {
            self.announced_only += 1;
        } else if !ended {
            self.without_call_ended += 1;
            if self.unended.len() < NAMED {
                self.unended.push(uuid.to_owned());
            }
        }
    }

    /// Counts a call that is remembered no longer.
    pub fn forget(&mut self, started: bool, ended: bool) {
        if !started {
            self.announced_only += 1;
        } else if !ended {
            self.forgotten += 1;
        }
    }

    fn unended(&self) -> String {
        let count = self.without_call_ended;
        let named: Vec<String> = self.unended.iter().map(|uuid| printable(uuid)).collect();
        let more = if self.unended.len() as u64 == count { "" } else { ", …" };
        if count == 0 { "0".to_owned() } else { format!("{count}: {}{more}", named.join(", ")) }
    }

    fn answers(&self) -> String {
        let mut parts: Vec<String> =
            self.answers.iter().map(|(status, count)| format!("{status} × {count}")).collect();
        for (what, count) in [("closed", self.closed), ("sender gone", self.gone)] {
            if count > 0 {
                parts.push(format!("{what} × {count}"));
            }
        }
        listed(&parts)
    }
}

impl Display for ReceiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = Duration::from_millis(self.took_ms).as_secs_f64();
        let (calls, events) = (plural(self.calls, "call"), plural(self.events, "event"));
        writeln!(f, "{calls}, {events} in {} in {took:.1} s", plural(self.requests, "request"))?;
        let types: Vec<String> =
            self.types.iter().map(|(kind, count)| format!("{} {count}", printable(kind))).collect();
        let mut row = |name: &str, value: &dyn Display| writeln!(f, "  {name:<19} {value}");
        row("by type", &listed(&types))?;
        row("answers", &self.answers())?;
        row("repeats", &self.repeats)?;
        row("duplicates", &self.duplicates)?;
        row("out of order", &self.out_of_order)?;
        row("gaps", &self.gaps)?;
        row("two at once", &self.at_once)?;
        row("after call_ended", &self.after_call_ended)?;
        row("refused", &self.refused)?;
        row("without call_ended", &self.unended())?;
        for (name, count) in [
            ("announced only", self.announced_only),
            ("no events", self.no_events),
            ("other remarks", self.other_remarks),
            ("forgotten calls", self.forgotten),
        ] {
            if count > 0 {
                row(name, &count)?;
            }
        }
        let Some(recorded) = &self.recorded else {
            return Ok(());
        };
        row("recorded", recorded)
    }
}

impl Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, calls, events, left_out } = self;
        if *calls == 0 {
            write!(f, "nothing, so {file} is left as it was")?;
        } else {
            let (calls, events) = (plural(*calls, "call"), plural(*events, "event"));
            write!(f, "{calls}, {events} in {file}")?;
        }
        if *left_out > 0 {
            write!(f, "; {left_out} that a scenario cannot hold are left out")?;
        }
        Ok(())
    }
}

fn listed(parts: &[String]) -> String {
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
