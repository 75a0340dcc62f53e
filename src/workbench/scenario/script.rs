//! Script: one way in which a call can go, as steps.
//!
//! Owns the steps, their keys and their limits. Which may follow which is [`super::stage`]'s, what
//! they come to in a call [`super::plan()`]'s.

use serde::Deserialize;
use serde_json::value::RawValue;
use strum::VariantNames as _;
use toml::Spanned;
use toml::de::DeTable;

use super::read::{Node, ScenarioReader, UpTo};
use super::stage::{Stage, Verb};
use super::text::{Lists, MAX_NAME, MAX_TEXT, PayloadTemplate, Template};
use super::time::Time;
use crate::bridge::life::EndReason;
use crate::event::{EventType, Payload};
use crate::label::Label as _;

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

/// Between two keys, where a step does not say: a person who dials.
const BETWEEN_KEYS: Time = Time::Fixed(300);

/// The keys of a step beside its verb.
const MODIFIERS: [&str; 6] = ["after", "takes", "every", "payload", "json", "steps"];

#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    /// How often it is played, against its file's other scripts.
    pub weight: u64,
    pub steps: Vec<ScriptStep>,
}

#[derive(Clone, Debug)]
pub struct ScriptStep {
    /// How long after the last step.
    pub after: Time,
    pub act: Act,
}

/// What happens in a step.
#[derive(Clone, Debug)]
pub enum Act {
    Pause(Time),
    Emit(EventType, PayloadSource),
    /// The agent begins to say this: its transcript, then the time it takes to speak, by its length
    /// where none is given.
    Agent(Template, Option<Time>),
    /// The caller has said this: the time it takes to speak, then its transcript.
    User(Template, Option<Time>),
    /// The caller breaks in, so long after the agent began to speak.
    BargeIn(Time),
    /// The caller presses these keys, with a time between them.
    Dtmf(Template, Time),
    /// The call ends for one of these reasons.
    HangUp(Vec<EndReason>),
    /// At least and at most how many times, and what.
    Repeat(u64, u64, Vec<ScriptStep>),
    /// Nothing more is heard of the call.
    Silence,
}

/// An event's payload.
#[derive(Clone, Debug)]
pub enum PayloadSource {
    /// With variables.
    Template(PayloadTemplate),
    /// As it is.
    Json(Payload),
}

impl Act {
    /// The most events that it comes to.
    fn most_events(&self, lists: &Lists) -> usize {
        match self {
            Self::Pause(_) | Self::Silence => 0,
            Self::Emit(..) | Self::Agent(..) | Self::User(..) => 1,
            Self::BargeIn(_) | Self::HangUp(_) => 1,
            Self::Dtmf(keys, _) => keys.longest_of(DIGITS, lists).unwrap_or_default(),
            Self::Repeat(_, most, steps) => {
                let once: usize = steps.iter().map(|step| step.act.most_events(lists)).sum();
                once.saturating_mul(usize::try_from(*most).unwrap_or(usize::MAX))
            }
        }
    }
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
    pub fn read(reader: &mut ScenarioReader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Self> {
        let table = reader.table(node, "script")?;
        reader.keys(table, "a script", &["name", "weight", "steps"]);
        let name = reader.field(table, "name", name);
        let weight = reader.field(table, "weight", ScenarioReader::value::<UpTo<MAX_WEIGHT>>);
        let Some(node) = table.get("steps") else {
            return reader.wrong(node, "a script needs steps");
        };
        let mistakes = reader.count();
        let mut steps_reader = StepsReader { reader, lists, stage: Stage::New, repeated: false };
        let steps = steps_reader.steps(node);
        if steps_reader.stage != Stage::Over && reader.count() == mistakes {
            let text = "the last step of a script says how it ends: hang_up = \"hangup\", \
                        lost = true or abandoned = true";
            reader.fault(node.span(), text);
        }
        let (steps, weight) = (steps?, weight?.map_or(1, |UpTo(weight)| weight));
        let events: usize = steps.iter().map(|step| step.act.most_events(lists)).sum();
        if events > MAX_EVENTS {
            let text =
                format!("the call can come to {events} events; at most {MAX_EVENTS} are played");
            reader.fault(node.span(), text);
        }
        Some(Self { name: name?.unwrap_or_default(), weight, steps })
    }
}

fn name(reader: &mut ScenarioReader<'_>, node: &Node<'_>, what: &str) -> Option<String> {
    let name = reader.text(node, what, MAX_NAME)?;
    if name.is_empty() { reader.wrong(node, format!("{what} is empty")) } else { Some(name) }
}

/// Reads the steps of a script, or those in a repeat.
struct StepsReader<'r, 's> {
    reader: &'r mut ScenarioReader<'s>,
    lists: &'r Lists,
    /// How far the steps so far bring the call.
    stage: Stage,
    repeated: bool,
}

impl StepsReader<'_, '_> {
    fn steps(&mut self, node: &Node<'_>) -> Option<Vec<ScriptStep>> {
        let steps = self.reader.list(node, "steps")?;
        if steps.len() > MAX_STEPS {
            let text = format!("{} steps; at most {MAX_STEPS} are taken", steps.len());
            return self.reader.wrong(node, text);
        }
        // All are read before one that failed ends it, so that all mistakes are reported.
        let steps: Vec<Option<ScriptStep>> = steps.iter().map(|step| self.step(step)).collect();
        steps.into_iter().collect()
    }

    fn step(&mut self, node: &Node<'_>) -> Option<ScriptStep> {
        let table = self.reader.table(node, "a step")?;
        let (verb, value) = verb(self.reader, node, table)?;
        let after = self.reader.field(table, "after", Time::read);
        self.stage = self.stage.after(verb).unwrap_or_else(|why| {
            self.reader.fault(node.span(), format!("{verb} cannot come here: {why}"));
            self.stage.taken(verb)
        });
        let act = self.act(verb, value, table, node);
        Some(ScriptStep { after: after?.unwrap_or(Time::ZERO), act: act? })
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
        match verb {
            Verb::Initiated => {
                Some(Act::Emit(EventType::CallInitiated, object(reader, value, lists)?))
            }
            Verb::Started => Some(Act::Emit(EventType::CallStarted, object(reader, value, lists)?)),
            Verb::Agent | Verb::User => {
                let takes = reader.field(table, "takes", Time::read);
                let (text, takes) = (Template::read(reader, value, name, lists)?, takes?);
                let act = if verb == Verb::Agent { Act::Agent } else { Act::User };
                Some(act(text, takes))
            }
            Verb::BargeIn => Time::read(reader, value, name).map(Act::BargeIn),
            Verb::Pause => Time::read(reader, value, name).map(Act::Pause),
            Verb::Dtmf => {
                let every = reader.field(table, "every", Time::read);
                Some(Act::Dtmf(keys(reader, value, lists)?, every?.unwrap_or(BETWEEN_KEYS)))
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

    fn repeat(&mut self, value: &Node<'_>, table: &DeTable<'_>, node: &Node<'_>) -> Option<Act> {
        if self.repeated {
            return self.reader.wrong(node, "repeat cannot be nested");
        }
        let times = times(self.reader, value);
        let Some(steps) = table.get("steps") else {
            return self.reader.wrong(node, "repeat needs steps");
        };
        let (reader, lists) = (&mut *self.reader, self.lists);
        let mut within = StepsReader { reader, lists, stage: Stage::Talking, repeated: true };
        let read = within.steps(steps);
        if within.stage == Stage::Over {
            reader.fault(steps.span(), "a call cannot end in repeat: its end comes after");
        }
        let (least, most) = times?;
        Some(Act::Repeat(least, most, read?))
    }
}

/// The one thing that a step does; its other keys must belong to that.
fn verb<'n, 't>(
    reader: &mut ScenarioReader<'_>,
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

fn keys(reader: &mut ScenarioReader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Template> {
    let keys = Template::read(reader, node, "dtmf", lists)?;
    if keys.longest_of(DIGITS, lists).is_some_and(|longest| longest > 0) {
        return Some(keys);
    }
    reader.expected(node, "dtmf", &format!("keys out of {DIGITS}, in every entry of a list, too"))
}

fn object(
    reader: &mut ScenarioReader<'_>,
    node: &Node<'_>,
    lists: &Lists,
) -> Option<PayloadSource> {
    reader.table(node, "a payload")?;
    PayloadTemplate::read(reader, node, lists).map(PayloadSource::Template)
}

fn event(
    reader: &mut ScenarioReader<'_>,
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
        (None, Some(json)) => PayloadSource::Json(verbatim(reader, json)?),
        (None, None) => PayloadSource::Json(Payload::empty()),
    };
    Some(Act::Emit(kind, body))
}

fn verbatim(reader: &mut ScenarioReader<'_>, node: &Node<'_>) -> Option<Payload> {
    let text = reader.text(node, "json", MAX_JSON)?;
    let raw = serde_json::from_str::<Box<RawValue>>(&text).map_err(|error| error.to_string());
    let payload = raw.and_then(|raw| Payload::from_json(raw).map_err(|error| error.to_string()));
    payload.map_err(|why| reader.fault(node.span(), format!("json: {why}"))).ok()
}

/// One reason, or a list of them.
fn reasons(reader: &mut ScenarioReader<'_>, node: &Node<'_>) -> Option<Vec<EndReason>> {
    let nodes = node.get_ref().as_array().map_or(std::slice::from_ref(node), |list| &**list);
    if nodes.is_empty() {
        return reader.wrong(node, "hang_up: expected at least one reason");
    }
    let known = EndReason::all();
    let reasons = nodes.iter().map(|node| {
        let given = reader.text(node, "hang_up", MAX_TEXT)?;
        known.iter().copied().find(|reason| reason.name() == given).or_else(|| {
            let names: Vec<&str> = known.iter().map(|reason| reason.name()).collect();
            reader.expected(node, "hang_up", &format!("one of {}", names.join(", ")))
        })
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

fn times(reader: &mut ScenarioReader<'_>, node: &Node<'_>) -> Option<(u64, u64)> {
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
