//! Credentials as arguments: checked where they are read, and never repeated in an error, since a
//! misspelt key is still nearly a key.

use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use reqwest::header::HeaderValue;
use secrecy::SecretString;

use crate::delivery::signature::{BadSigningKey, SigningKey};

/// A secret that fits in a header.
#[derive(Clone, Debug)]
pub struct Secret(pub SecretString);

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = HeaderValue::from_str(text).is_ok_and(|value| value.to_str().is_ok());
        if fits && !text.is_empty() {
            Ok(Self(text.into()))
        } else {
            Err("expected visible ASCII characters, as it travels in a header")
        }
    }
}

/// A signing key with its text, which `check` searches for in what it shows.
#[derive(Clone, Debug)]
pub struct KeyText {
    /// The text.
    pub text: SecretString,
    /// The key.
    pub key: SigningKey,
}

impl FromStr for KeyText {
    type Err = BadSigningKey;

    fn from_str(text: &str) -> Result<Self, BadSigningKey> {
        Ok(Self { text: text.into(), key: text.parse()? })
    }
}

/// Reads a value, and where it is wrong tells what is expected, but not what was given.
pub struct Hushed<T>(PhantomData<fn() -> T>);

impl<T> Default for Hushed<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Hushed<T> {
    fn clone(&self) -> Self {
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
