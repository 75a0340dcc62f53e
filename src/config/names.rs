//! Names: which settings there are, and what kind of text each has.

/// The settings document: every setting with its meaning and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

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

const CERTIFICATE: &str = "_CLIENT_CERT";
const KEY: &str = "_CLIENT_KEY";

/// It may be set by a variable with `_FILE`, and is not shown.
pub fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
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

/// The upper-case names of the settings document, in its order.
pub fn documented() -> Vec<String> {
    DEFAULTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_uppercase())
        .collect()
}
