//! Record: calls as they happened, written as scripts that are played again just so.
//!
//! Invariant: what is written here is read by [`super::Scenario::parse`] and planned as the same
//! events with the same payloads, byte for byte, at the same times, in whole milliseconds.

use std::time::Duration;

use super::plan::Planned;
use super::script::{MAX_EVENTS, MAX_JSON};
use super::text::MAX_NAME;
use super::time::MAX_TIME;

/// The text of a `[[script]]` with these events, which come in time's order. Waits of over
/// [`MAX_TIME`] milliseconds are cut to that, and the name to [`MAX_NAME`] bytes.
///
/// `None` where a scenario cannot hold the call: without events or with more than [`MAX_EVENTS`], or
/// a payload of more than [`MAX_JSON`] bytes.
pub fn script(name: &str, events: &[Planned]) -> Option<String> {
    let fit = |event: &Planned| event.payload.as_str().len() <= MAX_JSON;
    if !(1..=MAX_EVENTS).contains(&events.len()) || !events.iter().all(fit) {
        return None;
    }
    let mut text = "[[script]]\n".to_owned();
    let name = &name[..name.floor_char_boundary(MAX_NAME)];
    if !name.is_empty() {
        text.push_str(&format!("name = {}\n", quoted(name)));
    }
    text.push_str("steps = [\n");
    let mut now = Duration::ZERO;
    for event in events {
        let after = event.at.saturating_sub(now).as_millis().min(MAX_TIME.into());
        now = event.at;
        let (kind, json) = (quoted(event.kind.name()), quoted(event.payload.as_str()));
        text.push_str(&format!("    {{ after = {after}, event = {kind}, json = {json} }},\n"));
    }
    // The events say themselves how it ended.
    text.push_str("    { lost = true },\n]\n");
    Some(text)
}

/// A TOML string: literal where that is possible, as people read it more easily.
fn quoted(text: &str) -> String {
    if !text.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{text}'");
    }
    // JSON's escapes are TOML's, but that TOML wants one for DEL, too
    // (<https://toml.io/en/v1.0.0#string>).
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
