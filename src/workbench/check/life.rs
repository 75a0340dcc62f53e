//! The life of a call: each type of event, the routing decision, repeats, and what comes late.

use super::exchange::{Answer, Call, Came};
use super::rules::{Complaint, accepted, accepted_again};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;
use crate::routing::{self, AllowedHosts, BadDecision, Decision};

/// The types that AVR documents, as a call brings them.
const DOCUMENTED: [EventType; 6] = [
    EventType::CallInitiated,
    EventType::CallStarted,
    EventType::Transcription,
    EventType::Interruption,
    EventType::DtmfDigit,
    EventType::CallEnded,
];

/// Plays a call of all types, and tells every one that is not taken.
pub async fn event_types(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let mut refused: Option<Complaint> = None;
    for kind in DOCUMENTED {
        let Err(stop) = trial.expect(call.next(kind), accepted).await else {
            continue;
        };
        let last = trial.exchanges.last();
        let answered = last.is_some_and(|last| matches!(last.came, Came::Answer(_)));
        match stop {
            // The other types are worth an attempt only while there are answers.
            Stop::Fail(complaint) if answered => match &mut refused {
                Some(refused) => refused.reason.push_str(&format!("; {}", complaint.reason)),
                None => {
                    trial.telling = last.cloned();
                    refused = Some(complaint);
                }
            },
            stop => return Err(stop),
        }
    }
    match refused {
        Some(refused) => Err(refused.into()),
        None => Ok("all six types were answered with 2xx".to_owned()),
    }
}

/// Asks for a route.
pub async fn call_initiated(trial: &mut Trial) -> Ruling {
    let asked = trial.expect(Call::fresh().next(EventType::CallInitiated), accepted).await;
    let answer = asked.map_err(no_route)?;
    match decision(&answer) {
        Ok(Some(decision)) => Ok(format!("it routes the call to {}", decision.url.place())),
        Ok(None) => Ok("no sts_url in the answer: such a call goes to STS_URL".to_owned()),
        Err(error) => Err(Complaint::new(format!("its sts_url cannot be followed: {error}"))
            .advise(
                "Answer {\"sts_url\":\"ws://HOST:PORT\"}, or wss://; leave the field out where the \
                 call goes to STS_URL.",
            )
            .into()),
    }
}

fn no_route(stop: Stop) -> Stop {
    match stop {
        Stop::Fail(complaint) => Complaint::new(complaint.reason)
            .advise(
                "Answer 200 with {} or with {\"sts_url\":\"ws://HOST:PORT\"}. Callers still reach \
                 STS_URL, but none can be routed, and each such event is given up. AVR's sample \
                 receiver does this by a fault of its own, `res is not defined`: hand its route for \
                 call_initiated the response to answer with.",
            )
            .into(),
        Stop::Limited | Stop::Skip(_) => stop,
    }
}

fn decision(answer: &Answer) -> Result<Option<Decision>, BadDecision> {
    routing::decision(&answer.body, &AllowedHosts::Any)
}

/// Sends two events twice each, with the same `webhook-id` and the same bytes.
pub async fn repeat(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let routes = trial.known.routes;
    // Where call_initiated is never taken, another check has told so.
    let kind = if routes { EventType::CallInitiated } else { EventType::CallStarted };
    let opening = call.next(kind);
    let first = trial.expect(opening.clone(), accepted).await?;
    let second = trial.expect(opening.again(), accepted_again).await?;
    let [first, second] = [decision(&first), decision(&second)];
    if routes && first != second {
        let reason = format!(
            "call_initiated was decided as {}, its repeat as {}",
            named(&first),
            named(&second)
        );
        return Err(Complaint::new(reason)
            .advise(
                "A call must not go elsewhere because an answer got lost: remember the decision by \
                 webhook-id, or make it a function of the call.",
            )
            .into());
    }
    let said = call.next(EventType::Transcription);
    trial.expect(said.clone(), accepted).await?;
    trial.expect(said.again(), accepted_again).await?;
    let decided = if routes { ", with the same decision" } else { "" };
    Ok(format!("both events were taken twice with 2xx{decided}"))
}

fn named(decision: &Result<Option<Decision>, BadDecision>) -> String {
    match decision {
        Ok(Some(decision)) => decision.url.to_string(),
        Ok(None) => "nothing".to_owned(),
        Err(error) => format!("nothing that can be followed ({error})"),
    }
}

/// Ends a call, then goes on with it.
pub async fn after_call_ended(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    for kind in [EventType::CallStarted, EventType::CallEnded] {
        trial.expect(call.next(kind), accepted).await?;
    }
    for kind in [EventType::Transcription, EventType::CallEnded] {
        trial.expect(call.next(kind), accepted).await.map_err(late)?;
    }
    Ok("a transcription and a second call_ended after call_ended were taken".to_owned())
}

fn late(stop: Stop) -> Stop {
    match stop {
        Stop::Fail(complaint) => Complaint::new(format!("after call_ended: {}", complaint.reason))
            .advise(
                "The last sentence of a call is often written down after its end: take what comes \
                 late with a 2xx, and store or ignore it.",
            )
            .into(),
        Stop::Limited | Stop::Skip(_) => stop,
    }
}
