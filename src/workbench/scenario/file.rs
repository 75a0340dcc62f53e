//! File: a scenario out of a file, or out of those that come with callhook.

use std::fs::File;
use std::io::{self, Read as _};

use toml::de::DeTable;

use super::read::{Mistake, ScenarioReader, UpTo};
use super::script::Script;
use super::text::{Lists, MAX_TEXT};
use crate::text::nearest;

/// The largest file, in bytes: a recording of thousands of calls.
pub const MAX_FILE: usize = 16 * 1024 * 1024;

pub const MAX_SCRIPTS: usize = 10_000;

/// The scenarios that come with callhook, by name.
pub const SHIPPED: [(&str, &str); 6] = [
    ("booking", include_str!("../../../config/scenarios/booking.toml")),
    ("ivr", include_str!("../../../config/scenarios/ivr.toml")),
    ("impatient", include_str!("../../../config/scenarios/impatient.toml")),
    ("abandoned", include_str!("../../../config/scenarios/abandoned.toml")),
    ("long", include_str!("../../../config/scenarios/long.toml")),
    ("lost", include_str!("../../../config/scenarios/lost.toml")),
];

const KEYS: [&str; 5] = ["description", "seed", "call_ended_details", "lists", "script"];

/// The calls that one file tells of.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file, or the name of a shipped one.
    pub name: String,
    /// What it tells, in a line.
    pub description: String,
    /// The seed that it is played with, unless another is asked for.
    pub seed: Option<u64>,
    /// Whether `call_ended` says why and after how long, as with `CALL_ENDED_DETAILS`.
    pub call_ended_details: bool,
    pub lists: Lists,
    /// At least one, with weights that come to more than 0.
    pub scripts: Vec<Script>,
}

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("--scenario {name}: {cause} ({})", shipped(name))]
    Unreadable { name: String, cause: io::Error },
    #[error("--scenario {0}: the file is over {MAX_FILE} bytes long")]
    TooLarge(String),
    #[error("{}", lines(.0))]
    Wrong(Vec<Mistake>),
}

fn shipped(name: &str) -> String {
    let names = SHIPPED.map(|(name, _)| name);
    let nearest = nearest(name, &names).unwrap_or_default();
    format!("these come with callhook: {}; did you mean {nearest}?", names.join(", "))
}

fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Scenario {
    /// The scenario of this name among those that come with callhook, or else of this file.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn load(name: &str) -> Result<Self, LoadError> {
        if let Some((_, source)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(name, source).map_err(LoadError::Wrong);
        }
        let source = read_file(name)?;
        let parsed = str::from_utf8(&source).map_err(|error| {
            let before = String::from_utf8_lossy(&source[..error.valid_up_to()]);
            let mut reader = ScenarioReader::new(name, &before);
            reader.fault(before.len()..before.len(), "the file is not UTF-8 from here on");
            reader.into_mistakes()
        });
        parsed.and_then(|source| Self::parse(name, source)).map_err(LoadError::Wrong)
    }

    /// Reads a scenario, which is called `name` in mistakes and summaries.
    ///
    /// # Errors
    /// Every mistake that was found, up to [`super::read::MAX_MISTAKES`].
    pub fn parse(name: &str, source: &str) -> Result<Self, Vec<Mistake>> {
        let mut reader = ScenarioReader::new(name, source);
        if source.len() > MAX_FILE {
            reader.fault(0..0, format!("the file is over {MAX_FILE} bytes long"));
            return Err(reader.into_mistakes());
        }
        let (table, errors) = DeTable::parse_recoverable(source);
        for error in &errors {
            reader.fault(error.span().unwrap_or_default(), error.message());
        }
        if !errors.is_empty() {
            return Err(reader.into_mistakes());
        }
        let scenario = Self::read(&mut reader, name, table.get_ref());
        let mistakes = reader.into_mistakes();
        scenario.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }

    fn read(reader: &mut ScenarioReader<'_>, name: &str, table: &DeTable<'_>) -> Option<Self> {
        reader.keys(table, "a scenario", &KEYS);
        let text =
            |reader: &mut ScenarioReader<'_>, node: &_, what: &_| reader.text(node, what, MAX_TEXT);
        let description = reader.field(table, "description", text);
        let seed = reader.field(table, "seed", ScenarioReader::value::<UpTo<{ u64::MAX }>>);
        let details = reader.field(table, "call_ended_details", ScenarioReader::value::<bool>);
        let lists = table.get("lists").map(|node| Lists::read(reader, node)).unwrap_or_default();
        let Some(node) = table.get("script") else {
            reader.fault(0..0, "a scenario needs at least one [[script]]");
            return None;
        };
        let nodes = reader.list(node, "script")?;
        if nodes.len() > MAX_SCRIPTS {
            let text = format!("{} scripts; at most {MAX_SCRIPTS} are taken", nodes.len());
            return reader.wrong(node, text);
        }
        let scripts: Vec<Option<Script>> =
            nodes.iter().map(|node| Script::read(reader, node, &lists)).collect();
        let mut scripts: Vec<Script> = scripts.into_iter().collect::<Option<_>>()?;
        if scripts.iter().all(|script| script.weight == 0) {
            reader.fault(node.span(), "no script has a weight above 0, so none would be played");
        }
        for (number, script) in (1..).zip(&mut scripts) {
            if script.name.is_empty() {
                script.name = format!("script {number}");
            }
        }
        Some(Self {
            name: name.to_owned(),
            description: description?.unwrap_or_default(),
            seed: seed?.map(|UpTo(seed)| seed),
            call_ended_details: details?.unwrap_or_default(),
            lists,
            scripts,
        })
    }
}

fn read_file(name: &str) -> Result<Vec<u8>, LoadError> {
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    let mut source = Vec::new();
    let read = File::open(name)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut source));
    match read {
        Ok(_) if source.len() > MAX_FILE => Err(LoadError::TooLarge(name.to_owned())),
        Ok(_) => Ok(source),
        Err(cause) => Err(LoadError::Unreadable { name: name.to_owned(), cause }),
    }
}
