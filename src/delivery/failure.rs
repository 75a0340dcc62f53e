//! From the HTTP client's error to a [`Failure`], in the words that AVR's operators know.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use crate::attempt::{Failure, FailureCode};
use crate::wire::NotResolved;

/// For a request that failed before the head of an answer was read. `address` is the receiver's `host:port`.
pub fn of_request(error: &reqwest::Error, address: &str, took: Duration) -> Failure {
    let (code, error) = classify(error, address);
    Failure::unanswered(code, error, took)
}

/// Walks down reqwest's chain of causes to the first one that tells an operator something.
fn classify(error: &reqwest::Error, address: &str) -> (FailureCode, String) {
    let mut innermost: &(dyn StdError + 'static) = error;
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(NotResolved { host, .. }) = cause.downcast_ref() {
            return (FailureCode::NotFound, format!("getaddrinfo ENOTFOUND {host}"));
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(known) = classify_io(io, address)
        {
            return known;
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return (FailureCode::BadResponse, format!("answer is not HTTP: {cause}"));
        }
        innermost = cause;
        next = cause.source();
    }
    // What remains is a broken connection, such as hyper's "connection closed before message completed".
    let what = if error.is_connect() { "connect failed" } else { "socket hang up" };
    (FailureCode::ConnectionReset, format!("{what} ({innermost})"))
}

/// An `io::Error` may wrap another error without reporting it as its source.
fn classify_io(error: &io::Error, address: &str) -> Option<(FailureCode, String)> {
    let carried = error.get_ref();
    if let Some(tls) = carried.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Some((FailureCode::Tls, format!("write EPROTO {address}: {tls}")));
    }
    if let Some(inner) = carried.and_then(|inner| inner.downcast_ref::<io::Error>()) {
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
