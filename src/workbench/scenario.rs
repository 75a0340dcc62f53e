//! Scenarios: phone calls as files, for [`super::simulate`] to play.
//!
//! A file is TOML. Times are milliseconds, fixed or by chance ([`time`]); texts have variables
//! ([`text`]). `config/scenarios/booking.toml` explains every key.
//!
//! ```toml
//! [lists]
//! guest = ["Ada", "Bo"]
//!
//! [[script]]
//! name = "books"
//! weight = 3                                              # three times as often as weight 1
//! steps = [
//!     { initiated = { from = "{{caller}}", to = "5001" } },
//!     { after = { uniform = [300, 900] }, started = {} },
//!     { agent = "Good evening!" },                        # transcription, then the time to say it
//!     { barge_in = 400 },                                 # so long after the agent began
//!     { user = "A table for {{guest}}." },                # the time to say it, then transcription
//!     { dtmf = "12#", every = 250 },
//!     { pause = 2000 },
//!     { event = "error", payload = { message = "…" } },   # any type; json = '…' takes it as it is
//!     { repeat = 3, steps = [{ agent = "Still there?" }] },
//!     { hang_up = ["hangup", "sts_closed"] },             # or lost = true, or abandoned = true
//! ]
//! ```
//!
//! Invariants:
//! - A [`Scenario`] can be played: every variable exists, every script ends, every limit is kept.
//! - All mistakes of a file are told at once, each with its line and column.
//!
//! Limits: [`MAX_FILE`], [`MAX_SCRIPTS`], [`script::MAX_STEPS`], [`script::MAX_EVENTS`],
//! [`script::MAX_TIMES`], [`text::MAX_TEXT`], [`text::MAX_LISTS`], [`text::MAX_ENTRIES`],
//! [`text::MAX_NAME`], [`time::MAX_TIME`].

pub mod plan;
pub mod read;
pub mod record;
pub mod script;
pub mod stage;
pub mod text;
pub mod time;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use toml::de::DeTable;

pub use self::plan::{Plan, Planned, plan};
pub use self::read::Mistake;
use self::read::Reader;
use self::script::Script;
use self::text::{Lists, MAX_TEXT};
use crate::text::nearest;

/// The largest file, in bytes: a recording of thousands of calls.
pub const MAX_FILE: usize = 16 * 1024 * 1024;

/// The most scripts of a file.
pub const MAX_SCRIPTS: usize = 10_000;

/// The scenarios that come with callhook, by name.
pub const SHIPPED: [(&str, &str); 6] = [
    ("booking", include_str!("../../config/scenarios/booking.toml")),
    ("ivr", include_str!("../../config/scenarios/ivr.toml")),
    ("impatient", include_str!("../../config/scenarios/impatient.toml")),
    ("abandoned", include_str!("../../config/scenarios/abandoned.toml")),
    ("long", include_str!("../../config/scenarios/long.toml")),
    ("lost", include_str!("../../config/scenarios/lost.toml")),
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
    /// What its texts can name.
    pub lists: Lists,
    /// At least one, with weights that come to more than 0.
    pub scripts: Vec<Script>,
}

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(
        "--scenario {name}: {cause} (these come with callhook: {shipped}; did you mean {nearest}?)"
    )]
    Unreadable {
        /// As it was asked for.
        name: String,
        /// The system's word.
        cause: io::Error,
        /// The names that are known.
        shipped: String,
        /// The nearest of them.
        nearest: String,
    },
    /// The file is larger than [`MAX_FILE`].
    #[error("--scenario {0}: the file is over {MAX_FILE} bytes long")]
    TooLarge(String),
    /// The file is wrong at these places.
    #[error("{}", lines(.0))]
    Wrong(Vec<Mistake>),
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
        match String::from_utf8(source) {
            Ok(source) => Self::parse(name, &source).map_err(LoadError::Wrong),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
                let mut reader = Reader::new(name, &before);
                reader.fault(valid..valid, "the file is no UTF-8 from here on");
                Err(LoadError::Wrong(reader.into_mistakes()))
            }
        }
    }

    /// Reads a scenario; `name` stands for it in mistakes and summaries.
    ///
    /// # Errors
    /// Every mistake that was found, up to [`read::MAX_MISTAKES`].
    pub fn parse(name: &str, source: &str) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader::new(name, source);
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

    fn read(reader: &mut Reader<'_>, name: &str, table: &DeTable<'_>) -> Option<Self> {
        reader.keys(table, "a scenario", &KEYS);
        let description = table.get("description");
        let description = description.and_then(|node| reader.text(node, "description", MAX_TEXT));
        let seed = table.get("seed").and_then(|node| reader.whole(node, "seed", 0..=u64::MAX));
        let details = table.get("call_ended_details");
        let details = details.and_then(|node| reader.switch(node, "call_ended_details"));
        let lists = table.get("lists").map(|node| Lists::read(reader, node)).unwrap_or_default();
        let Some(node) = table.get("script") else {
            reader.fault(0..0, "a scenario needs at least one [[script]]");
            return None;
        };
        let nodes = reader.list(node, "script")?;
        if nodes.len() > MAX_SCRIPTS {
            let text = format!("{} scripts; at most {MAX_SCRIPTS} are taken", nodes.len());
            reader.fault(node.span(), text);
            return None;
        }
        let scripts: Vec<Option<Script>> =
            nodes.iter().map(|node| Script::read(reader, node, &lists)).collect();
        let scripts: Vec<Script> = scripts.into_iter().collect::<Option<_>>()?;
        if scripts.iter().all(|script| script.weight == 0) {
            reader.fault(node.span(), "no script has a weight above 0, so none would be played");
        }
        Some(Self {
            name: name.to_owned(),
            description: description.unwrap_or_default().to_owned(),
            seed,
            call_ended_details: details.unwrap_or_default(),
            lists,
            scripts: named(scripts),
        })
    }
}

/// A script without a name is called by its place.
fn named(mut scripts: Vec<Script>) -> Vec<Script> {
    for (index, script) in scripts.iter_mut().enumerate() {
        if script.name.is_empty() {
            script.name = format!("script {}", index + 1);
        }
    }
    scripts
}

fn read_file(name: &str) -> Result<Vec<u8>, LoadError> {
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    let mut source = Vec::new();
    let read = File::open(Path::new(name))
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut source));
    match read {
        Ok(_) if source.len() > MAX_FILE => Err(LoadError::TooLarge(name.to_owned())),
        Ok(_) => Ok(source),
        Err(cause) => {
            let names = SHIPPED.map(|(name, _)| name);
            let nearest = nearest(name, &names).unwrap_or_default().to_owned();
            Err(LoadError::Unreadable {
                name: name.to_owned(),
                cause,
                shipped: names.join(", "),
                nearest,
            })
        }
    }
}
