//! Credentials as arguments: checked where they are read, and never repeated in an error, since a
//! misspelt key is nearly the key.

use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use secrecy::SecretString;

use crate::config::header_value;
use crate::delivery::signature::{BadSigningKey, SigningKey};

/// A secret that fits in a header.
#[derive(Clone, Debug)]
pub struct Secret(pub SecretString);

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a secret".to_owned());
        }
        header_value(text).map(|_| Self(text.into()))
    }
}

/// A signing key with its text, which `check` searches for in what it shows.
#[derive(Clone, Debug)]
pub struct KeyText {
    pub text: SecretString,
    pub key: SigningKey,
}

impl FromStr for KeyText {
    type Err = BadSigningKey;

    fn from_str(text: &str) -> Result<Self, BadSigningKey> {
        Ok(Self { text: text.into(), key: text.parse()? })
    }
}

/// Reads a value; an error says what is expected, but not what was given.
#[derive(Clone)]
pub struct Hushed<T>(PhantomData<fn() -> T>);

impl<T> Default for Hushed<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> TypedValueParser for Hushed<T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let read = match value.to_str() {
            Some(text) => text.parse::<T>().map_err(|error| error.to_string()),
            None => Err("expected UTF-8".to_owned()),
        };
        read.map_err(|expected| {
            let argument = argument.map(ToString::to_string).unwrap_or_default();
            let text = format!("{argument}: {expected}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}
