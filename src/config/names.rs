//! Names: which settings there are, and what kind of text each has.
//!
//! Those of the settings document, and for each further receiver the same ten: `RECEIVER_CRM_URL` is to the receiver
//! `crm` what `WEBHOOK_URL` is to the main one.

use crate::receiver::ReceiverName;

/// The settings document: every setting with its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// What a further receiver has of its own.
pub const OF_RECEIVER: [&str; 10] = [
    "URL",
    "SECRET",
    "SIGNING_KEY",
    "EVENTS",
    "TIMEOUT",
    "RETRY",
    "HEADERS",
    CERTIFICATE,
    KEY,
    "PROXY",
];

const CERTIFICATE: &str = "CLIENT_CERT";
const KEY: &str = "CLIENT_KEY";

/// Of these, what is the main one's where it is not set.
const INHERITED: [&str; 3] = ["WEBHOOK_EVENTS", "WEBHOOK_TIMEOUT", "WEBHOOK_RETRY"];

pub const FURTHER: &str = "RECEIVER_";
const FILE_SUFFIX: &str = "_FILE";

/// What is or may hold a secret.
const SECRETS: [&str; 8] = [
    "WEBHOOK_URL",
    "WEBHOOK_SECRET",
    "WEBHOOK_SIGNING_KEY",
    "WEBHOOK_HEADERS",
    "WEBHOOK_PROXY",
    "HTTP_SECRET",
    "AGENT_SECRET",
    "ADMIN_TOKEN",
];

/// What a further receiver's setting is to the main one; other names as they are.
pub fn as_main(name: &str) -> String {
    let further = name.strip_prefix(FURTHER).and_then(|rest| rest.split_once('_'));
    further.map_or_else(|| name.to_owned(), |(_, suffix)| ReceiverName::main().variable(suffix))
}

/// Where a further receiver's value comes from, if it has none of its own.
pub fn inherited(name: &str) -> Option<String> {
    let main = as_main(name);
    (main != name && INHERITED.contains(&&*main)).then_some(main)
}

/// It may be set by a variable with `_FILE`, and is not shown.
pub fn is_secret(name: &str) -> bool {
    SECRETS.contains(&&*as_main(name))
}

/// It is the path of a file with a certificate or a key.
pub fn is_pem(name: &str) -> bool {
    name.ends_with(CERTIFICATE) || name.ends_with(KEY)
}

/// In TOML it may be a table of texts.
pub fn is_table(name: &str) -> bool {
    name.ends_with("_HEADERS")
}

/// What has to be read anew together with it: of a certificate and its key, neither is any good with the other's
/// predecessor.
pub fn group(name: &str) -> &str {
    name.strip_suffix(CERTIFICATE).or_else(|| name.strip_suffix(KEY)).unwrap_or(name)
}

/// The variable that names the file of a secret.
pub fn file_variable(name: &str) -> String {
    format!("{name}{FILE_SUFFIX}")
}

/// All that may be set in a variable of its own.
pub fn variables(names: &[String]) -> Vec<String> {
    let files = names.iter().filter(|name| is_secret(name)).map(|name| file_variable(name));
    names.iter().cloned().chain(files).collect()
}

/// The names of a further receiver's settings.
pub fn of_receiver(name: &ReceiverName) -> Vec<String> {
    OF_RECEIVER.map(|suffix| name.variable(suffix)).to_vec()
}

/// The upper-case names of the settings document, in its order.
pub fn documented() -> Vec<String> {
    DEFAULTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_uppercase())
        .collect()
}
