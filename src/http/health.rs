//! `GET /health` and `GET /ready`: is the process alive, and does it want work?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::fault::Fault;
use super::front::Front;

/// 200 while the process lives; the body is fixed, as monitors compare it.
pub async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// 200, or 503 with the reason while stopping. Before the start is complete nobody listens.
pub async fn ready(State(front): State<Arc<Front>>) -> Response {
    if front.queue.is_draining() {
        let reason = "draining: callhook is stopping and takes no more events".to_owned();
        return Fault::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    }
    Json(json!({"status": "ready"})).into_response()
}
