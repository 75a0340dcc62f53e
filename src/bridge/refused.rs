//! Refused: calls that cannot begin, told to the operator and to whoever asks for them.
//!
//! Limit: one record a second, since whoever reaches the port can cause them; the next one counts those that were left
//! out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::life::EndReason;
use crate::calls::{Calls, CannotBegin};
use crate::event::CallId;
use crate::journal::EndedCall;
use crate::time::unix_millis;

const EACH: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct RefusedCalls(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Since then.
    left_out: u64,
}

impl RefusedCalls {
    pub fn note(&self, calls: &Calls, call: CallId, peer: &str, error: CannotBegin) {
        let now = Instant::now();
        if let Some(left_out) = self.admit(now) {
            let left_out = (left_out > 0).then_some(left_out);
            warn!(uuid = %call, peer, %error, left_out, "a call is refused");
        }
        let reason = match error {
            // The one that is live will have an end of its own.
            CannotBegin::AlreadyLive => return,
            CannotBegin::Stopping => EndReason::Shutdown,
            CannotBegin::Limit => EndReason::Limit,
            CannotBegin::NotAnnounced => EndReason::NotAnnounced,
        };
        let (reason, at) = (reason.name().into(), unix_millis());
        calls.refuse(EndedCall { call, reason, duration_ms: 0, at, next: None }, now);
    }

    /// `None` if there was one in the last second, else how many were left out since.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now < at + EACH) {
            told.left_out += 1;
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_a_second_is_told_and_counts_those_between() {
        let (refused, begun) = (RefusedCalls::default(), Instant::now());
        let told = [0, 1, 500, 999, 1000, 1001, 5000]
            .map(|millis| refused.admit(begun + Duration::from_millis(millis)));
        assert_eq!(told, [Some(0), None, None, None, Some(3), None, Some(1)]);
    }
}
