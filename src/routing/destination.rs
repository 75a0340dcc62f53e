//! Destination: where in a dialplan a caller may be sent.
//!
//! Owns what a destination may be called, and the lists of those that are allowed. What an agent asks for it asks
//! for because of what a caller said, so all that is not listed is refused, and so is each name that Asterisk could
//! take for more than a name.
//!
//! Invariants:
//! - A [`Destination`] has names of `[A-Za-z0-9_+*#-]{1,80}`, and priority 1: nothing in it is expanded, split or
//!   matched as a pattern.
//! - Its extension is none of those of one letter, by which Asterisk itself goes on (`h`, `i`, `t` and the like), nor
//!   one that Asterisk takes for such a one: it skips the dashes of an extension.
//! - Empty [`Destinations`] admit nothing.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use serde_json::value::RawValue;

use crate::event::{JsonString, fields};

/// As long as Asterisk's own names may be: its `AST_MAX_EXTENSION` and `AST_MAX_CONTEXT` are 80.
pub const MAX_NAME: usize = 80;

/// The only one there is: a caller who lands in the middle of an extension skips its checks.
pub const PRIORITY: u32 = 1;

/// The most destinations that are named to whoever asked for another.
const MOST_NAMED: usize = 20;

/// An extension of a dialplan, in its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    context: Box<str>,
    exten: Box<str>,
}

impl Destination {
    /// # Errors
    /// [`BadDestination`].
    pub fn new(context: &str, exten: &str) -> Result<Self, BadDestination> {
        if !is_name(context) {
            return Err(BadDestination::Context);
        }
        if !is_name(exten) {
            return Err(BadDestination::Extension);
        }
        if is_special(exten) {
            return Err(BadDestination::Special);
        }
        Ok(Self { context: context.into(), exten: exten.into() })
    }

    pub fn context(&self) -> &str {
        &self.context
    }

    pub fn exten(&self) -> &str {
        &self.exten
    }
}

/// As the answer of `POST /call` has it.
impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Destination", 3)?;
        fields.serialize_field("context", &self.context)?;
        fields.serialize_field("exten", &self.exten)?;
        fields.serialize_field("priority", &PRIORITY)?;
        fields.end()
    }
}

/// As `Goto()` takes it.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{PRIORITY}", self.context, self.exten)
    }
}

/// Why there is no such destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDestination {
    #[error("a context has 1 to {MAX_NAME} characters of A-Z a-z 0-9 _ + * # -")]
    Context,
    #[error("an extension has 1 to {MAX_NAME} characters of A-Z a-z 0-9 _ + * # -")]
    Extension,
    #[error("an extension of one letter is Asterisk's own")]
    Special,
    #[error("priority {0:?}: expected {PRIORITY}, or none")]
    Priority(String),
}

/// Where an agent or a receiver wants to send a caller; it may be anything.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    pub context: Cow<'a, str>,
    pub exten: Cow<'a, str>,
    pub priority: Cow<'a, str>,
}

impl<'a> Wish<'a> {
    /// From an object in JSON that is strict already; `usual_context` is for those that name none.
    ///
    /// # Errors
    /// Names the field.
    pub fn read(json: &'a str, usual_context: Option<&'a str>) -> Result<Self, String> {
        let (mut context, mut exten, mut priority) = (None, None, None);
        for (name, value) in fields(json).map_err(|error| error.to_string())? {
            let (field, place) = match &*name.0 {
                b"context" => ("context", &mut context),
                b"exten" => ("exten", &mut exten),
                b"priority" => ("priority", &mut priority),
                _ => continue,
            };
            let Some(name) = written_name(field, value)? else { continue };
            if place.replace(name).is_some() {
                return Err(format!("{field}: given twice"));
            }
        }
        Ok(Self {
            context: context
                .or(usual_context.map(Cow::Borrowed))
                .ok_or("context: missing; expected the dialplan's context, such as people")?,
            exten: exten.ok_or("exten: missing; expected the extension to send the caller to")?,
            priority: priority.unwrap_or_else(|| PRIORITY.to_string().into()),
        })
    }

    /// # Errors
    /// [`BadDestination`].
    pub fn destination(&self) -> Result<Destination, BadDestination> {
        match self.priority == PRIORITY.to_string() {
            true => Destination::new(&self.context, &self.exten),
            false => Err(BadDestination::Priority(self.priority.to_string())),
        }
    }
}

/// A name, which people and models also write as a number; `None` for `null`.
fn written_name<'a>(field: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, String> {
    let json = value.get();
    match json.as_bytes() {
        b"null" => Ok(None),
        [b'"', ..] => match JsonString::from_strict(json) {
            Some(text) => Ok(Some(text.into_text())),
            None => Err(format!("{field}: expected a string")),
        },
        digits if digits.iter().all(u8::is_ascii_digit) => Ok(Some(json.into())),
        _ => Err(format!("{field}: expected a string")),
    }
}

/// `TRANSFER_TO`, or `ROUTE_TO`: where callers may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations(Vec<DestinationRule>);

impl Destinations {
    pub fn new(rules: Vec<DestinationRule>) -> Self {
        Self(rules)
    }

    pub fn admits(&self, destination: &Destination) -> bool {
        self.0.iter().any(|rule| rule.admits(destination))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rules(&self) -> &[DestinationRule] {
        &self.0
    }
}

/// In words, for people and models.
impl fmt::Display for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let useful: Vec<&DestinationRule> = self.0.iter().filter(|rule| !rule.is_void()).collect();
        for (nth, DestinationRule { context, exten }) in useful.iter().take(MOST_NAMED).enumerate()
        {
            let separator = if nth > 0 { ", " } else { "" };
            match exten {
                Some(exten) => write!(f, "{separator}extension {exten} in context {context}")?,
                None => write!(f, "{separator}any extension in context {context}")?,
            }
        }
        match useful.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// `context/exten`, or `context/*` for any extension there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    context: Box<str>,
    /// `None` = any.
    exten: Option<Box<str>>,
}

impl DestinationRule {
    /// Whether it admits any extension of its context.
    pub fn is_open(&self) -> bool {
        self.exten.is_none()
    }

    /// Whether it admits nothing, since its extension is Asterisk's own.
    pub fn is_void(&self) -> bool {
        self.exten.as_deref().is_some_and(is_special)
    }

    fn admits(&self, destination: &Destination) -> bool {
        self.context == destination.context
            && self.exten.as_ref().is_none_or(|exten| *exten == destination.exten)
    }
}

/// As it is set.
impl fmt::Display for DestinationRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.context, self.exten.as_deref().unwrap_or(ANY))
    }
}

const ANY: &str = "*";

impl FromStr for DestinationRule {
    type Err = BadDestinationRule;

    fn from_str(text: &str) -> Result<Self, BadDestinationRule> {
        let (context, exten) = text.split_once('/').ok_or(BadDestinationRule)?;
        // Whoever writes `*/100` means any context, which there is not.
        if !is_name(context) || context == ANY || !is_name(exten) {
            return Err(BadDestinationRule);
        }
        let exten = (exten != ANY).then(|| exten.into());
        Ok(Self { context: context.into(), exten })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected context/exten such as people/100, or context/* for any extension there, of A-Z a-z 0-9 _ + * # - each"
)]
pub struct BadDestinationRule;

fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+*#-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether Asterisk goes to this extension by itself, or takes it for none at all.
fn is_special(exten: &str) -> bool {
    let mut seen = exten.bytes().filter(|byte| *byte != b'-');
    match (seen.next(), seen.next()) {
        (None, _) => true,
        (Some(only), None) => only.is_ascii_alphabetic(),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wish_is_read_as_models_write_it() {
        let wish = |context: &'static str, exten: &'static str, priority: &'static str| Wish {
            context: context.into(),
            exten: exten.into(),
            priority: priority.into(),
        };
        for (json, expected) in [
            (r#"{"uuid":"x","exten":"100"}"#, wish("demo", "100", "1")),
            (r#"{"exten":100,"context":"people","priority":1}"#, wish("people", "100", "1")),
            (r#"{"exten":"\u0031","context":null,"priority":"2"}"#, wish("demo", "1", "2")),
            (r#"{"exten":"","context":""}"#, wish("", "", "1")),
        ] {
            assert_eq!(Wish::read(json, Some("demo")).unwrap(), expected, "{json}");
        }
        for json in
            ["{}", r#"{"exten":null}"#, r#"{"exten":["1"]}"#, r#"{"exten":1.5}"#, r#"{"exten":-1}"#]
        {
            assert!(Wish::read(json, Some("demo")).unwrap_err().starts_with("exten: "), "{json}");
        }
        let twice = Wish::read(r#"{"exten":"1","exten":"2"}"#, Some("demo"));
        assert_eq!(twice.unwrap_err(), "exten: given twice");
        let nowhere = Wish::read(r#"{"exten":"1"}"#, None).unwrap_err();
        assert!(nowhere.starts_with("context: missing"), "{nowhere}");
    }

    fn list(text: &str) -> Destinations {
        Destinations::new(text.split(',').map(|rule| rule.parse().unwrap()).collect())
    }

    #[test]
    fn what_is_listed_is_admitted_and_nothing_else() {
        let listed = list("people/100,people/200,queues/*,ivr/*97,people/h");
        for (context, exten, expected) in [
            ("people", "100", true),
            ("people", "200", true),
            ("people", "300", false),
            ("queues", "anything-1", true),
            ("queues", "1", true),
            ("ivr", "*97", true),
            ("ivr", "97", false),
            ("People", "100", false),
            ("demo", "100", false),
        ] {
            let destination = Destination::new(context, exten).unwrap();
            assert_eq!(listed.admits(&destination), expected, "{destination}");
            assert!(!Destinations::default().admits(&destination));
        }
    }

    #[test]
    fn a_hostile_name_is_no_destination() {
        for exten in [
            "",
            "h",
            "i",
            "t",
            "s",
            "T",
            "h-",
            "-h",
            "--h--",
            "-",
            "---",
            "1,1",
            "100,2",
            "1\n2",
            "1 2",
            "1&2",
            "${SHELL(id)}",
            "$[1+1]",
            "1)",
            "1|2",
            "1/2",
            "1@people",
            "_X.",
            "100!",
            "é",
            "１００",
            "1\0",
            "\u{202e}1",
            "%31",
            "1;2",
            "\"1\"",
            "'1'",
            "..",
            "1=2",
        ] {
            assert!(Destination::new("people", exten).is_err(), "{exten:?}");
        }
        for context in ["", "a b", "a,b", "a/b", "${X}", "people\n", "[people]", "people;", "é"] {
            assert_eq!(
                Destination::new(context, "100"),
                Err(BadDestination::Context),
                "{context:?}"
            );
        }
        let long = "1".repeat(MAX_NAME);
        assert!(Destination::new(&long, &long).is_ok());
        assert!(Destination::new("people", &format!("{long}1")).is_err());
        assert!(Destination::new(&format!("{long}1"), "100").is_err());
    }

    #[test]
    fn a_list_is_read_and_shown_as_it_is_set() {
        for text in ["people/100", "people/*", "people/h", "a/#1", "x-y_z/+4930"] {
            assert_eq!(text.parse::<DestinationRule>().unwrap().to_string(), text);
        }
        for text in
            ["people", "people/", "/100", "*/100", "people/1/2", "people/1 2", "people/_X.", ""]
        {
            assert_eq!(text.parse::<DestinationRule>(), Err(BadDestinationRule), "{text:?}");
        }
        let listed = list("people/100,people/h,queues/*");
        assert_eq!(
            listed.to_string(),
            "extension 100 in context people, any extension in context queues"
        );
        let [_, void, open] = listed.rules() else { panic!("three rules") };
        assert!(void.is_void() && !void.is_open() && open.is_open() && !open.is_void());
        let many = Destinations::new((10..40).map(|n| format!("p/{n}").parse().unwrap()).collect());
        assert!(many.to_string().ends_with("extension 29 in context p and 10 more"), "{many}");
    }

    proptest! {
        #[test]
        fn nothing_outside_the_lists_ever_passes(context in ".{0,6}|people|queues", exten in ".{0,6}|[0-9h-]{0,4}") {
            let listed = list("people/100,people/h,queues/*");
            let Ok(destination) = Destination::new(&context, &exten) else { return Ok(()) };
            let shown = destination.to_string();
            let parts: Vec<&str> = shown.split(',').collect();
            prop_assert_eq!(&parts, &[context.as_str(), exten.as_str(), "1"]);
            let is_plain = shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+*#-,".contains(&byte));
            prop_assert!(is_plain, "{}", shown);
            let expected = (context == "people" && exten == "100") || context == "queues";
            prop_assert_eq!(listed.admits(&destination), expected);
            let seen = exten.replace('-', "");
            let is_letter = seen.len() == 1 && seen.as_bytes()[0].is_ascii_alphabetic();
            prop_assert!(!seen.is_empty() && !is_letter, "{}", exten);
        }
    }
}
