//! Decision: what did the receiver answer to `call_initiated`?
//!
//! Owns how an answer is read, and what in it is ignored and why; remembers nothing but the last decision.
//!
//! Invariant: what is wrong in an answer costs only the field that it is in.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::value::RawValue;

use super::destination::{BadDestination, Destination, Destinations, Wish};
use super::sts_url::{AllowedHosts, BadStsUrl, StsUrl};
use crate::event::{JsonString, fields};

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

#[cfg(test)]
mod tests {
    use super::super::sts_url::{BadHostRule, HostRule};
    use super::*;

    fn faults(answer: &[u8]) -> Vec<BadDecision> {
        let Reading { decision, faults } = decision(answer, &RouteRules::ANYWHERE);
        assert_eq!(decision, None);
        faults
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
