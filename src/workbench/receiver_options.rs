//! The receiver as an argument: the options of every command that sends to one.
//!
//! Invariant: no error repeats a value, since a URL may hold a password and a misspelt key is nearly
//! the key.

use std::str::FromStr;
use std::time::Duration;

use url::Url;

use super::credentials::{Hushed, KeyText, Secret};
use crate::delivery::WebhookSettings;

#[derive(Clone, Debug, clap::Args)]
pub struct ReceiverOptions {
    /// The receiver's URL, http or https, as in WEBHOOK_URL
    #[arg(value_parser = Hushed::<ReceiverUrl>::default())]
    pub url: ReceiverUrl,
    /// Sent as X-AVR-WEBHOOK-SECRET
    #[arg(long, value_parser = Hushed::<Secret>::default())]
    pub secret: Option<Secret>,
    /// whsec_…: sign every attempt as Standard Webhooks
    #[arg(long, value_parser = Hushed::<KeyText>::default())]
    pub signing_key: Option<KeyText>,
    /// Milliseconds for one attempt, from 1 to 600000
    #[arg(long, value_name = "MS", default_value_t = 3000,
        value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub timeout: u32,
}

impl ReceiverOptions {
    pub fn settings(&self) -> WebhookSettings {
        let timeout = Duration::from_millis(self.timeout.into());
        WebhookSettings {
            secret: self.secret.clone().map(|secret| secret.0),
            signing_keys: self.signing_key.clone().map(|signing| signing.key.into()),
            ..WebhookSettings::to(self.url.0.clone(), timeout)
        }
    }
}

/// An http or https URL with a host.
#[derive(Clone, Debug)]
pub struct ReceiverUrl(Url);

impl FromStr for ReceiverUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        WebhookSettings::read_url(text).map(Self).ok_or(
            "expected the receiver's http:// or https:// URL, such as http://localhost:9000/events \
             (a / ? # @ before the host is written %2F %3F %23 %40)",
        )
    }
}
