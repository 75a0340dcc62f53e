//! The catalogue: every check, in the order in which it is made.
//!
//! Before the check of the rate, fewer than 100 requests go out: AVR's sample receiver answers no
//! more in 15 minutes, and is to be judged in all else.

use std::future::ready;

use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use super::curl::Times;
use super::load::{CALLS, REQUESTS};
use super::trial::{Ruling, Trial};
use super::{arrival, life, load, oddities, trust};

/// Whether the exit code depends on a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Calls suffer where it fails.
    Required,
    /// Good to have.
    Advised,
}

/// A check.
pub struct Check {
    /// Its name, which stays the same from version to version.
    pub name: &'static str,
    /// What it belongs to.
    pub group: &'static str,
    /// Whether the exit code depends on it.
    pub level: Level,
    /// What is asked of the receiver.
    pub claim: &'static str,
    /// What exactly passes, and why it matters.
    pub rule: &'static str,
    /// How to send again what settled it.
    pub times: Times,
    /// Makes it.
    pub judge: fn(&mut Trial) -> LocalBoxFuture<'_, Ruling>,
}

const WAY: &str = "The way there";
const LIFE: &str = "The life of a call";
const TRUST: &str = "Trust";
const ODDITIES: &str = "Oddities";
const LOAD: &str = "Load";

/// Where it fails, nothing else can be judged.
pub const REACHED: &str = "reached";

/// Where it fails, later checks leave `call_initiated` out.
pub const CALL_INITIATED: &str = "call-initiated";

/// Where it fails, later checks open a connection for each request.
pub const KEEP_ALIVE: &str = "keep-alive";

/// Where it fails, later checks send one request at a time.
pub const CONCURRENT_CALLS: &str = "concurrent-calls";

/// Looks back at all requests, so it is judged whatever happened to the others.
pub const IN_TIME: &str = "in-time";

/// Every check.
pub const CATALOGUE: [Check; 22] = [
    Check {
        name: REACHED,
        group: WAY,
        level: Level::Required,
        claim: "the receiver answers at this URL",
        rule: "Passes with any status that tells more about the receiver than about the way there: \
               not a redirect, which is not followed, nor 401, 403, 404 or 405.",
        times: Times::Once,
        judge: |trial| Box::pin(arrival::reached(trial)),
    },
    Check {
        name: KEEP_ALIVE,
        group: WAY,
        level: Level::Advised,
        claim: "a connection serves more than one event",
        rule: "Passes where two events, one right after the other, go over one connection. A caller \
               waits for each connection that is opened.",
        times: Times::OnOneConnection,
        judge: |trial| Box::pin(arrival::keep_alive(trial)),
    },
    Check {
        name: "event-types",
        group: LIFE,
        level: Level::Required,
        claim: "all six types of event are taken",
        rule: "Passes where each of call_initiated, call_started, transcription, interruption, \
               dtmf_digit and call_ended is answered with a 2xx, whatever the body.",
        times: Times::Once,
        judge: |trial| Box::pin(life::event_types(trial)),
    },
    Check {
        name: CALL_INITIATED,
        group: LIFE,
        level: Level::Required,
        claim: "call_initiated is answered with a route or with none",
        rule: "Passes with a 2xx whose body is a JSON object with an sts_url (a ws:// or wss:// URL), \
               or anything without an sts_url. The caller waits for this answer.",
        times: Times::Once,
        judge: |trial| Box::pin(life::call_initiated(trial)),
    },
    Check {
        name: "repeat",
        group: LIFE,
        level: Level::Required,
        claim: "an event that comes twice is taken twice",
        rule: "Passes where an event and its repeat, with the same webhook-id, are both answered with \
               a 2xx, and for call_initiated with the same decision. Events come at least once: a \
               repeat follows every answer that got lost.",
        times: Times::Twice,
        judge: |trial| Box::pin(life::repeat(trial)),
    },
    Check {
        name: "after-call-ended",
        group: LIFE,
        level: Level::Required,
        claim: "events after call_ended are taken",
        rule: "Passes where a transcription and a second call_ended after a call_ended are answered \
               with a 2xx. Transcripts are often late, and a core that restarts ends a call again.",
        times: Times::Once,
        judge: |trial| Box::pin(life::after_call_ended(trial)),
    },
    Check {
        name: "secret-wrong",
        group: TRUST,
        level: Level::Required,
        claim: "a wrong secret is refused",
        rule: "Passes where an event with another X-AVR-WEBHOOK-SECRET is answered 401. Skipped \
               without --secret.",
        times: Times::Once,
        judge: |trial| Box::pin(trust::secret_wrong(trial)),
    },
    Check {
        name: "secret-missing",
        group: TRUST,
        level: Level::Required,
        claim: "a missing secret is refused",
        rule: "Passes where an event without X-AVR-WEBHOOK-SECRET is answered 401. Skipped without \
               --secret.",
        times: Times::Once,
        judge: |trial| Box::pin(trust::secret_missing(trial)),
    },
    Check {
        name: "signature-good",
        group: TRUST,
        level: Level::Advised,
        claim: "a good signature is taken",
        rule: "Passes where an event signed as Standard Webhooks asks is answered with a 2xx. Skipped \
               without --signing-key, as the three after it.",
        times: Times::Once,
        judge: |trial| Box::pin(trust::signature_good(trial)),
    },
    Check {
        name: "signature-wrong",
        group: TRUST,
        level: Level::Advised,
        claim: "a wrong signature is refused",
        rule: "Passes where a signature of 32 zero bytes is answered 400, 401 or 403.",
        times: Times::Once,
        judge: |trial| Box::pin(trust::signature_wrong(trial)),
    },
    Check {
        name: "signature-missing",
        group: TRUST,
        level: Level::Advised,
        claim: "a missing signature is refused",
        rule: "Passes where an event with neither webhook-signature nor webhook-timestamp is answered \
               400, 401 or 403.",
        times: Times::Once,
        judge: |trial| Box::pin(trust::signature_missing(trial)),
    },
    Check {
        name: "signature-old",
        group: TRUST,
        level: Level::Advised,
        claim: "an old signature is refused",
        rule: "Passes where an event that was signed an hour ago is answered 400, 401 or 403: whoever \
               recorded a request must not be able to send it again.",
        times: Times::Once,
        judge: |trial| Box::pin(trust::signature_old(trial)),
    },
    Check {
        name: "unknown-type",
        group: ODDITIES,
        level: Level::Required,
        claim: "an unknown type breaks nothing",
        rule: "Passes where an event of type call_parked is answered with a 2xx or a 4xx, and the \
               event after it is answered at all. AVR may add types; a refusal is clear, a 5xx is \
               tried again for nothing.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::unknown_type(trial)),
    },
    Check {
        name: "unknown-payload-keys",
        group: ODDITIES,
        level: Level::Advised,
        claim: "unknown keys in a payload are taken",
        rule: "Passes where a call_initiated with further keys of all JSON types is answered with a \
               2xx: a dialplan may send what it likes, and a refusal would lose the event.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::unknown_payload_keys(trial)),
    },
    Check {
        name: "missing-payload",
        group: ODDITIES,
        level: Level::Required,
        claim: "a missing payload breaks nothing",
        rule: "Passes where an event without payload is answered with a 2xx or a 4xx, and the event \
               after it is answered at all. callhook itself sends {} at least.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::missing_payload(trial)),
    },
    Check {
        name: "unicode",
        group: ODDITIES,
        level: Level::Required,
        claim: "text in any script is taken",
        rule: "Passes where a transcription in many scripts, with emoji, quotes and markup, is \
               answered with a 2xx: callers speak so, and a refusal would lose what they said.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::unicode(trial)),
    },
    Check {
        name: "long-text",
        group: ODDITIES,
        level: Level::Required,
        claim: "a text of 20 KB is taken",
        rule: "Passes where a transcription of 20480 bytes is answered with a 2xx: agents read whole \
               documents aloud, and a refusal would lose what they said.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::long_text(trial)),
    },
    Check {
        name: "bad-json",
        group: ODDITIES,
        level: Level::Required,
        claim: "what is no JSON is refused",
        rule: "Passes where an event that is cut off and a form in place of JSON are answered with a \
               4xx each, and the event after them is answered at all.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::bad_json(trial)),
    },
    Check {
        name: "get-and-head",
        group: ODDITIES,
        level: Level::Advised,
        claim: "GET and HEAD break nothing",
        rule: "Passes where both are answered with anything but a 5xx (501 passes), and the event \
               after them is answered at all.",
        times: Times::Once,
        judge: |trial| Box::pin(oddities::get_and_head(trial)),
    },
    Check {
        name: CONCURRENT_CALLS,
        group: LOAD,
        level: Level::Required,
        claim: "twenty calls at once are taken",
        rule: "Passes where three events each of twenty calls are answered with a 2xx, while the \
               calls run at once and the events of each go one at a time and in order.",
        times: Times::Many { count: CALLS, at_once: true },
        judge: |trial| Box::pin(load::concurrent_calls(trial)),
    },
    Check {
        name: "request-rate",
        group: LOAD,
        level: Level::Required,
        claim: "two hundred requests in a minute are taken",
        rule: "Passes where 200 events of twenty calls, sent as fast as they are answered, are all \
               answered with a 2xx, and nothing before was answered 429.",
        times: Times::Many { count: REQUESTS, at_once: false },
        judge: |trial| Box::pin(load::request_rate(trial)),
    },
    Check {
        name: IN_TIME,
        group: LOAD,
        level: Level::Required,
        claim: "every answer comes in time",
        rule: "Passes where no request of the whole run took longer than --timeout, from the connect \
               to the end of the answer. Other checks wait 5 s longer, so that slowness is told once.",
        times: Times::Once,
        judge: |trial| Box::pin(ready(load::in_time(trial))),
    },
];
