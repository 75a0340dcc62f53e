//! Reader: from a setting's text to a value that cannot be bad.
//!
//! Collects every error instead of stopping at the first, so that one start tells an operator
//! everything. Invariant: no error shows a secret or the user part of a URL.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use url::{Position, Url};

use super::error::SettingError;
use super::layers::{DEFAULT_LAYER, Layers};
use super::names::{as_main, is_secret};
use crate::delivery::scheme_and_host;

pub struct SettingsReader<'a> {
    layers: &'a Layers,
    errors: Vec<SettingError>,
}

impl<'a> SettingsReader<'a> {
    pub fn new(layers: &'a Layers, errors: Vec<SettingError>) -> Self {
        Self { layers, errors }
    }

    pub fn layers(&self) -> &'a Layers {
        self.layers
    }

    pub fn into_errors(self) -> Vec<SettingError> {
        self.errors
    }

    pub fn add(&mut self, error: SettingError) {
        self.errors.push(error);
    }

    pub fn refuse(&mut self, name: &str, accepted: impl Display) {
        let shown = shown(self.layers, name);
        self.add(SettingError::new(name, &shown, &self.source(name), accepted));
    }

    pub fn source(&self, name: &str) -> String {
        self.layers.source(name)
    }

    pub fn is_default(&self, name: &str) -> bool {
        self.source(name) == DEFAULT_LAYER
    }

    pub fn is_from_file(&self, name: &str) -> bool {
        self.layers.is_from_file(name)
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.layers.text(name)
    }

    /// `None` where the setting is not set, or its value is not accepted, which is an error then.
    pub fn value<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        self.checked(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// As [`Self::value`], with a check that says what is accepted.
    pub fn checked<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match check(&text) {
            Ok(value) => Some(value),
            Err(accepted) => {
                self.refuse(name, accepted);
                None
            }
        }
    }

    /// What stands in the file whose path the setting is; `None` where it is not set, or not accepted.
    pub fn content<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match check(self.layers.content(name)?) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.refuse(name, fault);
                None
            }
        }
    }

    /// As [`Self::value`], separated by commas.
    pub fn list<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<Vec<T>> {
        self.checked(name, |text| {
            let items: Vec<&str> =
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            if items.is_empty() {
                return Err("expected at least one item between the commas".to_owned());
            }
            items
                .into_iter()
                .map(|item| item.parse().map_err(|error: T::Err| error.to_string()))
                .collect()
        })
    }

    /// A whole number. The defaults set every number; where it is not accepted, the range's start stands in.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u32>) -> u32 {
        let number = self.checked(name, |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) | Err(_) => {
                Err(format!("expected a whole number from {} to {}", range.start(), range.end()))
            }
        });
        number.unwrap_or(*range.start())
    }

    /// As [`Self::number`], in milliseconds.
    pub fn millis(&mut self, name: &str, range: RangeInclusive<u32>) -> Duration {
        let least = Duration::from_millis((*range.start()).into());
        self.valid_millis(name, range).unwrap_or(least)
    }

    /// As [`Self::millis`], but `None` where it is not accepted.
    pub fn valid_millis(&mut self, name: &str, range: RangeInclusive<u32>) -> Option<Duration> {
        let millis = self.checked(name, |text| match text.parse::<u32>() {
            Ok(millis) if range.contains(&millis) => Ok(millis),
            Ok(_) | Err(_) => Err(format!(
                "expected whole milliseconds from {} to {}",
                range.start(),
                range.end()
            )),
        });
        Some(Duration::from_millis(millis?.into()))
    }
}

pub fn size(number: u32) -> usize {
    usize::try_from(number)
        .expect("a usize holds 32 bits on every platform with an operating system")
}

/// Reads what travels in a header.
///
/// # Errors
/// What is expected.
pub fn header_value(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text).ok().filter(|value| value.to_str().is_ok());
    value
        .ok_or_else(|| "expected visible ASCII characters, since it is sent in a header".to_owned())
}

/// The value with secrets as `***`, and URLs without their user part; of a URL from a file only scheme and host.
pub fn shown(layers: &Layers, name: &str) -> String {
    let text = layers.text(name).unwrap_or_default();
    match &*as_main(name) {
        "WEBHOOK_URL" | "WEBHOOK_PROXY" if layers.is_from_file(name) && text != "none" => {
            Url::parse(&text)
                .ok()
                .filter(Url::has_host)
                .map_or_else(|| "***".to_owned(), |url| scheme_and_host(&url))
        }
        "WEBHOOK_URL" | "WEBHOOK_PROXY" | "STS_URL" => without_user_part(&text),
        "STS_ALLOWED_HOSTS" => masked(&text),
        secret if is_secret(secret) && !text.is_empty() => "***".to_owned(),
        _ => text,
    }
}

/// Masks the user part. Where the text is not a valid URL, that is anything up to the last `@`: a typo
/// must not give a password away.
fn without_user_part(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() && url.username().is_empty() && url.password().is_none() => {
            text.to_owned()
        }
        // Not cut from the text: `http:/user@host` and `http:///user@host` name a user, too.
        Ok(url) if url.has_host() => {
            format!("{}://***@{}", url.scheme(), &url[Position::BeforeHost..])
        }
        Ok(_) | Err(_) => masked(text),
    }
}

/// Masks everything before the last `@`, except what looks like a scheme and its slashes.
fn masked(text: &str) -> String {
    let (Some(first), Some(last)) = (text.find('@'), text.rfind('@')) else {
        return text.to_owned();
    };
    let is_scheme = |at: &usize| !text[..*at].trim_end_matches(':').contains(':');
    let start = text[..first].find("//").filter(is_scheme).map_or(0, |at| at + 2);
    format!("{}***{}", &text[..start], &text[last..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_part_of_a_url_is_masked_even_in_a_misspelt_one() {
        for (text, shown) in [
            ("http://user:hush@host/p@q", "http://***@host/p@q"),
            ("htp//user:hush@host", "htp//***@host"),
            ("user:hush@host", "***@host"),
            ("http://a@b@host/", "http://***@host/"),
            ("http://user:pa/ss@host/x", "http://***@host/x"),
            ("http://user:pa?ss@host", "http://***@host"),
            ("user:hush@host//path", "***@host//path"),
            ("user:pa//ss@host", "***@host"),
            ("http:/user:hush@host", "http://***@host/"),
            ("http:///user:hush@host/x", "http://***@host/x"),
            ("http://host/?mail=a@b", "http://host/?mail=a@b"),
            ("host:6030", "host:6030"),
        ] {
            assert_eq!(without_user_part(text), shown);
        }
    }
}
