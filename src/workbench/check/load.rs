//! Load: many calls at once, many requests in a short time, and how long all of it took.

use hyper::header::RETRY_AFTER;

use super::exchange::{Call, Came, Sending};
use super::rules::{ACCEPTED, Complaint};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;
use crate::text::printable;

pub const CALLS: usize = 20;

/// Requests that no rate limit may refuse.
pub const REQUESTS: usize = 200;

pub async fn concurrent_calls(trial: &mut Trial) -> Ruling {
    let kinds = if trial.known.routes {
        [EventType::CallInitiated, EventType::CallStarted, EventType::CallEnded]
    } else {
        [EventType::CallStarted, EventType::Transcription, EventType::CallEnded]
    };
    let calls = (0..CALLS).map(|_| events(&kinds)).collect();
    trial.expect_calls(calls, ACCEPTED).await.map_err(|stop| {
        stop.of(&format!("with {CALLS} calls at once")).advise(
            "callhook sends the events of one call one at a time, but calls do not wait for each \
             other. Look for state that requests share: a variable, a file, a transaction, a row that \
             two of them insert.",
        )
    })?;
    Ok(format!("{} events of {CALLS} calls at once were taken", trial.exchanges.len()))
}

pub async fn request_rate(trial: &mut Trial) -> Ruling {
    if let Some(number) = trial.known.limited_at {
        // One more request, as evidence.
        let again = trial.expect(Call::fresh().next(EventType::CallStarted), ACCEPTED).await;
        return match again {
            Err(stop @ Stop::Skip(_)) => Err(stop),
            Ok(_) | Err(Stop::Fail(_) | Stop::Limited) => Err(limited(trial, number).into()),
        };
    }
    let mut kinds = vec![EventType::CallStarted];
    kinds.resize(REQUESTS / CALLS - 1, EventType::Transcription);
    kinds.push(EventType::CallEnded);
    let mut calls: Vec<Vec<Sending>> = (0..CALLS).map(|_| events(&kinds)).collect();
    if !trial.known.crowds {
        // So many at once are too much for it, as another check has told.
        calls = vec![calls.concat()];
    }
    match trial.expect_calls(calls, ACCEPTED).await {
        Ok(()) => Ok(format!("{REQUESTS} more events were taken in a row")),
        Err(Stop::Limited) => {
            let number = trial.known.requests + trial.exchanges.len();
            Err(limited(trial, number).into())
        }
        Err(stop) => Err(stop),
    }
}

fn limited(trial: &Trial, number: usize) -> Complaint {
    let last = trial.telling.as_ref().or(trial.exchanges.last());
    let wait = last.and_then(|exchange| match &exchange.came {
        Came::Answer(answer) => answer.header(&RETRY_AFTER),
        Came::Silence | Came::Broken { .. } => None,
    });
    let wait = wait.map(|wait| format!(", with Retry-After: {}", printable(wait)));
    Complaint::new(
        format!("by request {number} of this run the answer was 429{}", wait.unwrap_or_default()),
        "One talkative call makes more events than that, and callhook holds all calls back for as \
         long as Retry-After says. Exempt the webhook's path from the limit, or raise it to some \
         thousands a minute. AVR's sample receiver allows 100 requests in 15 minutes.",
    )
}

fn events(kinds: &[EventType]) -> Vec<Sending> {
    let mut call = Call::fresh();
    kinds.iter().map(|kind| call.next(kind.clone())).collect()
}

pub fn in_time(trial: &mut Trial) -> Ruling {
    let limit = trial.sender.settings().timeout.as_millis();
    let known = &trial.known;
    let Some(slowest) = known.slowest.clone() else {
        return Err(Stop::Skip("nothing was answered".to_owned()));
    };
    let (what, took) = (slowest.sending.what(), slowest.took.as_millis());
    trial.telling = Some(slowest);
    if known.late == 0 {
        return Ok(format!(
            "all {} answers came within {limit} ms, the slowest in {took} ms ({what})",
            known.requests
        ));
    }
    let reason = format!(
        "{} of {} requests took longer than {limit} ms, the slowest {took} ms ({what})",
        known.late, known.requests
    );
    let advice = "callhook aborts such an attempt, and until then the caller waits for its route. \
                  Answer once the event is taken and do the rest afterwards, or raise \
                  WEBHOOK_TIMEOUT, and --timeout here.";
    Err(Complaint::new(reason, advice).into())
}
