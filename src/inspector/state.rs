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
use crate::receiver::{ReceiverId, ReceiverName};
use crate::time::{millis, timestamp_of, unix_millis};

/// What `GET /api/stream` sends every second.
#[derive(Debug, Serialize)]
pub struct ServiceState {
    version: &'static str,
    now: String,
    /// The main one first.
    receivers: Vec<ReceiverState>,
    /// Over all receivers.
    queue: QueueDepth,
    journal: JournalState,
    /// Over all receivers, also those that are not in the settings any more; `null` if the journal cannot be read.
    dead_letters: Option<u64>,
    /// Those that are not in the settings any more.
    retired: Vec<RetiredReceiver>,
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
    name: String,
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
    /// Events that wait for it.
    waiting: usize,
    in_flight: usize,
    oldest_ms: Option<u64>,
    /// `null` if the journal cannot be read.
    dead_letters: Option<u64>,
}

/// What is kept for a receiver that is not in the settings any more.
#[derive(Debug, Serialize)]
struct RetiredReceiver {
    name: String,
    /// Events that wait for it.
    waiting: usize,
    /// `null` if the journal cannot be read.
    dead_letters: Option<u64>,
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
    let counting = Arc::clone(&inspector.parts.journal);
    let counted = tokio::task::spawn_blocking(move || counting.dead_counts()).await;
    let dead = counted.ok().and_then(Result::ok);
    let (receivers, retired) = receivers(inspector, dead.as_deref());
    let (queue, journal) = (&inspector.queue, &inspector.parts.journal);
    let size = inspector.parts.history.size();
    ServiceState {
        version: env!("CARGO_PKG_VERSION"),
        now: timestamp_of(unix_millis()),
        queue: QueueDepth {
            waiting: receivers.iter().map(|receiver| receiver.waiting).sum(),
            in_flight: receivers.iter().map(|receiver| receiver.in_flight).sum(),
            limit: inspector.settings.main().limits.queue,
            oldest_ms: receivers.iter().filter_map(|receiver| receiver.oldest_ms).max(),
            draining: queue.is_draining(),
        },
        receivers,
        retired,
        journal: JournalState {
            durable: journal.is_durable(),
            error: journal.fault().map(|fault| fault.to_string()),
        },
        dead_letters: dead.map(|dead| dead.iter().sum()),
        calls: CallTotals { remembered: size.calls, live: size.live, limit: size.limit },
        rates: inspector.pulse.rates(),
        sample: inspector.pulse.last_sample(),
    }
}

/// Those of the settings, and those that are not in them any more, with their dead letters by [`ReceiverId`].
fn receivers(
    inspector: &Inspector,
    dead: Option<&[u64]>,
) -> (Vec<ReceiverState>, Vec<RetiredReceiver>) {
    let dead_of = |receiver: ReceiverId| dead.map(|dead| dead[receiver.index()]);
    let (parts, journal) = (&inspector.parts, &inspector.parts.journal);
    let (statuses, now, millis) = (inspector.queue.statuses(), Instant::now(), unix_millis());
    let mut names = journal.receivers().iter();
    let of_settings = names.by_ref().take(statuses.len()).zip(&statuses);
    let state = |((id, name), status): ((ReceiverId, &ReceiverName), &QueueStatus)| {
        let shown = (name.to_string(), parts.url_of(id));
        receiver(shown, status, dead_of(id), now, millis)
    };
    let receivers = of_settings.map(state).collect();
    let retired = names.map(|(id, name)| RetiredReceiver {
        name: name.to_string(),
        waiting: journal.waiting_retired(id),
        dead_letters: dead_of(id),
    });
    (receivers, retired.collect())
}

/// With its name and URL.
fn receiver(
    (name, url): (String, String),
    status: &QueueStatus,
    dead_letters: Option<u64>,
    now: Instant,
    millis: u64,
) -> ReceiverState {
    let at = |instant: Instant| timestamp_of(millis + millis_between(now, instant));
    let mut receiver = ReceiverState {
        name,
        url: Some(url).filter(|url| !url.is_empty()),
        state: "up",
        unanswered: 0,
        probes: 0,
        next_probe_at: None,
        paused_until: None,
        routing_broken: status.routing_broken,
        waiting: status.unsettled,
        in_flight: status.in_flight,
        oldest_ms: status.oldest_since.map(|since| millis_between(since, now)),
        dead_letters,
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
