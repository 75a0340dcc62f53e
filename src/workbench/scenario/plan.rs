//! Plan: what one call comes to.
//!
//! Pure: a script and dice in, a list of events with their times out. Nothing here waits or sends.
//!
//! Invariants:
//! - The same scenarios, seed and number of the call give the same plan.
//! - Times never go back, and begin with the first event's wait.

use std::time::Duration;

use serde_json::{Value, json};

use super::file::Scenario;
use super::script::{Act, PayloadSource, Script, ScriptStep};
use super::text::Cast;
use super::time::Time;
use crate::bridge::life::EndReason;
use crate::event::{CallId, EventType, Payload};
use crate::time::millis;
use crate::workbench::dice::Dice;

/// How long a character takes to be spoken: a thousand in a minute.
const CHARACTER: Duration = Duration::from_millis(60);

#[derive(Clone, Debug)]
pub struct Plan {
    pub call: CallId,
    pub scenario: String,
    pub script: String,
    pub events: Vec<Planned>,
    /// How long it lasts, up to its last step.
    pub length: Duration,
}

#[derive(Clone, Debug)]
pub struct Planned {
    /// When, from the beginning of the call.
    pub at: Duration,
    pub kind: EventType,
    pub payload: Payload,
}

/// Plans call `number` (1, 2, …) of these scenarios, each of which is as likely.
///
/// # Panics
/// Where there is no scenario at all.
pub fn plan(scenarios: &[Scenario], seed: u64, number: u64) -> Plan {
    let mut dice = Dice::new(seed, number);
    let scenario = dice.pick(scenarios).expect("there is a scenario to play");
    let script = choose(scenario, &mut dice);
    let cast = Cast::throw(&scenario.lists, number, &mut dice);
    let mut call = Draft {
        cast,
        dice,
        details: scenario.call_ended_details,
        now: Duration::ZERO,
        started: Duration::ZERO,
        agent_since: Duration::ZERO,
        events: Vec::new(),
    };
    call.play(&script.steps);
    Plan {
        call: call.cast.call,
        scenario: scenario.name.clone(),
        script: script.name.clone(),
        events: call.events,
        length: call.now,
    }
}

fn choose<'s>(scenario: &'s Scenario, dice: &mut Dice) -> &'s Script {
    let mut left = dice.below(scenario.scripts.iter().map(|script| script.weight).sum());
    let chosen = scenario.scripts.iter().find(|script| {
        let rest = left.checked_sub(script.weight);
        left = rest.unwrap_or_default();
        rest.is_none()
    });
    chosen.expect("the weights of a scenario come to more than 0")
}

/// A call in the making.
struct Draft<'s> {
    cast: Cast<'s>,
    dice: Dice,
    details: bool,
    now: Duration,
    started: Duration,
    agent_since: Duration,
    events: Vec<Planned>,
}

impl Draft<'_> {
    fn play(&mut self, steps: &[ScriptStep]) {
        for step in steps {
            self.now += step.after.throw(&mut self.dice);
            self.act(&step.act);
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Pause(time) => self.now += time.throw(&mut self.dice),
            Act::Emit(kind, body) => self.emit(kind.clone(), body),
            Act::Agent(text, takes) => {
                let text = text.spoken(&self.cast, &mut self.dice);
                let takes = self.takes(&text, *takes);
                self.agent_since = self.now;
                self.say("agent", &text);
                self.now += takes;
            }
            Act::User(text, takes) => {
                let text = text.spoken(&self.cast, &mut self.dice);
                let takes = self.takes(&text, *takes);
                self.now += takes;
                self.say("user", &text);
            }
            Act::BargeIn(time) => {
                // Nobody can break into words that are over.
                let cut = self.agent_since + time.throw(&mut self.dice);
                let last = self.events.last().map_or(self.agent_since, |event| event.at);
                self.now = self.now.min(cut).max(last);
                self.put(EventType::Interruption, &json!({}));
            }
            Act::Dtmf(digits, every) => {
                let digits = digits.spoken(&self.cast, &mut self.dice);
                for (index, digit) in digits.chars().enumerate() {
                    if index > 0 {
                        self.now += every.throw(&mut self.dice);
                    }
                    self.put(EventType::DtmfDigit, &json!({"digit": digit.to_string()}));
                }
            }
            Act::HangUp(reasons) => self.hang_up(reasons),
            Act::Repeat(least, most, steps) => {
                let times = least + self.dice.below(most - least + 1);
                for _ in 0..times {
                    self.play(steps);
                }
            }
            Act::Silence => {}
        }
    }

    fn emit(&mut self, kind: EventType, body: &PayloadSource) {
        if kind == EventType::CallStarted {
            self.started = self.now;
        }
        let payload = match body {
            PayloadSource::Json(payload) => payload.clone(),
            PayloadSource::Template(tree) => payload(&tree.filled(&self.cast, &mut self.dice)),
        };
        self.events.push(Planned { at: self.now, kind, payload });
    }

    fn say(&mut self, role: &str, text: &str) {
        self.put(EventType::Transcription, &json!({"role": role, "text": text}));
    }

    fn hang_up(&mut self, reasons: &[EndReason]) {
        let reason = self.dice.pick(reasons).expect("a hang-up has at least one reason");
        let lasted = millis(self.now - self.started);
        let details = json!({"reason": reason.name(), "duration_ms": lasted});
        let payload = if self.details { details } else { json!({}) };
        self.put(EventType::CallEnded, &payload);
    }

    fn put(&mut self, kind: EventType, value: &Value) {
        self.events.push(Planned { at: self.now, kind, payload: payload(value) });
    }

    fn takes(&mut self, text: &str, given: Option<Time>) -> Duration {
        match given {
            Some(time) => time.throw(&mut self.dice),
            None => CHARACTER * u32::try_from(text.chars().count()).unwrap_or(u32::MAX),
        }
    }
}

fn payload(object: &Value) -> Payload {
    let raw = serde_json::value::to_raw_value(object).expect("a JSON value can be written");
    Payload::from_json(raw).expect("a payload was read as an object")
}
