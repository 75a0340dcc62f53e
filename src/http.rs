//! The front: HTTP for Asterisk and for relays; and the accept loop, which the admin port shares.
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

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::routing::{get, post};
use secrecy::SecretString;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub use self::body::Budget;
pub use self::fault::{Fault, method_not_allowed};
use crate::calls::Calls;
use crate::config::is_same_secret;
use crate::queue::Queue;
use crate::routing::StsUrl;

/// The most open connections: Asterisk holds one idle connection for each live call, and ten
/// thousand calls must do no harm. One more is closed at once.
const MAX_CONNECTIONS: usize = 50_000;

/// How long accepting rests when the system has no more file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The scheme of a bearer token, in any case (RFC 9110, section 11.1).
const BEARER: &[u8] = b"Bearer ";

/// What the routes need.
pub struct Front {
    /// Where events go.
    pub queue: Queue,
    /// Which calls were announced.
    pub calls: Calls,
    /// `STS_URL`.
    pub fallback: Option<StsUrl>,
    /// `HTTP_SECRET`.
    pub secret: Option<SecretString>,
    /// Memory for request bodies.
    pub bodies: Budget,
}

impl Front {
    /// The front's routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/call", post(call::announce))
            .route("/events", post(events::take))
            .route("/health", get(health::health))
            .route("/ready", get(health::ready))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::new(self))
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
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let mut full = false;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Some(stream) = taken(accepted).await else {
            continue;
        };
        let was_full = full;
        let place = Arc::clone(&places).try_acquire_owned().ok();
        full = place.is_none();
        let Some(place) = place else {
            if !was_full {
                warn!(limit = MAX_CONNECTIONS, "too many connections; new ones are closed at once");
            }
            continue;
        };
        let connection = connection::serve(stream, router.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn taken(accepted: io::Result<(TcpStream, std::net::SocketAddr)>) -> Option<TcpStream> {
    match accepted {
        Ok((stream, _)) => {
            // Without it small answers wait for the peer's delayed acknowledgement. A socket that
            // refuses is on its way down, which the first read will tell.
            stream.set_nodelay(true).ok();
            Some(stream)
        }
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            sleep(ACCEPT_REST).await;
            None
        }
    }
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
