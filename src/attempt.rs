//! The attempt: one delivery to the receiver, how it went, and what that means.
//!
//! Owns the codes of failures (those that Node and axios use, since AVR Core logs them), and what each
//! failure means for retries and for the receiver's state. Plain values: the request itself is
//! [`crate::delivery`]'s, what happens next is the queue's.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use strum::VariantArray as _;

use crate::event::Item;
use crate::label::Label;

/// One HTTP request that is to be made.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub item: Item,
    /// Whether it finds out if a receiver that is down is there again.
    pub probe: bool,
}

impl Attempt {
    /// 1, 2, … for this event; a probe in vain is not counted.
    pub fn number(&self) -> u32 {
        self.item.spent.attempts + 1
    }
}

/// How an attempt went.
#[derive(Debug)]
pub enum Outcome {
    /// A 2xx came back.
    Delivered {
        /// Which 2xx.
        status: u16,
        /// The whole body, where it could be read in time and within the limit.
        answer: Option<Bytes>,
    },
    /// Anything else.
    Failed(Failure),
}

impl Outcome {
    /// The receiver's status, where it answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status, .. } => Some(*status),
            Self::Failed(failure) => failure.status,
        }
    }
}

/// Whoever can make an attempt: the receiver's HTTP client, or a stand-in under test.
pub trait Deliver: Send + Sync + 'static {
    /// Makes one attempt. Ends by itself, within a limit of its own.
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome>;

    /// The headers of an attempt that was made at that time (to the second), what is secret masked.
    fn shown_headers(&self, _attempt: &Attempt, _at: SystemTime) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The short name of a failure, as Node users grep for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
pub enum FailureCode {
    /// Nobody listens on that port.
    #[strum(serialize = "ECONNREFUSED")]
    ConnectionRefused,
    /// The connection broke.
    #[strum(serialize = "ECONNRESET")]
    ConnectionReset,
    /// The host's name does not resolve.
    #[strum(serialize = "ENOTFOUND")]
    NotFound,
    /// No route to the host or its network.
    #[strum(serialize = "EHOSTUNREACH")]
    HostUnreachable,
    /// `WEBHOOK_TIMEOUT` passed.
    #[strum(serialize = "ECONNABORTED")]
    Timeout,
    /// TLS failed.
    #[strum(serialize = "EPROTO")]
    Tls,
    /// A 3xx or 4xx.
    #[strum(serialize = "ERR_BAD_REQUEST")]
    BadRequest,
    /// A 5xx, or an answer that is no HTTP.
    #[strum(serialize = "ERR_BAD_RESPONSE")]
    BadResponse,
    /// A fault of callhook's own; the receiver has no part in it.
    #[strum(serialize = "ERR_INTERNAL")]
    Internal,
}

impl FailureCode {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Label for FailureCode {
    fn all() -> Vec<Self> {
        Self::VARIANTS.to_vec()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("code", self.name())]
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its short name.
    pub code: FailureCode,
    /// The sentence for the operator, worded as Node and axios do.
    pub error: String,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// How long the receiver asked to be left alone.
    pub retry_after: Option<Duration>,
    /// How long the attempt took.
    pub took: Duration,
}

impl Failure {
    /// An answer other than 2xx.
    pub fn of_status(status: u16, retry_after: Option<Duration>, took: Duration) -> Self {
        let code = match status {
            500..600 => FailureCode::BadResponse,
            _ => FailureCode::BadRequest,
        };
        let redirect =
            if (300..400).contains(&status) { " (redirects are not followed)" } else { "" };
        let error = format!("Request failed with status code {status}{redirect}");
        Self { code, error, status: Some(status), retry_after, took }
    }

    /// `WEBHOOK_TIMEOUT` passed before a head came back.
    pub fn of_timeout(limit: Duration, took: Duration) -> Self {
        let error = format!("timeout of {}ms exceeded", limit.as_millis());
        Self::unanswered(FailureCode::Timeout, error, took)
    }

    /// The attempt panicked: a bug here, which must cost this event alone.
    pub fn of_panic() -> Self {
        let error = "the attempt panicked, which is a bug in callhook".to_owned();
        Self::unanswered(FailureCode::Internal, error, Duration::ZERO)
    }

    /// A failure without any answer.
    pub fn unanswered(code: FailureCode, error: String, took: Duration) -> Self {
        Self { code, error, status: None, retry_after: None, took }
    }

    /// Trying again is of no use: the receiver refuses these bytes.
    pub fn is_final(&self) -> bool {
        matches!(self.status, Some(400 | 410 | 413 | 415 | 422))
    }

    /// Nobody is there: no answer at all, or a proxy's word that the receiver is away. A plain 500
    /// is an answer, as AVR's sample receiver gives one to every `call_initiated`.
    pub fn is_nobody_there(&self) -> bool {
        self.code != FailureCode::Internal && matches!(self.status, None | Some(502..=504))
    }

    /// How long the receiver asked everybody to wait, as 429 and 503 do.
    pub fn pause(&self) -> Option<Duration> {
        match self.status {
            Some(429 | 503) => self.retry_after,
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Failure {
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
        let silent =
            Failure::unanswered(FailureCode::ConnectionReset, String::new(), Duration::ZERO);
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
