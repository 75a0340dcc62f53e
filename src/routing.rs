//! Routing: what did the receiver decide, and which speech-to-speech URL follows from it?
//!
//! Sees neither socket nor clock, and remembers nothing but the last decision. Owns what a valid STS URL is, which hosts
//! a receiver may route to, how its answer is read, and how the payload becomes query parameters; where in the dialplan
//! a caller may be sent is [`destination`]'s.
//!
//! Invariants:
//! - An [`StsUrl`] is `ws` or `wss` and has a host. [`Display`](fmt::Display) never shows its userinfo.
//! - A parameter that the base URL already has is not appended: the receiver's decision wins over what the
//!   dialplan sent.

pub mod destination;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;
use url::Url;
use url::form_urlencoded::byte_serialize;

use crate::event::{JsonString, Payload, fields};

/// In bytes: Asterisk truncates the answer that carries the URL at about 4000.
pub const MAX_STS_URL: usize = 4096;

/// A `ws` or `wss` URL with a host, of at most [`MAX_STS_URL`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsUrl(Url);

impl StsUrl {
    /// With userinfo: for connecting, not for showing.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// `host` or `host:port`, for logs: a query may hold keys.
    pub fn host_and_port(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Goes before the first appended parameter.
    fn separator(&self) -> &'static str {
        match self.0.query() {
            None => "?",
            // The URL ends in `?`.
            Some("") => "",
            Some(_) => "&",
        }
    }
}

impl FromStr for StsUrl {
    type Err = BadStsUrl;

    fn from_str(text: &str) -> Result<Self, BadStsUrl> {
        if text.len() > MAX_STS_URL {
            return Err(BadStsUrl(format!("it is longer than {MAX_STS_URL} bytes")));
        }
        let url = Url::parse(text).map_err(|error| BadStsUrl(error.to_string()))?;
        match (url.scheme(), url.has_host()) {
            ("ws" | "wss", true) => Ok(Self(url)),
            ("ws" | "wss", false) => Err(BadStsUrl("it has no host".to_owned())),
            // Not quoted: without `//`, what was parsed as the scheme may be a user name.
            (_, _) => Err(BadStsUrl("its scheme is neither".to_owned())),
        }
    }
}

impl fmt::Display for StsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_user(&self.0).as_str())
    }
}

/// Holds the reason.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a ws:// or wss:// URL with a host ({0})")]
pub struct BadStsUrl(String);

/// For logs and pages.
pub fn without_user(url: &Url) -> Cow<'_, Url> {
    if url.username().is_empty() && url.password().is_none() {
        return Cow::Borrowed(url);
    }
    let mut url = url.clone();
    // Both fail only for URLs that cannot have userinfo, and this one has it.
    url.set_username("").expect("the URL has userinfo");
    url.set_password(None).expect("the URL has userinfo");
    Cow::Owned(url)
}

/// `STS_ALLOWED_HOSTS`: where a receiver may route to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHosts {
    Any,
    Only(Vec<HostRule>),
}

impl AllowedHosts {
    fn admit(&self, url: &StsUrl) -> bool {
        match self {
            Self::Any => true,
            Self::Only(rules) => rules.iter().any(|rule| rule.admits(&url.0)),
        }
    }
}

/// `host` (any port) or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    host: url::Host<String>,
    port: Option<u16>,
}

impl HostRule {
    fn admits(&self, url: &Url) -> bool {
        // `ws` is a special scheme of the URL standard, so hosts in an StsUrl are parsed as in a rule.
        let same_host = url.host().map(|host| host.to_owned()).as_ref() == Some(&self.host);
        let same_port = self.port.is_none() || self.port == url.port_or_known_default();
        same_host && same_port
    }
}

impl FromStr for HostRule {
    type Err = BadHostRule;

    fn from_str(text: &str) -> Result<Self, BadHostRule> {
        let bare_ipv6 = text.starts_with('[') && text.ends_with(']');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bare_ipv6 => {
                (host, Some(port.parse().map_err(|_| BadHostRule)?))
            }
            Some(_) | None => (text, None),
        };
        let host = url::Host::parse(host).map_err(|_| BadHostRule)?;
        Ok(Self { host, port })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected host or host:port")]
pub struct BadHostRule;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The receiver's own text, which relays pass on unchanged.
    pub given: Box<str>,
    pub url: StsUrl,
}

impl Decision {
    /// From a decision's own text, which was accepted before; allowed hosts are not checked again.
    pub fn recall(given: &str) -> Option<Self> {
        let url = given.parse().ok()?;
        Some(Self { given: given.into(), url })
    }
}

/// Why a call goes to `STS_URL`: nobody decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum NoDecision {
    /// The receiver answered without an `sts_url`.
    #[strum(serialize = "none")]
    NotGiven,
    /// The receiver's `sts_url` cannot be followed.
    Invalid,
    /// `call_initiated` failed and will not be tried again in time.
    Failed,
    /// The receiver did not answer in time.
    TimedOut,
    ReceiverDown,
    /// The receiver asked for a pause that is longer than the caller can wait.
    ReceiverPaused,
    /// The last `WEBHOOK_BREAKER` `call_initiated` in a row failed.
    RoutingBroken,
    /// `call_initiated` was refused: the queue is full, or the disk fails.
    Refused,
    Stopping,
    /// `call_initiated` is not delivered (`WEBHOOK_EVENTS`), or there is no receiver.
    NotAsked,
}

impl NoDecision {
    /// As in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Reads the body of a receiver's 2xx answer to `call_initiated`.
///
/// `None` if it does not begin as a JSON object, or its `sts_url` is missing, `null` or empty. That is no error: most
/// receivers just answer `OK`. Whatever else the object holds costs no decision.
///
/// # Errors
/// If there is an `sts_url` that cannot be followed, or the object cannot be read.
pub fn decision(body: &[u8], allowed: &AllowedHosts) -> Result<Option<Decision>, BadDecision> {
    let body = String::from_utf8_lossy(body);
    // Some encoders write a byte order mark.
    let body = body.trim_start_matches('\u{feff}').trim_ascii_start();
    if !body.starts_with('{') {
        return Ok(None);
    }
    let fields = fields(body).map_err(|error| BadDecision::Json(error.to_string()))?;
    let mut given = fields.into_iter().filter(|(name, _)| *name.0 == *b"sts_url");
    let Some((_, url)) = given.next().filter(|(_, url)| url.get() != "null") else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(BadDecision::Twice);
    }
    let given = JsonString::from_strict(url.get()).ok_or(BadDecision::NotText)?.into_text();
    if given.is_empty() {
        return Ok(None);
    }
    let url: StsUrl = given.parse()?;
    if !allowed.admit(&url) {
        return Err(BadDecision::HostNotAllowed(url.host_and_port()));
    }
    Ok(Some(Decision { given: given.into(), url }))
}

/// In bytes: answers with an `sts_url` have some hundred.
const MOST_KEPT: usize = 4096;

/// Reads receivers' answers, and keeps the last decision: most receivers answer all calls alike, and parsing the URL
/// takes longer than all else about an answer.
#[derive(Debug)]
pub struct DecisionReader {
    allowed: AllowedHosts,
    last: Mutex<Option<KeptDecision>>,
}

#[derive(Debug)]
struct KeptDecision {
    /// At most [`MOST_KEPT`] bytes.
    answer: Box<[u8]>,
    decision: Arc<Decision>,
}

impl DecisionReader {
    pub fn new(allowed: AllowedHosts) -> Self {
        Self { allowed, last: Mutex::new(None) }
    }

    /// As [`decision`].
    ///
    /// # Errors
    /// Those of [`decision`].
    pub fn read(&self, body: &[u8]) -> Result<Option<Arc<Decision>>, BadDecision> {
        if let Some(kept) = self.last().as_ref().filter(|kept| *kept.answer == *body) {
            return Ok(Some(Arc::clone(&kept.decision)));
        }
        let decision = decision(body, &self.allowed)?.map(Arc::new);
        if let Some(decision) = decision.as_ref().filter(|_| body.len() <= MOST_KEPT) {
            let (answer, decision) = (body.into(), Arc::clone(decision));
            *self.last() = Some(KeptDecision { answer, decision });
        }
        Ok(decision)
    }

    fn last(&self) -> MutexGuard<'_, Option<KeptDecision>> {
        self.last.lock().expect("nothing panics while it holds this lock")
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDecision {
    #[error("the answer is invalid JSON: {0}")]
    Json(String),
    /// Which one counts would be a guess.
    #[error("duplicate key \"sts_url\"")]
    Twice,
    #[error("expected a string")]
    NotText,
    #[error(transparent)]
    Url(#[from] BadStsUrl),
    #[error("{0} is not among STS_ALLOWED_HOSTS")]
    HostNotAllowed(String),
}

/// The answer of `POST /call`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// `None` if there is neither a decision nor `STS_URL`.
    pub sts_url: Option<String>,
    /// Whether it is the receiver's decision.
    #[serde(rename = "override")]
    pub overridden: bool,
}

/// The decision's URL, else the fallback's, with the payload as query parameters.
pub fn route(decision: Option<&Decision>, fallback: Option<&StsUrl>, payload: &Payload) -> Route {
    Route {
        sts_url: decision
            .map(|decision| &decision.url)
            .or(fallback)
            .map(|base| effective_url(base, payload)),
        overridden: decision.is_some(),
    }
}

/// Appends each payload field as a query parameter, encoded as the URL standard encodes forms
/// (<https://url.spec.whatwg.org/#urlencoded-serializing>), and drops the fragment.
fn effective_url(base: &StsUrl, payload: &Payload) -> String {
    let fragment = base.0.fragment().map_or(0, |fragment| fragment.len() + "#".len());
    let kept = &base.as_str()[..base.as_str().len() - fragment];
    let mut url = String::with_capacity(kept.len() + payload.as_str().len());
    url.push_str(kept);
    let held: HashSet<Cow<'_, str>> = base.0.query_pairs().map(|(name, _)| name).collect();
    let mut separator = base.separator();
    for (name, value) in payload.fields() {
        let name = name.into_text();
        if held.contains(&name) {
            continue;
        }
        if let Some(value) = parameter(value.get()) {
            url.push_str(separator);
            url.extend(byte_serialize(name.as_bytes()));
            url.push('=');
            url.extend(byte_serialize(value.as_bytes()));
            separator = "&";
        }
    }
    url
}

/// Strings without quotes, everything else as compact JSON; `None` for `null`.
fn parameter(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => {
            let text = JsonString::from_strict(json).expect("a payload's fields are JSON");
            Some(text.into_text())
        }
        // Not through serde_json's Value: it rounds numbers and treats a key of its own specially.
        Some(_) | None => Some(compact(json).into()),
    }
}

/// Without the white space between tokens.
fn compact(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let keep = |char: &char| {
        let kept = in_text || !char.is_ascii_whitespace();
        in_text ^= *char == '"' && !escaped;
        escaped = in_text && *char == '\\' && !escaped;
        kept
    };
    json.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(text: &str) -> Payload {
        Payload::from_json(serde_json::from_str(text).unwrap()).unwrap()
    }

    fn effective(base: &str, fields: &str) -> String {
        effective_url(&base.parse().unwrap(), &payload(fields))
    }

    #[test]
    fn payload_fields_become_query_parameters_in_their_own_order() {
        assert_eq!(
            effective(
                "ws://localhost:6030",
                r#"{"from":"2000","to":"5001","recording":false,"n":1.50,"none":null,"o":{"a": [1, "b"]},"channel":"PJSIP/2000-00000013","text":"a b&c+é"}"#
            ),
            "ws://localhost:6030/?from=2000&to=5001&recording=false&n=1.50&o=%7B%22a%22%3A%5B1%2C%22b%22%5D%7D&channel=PJSIP%2F2000-00000013&text=a+b%26c%2B%C3%A9"
        );
    }

    #[test]
    fn a_query_that_is_there_stays_first_and_wins() {
        assert_eq!(
            effective("wss://h/p?to=1&x=%20#frag", r#"{"to":"2","y":"3"}"#),
            "wss://h/p?to=1&x=%20&y=3"
        );
        assert_eq!(effective("ws://h", "{}"), "ws://h/");
        assert_eq!(effective("ws://h/?", r#"{"a":"1"}"#), "ws://h/?a=1");
        assert_eq!(effective("ws://h/?q=who?", r#"{"a":"1"}"#), "ws://h/?q=who?&a=1");
    }

    #[test]
    fn values_keep_their_digits_and_no_key_has_a_meaning_of_its_own() {
        let private = r#"{"$serde_json::private::RawValue":"\"ws://evil\""}"#;
        let answer = format!(r#"{{"sts_url":{private}}}"#);
        assert_eq!(decision(answer.as_bytes(), &AllowedHosts::Any), Err(BadDecision::NotText));
        assert_eq!(parameter(private).as_deref(), Some(private));
        let spaced = r#"{ "a b" : [ 1.50, "x \" y" , 123456789012345678901234567890 ] }"#;
        let compact = r#"{"a b":[1.50,"x \" y",123456789012345678901234567890]}"#;
        assert_eq!(parameter(spaced).as_deref(), Some(compact));
        let unreadable = r#"{"t\ud83c":"a\ud83cb","n":1E400,"o":{"x":"\ud83c"}}"#;
        assert_eq!(
            effective("ws://h", unreadable),
            "ws://h/?t%EF%BF%BD=a%EF%BF%BDb&n=1E400&o=%7B%22x%22%3A%22%5Cud83c%22%7D"
        );
    }

    #[test]
    fn an_answer_without_a_usable_sts_url_is_no_decision() {
        for body in ["", "OK", "[]", "{}", "12", r#"{"sts_url":null}"#, r#"{"sts_url":""}"#] {
            assert_eq!(decision(body.as_bytes(), &AllowedHosts::Any), Ok(None), "{body}");
        }
        for body in [
            r#"{"sts_url":"#,
            r#"{"sts_url":"ws://h","sts_url":"ws://i"}"#,
            r#"{"sts_url":1}"#,
            r#"{"sts_url":"http://h/"}"#,
            r#"{"sts_url":"ws://"}"#,
            r#"{"sts_url":"nonsense"}"#,
        ] {
            assert!(decision(body.as_bytes(), &AllowedHosts::Any).is_err(), "{body}");
        }
    }

    #[test]
    fn nothing_else_in_an_answer_costs_its_decision() {
        let latin_1 = b"{\"note\":\"caf\xe9\",\"sts_url\":\"ws://h\"}";
        for body in [
            latin_1,
            "\u{feff} {\"sts_url\":\"ws://h\"}\r\n".as_bytes(),
            br#"{"note":"party \ud83c","sts_url":"ws://h"}"#,
            br#"{"sts_url":"ws://h","\udc00":{"\ud800":1E400}}"#,
        ] {
            let decided = decision(body, &AllowedHosts::Any).unwrap();
            assert_eq!(decided.unwrap().url.as_str(), "ws://h/", "{}", body.escape_ascii());
        }
    }

    #[test]
    fn only_allowed_hosts_are_routed_to() {
        let rules =
            |text: &str| AllowedHosts::Only(text.split(',').map(|t| t.parse().unwrap()).collect());
        let allowed = rules("Good.example,10.0.0.1:6030,[::1],[::2]:7");
        for (url, expected) in [
            ("wss://good.example/x", true),
            ("ws://good.example:9999", true),
            ("ws://10.0.0.1:6030", true),
            ("ws://10.0.0.1:6031", false),
            ("ws://10.0.0.1", false),
            ("ws://[::1]:5", true),
            ("ws://[::2]:7", true),
            ("ws://[::2]:8", false),
            ("ws://good.example.evil.example", false),
            ("ws://good.example@evil.example", false),
        ] {
            let body = format!(r#"{{"sts_url":"{url}"}}"#);
            let decided = decision(body.as_bytes(), &allowed);
            assert_eq!(decided.is_ok(), expected, "{url}");
        }
        for bad in ["", "a:b", "a:70000", "a b", ":6030"] {
            assert_eq!(bad.parse::<HostRule>(), Err(BadHostRule), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_means_the_same_again_and_no_other_answer_means_it() {
        let allowed = AllowedHosts::Only(vec!["h".parse().unwrap()]);
        let reader = DecisionReader::new(allowed.clone());
        let long = format!(r#"{{"sts_url":"ws://h/long","note":"{}"}}"#, "x".repeat(MOST_KEPT));
        let answers = [
            r#"{"sts_url":"ws://h/1"}"#,
            r#"{"sts_url":"ws://h/2"}"#,
            r#"{"sts_url":"ws://h/2"} "#,
            r#"{"sts_url":"ws://elsewhere"}"#,
            r#"{"sts_url":1}"#,
            &long,
            "OK",
            "",
        ];
        for pair in
            answers.iter().flat_map(|one| answers.iter().map(move |other| [one, other, one]))
        {
            for body in pair.map(|answer| answer.as_bytes()) {
                let expected = decision(body, &allowed);
                assert_eq!(reader.read(body).map(|read| read.as_deref().cloned()), expected);
            }
        }
        let kept = reader.read(answers[0].as_bytes()).unwrap().unwrap();
        let again = reader.read(answers[0].as_bytes()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&kept, &again));
        reader.read(long.as_bytes()).unwrap();
        let again = reader.read(answers[0].as_bytes()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&kept, &again), "what is too long to be kept leaves the last one");
    }

    #[test]
    fn userinfo_of_an_sts_url_is_never_shown() {
        let url: StsUrl = "wss://user:hush@h/p".parse().unwrap();
        assert_eq!(url.to_string(), "wss://h/p");
        assert_eq!(url.as_str(), "wss://user:hush@h/p");
    }

    #[test]
    fn the_receivers_decision_overrides_the_fallback() {
        let fallback: StsUrl = "ws://base:1".parse().unwrap();
        let chosen = decision(br#"{"sts_url":"ws://chosen:2"}"#, &AllowedHosts::Any).unwrap();
        let to = |decision: Option<&Decision>, fallback: Option<&StsUrl>| {
            let route = route(decision, fallback, &Payload::empty());
            (route.sts_url, route.overridden)
        };
        assert_eq!(to(chosen.as_ref(), Some(&fallback)), (Some("ws://chosen:2/".into()), true));
        assert_eq!(to(None, Some(&fallback)), (Some("ws://base:1/".into()), false));
        assert_eq!(to(None, None), (None, false));
    }
}
