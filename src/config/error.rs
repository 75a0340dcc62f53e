//! Errors in the settings.

use std::fmt::Display;

use figment::value::Value;

use crate::text::nearest;

/// What is wrong with one setting, for whoever has to correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(String);

impl From<String> for SettingError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl SettingError {
    /// `shown` must hold no secret.
    pub fn new(name: &str, shown: &str, source: &str, accepted: impl Display) -> Self {
        let shown = shown.replace(char::is_control, "\u{fffd}");
        Self(format!("{name}={shown} ({source}): {accepted}"))
    }

    pub fn missing(name: &str, accepted: &str) -> Self {
        Self(format!("{name} is not set: {accepted}"))
    }

    pub fn about_file(path: &str, cause: impl Display) -> Self {
        Self(format!("CALLHOOK_CONFIG={path}: expected a readable TOML file: {cause}"))
    }

    /// The error of a key that names no setting, or holds a table.
    pub fn of_file_key(path: &str, key: &str, value: &Value, names: &[String]) -> Option<Self> {
        let known = names.iter().any(|name| name.to_lowercase() == key);
        match (known, value) {
            (true, Value::Dict(..)) => {
                Some(Self(format!("{key} in {path}: expected a value, found a table")))
            }
            (true, _) => None,
            (false, _) => {
                let nearest =
                    nearest(&key.to_uppercase(), names).unwrap_or_default().to_lowercase();
                Some(Self(format!(
                    "{key} in {path}: no such setting; did you mean {nearest}? (keys are the variables in lower case)"
                )))
            }
        }
    }
}
