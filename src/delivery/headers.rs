//! The headers of a request to the receiver: the names of callhook's own, and further ones that the settings give.
//!
//! Owns `WEBHOOK_HEADERS`: a JSON object of names and values, which are sent as they are.
//!
//! Invariants and limits:
//! - None of the further ones is one that callhook sets itself, or that is about the connection.
//! - Their values count as secrets: they are marked as sensitive, and no error shows one.
//! - At most [`MOST`].

use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};

use super::trace;
use crate::event::{JsonString, fields};

/// `WEBHOOK_SECRET`, by which the receiver recognises callhook.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-secret");
/// 1, 2, … for the event.
pub const ATTEMPT_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-attempt");
/// 1, 2, … within the call.
pub const SEQUENCE_HEADER: HeaderName = HeaderName::from_static("x-avr-webhook-sequence");
/// `AGENT_ID`, by which AVR's dashboard knows whose call it is.
pub const AGENT_HEADER: HeaderName = HeaderName::from_static("x-avr-agent-id");

/// With callhook's own, some two thirds of the hundred that servers take at most.
const MOST: usize = 50;

/// Of headers that belong to Standard Webhooks.
const SIGNING: &str = "webhook-";

/// `has_user` tells whether the URL has a user part, which becomes `Authorization`.
///
/// # Errors
/// All that is wrong, without any value.
pub fn read_headers(text: &str, has_user: bool) -> Result<HeaderMap, String> {
    const EXPECTED: &str =
        r#"expected a JSON object of headers, such as {"Authorization":"Bearer TOKEN"}"#;
    let fields = fields(text).map_err(|error| match error.is_data() {
        true => EXPECTED.to_owned(),
        // The error's own text might quote.
        false => format!("{EXPECTED}; this is no JSON at column {}", error.column()),
    })?;
    let (mut headers, mut faults) = (HeaderMap::new(), Vec::new());
    if fields.len() > MOST {
        faults.push(format!("expected at most {MOST} headers, found {}", fields.len()));
    }
    for (name, value) in fields {
        match header(&name.into_text(), value.get(), has_user) {
            Ok((name, _)) if headers.contains_key(&name) => {
                faults.push(format!("{name} stands there twice; case does not tell headers apart"));
            }
            Ok((name, value)) => drop(headers.insert(name, value)),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(headers) } else { Err(faults.join("; ")) }
}

fn header(name: &str, json: &str, has_user: bool) -> Result<(HeaderName, HeaderValue), String> {
    // What follows may be a value that was written into the name.
    let shown = name.find(|c: char| !is_token(c)).map_or(name, |end| &name[..end]);
    let header = HeaderName::try_from(name).map_err(|_| {
        format!("{shown:?}… is no name of a header: expected letters, digits, - and _, and its value apart from it")
    })?;
    if let Some(own) = own(&header, has_user) {
        return Err(format!("{name} is not accepted: {own}"));
    }
    let text = JsonString::from_strict(json).map(JsonString::into_text);
    let text = text.ok_or_else(|| format!("{name}: expected a text in quotation marks"))?;
    let value = HeaderValue::from_str(&text).ok().filter(|value| value.to_str().is_ok());
    let mut value = value.ok_or_else(|| format!("{name}: expected visible ASCII characters"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Why a header cannot be set.
fn own(name: &HeaderName, has_user: bool) -> Option<&'static str> {
    let set_here = [
        HOST,
        ACCEPT,
        ACCEPT_ENCODING,
        CONTENT_TYPE,
        CONTENT_LENGTH,
        USER_AGENT,
        ATTEMPT_HEADER,
        SEQUENCE_HEADER,
        trace::TRACE_HEADER,
        trace::VIA_HEADER,
    ];
    let of_connection = [CONNECTION, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, EXPECT];
    match name {
        name if set_here.contains(name) => Some("callhook sets it itself"),
        name if of_connection.contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection") =>
        {
            Some("it is about the connection, which is callhook's")
        }
        name if name.as_str().starts_with(SIGNING) => {
            Some("webhook-… headers are those of Standard Webhooks (…_SIGNING_KEY)")
        }
        name if *name == SECRET_HEADER => Some("…_SECRET sets it"),
        name if *name == AGENT_HEADER => Some("AGENT_ID sets it"),
        name if *name == PROXY_AUTHORIZATION => Some("the user part of …_PROXY sets it"),
        name if *name == AUTHORIZATION && has_user => Some("the user part of the URL sets it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_told_apart_from_what_is_none_without_their_values() {
        let read = |text: &str| read_headers(text, false);
        let headers = read(r#"{"Authorization":"Bearer hush","X-Tenant":"","x-\u0061":"b"}"#);
        let headers = headers.unwrap();
        assert_eq!(headers[AUTHORIZATION], "Bearer hush");
        assert!(headers.len() == 3 && headers.values().all(HeaderValue::is_sensitive));
        assert!(read("{}").unwrap().is_empty());
        for (bad, told) in [
            ("", "JSON object"),
            ("hush", "column"),
            (r#""hush""#, "JSON object"),
            (r#"["hush"]"#, "JSON object"),
            (r#"{"X-A":"hush"} hush"#, "column"),
            (r#"{"X-A":"hush""#, "column"),
            (r#"{"X-A":1234}"#, "X-A: expected a text"),
            (r#"{"X-A":null}"#, "X-A: expected a text"),
            (r#"{"X-A":["hush"]}"#, "X-A: expected a text"),
            (r#"{"X-A":"hush\n"}"#, "X-A: expected visible ASCII"),
            (r#"{"X-A":"hüsh"}"#, "X-A: expected visible ASCII"),
            (r#"{"X-A: hush":"hush"}"#, r#""X-A"… is no name of a header"#),
            (r#"{"":"hush"}"#, "no name of a header"),
            (r#"{"X-A":"hush","x-a":"hush"}"#, "x-a stands there twice"),
            (r#"{"X-A":"hush","X-A":"hush"}"#, "x-a stands there twice"),
        ] {
            let fault = read(bad).unwrap_err();
            assert!(fault.contains(told) && !fault.contains("sh"), "{bad}: {fault}");
        }
        let both = read(r#"{"Host":"hush","X-A":1}"#).unwrap_err();
        assert!(both.contains("Host is not accepted") && both.contains("X-A:"), "{both}");
    }

    #[test]
    fn authorization_is_refused_only_beside_a_user_part() {
        let text = r#"{"authorization":"Bearer hush"}"#;
        assert!(read_headers(text, false).is_ok());
        assert!(read_headers(text, true).unwrap_err().contains("user part of the URL"));
    }

    #[test]
    fn fifty_headers_are_accepted_and_one_more_is_not() {
        let headers = |count: usize| {
            let pairs: Vec<String> = (0..count).map(|n| format!(r#""X-{n}":"v""#)).collect();
            read_headers(&format!("{{{}}}", pairs.join(",")), false)
        };
        assert_eq!(headers(MOST).unwrap().len(), MOST);
        assert!(headers(MOST + 1).unwrap_err().contains("at most 50"));
    }
}
