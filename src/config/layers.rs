//! Layers: where a setting's value comes from.
//!
//! Lowest first: the compiled-in `config/default.toml`, the file that `CALLHOOK_CONFIG` names, the
//! environment. A secret may also stand in a file of its own, which a variable with [`FILE_SUFFIX`] names; it is read
//! with the layers, and again whenever that is asked for. Every value is text here, whatever its type in TOML; what it means is for
//! [`super::reader`] to say. An empty value, `undefined` and `null` count as not set in every layer,
//! since avr-app passes those.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use secrecy::{ExposeSecret as _, SecretString};

use super::error::SettingError;

/// What is or may hold a secret: it may be set by a variable with [`FILE_SUFFIX`], and is not shown.
pub const SECRETS: [&str; 6] = [
    "WEBHOOK_URL",
    "WEBHOOK_SECRET",
    "WEBHOOK_SIGNING_KEY",
    "HTTP_SECRET",
    "AGENT_SECRET",
    "ADMIN_TOKEN",
];

pub const FILE_SUFFIX: &str = "_FILE";

/// The longest file of a secret, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// The settings document: every setting with its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

pub const FILE_VARIABLE: &str = "CALLHOOK_CONFIG";

pub const DEFAULT_LAYER: &str = "default";
const ENVIRONMENT_LAYER: &str = "environment";

/// All layers, merged; each value knows where it came from.
#[derive(Clone)]
pub struct Layers {
    merged: Figment,
    names: Vec<String>,
    /// By the secret's name.
    files: BTreeMap<&'static str, SecretFile>,
}

/// A file that holds one secret.
#[derive(Clone)]
struct SecretFile {
    path: String,
    /// `None` if it could not be read at the start, which is an error.
    text: Option<SecretString>,
}

impl Layers {
    pub fn read(environment: &BTreeMap<String, String>, errors: &mut Vec<SettingError>) -> Self {
        let defaults = Layer::parse(DEFAULT_LAYER, DEFAULTS)
            .expect("the compiled-in defaults are valid, as a test shows");
        // The document names every setting, also those that are not set by default.
        let names = names_in(DEFAULTS);
        let file = environment.get(FILE_VARIABLE).filter(|path| is_set(path));
        let known: Vec<String> = names.iter().cloned().chain(SECRETS.map(file_variable)).collect();
        let file = file.map(|path| Layer::load(path, &known, errors));
        let environment = Layer::of_environment(environment, &known);
        let merged = Figment::from(defaults)
            .merge(file.unwrap_or_else(|| Layer::empty(FILE_VARIABLE)))
            .merge(environment);
        let mut layers = Self { merged, names, files: BTreeMap::new() };
        for name in SECRETS {
            layers.find_file(name, errors);
        }
        layers
    }

    fn find_file(&mut self, name: &'static str, errors: &mut Vec<SettingError>) {
        let variable = file_variable(name);
        let Ok(path) = self.merged.find_value(&variable.to_lowercase()) else { return };
        let path = as_text(&path);
        let text = match self.text(name) {
            Some(_) => {
                Err(format!("{name} is set, too ({}); set one of the two", self.source(name)))
            }
            None => read_secret(&path),
        };
        if let Err(fault) = &text {
            errors.push(SettingError::new(&variable, &path, &self.source(&variable), fault));
        }
        self.files.insert(name, SecretFile { path, text: text.ok() });
    }

    /// Reads the files of secrets again. Returns those that changed, and what is wrong with others, whose old
    /// values stay. `check` judges the layers with a new value.
    pub fn reread(
        &mut self,
        mut check: impl FnMut(&Self) -> Result<(), Vec<SettingError>>,
    ) -> (Vec<&'static str>, Vec<SettingError>) {
        let (mut changed, mut errors) = (Vec::new(), Vec::new());
        for (name, file) in self.files.clone() {
            let text = match read_secret(&file.path) {
                Ok(text) => text,
                Err(fault) => {
                    let variable = file_variable(name);
                    let source = self.source(&variable);
                    errors.push(SettingError::new(&variable, &file.path, &source, fault));
                    continue;
                }
            };
            if file.text.as_ref().map(SecretString::expose_secret) == Some(text.expose_secret()) {
                continue;
            }
            let renewed = SecretFile { path: file.path.clone(), text: Some(text) };
            self.files.insert(name, renewed);
            match check(self) {
                Ok(()) => changed.push(name),
                Err(faults) => {
                    errors.extend(faults);
                    self.files.insert(name, file);
                }
            }
        }
        (changed, errors)
    }

    /// Whether the setting's value stands in a file of its own.
    pub fn is_from_file(&self, name: &str) -> bool {
        self.files.contains_key(name)
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
        if let Some(file) = self.files.get(name) {
            return file.text.as_ref().map(|text| text.expose_secret().to_owned());
        }
        self.merged.find_value(&name.to_lowercase()).ok().map(|value| as_text(&value))
    }

    /// The name of the layer that the value comes from, or the path of its own file.
    pub fn source(&self, name: &str) -> String {
        if let Some(file) = self.files.get(name) {
            return file.path.clone();
        }
        let metadata = self.merged.find_metadata(&name.to_lowercase());
        metadata.map_or_else(|| "not set".to_owned(), |metadata| metadata.name.to_string())
    }
}

/// The variable that names the file of a secret.
pub fn file_variable(name: &str) -> String {
    format!("{name}{FILE_SUFFIX}")
}

/// Without the line ends after it.
fn read_secret(path: &str) -> Result<SecretString, String> {
    let cannot = |cause: std::io::Error| format!("cannot be read: {cause}");
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(format!("is longer than {MOST_BYTES} bytes"));
    }
    match text.trim_end_matches(['\r', '\n']) {
        text if text.trim().is_empty() => Err("is empty; write the secret into it".to_owned()),
        text => Ok(text.into()),
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
        let mut values: Dict = toml::from_str(document).map_err(|error| without_source(&error))?;
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
fn without_source(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let told = text.lines().filter(|line| !line.contains('|')).map(str::trim);
    told.collect::<Vec<_>>().join(": ")
}

pub fn is_set(text: &str) -> bool {
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
