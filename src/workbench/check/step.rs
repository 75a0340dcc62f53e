//! A step: one event that a check sends, as data, and what its answer has to be.

use serde_json::{Value, json};

use super::exchange::{Call, Filler, Sending};
use super::rules::Rule;
use crate::event::EventType;
use crate::workbench::alteration::Alteration;

#[derive(Clone, Copy)]
pub struct Step {
    /// The event's type. `call_started` takes the place of a `call_initiated` that the receiver never
    /// takes, as another check has told.
    pub kind: &'static str,
    pub odd: Odd,
    pub rule: Rule,
    /// Said first in a complaint, where not empty.
    pub of: &'static str,
}

/// What is odd about an event.
#[derive(Clone, Copy)]
pub enum Odd {
    Nothing,
    Payload(fn() -> Value),
    /// The agent says a long text.
    Long(Filler),
    /// The body is what this makes of the event.
    Body(fn(&Sending) -> String),
    Altered(Alteration),
}

impl Step {
    pub const fn event(kind: &'static str, rule: Rule) -> Self {
        Self::odd(kind, Odd::Nothing, rule)
    }

    pub const fn odd(kind: &'static str, odd: Odd, rule: Rule) -> Self {
        Self { kind, odd, rule, of: "" }
    }

    pub const fn altered(alteration: Alteration, rule: Rule) -> Self {
        Self::odd("call_started", Odd::Altered(alteration), rule)
    }

    /// The request, of the next event of this call.
    pub fn sending(&self, call: &mut Call, routes: bool) -> Sending {
        let kind =
            if self.kind == "call_initiated" && !routes { "call_started" } else { self.kind };
        let kind: EventType = kind.parse().expect("the catalogue names types");
        match self.odd {
            Odd::Nothing => call.next(kind),
            Odd::Payload(payload) => call.next_with(kind, &payload()),
            Odd::Long(filler) => {
                let payload = json!({"role": "agent", "text": filler.text()});
                Sending { filler: Some(filler), ..call.next_with(kind, &payload) }
            }
            Odd::Body(make) => {
                let whole = call.next(kind);
                let body = make(&whole);
                whole.with_body(body)
            }
            Odd::Altered(alteration) => call.next(kind).altered(alteration),
        }
    }
}
