//! The inspector: the admin port, where operators look and act.
//!
//! Owns the page, the API behind it, the exposition of metrics, and who may use the port ([`guard`]).
//! Its users read payloads, so the port listens on loopback only, unless a token is set.

mod admin;
mod calls;
pub mod dead;
mod guard;
mod metrics;
mod page;
mod pulse;
mod state;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{delete, get, post};
use tokio_util::sync::CancellationToken;

pub use self::admin::{AdminSettings, Inspector};
use crate::http::{HttpError, method_not_allowed};

impl Inspector {
    /// Samples, and feeds the streams, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(stream::beat(&self)).await;
        self.pulse.end();
    }

    pub fn router(self: &Arc<Self>) -> Router {
        let api = Router::new()
            .route("/metrics", get(metrics::expose))
            .route("/api/calls", get(calls::list))
            .route("/api/calls/{uuid}", get(calls::timeline))
            .route("/api/calls/{uuid}/hangup", post(calls::hang_up))
            .route("/api/state", get(state::state))
            .route("/api/stream", get(stream::stream))
            .route("/api/dead", get(dead::list).delete(dead::delete_all))
            .route("/api/dead/replay", post(dead::replay_all))
            .route("/api/dead/{id}/replay", post(dead::replay))
            .route("/api/dead/{id}", delete(dead::delete))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(Arc::clone(self), guard::authorise))
            .with_state(Arc::clone(self));
        // The page itself is public; it asks for the token.
        page::routes()
            .method_not_allowed_fallback(method_not_allowed)
            .merge(api)
            .layer(from_fn_with_state(Arc::clone(self), guard::check_host))
            .layer(map_response(guard::protect))
    }
}

async fn not_found(uri: Uri) -> HttpError {
    HttpError::not_found(format!(
        "no such path: {}; the inspector is at /, metrics are at /metrics",
        uri.path()
    ))
}
