//! Script: one way in which a call can go, as steps.
//!
//! Owns the steps, their keys and their limits. Which may follow which is [`super::stage`]'s, what
//! they come to in a call [`super::plan()`]'s.

use serde_json::value::RawValue;
use toml::de::DeTable;

use super::read::{Node, Reader};
use super::stage::{Stage, Turn};
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

/// The greatest weight of a script.
const MAX_WEIGHT: u64 = 1_000_000;

/// What a telephone's keys send.
const DIGITS: &str = "0123456789*#ABCD";

/// Why a call ends, as `call_ended` says it when asked for details.
const REASONS: [&str; 7] =
    ["hangup", "sts_closed", "sts_failed", "protocol_error", "idle", "shutdown", "restart"];

/// Between two keys, where a step does not say: a person who dials.
const BETWEEN_KEYS: Time = Time::Fixed(300);

const SCRIPT_KEYS: [&str; 3] = ["name", "weight", "steps"];

/// What a step can be, and the keys that go with it besides `after`.
const VERBS: [(&str, &[&str]); 12] = [
    ("initiated", &[]),
    ("started", &[]),
    ("agent", &["takes"]),
    ("user", &["takes"]),
    ("barge_in", &[]),
    ("dtmf", &["every"]),
    ("pause", &[]),
    ("event", &["payload", "json"]),
    ("repeat", &["steps"]),
    ("hang_up", &[]),
    ("abandoned", &[]),
    ("lost", &[]),
];

/// One way in which a call can go.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// How often it is played, against its file's other scripts.
    pub weight: u64,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// A step, after a wait.
#[derive(Clone, Debug)]
pub struct Step {
    /// How long after the last step.
    pub after: Time,
    /// What happens.
    pub act: Act,
}

/// What happens in a step.
#[derive(Clone, Debug)]
pub enum Act {
    /// Nothing, for a time.
    Pause(Time),
    /// An event.
    Emit(EventType, Body),
    /// The agent begins to say this: its transcript, then the time it takes to speak.
    Agent(Text, Takes),
    /// The caller has said this: the time it takes to speak, then its transcript.
    User(Text, Takes),
    /// The caller breaks in, so long after the agent began to speak.
    BargeIn(Time),
    /// The caller presses these keys, with a time between them.
    Dtmf(Text, Time),
    /// The call ends for one of these reasons.
    HangUp(Vec<String>),
    /// These steps, at least and at most so many times.
    Repeat(u64, u64, Vec<Step>),
    /// Nothing more is heard of the call.
    Silence,
}

/// How long it takes to say something.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// As long as its length needs.
    AsSpoken,
    /// So long.
    Given(Time),
}

/// An event's payload.
#[derive(Clone, Debug)]
pub enum Body {
    /// With variables.
    Tree(Tree),
    /// As it is.
    Json(Payload),
}

impl Script {
    /// Reads `[[script]]`.
    pub fn read(reader: &mut Reader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Self> {
        let table = reader.table(node, "script")?;
        reader.keys(table, "a script", &SCRIPT_KEYS);
        let name = table.get("name").and_then(|name| reader.name(name, "name", MAX_NAME));
        let weight = table.get("weight");
        let weight = weight.map_or(Some(1), |node| reader.whole(node, "weight", 0..=MAX_WEIGHT));
        let Some(steps) = table.get("steps") else {
            reader.fault(node.span(), "a script needs steps");
            return None;
        };
        let (mut stage, mut events, mistakes) = (Stage::New, 0, reader.count());
        let read = Steps { lists, repeated: false }.read(reader, steps, &mut stage, &mut events);
        if stage != Stage::Over && reader.count() == mistakes {
            let text = "the last step of a script says how it ends: hang_up = \"hangup\", \
                        lost = true or abandoned = true";
            reader.fault(steps.span(), text);
        }
        if events > MAX_EVENTS {
            let text =
                format!("the call can come to {events} events; at most {MAX_EVENTS} are played");
            reader.fault(steps.span(), text);
        }
        Some(Self { name: name.unwrap_or_default().to_owned(), weight: weight?, steps: read? })
    }
}

/// Reads steps, in a script or in a repeat.
struct Steps<'l> {
    lists: &'l Lists,
    repeated: bool,
}

impl Steps<'_> {
    fn read(
        &self,
        reader: &mut Reader<'_>,
        node: &Node<'_>,
        stage: &mut Stage,
        events: &mut usize,
    ) -> Option<Vec<Step>> {
        let steps = reader.list(node, "steps")?;
        if steps.len() > MAX_STEPS {
            let text = format!("{} steps; at most {MAX_STEPS} are taken", steps.len());
            reader.fault(node.span(), text);
            return None;
        }
        // All are read before any is missed, so that all mistakes are told.
        let steps: Vec<Option<Step>> =
            steps.iter().map(|step| self.step(reader, step, stage, events)).collect();
        steps.into_iter().collect()
    }

    fn step(
        &self,
        reader: &mut Reader<'_>,
        node: &Node<'_>,
        stage: &mut Stage,
        events: &mut usize,
    ) -> Option<Step> {
        let table = reader.table(node, "a step")?;
        let (verb, value) = verb(reader, node, table)?;
        let after =
            table.get("after").map_or(Some(Time::ZERO), |node| Time::read(reader, node, "after"));
        let act = if verb == "repeat" {
            self.repeat(reader, node, table, value, stage, events)
        } else {
            advance(reader, node, verb, stage);
            self.act(reader, verb, value, table, events)
        };
        Some(Step { after: after?, act: act? })
    }

    fn act(
        &self,
        reader: &mut Reader<'_>,
        verb: &str,
        value: &Node<'_>,
        table: &DeTable<'_>,
        events: &mut usize,
    ) -> Option<Act> {
        let lists = self.lists;
        *events += usize::from(!matches!(verb, "pause" | "dtmf" | "abandoned" | "lost"));
        match verb {
            "initiated" => {
                object(reader, value, lists).map(|body| Act::Emit(EventType::CallInitiated, body))
            }
            "started" => {
                object(reader, value, lists).map(|body| Act::Emit(EventType::CallStarted, body))
            }
            "agent" => {
                let takes = takes(reader, table);
                Some(Act::Agent(Text::read(reader, value, verb, lists)?, takes?))
            }
            "user" => {
                let takes = takes(reader, table);
                Some(Act::User(Text::read(reader, value, verb, lists)?, takes?))
            }
            "barge_in" => Time::read(reader, value, verb).map(Act::BargeIn),
            "dtmf" => {
                let every = table.get("every");
                let every =
                    every.map_or(Some(BETWEEN_KEYS), |node| Time::read(reader, node, "every"));
                Some(Act::Dtmf(keys(reader, value, lists, events)?, every?))
            }
            "pause" => Time::read(reader, value, verb).map(Act::Pause),
            "event" => event(reader, value, table, lists),
            "hang_up" => reasons(reader, value).map(Act::HangUp),
            _ => {
                let said = reader.switch(value, verb)?;
                if !said {
                    reader.fault(value.span(), format!("{verb} = true, or no {verb} at all"));
                }
                Some(Act::Silence)
            }
        }
    }

    fn repeat(
        &self,
        reader: &mut Reader<'_>,
        node: &Node<'_>,
        table: &DeTable<'_>,
        value: &Node<'_>,
        stage: &mut Stage,
        events: &mut usize,
    ) -> Option<Act> {
        if self.repeated {
            reader.fault(node.span(), "repeat cannot stand in repeat");
            return None;
        }
        if !matches!(stage, Stage::Talking | Stage::AgentSpeaks) {
            reader.fault(node.span(), "repeat stands between started and the end of the call");
        }
        let times = times(reader, value);
        let Some(steps) = table.get("steps") else {
            reader.fault(node.span(), "repeat needs steps");
            return None;
        };
        let (mut within, mut once) = (Stage::Talking, 0);
        let read =
            Steps { lists: self.lists, repeated: true }.read(reader, steps, &mut within, &mut once);
        if within == Stage::Over {
            reader.fault(steps.span(), "a call cannot end in repeat: its end comes after");
        }
        *stage = Stage::Talking;
        let (least, most) = times?;
        *events += once.saturating_mul(usize::try_from(most).unwrap_or(usize::MAX));
        Some(Act::Repeat(least, most, read?))
    }
}

/// The one thing that a step does; its other keys have to go with it.
fn verb<'n, 't>(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    table: &'n DeTable<'t>,
) -> Option<(&'static str, &'n Node<'t>)> {
    let modifiers = ["after", "takes", "every", "payload", "json", "steps"];
    let names: Vec<&str> = VERBS.iter().map(|(verb, _)| *verb).chain(modifiers).collect();
    let all_known = reader.keys(table, "a step", &names);
    let mut found = VERBS.iter().filter_map(|(verb, with)| Some((*verb, *with, table.get(*verb)?)));
    let Some((verb, with, value)) = found.next() else {
        let verbs: Vec<&str> = VERBS.iter().map(|(verb, _)| *verb).collect();
        if all_known {
            reader.fault(node.span(), format!("a step is one of {}", verbs.join(", ")));
        }
        return None;
    };
    if let Some((other, _, _)) = found.next() {
        reader.fault(node.span(), format!("a step is one thing: not both {verb} and {other}"));
        return None;
    }
    for (key, _) in table.iter() {
        let name = key.get_ref().as_ref();
        if modifiers.contains(&name) && name != "after" && !with.contains(&name) {
            reader.fault(key.span(), format!("`{name}` does not go with {verb}"));
        }
    }
    Some((verb, value))
}

fn advance(reader: &mut Reader<'_>, node: &Node<'_>, verb: &str, stage: &mut Stage) {
    let turn = match verb {
        "initiated" => Turn::Initiated,
        "started" => Turn::Started,
        "agent" => Turn::Agent,
        "user" | "dtmf" => Turn::Caller,
        "barge_in" => Turn::BargeIn,
        "pause" => Turn::Pause,
        "hang_up" => Turn::HangUp,
        "abandoned" => Turn::Abandoned,
        "lost" => Turn::Lost,
        _ => Turn::Free,
    };
    match stage.after(turn) {
        Ok(next) => *stage = next,
        Err(why) => {
            reader.fault(node.span(), format!("{verb} cannot stand here: {why}"));
            *stage = stage.taken(turn);
        }
    }
}

/// How long the words take, where the step says it.
fn takes(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Takes> {
    table
        .get("takes")
        .map_or(Some(Takes::AsSpoken), |node| Time::read(reader, node, "takes").map(Takes::Given))
}

fn object(reader: &mut Reader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Body> {
    reader.table(node, "a payload")?;
    Tree::read(reader, node, lists).map(Body::Tree)
}

fn keys(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    lists: &Lists,
    events: &mut usize,
) -> Option<Text> {
    let digits = Text::read(reader, node, "dtmf", lists)?;
    match digits.longest_of(DIGITS, lists) {
        Some(0) | None => {
            let text =
                format!("dtmf: expected keys out of {DIGITS}, in every entry of a list, too");
            reader.fault(node.span(), text);
            None
        }
        Some(longest) => {
            *events += longest;
            Some(digits)
        }
    }
}

fn event(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    table: &DeTable<'_>,
    lists: &Lists,
) -> Option<Act> {
    let name = reader.text(node, "event", MAX_TEXT)?;
    let kind: EventType = match name.parse() {
        Ok(kind) => kind,
        Err(why) => {
            reader.fault(node.span(), format!("event: {why}"));
            return None;
        }
    };
    let body = match (table.get("payload"), table.get("json")) {
        (Some(_), Some(json)) => {
            reader.fault(json.span(), "payload and json are two ways to say the same; use one");
            return None;
        }
        (Some(payload), None) => object(reader, payload, lists)?,
        (None, Some(json)) => Body::Json(verbatim(reader, json)?),
        (None, None) => Body::Json(Payload::empty()),
    };
    Some(Act::Emit(kind, body))
}

fn verbatim(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Payload> {
    let text = reader.text(node, "json", MAX_JSON)?;
    let raw = serde_json::from_str::<Box<RawValue>>(text).map_err(|error| error.to_string());
    match raw.and_then(|raw| Payload::from_json(raw).map_err(|error| error.to_string())) {
        Ok(payload) => Some(payload),
        Err(why) => {
            reader.fault(node.span(), format!("json: {why}"));
            None
        }
    }
}

fn reasons(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Vec<String>> {
    let one = std::slice::from_ref(node);
    let nodes = node.get_ref().as_array().map_or(one, |list| &**list);
    if nodes.is_empty() {
        reader.fault(node.span(), "hang_up: expected at least one reason");
        return None;
    }
    let reasons = nodes.iter().map(|node| {
        let reason = reader.text(node, "hang_up", MAX_TEXT)?;
        if !REASONS.contains(&reason) {
            reader.fault(node.span(), format!("hang_up: expected one of {}", REASONS.join(", ")));
            return None;
        }
        Some(reason.to_owned())
    });
    reasons.collect()
}

fn times(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<(u64, u64)> {
    let Some(table) = node.get_ref().as_table() else {
        let times = reader.whole(node, "repeat", 0..=MAX_TIMES)?;
        return Some((times, times));
    };
    if !reader.keys(table, "repeat", &["uniform"]) {
        return None;
    }
    let pair = table.get("uniform").and_then(|node| reader.list(node, "repeat"));
    let Some([least, most]) = pair else {
        reader.fault(node.span(), "repeat: expected a number, or { uniform = [least, most] }");
        return None;
    };
    let least = reader.whole(least, "repeat", 0..=MAX_TIMES);
    let most = reader.whole(most, "repeat", least.unwrap_or_default()..=MAX_TIMES);
    Some((least?, most?))
}
