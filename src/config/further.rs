//! Further receivers: which of them the environment and the settings file name.
//!
//! A variable `RECEIVER_CRM_…` or a table `[receivers.crm]` makes one named `crm`. Whether all that it needs is set is
//! for [`super::receiver`] to say.

use std::collections::{BTreeMap, BTreeSet};

use figment::value::{Dict, Value};

use super::error::SettingError;
use super::names::{FURTHER, OF_RECEIVER, file_variable, is_secret, of_receiver, variables};
use super::value::{is_set, of_toml};
use crate::receiver::{MOST_RECEIVERS, ReceiverName};
use crate::text::nearest;

/// In TOML.
const TABLE: &str = "receivers";

/// How a name is written.
#[derive(Clone, Copy)]
enum Case {
    /// In variables.
    Upper,
    /// In TOML.
    Lower,
}

/// The receivers that variables name.
pub fn of_environment(
    environment: &BTreeMap<String, String>,
    errors: &mut Vec<SettingError>,
) -> BTreeSet<ReceiverName> {
    let set = environment.iter().filter(|(_, value)| is_set(value)).map(|(name, _)| name);
    let mut names = BTreeSet::new();
    for variable in set {
        let Some(text) = name_in(variable) else { continue };
        match read_name(text, Case::Upper) {
            Ok(name) => drop(names.insert(name)),
            Err(fault) => errors.push(format!("{variable}: {fault}").into()),
        }
    }
    names
}

/// What stands for NAME in `RECEIVER_NAME_URL` and the like.
pub fn name_in(variable: &str) -> Option<&str> {
    let rest = variable.strip_prefix(FURTHER)?;
    let before = |suffix: &str| rest.strip_suffix(suffix)?.strip_suffix('_');
    OF_RECEIVER.iter().find_map(|suffix| {
        let may_be_file = is_secret(&ReceiverName::main().variable(suffix));
        let file = || before(&file_variable(suffix)).filter(|_| may_be_file);
        before(suffix).or_else(file)
    })
}

fn read_name(text: &str, case: Case) -> Result<ReceiverName, String> {
    let (right, word) = match case {
        Case::Upper => (text.to_ascii_uppercase(), "upper"),
        Case::Lower => (text.to_ascii_lowercase(), "lower"),
    };
    match text.parse::<ReceiverName>() {
        Err(bad) => Err(format!("{text:?} cannot be a receiver: {bad}")),
        Ok(name) if name == ReceiverName::main() => {
            Err("the main receiver is set by WEBHOOK_URL and what belongs to it".to_owned())
        }
        Ok(_) if right != text => Err(format!("expected the name in {word} case, as {right}")),
        Ok(name) => Ok(name),
    }
}

/// Whether a key of a settings file is about further receivers.
pub fn is_about(key: &str) -> bool {
    key == TABLE || key.to_uppercase().starts_with(FURTHER)
}

/// Takes the table of receivers out of a settings file, and puts each value there as if it were a variable. Returns
/// the receivers that it names.
pub fn of_file(
    path: &str,
    values: &mut Dict,
    errors: &mut Vec<SettingError>,
) -> BTreeSet<ReceiverName> {
    let table = values.remove(TABLE);
    values.retain(|key, _| {
        let is_about = is_about(key);
        if is_about {
            errors.push(
                format!("{key} in {path}: expected a table [{TABLE}.NAME] with url, …").into(),
            );
        }
        !is_about
    });
    let tables = match table {
        Some(Value::Dict(_, tables)) => tables,
        None => return BTreeSet::new(),
        Some(_) => {
            errors.push(format!("{TABLE} in {path}: expected tables [{TABLE}.NAME]").into());
            return BTreeSet::new();
        }
    };
    let mut names = BTreeSet::new();
    for (text, table) in tables {
        let place = format!("[{TABLE}.{text}] in {path}");
        match (read_name(&text, Case::Lower), table) {
            (Ok(name), Value::Dict(_, table)) => {
                take(&name, table, &place, values, errors);
                names.insert(name);
            }
            (Ok(_), _) => errors.push(format!("{place}: expected a table").into()),
            (Err(fault), _) => errors.push(format!("{place}: {fault}").into()),
        }
    }
    names
}

fn take(
    name: &ReceiverName,
    table: Dict,
    place: &str,
    values: &mut Dict,
    errors: &mut Vec<SettingError>,
) {
    let known = variables(&of_receiver(name));
    // With an underscore at its end.
    let prefix = name.variable("");
    let keys: Vec<String> = known.iter().map(|name| name[prefix.len()..].to_lowercase()).collect();
    for (key, value) in table {
        if !keys.contains(&key) {
            let nearest = nearest(&key, &keys).unwrap_or_default();
            let fault = format!("{key} in {place}: no such setting; did you mean {nearest}?");
            errors.push(fault.into());
            continue;
        }
        let variable = format!("{prefix}{}", key.to_uppercase());
        match of_toml(&variable, value) {
            Some(Value::Dict(..)) => {
                errors.push(format!("{key} in {place}: expected a value, found a table").into());
            }
            Some(value) => drop(values.insert(variable.to_lowercase(), value)),
            None => {}
        }
    }
}

/// Says it if there are too many.
pub fn count(names: &BTreeSet<ReceiverName>, errors: &mut Vec<SettingError>) {
    let most = MOST_RECEIVERS - 1;
    if names.len() > most {
        let listed: Vec<&str> = names.iter().map(ReceiverName::as_str).collect();
        errors.push(
            format!(
                "{FURTHER}… and [{TABLE}.…] name {} receivers ({}): expected at most {most} beside the main one",
                names.len(),
                listed.join(", ")
            )
            .into(),
        );
    }
}
