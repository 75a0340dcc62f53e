//! Refusals: who was turned away, and why, for the operator.
//!
//! Asterisk's dialplan sees no status, so a wrong secret, or a caller id that breaks the JSON, shows in the log or nowhere.
//!
//! Limit: [`MOST`] records in any second, since whoever reaches the port can cause them; the next one counts those
//! that were left out.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::Instant;
use tracing::{error, warn};

use super::connection::Peer;
use super::error::Reason;
use crate::text::{excerpt, printable};

/// A second.
const MOST: usize = 10;

/// The longest part of a reason that is logged, in characters: reasons quote what was sent.
const REASON: usize = 300;

#[derive(Default)]
pub struct Refusals(Mutex<Logged>);

#[derive(Default)]
struct Logged {
    /// When the last ones were; at most [`MOST`].
    at: VecDeque<Instant>,
    /// Since the last one.
    left_out: u64,
}

impl Refusals {
    /// Logs the answer if it is a refusal.
    pub fn log(&self, route: &'static str, peer: Option<Peer>, answer: &Response) {
        let status = answer.status();
        let Some(Reason(reason)) = answer.extensions().get().filter(|_| is_told(status)) else {
            return;
        };
        let Some(left_out) = self.admit(Instant::now()) else {
            return;
        };
        let peer = peer.map(|Peer(address)| address.to_string());
        let (error, status) = (excerpt(&printable(reason), REASON), status.as_u16());
        let left_out = (left_out > 0).then_some(left_out);
        match answer.status() {
            StatusCode::LOOP_DETECTED => {
                error!(
                    route,
                    peer,
                    status,
                    error,
                    left_out,
                    "an event came back to the callhook that sent it"
                );
            }
            _ => warn!(route, peer, status, error, left_out, "request refused"),
        }
    }

    /// `None` if there were too many lately, else how many were left out.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.at.len() == MOST {
            if logged.at.front().is_some_and(|at| *at + Duration::from_secs(1) > now) {
                logged.left_out += 1;
                return None;
            }
            logged.at.pop_front();
        }
        logged.at.push_back(now);
        Some(std::mem::take(&mut logged.left_out))
    }
}

/// What its sender should know, and may not hear. Not an unknown path, which scanners try, and not a queue that is
/// full, which has records of its own.
fn is_told(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 408 | 413 | 422 | 508)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_ten_refusals_are_logged_in_any_second_and_the_rest_is_counted() {
        let (refusals, begun) = (Refusals::default(), Instant::now());
        let mut admitted = Vec::new();
        for tenths in 0..35 {
            for _ in 0..5 {
                let now = begun + Duration::from_millis(100) * tenths;
                admitted.extend(refusals.admit(now).map(|left_out| (now, left_out)));
            }
        }
        for (at, _) in &admitted {
            let within =
                |(other, _): &&(Instant, u64)| (*at..*at + Duration::from_secs(1)).contains(other);
            assert!(admitted.iter().filter(within).count() <= MOST);
        }
        let left_out: u64 = admitted.iter().map(|(_, left_out)| left_out).sum();
        assert_eq!(admitted.len(), 40);
        assert_eq!(left_out, 3 * 40, "those of the last second wait for the next record");
    }
}
