//! The failure record: why an attempt failed, in the words that AVR's operators know.
//!
//! Owns the codes (those that Node and axios use, since AVR Core logs them), what each means for
//! retries and for the receiver's state, and the fields of the log record. Leaves the decision
//! what happens next to [`crate::queue`].

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::WebhookSettings;

/// The short name of a failure, as Node users grep for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Nobody listens on that port.
    ConnectionRefused,
    /// The connection broke.
    ConnectionReset,
    /// The host's name does not resolve.
    NotFound,
    /// No route to the host or its network.
    HostUnreachable,
    /// `WEBHOOK_TIMEOUT` passed.
    Timeout,
    /// TLS failed.
    Tls,
    /// A 3xx or 4xx.
    BadRequest,
    /// A 5xx, or an answer that is no HTTP.
    BadResponse,
    /// A fault of callhook's own; the receiver has no part in it.
    Internal,
}

impl Code {
    /// Every code there is.
    pub const ALL: [Self; 9] = [
        Self::ConnectionRefused,
        Self::ConnectionReset,
        Self::NotFound,
        Self::HostUnreachable,
        Self::Timeout,
        Self::Tls,
        Self::BadRequest,
        Self::BadResponse,
        Self::Internal,
    ];

    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "ECONNREFUSED",
            Self::ConnectionReset => "ECONNRESET",
            Self::NotFound => "ENOTFOUND",
            Self::HostUnreachable => "EHOSTUNREACH",
            Self::Timeout => "ECONNABORTED",
            Self::Tls => "EPROTO",
            Self::BadRequest => "ERR_BAD_REQUEST",
            Self::BadResponse => "ERR_BAD_RESPONSE",
            Self::Internal => "ERR_INTERNAL",
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its short name.
    pub code: Code,
    /// The sentence for the operator, worded as Node and axios do.
    pub error: String,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// How long the receiver asked to be left alone, at most [`super::MAX_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// How long the attempt took.
    pub took: Duration,
}

impl Failure {
    /// An answer other than 2xx.
    pub fn of_status(status: StatusCode, retry_after: Option<Duration>, took: Duration) -> Self {
        let redirect = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        Self {
            code: if status.is_server_error() { Code::BadResponse } else { Code::BadRequest },
            error: format!("Request failed with status code {}{redirect}", status.as_u16()),
            status: Some(status.as_u16()),
            retry_after,
            took,
        }
    }

    /// `WEBHOOK_TIMEOUT` passed before a head came back.
    pub fn of_timeout(settings: &WebhookSettings, took: Duration) -> Self {
        let error = format!("timeout of {}ms exceeded", settings.timeout.as_millis());
        Self::unanswered(Code::Timeout, error, took)
    }

    /// The request could not be made, or no proper head came back.
    pub fn of_request(error: &reqwest::Error, settings: &WebhookSettings, took: Duration) -> Self {
        let (code, error) = classify(error, &settings.place());
        Self::unanswered(code, error, took)
    }

    /// The attempt panicked: a bug here, which must cost this event alone.
    pub fn of_panic() -> Self {
        let error = "the attempt panicked, which is a bug in callhook".to_owned();
        Self::unanswered(Code::Internal, error, Duration::ZERO)
    }

    /// A failure without any answer.
    pub fn unanswered(code: Code, error: String, took: Duration) -> Self {
        Self { code, error, status: None, retry_after: None, took }
    }

    /// Trying again is of no use: the receiver refuses these bytes.
    pub fn is_final(&self) -> bool {
        matches!(self.status, Some(400 | 410 | 413 | 415 | 422))
    }

    /// Nobody is there: no answer at all, or a proxy's word that the receiver is away. A plain 500
    /// is an answer, as AVR's sample receiver gives one to every `call_initiated`.
    pub fn is_nobody_there(&self) -> bool {
        self.code != Code::Internal && matches!(self.status, None | Some(502..=504))
    }

    /// How long the receiver asked everybody to wait, as 429 and 503 do.
    pub fn pause(&self) -> Option<Duration> {
        match self.status {
            Some(429 | 503) => self.retry_after,
            Some(_) | None => None,
        }
    }
}

/// Finds the cause that means something to an operator in reqwest's chain of errors.
fn classify(error: &reqwest::Error, place: &str) -> (Code, String) {
    let mut innermost: &(dyn StdError + 'static) = error;
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(NotResolved { host, .. }) = cause.downcast_ref() {
            return (Code::NotFound, format!("getaddrinfo ENOTFOUND {host}"));
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(known) = classify_io(io, place)
        {
            return known;
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return (Code::BadResponse, format!("answer is not HTTP: {cause}"));
        }
        innermost = cause;
        next = cause.source();
    }
    // What is left is a connection that went away, such as hyper's "connection closed before
    // message completed".
    let what = if error.is_connect() { "connect failed" } else { "socket hang up" };
    (Code::ConnectionReset, format!("{what} ({innermost})"))
}

/// An `io::Error` may carry another error, which it does not show as its source.
fn classify_io(error: &io::Error, place: &str) -> Option<(Code, String)> {
    let carried = error.get_ref();
    if let Some(tls) = carried.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Some((Code::Tls, format!("write EPROTO {place}: {tls}")));
    }
    if let Some(inner) = carried.and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return classify_io(inner, place);
    }
    let (code, verb) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (Code::ConnectionRefused, "connect"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => (Code::ConnectionReset, "read"),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => (Code::HostUnreachable, "connect"),
        io::ErrorKind::TimedOut => (Code::Timeout, "connect"),
        _ => return None,
    };
    Some((code, format!("{verb} {} {place}", code.name())))
}

/// Resolves names as the system does, and says so in a type when it cannot.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await.map(Vec::from_iter);
            match found {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(cause) => Err(NotResolved { host, cause }.into()),
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{host} does not resolve: {cause}")]
struct NotResolved {
    host: String,
    cause: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        Failure::of_status(status, Some(Duration::from_secs(1)), Duration::ZERO)
    }

    #[test]
    fn final_statuses_are_those_that_no_retry_can_mend() {
        let finals: Vec<u16> = (300..600).filter(|s| status(*s).is_final()).collect();
        assert_eq!(finals, [400, 410, 413, 415, 422]);
    }

    #[test]
    fn only_502_503_504_and_silence_mean_that_nobody_is_there() {
        let away: Vec<u16> = (300..600).filter(|s| status(*s).is_nobody_there()).collect();
        assert_eq!(away, [502, 503, 504]);
        let silent = Failure::unanswered(Code::ConnectionReset, String::new(), Duration::ZERO);
        assert!(silent.is_nobody_there());
    }

    #[test]
    fn only_429_and_503_pause_the_whole_receiver() {
        let pausing: Vec<u16> = (300..600).filter(|s| status(*s).pause().is_some()).collect();
        assert_eq!(pausing, [429, 503]);
    }

    #[test]
    fn a_5xx_is_a_bad_response_and_other_answers_are_bad_requests() {
        assert_eq!(status(500).code.name(), "ERR_BAD_RESPONSE");
        assert_eq!(status(404).code.name(), "ERR_BAD_REQUEST");
        assert_eq!(status(302).code.name(), "ERR_BAD_REQUEST");
        assert_eq!(status(500).error, "Request failed with status code 500");
    }
}
