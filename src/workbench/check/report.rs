//! The report: what every check found, in text that is fit to be shown.
//!
//! Invariant: no secret is in it. What the receiver says is searched for the secret, the signing key
//! and the password of the URL before anything else happens to it, since receivers repeat what they
//! refuse.

use std::time::Duration;

use base64_simd::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::catalogue::{Check, Level};
use super::curl::{self, Target};
use super::exchange::{Answer, Came, Exchange, Secret};
use crate::delivery::{SECRET_HEADER, WebhookSettings};

/// The most of a body that is shown, in characters: enough for any error that a person reads.
const EXCERPT: usize = 600;

/// Headers of an answer that say something about how the receiver behaves.
const TELLING: [&str; 7] =
    ["content-type", "connection", "retry-after", "location", "allow", "server", "x-powered-by"];

/// A run of all checks.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version that judged.
    pub callhook: &'static str,
    /// The receiver, without the user part.
    pub url: String,
    /// When the run began, in ISO 8601.
    pub started: String,
    /// How long it took, in milliseconds.
    pub took_ms: u128,
    /// Requests made.
    pub requests: usize,
    /// Whether no required check failed.
    pub passed: bool,
    /// What became of the checks.
    pub summary: Summary,
    /// Each one.
    pub checks: Vec<Finding>,
}

/// How many checks went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Passed, of either level.
    pub passed: usize,
    /// Failed and required.
    pub failed: usize,
    /// Failed and only advised.
    pub advised_failed: usize,
    /// Not judged.
    pub skipped: usize,
}

impl Summary {
    /// Counts.
    pub fn of(checks: &[Finding]) -> Self {
        let mut summary = Self::default();
        for check in checks {
            *match (check.verdict, check.level) {
                (Verdict::Pass, _) => &mut summary.passed,
                (Verdict::Fail, Level::Required) => &mut summary.failed,
                (Verdict::Fail, Level::Advised) => &mut summary.advised_failed,
                (Verdict::Skipped, _) => &mut summary.skipped,
            } += 1;
        }
        summary
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The receiver does what is asked.
    Pass,
    /// It does not.
    Fail,
    /// It was not asked, or could not answer.
    Skipped,
}

/// One check and what it found.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Its name, which stays the same from version to version.
    pub name: &'static str,
    /// What it belongs to.
    pub group: &'static str,
    /// Whether the exit code depends on it.
    pub level: Level,
    /// What is asked of the receiver.
    pub claim: &'static str,
    /// What exactly passes, and why it matters.
    pub rule: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// Why, in plain words.
    pub reason: String,
    /// What to do, where it failed and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// How long it took, in milliseconds.
    pub took_ms: u128,
    /// The request that settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// A request and what came back, fit to be shown.
#[derive(Debug, Serialize)]
pub struct Evidence {
    /// What was sent.
    pub sent: Sent,
    /// What came back.
    pub came: Back,
    /// From the connect to the end of the answer, in milliseconds.
    pub took_ms: u128,
    /// A line for a shell that sends it again.
    pub curl: String,
}

/// What was sent.
#[derive(Debug, Serialize)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// The URL without its user part.
    pub url: String,
    /// One `name: value` each; secrets as the variables of [`curl`].
    pub headers: Vec<String>,
    /// The begin of the body.
    pub body: String,
}

/// What came back.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Back {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// Those headers that tell something, one `name: value` each.
        headers: Vec<String>,
        /// The begin of the body.
        body: String,
    },
    /// None.
    Nothing {
        /// Why.
        error: String,
    },
}

/// Texts that must not be shown.
pub struct Masks(Vec<String>);

impl Masks {
    /// Everything secret in the settings and in the text of the signing key, in the forms in which
    /// a receiver may repeat it.
    pub fn new(settings: &WebhookSettings, signing_key: Option<&SecretString>) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        secrets.extend(settings.secret.as_ref().map(|secret| secret.expose_secret().to_owned()));
        if let Some(key) = signing_key {
            let key = key.expose_secret();
            secrets.push(key.to_owned());
            secrets.extend(key.split_once('_').map(|(_, bare)| bare.to_owned()));
        }
        let url = &settings.url;
        if let Some(password) = url.password() {
            let decoded = percent_decoded(password);
            let user = percent_decoded(url.username());
            secrets.push(STANDARD.encode_to_string(format!("{user}:{decoded}")));
            secrets.push(password.to_owned());
            secrets.push(decoded);
        }
        let escaped: Vec<String> = secrets.iter().map(|secret| json_escaped(secret)).collect();
        secrets.extend(escaped);
        secrets.retain(|secret| !secret.is_empty());
        // A short one may be part of a long one.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    /// The text with each of them as `***`.
    pub fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Makes evidence of exchanges.
pub struct Scribe {
    masks: Masks,
    target: Target,
}

impl Scribe {
    /// For one receiver.
    pub fn new(settings: &WebhookSettings, masks: Masks, patience: Duration) -> Self {
        let signed = settings.signing_key.is_some();
        Self { masks, target: Target { url: settings.shown_url(), signed, patience } }
    }

    /// A reason, which may repeat what the receiver said.
    pub fn reason(&self, text: &str) -> String {
        self.masks.apply(text)
    }

    /// The exchange that settled the check.
    pub fn evidence(&self, exchange: &Exchange, check: &Check) -> Evidence {
        Evidence {
            sent: Sent {
                method: exchange.sending.method.to_string(),
                url: self.target.url.clone(),
                headers: sent_headers(&exchange.headers, exchange.sending.secret),
                body: excerpt(exchange.sending.body()),
            },
            came: match &exchange.came {
                Came::Answer(answer) => self.answer(answer),
                Came::Silence => Back::Nothing { error: "no answer in time".to_owned() },
                Came::Broken { code, error } => {
                    Back::Nothing { error: self.masks.apply(&format!("{error} ({code})")) }
                }
            },
            took_ms: exchange.took.as_millis(),
            curl: curl::line(exchange, &self.target, check.times),
        }
    }

    fn answer(&self, answer: &Answer) -> Back {
        let told = TELLING.iter().filter_map(|name| {
            let value = answer.headers.get(*name)?.as_bytes();
            let value = self.masks.apply(&String::from_utf8_lossy(value));
            Some(format!("{name}: {}", excerpt(&value)))
        });
        Back::Answer {
            status: answer.status.as_u16(),
            headers: told.collect(),
            body: excerpt(&self.masks.apply(&String::from_utf8_lossy(&answer.body))),
        }
    }
}

fn sent_headers(headers: &HeaderMap, secret: Secret) -> Vec<String> {
    let line = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        let value = if *name == AUTHORIZATION {
            "Basic $WEBHOOK_USER"
        } else if *name == SECRET_HEADER && secret == Secret::Own {
            "$SECRET"
        } else {
            value.to_str().unwrap_or_default()
        };
        format!("{name}: {value}")
    };
    headers.iter().map(line).collect()
}

/// The begin of a long text.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_every_form_in_which_it_comes_back() {
        let settings = WebhookSettings {
            url: "http://u%40x:p%2Bq+r@h/".parse().unwrap(),
            secret: Some("a\"b\\c".into()),
            timeout: Duration::ZERO,
            signing_key: None,
        };
        let key = "whsec_MfKQ9r8GKYqr".into();
        let masks = Masks::new(&settings, Some(&key));
        for (told, shown) in [
            ("got a\"b\\c", "got ***"),
            (r#"{"got":"a\"b\\c"}"#, r#"{"got":"***"}"#),
            ("key whsec_MfKQ9r8GKYqr or MfKQ9r8GKYqr", "key *** or ***"),
            ("p+q+r and p%2Bq+r", "*** and ***"),
            ("Basic dUB4OnArcSty", "Basic ***"),
        ] {
            assert_eq!(masks.apply(told), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let long = "é".repeat(EXCERPT + 1);
        let cut = excerpt(&long);
        assert!(cut.starts_with(&"é".repeat(EXCERPT)) && cut.ends_with("… (1202 bytes)"));
        assert_eq!(excerpt(&"é".repeat(EXCERPT)), "é".repeat(EXCERPT));
    }
}
