//! `GET /api/state`: the state of the receiver, the queue and the journal.

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

/// What `GET /api/stream` sends every second.
#[derive(Debug, Serialize)]
pub struct ServiceState {
    version: &'static str,
    now: String,
    receiver: ReceiverState,
    queue: QueueDepth,
    journal: JournalState,
    /// `null` if the journal cannot be read.
    dead_letters: Option<u64>,
    calls: CallTotals,
    rates: Rates,
    /// The last second.
    sample: Option<Sample>,
}

#[derive(Debug, Serialize)]
pub struct StateReport {
    #[serde(flatten)]
    state: ServiceState,
    /// One a second, oldest first.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Serialize)]
struct ReceiverState {
    /// Without its user part; `null` without a receiver.
    url: Option<String>,
    /// `up`, `down`, `paused`, or `none` without a receiver.
    state: &'static str,
    /// Attempts in a row without an answer.
    unanswered: u32,
    /// Failed probes in a row.
    probes: u32,
    /// `null` unless it is down and no probe is under way.
    next_probe_at: Option<String>,
    paused_until: Option<String>,
    /// Whether callers go to the fallback at once, since `call_initiated` keeps failing.
    routing_broken: bool,
}

#[derive(Debug, Serialize)]
struct QueueDepth {
    waiting: usize,
    in_flight: usize,
    limit: usize,
    oldest_ms: Option<u64>,
    draining: bool,
}

#[derive(Debug, Serialize)]
struct JournalState {
    /// Whether events outlive the process.
    durable: bool,
    /// Why it cannot be written, if so.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct CallTotals {
    remembered: usize,
    live: usize,
    /// `INSPECTOR_CALLS`.
    limit: usize,
}

/// `GET /api/state`
pub async fn state(State(inspector): State<Arc<Inspector>>) -> Json<StateReport> {
    let samples = inspector.pulse.samples();
    Json(StateReport { state: current(&inspector).await, samples })
}

pub async fn current(inspector: &Arc<Inspector>) -> ServiceState {
    let queue = &inspector.queue;
    let (status, now, millis) = (queue.status(), Instant::now(), unix_millis());
    let (journal, settings) = (&inspector.parts.journal, &inspector.settings);
    let counting = Arc::clone(journal);
    let counted = tokio::task::spawn_blocking(move || counting.dead_count()).await;
    let size = inspector.parts.history.size();
    ServiceState {
        version: env!("CARGO_PKG_VERSION"),
        now: timestamp_of(millis),
        receiver: receiver(&settings.main().url, &status, now, millis),
        queue: QueueDepth {
            waiting: status.unsettled,
            in_flight: status.in_flight,
            limit: settings.main().limits.queue,
            oldest_ms: status.oldest_since.map(|since| millis_between(since, now)),
            draining: queue.is_draining(),
        },
        journal: JournalState {
            durable: journal.is_durable(),
            error: journal.fault().map(|fault| fault.to_string()),
        },
        dead_letters: counted.ok().and_then(Result::ok),
        calls: CallTotals { remembered: size.calls, live: size.live, limit: size.limit },
        rates: inspector.pulse.rates(),
        sample: inspector.pulse.last_sample(),
    }
}

fn receiver(url: &str, status: &QueueStatus, now: Instant, millis: u64) -> ReceiverState {
    let at = |instant: Instant| timestamp_of(millis + millis_between(now, instant));
    let mut receiver = ReceiverState {
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

/// 0 where `to` is the earlier one.
fn millis_between(from: Instant, to: Instant) -> u64 {
    millis(to.saturating_duration_since(from))
}
