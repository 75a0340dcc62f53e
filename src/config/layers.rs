//! Layers: where a setting's value comes from.
//!
//! Lowest first: the compiled-in `config/default.toml`, the file that `CALLHOOK_CONFIG` names, the
//! environment. Every value is text here, whatever its type in TOML; what it means is for
//! [`super::reader`] to say. An empty value, `undefined` and `null` count as not set in every layer,
//! since avr-app passes those.

use std::collections::BTreeMap;
use std::path::Path;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::SettingError;

/// The settings document: every setting with its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

pub const FILE_VARIABLE: &str = "CALLHOOK_CONFIG";

pub const DEFAULT_LAYER: &str = "default";
const ENVIRONMENT_LAYER: &str = "environment";

/// All layers, merged; each value knows where it came from.
pub struct Layers {
    merged: Figment,
    names: Vec<String>,
}

impl Layers {
    pub fn read(environment: &BTreeMap<String, String>, errors: &mut Vec<SettingError>) -> Self {
        let defaults = Layer::parse(DEFAULT_LAYER, DEFAULTS)
            .expect("the compiled-in defaults are valid, as a test shows");
        // The document names every setting, also those that are not set by default.
        let names = names_in(DEFAULTS);
        let file = environment.get(FILE_VARIABLE).filter(|path| is_set(path));
        let file = file.map(|path| Layer::load(path, &names, errors));
        let environment = Layer::of_environment(environment, &names);
        let merged = Figment::from(defaults)
            .merge(file.unwrap_or_else(|| Layer::empty(FILE_VARIABLE)))
            .merge(environment);
        Self { merged, names }
    }

    /// In the order of the settings document.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// # Panics
    /// For a name that is missing in the settings document.
    pub fn text(&self, name: &str) -> Option<String> {
        assert!(
            self.names.iter().any(|known| known == name),
            "{name} is missing in config/default.toml"
        );
        self.merged.find_value(&name.to_lowercase()).ok().map(|value| as_text(&value))
    }

    /// The name of the layer that the value comes from.
    pub fn source(&self, name: &str) -> String {
        let metadata = self.merged.find_metadata(&name.to_lowercase());
        metadata.map_or_else(|| "not set".to_owned(), |metadata| metadata.name.to_string())
    }
}

/// The upper-case names of a settings document, in its order.
fn names_in(document: &str) -> Vec<String> {
    document
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_uppercase())
        .collect()
}

struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), values: Dict::new() }
    }

    fn parse(name: &str, document: &str) -> Result<Self, String> {
        let mut profiles = Toml::string(document).data().map_err(|error| without_source(&error))?;
        let mut values = profiles.remove(&Profile::Default).unwrap_or_default();
        values.retain(|_, value| is_set(&as_text(value)));
        Ok(Self { name: name.to_owned(), values })
    }

    /// As much of the file as can be read.
    fn load(path: &str, names: &[String], errors: &mut Vec<SettingError>) -> Self {
        let document = std::fs::read_to_string(Path::new(path)).map_err(|error| error.to_string());
        match document.and_then(|document| Self::parse(path, &document)) {
            Ok(layer) => {
                let values = layer.values.iter();
                errors.extend(
                    values.filter_map(|(key, value)| {
                        SettingError::of_file_key(path, key, value, names)
                    }),
                );
                layer
            }
            Err(cause) => {
                errors.push(SettingError::about_file(path, cause));
                Self::empty(path)
            }
        }
    }

    fn of_environment(environment: &BTreeMap<String, String>, names: &[String]) -> Self {
        let values = names
            .iter()
            .filter_map(|name| Some((name, environment.get(name)?.trim())))
            .filter(|(_, text)| is_set(text))
            .map(|(name, text)| (name.to_lowercase(), Value::from(text)))
            .collect();
        Self { name: ENVIRONMENT_LAYER.to_owned(), values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// The error without the source line, which may hold a secret.
fn without_source(error: &figment::Error) -> String {
    let text = error.to_string();
    let told = text.lines().filter(|line| !line.contains('|')).map(str::trim);
    told.collect::<Vec<_>>().join(": ")
}

fn is_set(text: &str) -> bool {
    !matches!(text.trim(), "" | "undefined" | "null")
}

/// The value as it would be written in the environment; lists are joined by commas.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.trim().to_owned(),
        Value::Char(_, char) => char.to_string(),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|whole| whole.to_string())
            .or_else(|| number.to_u128().map(|whole| whole.to_string()))
            .or_else(|| number.to_f64().map(|fraction| fraction.to_string()))
            .unwrap_or_default(),
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(as_text).collect();
            items.join(",")
        }
        // A table is refused by its key, so its text does not matter.
        Value::Dict(..) => "{…}".to_owned(),
        Value::Empty(..) => String::new(),
    }
}
