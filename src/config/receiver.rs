//! The receivers' settings: those of the main one, and of each further one what it has of its own.
//!
//! One function reads them all, by the receiver's name. Of a further receiver events, timeout and retry are the main
//! one's where they are not set; whatever identifies callhook to a receiver never is.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::error::SettingError;
use super::reader::{SettingsReader, header_value, size};
use crate::delivery::WebhookSettings;
use crate::delivery::headers::read_headers;
use crate::event::{EventFilter, EventType};
use crate::queue::{Limits, ReceiverRules};
use crate::receiver::ReceiverName;
use crate::retry::{BadDelays, Delays, RetryPolicy};
use crate::wire::identity::{Identity, certificates, private_key};

/// No phone call waits longer for anything.
pub const TEN_MINUTES: u32 = 600_000;
const ONE_HOUR: u32 = 3_600_000;

/// By [`ReceiverId`](crate::receiver::ReceiverId).
pub struct ReadReceivers {
    pub webhooks: Vec<Option<WebhookSettings>>,
    pub rules: Vec<ReceiverRules>,
}

/// What holds for every receiver alike.
struct Alike {
    limits: Limits,
    /// `None` where they are not accepted.
    delays: Option<Delays>,
}

pub fn read_receivers(reader: &mut SettingsReader<'_>, routing_timeout: Duration) -> ReadReceivers {
    let alike = read_alike(reader, routing_timeout);
    let (webhook, main) = read_receiver(reader, ReceiverName::main(), &alike, None);
    let (mut webhooks, mut rules) = (vec![webhook], vec![main]);
    for name in reader.layers().receivers() {
        let (webhook, further) = read_receiver(reader, name.clone(), &alike, Some(&rules[0]));
        webhooks.push(webhook);
        rules.push(further);
    }
    ReadReceivers { webhooks, rules }
}

fn read_alike(reader: &mut SettingsReader<'_>, routing_timeout: Duration) -> Alike {
    let limits = Limits {
        concurrency: size(reader.number("WEBHOOK_CONCURRENCY", 1..=10_000)),
        queue: size(reader.number("QUEUE_LIMIT", 1..=10_000_000)),
        bytes: size(reader.number("QUEUE_BYTES", 1..=u32::MAX)),
        routing_timeout,
        breaker: reader.number("WEBHOOK_BREAKER", 0..=1_000_000),
        ..Limits::default()
    };
    Alike { limits, delays: read_delays(reader) }
}

/// `main` is the main one, unless it is itself read.
fn read_receiver(
    reader: &mut SettingsReader<'_>,
    name: ReceiverName,
    alike: &Alike,
    main: Option<&ReceiverRules>,
) -> (Option<WebhookSettings>, ReceiverRules) {
    let filter = main.map(|main| main.filter.clone());
    let filter = own_or(reader, &name.variable("EVENTS"), filter, read_events);
    let timeout = main.map(|main| main.limits.timeout);
    let timeout = own_or(reader, &name.variable("TIMEOUT"), timeout, |reader, name| {
        reader.millis(name, 1..=TEN_MINUTES)
    });
    let retries = main.map(|main| main.retry.attempts() - 1);
    let retries = own_or(reader, &name.variable("RETRY"), retries, |reader, name| {
        reader.number(name, 0..=100)
    });
    let retry = alike.delays.map(|delays| RetryPolicy::new(retries, delays));
    let webhook = read_webhook(reader, name.clone(), timeout);
    let rules = ReceiverRules {
        filter,
        retry: retry.unwrap_or(RetryPolicy::once()),
        limits: Limits { timeout, ..alike.limits },
        name,
    };
    (webhook, rules)
}

/// What is set under this name, else the main receiver's, whose faults are told once.
fn own_or<T>(
    reader: &mut SettingsReader<'_>,
    name: &str,
    main: Option<T>,
    read: impl FnOnce(&mut SettingsReader<'_>, &str) -> T,
) -> T {
    match main {
        Some(main) if reader.text(name).is_none() => main,
        Some(_) | None => read(reader, name),
    }
}

fn read_events(reader: &mut SettingsReader<'_>, name: &str) -> EventFilter {
    let kinds: Vec<EventType> = reader.list(name).unwrap_or_default();
    if kinds.iter().any(|kind| kind.name() == "*") {
        EventFilter::All
    } else {
        EventFilter::Only(kinds)
    }
}

fn read_delays(reader: &mut SettingsReader<'_>) -> Option<Delays> {
    let first = reader.valid_millis("WEBHOOK_BACKOFF", 0..=ONE_HOUR);
    let ceiling = reader.valid_millis("WEBHOOK_BACKOFF_MAX", 0..=ONE_HOUR);
    let (first, ceiling) = (first?, ceiling?);
    match Delays::try_new(first, ceiling) {
        Ok(delays) => Some(delays),
        Err(BadDelays) => {
            let accepted = format!(
                "expected at most WEBHOOK_BACKOFF_MAX={} ({})",
                ceiling.as_millis(),
                reader.source("WEBHOOK_BACKOFF_MAX")
            );
            reader.refuse("WEBHOOK_BACKOFF", accepted);
            None
        }
    }
}

/// `None` without a URL to send to, which is an error but for the main receiver's `none`.
fn read_webhook(
    reader: &mut SettingsReader<'_>,
    receiver: ReceiverName,
    timeout: Duration,
) -> Option<WebhookSettings> {
    let name = |suffix: &str| receiver.variable(suffix);
    let url = read_url(reader, &receiver);
    let scheme = url.as_ref().map(Url::scheme);
    let has_user =
        url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some());
    let secret = read_secret(reader, &name("SECRET"));
    let signing_keys = reader.value(&name("SIGNING_KEY"));
    let headers = reader.checked(&name("HEADERS"), |text| read_headers(text, has_user));
    let identity = read_identity(reader, &name("CLIENT_CERT"), &name("CLIENT_KEY"), scheme);
    let proxy = reader.value(&name("PROXY"));
    let url_is_secret = reader.is_from_file(&name("URL"));
    let headers = headers.unwrap_or_default();
    let plain = WebhookSettings { name: receiver, ..WebhookSettings::to(url?, timeout) };
    Some(WebhookSettings { url_is_secret, secret, signing_keys, headers, identity, proxy, ..plain })
}

fn read_url(reader: &mut SettingsReader<'_>, receiver: &ReceiverName) -> Option<Url> {
    let may_be_none = *receiver == ReceiverName::main();
    let otherwise = match may_be_none {
        true => ", or none to run without a receiver".to_owned(),
        false => format!("; to have no receiver {receiver}, leave all of its settings out"),
    };
    let expected = format!(
        "expected the receiver's http:// or https:// URL, such as http://avr-webhook:9000/events{otherwise} \
         (a / ? # @ before the host is written %2F %3F %23 %40)"
    );
    let variable = receiver.variable("URL");
    if reader.text(&variable).is_none() && !reader.is_from_file(&variable) {
        reader.add(SettingError::missing(&variable, &expected));
    }
    let url = reader.checked(&variable, |text| match WebhookSettings::read_url(text) {
        None if text == "none" && may_be_none => Ok(None),
        Some(url) => Ok(Some(url)),
        None => Err(expected),
    });
    url.flatten()
}

fn read_secret(reader: &mut SettingsReader<'_>, name: &str) -> Option<SecretString> {
    let value = reader.checked(name, header_value)?;
    let text = value.to_str().expect("it was checked to be visible ASCII");
    Some(text.into())
}

/// A certificate and its key, told apart from what is wrong with either.
fn read_identity(
    reader: &mut SettingsReader<'_>,
    certificate: &str,
    key: &str,
    scheme: Option<&str>,
) -> Option<Identity> {
    let missing = match (reader.text(certificate), reader.text(key)) {
        (None, None) => return None,
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some((key, certificate, "the key of that certificate")),
        (None, Some(_)) => Some((certificate, key, "the certificate of that key")),
    };
    if let Some((missing, given, what)) = missing {
        let text = format!("{given} is set; expected the path of a PEM file with {what}");
        reader.add(SettingError::missing(missing, &text));
    }
    if scheme == Some("http") {
        reader.refuse(
            certificate,
            "the receiver's URL is http://, so nobody would ask for it; expected an https:// URL, or no certificate",
        );
    }
    let chain = reader.content(certificate, certificates);
    let signing = reader.content(key, private_key);
    match Identity::new(chain?, signing?) {
        Ok(identity) => Some(identity),
        Err(fault) => {
            reader.refuse(key, fault);
            None
        }
    }
}
