//! The life of a call: each type of event, the routing decision, and repeats.

use super::exchange::{Call, Came};
use super::rules::{ACCEPTED, ACCEPTED_AGAIN, Complaint, ROUTED};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;
use crate::routing::{self, BadDecision, BadNext, Decision, Reading};

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
        let Err(stop) = trial.expect(call.next(kind), ACCEPTED).await else {
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

pub async fn call_initiated(trial: &mut Trial) -> Ruling {
    let answer = trial.expect(Call::fresh().next(EventType::CallInitiated), ROUTED).await?;
    let Reading { decision, faults } = routing::decision(&answer.body, &trial.rules);
    if let Some(first) = faults.first() {
        let reasons: Vec<String> = faults.iter().map(unfollowed).collect();
        return Err(Complaint::new(reasons.join("; "), advice(first)).into());
    }
    let listed = match trial.rules.people {
        Some(_) => "which --route-to lists",
        None => "which ROUTE_TO has to list",
    };
    Ok(match decision {
        Some(Decision::Agent { url, otherwise: None, .. }) => {
            format!("it routes the call to {}", url.host_and_port())
        }
        Some(Decision::Agent { url, otherwise: Some(people), .. }) => {
            let (agent, people) = (url.host_and_port(), Decision::People(people).place());
            format!("it routes the call to {agent}, and to {people}, {listed}, if the agent fails")
        }
        Some(people @ Decision::People(_)) => {
            format!("it sends the caller to {}, {listed}, before any agent", people.place())
        }
        None => "neither sts_url nor next in the answer: such a call goes to STS_URL".to_owned(),
    })
}

fn unfollowed(fault: &BadDecision) -> String {
    format!("its {} cannot be followed: {fault}", fault.field())
}

fn advice(fault: &BadDecision) -> &'static str {
    match fault {
        BadDecision::Next(BadNext::NotListed { .. }) => {
            "Callers are sent only where ROUTE_TO lists: add this place to it, and here to --route-to, or \
             answer with one that is listed."
        }
        BadDecision::Next(BadNext::Fields(_) | BadNext::Twice | BadNext::Destination(_)) => {
            "Answer {\"next\":{\"context\":\"people\",\"exten\":\"100\"}}; leave the field out where the \
             call goes to an agent only."
        }
        BadDecision::Json(_)
        | BadDecision::Twice
        | BadDecision::NotText
        | BadDecision::Url(_)
        | BadDecision::HostNotAllowed(_) => {
            "Answer {\"sts_url\":\"ws://HOST:PORT\"}, or wss://; leave the field out where the call goes to \
             STS_URL."
        }
    }
}

/// Sends two events twice each, with the same `webhook-id` and the same bytes.
pub async fn repeat(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    let routes = trial.known.routes;
    // Where call_initiated is never taken, another check has told so.
    let opening = if routes { EventType::CallInitiated } else { EventType::CallStarted };
    for kind in [opening, EventType::Transcription] {
        let sending = call.next(kind.clone());
        let first = trial.expect(sending.clone(), ACCEPTED).await?;
        let second = trial.expect(sending.again(), ACCEPTED_AGAIN).await?;
        let [first, second] =
            [first, second].map(|answer| routing::decision(&answer.body, &trial.rules));
        if kind == EventType::CallInitiated && first != second {
            let (first, second) = (named(&first), named(&second));
            let reason = format!("call_initiated was decided as {first}, its repeat as {second}");
            let advice = "A call must not go elsewhere because an answer got lost: remember the                           decision by webhook-id, or make it a function of the call.";
            return Err(Complaint::new(reason, advice).into());
        }
    }
    let decided = if routes { ", with the same decision" } else { "" };
    Ok(format!("both events were taken twice with 2xx{decided}"))
}

fn named(Reading { decision, faults }: &Reading) -> String {
    let mut named = match decision {
        Some(Decision::Agent { url, otherwise: None, .. }) => url.to_string(),
        Some(Decision::Agent { url, otherwise: Some(people), .. }) => {
            format!("{url}, and {} if it fails", Decision::People(people.clone()).place())
        }
        Some(people @ Decision::People(_)) => people.place(),
        None => "nothing".to_owned(),
    };
    for fault in faults {
        named.push_str(&format!(" ({})", unfollowed(fault)));
    }
    named
}
