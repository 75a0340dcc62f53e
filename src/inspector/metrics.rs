//! `GET /metrics`: everything that is counted and measured, as OpenMetrics text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Inspector;
use crate::queue::{Availability, Status};
use crate::telemetry::{Metrics, metrics};

/// Sets what is a state rather than a count, and exposes everything.
pub async fn expose(State(inspector): State<Arc<Inspector>>) -> Response {
    let metrics = &inspector.metrics;
    set(metrics, inspector.queue.status());
    metrics.journal.failing.set(inspector.queue.journal().fault().is_some().into());
    let text = metrics.exposed().expect("text can always be written to a string");
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

fn set(metrics: &Metrics, status: Status) {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let oldest = status.oldest_since.map(|since| since.elapsed()).unwrap_or_default();
    let down = matches!(status.receiver, Availability::Down { .. });
    let paused = matches!(status.receiver, Availability::Paused { .. });
    metrics.queue.events.set(count(status.unsettled));
    metrics.queue.oldest.set(oldest.as_secs_f64());
    metrics.queue.receiver_up.set((!down).into());
    metrics.queue.receiver_paused.set(paused.into());
    metrics.attempts.in_flight.set(count(status.in_flight));
    metrics.routing.works.set((!status.routing_broken).into());
}
