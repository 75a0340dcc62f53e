//! Settings: each is checked here, once.
//!
//! Owns the layers ([`layers`]), the checks ([`reader`]) and the masking. Each part of the program
//! gets a struct that is defined with that part. The lowest layer, `config/default.toml`, explains
//! every setting.
//!
//! Invariants:
//! - All errors are reported at once.
//! - Secrets are [`SecretString`](secrecy::SecretString), or of a type that does not print itself.

mod advice;
mod error;
mod further;
mod layers;
mod names;
mod reader;
mod receiver;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use tracing::level_filters::LevelFilter;

pub use self::error::SettingError;
use self::layers::Layers;
use self::names::inherited;
pub use self::reader::header_value;
use self::reader::{SettingsReader, shown, size};
use self::receiver::{ReadReceivers, TEN_MINUTES, read_receivers};
use crate::bridge::{AudioCodec, CallSettings};
use crate::calls::CallRules;
use crate::delivery::WebhookSettings;
use crate::http::{FrontSettings, Secrets};
use crate::inspector::AdminSettings;
use crate::listener::ListenAddress;
use crate::log::{LogFormat, LogSettings};
use crate::queue::QueueSettings;
use crate::routing::destination::{DestinationRule, Destinations};
use crate::routing::{AllowedHosts, HostRule, RouteRules, StsUrl};

/// Where `ROUTING_TIMEOUT` is not set: AVR Core waits for 3 s, unless told otherwise, for the answer to its own request.
const RELAY_TIMEOUT: Duration = Duration::from_millis(2500);

const ONE_HOUR: u32 = 3_600_000;
const ONE_DAY: u32 = 86_400_000;

#[derive(Clone, Debug)]
pub struct Settings {
    /// By [`ReceiverId`](crate::receiver::ReceiverId), as in `queue`. `None`, which only the main one can be, = run
    /// without it.
    pub webhooks: Vec<Option<WebhookSettings>>,
    pub queue: QueueSettings,
    /// `STS_URL`: for calls that the receiver does not route.
    pub fallback: Option<StsUrl>,
    /// `X-AVR-AGENT-ID`.
    pub agent: Option<HeaderValue>,
    pub front: FrontSettings,
    pub call: CallSettings,
    /// Which calls are taken.
    pub rules: CallRules,
    pub admin: AdminSettings,
    /// `None` = events wait in memory only.
    pub journal: Option<PathBuf>,
    /// The most dead letters that are kept.
    pub dead_limit: u64,
    /// How long live calls may go on once a stop has begun, before `drain_timeout`.
    pub call_drain_timeout: Duration,
    pub drain_timeout: Duration,
    pub log: LogSettings,
    /// What is probably a mistake, but no error; to be logged.
    pub warnings: Vec<String>,
    pub renewal: Renewal,
}

/// Reads secrets that stand in files of their own anew, while callhook runs.
#[derive(Clone)]
pub struct Renewal(Layers);

/// What came of it.
#[derive(Debug)]
pub struct Renewed {
    /// The names of the settings that changed.
    pub changed: Vec<String>,
    /// Those that stay as they were, since their file is bad.
    pub errors: Vec<SettingError>,
    /// What is probably a mistake in what is read.
    pub warnings: Vec<String>,
    /// As in [`Settings`].
    pub webhooks: Vec<Option<WebhookSettings>>,
    pub front: FrontSettings,
    pub admin: AdminSettings,
}

impl Renewal {
    pub fn renew(&mut self) -> Renewed {
        let checked = |layers: &Layers| {
            let mut reader = SettingsReader::new(layers, Vec::new());
            let settings = read_all(&mut reader);
            let errors = reader.into_errors();
            if errors.is_empty() { Ok(settings) } else { Err(errors) }
        };
        let (changed, errors) = self.0.reread(|layers| checked(layers).map(drop));
        let settings = checked(&self.0).expect("what is bad was not taken");
        let warnings = advice::out_of_date(&settings.webhooks, &self.0);
        let Settings { webhooks, front, admin, .. } = settings;
        Renewed { changed, errors, warnings, webhooks, front, admin }
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal(***)")
    }
}

impl FrontSettings {
    /// The front's settings alone, for `callhook health`.
    ///
    /// # Errors
    /// Every error in them and in the settings file.
    pub fn of_environment(
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<SettingError>> {
        read_part(environment, read_front)
    }
}

impl AdminSettings {
    /// The admin port's settings alone, for `callhook dead`.
    ///
    /// # Errors
    /// Every error in them and in the settings file.
    pub fn of_environment(
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<SettingError>> {
        read_part(environment, read_admin)
    }
}

impl Settings {
    /// # Errors
    /// All errors at once.
    pub fn of_environment(
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<SettingError>> {
        Self::read(environment).0
    }

    fn read(environment: &BTreeMap<String, String>) -> (Result<Self, Vec<SettingError>>, Layers) {
        let mut errors = Vec::new();
        let layers = Layers::read(environment, &mut errors);
        let mut reader = SettingsReader::new(&layers, errors);
        let mut settings = read_all(&mut reader);
        let mut warnings = advice::unknown_names(environment, layers.names());
        for receiver in &settings.queue.receivers {
            let variable = receiver.name.variable("EVENTS");
            if layers.text(&variable).is_some() {
                warnings.extend(advice::unknown_events(&variable, &receiver.filter));
            }
        }
        settings.warnings.clone_from(&warnings);
        let mut errors = reader.into_errors();
        if errors.is_empty() {
            settings.warnings.extend(advice::out_of_date(&settings.webhooks, &layers));
            let has_sts = settings.fallback.is_some();
            settings.warnings.extend(advice::missing_speech(environment, has_sts));
            let transfer_to = &settings.front.transfer_to;
            settings.warnings.extend(advice::odd_destinations("TRANSFER_TO", transfer_to));
            if layers.text("ROUTE_TO").is_some() {
                let route_to = settings.queue.rules.people.iter();
                let odd = route_to.flat_map(|to| advice::odd_destinations("ROUTE_TO", to));
                settings.warnings.extend(odd);
            }
            return (Ok(settings), layers);
        }
        // A setting is often missing because its name was misspelt.
        errors.extend(warnings.into_iter().map(SettingError::from));
        (Err(errors), layers)
    }
}

/// The process environment, with replacement characters where it is not UTF-8.
pub fn environment() -> BTreeMap<String, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect()
}

/// What `callhook config` prints: each setting, its value and where that comes from.
///
/// # Errors
/// All errors at once.
pub fn describe(environment: &BTreeMap<String, String>) -> Result<String, Vec<SettingError>> {
    let (settings, layers) = Settings::read(environment);
    let warnings = settings?.warnings;
    let rows: Vec<(String, String)> = layers
        .names()
        .iter()
        .map(|name| match inherited(name).filter(|_| layers.text(name).is_none()) {
            Some(main) => {
                let source = format!("as {main} ({})", layers.source(&main));
                (format!("{name}={}", shown(&layers, &main)), source)
            }
            None => (format!("{name}={}", shown(&layers, name)), layers.source(name)),
        })
        .collect();
    let width = rows.iter().map(|(row, _)| row.chars().count()).max().unwrap_or_default().min(60);
    let warnings = warnings.into_iter().map(|warning| format!("# {warning}\n"));
    let rows = rows.into_iter().map(|(row, source)| format!("{row:width$}  # {source}\n"));
    Ok(rows.chain(warnings).collect())
}

fn read_all(reader: &mut SettingsReader<'_>) -> Settings {
    let routing_timeout = reader.millis("ROUTING_TIMEOUT", 1..=TEN_MINUTES);
    let is_default = reader.is_default("ROUTING_TIMEOUT");
    let ReadReceivers { webhooks, rules: receivers } = read_receivers(reader, routing_timeout);
    let front = read_front(reader);
    Settings {
        queue: QueueSettings {
            receivers,
            relay_timeout: if is_default { RELAY_TIMEOUT } else { routing_timeout },
            rules: RouteRules {
                hosts: read_allowed_hosts(reader),
                people: Some(read_route_to(reader, &front.transfer_to)),
            },
        },
        webhooks,
        fallback: reader.value("STS_URL"),
        agent: reader.checked("AGENT_ID", header_value),
        rules: read_rules(reader),
        front,
        call: CallSettings {
            listen: read_listen(reader, "AUDIOSOCKET_HOST", "PORT"),
            codec: reader.value("AUDIO_CODEC").unwrap_or(AudioCodec::Auto),
            idle_timeout: reader.millis("CALL_IDLE_TIMEOUT", 1000..=ONE_DAY),
            max_duration: Some(reader.millis("CALL_MAX_DURATION", 0..=ONE_DAY))
                .filter(|longest| !longest.is_zero()),
            ended_details: read_switch(reader, "CALL_ENDED_DETAILS"),
        },
        admin: read_admin(reader),
        journal: reader.text("JOURNAL_PATH").filter(|path| path != "none").map(PathBuf::from),
        dead_limit: reader.number("DEAD_LIMIT", 1..=10_000_000).into(),
        call_drain_timeout: reader.millis("CALL_DRAIN_TIMEOUT", 0..=ONE_DAY),
        drain_timeout: reader.millis("DRAIN_TIMEOUT", 1..=ONE_HOUR),
        log: LogSettings {
            format: reader.value("LOG_FORMAT").unwrap_or(LogFormat::Text),
            level: reader.checked("LOG_LEVEL", level).unwrap_or(LevelFilter::INFO),
        },
        warnings: Vec::new(),
        renewal: Renewal(reader.layers().clone()),
    }
}

fn read_part<T>(
    environment: &BTreeMap<String, String>,
    read: impl FnOnce(&mut SettingsReader<'_>) -> T,
) -> Result<T, Vec<SettingError>> {
    let mut errors = Vec::new();
    let layers = Layers::read(environment, &mut errors);
    let mut reader = SettingsReader::new(&layers, errors);
    let part = read(&mut reader);
    let errors = reader.into_errors();
    if errors.is_empty() { Ok(part) } else { Err(errors) }
}

fn read_route_to(reader: &mut SettingsReader<'_>, transfer_to: &Destinations) -> Destinations {
    match reader.text("ROUTE_TO") {
        Some(_) => read_destinations(reader, "ROUTE_TO"),
        // Its faults are told once.
        None => transfer_to.clone(),
    }
}

fn read_allowed_hosts(reader: &mut SettingsReader<'_>) -> AllowedHosts {
    let rules: Option<Vec<HostRule>> = reader.list("STS_ALLOWED_HOSTS");
    rules.map_or(AllowedHosts::Any, AllowedHosts::Only)
}

fn read_front(reader: &mut SettingsReader<'_>) -> FrontSettings {
    FrontSettings {
        listen: read_listen(reader, "HTTP_HOST", "HTTP_PORT"),
        secrets: read_secrets(reader, "HTTP_SECRET"),
        agent_secrets: read_secrets(reader, "AGENT_SECRET"),
        transfer_to: read_destinations(reader, "TRANSFER_TO"),
    }
}

fn read_destinations(reader: &mut SettingsReader<'_>, name: &str) -> Destinations {
    let rules: Option<Vec<DestinationRule>> = reader.list(name);
    Destinations::new(rules.unwrap_or_default())
}

fn read_rules(reader: &mut SettingsReader<'_>) -> CallRules {
    let announced_only = reader.checked("AUDIOSOCKET_UNANNOUNCED", |text| match text {
        "accept" => Ok(false),
        "refuse" => Ok(true),
        _ => Err("expected accept or refuse".to_owned()),
    });
    let limit = size(reader.number("CALL_LIMIT", 0..=10_000));
    CallRules {
        limit: Some(limit).filter(|limit| *limit > 0),
        announced_only: announced_only.unwrap_or_default(),
    }
}

fn read_admin(reader: &mut SettingsReader<'_>) -> AdminSettings {
    let listen = read_listen(reader, "ADMIN_HOST", "ADMIN_PORT");
    let tokens = read_secrets(reader, "ADMIN_TOKEN");
    let loopback =
        listen.host == "localhost" || listen.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if !tokens.are_set() && !loopback {
        reader.add(SettingError::missing(
            "ADMIN_TOKEN",
            &format!(
                "ADMIN_HOST={} can be reached from other machines, so a token is required \
                 (or set ADMIN_HOST=127.0.0.1)",
                listen.host
            ),
        ));
    }
    AdminSettings { listen, tokens, calls: size(reader.number("INSPECTOR_CALLS", 0..=20_000)) }
}

fn read_listen(reader: &mut SettingsReader<'_>, host: &str, port: &str) -> ListenAddress {
    let host = reader.checked(host, |text| match url::Host::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text.parse::<IpAddr>().is_ok() => Ok(text.to_owned()),
        Err(_) => Err("expected an address to listen on, such as 0.0.0.0 or 127.0.0.1".to_owned()),
    });
    let port = reader.checked(port, |text| {
        text.parse()
            .map_err(|_| "expected a port from 1 to 65535, or 0 for any free one".to_owned())
    });
    ListenAddress { host: host.unwrap_or_default(), port: port.unwrap_or_default() }
}

/// In a file of its own, each line is accepted.
fn read_secrets(reader: &mut SettingsReader<'_>, name: &str) -> Secrets {
    let is_file = reader.is_from_file(name);
    let secrets = reader.checked(name, |text| {
        let lines: Vec<&str> = match is_file {
            true => text.lines().filter(|line| !line.trim().is_empty()).collect(),
            false => vec![text],
        };
        lines.into_iter().map(|line| header_value(line).map(|_| line.into())).collect()
    });
    Secrets::new(secrets.unwrap_or_default())
}

fn read_switch(reader: &mut SettingsReader<'_>, name: &str) -> bool {
    let switch =
        reader.checked(name, |text| text.parse().map_err(|_| "expected true or false".to_owned()));
    switch.unwrap_or_default()
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("expected error, warn, info, debug or trace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventFilter, EventType};

    fn environment(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
        vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_defaults_need_only_the_receivers_url() {
        let settings = Settings::of_environment(&environment(&[
            ("WEBHOOK_URL", "http://h:9000/events"),
            ("STS_URL", "ws://sts"),
        ]))
        .unwrap();
        assert_eq!(settings.webhooks[0].as_ref().unwrap().timeout, Duration::from_secs(3));
        assert_eq!(settings.queue.main().filter, EventFilter::Only(EventType::KNOWN[..6].to_vec()));
        assert_eq!(settings.queue.main().limits.queue, 100_000);
        assert_eq!(settings.front.listen.to_string(), "0.0.0.0:6001");
        assert_eq!(settings.journal, Some(PathBuf::from("data/callhook.redb")));
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn every_error_is_reported_at_once_with_variable_value_and_what_is_accepted() {
        let errors = Settings::of_environment(&environment(&[
            ("WEBHOOK_URL", "ftp://user:hush@h"),
            ("WEBHOOK_TIMEOUT", "3s"),
            ("WEBHOOK_SIGNING_KEY", "hush"),
            ("STS_URL", "http://h"),
            ("ADMIN_HOST", "0.0.0.0"),
            ("LOG_FORMAT", "xml"),
        ]));
        let told: Vec<String> = errors.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 6, "{told:#?}");
        let all = told.join("\n");
        assert!(!all.contains("hush"), "{all}");
        assert!(all.contains(
            "WEBHOOK_TIMEOUT=3s (environment): expected whole milliseconds from 1 to 600000"
        ));
    }

    #[test]
    fn every_setting_in_the_settings_document_is_read() {
        let names = Layers::read(&BTreeMap::new(), &mut Vec::new()).names().to_vec();
        let mut errors = 0;
        for name in &names {
            // A value that no setting accepts is an error wherever the setting is read.
            let given = environment(&[(name, "\u{1}")]);
            let mut faults = Vec::new();
            let layers = Layers::read(&given, &mut faults);
            let mut reader = SettingsReader::new(&layers, faults);
            read_all(&mut reader);
            let told = reader.into_errors().iter().any(|error| error.to_string().starts_with(name));
            errors += usize::from(told);
        }
        // A path may be any text.
        assert_eq!(errors, names.len() - 1);
    }
}
