//! Layers: where a setting's value comes from.
//!
//! Lowest first: the compiled-in `config/default.toml`, the file that `CALLHOOK_CONFIG` names, the environment.
//! A secret may also stand in a file of its own, which a variable with `_FILE` names; a certificate and its key always
//! do. These files are read with the layers, and again whenever that is asked for. Every value is text here; what it
//! means is for [`super::reader`] to say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use secrecy::{ExposeSecret as _, SecretString};

use super::error::SettingError;
use super::further;
use super::names::{self, DEFAULTS, file_variable, is_pem, is_secret};
use super::value::{as_text, is_set, of_toml};
use crate::receiver::ReceiverName;

/// The longest file of a secret or certificate, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

pub const FILE_VARIABLE: &str = "CALLHOOK_CONFIG";

pub const DEFAULT_LAYER: &str = "default";
const ENVIRONMENT_LAYER: &str = "environment";

/// All layers, merged; each value knows where it came from.
#[derive(Clone)]
pub struct Layers {
    merged: Figment,
    names: Vec<String>,
    /// Beside the main one.
    receivers: Vec<ReceiverName>,
    /// By the name of the setting.
    files: BTreeMap<String, NamedFile>,
}

/// A file of its own that a setting has.
#[derive(Clone)]
struct NamedFile {
    /// What names it.
    variable: String,
    path: String,
    /// `None` if it could not be read at the start, which is an error.
    text: Option<SecretString>,
}

impl Layers {
    pub fn read(environment: &BTreeMap<String, String>, errors: &mut Vec<SettingError>) -> Self {
        let defaults = Layer::parse(DEFAULT_LAYER, DEFAULTS)
            .expect("the compiled-in defaults are valid, as a test shows");
        // The document names every setting, also those that are not set by default.
        let mut names = names::documented();
        let mut receivers = further::of_environment(environment, errors);
        let file = environment.get(FILE_VARIABLE).filter(|path| is_set(path));
        let mut file = file.map(|path| Layer::load(path, errors));
        if let Some(file) = &mut file {
            file.check_keys(&names::variables(&names), errors);
            receivers.extend(further::of_file(&file.name, &mut file.values, errors));
        }
        further::count(&receivers, errors);
        names.extend(receivers.iter().flat_map(names::of_receiver));
        let environment = Layer::of_environment(environment, &names::variables(&names));
        let merged = Figment::from(defaults)
            .merge(file.unwrap_or_else(|| Layer::empty(FILE_VARIABLE)))
            .merge(environment);
        let receivers = receivers.into_iter().collect();
        let mut layers = Self { merged, names, receivers, files: BTreeMap::new() };
        for name in layers.names.clone() {
            layers.find_file(&name, errors);
        }
        layers
    }

    fn find_file(&mut self, name: &str, errors: &mut Vec<SettingError>) {
        let variable = match name {
            name if is_pem(name) => name.to_owned(),
            name if is_secret(name) => file_variable(name),
            _ => return,
        };
        let Ok(path) = self.merged.find_value(&variable.to_lowercase()) else { return };
        let mut file = NamedFile { variable, path: as_text(&path), text: None };
        let text = match self.text(name) {
            Some(_) if file.variable != name => {
                Err(format!("{name} is set, too ({}); set one of the two", self.source(name)))
            }
            Some(_) | None => file.read(),
        };
        match text {
            Ok(text) => file.text = Some(text),
            Err(fault) => errors.push(self.file_error(&file, fault)),
        }
        self.files.insert(name.to_owned(), file);
    }

    fn file_error(&self, file: &NamedFile, fault: String) -> SettingError {
        let source = self.merged_source(&file.variable);
        SettingError::new(&file.variable, &file.path, &source, fault)
    }

    /// Reads the files again. Returns the names of the settings whose files changed, and what is wrong with others,
    /// whose old values stay. `check` judges the layers with a new value.
    pub fn reread(
        &mut self,
        mut check: impl FnMut(&Self) -> Result<(), Vec<SettingError>>,
    ) -> (Vec<String>, Vec<SettingError>) {
        let (mut changed, mut errors) = (Vec::new(), Vec::new());
        let mut groups = BTreeMap::<String, Vec<String>>::new();
        for name in self.files.keys() {
            groups.entry(names::group(name).to_owned()).or_default().push(name.clone());
        }
        for group in groups.into_values() {
            let before = self.files.clone();
            let renewed: Result<Vec<bool>, SettingError> =
                group.iter().map(|name| self.reread_file(name)).collect();
            let judged = match renewed {
                Ok(renewed) if !renewed.contains(&true) => continue,
                Ok(renewed) => check(self).map(|()| renewed),
                Err(error) => Err(vec![error]),
            };
            match judged {
                Ok(renewed) => {
                    let names = group.into_iter().zip(renewed);
                    changed.extend(names.filter_map(|(name, renewed)| renewed.then_some(name)));
                }
                Err(faults) => {
                    errors.extend(faults);
                    self.files = before;
                }
            }
        }
        (changed, errors)
    }

    /// Whether it changed.
    fn reread_file(&mut self, name: &str) -> Result<bool, SettingError> {
        let mut file = self.files[name].clone();
        let text = file.read().map_err(|fault| self.file_error(&file, fault))?;
        let old = file.text.replace(text);
        let is_new = old.as_ref().map(SecretString::expose_secret)
            != file.text.as_ref().map(SecretString::expose_secret);
        self.files.insert(name.to_owned(), file);
        Ok(is_new)
    }

    /// Whether the setting's value stands in a file of its own.
    pub fn is_from_file(&self, name: &str) -> bool {
        is_secret(name) && self.files.contains_key(name)
    }

    /// What stands in the file whose path the setting is, if that could be read.
    pub fn content(&self, name: &str) -> Option<&str> {
        self.files.get(name)?.text.as_ref().map(SecretString::expose_secret)
    }

    /// The receivers beside the main one.
    pub fn receivers(&self) -> &[ReceiverName] {
        &self.receivers
    }

    /// In the order of the settings document; then those of further receivers.
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
        if self.is_from_file(name) {
            return self.content(name).map(str::to_owned);
        }
        self.merged.find_value(&name.to_lowercase()).ok().map(|value| as_text(&value))
    }

    /// The name of the layer that the value comes from, or the path of its own file.
    pub fn source(&self, name: &str) -> String {
        match self.files.get(name) {
            Some(file) if is_secret(name) => file.path.clone(),
            Some(_) | None => self.merged_source(name),
        }
    }

    fn merged_source(&self, name: &str) -> String {
        let metadata = self.merged.find_metadata(&name.to_lowercase());
        metadata.map_or_else(|| "not set".to_owned(), |metadata| metadata.name.to_string())
    }
}

impl NamedFile {
    fn read(&self) -> Result<SecretString, String> {
        match is_pem(&self.variable) {
            // What is no text is no PEM either, which is for the reader to say.
            true => read_file(&self.path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into())
                .map_err(|fault| {
                    format!("{fault}; expected the path of a PEM file that callhook may read")
                }),
            false => read_secret(&self.path),
        }
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let cannot = |cause: std::io::Error| format!("cannot be read: {cause}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(format!("is longer than {MOST_BYTES} bytes")),
        false => Ok(bytes),
    }
}

/// Without the line ends after it.
fn read_secret(path: &str) -> Result<SecretString, String> {
    let text = String::from_utf8(read_file(path)?);
    let text = text.map_err(|_| "cannot be read: it is no text in UTF-8".to_owned())?;
    match text.trim_end_matches(['\r', '\n']) {
        text if text.trim().is_empty() => Err("is empty; write the secret into it".to_owned()),
        text => Ok(text.into()),
    }
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
        let values: Dict = toml::from_str(document).map_err(|error| without_source(&error))?;
        let set = values
            .into_iter()
            .filter_map(|(key, value)| Some((key.clone(), of_toml(&key.to_uppercase(), value)?)));
        Ok(Self { name: name.to_owned(), values: set.collect() })
    }

    /// As much of the file as can be read.
    fn load(path: &str, errors: &mut Vec<SettingError>) -> Self {
        let document = std::fs::read_to_string(Path::new(path)).map_err(|error| error.to_string());
        document.and_then(|document| Self::parse(path, &document)).unwrap_or_else(|cause| {
            errors.push(SettingError::about_file(path, cause));
            Self::empty(path)
        })
    }

    /// Says what is no setting, but for what is about further receivers.
    fn check_keys(&self, names: &[String], errors: &mut Vec<SettingError>) {
        let values = self.values.iter().filter(|(key, _)| !further::is_about(key));
        errors.extend(
            values.filter_map(|(key, value)| {
                SettingError::of_file_key(&self.name, key, value, names)
            }),
        );
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
