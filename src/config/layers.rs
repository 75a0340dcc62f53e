//! Layers: where a setting's value comes from.
//!
//! Lowest first: the compiled-in `config/default.toml`, the file that `CALLHOOK_CONFIG` names, the
//! environment. Every value is text here, whatever TOML or the shell made of it; what it means is
//! [`super::reader`]'s. An empty value, `undefined` and `null` count as not set in every layer:
//! avr-app passes those.

use std::collections::BTreeMap;
use std::path::Path;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::fault::Fault;

/// The settings document: every setting, its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The variable that names the settings file.
pub const FILE_VARIABLE: &str = "CALLHOOK_CONFIG";

const DEFAULT_LAYER: &str = "default";
const ENVIRONMENT_LAYER: &str = "environment";

/// All layers, merged; each value knows where it came from.
pub struct Layers {
    merged: Figment,
    names: Vec<String>,
}

impl Layers {
    /// Merges the defaults, the file that the environment may name, and the environment.
    pub fn read(environment: &BTreeMap<String, String>, faults: &mut Vec<Fault>) -> Self {
        let defaults =
            Layer::parse(DEFAULT_LAYER, DEFAULTS).expect("a test reads the compiled-in defaults");
        // The defaults name every setting, also those whose default is "not set".
        let names = names_in(DEFAULTS);
        let file = environment.get(FILE_VARIABLE).filter(|path| is_set(path));
        let file = file.map(|path| Layer::load(path, &names, faults));
        let environment = Layer::of_environment(environment, &names);
        let merged = Figment::from(defaults)
            .merge(file.unwrap_or_else(|| Layer::empty(FILE_VARIABLE)))
            .merge(environment);
        Self { merged, names }
    }

    /// The variables, in the order of the settings document.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A setting's text, if it is set anywhere.
    ///
    /// # Panics
    /// For a name that the settings document lacks.
    pub fn text(&self, name: &str) -> Option<String> {
        assert!(
            self.names.iter().any(|known| known == name),
            "{name} is missing in config/default.toml"
        );
        self.merged.find_value(&name.to_lowercase()).ok().map(|value| as_text(&value))
    }

    /// The name of the layer that a setting's value comes from.
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

    /// The file's layer, as far as it can be read; what is wrong with it is added to the faults.
    fn load(path: &str, names: &[String], faults: &mut Vec<Fault>) -> Self {
        let document = std::fs::read_to_string(Path::new(path)).map_err(|error| error.to_string());
        match document.and_then(|document| Self::parse(path, &document)) {
            Ok(layer) => {
                let values = layer.values.iter();
                faults.extend(
                    values.filter_map(|(key, value)| Fault::of_file_key(path, key, value, names)),
                );
                layer
            }
            Err(cause) => {
                faults.push(Fault::about_file(path, cause));
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

/// What is wrong and where, without the line itself, which may hold a secret.
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
        // A table is refused by name, so its text does not matter.
        Value::Dict(..) => "{…}".to_owned(),
        Value::Empty(..) => String::new(),
    }
}
