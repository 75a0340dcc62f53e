//! Routing: where does a call go?
//!
//! Pure: sees neither socket nor clock. Owns what follows from the receiver's [`Decision`], the fallback and the payload,
//! which becomes query parameters. How an answer is read, which STS URLs there are and where in the dialplan a caller may
//! be sent is in the files below.
//!
//! Invariant: a parameter that the base URL already has is not appended: the receiver's decision wins over what the
//! dialplan sent.

mod decision;
pub mod destination;
mod sts_url;

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;
use url::form_urlencoded::byte_serialize;

pub use self::decision::{
    BadDecision, BadNext, Decision, DecisionReader, NoDecision, Reading, RouteRules, decision,
};
use self::destination::Destination;
pub use self::sts_url::{AllowedHosts, BadStsUrl, HostRule, MAX_STS_URL, StsUrl, without_user};
use crate::event::{JsonString, Payload};

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
    let fragment = base.url().fragment().map_or(0, |fragment| fragment.len() + "#".len());
    let kept = &base.as_str()[..base.as_str().len() - fragment];
    let mut url = String::with_capacity(kept.len() + payload.as_str().len());
    url.push_str(kept);
    let held: HashSet<Cow<'_, str>> = base.url().query_pairs().map(|(name, _)| name).collect();
    let mut separator = first_separator(base);
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

/// Goes before the first appended parameter.
fn first_separator(base: &StsUrl) -> &'static str {
    match base.url().query() {
        None => "?",
        // The URL ends in `?`.
        Some("") => "",
        Some(_) => "&",
    }
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
        let read = decision(answer.as_bytes(), &RouteRules::ANYWHERE);
        assert_eq!(read.faults, [BadDecision::NotText]);
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
}
