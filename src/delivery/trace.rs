//! What an event tells of its way: the trace it belongs to
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)), and the callhooks that it went through.
//!
//! Owns both headers. All events of a call are one trace, whose id is the call's, and each attempt is a span
//! of it; an event that came with a trace of its own keeps that.

use hyper::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::event::{CallId, Event};

pub const TRACE_HEADER: HeaderName = HeaderName::from_static("traceparent");
/// The ids of the callhook processes that an event went through, separated by commas.
pub const VIA_HEADER: HeaderName = HeaderName::from_static("x-callhook-via");

/// A callhook process, by a random id: an event that comes back with it went in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessId(HeaderValue);

impl ProcessId {
    pub fn random() -> Self {
        Self(Uuid::new_v4().simple().to_string().try_into().expect("digits are visible ASCII"))
    }

    /// Whether an event with this [`VIA_HEADER`] was here before.
    pub fn is_in(&self, via: &str) -> bool {
        via.split(',').any(|id| self.0 == id.trim())
    }

    pub(super) fn via(&self, event: &Event) -> HeaderValue {
        let Some(came) = event.via() else { return self.0.clone() };
        let via = [came.as_bytes(), b", ", self.0.as_bytes()].concat();
        HeaderValue::try_from(via).expect("an event's via was a header value")
    }
}

/// The event's own, or that of its call with a new span; `None` for the one call id, all zeros, that cannot be
/// a trace's.
pub(super) fn traceparent(event: &Event) -> Option<HeaderValue> {
    // The lower half of a random UUID is never zero, which a span id must not be.
    let mut digits = Uuid::encode_buffer();
    let span = &Uuid::new_v4().simple().encode_lower(&mut digits)[16..];
    traceparent_with(event, span)
        .map(|text| HeaderValue::try_from(text).expect("hexadecimal, or checked by is_traceparent"))
}

/// As it may be shown: nobody knows the span of an attempt any more.
pub(super) fn shown_traceparent(event: &Event) -> Option<String> {
    traceparent_with(event, "…")
}

fn traceparent_with(event: &Event, span: &str) -> Option<String> {
    match event.trace() {
        Some(own) => Some(own.to_string()),
        None if event.call == CallId::from_bytes([0; 16]) => None,
        None => {
            let mut digits = Uuid::encode_buffer();
            let trace = Uuid::from_bytes(event.call.to_bytes()).simple().encode_lower(&mut digits);
            Some(["00-", trace, "-", span, "-01"].concat())
        }
    }
}

/// Whether it is a `traceparent` to be passed on: the specification wants others ignored.
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(4, '-');
    let mut hexadecimal = |digits: usize| {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == digits && part.bytes().all(is_digit))
    };
    let (Some(version), Some(trace), Some(span)) =
        (hexadecimal(2), hexadecimal(32), hexadecimal(16))
    else {
        return false;
    };
    let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    // Later versions may append fields.
    let flags = match (version, parts.next().and_then(|rest| rest.split_once('-'))) {
        _ if version == "ff" || is_zero(trace) || is_zero(span) => return false,
        ("00", Some(_)) => return false,
        (_, Some((flags, _))) => flags,
        (_, None) => text.rsplit('-').next().unwrap_or_default(),
    };
    flags.len() == 2
        && flags.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventHeaders, EventType, Payload};

    const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn event() -> Event {
        let call: CallId = "FBF28AC5-5E05-4C45-B58B-592680E4FEC0".parse().unwrap();
        Event::now(call, EventType::CallStarted, &Payload::empty())
    }

    #[test]
    fn all_events_of_a_call_are_one_trace_and_each_attempt_is_a_span() {
        let (one, other) = (traceparent(&event()).unwrap(), traceparent(&event()).unwrap());
        for text in [&one, &other].map(|value| value.to_str().unwrap()) {
            assert!(text.starts_with("00-fbf28ac55e054c45b58b592680e4fec0-"), "{text}");
            assert!(is_traceparent(text) && text.ends_with("-01"), "{text}");
        }
        assert_ne!(one, other);
        let headers = EventHeaders { trace: Some(OWN.into()), ..EventHeaders::default() };
        let own = Event { headers: headers.shared(), ..event() };
        assert_eq!(traceparent(&own).unwrap(), OWN);
        let zero = Event { call: CallId::from_bytes([0; 16]), ..event() };
        assert_eq!(traceparent(&zero), None);
    }

    #[test]
    fn a_traceparent_that_the_specification_does_not_allow_is_none() {
        let later = format!("cc{}-what-comes-later", &OWN[2..]);
        for good in [OWN, &later] {
            assert!(is_traceparent(good), "{good}");
        }
        for bad in [
            "",
            "00",
            &OWN[..54],
            &format!("{OWN}0"),
            &format!("{OWN}-x"),
            &format!("ff{}", &OWN[2..]),
            &OWN.to_uppercase(),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00",
            &format!("{later} "),
            &OWN.replace('-', "_"),
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_process_knows_its_own_events_in_a_chain_of_any_length() {
        let (one, other) = (ProcessId::random(), ProcessId::random());
        let first = one.via(&event());
        assert!(one.is_in(first.to_str().unwrap()) && !other.is_in(first.to_str().unwrap()));
        let via = Some(first.to_str().unwrap().into());
        let headers = EventHeaders { via, ..EventHeaders::default() };
        let passed_on = Event { headers: headers.shared(), ..event() };
        let second = other.via(&passed_on);
        let second = second.to_str().unwrap();
        assert!(one.is_in(second) && other.is_in(second) && !ProcessId::random().is_in(second));
        assert!(!one.is_in(""));
    }
}
