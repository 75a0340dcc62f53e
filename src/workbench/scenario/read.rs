//! Read: from TOML to values, with the place of everything that is wrong.
//!
//! Tables and lists are walked here, so that all mistakes in a file are reported at once: serde would
//! stop at the first. Each value in them is read by serde, whose errors carry the place within the
//! value. What the keys mean is [`super::script`]'s.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, Unexpected, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::text::{nearest, printable};

/// A value with its place.
pub type Node<'t> = Spanned<DeValue<'t>>;

/// The most mistakes that are reported of one file; the first ones explain the others.
pub const MAX_MISTAKES: usize = 20;

/// The most of a value that is shown, in characters.
const EXCERPT: usize = 40;

/// What is wrong, and what is expected, at one place of a scenario file. Lines and columns count
/// from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
    }
}

/// Reads the values of one file and remembers what is wrong.
pub struct ScenarioReader<'s> {
    file: &'s str,
    source: &'s str,
    mistakes: Vec<Mistake>,
}

impl<'s> ScenarioReader<'s> {
    pub fn new(file: &'s str, source: &'s str) -> Self {
        Self { file, source, mistakes: Vec::new() }
    }

    /// Remembers what is wrong at the start of this range of bytes.
    pub fn fault(&mut self, at: Range<usize>, text: impl Into<String>) {
        if self.mistakes.len() >= MAX_MISTAKES {
            return;
        }
        let before = self.source.get(..at.start).unwrap_or(self.source);
        let line = before.rsplit('\n').next().unwrap_or_default();
        self.mistakes.push(Mistake {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            text: text.into(),
        });
    }

    /// As [`ScenarioReader::fault`], in place of the value that is wrong.
    pub fn wrong<T>(&mut self, node: &Node<'_>, text: impl Into<String>) -> Option<T> {
        self.fault(node.span(), text);
        None
    }

    /// As [`ScenarioReader::wrong`], at the first occurrence of `part` in the value.
    pub fn wrong_part<T>(&mut self, node: &Node<'_>, part: &str, text: &str) -> Option<T> {
        let range = node.span();
        let found = self.source.get(range.clone()).and_then(|source| source.find(part));
        let start = range.start + found.unwrap_or_default();
        self.fault(start..range.end, text);
        None
    }

    /// As [`ScenarioReader::wrong`], with what is written there.
    pub fn expected<T>(&mut self, node: &Node<'_>, what: &str, expected: &str) -> Option<T> {
        let source = self.source.get(node.span()).unwrap_or_default();
        let found: String = source.chars().take(EXCERPT).collect();
        self.wrong(node, format!("{what}: expected {expected}, found {}", printable(&found)))
    }

    /// How much was wrong so far.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// What was wrong, in the file's order.
    pub fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.mistakes
    }

    /// Whether a table has known keys alone.
    pub fn keys(&mut self, table: &DeTable<'_>, what: &str, known: &[&str]) -> bool {
        let before = self.mistakes.len();
        for (key, _) in table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let nearest = nearest(key.get_ref(), known).unwrap_or_default();
            let (name, listed) = (printable(key.get_ref()), known.join(", "));
            self.fault(
                key.span(),
                format!("{what} has no `{name}`; did you mean `{nearest}`? (it may have {listed})"),
            );
        }
        self.mistakes.len() == before
    }

    pub fn table<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n DeTable<'t>> {
        node.get_ref().as_table().or_else(|| self.expected(node, what, "a table"))
    }

    pub fn list<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n [Node<'t>]> {
        let list = node.get_ref().as_array().map(|list| &**list);
        list.or_else(|| self.expected(node, what, "a list"))
    }

    /// A value of the kind that serde reads into a `T`.
    pub fn value<T: DeserializeOwned>(&mut self, node: &Node<'_>, what: &str) -> Option<T> {
        let read = T::deserialize(ValueDeserializer::from(node.clone()));
        read.map_err(|error| {
            let place = error.span().unwrap_or_else(|| node.span());
            self.fault(place, format!("{what}: {}", printable(&suggesting(error.message()))));
        })
        .ok()
    }

    /// The value of a key that a table need not have; the outer `None` where it is wrong.
    pub fn field<'t, T>(
        &mut self,
        table: &DeTable<'t>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node<'t>, &str) -> Option<T>,
    ) -> Option<Option<T>> {
        table.get(key).map_or(Some(None), |node| read(self, node, key).map(Some))
    }

    /// A text of at most `most` bytes.
    pub fn text(&mut self, node: &Node<'_>, what: &str, most: usize) -> Option<String> {
        let text: String = self.value(node, what)?;
        let length = text.len();
        if length > most {
            return self
                .wrong(node, format!("{what} is {length} bytes long; at most {most} are taken"));
        }
        Some(text)
    }
}

/// serde's word, with the name that is nearest to an unknown one: all names are in backticks.
fn suggesting(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((unknown, known)) if message.starts_with("unknown") => {
            let nearest = nearest(unknown, known).unwrap_or_default();
            format!("{message}; did you mean `{nearest}`?")
        }
        Some(_) | None => message.to_owned(),
    }
}

/// A whole number from 0 to `MOST`.
#[derive(Clone, Copy, Debug)]
pub struct UpTo<const MOST: u64>(pub u64);

impl<'de, const MOST: u64> Deserialize<'de> for UpTo<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(UpToVisitor)
    }
}

struct UpToVisitor<const MOST: u64>;

impl<const MOST: u64> Visitor<'_> for UpToVisitor<MOST> {
    type Value = UpTo<MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MOST}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        if number > MOST {
            return Err(E::invalid_value(Unexpected::Unsigned(number), &self));
        }
        Ok(UpTo(number))
    }
}
