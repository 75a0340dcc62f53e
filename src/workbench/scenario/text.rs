//! Text: what a scenario has in quotes, with variables for what differs from call to call.
//!
//! | written | becomes |
//! | --- | --- |
//! | `{{call}}` | the call's uuid |
//! | `{{n}}` | the call's number: 1, 2, … |
//! | `{{caller}}` | a number to call from; a list of that name takes its place |
//! | `{{channel}}` | a channel as Asterisk names it, of that caller and number |
//! | `{{name}}` | an entry of the list of that name, the same throughout the call |
//! | `{{any name}}` | an entry of that list, picked anew each time |
//!
//! Invariant: a text that was read names only what exists.

use serde_json::{Number, Value};
use toml::de::DeValue;

use super::read::{Node, ScenarioReader};
use crate::event::CallId;
use crate::text::{nearest, printable};
use crate::workbench::dice::Dice;

/// The longest text, in bytes: longer than any that is spoken in one go.
pub const MAX_TEXT: usize = 32 * 1024;

/// The most lists of a file.
pub const MAX_LISTS: usize = 100;
/// The most entries of a list.
pub const MAX_ENTRIES: usize = 10_000;

/// The longest name of a list, a script or a file's description line, in bytes.
pub const MAX_NAME: usize = 64;

const CALLER: &str = "caller";
const RESERVED: [&str; 3] = ["call", "n", "channel"];
const ANEW: &str = "any ";

/// The lists of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists(Vec<(String, Vec<String>)>);

impl Lists {
    /// Reads `[lists]`.
    pub fn read(reader: &mut ScenarioReader<'_>, node: &Node<'_>) -> Self {
        let Some(table) = reader.table(node, "lists") else {
            return Self::default();
        };
        if table.len() > MAX_LISTS {
            let text = format!("{} lists; at most {MAX_LISTS} are taken", table.len());
            reader.fault(node.span(), text);
        }
        let lists = table.iter().filter_map(|(key, node)| {
            let name = key.get_ref().as_ref();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if RESERVED.contains(&name) {
                reader.fault(
                    key.span(),
                    format!("`{name}` is taken: {{{{{name}}}}} has its own meaning"),
                );
            } else if !name.chars().all(plain) || !(1..=MAX_NAME).contains(&name.len()) {
                let text = format!("a list's name is 1 to {MAX_NAME} letters, digits and _");
                reader.fault(key.span(), text);
            }
            Some((name.to_owned(), entries(reader, node, name)?))
        });
        Self(lists.collect())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }

    fn entries(&self, list: usize) -> &[String] {
        self.0.get(list).map_or(&[], |(_, entries)| entries)
    }
}

fn entries(reader: &mut ScenarioReader<'_>, node: &Node<'_>, name: &str) -> Option<Vec<String>> {
    let list = reader.list(node, name)?;
    if list.is_empty() || list.len() > MAX_ENTRIES {
        let found = list.len();
        return reader
            .wrong(node, format!("{name} has {found} entries; 1 to {MAX_ENTRIES} are taken"));
    }
    list.iter().map(|node| reader.text(node, name, MAX_TEXT)).collect()
}

#[derive(Debug)]
pub struct Cast<'s> {
    pub call: CallId,
    /// 1, 2, …
    pub number: u64,
    caller: String,
    lists: &'s Lists,
    /// For each list the entry that holds throughout the call.
    picked: Vec<&'s str>,
}

impl<'s> Cast<'s> {
    /// Throws who takes part in this call.
    pub fn throw(lists: &'s Lists, number: u64, dice: &mut Dice) -> Self {
        let id = uuid::Builder::from_random_bytes(dice.bytes()).into_uuid();
        let call = CallId::from_bytes(id.into_bytes());
        // Ofcom reserves these for drama: they are nobody's numbers.
        let caller = format!("+441632960{:03}", dice.below(1000));
        let picks =
            lists.0.iter().map(|(_, entries)| dice.pick(entries).map_or("", String::as_str));
        let picked: Vec<&str> = picks.collect();
        let own = lists.find(CALLER).and_then(|list| picked.get(list));
        let caller = own.map_or(caller, |own| (*own).to_owned());
        Self { call, number, caller, lists, picked }
    }
}

/// A text with its variables.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Plain(String),
    Call,
    Number,
    Caller,
    Channel,
    /// An entry of the list of this index.
    Entry(usize),
    /// The same, picked anew.
    Anew(usize),
}

impl Template {
    pub fn read(
        reader: &mut ScenarioReader<'_>,
        node: &Node<'_>,
        what: &str,
        lists: &Lists,
    ) -> Option<Self> {
        let text = reader.text(node, what, MAX_TEXT)?;
        let (mut pieces, mut rest) = (Vec::new(), text.as_str());
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                pieces.push(Piece::Plain(before.to_owned()));
            }
            let Some((name, after)) = after.split_once("}}") else {
                return reader.wrong_part(node, "{{", "{{ without }}");
            };
            let Some(piece) = variable(name.trim(), lists) else {
                let written = format!("{{{{{name}}}}}");
                return reader.wrong_part(node, &written, &unknown(name.trim(), lists));
            };
            pieces.push(piece);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Plain(rest.to_owned()));
        }
        Some(Self(pieces))
    }

    pub fn spoken(&self, cast: &Cast<'_>, dice: &mut Dice) -> String {
        let mut spoken = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => spoken.push_str(text),
                Piece::Call => spoken.push_str(&cast.call.to_string()),
                Piece::Number => spoken.push_str(&cast.number.to_string()),
                Piece::Caller => spoken.push_str(&cast.caller),
                Piece::Channel => {
                    spoken.push_str(&format!("PJSIP/{}-{:08x}", cast.caller, cast.number));
                }
                Piece::Entry(list) => spoken.push_str(cast.picked.get(*list).unwrap_or(&"")),
                Piece::Anew(list) => {
                    let entry = dice.pick(cast.lists.entries(*list));
                    spoken.push_str(entry.map_or("", String::as_str));
                }
            }
        }
        spoken
    }

    /// The most characters that it becomes, if each of them is one of `allowed`, whatever is picked.
    pub fn longest_of(&self, allowed: &str, lists: &Lists) -> Option<usize> {
        let count =
            |text: &str| text.chars().all(|c| allowed.contains(c)).then(|| text.chars().count());
        let longest = |list: usize| {
            let counts: Option<Vec<usize>> =
                lists.entries(list).iter().map(|entry| count(entry)).collect();
            counts?.into_iter().max()
        };
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Plain(text) => count(text),
                Piece::Number => count("0123456789").map(|_| u64::MAX.to_string().len()),
                Piece::Caller => longest(lists.find(CALLER)?),
                Piece::Entry(list) | Piece::Anew(list) => longest(*list),
                Piece::Call | Piece::Channel => None,
            })
            .sum()
    }
}

fn variable(name: &str, lists: &Lists) -> Option<Piece> {
    let anew = name.strip_prefix(ANEW).map(str::trim);
    match (name, anew) {
        (_, Some(list)) => lists.find(list).map(Piece::Anew),
        ("call", None) => Some(Piece::Call),
        ("n", None) => Some(Piece::Number),
        (CALLER, None) => Some(Piece::Caller),
        ("channel", None) => Some(Piece::Channel),
        (_, None) => lists.find(name).map(Piece::Entry),
    }
}

fn unknown(name: &str, lists: &Lists) -> String {
    let own = lists.0.iter().map(|(name, _)| name.as_str());
    let known: Vec<&str> = own.chain(RESERVED).chain([CALLER]).collect();
    let nearest = nearest(name.trim_start_matches(ANEW), &known).unwrap_or_default();
    format!(
        "{{{{{}}}}} is not a variable; did you mean {{{{{nearest}}}}}? \
         (your own lists go under [lists])",
        printable(name)
    )
}

/// A payload's value, with variables in its texts.
#[derive(Clone, Debug, PartialEq)]
pub enum PayloadTemplate {
    /// What needs no variables.
    Plain(Value),
    Template(Template),
    List(Vec<PayloadTemplate>),
    /// An object, its fields in the file's order.
    Object(Vec<(String, PayloadTemplate)>),
}

impl PayloadTemplate {
    pub fn read(reader: &mut ScenarioReader<'_>, node: &Node<'_>, lists: &Lists) -> Option<Self> {
        match node.get_ref() {
            DeValue::String(_) => {
                Template::read(reader, node, "a payload's text", lists).map(Self::Template)
            }
            DeValue::Datetime(date) => Some(Self::Plain(date.to_string().into())),
            DeValue::Boolean(_) | DeValue::Integer(_) => {
                reader.value(node, "a payload's value").map(Self::Plain)
            }
            DeValue::Float(_) => {
                let number = reader.value(node, "a payload's number").map(Number::from_f64)?;
                let number = number.or_else(|| {
                    reader.expected(node, "a payload's number", "one that JSON can hold")
                });
                number.map(|number| Self::Plain(number.into()))
            }
            DeValue::Array(items) => {
                let items = items.iter().map(|item| Self::read(reader, item, lists));
                items.collect::<Option<_>>().map(Self::List)
            }
            DeValue::Table(table) => {
                let fields = table.iter().map(|(key, value)| {
                    Some((key.get_ref().to_string(), Self::read(reader, value, lists)?))
                });
                fields.collect::<Option<_>>().map(Self::Object)
            }
        }
    }

    pub fn filled(&self, cast: &Cast<'_>, dice: &mut Dice) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Template(text) => text.spoken(cast, dice).into(),
            Self::List(items) => items.iter().map(|item| item.filled(cast, dice)).collect(),
            Self::Object(fields) => {
                let fields =
                    fields.iter().map(|(name, value)| (name.clone(), value.filled(cast, dice)));
                Value::Object(fields.collect())
            }
        }
    }
}
