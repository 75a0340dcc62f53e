//! Reply: what is answered to an event, and how its request ended.

use std::time::Duration;

use axum::http::StatusCode;

use super::remark::Remark;
use super::trust::Distrust;
use crate::routing::destination::Destination;

/// What an event is answered, and when.
#[derive(Clone, Debug)]
pub struct Reply {
    pub ending: Ending,
    /// `sts_url` in the body of a usual answer.
    pub sts_url: Option<String>,
    /// `next` in the body of a usual answer.
    pub next: Option<Destination>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    pub delay: Duration,
    pub remarks: Vec<Remark>,
}

/// How a request with an event ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered as events usually are.
    Usual(StatusCode),
    /// A fault on order: another status.
    Fault(StatusCode),
    /// A fault on order: the connection is closed, and there is no answer.
    Closed,
    /// The sender is not trusted, and gets 401.
    Refused(Distrust),
    /// The sender went away before the answer was due.
    Gone,
}

impl Ending {
    /// The status that is answered, if any.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Usual(status) | Self::Fault(status) => Some(*status),
            Self::Refused(_) => Some(StatusCode::UNAUTHORIZED),
            Self::Closed | Self::Gone => None,
        }
    }

    /// Whether the answer takes the event: 2xx.
    pub fn takes(&self) -> bool {
        self.status().is_some_and(|status| status.is_success())
    }
}

impl From<Ending> for Reply {
    /// At once, and without anything else.
    fn from(ending: Ending) -> Self {
        let (delay, remarks) = (Duration::ZERO, Vec::new());
        Self { ending, sts_url: None, next: None, retry_after: None, delay, remarks }
    }
}
