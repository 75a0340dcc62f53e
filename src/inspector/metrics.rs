//! `GET /metrics`: everything counted and measured, as OpenMetrics text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::admin::Inspector;
use crate::metrics::CONTENT_TYPE as OPEN_METRICS;
use crate::queue::metrics::QueueMetrics;
use crate::queue::{QueueStatus, ReceiverStatus};

/// Sets the gauges that show a state, then exposes everything.
pub async fn expose(State(inspector): State<Arc<Inspector>>) -> Response {
    let metrics = &inspector.metrics;
    set(&metrics.queue, inspector.queue.status());
    metrics.journal.failing.set(inspector.parts.journal.fault().is_some().into());
    let text = metrics.exposed().expect("writing to a string cannot fail");
    ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

fn set(metrics: &QueueMetrics, status: QueueStatus) {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let oldest = status.oldest_since.map(|since| since.elapsed()).unwrap_or_default();
    let down = matches!(status.receiver, ReceiverStatus::Down { .. });
    let paused = matches!(status.receiver, ReceiverStatus::Paused { .. });
    metrics.waiting.events.set(count(status.unsettled));
    metrics.waiting.oldest.set(oldest.as_secs_f64());
    metrics.waiting.receiver_up.set((!down).into());
    metrics.waiting.receiver_paused.set(paused.into());
    metrics.attempts.in_flight.set(count(status.in_flight));
    metrics.routing.works.set((!status.routing_broken).into());
}
