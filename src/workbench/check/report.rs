//! The report: what every check found, in text that is fit to be shown.
//!
//! Invariant: no secret is in it. What the receiver says is searched for the secret, the signing key
//! and the password of the URL before anything else happens to it, since receivers repeat what they
//! refuse.

use std::fmt;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::catalogue::{Check, Level};
use super::curl::{self, Target};
use super::exchange::{Answer, Came, Exchange};
use crate::delivery::{SECRET_HEADER, WebhookSettings, with_json_forms};
use crate::text::excerpt;
use crate::time::millis;
use crate::workbench::alteration::Alteration;

/// The most of a body that is shown, in characters: enough for any error that a person reads.
const EXCERPT: usize = 600;

/// The headers of an answer that say something about how the receiver behaves.
const TELLING: [&str; 7] =
    ["content-type", "connection", "retry-after", "location", "allow", "server", "x-powered-by"];

#[derive(Serialize)]
pub struct Report {
    /// The version that judged.
    pub callhook: &'static str,
    /// The receiver, without the user part.
    pub url: String,
    /// When the run began, in ISO 8601.
    pub started: String,
    pub took_ms: u64,
    pub requests: usize,
    pub passed: bool,
    pub summary: CheckSummary,
    pub checks: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// Of either level.
    pub passed: usize,
    pub failed: usize,
    pub advised_failed: usize,
    pub skipped: usize,
}

impl CheckSummary {
    pub fn of(checks: &[Finding]) -> Self {
        let mut summary = Self::default();
        for check in checks {
            *match (check.verdict, check.check.level) {
                (Verdict::Pass, _) => &mut summary.passed,
                (Verdict::Fail, Level::Required) => &mut summary.failed,
                (Verdict::Fail, Level::Advised) => &mut summary.advised_failed,
                (Verdict::Skipped, _) => &mut summary.skipped,
            } += 1;
        }
        summary
    }
}

impl fmt::Display for CheckSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, advised_failed, skipped } = self;
        write!(
            f,
            "{passed} passed, {failed} failed, {advised_failed} advised failed, {skipped} skipped"
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
    /// The receiver was not asked, or could not answer.
    Skipped,
}

impl Verdict {
    pub fn sign(self) -> char {
        match self {
            Self::Pass => '✓',
            Self::Fail => '✗',
            Self::Skipped => '–',
        }
    }
}

#[derive(Serialize)]
pub struct Finding {
    #[serde(flatten)]
    pub check: &'static Check,
    pub verdict: Verdict,
    pub reason: String,
    /// What to do, where it failed and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    pub took_ms: u64,
    /// The request that settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// A request and what came back, fit to be shown.
#[derive(Debug, Serialize)]
pub struct Evidence {
    pub sent: Sent,
    pub came: Back,
    /// From the connect to the end of the answer.
    pub took_ms: u64,
    /// A line for a shell that sends it again.
    pub curl: String,
}

impl Evidence {
    /// What was sent, a line each: the request, its headers, its body.
    pub fn sent_lines(&self) -> Vec<String> {
        let Sent { method, url, headers, body } = &self.sent;
        [&[format!("{method} {url}")], &headers[..], std::slice::from_ref(body)].concat()
    }

    /// What came back, likewise, with the time that it took.
    pub fn came_lines(&self) -> Vec<String> {
        let took = format!("after {} ms", self.took_ms);
        match &self.came {
            Back::Answer { status, headers, body } => {
                [&[format!("{status} {took}")], &headers[..], std::slice::from_ref(body)].concat()
            }
            Back::Nothing { error } => vec![format!("{error}, {took}")],
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Sent {
    pub method: String,
    /// Without its user part.
    pub url: String,
    /// One `name: value` each; secrets as the variables of [`curl`].
    pub headers: Vec<String>,
    /// Its beginning.
    pub body: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Back {
    Answer {
        status: u16,
        /// Those of [`TELLING`], one `name: value` each.
        headers: Vec<String>,
        /// Its beginning.
        body: String,
    },
    Nothing {
        error: String,
    },
}

/// Makes findings fit to be shown.
pub struct Scribe {
    secrets: Vec<String>,
    target: Target,
}

impl Scribe {
    /// Keeps back everything secret in the settings and in the text of the signing key, in the forms
    /// in which a receiver may repeat it.
    pub fn new(
        settings: &WebhookSettings,
        signing_key: Option<&SecretString>,
        patience: Duration,
    ) -> Self {
        let mut secrets = settings.secrets();
        if let Some(key) = signing_key {
            let key = key.expose_secret();
            secrets.push(key.to_owned());
            secrets.extend(key.split_once('_').map(|(_, bare)| bare.to_owned()));
        }
        let secrets = with_json_forms(secrets);
        let signed = settings.signing_keys.is_some();
        Self { secrets, target: Target { url: settings.shown_url(), signed, patience } }
    }

    /// The text with each secret as `***`.
    pub fn masked(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    pub fn evidence(&self, exchange: &Exchange, check: &Check) -> Evidence {
        Evidence {
            sent: Sent {
                method: exchange.sending.method().to_string(),
                url: self.target.url.clone(),
                headers: sent_headers(&exchange.headers, exchange.sending.alteration),
                body: excerpt(exchange.sending.body(), EXCERPT),
            },
            came: match &exchange.came {
                Came::Answer(answer) => self.answer(answer),
                Came::Silence => Back::Nothing { error: "no answer in time".to_owned() },
                Came::Broken { code, error } => {
                    Back::Nothing { error: self.masked(&format!("{error} ({code})")) }
                }
            },
            took_ms: millis(exchange.took),
            curl: curl::line(exchange, &self.target, check.times),
        }
    }

    fn answer(&self, answer: &Answer) -> Back {
        let shown = |bytes: &[u8]| excerpt(&self.masked(&String::from_utf8_lossy(bytes)), EXCERPT);
        let told = TELLING.iter().filter_map(|name| {
            Some(format!("{name}: {}", shown(answer.headers.get(*name)?.as_bytes())))
        });
        Back::Answer {
            status: answer.status.as_u16(),
            headers: told.collect(),
            body: shown(&answer.body),
        }
    }
}

fn sent_headers(headers: &HeaderMap, alteration: Option<Alteration>) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = if *name == AUTHORIZATION {
            "Basic $WEBHOOK_USER"
        } else if *name == SECRET_HEADER && alteration != Some(Alteration::WrongSecret) {
            "$SECRET"
        } else {
            value.to_str().unwrap_or_default()
        };
        format!("{name}: {value}")
    };
    headers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_every_form_in_which_it_comes_back() {
        let url = "http://u%40x:p%2Bq+r@h/".parse().unwrap();
        let settings = WebhookSettings {
            secret: Some("a\"b\\c".into()),
            ..WebhookSettings::to(url, Duration::ZERO)
        };
        let key = "whsec_MfKQ9r8GKYqr".into();
        let scribe = Scribe::new(&settings, Some(&key), Duration::ZERO);
        for (told, shown) in [
            ("got a\"b\\c", "got ***"),
            (r#"{"got":"a\"b\\c"}"#, r#"{"got":"***"}"#),
            ("key whsec_MfKQ9r8GKYqr or MfKQ9r8GKYqr", "key *** or ***"),
            ("p+q+r and p%2Bq+r", "*** and ***"),
            ("Basic dUB4OnArcSty", "Basic ***"),
        ] {
            assert_eq!(scribe.masked(told), shown);
        }
    }
}
