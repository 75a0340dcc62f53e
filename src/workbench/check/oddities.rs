//! Oddities: what a call can bring beside the usual, what no call brings, and what is no event.
//!
//! After what no call brings, the receiver still has to answer an ordinary event: a process that
//! ended, or hangs, may have answered the odd request first.

use reqwest::Method;
use serde_json::json;

use super::exchange::{Call, Filler};
use super::rules::{Complaint, accepted, answered, refused_as_bad, tolerated, unbroken};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;

/// Scripts that run from right to left, marks that combine, characters beyond 16 bits and beyond
/// one, quotes, a line end, a line separator, and markup.
const UNICODE: &str = "Perché no? Größe, naïve, Ελληνικά, Кириллица, 日本語, 한국어, العربية, עברית, हिन्दी, \
                       e\u{301}, 🎉👩🏽‍💻🇮🇹, \"quoted\" \\ \t 'single'\nnext\u{2028}line, <b>&amp;</b>";

/// 20 KB of speech: what a caller says in some twenty minutes.
const LONG: Filler = Filler { phrase: "A table for two, tonight at eight.", length: 20 * 1024 };

/// Sends a type that nobody has heard of.
pub async fn unknown_type(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let kind = EventType::Other("call_parked".into());
    let answer = trial.expect(call.next(kind), tolerated).await?;
    lives(trial, &mut call).await?;
    Ok(format!("call_parked was answered {}", answer.status.as_u16()))
}

/// Sends a `call_initiated`, or a `call_started`, with what a dialplan may add.
pub async fn unknown_payload_keys(trial: &mut Trial) -> Ruling {
    let routes = trial.known.routes;
    let kind = if routes { EventType::CallInitiated } else { EventType::CallStarted };
    let payload = json!({
        "from": "2000",
        "to": "5001",
        "queue_position": 3,
        "vip": true,
        "nothing": null,
        "customer": {"id": "4711", "tags": ["a", "b"]},
    });
    trial.expect(Call::fresh().next_with(kind, &payload), accepted).await?;
    Ok("a payload with further keys was taken".to_owned())
}

/// Sends an envelope without its payload.
pub async fn missing_payload(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let whole = call.next(EventType::CallStarted);
    let (start, _) = whole.body().split_once(",\"payload\"").expect("an envelope has a payload");
    let body = format!("{start}}}");
    let answer = trial.expect(whole.with_body(body), tolerated).await?;
    lives(trial, &mut call).await?;
    Ok(format!("it was answered {}", answer.status.as_u16()))
}

/// Sends a sentence in many scripts.
pub async fn unicode(trial: &mut Trial) -> Ruling {
    let payload = json!({"role": "user", "text": UNICODE});
    let sending = Call::fresh().next_with(EventType::Transcription, &payload);
    trial.expect(sending, accepted).await?;
    Ok("a transcription in many scripts was taken".to_owned())
}

/// Sends a long sentence.
pub async fn long_text(trial: &mut Trial) -> Ruling {
    let payload = json!({"role": "agent", "text": LONG.text()});
    let mut sending = Call::fresh().next_with(EventType::Transcription, &payload);
    sending.filler = Some(LONG);
    trial.expect(sending, accepted).await?;
    Ok(format!("a transcription of {} bytes was taken", LONG.length))
}

/// Sends an event that is cut off, and one that is a form.
pub async fn bad_json(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let whole = call.next(EventType::CallStarted);
    let cut = whole.body()[..whole.body().len() * 2 / 3].to_owned();
    let form = format!("uuid={}&type=call_started", call.id());
    for (body, name) in [(cut, "a body that is cut off"), (form, "a form in place of JSON")] {
        let sending = call.next(EventType::CallStarted).with_body(body);
        trial.expect(sending, refused_as_bad).await.map_err(|stop| of(stop, name))?;
    }
    lives(trial, &mut call).await?;
    Ok("a body that is cut off and a form were refused with 4xx".to_owned())
}

/// Says what the event was made into.
fn of(stop: Stop, name: &str) -> Stop {
    match stop {
        Stop::Fail(complaint) => {
            let reason = format!("{name}: {}", complaint.reason);
            Complaint { reason, ..complaint }.into()
        }
        Stop::Limited | Stop::Skip(_) => stop,
    }
}

/// Asks as a browser and as a monitor do.
pub async fn get_and_head(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let mut statuses = Vec::new();
    for method in [Method::GET, Method::HEAD] {
        let sending = call.next(EventType::CallStarted).by(method);
        statuses.push(trial.expect(sending, unbroken).await?.status.as_u16());
    }
    lives(trial, &mut call).await?;
    Ok(format!("GET was answered {}, HEAD {}", statuses[0], statuses[1]))
}

/// The next ordinary event is answered, whatever the status.
async fn lives(trial: &mut Trial, call: &mut Call) -> Result<(), Stop> {
    // What settles the check is the odd request, also where its consequence is seen only now.
    trial.telling = trial.exchanges.last().cloned();
    let next = trial.expect(call.next(EventType::CallStarted), answered).await;
    next.map(drop).map_err(|stop| of(stop, "the event after it"))
}
