//! Settings: any environment and any settings file lead to settings that keep their limits, or to
//! faults; and neither tells a secret.
//!
//! Input: lines `NAME=VALUE`, and after a line [`FILE`] the text of the settings file.
//!
//! Whether a secret is told is seen by giving another one: nothing that is printed may change.

use std::collections::BTreeMap;

use callhook::config::{self, Settings};
use callhook::http::FrontSettings;
use tempfile::NamedTempFile;
use url::Url;

/// Parts the environment from the file.
const FILE: &str = "---";

const FILE_VARIABLE: &str = "CALLHOOK_CONFIG";

const SECRETS: [&str; 5] =
    ["WEBHOOK_SECRET", "WEBHOOK_SIGNING_KEY", "HTTP_SECRET", "AGENT_SECRET", "ADMIN_TOKEN"];

const URLS: [&str; 2] = ["WEBHOOK_URL", "STS_URL"];

/// Stands for the secret in settings files.
const HUSH: &str = "hush";

type Environment = BTreeMap<String, String>;

/// Checks one environment and file.
pub fn check(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (lines, file) = parts(&input);
    let mut environment: Environment = lines
        .lines()
        .filter_map(|line| line.split_once('='))
        // Nothing but the file below is opened, lest a fuzzer finds /dev/zero.
        .filter(|(name, _)| *name != FILE_VARIABLE)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let written = file.map(write);
    if let Some(written) = &written {
        let path = written.path().to_str().expect("temporary paths are plain text");
        environment.insert(FILE_VARIABLE.to_owned(), path.to_owned());
    }
    let printed = print(&environment);
    assert_part(&environment, printed.is_ok());
    if let Some(other) = with_other_secrets(&environment) {
        // What is wrong with one secret is wrong with the other.
        assert_eq!(print(&other), printed, "a secret is told");
    }
    if file.is_some_and(|file| is_secret_in(file) && !lines.to_lowercase().contains(HUSH)) {
        let printed = format!("{printed:?}").to_lowercase();
        assert!(!printed.contains(HUSH), "a secret of the file is told: {printed}");
    }
}

fn parts(input: &str) -> (&str, Option<&str>) {
    let parts = input.strip_prefix("---\n").map(|file| ("", file));
    let parts = parts.or_else(|| input.split_once(&format!("\n{FILE}\n")));
    parts.map_or((input, None), |(lines, file)| (lines, Some(file)))
}

fn write(file: &str) -> NamedTempFile {
    let written = NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(written.path(), file).expect("it can be written to");
    written
}

/// Everything that is ever printed about the settings.
fn print(environment: &Environment) -> Result<String, Vec<String>> {
    let settings = Settings::of_environment(environment);
    let described = config::describe(environment);
    match settings {
        Ok(settings) => {
            assert_limits(&settings);
            let mut printed = described.expect("the settings are in order");
            let webhook = settings.webhooks.iter().flatten();
            printed
                .extend(webhook.flat_map(|webhook| [webhook.shown_url(), webhook.host_and_port()]));
            printed.extend(settings.fallback.map(|url| url.to_string()));
            Ok(printed)
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            assert_eq!(described.err().as_ref(), Some(&faults));
            Err(faults.iter().map(ToString::to_string).collect())
        }
    }
}

/// A part has no faults that the whole lacks.
fn assert_part(environment: &Environment, whole_is_right: bool) {
    let front = FrontSettings::of_environment(environment);
    assert!(!whole_is_right || front.is_ok(), "{front:?}");
}

/// What the settings document promises.
fn assert_limits(settings: &Settings) {
    let millis = |from: u128, to: u128, given: std::time::Duration| {
        assert!((from..=to).contains(&given.as_millis()), "{given:?}");
    };
    for webhook in settings.webhooks.iter().flatten() {
        assert!(matches!(webhook.url.scheme(), "http" | "https") && webhook.url.has_host());
        millis(1, 600_000, webhook.timeout);
    }
    if let Some(url) = &settings.fallback {
        let url = Url::parse(url.as_str()).expect("it was checked");
        assert!(matches!(url.scheme(), "ws" | "wss") && url.has_host(), "{url}");
    }
    millis(1000, 86_400_000, settings.call.idle_timeout);
    millis(0, 86_400_000, settings.call_drain_timeout);
    millis(1, 3_600_000, settings.drain_timeout);
    for rules in &settings.queue.receivers {
        millis(1, 600_000, rules.limits.routing_timeout);
        assert!((1..=101).contains(&rules.retry.attempts()));
        millis(0, 3_600_000, rules.retry.delay_after(rules.retry.attempts()));
        assert!((1..=10_000).contains(&rules.limits.concurrency));
        assert!((1..=10_000_000).contains(&rules.limits.queue));
        assert!(rules.limits.breaker <= 1_000_000);
    }
    assert!((1..=10_000_000).contains(&settings.dead_limit));
    for listen in [&settings.front.listen, &settings.call.listen, &settings.admin.listen] {
        assert!(!listen.host.is_empty());
    }
    let host = &settings.admin.listen.host;
    let local = host == "localhost" || host == "::1" || host.starts_with("127.");
    assert!(local || settings.admin.tokens.are_set(), "{host} without a token");
}

/// The same environment with other secrets, if there are any.
fn with_other_secrets(environment: &Environment) -> Option<Environment> {
    let mut other = environment.clone();
    for name in SECRETS {
        if let Some(given) = environment.get(name) {
            let changed = another_secret(given);
            // By chance it is a word that stands for "not set".
            if is_set(given) == is_set(&changed) {
                other.insert(name.to_owned(), changed);
            }
        }
    }
    for name in URLS {
        if let Some(changed) = environment.get(name).and_then(|given| with_another_user(given)) {
            other.insert(name.to_owned(), changed);
        }
    }
    (other != *environment).then_some(other)
}

/// Another secret that is fit for the same: neither a key's mark nor the odd bits at its end change.
fn another_secret(given: &str) -> String {
    let trimmed = given.trim();
    let before = given.len() - given.trim_start().len();
    let mark = if trimmed.starts_with("whsec_") { "whsec_".len() } else { 0 };
    let bare = trimmed.trim_end_matches('=');
    let end = bare.char_indices().next_back().map_or(0, |(at, _)| at).max(mark);
    let (start, end) = (before + mark, before + end);
    format!("{}{}{}", &given[..start], turned(&given[start..end]), &given[end..])
}

fn is_set(text: &str) -> bool {
    !matches!(text.trim(), "" | "undefined" | "null")
}

/// Another text of the same length, with letters for letters and digits for digits.
fn turned(text: &str) -> String {
    let next = |char| match char {
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from(char as u8 + 1),
        _ => char,
    };
    text.chars().map(next).collect()
}

/// The URL with another user part, as the URL standard sees it; in a text that is no URL, or has no
/// host, with anything else before the last `@`.
fn with_another_user(text: &str) -> Option<String> {
    let parsed = Url::parse(text.trim());
    let scheme = text.find(':').map_or(0, |at| at + 1);
    let found = text.match_indices('@').rev().find_map(|(at, _)| {
        let changed = |start: usize| {
            let user = text.get(start..at)?;
            Some(format!("{}{}{}", &text[..start], turned(user), &text[at..]))
        };
        match &parsed {
            Ok(url) if url.has_host() => changed(scheme).filter(|changed| {
                let other = Url::parse(changed.trim());
                other.is_ok_and(|other| is_user_alone_different(url, &other))
            }),
            Ok(_) => changed(after_scheme(text))
                .filter(|changed| Url::parse(changed.trim()).is_ok_and(|other| !other.has_host())),
            Err(error) => changed(after_scheme(text))
                .filter(|changed| Url::parse(changed.trim()).as_ref() == Err(error)),
        }
    });
    found.filter(|changed| changed != text)
}

/// Where a user part may begin: after what may be meant for a scheme, and its slashes.
fn after_scheme(text: &str) -> usize {
    let before = text.split('@').next().unwrap_or_default();
    let slashes = before.find("//").filter(|at| !before[..*at].trim_end_matches(':').contains(':'));
    slashes.map_or(0, |at| at + 2)
}

fn is_user_alone_different(one: &Url, other: &Url) -> bool {
    let user = |url: &Url| (url.username().to_owned(), url.password().map(ToOwned::to_owned));
    let rest = |url: &Url| url[url::Position::BeforeHost..].to_owned();
    one.scheme() == other.scheme() && rest(one) == rest(other) && user(one) != user(other)
}

/// Whether [`HUSH`] stands in the value of a secret, and nowhere else.
fn is_secret_in(file: &str) -> bool {
    let is_secret = |line: &str| {
        // The keys of a table are names, and may be told.
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        !value.contains('{') && SECRETS.iter().any(|name| name.to_lowercase() == key.trim())
    };
    // A text over several lines may look like a secret, and be none.
    let many = file.contains("\"\"\"") || file.contains("'''");
    let file = file.to_lowercase();
    let mut lines = file.lines().filter(|line| line.contains(HUSH)).peekable();
    !many && lines.peek().is_some() && lines.all(is_secret)
}
