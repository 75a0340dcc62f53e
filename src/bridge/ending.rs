//! Ending: how a call ended, and who knows of it before the caller is let go.
//!
//! Invariant: the register and the disk know of the end before Asterisk can, since the dialplan asks as soon as
//! it goes on. A disk that fails or hangs delays that by [`DISK_TIME`] at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::life::EndReason;
use crate::calls::Calls;
use crate::event::CallId;
use crate::journal::{EndedCall, Journal};
use crate::routing::destination::Destination;
use crate::sts::Close;
use crate::time::{millis, unix_millis};

const DISK_TIME: Duration = Duration::from_millis(100);

/// How a call ended.
pub struct CallEnd {
    pub reason: EndReason,
    /// From its first frame to the end itself, without what is waited for after that.
    pub lasted: Duration,
    /// In Unix milliseconds.
    pub at: u64,
    /// How the STS server closed, where that was before the end.
    pub close: Option<Close>,
    /// Where the caller is sent on to.
    pub next: Option<Destination>,
}

/// Those who know of ends.
pub struct Ends {
    pub calls: Arc<Calls>,
    pub journal: Arc<Journal>,
}

impl Ends {
    /// Those who know of these ends already, which are on disk.
    pub fn knowing(ended: &[EndedCall], calls: &Arc<Calls>, journal: &Arc<Journal>) -> Self {
        let (now, today) = (Instant::now(), unix_millis());
        for call in ended {
            let age = Duration::from_millis(today.saturating_sub(call.at));
            calls.has_ended(call.clone(), now.checked_sub(age).unwrap_or(now));
        }
        Self { calls: Arc::clone(calls), journal: Arc::clone(journal) }
    }

    /// Lets all know; returns when it is on disk.
    pub async fn note(&self, call: CallId, end: &CallEnd) {
        let (reason, duration_ms) = (end.reason.name().into(), millis(end.lasted));
        let ended = EndedCall { call, reason, duration_ms, at: end.at, next: end.next.clone() };
        if ended.next.is_some() {
            self.calls.expect_next(call);
        }
        self.calls.has_ended(ended.clone(), Instant::now());
        // What the disk does not take in time it gets later.
        timeout(DISK_TIME, self.journal.call_ended(ended).kept()).await.ok();
    }
}
