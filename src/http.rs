//! The front: HTTP for Asterisk and for relays; and how HTTP is served, which the admin port shares.
//!
//! Owns whether a request is well formed, who may send one, and the limits of connections. One file
//! per route: decode, hand on, answer. Knows nothing about delivery.
//!
//! Limits: [`MAX_CONNECTIONS`]; those of a single connection in [`connection`], those of a body in
//! [`body`].

pub mod body;
pub mod call;
mod connection;
mod error;
pub mod events;
mod front;
mod health;
pub mod metrics;
mod refusals;
mod repeats;
mod secret;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use self::connection::HttpAnswers;
use self::connection::Peer;
pub use self::error::{HttpError, method_not_allowed};
pub use self::front::{Front, FrontSettings, Requests};
use self::metrics::Answered;
pub use self::secret::{Secrets, bearer, is_same_secret};
use crate::listener;

/// Asterisk holds one idle connection open for each live call, and ten thousand calls must do no
/// harm. Any connection beyond this is closed at once.
const MAX_CONNECTIONS: usize = 50_000;

impl Front {
    pub fn router(self) -> Router {
        let front = Arc::new(self);
        Router::new()
            .route("/call", post(call::announce))
            .route("/call/{uuid}", get(call::standing))
            .route("/events", post(events::take))
            .route("/health", get(health::health))
            .route("/ready", get(health::ready))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(Arc::clone(&front), attend))
            .with_state(front)
    }
}

/// Serves the routes until `stop`, then lets each connection finish its request.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    answers: HttpAnswers,
    stop: CancellationToken,
) {
    let serve = |stream: TcpStream| {
        // It fails where the client has gone already, and is not heard any more.
        let peer = stream.peer_addr().ok().map(Peer);
        connection::serve(stream, peer, router.clone(), answers, stop.clone())
    };
    listener::accept(listener, MAX_CONNECTIONS, stop.clone(), serve).await;
}

/// What is the same for every route: who is answered at all, what is counted, and what is logged.
async fn attend(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let route = Answered::route_of(request.uri().path());
    let peer = request.extensions().get().copied();
    let response = match front.admit(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    front.metrics.requests.count(Answered::new(route, response.status().as_u16()));
    front.requests.refusals.log(route, peer, &response);
    response
}

async fn not_found(uri: Uri) -> HttpError {
    HttpError::not_found(format!(
        "no such path: {}; there are POST /call, GET /call/UUID, POST /events, GET /health and GET /ready",
        uri.path()
    ))
}
