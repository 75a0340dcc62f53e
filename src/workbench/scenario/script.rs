//! Script: one way in which a call can go, as steps.
//!
//! Owns the steps, their keys and their limits. Which may follow which is [`super::stage`]'s, what
//! they come to in a call [`super::plan()`]'s.

use serde::Deserialize;
use serde_json::value::RawValue;
use strum::VariantNames as _;
use toml::Spanned;
use toml::de::DeTable;

use super::read::{Node, Reader, UpTo};
use super::stage::{Stage, Verb};
use super::text::{Lists, MAX_NAME, MAX_TEXT, Text, Tree};
use super::time::Time;
use crate::event::{EventType, Payload};

/// The most events of a call, repeats and digits counted at their most: a call of hours.
pub const MAX_EVENTS: usize = 10_000;

/// The most steps of a script: a pause before each event.
pub const MAX_STEPS: usize = 2 * MAX_EVENTS;

/// The longest `json`, in bytes: callhook's own front takes no longer body.
pub const MAX_JSON: usize = 64 * 1024;

/// How often steps can be repeated at most.
pub const MAX_TIMES: u64 = 1000;

const MAX_WEIGHT: u64 = 1_000_000;

/// What a telephone's keys send.
const DIGITS: &str = "0123456789*#ABCD";

/// Why a call ends, as `call_ended` says it when asked for details.
const REASONS: [&str; 7] =
    ["hangup", "sts_closed", "sts_failed", "protocol_error", "idle", "shutdown", "restart"];

/// Between two keys, where a step does not say: a person who dials.
const BETWEEN_KEYS: Time = Time::Fixed(300);

/// The keys of a step beside its verb.
const MODIFIERS: [&str; 6] = ["after", "takes", "every", "payload", "json", "steps"];

#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    /// How often it is played, against its file's other scripts.
    pub weight: u64,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// How long after the last step.
    pub after: Time,
    pub act: Act,
}

/// What happens in a step.
#[derive(Clone, Debug)]
pub enum Act {
    Pause(Time),
    Emit(EventType, Body),
    /// The agent begins to say this: its transcript, then the time it takes to speak, by its length
    /// where none is given.
    Agent(Text, Option<Time>),
    /// The caller has said this: the time it takes to speak, then its transcript.
    User(Text, Option<Time>),
    /// The caller breaks in, so long after the agent began to speak.
    BargeIn(Time),
    /// The caller presses these keys, with a time between them.
    Dtmf(Text, Time),
    /// The call ends for one of these reasons.
    HangUp(Vec<&'static str>),
    /// At least and at most how many times, and what.
    Repeat(u64, u64, Vec<Step>),
    /// Nothing more is heard of the call.
    Silence,
}

/// An event's payload.
#[derive(Clone, Debug)]
pub enum Body {
    /// With variables.
    Tree(Tree),
    /// As it is.
    Json(Payload),
}

impl Verb {
    /// The keys that go with it, besides `after`.
    fn modifiers(self) -> &'static [&'static str] {
        match self {
            Self::Agent | Self::User => &["takes"],
            Self::Dtmf => &["every"],
            Self::Event => &["payload", "json"],
            Self::Repeat => &["steps"],
            Self::Initiated | Self::Started | Self::BargeIn | Self::Pause => &[],
            Self::HangUp | Self::Abandoned | Self::Lost => &[],
        }
    }
}

impl Script {
    /// Reads `[[script]]`.
    pub fn read(reader: &mut Reader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Self> {
        let table = reader.table(node, "script")?;
        reader.keys(table, "a script", &["name", "weight", "steps"]);
        let name = table.get("name").and_then(|node| name(reader, node));
        let weight: Option<Option<UpTo<MAX_WEIGHT>>> = reader.field(table, "weight");
        let Some(node) = table.get("steps") else {
            return reader.wrong(node, "a script needs steps");
        };
        let mistakes = reader.count();
        let mut course = Course { reader, lists, stage: Stage::New, events: 0, repeated: false };
        let steps = course.steps(node);
        let Course { stage, events, .. } = course;
        if stage != Stage::Over && reader.count() == mistakes {
            let text = "the last step of a script says how it ends: hang_up = \"hangup\", \
                        lost = true or abandoned = true";
            reader.fault(node.span(), text);
        }
        if events > MAX_EVENTS {
            let text =
                format!("the call can come to {events} events; at most {MAX_EVENTS} are played");
            reader.fault(node.span(), text);
        }
        let weight = weight?.map_or(1, |UpTo(weight)| weight);
        Some(Self { name: name.unwrap_or_default(), weight, steps: steps? })
    }
}

fn name(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let name = reader.text(node, "name", MAX_NAME)?;
    if name.is_empty() {
        reader.fault(node.span(), "name is empty");
    }
    Some(name)
}

/// Reads the steps of a script, or those in a repeat.
struct Course<'r, 's> {
    reader: &'r mut Reader<'s>,
    lists: &'r Lists,
    /// How far the steps so far bring the call.
    stage: Stage,
    /// What they come to at their most.
    events: usize,
    repeated: bool,
}

impl Course<'_, '_> {
    fn steps(&mut self, node: &Node<'_>) -> Option<Vec<Step>> {
        let steps = self.reader.list(node, "steps")?;
        if steps.len() > MAX_STEPS {
            let text = format!("{} steps; at most {MAX_STEPS} are taken", steps.len());
            return self.reader.wrong(node, text);
        }
        // All are read before one that failed ends it, so that all mistakes are reported.
        let steps: Vec<Option<Step>> = steps.iter().map(|step| self.step(step)).collect();
        steps.into_iter().collect()
    }

    fn step(&mut self, node: &Node<'_>) -> Option<Step> {
        let table = self.reader.table(node, "a step")?;
        let (verb, value) = verb(self.reader, node, table)?;
        let after = Time::field(self.reader, table, "after");
        self.stage = self.stage.after(verb).unwrap_or_else(|why| {
            self.reader.fault(node.span(), format!("{verb} cannot come here: {why}"));
            self.stage.taken(verb)
        });
        let act = self.act(verb, value, table, node);
        Some(Step { after: after?.unwrap_or(Time::ZERO), act: act? })
    }

    fn act(
        &mut self,
        verb: Verb,
        value: &Node<'_>,
        table: &DeTable<'_>,
        node: &Node<'_>,
    ) -> Option<Act> {
        let (reader, lists) = (&mut *self.reader, self.lists);
        let name = verb.into();
        let emits = match verb {
            Verb::Initiated | Verb::Started | Verb::Event | Verb::HangUp => 1,
            Verb::Agent | Verb::User | Verb::BargeIn => 1,
            Verb::Dtmf | Verb::Repeat | Verb::Pause | Verb::Abandoned | Verb::Lost => 0,
        };
        self.events += emits;
        match verb {
            Verb::Initiated => {
                Some(Act::Emit(EventType::CallInitiated, object(reader, value, lists)?))
            }
            Verb::Started => Some(Act::Emit(EventType::CallStarted, object(reader, value, lists)?)),
            Verb::Agent | Verb::User => {
                let takes = Time::field(reader, table, "takes");
                let (text, takes) = (Text::read(reader, value, name, lists)?, takes?);
                Some(if verb == Verb::Agent {
                    Act::Agent(text, takes)
                } else {
                    Act::User(text, takes)
                })
            }
            Verb::BargeIn => Time::read(reader, value, name).map(Act::BargeIn),
            Verb::Pause => Time::read(reader, value, name).map(Act::Pause),
            Verb::Dtmf => {
                let every = Time::field(reader, table, "every");
                let keys = self.keys(value)?;
                Some(Act::Dtmf(keys, every?.unwrap_or(BETWEEN_KEYS)))
            }
            Verb::Event => event(reader, value, table, lists),
            Verb::Repeat => self.repeat(value, table, node),
            Verb::HangUp => reasons(reader, value).map(Act::HangUp),
            Verb::Abandoned | Verb::Lost => {
                if !reader.value::<bool>(value, name)? {
                    reader.fault(value.span(), format!("{name} = true, or no {name} at all"));
                }
                Some(Act::Silence)
            }
        }
    }

    fn keys(&mut self, node: &Node<'_>) -> Option<Text> {
        let keys = Text::read(self.reader, node, "dtmf", self.lists)?;
        let longest = keys.longest_of(DIGITS, self.lists).filter(|longest| *longest > 0);
        if longest.is_none() {
            let text =
                format!("dtmf: expected keys out of {DIGITS}, in every entry of a list, too");
            self.reader.fault(node.span(), text);
        }
        self.events += longest?;
        Some(keys)
    }

    fn repeat(&mut self, value: &Node<'_>, table: &DeTable<'_>, node: &Node<'_>) -> Option<Act> {
        if self.repeated {
            return self.reader.wrong(node, "repeat cannot be nested");
        }
        let times = times(self.reader, value);
        let Some(steps) = table.get("steps") else {
            return self.reader.wrong(node, "repeat needs steps");
        };
        let mut within = Course {
            reader: self.reader,
            lists: self.lists,
            stage: Stage::Talking,
            events: 0,
            repeated: true,
        };
        let read = within.steps(steps);
        let Course { stage, events, .. } = within;
        if stage == Stage::Over {
            let text = "a call cannot end in repeat: its end comes after";
            self.reader.fault(steps.span(), text);
        }
        let (least, most) = times?;
        self.events += events.saturating_mul(usize::try_from(most).unwrap_or(usize::MAX));
        Some(Act::Repeat(least, most, read?))
    }
}

/// The one thing that a step does; its other keys must belong to that.
fn verb<'n, 't>(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    table: &'n DeTable<'t>,
) -> Option<(Verb, &'n Node<'t>)> {
    let all_known = reader.keys(table, "a step", &[Verb::VARIANTS, &MODIFIERS].concat());
    let verb_of = |key: &str| key.parse::<Verb>().ok();
    let mut found = table.iter().filter_map(|(key, value)| Some((verb_of(key.get_ref())?, value)));
    let Some((verb, value)) = found.next() else {
        if all_known {
            let text = format!("a step is one of {}", Verb::VARIANTS.join(", "));
            reader.fault(node.span(), text);
        }
        return None;
    };
    if let Some((other, _)) = found.next() {
        return reader.wrong(node, format!("a step is one thing: not both {verb} and {other}"));
    }
    for (key, _) in table.iter() {
        let name = key.get_ref().as_ref();
        if MODIFIERS[1..].contains(&name) && !verb.modifiers().contains(&name) {
            reader.fault(key.span(), format!("`{name}` does not go with {verb}"));
        }
    }
    Some((verb, value))
}

fn object(reader: &mut Reader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Body> {
    reader.table(node, "a payload")?;
    Tree::read(reader, node, lists).map(Body::Tree)
}

fn event(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    table: &DeTable<'_>,
    lists: &Lists,
) -> Option<Act> {
    let kind = reader.text(node, "event", MAX_TEXT)?.parse::<EventType>();
    let kind = kind.map_err(|why| reader.fault(node.span(), format!("event: {why}"))).ok()?;
    let body = match (table.get("payload"), table.get("json")) {
        (Some(_), Some(json)) => {
            return reader.wrong(json, "payload and json are two ways to say the same; use one");
        }
        (Some(payload), None) => object(reader, payload, lists)?,
        (None, Some(json)) => Body::Json(verbatim(reader, json)?),
        (None, None) => Body::Json(Payload::empty()),
    };
    Some(Act::Emit(kind, body))
}

fn verbatim(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Payload> {
    let text = reader.text(node, "json", MAX_JSON)?;
    let raw = serde_json::from_str::<Box<RawValue>>(&text).map_err(|error| error.to_string());
    let payload = raw.and_then(|raw| Payload::from_json(raw).map_err(|error| error.to_string()));
    payload.map_err(|why| reader.fault(node.span(), format!("json: {why}"))).ok()
}

/// One reason, or a list of them.
fn reasons(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Vec<&'static str>> {
    let nodes = node.get_ref().as_array().map_or(std::slice::from_ref(node), |list| &**list);
    if nodes.is_empty() {
        return reader.wrong(node, "hang_up: expected at least one reason");
    }
    let reasons = nodes.iter().map(|node| {
        let given = reader.text(node, "hang_up", MAX_TEXT)?;
        let reason = REASONS.into_iter().find(|reason| *reason == given);
        reason
            .or_else(|| reader.expected(node, "hang_up", &format!("one of {}", REASONS.join(", "))))
    });
    reasons.collect()
}

type Times = UpTo<MAX_TIMES>;

/// How often steps are repeated, where that is left to chance.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimesBetween {
    uniform: [Spanned<Times>; 2],
}

fn times(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<(u64, u64)> {
    if !node.get_ref().is_table() {
        let UpTo(times) = reader.value::<Times>(node, "repeat")?;
        return Some((times, times));
    }
    let TimesBetween { uniform: [least, most] } = reader.value(node, "repeat")?;
    let (UpTo(least), UpTo(greatest)) = (*least.get_ref(), *most.get_ref());
    if greatest < least {
        let text = format!(
            "repeat: expected a whole number from {least} to {MAX_TIMES}, found {greatest}"
        );
        reader.fault(most.span(), text);
        return None;
    }
    Some((least, greatest))
}
