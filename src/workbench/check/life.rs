//! The life of a call: each type of event, the routing decision, and repeats.

use super::exchange::{Answer, Call, Came};
use super::rules::{ACCEPTED, ACCEPTED_AGAIN, Complaint, ROUTED};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;
use crate::routing::{self, BadDecision, Decision, Reading, RouteRules};

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
    let Reading { decision, faults } = reading(&answer);
    if let Some(fault) = faults.first() {
        let advice = match fault {
            BadDecision::Next(_) => {
                "Answer {\"next\":{\"context\":\"people\",\"exten\":\"100\"}}; leave the field out where \
                 the call goes to an agent."
            }
            _ => {
                "Answer {\"sts_url\":\"ws://HOST:PORT\"}, or wss://; leave the field out \
                 where the call goes to STS_URL."
            }
        };
        let reason = format!("its {} cannot be followed: {fault}", fault.field());
        return Err(Complaint::new(reason, advice).into());
    }
    Ok(match decision {
        Some(decision) => format!("it routes the call to {}", decision.place()),
        None => "no sts_url in the answer: such a call goes to STS_URL".to_owned(),
    })
}

fn reading(answer: &Answer) -> Reading {
    routing::decision(&answer.body, &RouteRules::ANYWHERE)
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
        let [first, second] = [reading(&first), reading(&second)];
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
    match (decision, faults.first()) {
        (Some(Decision::Agent { url, .. }), _) => url.to_string(),
        (Some(people @ Decision::People(_)), _) => people.place(),
        (None, None) => "nothing".to_owned(),
        (None, Some(fault)) => format!("nothing that can be followed ({fault})"),
    }
}
