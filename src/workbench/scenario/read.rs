//! Read: from TOML to values, with the place of everything that is wrong.
//!
//! Owns the kinds of values, the unknown keys and the places. What the keys mean is
//! [`super::script`]'s. Goes on after a mistake, so that a file's writer learns of all at once.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::text::{nearest, printable};

/// A value and where it stands.
pub type Node<'t> = Spanned<DeValue<'t>>;

/// The most mistakes that are told of one file; the first ones explain the others.
pub const MAX_MISTAKES: usize = 20;

/// What is wrong at one place of a scenario file. Lines and columns count from 1, columns in
/// characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// What is wrong, and what is expected.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
    }
}

/// Reads the values of one file and remembers what is wrong.
pub struct Reader<'s> {
    file: &'s str,
    source: &'s str,
    mistakes: Vec<Mistake>,
}

impl<'s> Reader<'s> {
    /// A reader of this text.
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

    /// As [`Reader::fault`], at the first place within the range where `part` stands as it is.
    pub fn fault_within(&mut self, range: Range<usize>, part: &str, text: impl Into<String>) {
        let found = self.source.get(range.clone()).and_then(|source| source.find(part));
        let start = range.start + found.unwrap_or_default();
        self.fault(start..range.end, text);
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

    /// Whether a table has known keys alone; tells the others, each with the name that is nearest.
    pub fn keys(&mut self, table: &DeTable<'_>, what: &str, known: &[&str]) -> bool {
        let before = self.mistakes.len();
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let nearest = nearest(name, known).unwrap_or_default();
                let listed = known.join(", ");
                let name = printable(name);
                let text = format!(
                    "{what} has no `{name}`; did you mean `{nearest}`? (it may have {listed})"
                );
                self.fault(key.span(), text);
            }
        }
        self.mistakes.len() == before
    }

    /// A table.
    pub fn table<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n DeTable<'t>> {
        let table = node.get_ref().as_table();
        if table.is_none() {
            self.expected(node, what, "a table");
        }
        table
    }

    /// A list of values.
    pub fn list<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n [Node<'t>]> {
        let list = node.get_ref().as_array();
        if list.is_none() {
            self.expected(node, what, "a list");
        }
        list.map(|list| &**list)
    }

    /// A text of at most so many bytes.
    pub fn text<'n>(&mut self, node: &'n Node<'_>, what: &str, most: usize) -> Option<&'n str> {
        let Some(text) = node.get_ref().as_str() else {
            self.expected(node, what, "a text in quotes");
            return None;
        };
        if text.len() > most {
            let length = text.len();
            self.fault(
                node.span(),
                format!("{what} is {length} bytes long; at most {most} are taken"),
            );
            return None;
        }
        Some(text)
    }

    /// A text of 1 to so many bytes.
    pub fn name<'n>(&mut self, node: &'n Node<'_>, what: &str, most: usize) -> Option<&'n str> {
        let text = self.text(node, what, most)?;
        if text.is_empty() {
            self.fault(node.span(), format!("{what} is empty"));
            return None;
        }
        Some(text)
    }

    /// A whole number within the range.
    pub fn whole(
        &mut self,
        node: &Node<'_>,
        what: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let given = node.get_ref().as_integer();
        let number =
            given.and_then(|given| u64::from_str_radix(given.as_str(), given.radix()).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            self.expected(node, what, &format!("a whole number from {least} to {most}"));
        }
        number
    }

    /// `true` or `false`.
    pub fn switch(&mut self, node: &Node<'_>, what: &str) -> Option<bool> {
        let given = node.get_ref().as_bool();
        if given.is_none() {
            self.expected(node, what, "true or false");
        }
        given
    }

    /// Remembers that something else is expected here, and what was found.
    pub fn expected(&mut self, node: &Node<'_>, what: &str, expected: &str) {
        let found = match node.get_ref() {
            DeValue::Integer(number) => format!("{number}"),
            DeValue::Float(number) => format!("{number}"),
            DeValue::Boolean(switch) => format!("{switch}"),
            DeValue::String(_) => "a text".to_owned(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.fault(node.span(), format!("{what}: expected {expected}, found {found}"));
    }
}
