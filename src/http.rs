//! The front: HTTP for Asterisk and for relays; and how HTTP is served, which the admin port shares.
//!
//! Owns whether a request is well formed, who may send one, and the limits of connections. One
//! route a file: decode, hand on, answer. Knows nothing about delivery.
//!
//! Limits: [`MAX_CONNECTIONS`]; those of a single connection in [`connection`], those of a body in
//! [`body`].

pub mod body;
pub mod call;
mod connection;
pub mod events;
mod fault;
mod health;
pub mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::body::Budget;
pub use self::connection::Answers;
pub use self::fault::{Fault, method_not_allowed};
use self::metrics::{Answered, HttpMetrics};
use crate::calls::Calls;
use crate::config::is_same_secret;
use crate::listener;
use crate::queue::Queue;
use crate::queue::metrics::Routed;
use crate::queue::slot::Slot;
use crate::routing::{Decision, NoDecision, StsUrl};

/// The most open connections: Asterisk holds one idle connection for each live call, and ten
/// thousand calls must do no harm. One more is closed at once.
const MAX_CONNECTIONS: usize = 50_000;

/// The scheme of a bearer token, in any case (RFC 9110, section 11.1).
const BEARER: &[u8] = b"Bearer ";

/// What the routes need.
pub struct Front {
    /// Where events go.
    pub queue: Queue,
    /// Which calls were announced.
    pub calls: Arc<Calls>,
    /// `STS_URL`.
    pub fallback: Option<StsUrl>,
    /// `HTTP_SECRET`.
    pub secret: Option<SecretString>,
    /// Memory for request bodies.
    pub bodies: Budget,
    /// Where requests and routing are counted.
    pub metrics: Arc<HttpMetrics>,
}

impl Front {
    /// The front's routes.
    pub fn router(self) -> Router {
        let metrics = Arc::clone(&self.metrics);
        Router::new()
            .route("/call", post(call::announce))
            .route("/events", post(events::take))
            .route("/health", get(health::health))
            .route("/ready", get(health::ready))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(metrics, count))
            .with_state(Arc::new(self))
    }

    /// Waits for a decision, as long as there may be one.
    async fn decision_of(&self, slot: &Slot) -> Option<Arc<Decision>> {
        let begun = Instant::now();
        let decision = slot.wait().await;
        self.metrics.routing.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.routing.answers.count(Routed(slot.no_decision()));
        decision
    }

    /// Nobody decides where a call goes whose `call_initiated` was not taken.
    fn no_decision(&self) {
        self.metrics.routing.seconds.observe(0.0);
        self.metrics.routing.answers.count(Routed(Some(NoDecision::Refused)));
    }

    fn authorise(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        let own = headers.get("x-avr-webhook-secret").map(HeaderValue::as_bytes);
        if [own, bearer(headers)].into_iter().flatten().any(|given| is_same_secret(given, secret)) {
            return Ok(());
        }
        Err(Fault::new(
            StatusCode::UNAUTHORIZED,
            "send HTTP_SECRET as X-AVR-WEBHOOK-SECRET or Authorization: Bearer".to_owned(),
        ))
    }
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(token)
}

/// Serves the routes until `stop`, then lets each connection finish its request.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    answers: Answers,
    stop: CancellationToken,
) {
    let serve = |stream| connection::serve(stream, router.clone(), answers, stop.clone());
    listener::accept(listener, MAX_CONNECTIONS, stop.clone(), serve).await;
}

async fn count(State(metrics): State<Arc<HttpMetrics>>, request: Request, next: Next) -> Response {
    let route = Answered::route_of(request.uri().path());
    let response = next.run(request).await;
    metrics.requests.count(Answered::new(route, response.status().as_u16()));
    response
}

async fn not_found(uri: Uri) -> Fault {
    let path = uri.path();
    Fault::new(
        StatusCode::NOT_FOUND,
        format!(
            "{path} is no path here; there are POST /call, POST /events, GET /health and GET /ready"
        ),
    )
}
