//! `GET /api/stream`: live updates for watchers.
//!
//! Takes a sample once a second. Four times a second tells all watchers which calls changed, each call
//! once, however much happened in it.
//!
//! Limit: an update has at most [`MOST_CHANGED`] calls; where more changed it is `reload` for all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::admin::Inspector;
use super::calls::CallSummary;
use super::pulse::{RELOAD, Sample};
use super::state::current;
use crate::http::HttpError;
use crate::queue::metrics::{QueueMetrics, ReceiverMetrics};
use crate::time::unix_millis;

/// About as many as a browser shows at first.
const MOST_CHANGED: usize = 300;

const BEAT: Duration = Duration::from_millis(250);
const BEATS_A_SECOND: u64 = 4;

/// Samples, and feeds the watchers, for ever.
pub async fn beat(inspector: &Arc<Inspector>) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut watched) = (Counted::now(&inspector.parts.metrics), false);
    for beat in 0_u64.. {
        ticks.tick().await;
        let is_second = beat % BEATS_A_SECOND == 0;
        if is_second {
            before = measure(inspector, &before);
        }
        let (pulse, history) = (&inspector.pulse, &inspector.parts.history);
        let was_watched = watched;
        watched = pulse.is_watched();
        if watched != was_watched {
            history.watch(watched);
        }
        if !watched {
            continue;
        }
        if is_second {
            pulse.tell(update("state", &current(inspector).await));
        }
        let changed = history.take_changed(MOST_CHANGED);
        if changed.overflowed || !was_watched {
            pulse.tell(Bytes::from_static(RELOAD.as_bytes()));
        } else if !changed.calls.is_empty() {
            let now = unix_millis();
            let calls: Vec<_> =
                changed.calls.iter().map(|call| CallSummary::of(call, now)).collect();
            pulse.tell(update("calls", &json!({"items": calls})));
        }
    }
}

/// Counted since the start.
struct Counted {
    /// Includes replays.
    accepted: u64,
    delivered: u64,
    /// Attempts.
    failed: u64,
    dead: u64,
}

impl Counted {
    fn now(metrics: &QueueMetrics) -> Self {
        let sum = |of: fn(&ReceiverMetrics) -> u64| metrics.receivers().iter().map(of).sum();
        Self {
            accepted: metrics.events.accepted.sum() + sum(|of| of.replayed.get()),
            delivered: sum(|of| of.delivered.sum()),
            failed: sum(|of| of.failures.sum()),
            dead: sum(|of| of.dead.sum()),
        }
    }
}

/// Takes a sample of what was counted since `before`.
fn measure(inspector: &Inspector, before: &Counted) -> Counted {
    let counted = Counted::now(&inspector.parts.metrics);
    inspector.pulse.add(Sample {
        at: unix_millis(),
        waiting: inspector.queue.unsettled(),
        live: inspector.parts.history.size().live,
        accepted: counted.accepted - before.accepted,
        delivered: counted.delivered - before.delivered,
        failed: counted.failed - before.failed,
        dead: counted.dead - before.dead,
    });
    counted
}

/// `GET /api/stream`: the state, at once and every second (`event: state`); the calls that changed
/// (`event: calls`); and that too much changed to list (`event: reload`).
pub async fn stream(State(inspector): State<Arc<Inspector>>) -> Result<Response, HttpError> {
    let watcher = inspector.pulse.watch()?;
    let state = current(&inspector).await;
    let first = stream::iter([Ok::<_, Infallible>(update("state", &state))]);
    let updates =
        stream::unfold(
            watcher,
            |mut watcher| async move { Some((Ok(watcher.next().await?), watcher)) },
        );
    let body = Body::from_stream(stream::StreamExt::chain(first, updates));
    // Otherwise proxies such as nginx buffer the stream.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    Ok(([(CONTENT_TYPE, "text/event-stream"), unbuffered], body).into_response())
}

/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
fn update(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("updates always serialise");
    format!("event: {name}\ndata: {data}\n\n").into()
}
