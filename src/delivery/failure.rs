//! From an error of the wire to a [`Failure`], in the words that AVR's operators know.

use std::error::Error as _;
use std::io;
use std::iter::successors;
use std::time::Duration;

use crate::attempt::{Failure, FailureCode};
use crate::text::innermost;
use crate::wire::connections::AskError;
use crate::wire::dial::DialError;
use crate::wire::tls;

/// For a request that failed before the head of an answer was read. `address` is the receiver's `host:port`.
pub fn of_request(error: &AskError, address: &str, took: Duration) -> Failure {
    let (code, error) = match error {
        AskError::Dial(error) => of_dialing(error, address),
        AskError::Http(error) => of_http(error, address),
    };
    Failure::unanswered(code, error, took)
}

fn of_dialing(error: &DialError, address: &str) -> (FailureCode, String) {
    match error {
        DialError::NotResolved { host, .. } => {
            (FailureCode::NotFound, format!("getaddrinfo ENOTFOUND {host}"))
        }
        DialError::Tls(fault) => (FailureCode::Tls, format!("write EPROTO {address}: {fault}")),
        DialError::Connect(error) => classify_io(error, address).unwrap_or_else(|| {
            (FailureCode::ConnectionReset, format!("connect failed ({})", innermost(error)))
        }),
    }
}

fn of_http(error: &hyper::Error, address: &str) -> (FailureCode, String) {
    let io = successors(error.source(), |&cause| cause.source())
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    if let Some(known) = io.filter_map(|error| classify_io(error, address)).next() {
        known
    } else if error.is_parse() {
        (FailureCode::BadResponse, format!("answer is not HTTP: {error}"))
    } else {
        // Such as hyper's "connection closed before message completed".
        (FailureCode::ConnectionReset, format!("socket hang up ({})", innermost(error)))
    }
}

/// An `io::Error` may wrap another error without reporting it as its source.
fn classify_io(error: &io::Error, address: &str) -> Option<(FailureCode, String)> {
    if let Some(fault) = tls::fault(error) {
        return Some((FailureCode::Tls, format!("write EPROTO {address}: {fault}")));
    }
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return classify_io(inner, address);
    }
    let (code, verb) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (FailureCode::ConnectionRefused, "connect"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => (FailureCode::ConnectionReset, "read"),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => (FailureCode::HostUnreachable, "connect"),
        io::ErrorKind::TimedOut => (FailureCode::Timeout, "connect"),
        _ => return None,
    };
    Some((code, format!("{verb} {} {address}", code.name())))
}
