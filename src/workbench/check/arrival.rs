//! The way to the receiver: is anybody there, and does the connection stay?

use super::exchange::{Call, Came};
use super::rules::{ANSWERED, Complaint, REACHED};
use super::trial::{Ruling, Stop, Trial};
use crate::event::EventType;

/// Sends one event; whatever keeps it from being judged ends the run.
pub async fn reached(trial: &mut Trial) -> Ruling {
    match trial.expect(Call::fresh().next(EventType::CallStarted), REACHED).await {
        Ok(answer) => Ok(format!("it answers: {}", answer.status.as_u16())),
        // It is there, and the check of the rate tells the rest.
        Err(Stop::Limited) => Ok("it answers, if only 429".to_owned()),
        Err(stop) => Err(explained(trial, stop)),
    }
}

fn explained(trial: &Trial, stop: Stop) -> Stop {
    let came = trial.exchanges.last().map(|exchange| &exchange.came);
    match came {
        Some(Came::Broken { code, error }) => Complaint::new(error, way_out(code)).into(),
        Some(Came::Silence) => {
            let waited = trial.sender.patience().as_millis();
            let advice = "Is the receiver busy, or does a firewall drop the request? --timeout gives a \
                          slow receiver more time.";
            Complaint::new(format!("no answer within {waited} ms"), advice).into()
        }
        Some(Came::Answer(_)) | None => stop,
    }
}

fn way_out(code: &str) -> &'static str {
    match code {
        "ECONNREFUSED" => {
            "Nobody listens there: start the receiver, and check host and port. From inside a \
             container, localhost is that container."
        }
        "ENOTFOUND" => "The host name does not resolve: check its spelling.",
        "EHOSTUNREACH" | "ECONNABORTED" => {
            "No route to the host: check that it runs, and that this machine can reach it."
        }
        "EPROTO" => {
            "TLS failed. To trust a private certificate, set SSL_CERT_FILE=FILE; a port without TLS \
             needs an http:// URL."
        }
        _ => {
            "Something listens there, but it does not answer as an HTTP server does: check that the \
             port is the receiver's, and whether it expects https://."
        }
    }
}

/// Sends two events and compares the connections they went over.
pub async fn keep_alive(trial: &mut Trial) -> Ruling {
    let advice = "Leave connections open for some seconds, as HTTP/1.1 servers do. A new one for each \
                  event costs a round trip, three with TLS, while a caller waits; one that is closed \
                  without notice can cost the event's first attempt.";
    let mut call = Call::fresh();
    let mut connections = Vec::new();
    for kind in [EventType::CallStarted, EventType::CallEnded] {
        // The first may already meet a connection that was closed under it.
        let answer = trial.expect(call.next(kind), ANSWERED).await;
        connections.push(answer.map_err(|stop| stop.advise(advice))?.connection);
    }
    if connections[0] == connections[1] {
        return Ok("the second event went over the connection of the first".to_owned());
    }
    Err(Complaint::new("the second event needed a new connection", advice).into())
}
