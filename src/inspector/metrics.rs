//! `GET /metrics`: everything counted and measured, as OpenMetrics text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::admin::Inspector;
use crate::metrics::CONTENT_TYPE as OPEN_METRICS;
use crate::queue::metrics::ReceiverMetrics;
use crate::queue::{QueueStatus, ReceiverStatus};
use crate::receiver::ReceiverId;

/// Sets the gauges that show a state, then exposes everything.
pub async fn expose(State(inspector): State<Arc<Inspector>>) -> Response {
    let metrics = &inspector.metrics;
    let statuses = inspector.queue.statuses();
    metrics.queue.routing.works.set((!statuses[ReceiverId::MAIN.index()].routing_broken).into());
    for (of, status) in metrics.queue.receivers().iter().zip(statuses) {
        set(of, status);
    }
    metrics.journal.failing.set(inspector.parts.journal.fault().is_some().into());
    let text = metrics.exposed().expect("writing to a string cannot fail");
    ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

fn set(metrics: &ReceiverMetrics, status: QueueStatus) {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let oldest = status.oldest_since.map(|since| since.elapsed()).unwrap_or_default();
    let down = matches!(status.receiver, ReceiverStatus::Down { .. });
    let paused = matches!(status.receiver, ReceiverStatus::Paused { .. });
    metrics.waiting.set(count(status.unsettled));
    metrics.oldest.set(oldest.as_secs_f64());
    metrics.up.set((!down).into());
    metrics.paused.set(paused.into());
    metrics.in_flight.set(count(status.in_flight));
}
