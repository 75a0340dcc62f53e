//! Reach: which STS server a call has, and the connection to it.
//!
//! The receiver's choice is tried first, then `STS_URL`. Until one of them is connected, the caller hears
//! silence.
//!
//! Limit: each URL is tried for [`PATIENCE`].

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};
use url::Url;

use super::metrics::CallMetrics;
use crate::calls::Announcement;
use crate::event::{CallId, Payload};
use crate::retry::Delays;
use crate::routing::{self, Route, StsUrl, without_user};
use crate::sts::{self, Connector, Socket};

/// How long one URL is tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSES: Delays = Delays::fixed(Duration::from_millis(100), Duration::from_secs(1));

/// The server of a call, if any.
pub enum Reached {
    /// It is connected, and was told which call this is.
    Server(Box<Socket>),
    /// It could not be connected to.
    Failed,
    /// The call has none: neither the receiver nor `STS_URL` names one.
    NoUrl,
}

/// Connects to the server of a call.
pub async fn reach(
    connector: &Connector,
    metrics: &CallMetrics,
    call: CallId,
    announcement: Option<Announcement>,
    fallback: Option<&StsUrl>,
) -> Reached {
    let first = match &announcement {
        Some(announcement) => announcement.route(fallback).await,
        None => routing::route(None, fallback, &Payload::empty()),
    };
    let Route { sts_url: Some(url), overridden } = first else {
        info!(uuid = %call, "no speech-to-speech server for this call; set STS_URL to have one");
        return Reached::NoUrl;
    };
    if overridden {
        info!(uuid = %call, "Overriding STS URL: {}", shown(&url));
    }
    if let Some(socket) = try_for_a_while(connector, metrics, call, &url).await {
        return Reached::Server(Box::new(socket));
    }
    let second = announcement.filter(|_| overridden);
    let Some(url) = second.and_then(|call| call.without_decision(fallback).sts_url) else {
        return Reached::Failed;
    };
    match try_for_a_while(connector, metrics, call, &url).await {
        Some(socket) => Reached::Server(Box::new(socket)),
        None => Reached::Failed,
    }
}

async fn try_for_a_while(
    connector: &Connector,
    metrics: &CallMetrics,
    call: CallId,
    url: &str,
) -> Option<Socket> {
    info!(uuid = %call, "Connecting to STS WebSocket: {}", shown(url));
    let begun = Instant::now();
    let deadline = begun + PATIENCE;
    let mut attempts = 0;
    let mut error = "it does not answer".to_owned();
    while let Ok(connected) = timeout_at(deadline, connector.connect(url)).await {
        let pause = PAUSES.nth(attempts);
        attempts += 1;
        match connected {
            Ok(mut socket) => {
                // A new connection has room for its first message.
                socket.send(sts::init(call)).await;
                let took = begun.elapsed().as_secs_f64();
                metrics.connect_seconds.observe(took);
                debug!(uuid = %call, attempts, "speech-to-speech server is connected");
                return Some(socket);
            }
            Err(failed) => error = failed.to_string(),
        }
        if deadline.duration_since(Instant::now()) < pause {
            break;
        }
        sleep(pause).await;
    }
    metrics.connect_failures.inc();
    warn!(
        uuid = %call,
        url = shown(url),
        error,
        attempts,
        "speech-to-speech server cannot be reached"
    );
    None
}

/// The URL as it may be logged, without its query: that holds callers' numbers, and perhaps keys.
fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| String::new(),
        |url| {
            let mut url = without_user(&url).into_owned();
            url.set_query(None);
            url.into()
        },
    )
}
