//! The attempt: one request to the receiver, its outcome, and what that means.
//!
//! Owns the failure codes (those of Node and axios, since AVR Core logs them), and what each failure means
//! for retries and for the receiver's state. Plain values: [`crate::delivery`] makes the request, and
//! [`crate::queue`] decides what happens next.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use strum::VariantArray as _;

use crate::event::Item;
use crate::label::Label;

#[derive(Clone, Debug)]
pub struct Attempt {
    pub item: Item,
    /// Sent to find out whether a receiver that is down has come back.
    pub probe: bool,
    /// How long it may take: connect, send, and read of the answer.
    pub timeout: Duration,
}

impl Attempt {
    /// 1, 2, … for this event; failed probes are not counted.
    pub fn number(&self) -> u32 {
        self.item.spent.attempts + 1
    }
}

#[derive(Debug)]
pub enum Outcome {
    /// Any 2xx.
    Delivered {
        status: u16,
        /// `None` if the body was too long, too slow or broken.
        answer: Option<Bytes>,
    },
    Failed(Failure),
}

impl Outcome {
    /// `None` if the receiver did not answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status, .. } => Some(*status),
            Self::Failed(failure) => failure.status,
        }
    }
}

/// Makes attempts: the receiver's HTTP client, or a stand-in in tests.
pub trait Deliver: Send + Sync + 'static {
    /// Ends by itself: the implementation has a time limit of its own.
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome>;

    /// Where attempts go now, without userinfo; empty where that is nowhere.
    fn shown_url(&self) -> String {
        String::new()
    }

    /// The headers of an attempt made at that time, with secrets masked.
    fn shown_headers(&self, _attempt: &Attempt, _at: SystemTime) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The names that Node users grep for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
pub enum FailureCode {
    #[strum(serialize = "ECONNREFUSED")]
    ConnectionRefused,
    #[strum(serialize = "ECONNRESET")]
    ConnectionReset,
    /// The host name does not resolve.
    #[strum(serialize = "ENOTFOUND")]
    NotFound,
    #[strum(serialize = "EHOSTUNREACH")]
    HostUnreachable,
    /// `WEBHOOK_TIMEOUT` passed.
    #[strum(serialize = "ECONNABORTED")]
    Timeout,
    #[strum(serialize = "EPROTO")]
    Tls,
    /// The proxy before the receiver is not reached, or refuses.
    #[strum(serialize = "ERR_PROXY")]
    Proxy,
    /// A 3xx or 4xx.
    #[strum(serialize = "ERR_BAD_REQUEST")]
    BadRequest,
    /// A 5xx, or an answer that is not HTTP.
    #[strum(serialize = "ERR_BAD_RESPONSE")]
    BadResponse,
    /// A bug in callhook; says nothing about the receiver.
    #[strum(serialize = "ERR_INTERNAL")]
    Internal,
}

impl FailureCode {
    /// As in logs and metrics.
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

#[derive(Clone, Debug)]
pub struct Failure {
    pub code: FailureCode,
    /// For the operator, worded as Node and axios do.
    pub error: String,
    /// `None` if the receiver did not answer.
    pub status: Option<u16>,
    /// From `Retry-After`.
    pub retry_after: Option<Duration>,
    pub took: Duration,
    /// The beginning of the answer's body, fit to be shown. It may quote what the caller said.
    pub answer: Option<Box<str>>,
}

impl Failure {
    /// For any status but 2xx.
    pub fn of_status(status: u16, retry_after: Option<Duration>, took: Duration) -> Self {
        let code = match status {
            500..600 => FailureCode::BadResponse,
            _ => FailureCode::BadRequest,
        };
        let redirect =
            if (300..400).contains(&status) { " (redirects are not followed)" } else { "" };
        let error = format!("Request failed with status code {status}{redirect}");
        Self { code, error, status: Some(status), retry_after, took, answer: None }
    }

    /// `WEBHOOK_TIMEOUT` passed before the head of an answer arrived.
    pub fn of_timeout(limit: Duration, took: Duration) -> Self {
        let error = format!("timeout of {}ms exceeded", limit.as_millis());
        Self::unanswered(FailureCode::Timeout, error, took)
    }

    /// The attempt panicked, which must cost no other event.
    pub fn of_panic() -> Self {
        let error = "the attempt panicked, which is a bug in callhook".to_owned();
        Self::unanswered(FailureCode::Internal, error, Duration::ZERO)
    }

    pub fn unanswered(code: FailureCode, error: String, took: Duration) -> Self {
        Self { code, error, status: None, retry_after: None, took, answer: None }
    }

    /// Trying again is useless: the receiver rejects these very bytes.
    pub fn is_final(&self) -> bool {
        matches!(self.status, Some(400 | 410 | 413 | 415 | 422))
    }

    /// No answer at all, or a proxy's word that the receiver is down. A plain 500 is an answer: AVR's sample
    /// receiver gives one to every `call_initiated`.
    pub fn is_nobody_there(&self) -> bool {
        self.code != FailureCode::Internal && matches!(self.status, None | Some(502..=504))
    }

    /// How long all events have to wait: only 429 and 503 speak for the whole receiver.
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
    fn final_statuses_are_those_that_no_retry_can_fix() {
        let finals: Vec<u16> = (300..600).filter(|s| status(*s).is_final()).collect();
        assert_eq!(finals, [400, 410, 413, 415, 422]);
    }

    #[test]
    fn only_502_503_504_and_silence_mean_that_nobody_is_there() {
        let away: Vec<u16> = (300..600).filter(|s| status(*s).is_nobody_there()).collect();
        assert_eq!(away, [502, 503, 504]);
        for code in [FailureCode::ConnectionReset, FailureCode::Proxy] {
            let silent = Failure::unanswered(code, String::new(), Duration::ZERO);
            assert!(silent.is_nobody_there() && !silent.is_final(), "{code:?}");
        }
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
