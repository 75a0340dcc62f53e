//! Events as a relay hands them over.

use serde_json::{Value, json};
use uuid::Uuid;

/// A new call's uuid.
pub fn new_uuid() -> String {
    Uuid::new_v4().to_string()
}

pub fn event(uuid: &str, kind: &str, payload: Value) -> Value {
    let mut event = json!({ "uuid": uuid, "type": kind });
    event["payload"] = payload;
    event
}

/// The text of an event with an empty payload.
pub fn bare(uuid: &str, kind: &str) -> String {
    event(uuid, kind, json!({})).to_string()
}

/// A digit that carries its number in its call, for [`Seen::n`](super::receiver::Seen::n).
pub fn numbered(uuid: &str, n: usize) -> Value {
    event(uuid, "dtmf_digit", json!({ "n": n }))
}
