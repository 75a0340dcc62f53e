//! `GET /api/stream`: what changes, for those who watch.
//!
//! Measures once a second, and tells all who watch the same, four times a second: which calls changed,
//! each once however much happened to it.
//!
//! Limit: at most [`MOST_CHANGED`] calls are told of at a time, beyond which it is `reload` for all.

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
use super::calls::Summary;
use super::pulse::{RELOAD, Sample};
use super::state::{Standing, stand};
use crate::http::Fault;
use crate::queue::metrics::QueueMetrics;
use crate::time::unix_millis;

/// The most calls that one update tells of: as many as a page shows.
const MOST_CHANGED: usize = 300;

/// How often watchers are told, and every how many of them it is measured.
const BEAT: Duration = Duration::from_millis(250);
const BEATS_A_SECOND: u64 = 4;

/// Measures and tells, for ever.
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
            pulse.tell(update("state", &stand(inspector).await));
        }
        let changed = history.take_changed(MOST_CHANGED);
        if changed.overflowed || !was_watched {
            pulse.tell(Bytes::from_static(RELOAD.as_bytes()));
        } else if !changed.calls.is_empty() {
            let now = unix_millis();
            let calls: Vec<_> = changed.calls.iter().map(|call| Summary::of(call, now)).collect();
            pulse.tell(update("calls", &json!({"items": calls})));
        }
    }
}

/// What was counted since the start.
struct Counted {
    /// Replays included.
    accepted: u64,
    delivered: u64,
    /// Attempts.
    failed: u64,
    dead: u64,
}

impl Counted {
    fn now(metrics: &QueueMetrics) -> Self {
        let QueueMetrics { events, attempts, .. } = metrics;
        Self {
            accepted: events.accepted.sum() + events.replayed.get(),
            delivered: events.delivered.sum(),
            failed: attempts.failures.sum(),
            dead: events.dead.sum(),
        }
    }
}

/// Takes a sample; returns what was counted until now.
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

/// `GET /api/stream`: how things stand, at once and every second (`event: state`); which calls changed
/// (`event: calls`); and that there was too much of it to tell (`event: reload`).
pub async fn stream(State(inspector): State<Arc<Inspector>>) -> Result<Response, Fault> {
    let watcher = inspector.pulse.watch()?;
    let standing: Standing = stand(&inspector).await;
    let first = stream::iter([Ok::<_, Infallible>(update("state", &standing))]);
    let updates =
        stream::unfold(
            watcher,
            |mut watcher| async move { Some((Ok(watcher.next().await?), watcher)) },
        );
    let body = Body::from_stream(stream::StreamExt::chain(first, updates));
    // Proxies such as nginx would hold it back otherwise.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    Ok(([(CONTENT_TYPE, "text/event-stream"), unbuffered], body).into_response())
}

/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
fn update(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("what is told serialises");
    format!("event: {name}\ndata: {data}\n\n").into()
}
