//! The front: HTTP for Asterisk and for relays; and how HTTP is served, which the admin port shares.
//!
//! Owns whether a request is well formed, who may send one, and the limits of connections. One file
//! per route: decode, hand on, answer. Knows nothing about delivery.
//!
//! Limits: [`MAX_CONNECTIONS`]; those of a single connection in [`connection`], those of a body in
//! [`body`].

pub mod agent;
pub mod body;
pub mod call;
mod connection;
mod error;
pub mod events;
mod front;
mod health;
pub mod metrics;
mod next;
mod refusals;
mod repeats;
mod secret;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

pub use self::connection::{HttpAnswers, Peer};
pub use self::error::{HttpError, method_not_allowed};
pub use self::front::{Front, FrontSettings, Requests};
use self::metrics::Answered;
pub use self::secret::{Secrets, bearer, is_same_secret};
use crate::listener;

/// Asterisk holds one idle connection open for each live call, and ten thousand calls must do no
/// harm. Any connection beyond this is closed at once.
const MAX_CONNECTIONS: usize = 50_000;

/// The routes of the front, and what is the same for all of them: who is answered at all, what is counted, and
/// what is logged.
#[derive(Clone)]
pub struct Routes {
    front: Arc<Front>,
    router: Router,
}

impl Routes {
    pub fn of(front: Front) -> Self {
        let front = Arc::new(front);
        let router = Router::new()
            .route("/call", post(call::announce))
            .route("/call/{uuid}", get(call::standing))
            .route("/call/{uuid}/next", get(next::next))
            .route("/events", post(events::take))
            .route("/hangup", post(agent::hang_up))
            .route("/transfer", post(agent::transfer))
            .route("/variables", post(agent::variables))
            .route("/originate", post(agent::of_avr_ami))
            .route("/setvar", post(agent::of_avr_ami))
            .route("/health", get(health::health))
            .route("/ready", get(health::ready))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::clone(&front));
        Self { front, router }
    }

    pub async fn answer(self, request: Request, peer: Option<Peer>) -> Response {
        let front = &self.front;
        let route = Answered::route_of(request.uri().path());
        let answer = match front.admit(request.headers()) {
            Ok(()) => self.answer_on(route, request).await,
            Err(error) => error.into_response(),
        };
        let answer = match route {
            Answered::NEXT => next::shaped(answer),
            route if Answered::is_agents(route) => agent::shaped(answer),
            _ => answer,
        };
        front.metrics.requests.count(Answered::new(route, answer.status().as_u16()));
        front.requests.refusals.log(route, peer, &answer);
        answer
    }

    /// The two routes that calls and events come by are found without the router, which would cost as much as
    /// reading the request.
    async fn answer_on(&self, route: &'static str, request: Request) -> Response {
        let state = || State(Arc::clone(&self.front));
        match (request.method(), route) {
            (&Method::POST, Answered::CALL) => {
                call::announce(state(), request).await.into_response()
            }
            (&Method::POST, Answered::EVENTS) => {
                events::take(state(), request).await.into_response()
            }
            _ => routed(self.router.clone(), request).await,
        }
    }
}

/// A router's answer.
pub async fn routed(mut router: Router, request: Request) -> Response {
    router.call(request).await.unwrap_or_else(|never: Infallible| match never {})
}

/// Serves requests until `stop`, then lets each connection finish its request.
pub async fn serve<A>(
    listener: TcpListener,
    answer: impl Fn(Request, Option<Peer>) -> A + Clone + Send + Sync + 'static,
    answers: HttpAnswers,
    stop: CancellationToken,
) where
    A: Future<Output = Response> + Send + 'static,
{
    let serve = |stream: TcpStream| {
        // It fails where the client has gone already, and is not heard any more.
        let peer = stream.peer_addr().ok().map(Peer);
        let answer = answer.clone();
        let answer = move |request| answer(request, peer);
        connection::serve(stream, answer, answers, stop.clone())
    };
    listener::accept(listener, MAX_CONNECTIONS, stop.clone(), serve).await;
}

async fn not_found(uri: Uri) -> HttpError {
    HttpError::not_found(format!(
        "no such path: {}; there are POST /call, GET /call/UUID, GET /call/UUID/next, POST /events, POST /hangup, \
         POST /transfer, POST /variables, GET /health and GET /ready",
        uri.path()
    ))
}
