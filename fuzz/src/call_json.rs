//! `POST /call`: what is accepted, and what becomes of it.
//!
//! The payload plays the receiver's answer as well, so that its `sts_url` is the routing decision.

use callhook::event::{CallId, Event, EventId, EventType, Payload};
use callhook::http::call;
use callhook::routing::destination::{Destination, Destinations};
use callhook::routing::{self, AllowedHosts, Decision, Reading, RouteRules, StsUrl};
use callhook::time::timestamp_now;
use url::Url;

use super::events_json::{assert_envelope, assert_refused, is_uuid};
use super::json::{self, Item, Json};

/// Where calls go that the payload does not route: with a query that wins, and a fragment.
const FALLBACK: &str = "wss://fallback.example:6030/p%20q?held=1&x=a+b#part";

/// Checks one body.
pub fn check(input: &[u8]) {
    let body = json::read(input);
    let given = call::parse(input);
    let expected = body.as_ref().map(|body| is_acceptable(body));
    match (given, expected) {
        (Ok((call, payload)), Ok(Ok(()))) => {
            accepted(call, &payload, body.as_ref().expect("it is acceptable"));
        }
        (Err(fault), Ok(Err(field))) => {
            assert_refused(&fault);
            assert!(fault.error.contains(field), "{field} is not named: {}", fault.error);
        }
        (Err(fault), Err(_)) => assert_refused(&fault),
        (Ok(_), Ok(Err(field))) => panic!("accepted in spite of its {field}"),
        (Ok(_), Err(refusal)) => panic!("accepted in spite of {refusal:?}"),
        (Err(fault), Ok(Ok(()))) => panic!("refused without a reason: {}", fault.error),
    }
}

/// Whether it is an announcement; else the field that is at fault.
fn is_acceptable(body: &Item<'_>) -> Result<(), &'static str> {
    if !matches!(body.value, Json::Object(_)) {
        return Err("object");
    }
    if !body.field("uuid").and_then(Item::text).is_some_and(is_uuid) {
        return Err("uuid");
    }
    match body.field("payload").map(|payload| &payload.value) {
        None | Some(Json::Object(_)) => Ok(()),
        Some(_) => Err("payload"),
    }
}

fn accepted(call: CallId, payload: &Payload, body: &Item<'_>) {
    let timestamp = timestamp_now();
    let event = Event::new(EventId::make(), call, EventType::CallInitiated, &timestamp, payload);
    assert_envelope(&event, body, "call_initiated", Some(&timestamp));
    let fields = json::read(payload.as_str().as_bytes()).expect("a payload is JSON");
    let decision = decide(payload, &fields);
    let fallback: StsUrl = FALLBACK.parse().expect("it is a ws URL with a host");
    for (decision, fallback) in
        [(decision.as_ref(), Some(&fallback)), (None, Some(&fallback)), (None, None)]
    {
        let route = routing::route(decision, fallback, payload);
        assert_eq!(route.overridden, decision.is_some());
        let base = match decision {
            Some(Decision::Agent { url, .. }) => Some(url.as_str()),
            Some(Decision::People(_)) => None,
            None => fallback.map(StsUrl::as_str),
        };
        assert_eq!(route.next.is_some(), matches!(decision, Some(Decision::People(_))));
        assert_eq!(route.sts_url.is_some(), base.is_some());
        if let (Some(url), Some(base)) = (&route.sts_url, base) {
            assert_parameters(url, base, &fields);
        }
    }
}

/// Takes the payload as a receiver's answer.
fn decide(answer: &Payload, fields: &Item<'_>) -> Option<Decision> {
    let (given, next) = (fields.field("sts_url"), fields.field("next"));
    let Reading { decision, faults } =
        routing::decision(answer.as_str().as_bytes(), &RouteRules::ANYWHERE);
    for fault in &faults {
        assert!(fields.field(fault.field()).is_some(), "{fault}, though there is no such field");
    }
    match &decision {
        Some(Decision::Agent { given: text, url, otherwise }) => {
            assert_eq!(given.and_then(Item::text), Some(&**text));
            assert!(otherwise.is_none() || next.is_some());
            follow(answer, text, url);
        }
        Some(Decision::People(people)) => {
            assert!(next.is_some());
            send_on(answer, people);
        }
        None if faults.is_empty() => {
            let is_empty = given.is_none_or(|given| given.text() == Some(""));
            assert!(is_empty, "no decision in {given:?}");
        }
        None => {}
    }
    decision
}

/// To an agent, if its host is allowed.
fn follow(answer: &Payload, given: &str, shown: &StsUrl) {
    let url = Url::parse(shown.as_str()).expect("a decision is a URL");
    assert!(matches!(url.scheme(), "ws" | "wss") && url.has_host(), "{url}");
    assert_eq!(Decision::recall(given).as_ref().and_then(Decision::given), Some(given));
    let host = "sts.example:6030".parse().expect("a host and port");
    let rules = RouteRules { hosts: AllowedHosts::Only(vec![host]), people: None };
    let strict = routing::decision(answer.as_str().as_bytes(), &rules).decision;
    let place = (url.host_str(), url.port_or_known_default());
    let admitted = place == (Some("sts.example"), Some(6030));
    assert_eq!(matches!(strict, Some(Decision::Agent { .. })), admitted, "{url}");
    let shown = shown.to_string();
    assert!(!shown.contains('@') || without_user(&url).contains('@'), "{shown}");
}

/// To people, if they are listed.
fn send_on(answer: &Payload, people: &Destination) {
    let listed = Destinations::new(vec!["people/100".parse().expect("a place")]);
    let rules = RouteRules { hosts: AllowedHosts::Any, people: Some(listed) };
    let strict = routing::decision(answer.as_str().as_bytes(), &rules).decision;
    assert_eq!(strict.is_some(), (people.context(), people.exten()) == ("people", "100"));
}

fn without_user(url: &Url) -> String {
    [url.host_str().unwrap_or_default(), &url[url::Position::BeforePort..]].concat()
}

/// Whoever parses the URL finds the base, its parameters, and each of the payload's fields.
fn assert_parameters(url: &str, base: &str, payload: &Item<'_>) {
    assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url:?}");
    let [parsed, base] = [url, base].map(|text| Url::parse(text).expect("it is a URL"));
    let before = url::Position::BeforeScheme..url::Position::AfterPath;
    assert_eq!(parsed[before.clone()], base[before], "{url}");
    assert_eq!(parsed.fragment(), None, "{url}");
    let held: Vec<_> = base.query_pairs().collect();
    let mut found = parsed.query_pairs();
    for pair in &held {
        assert_eq!(found.next().as_ref(), Some(pair), "{url}");
    }
    let Json::Object(fields) = &payload.value else { panic!("a payload is an object") };
    for (name, item) in fields {
        if matches!(item.value, Json::Null) || held.iter().any(|(held, _)| held == name) {
            continue;
        }
        let (key, value) = found.next().unwrap_or_else(|| panic!("{name:?} is missing in {url}"));
        assert_eq!(key, name.as_str(), "{url}");
        match &item.value {
            Json::Text(text) => assert_eq!(value, text.as_str(), "{url}"),
            Json::Array(_) | Json::Object(_) => {
                let read = json::read(value.as_bytes());
                let same = read.as_ref().is_ok_and(|read| read.says(item));
                assert!(same, "{} became {value}", item.raw);
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => assert_eq!(value, item.raw, "{url}"),
        }
    }
    assert_eq!(found.next(), None, "{url}");
}
