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
use serde_json::value::RawValue;
use url::Url;
use url::form_urlencoded::byte_serialize;

use self::destination::{BadDestination, Destination, Destinations, Wish};
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

/// Where a receiver may send calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRules {
    /// `STS_ALLOWED_HOSTS`.
    pub hosts: AllowedHosts,
    /// `ROUTE_TO`; `None` = to anybody.
    pub people: Option<Destinations>,
}

/// Where a receiver sends a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To an agent.
    Agent {
        /// The receiver's own text, which relays pass on unchanged.
        given: Box<str>,
        url: StsUrl,
        /// To people, if the agent fails.
        otherwise: Option<Destination>,
    },
    /// To people at once.
    People(Destination),
}

impl RouteRules {
    /// For a receiver that is only tried: anywhere.
    pub const ANYWHERE: Self = Self { hosts: AllowedHosts::Any, people: None };
}

impl Decision {
    /// From a decision's own text, which was accepted before; allowed hosts are not checked again.
    pub fn recall(given: &str) -> Option<Self> {
        let url = given.parse().ok()?;
        Some(Self::Agent { given: given.into(), url, otherwise: None })
    }

    /// What a relay passes on; nothing of people, whom only callhook's own dialplan asks for.
    pub fn given(&self) -> Option<&str> {
        match self {
            Self::Agent { given, .. } => Some(given),
            Self::People(_) => None,
        }
    }

    /// For logs and pages: `host:port`, or `context/exten`.
    pub fn place(&self) -> String {
        match self {
            Self::Agent { url, .. } => url.host_and_port(),
            Self::People(people) => format!("{}/{}", people.context(), people.exten()),
        }
    }
}

/// What a receiver's answer comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub decision: Option<Decision>,
    /// Why something in the answer is ignored.
    pub faults: Vec<BadDecision>,
}

/// Why a call goes to `STS_URL`: nobody decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum NoDecision {
    /// The receiver answered without an `sts_url` or `next`.
    #[strum(serialize = "none")]
    NotGiven,
    /// What the receiver named cannot be followed.
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
/// No decision if it does not begin as a JSON object, or its `sts_url` and `next` are missing, `null` or empty. That is
/// no fault: most receivers just answer `OK`. Whatever else the object holds costs no decision.
pub fn decision(body: &[u8], rules: &RouteRules) -> Reading {
    let body = String::from_utf8_lossy(body);
    // Some encoders write a byte order mark.
    let body = body.trim_start_matches('\u{feff}').trim_ascii_start();
    if !body.starts_with('{') {
        return Reading::default();
    }
    let fields = match fields(body) {
        Ok(fields) => fields,
        Err(error) => {
            let faults = vec![BadDecision::Json(error.to_string())];
            return Reading { decision: None, faults };
        }
    };
    let agent = agent_in(&fields, &rules.hosts);
    let people = people_in(&fields, rules.people.as_ref()).map_err(BadDecision::Next);
    let faults = [agent.as_ref().err(), people.as_ref().err()];
    let faults = faults.into_iter().flatten().cloned().collect();
    let decision = match (agent.unwrap_or_default(), people.unwrap_or_default()) {
        (Some((given, url)), otherwise) => Some(Decision::Agent { given, url, otherwise }),
        (None, people) => people.map(Decision::People),
    };
    Reading { decision, faults }
}

type JsonField<'a> = (JsonString<'a>, &'a RawValue);

/// The value of the one field of that name, unless it is `null`.
///
/// # Errors
/// `twice` if there are two.
fn only<'a, E>(fields: &[JsonField<'a>], name: &str, twice: E) -> Result<Option<&'a str>, E> {
    let mut given = fields.iter().filter(|(key, _)| *key.0 == *name.as_bytes());
    let first = given.next().map(|(_, value)| value.get());
    if given.next().is_some() { Err(twice) } else { Ok(first.filter(|value| *value != "null")) }
}

fn agent_in(
    fields: &[JsonField<'_>],
    allowed: &AllowedHosts,
) -> Result<Option<(Box<str>, StsUrl)>, BadDecision> {
    let Some(url) = only(fields, "sts_url", BadDecision::Twice)? else {
        return Ok(None);
    };
    let given = JsonString::from_strict(url).ok_or(BadDecision::NotText)?.into_text();
    if given.is_empty() {
        return Ok(None);
    }
    let url: StsUrl = given.parse()?;
    if !allowed.admit(&url) {
        return Err(BadDecision::HostNotAllowed(url.host_and_port()));
    }
    Ok(Some((given.into(), url)))
}

fn people_in(
    fields: &[JsonField<'_>],
    allowed: Option<&Destinations>,
) -> Result<Option<Destination>, BadNext> {
    let Some(next) = only(fields, "next", BadNext::Twice)? else {
        return Ok(None);
    };
    let wish = Wish::read(next, None).map_err(BadNext::Fields)?;
    let destination = wish.destination()?;
    match allowed.is_none_or(|allowed| allowed.admits(&destination)) {
        true => Ok(Some(destination)),
        false => Err(BadNext::NotListed {
            context: destination.context().into(),
            exten: destination.exten().into(),
        }),
    }
}

/// In bytes: answers with an `sts_url` have some hundred.
const MOST_KEPT: usize = 4096;

/// Reads receivers' answers, and keeps the last decision: most receivers answer all calls alike, and parsing the URL
/// takes longer than all else about an answer.
#[derive(Debug)]
pub struct DecisionReader {
    rules: RouteRules,
    last: Mutex<Option<KeptDecision>>,
}

#[derive(Debug)]
struct KeptDecision {
    /// At most [`MOST_KEPT`] bytes.
    answer: Box<[u8]>,
    decision: Arc<Decision>,
}

impl DecisionReader {
    pub fn new(rules: RouteRules) -> Self {
        Self { rules, last: Mutex::new(None) }
    }

    /// As [`decision`], with its faults.
    pub fn read(&self, body: &[u8]) -> (Option<Arc<Decision>>, Vec<BadDecision>) {
        if let Some(kept) = self.last().as_ref().filter(|kept| *kept.answer == *body) {
            return (Some(Arc::clone(&kept.decision)), Vec::new());
        }
        let Reading { decision, faults } = decision(body, &self.rules);
        let decision = decision.map(Arc::new);
        let worth_keeping = faults.is_empty() && body.len() <= MOST_KEPT;
        if let Some(decision) = decision.as_ref().filter(|_| worth_keeping) {
            let (answer, decision) = (body.into(), Arc::clone(decision));
            *self.last() = Some(KeptDecision { answer, decision });
        }
        (decision, faults)
    }

    fn last(&self) -> MutexGuard<'_, Option<KeptDecision>> {
        self.last.lock().expect("nothing panics while it holds this lock")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    #[error(transparent)]
    Next(BadNext),
}

impl BadDecision {
    /// The field that is ignored.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Json(_)
            | Self::Twice
            | Self::NotText
            | Self::Url(_)
            | Self::HostNotAllowed(_) => "sts_url",
            Self::Next(_) => "next",
        }
    }
}

/// Why callers are not sent to the people whom a receiver names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNext {
    #[error("expected {{\"context\":\"people\",\"exten\":\"100\"}} ({0})")]
    Fields(String),
    #[error("duplicate key \"next\"")]
    Twice,
    #[error(transparent)]
    Destination(#[from] BadDestination),
    #[error("{context}/{exten} is not among ROUTE_TO")]
    NotListed { context: String, exten: String },
}

/// The answer of `POST /call`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// `None` if there is neither a decision nor `STS_URL`, and for who goes to people.
    pub sts_url: Option<String>,
    /// Whether it is the receiver's decision.
    #[serde(rename = "override")]
    pub overridden: bool,
    /// The people whom the caller is sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Destination>,
}

/// The decision's URL, else the fallback's, with the payload as query parameters; neither for who goes to people.
pub fn route(decision: Option<&Decision>, fallback: Option<&StsUrl>, payload: &Payload) -> Route {
    let (base, next) = match decision {
        Some(Decision::Agent { url, .. }) => (Some(url), None),
        Some(Decision::People(people)) => (None, Some(people.clone())),
        None => (fallback, None),
    };
    let sts_url = base.map(|base| effective_url(base, payload));
    Route { sts_url, overridden: decision.is_some(), next }
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

    fn faults(answer: &[u8]) -> Vec<BadDecision> {
        let Reading { decision, faults } = decision(answer, &RouteRules::ANYWHERE);
        assert_eq!(decision, None);
        faults
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
        assert_eq!(faults(answer.as_bytes()), [BadDecision::NotText]);
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
            assert_eq!(
                decision(body.as_bytes(), &RouteRules::ANYWHERE),
                Reading::default(),
                "{body}"
            );
        }
        for body in [
            r#"{"sts_url":"#,
            r#"{"sts_url":"ws://h","sts_url":"ws://i"}"#,
            r#"{"sts_url":1}"#,
            r#"{"sts_url":"http://h/"}"#,
            r#"{"sts_url":"ws://"}"#,
            r#"{"sts_url":"nonsense"}"#,
        ] {
            let read = decision(body.as_bytes(), &RouteRules::ANYWHERE);
            assert_eq!((read.decision, read.faults.len()), (None, 1), "{body}");
            assert_eq!(read.faults[0].field(), "sts_url");
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
            let decided = decision(body, &RouteRules::ANYWHERE).decision.unwrap();
            assert_eq!(decided.given(), Some("ws://h"), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn only_allowed_hosts_are_routed_to() {
        let hosts = "Good.example,10.0.0.1:6030,[::1],[::2]:7".split(',');
        let hosts = AllowedHosts::Only(hosts.map(|host| host.parse().unwrap()).collect());
        let rules = RouteRules { hosts, people: None };
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
            let read = decision(body.as_bytes(), &rules);
            assert_eq!(
                (read.decision.is_some(), read.faults.is_empty()),
                (expected, expected),
                "{url}"
            );
        }
        for bad in ["", "a:b", "a:70000", "a b", ":6030"] {
            assert_eq!(bad.parse::<HostRule>(), Err(BadHostRule), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_means_the_same_again_and_no_other_answer_means_it() {
        let rules = RouteRules {
            hosts: AllowedHosts::Only(vec!["h".parse().unwrap()]),
            people: Some(Destinations::new(vec!["people/100".parse().unwrap()])),
        };
        let reader = DecisionReader::new(rules.clone());
        let long = format!(r#"{{"sts_url":"ws://h/long","note":"{}"}}"#, "x".repeat(MOST_KEPT));
        let answers = [
            r#"{"sts_url":"ws://h/1"}"#,
            r#"{"sts_url":"ws://h/2"}"#,
            r#"{"sts_url":"ws://h/2"} "#,
            r#"{"sts_url":"ws://elsewhere"}"#,
            r#"{"sts_url":1}"#,
            r#"{"next":{"context":"people","exten":"100"}}"#,
            r#"{"sts_url":"ws://h/1","next":{"context":"people","exten":"200"}}"#,
            &long,
            "OK",
            "",
        ];
        for pair in
            answers.iter().flat_map(|one| answers.iter().map(move |other| [one, other, one]))
        {
            for body in pair.map(|answer| answer.as_bytes()) {
                let expected = decision(body, &rules);
                let (decision, faults) = reader.read(body);
                assert_eq!(Reading { decision: decision.as_deref().cloned(), faults }, expected);
            }
        }
        let read = |answer: &str| reader.read(answer.as_bytes()).0.unwrap();
        let (kept, again) = (read(answers[0]), read(answers[0]));
        assert!(Arc::ptr_eq(&kept, &again));
        read(&long);
        let again = read(answers[0]);
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
        let chosen = Decision::recall("ws://chosen:2");
        let to = |decision: Option<&Decision>, fallback: Option<&StsUrl>| {
            let route = route(decision, fallback, &Payload::empty());
            (route.sts_url, route.overridden)
        };
        assert_eq!(to(chosen.as_ref(), Some(&fallback)), (Some("ws://chosen:2/".into()), true));
        assert_eq!(to(None, Some(&fallback)), (Some("ws://base:1/".into()), false));
        assert_eq!(to(None, None), (None, false));
        let people = Decision::People(Destination::new("people", "100").unwrap());
        assert_eq!(to(Some(&people), Some(&fallback)), (None, true));
        let route = route(Some(&people), Some(&fallback), &Payload::empty());
        let json = r#"{"sts_url":null,"override":true,"next":{"context":"people","exten":"100","priority":1}}"#;
        assert_eq!(serde_json::to_string(&route).unwrap(), json);
    }

    #[test]
    fn a_caller_is_sent_to_people_who_are_listed_at_once_or_if_the_agent_fails() {
        let people = Some(Destinations::new(vec!["people/100".parse().unwrap()]));
        let rules = RouteRules { hosts: AllowedHosts::Any, people };
        let listed = Destination::new("people", "100").unwrap();
        for next in [
            r#"{"context":"people","exten":"100"}"#,
            r#"{"exten":100,"context":"people","priority":1,"more":[]}"#,
            r#"{"context":"people","exten":"\u0031\u0030\u0030","priority":"1"}"#,
        ] {
            let alone = decision(format!(r#"{{"next":{next}}}"#).as_bytes(), &rules);
            let decided = Some(Decision::People(listed.clone()));
            assert_eq!(alone, Reading { decision: decided, faults: vec![] }, "{next}");
            let beside = format!(r#"{{"sts_url":"ws://h","next":{next}}}"#);
            let beside = decision(beside.as_bytes(), &rules).decision;
            let Some(Decision::Agent { otherwise, .. }) = beside else { panic!("{next}") };
            assert_eq!(otherwise.as_ref(), Some(&listed), "{next}");
        }
    }

    #[test]
    fn a_next_that_is_no_place_or_not_listed_costs_the_agent_nothing() {
        let people = Some(Destinations::new(vec!["people/*".parse().unwrap()]));
        let rules = RouteRules { hosts: AllowedHosts::Any, people };
        for (next, told) in [
            (r#"{"context":"people"}"#, "exten: missing"),
            (r#""people""#, "expected an object"),
            (r#"["people","100",1]"#, "expected an object"),
            (r#"{"context":"people","exten":["100"]}"#, "exten: expected a string"),
            (r#"{"context":"people","exten":"100","priority":2}"#, "priority \"2\": expected 1"),
            (r#"{"context":"people","exten":"100","exten":"200"}"#, "exten: given twice"),
            (r#"{"context":"people","exten":"h"}"#, "one letter"),
            (r#"{"context":"people","exten":"100,1)"}"#, "an extension has"),
            (r#"{"context":"","exten":"100"}"#, "a context has"),
            (r#"{"context":"out","exten":"100"}"#, "out/100 is not among ROUTE_TO"),
        ] {
            let body = format!(r#"{{"sts_url":"ws://h","next":{next}}}"#);
            let Reading { decision, faults } = decision(body.as_bytes(), &rules);
            assert_eq!(decision, Decision::recall("ws://h"), "{next}");
            let [fault] = &faults[..] else { panic!("{next}: {faults:?}") };
            assert_eq!(fault.field(), "next");
            assert!(fault.to_string().contains(told), "{next}: {fault}");
        }
        let twice = r#"{"next":{"context":"people","exten":"1"},"next":null}"#;
        assert_eq!(faults(twice.as_bytes()), [BadDecision::Next(BadNext::Twice)]);
    }
}
