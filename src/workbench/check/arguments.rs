//! The arguments: checked before anything is sent, and never repeated in an error, since a URL may
//! hold a password, and a misspelt key is still nearly a key.

use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::workbench::credentials::{Hushed, KeyText, Secret};

/// The command's options.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The receiver's URL, http or https, as WEBHOOK_URL has it
    #[arg(value_parser = Hushed::<ReceiverUrl>::default())]
    pub url: ReceiverUrl,
    /// Its secret, sent as X-AVR-WEBHOOK-SECRET; then wrong and missing ones are tried, too
    #[arg(long, value_parser = Hushed::<Secret>::default())]
    pub secret: Option<Secret>,
    /// Its signing key, whsec_…; then wrong, missing and old signatures are tried, too
    #[arg(long, value_parser = Hushed::<KeyText>::default())]
    pub signing_key: Option<KeyText>,
    /// Milliseconds within which every answer is due, from 1 to 600000
    #[arg(long, value_name = "MS", default_value_t = 3000,
        value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub timeout: u32,
    /// Print one JSON document in place of text
    #[arg(long)]
    pub json: bool,
    /// Write the results as JUnit XML, too, in which advised checks that fail count as skipped
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the results as a web page, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// An http or https URL with a host.
#[derive(Clone, Debug)]
pub struct ReceiverUrl(pub Url);

impl FromStr for ReceiverUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).ok();
        let proper = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        url.filter(proper).map(Self).ok_or(
            "expected the receiver's http:// or https:// URL, such as http://localhost:9000/events \
             (a / ? # @ before the host is written %2F %3F %23 %40)",
        )
    }
}
