//! `GET /metrics`: everything that is counted and measured, as OpenMetrics text.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Inspector;
use crate::queue::Vitals;
use crate::telemetry::{Metrics, metrics};

/// Sets what is a state rather than a count, and exposes everything.
pub async fn expose(State(inspector): State<Arc<Inspector>>) -> Response {
    let metrics = &inspector.metrics;
    set(metrics, inspector.queue.vitals());
    metrics.journal.failing.set(inspector.queue.journal().fault().is_some().into());
    let text = metrics.exposed().expect("text can always be written to a string");
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

fn set(metrics: &Metrics, vitals: Vitals) {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.queue.events.set(count(vitals.events));
    metrics.queue.oldest.set(vitals.oldest.unwrap_or_default().as_secs_f64());
    metrics.queue.receiver_up.set((!vitals.down).into());
    metrics.queue.receiver_paused.set(vitals.paused.into());
    metrics.attempts.in_flight.set(count(vitals.in_flight));
    metrics.routing.works.set((!vitals.routing_broken).into());
}
