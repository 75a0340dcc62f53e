//! Load: many calls at once, many requests in a short time, and how long all of it took.

use reqwest::header::RETRY_AFTER;

use super::exchange::{Call, Came, Sending};
use super::rules::{Complaint, accepted};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;
use crate::text::printable;

/// Calls at once.
pub const CALLS: usize = 20;

/// Requests that are not to be limited away.
pub const REQUESTS: usize = 200;

/// Plays twenty calls at once.
pub async fn concurrent_calls(trial: &mut Trial) -> Ruling {
    let kinds = if trial.known.routes {
        [EventType::CallInitiated, EventType::CallStarted, EventType::CallEnded]
    } else {
        [EventType::CallStarted, EventType::Transcription, EventType::CallEnded]
    };
    let calls = (0..CALLS).map(|_| events(&kinds)).collect();
    trial.expect_calls(calls, accepted).await.map_err(crowded)?;
    Ok(format!("{} events of {CALLS} calls at once were taken", trial.exchanges.len()))
}

fn crowded(stop: Stop) -> Stop {
    match stop {
        Stop::Fail(complaint) => Complaint::new(format!(
            "with {CALLS} calls at once, {}",
            complaint.reason
        ))
        .advise(
            "callhook sends the events of one call one at a time, but calls do not wait for \
                     each other. Look for state that requests share: a variable, a file, a \
                     transaction, a row that two of them insert.",
        )
        .into(),
        Stop::Limited | Stop::Skip(_) => stop,
    }
}

/// Sends two hundred events as fast as they are answered.
pub async fn request_rate(trial: &mut Trial) -> Ruling {
    if let Some(number) = trial.known.limited_at {
        // Once more, so that there is something to show.
        let again = trial.expect(Call::fresh().next(EventType::CallStarted), accepted).await;
        again.map(drop).or_else(|stop| match stop {
            Stop::Fail(_) | Stop::Limited => Ok(()),
            Stop::Skip(_) => Err(stop),
        })?;
        return Err(limited(trial, number).into());
    }
    let mut kinds = vec![EventType::CallStarted];
    kinds.resize(REQUESTS / CALLS - 1, EventType::Transcription);
    kinds.push(EventType::CallEnded);
    let mut calls: Vec<Vec<Sending>> = (0..CALLS).map(|_| events(&kinds)).collect();
    if !trial.known.crowds {
        // That many at once is too much for it, as another check has told.
        calls = vec![calls.concat()];
    }
    match trial.expect_calls(calls, accepted).await {
        Ok(()) => Ok(format!("{REQUESTS} more events were taken one upon the other")),
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
    let reason =
        format!("by request {number} of this run the answer was 429{}", wait.unwrap_or_default());
    Complaint::new(reason).advise(
        "One talkative call makes more events than that, and callhook holds all calls back for as \
         long as Retry-After says. Leave the webhook's path out of the limit, or raise it to some \
         thousands a minute. AVR's sample receiver allows 100 requests in 15 minutes.",
    )
}

fn events(kinds: &[EventType]) -> Vec<Sending> {
    let mut call = Call::fresh();
    kinds.iter().map(|kind| call.next(kind.clone())).collect()
}

/// Looks at how long everything took.
pub fn in_time(trial: &mut Trial) -> Ruling {
    let limit = trial.sender.settings().timeout.as_millis();
    let known = &trial.known;
    let Some(slowest) = known.slowest.clone() else {
        return Err(Stop::Skip("nothing was answered".to_owned()));
    };
    let (what, took) = (slowest.sending.what().to_owned(), slowest.took.as_millis());
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
    Err(Complaint::new(reason)
        .advise(
            "callhook breaks such an attempt off, and the caller waits for its route all that time. \
             Answer once the event is taken and do the rest afterwards, or raise WEBHOOK_TIMEOUT, \
             and --timeout here.",
        )
        .into())
}
