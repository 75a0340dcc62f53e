//! The inspector: the admin port, where operators look and act.
//!
//! Owns who may use the port, the API of the dead letters, and when metrics are read. Whoever has the token may read
//! payloads, so the port is bound to loopback unless there is one.

pub mod client;
mod dead;
mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::config::is_same_secret;
use crate::http::{Fault, bearer, method_not_allowed};
use crate::queue::Queue;
use crate::telemetry::Metrics;

/// What the admin port's routes need.
pub struct Inspector {
    queue: Queue,
    metrics: Arc<Metrics>,
    token: Option<SecretString>,
    /// Held while dead letters are moved, so that two requests cannot replay one twice.
    moving: Mutex<()>,
}

impl Inspector {
    /// An inspector of this queue, which asks for the token if there is one.
    pub fn new(queue: Queue, metrics: Arc<Metrics>, token: Option<SecretString>) -> Self {
        Self { queue, metrics, token, moving: Mutex::new(()) }
    }

    /// The admin port's routes.
    pub fn router(self) -> Router {
        let inspector = Arc::new(self);
        Router::new()
            .route("/metrics", get(metrics::expose))
            .route("/api/dead", get(dead::list))
            .route("/api/dead/replay", post(dead::replay_all))
            .route("/api/dead/{id}/replay", post(dead::replay))
            .route("/api/dead/{id}", delete(dead::delete))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(Arc::clone(&inspector), authorise))
            .with_state(inspector)
    }
}

async fn authorise(
    State(inspector): State<Arc<Inspector>>,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    if let Some(token) = &inspector.token
        && !bearer(request.headers()).is_some_and(|given| is_same_secret(given, token))
    {
        let error = "send ADMIN_TOKEN as Authorization: Bearer".to_owned();
        return Err(Fault::new(StatusCode::UNAUTHORIZED, error));
    }
    Ok(next.run(request).await)
}

async fn not_found(uri: Uri) -> Fault {
    let error = format!(
        "{} is no path here; dead letters are at /api/dead, metrics at /metrics",
        uri.path()
    );
    Fault::new(StatusCode::NOT_FOUND, error)
}
