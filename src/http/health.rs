//! `GET /health` and `GET /ready`: is the process alive, and does it want work?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::HttpError;
use super::front::Front;

/// 200 while the process lives; the body is fixed, since monitors compare it.
pub async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// 200, or 503 with the reason while stopping. Nothing listens before the start is complete.
pub async fn ready(State(front): State<Arc<Front>>) -> Result<Response, HttpError> {
    if front.queue.is_draining() {
        return Err(HttpError::unavailable(
            "draining: callhook is stopping and takes no more events",
        ));
    }
    if front.calls.is_stopping() {
        return Err(HttpError::unavailable(
            "draining: callhook is stopping and takes no new calls",
        ));
    }
    Ok(Json(json!({"status": "ready"})).into_response())
}
