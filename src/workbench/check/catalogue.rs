//! The catalogue: every check, in the order in which it is made.
//!
//! Limit: before the check of the rate, fewer than 100 requests go out, since AVR's sample receiver
//! answers no more in 15 minutes and is to be judged in all else.

use std::future::ready;

use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde_json::{Value, json};

use super::curl::Times;
use super::exchange::{Call, Filler, Sending};
use super::load::{CALLS, REQUESTS};
use super::rules::{
    ACCEPTED, ACCEPTED_LATE, ANSWERED, REFUSED_AS_BAD, TOLERATED, UNAUTHORIZED, UNBROKEN, UNSIGNED,
};
use super::step::{Odd, Step};
use super::trial::{Ruling, Stop, Trial};
use super::{arrival, life, load};
use crate::event::EventType;
use crate::workbench::alteration::Alteration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Calls suffer where it fails, and the exit code depends on it.
    Required,
    Advised,
}

/// A check, and in the report what was asked.
#[derive(Clone, Copy, Serialize)]
pub struct Check {
    /// Stays the same from version to version.
    pub name: &'static str,
    pub group: &'static str,
    pub level: Level,
    /// What is asked of the receiver.
    pub claim: &'static str,
    /// What exactly passes, and why it matters.
    pub rule: &'static str,
    /// How to send again what settled it.
    #[serde(skip)]
    pub times: Times,
    /// Without it, the check is skipped.
    #[serde(skip)]
    needs: Option<Need>,
    /// Events of one call, each answer judged by itself.
    #[serde(skip)]
    steps: &'static [Step],
    /// After the steps an ordinary event is sent, which has to be answered at all: a process that
    /// ended, or hangs, may have answered an odd request first.
    #[serde(skip)]
    then_lives: bool,
    /// What is said where all steps pass; each `{}` is the status of the next answer.
    #[serde(skip)]
    passed: &'static str,
    /// In place of steps, where more than each answer by itself is judged.
    #[serde(skip)]
    own: Option<fn(&mut Trial) -> LocalBoxFuture<'_, Ruling>>,
}

/// An option that a check cannot do without.
#[derive(Clone, Copy)]
enum Need {
    Secret,
    SigningKey,
}

impl Check {
    const fn of(group: &'static str) -> Self {
        Self {
            name: "",
            group,
            level: Level::Required,
            claim: "",
            rule: "",
            times: Times::Once,
            needs: None,
            steps: &[],
            then_lives: false,
            passed: "",
            own: None,
        }
    }

    pub async fn judge(&self, trial: &mut Trial) -> Ruling {
        if let Some(own) = self.own {
            return own(trial).await;
        }
        if let Some(need) = self.needs {
            need.check(trial)?;
        }
        let mut call = Call::fresh();
        let mut passed = self.passed.to_owned();
        for step in self.steps {
            let sending = step.sending(&mut call, trial.known.routes);
            let answer = trial.expect(sending, step.rule).await.map_err(|stop| stop.of(step.of))?;
            passed = passed.replacen("{}", answer.status.as_str(), 1);
        }
        if self.then_lives {
            // What settles the check is the odd request, even if its consequence is seen only now.
            trial.telling = trial.exchanges.last().cloned();
            let next = trial.expect(call.next(EventType::CallStarted), ANSWERED).await;
            next.map_err(|stop| stop.of("the event after it"))?;
        }
        Ok(passed)
    }
}

impl Need {
    fn check(self, trial: &Trial) -> Result<(), Stop> {
        let settings = trial.sender.settings();
        let (given, option) = match self {
            Self::Secret => (settings.secret.is_some(), "--secret"),
            Self::SigningKey => (settings.signing_keys.is_some(), "--signing-key"),
        };
        if given { Ok(()) } else { Err(Stop::Skip(format!("no {option} was given"))) }
    }
}

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

const WAY: Check = Check::of("The way there");
const LIFE: Check = Check::of("The life of a call");
const SECRET: Check =
    Check { needs: Some(Need::Secret), passed: "it was refused with {}", ..Check::of("Trust") };
const SIGNATURE: Check = Check { level: Level::Advised, needs: Some(Need::SigningKey), ..SECRET };
const ODDITY: Check = Check::of("Oddities");
const LOAD: Check = Check::of("Load");

pub const CATALOGUE: [Check; 22] = [
    Check {
        name: REACHED,
        claim: "the receiver answers at this URL",
        rule: "Passes with any status but a redirect, which is not followed, and 401, 403, 404 and \
               405: these say that the secret or the URL is wrong, and nothing about the receiver.",
        own: Some(|trial| Box::pin(arrival::reached(trial))),
        ..WAY
    },
    Check {
        name: KEEP_ALIVE,
        level: Level::Advised,
        claim: "a connection serves more than one event",
        rule: "Passes where two events, one right after the other, go over one connection. A caller \
               waits for each connection that is opened.",
        times: Times::OnOneConnection,
        own: Some(|trial| Box::pin(arrival::keep_alive(trial))),
        ..WAY
    },
    Check {
        name: "event-types",
        claim: "all six types of event are taken",
        rule: "Passes where each of call_initiated, call_started, transcription, interruption, \
               dtmf_digit and call_ended is answered with a 2xx, whatever the body.",
        own: Some(|trial| Box::pin(life::event_types(trial))),
        ..LIFE
    },
    Check {
        name: CALL_INITIATED,
        claim: "call_initiated is answered with a route or with none",
        rule: "Passes with a 2xx whose body is a JSON object with an sts_url (a ws:// or wss:// URL), \
               a next (context, exten and, if any, priority 1, as --route-to lists them where it is \
               given) or both, or anything without either. The caller waits for this answer.",
        own: Some(|trial| Box::pin(life::call_initiated(trial))),
        ..LIFE
    },
    Check {
        name: "repeat",
        claim: "an event that comes twice is taken twice",
        rule: "Passes where an event and its repeat, with the same webhook-id, are both answered with \
               a 2xx, and for call_initiated with the same decision. Events come at least once: a \
               repeat follows every answer that got lost.",
        times: Times::Twice,
        own: Some(|trial| Box::pin(life::repeat(trial))),
        ..LIFE
    },
    Check {
        name: "after-call-ended",
        claim: "events after call_ended are taken",
        rule: "Passes where a transcription and a second call_ended after a call_ended are answered \
               with a 2xx. Transcripts are often late, and a core that restarts ends a call again.",
        steps: &[
            Step::event("call_started", ACCEPTED),
            Step::event("call_ended", ACCEPTED),
            Step { of: "after call_ended", ..Step::event("transcription", ACCEPTED_LATE) },
            Step { of: "after call_ended", ..Step::event("call_ended", ACCEPTED_LATE) },
        ],
        passed: "a transcription and a second call_ended after call_ended were taken",
        ..LIFE
    },
    Check {
        name: "secret-wrong",
        claim: "a wrong secret is refused",
        rule: "Passes where an event with another X-AVR-WEBHOOK-SECRET is answered 401. Skipped \
               without --secret.",
        steps: &[Step::altered(Alteration::WrongSecret, UNAUTHORIZED)],
        ..SECRET
    },
    Check {
        name: "secret-missing",
        claim: "a missing secret is refused",
        rule: "Passes where an event without X-AVR-WEBHOOK-SECRET is answered 401. Skipped without \
               --secret.",
        steps: &[Step::altered(Alteration::NoSecret, UNAUTHORIZED)],
        ..SECRET
    },
    Check {
        name: "signature-good",
        claim: "a good signature is taken",
        rule: "Passes where an event signed as Standard Webhooks asks is answered with a 2xx. Skipped \
               without --signing-key, as the three after it.",
        steps: &[Step::event("call_started", ACCEPTED)],
        passed: "it was taken",
        ..SIGNATURE
    },
    Check {
        name: "signature-wrong",
        claim: "a wrong signature is refused",
        rule: "Passes where a signature of 32 zero bytes is answered 400, 401 or 403.",
        steps: &[Step::altered(Alteration::WrongSignature, UNSIGNED)],
        ..SIGNATURE
    },
    Check {
        name: "signature-missing",
        claim: "a missing signature is refused",
        rule: "Passes where an event with neither webhook-signature nor webhook-timestamp is answered \
               400, 401 or 403.",
        steps: &[Step::altered(Alteration::NoSignature, UNSIGNED)],
        ..SIGNATURE
    },
    Check {
        name: "signature-old",
        claim: "an old signature is refused",
        rule: "Passes where an event that was signed an hour ago is answered 400, 401 or 403: whoever \
               recorded a request must not be able to send it again.",
        steps: &[Step::altered(Alteration::OldSignature, UNSIGNED)],
        ..SIGNATURE
    },
    Check {
        name: "unknown-type",
        claim: "an unknown type breaks nothing",
        rule: "Passes where an event of type call_parked is answered with a 2xx or a 4xx, and the \
               event after it is answered at all. AVR may add types; a refusal is clear, a 5xx is \
               retried for nothing.",
        steps: &[Step::event("call_parked", TOLERATED)],
        then_lives: true,
        passed: "call_parked was answered {}",
        ..ODDITY
    },
    Check {
        name: "unknown-payload-keys",
        level: Level::Advised,
        claim: "unknown keys in a payload are taken",
        rule: "Passes where a call_initiated with further keys of all JSON types is answered with a \
               2xx: a dialplan may send what it likes, and a refusal would lose the event.",
        steps: &[Step::odd("call_initiated", Odd::Payload(further_keys), ACCEPTED)],
        passed: "a payload with further keys was taken",
        ..ODDITY
    },
    Check {
        name: "missing-payload",
        claim: "a missing payload breaks nothing",
        rule: "Passes where an event without payload is answered with a 2xx or a 4xx, and the event \
               after it is answered at all. callhook itself sends {} at least.",
        steps: &[Step::odd("call_started", Odd::Body(without_payload), TOLERATED)],
        then_lives: true,
        passed: "it was answered {}",
        ..ODDITY
    },
    Check {
        name: "unicode",
        claim: "text in any script is taken",
        rule: "Passes where a transcription in many scripts, with emoji, quotes and markup, is \
               answered with a 2xx: callers speak so, and a refusal would lose what they said.",
        steps: &[Step::odd("transcription", Odd::Payload(many_scripts), ACCEPTED)],
        passed: "a transcription in many scripts was taken",
        ..ODDITY
    },
    Check {
        name: "long-text",
        claim: "a text of 20 KB is taken",
        rule: "Passes where a transcription of 20480 bytes is answered with a 2xx: agents read whole \
               documents aloud, and a refusal would lose what they said.",
        steps: &[Step::odd("transcription", Odd::Long(LONG), ACCEPTED)],
        passed: "a transcription of 20480 bytes was taken",
        ..ODDITY
    },
    Check {
        name: "bad-json",
        claim: "invalid JSON is refused",
        rule: "Passes where an event that is cut off and a form in place of JSON are answered with a \
               4xx each, and the event after them is answered at all.",
        steps: &[
            Step { of: "a body that is cut off", ..invalid(cut_off) },
            Step { of: "a form in place of JSON", ..invalid(form) },
        ],
        then_lives: true,
        passed: "a body that is cut off and a form were refused with 4xx",
        ..ODDITY
    },
    Check {
        name: "get-and-head",
        level: Level::Advised,
        claim: "GET and HEAD break nothing",
        rule: "Passes where both are answered with anything but a 5xx (501 passes), and the event \
               after them is answered at all.",
        steps: &[
            Step::altered(Alteration::Get, UNBROKEN),
            Step::altered(Alteration::Head, UNBROKEN),
        ],
        then_lives: true,
        passed: "GET was answered {}, HEAD {}",
        ..ODDITY
    },
    Check {
        name: CONCURRENT_CALLS,
        claim: "twenty calls at once are taken",
        rule: "Passes where three events each of twenty calls are answered with a 2xx, while the \
               calls run at once and the events of each go one at a time and in order.",
        times: Times::Many { count: CALLS, at_once: true },
        own: Some(|trial| Box::pin(load::concurrent_calls(trial))),
        ..LOAD
    },
    Check {
        name: "request-rate",
        claim: "two hundred requests in a minute are taken",
        rule: "Passes where 200 events of twenty calls, sent as fast as they are answered, are all \
               answered with a 2xx, and nothing before was answered 429.",
        times: Times::Many { count: REQUESTS, at_once: false },
        own: Some(|trial| Box::pin(load::request_rate(trial))),
        ..LOAD
    },
    Check {
        name: IN_TIME,
        claim: "every answer comes in time",
        rule: "Passes where no request of the whole run took longer than --timeout, from the connect \
               to the end of the answer. Other checks wait 5 s longer, so that slowness is told once.",
        own: Some(|trial| Box::pin(ready(load::in_time(trial)))),
        ..LOAD
    },
];

fn further_keys() -> Value {
    json!({
        "from": "2000",
        "to": "5001",
        "queue_position": 3,
        "vip": true,
        "nothing": null,
        "customer": {"id": "4711", "tags": ["a", "b"]},
    })
}

/// Scripts that run from right to left, marks that combine, characters beyond 16 bits and beyond
/// one, quotes, a line end, a line separator, and markup.
fn many_scripts() -> Value {
    let text = "Perché no? Größe, naïve, Ελληνικά, Кириллица, 日本語, 한국어, العربية, עברית, हिन्दी, \
                e\u{301}, 🎉👩🏽‍💻🇮🇹, \"quoted\" \\ \t 'single'\nnext\u{2028}line, <b>&amp;</b>";
    json!({"role": "user", "text": text})
}

/// 20 KB of speech: what a caller says in some twenty minutes.
const LONG: Filler = Filler { phrase: "A table for two, tonight at eight.", length: 20 * 1024 };

fn without_payload(sending: &Sending) -> String {
    let (start, _) = sending.body().split_once(",\"payload\"").expect("an envelope has a payload");
    format!("{start}}}")
}

const fn invalid(body: fn(&Sending) -> String) -> Step {
    Step::odd("call_started", Odd::Body(body), REFUSED_AS_BAD)
}

fn cut_off(sending: &Sending) -> String {
    let body = sending.body();
    body[..body.len() * 2 / 3].to_owned()
}

fn form(sending: &Sending) -> String {
    format!("uuid={}&type=call_started", sending.attempt.item.event.call)
}
