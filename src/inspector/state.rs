//! `GET /api/state`: how the receiver, the queue and the journal stand.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::time::Instant;

use super::admin::Inspector;
use super::pulse::{Rates, Sample};
use crate::queue::{QueueStatus, ReceiverStatus};
use crate::time::{millis, timestamp_of, unix_millis};

/// How things stand.
#[derive(Debug, Serialize)]
pub struct Standing {
    version: &'static str,
    now: String,
    receiver: Receiver,
    queue: Depth,
    journal: Journal,
    dead_letters: Option<u64>,
    calls: Calls,
    /// Events a second, over the last seconds.
    rates: Rates,
    /// The last second.
    sample: Option<Sample>,
}

/// The same, and how it came.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    standing: Standing,
    /// One a second, oldest first.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Serialize)]
struct Receiver {
    /// Without its user part; `null` without a receiver.
    url: Option<String>,
    /// `up`, `down`, `paused`, or `none` without a receiver.
    state: &'static str,
    /// Attempts in a row that found nobody.
    unanswered: u32,
    /// Probes in vain.
    probes: u32,
    /// `null` while it is up, or a probe is on its way.
    next_probe_at: Option<String>,
    paused_until: Option<String>,
    /// Whether callers are sent to the fallback at once, since `call_initiated` keeps failing.
    routing_broken: bool,
}

#[derive(Debug, Serialize)]
struct Depth {
    waiting: usize,
    in_flight: usize,
    limit: usize,
    oldest_ms: Option<u64>,
    draining: bool,
}

#[derive(Debug, Serialize)]
struct Journal {
    /// Whether events outlive the process.
    durable: bool,
    /// Why it cannot be written, if so.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Calls {
    remembered: usize,
    live: usize,
    /// `INSPECTOR_CALLS`.
    limit: usize,
}

/// `GET /api/state`
pub async fn state(State(inspector): State<Arc<Inspector>>) -> Json<Report> {
    let samples = inspector.pulse.samples();
    Json(Report { standing: stand(&inspector).await, samples })
}

/// How things stand now.
pub async fn stand(inspector: &Arc<Inspector>) -> Standing {
    let queue = &inspector.queue;
    let (status, now, millis) = (queue.status(), Instant::now(), unix_millis());
    let (journal, settings) = (&inspector.parts.journal, &inspector.settings);
    let counting = Arc::clone(journal);
    let counted = tokio::task::spawn_blocking(move || counting.dead_count()).await;
    let size = inspector.parts.history.size();
    Standing {
        version: env!("CARGO_PKG_VERSION"),
        now: timestamp_of(millis),
        receiver: receiver(&settings.receiver, &status, now, millis),
        queue: Depth {
            waiting: status.unsettled,
            in_flight: status.in_flight,
            limit: settings.limits.queue,
            oldest_ms: status.oldest_since.map(|since| millis_between(since, now)),
            draining: queue.is_draining(),
        },
        journal: Journal {
            durable: journal.is_durable(),
            error: journal.fault().map(|fault| fault.to_string()),
        },
        // A journal that cannot be read says so in `error`.
        dead_letters: counted.ok().and_then(Result::ok),
        calls: Calls { remembered: size.calls, live: size.live, limit: size.limit },
        rates: inspector.pulse.rates(),
        sample: inspector.pulse.last_sample(),
    }
}

fn receiver(url: &str, status: &QueueStatus, now: Instant, millis: u64) -> Receiver {
    let at = |instant: Instant| timestamp_of(millis + millis_between(now, instant));
    let mut receiver = Receiver {
        url: Some(url.to_owned()).filter(|url| !url.is_empty()),
        state: "up",
        unanswered: 0,
        probes: 0,
        next_probe_at: None,
        paused_until: None,
        routing_broken: status.routing_broken,
    };
    match status.receiver {
        _ if receiver.url.is_none() => receiver.state = "none",
        ReceiverStatus::Up { unanswered } => receiver.unanswered = unanswered,
        ReceiverStatus::Down { probe_at, probes } => {
            receiver.state = "down";
            receiver.probes = probes;
            receiver.next_probe_at = probe_at.map(at);
        }
        ReceiverStatus::Paused { until } => {
            receiver.state = "paused";
            receiver.paused_until = Some(at(until));
        }
    }
    receiver
}

/// From the one to the other, 0 if it is the other way round.
fn millis_between(from: Instant, to: Instant) -> u64 {
    millis(to.saturating_duration_since(from))
}
