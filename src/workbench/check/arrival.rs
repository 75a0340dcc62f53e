//! The way to the receiver: is anybody there, and does the connection stay?

use super::exchange::{Call, Came};
use super::rules::{Complaint, answered, reached as there};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;

/// Sends one event; whatever keeps it from being judged ends the run.
pub async fn reached(trial: &mut Trial) -> Ruling {
    let ruling = trial.expect(Call::fresh().next(EventType::CallStarted), there).await;
    let answer = match ruling {
        Ok(answer) => answer,
        // It is there, and the check of the rate tells the rest.
        Err(Stop::Limited) => return Ok("it answers, if only 429".to_owned()),
        Err(stop) => return Err(explained(trial, stop)),
    };
    Ok(format!("it answers: {}", answer.status.as_u16()))
}

/// For a failure to connect, what to do about it.
fn explained(trial: &Trial, stop: Stop) -> Stop {
    let came = trial.exchanges.last().map(|exchange| &exchange.came);
    let (reason, advice) = match came {
        Some(Came::Broken { code, error }) => (error.clone(), way_out(code)),
        Some(Came::Silence) => {
            let waited = trial.sender.patience().as_millis();
            let advice = "Is the receiver busy, or does a firewall drop what is sent there? With \
                          --timeout a slow one can be given more time.";
            (format!("no answer within {waited} ms"), advice)
        }
        Some(Came::Answer(_)) | None => return stop,
    };
    Complaint::new(reason).advise(advice).into()
}

fn way_out(code: &str) -> &'static str {
    match code {
        "ECONNREFUSED" => {
            "Nobody listens there: start the receiver, and see whether host and port are right. From \
             inside a container, localhost is that container."
        }
        "ENOTFOUND" => "The host's name does not resolve: see whether it is written right.",
        "EHOSTUNREACH" | "ECONNABORTED" => {
            "No way leads there: see whether the host runs, and whether this machine reaches it."
        }
        "EPROTO" => {
            "TLS failed. A certificate of one's own is trusted with SSL_CERT_FILE=FILE; a port \
             without TLS needs an http:// URL."
        }
        _ => {
            "Something listens there, but it does not answer as an HTTP server does: see whether the \
             port is the receiver's, and whether it wants https://."
        }
    }
}

/// Sends two events and compares the connections they went over.
pub async fn keep_alive(trial: &mut Trial) -> Ruling {
    let mut call = Call::fresh();
    // The first may already meet a connection that was closed under it.
    let first = trial.expect(call.next(EventType::CallStarted), answered).await.map_err(closed)?;
    let second = trial.expect(call.next(EventType::CallEnded), answered).await.map_err(closed)?;
    if first.connection == second.connection {
        return Ok("the second event went over the connection of the first".to_owned());
    }
    Err(closed(Complaint::new("the second event needed a new connection").into()))
}

fn closed(stop: Stop) -> Stop {
    match stop {
        Stop::Fail(complaint) => Complaint::new(complaint.reason)
            .advise(
                "Leave connections open for some seconds, as HTTP/1.1 servers do. A new one for each \
                 event costs a round trip, three with TLS, and a caller waits for it; one that is \
                 closed without a word can cost the event's first attempt.",
            )
            .into(),
        Stop::Limited | Stop::Skip(_) => stop,
    }
}
