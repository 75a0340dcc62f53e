//! Reach: how a call's speech-to-speech server is found and connected to.
//!
//! Limits: a URL is tried for [`PATIENCE`], with silence to the caller; the receiver's choice first, then
//! `STS_URL`.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};
use url::Url;

use super::Bridge;
use crate::calls::Announcement;
use crate::event::{CallId, Payload};
use crate::retry::Delays;
use crate::routing::{self, Route, without_user};
use crate::sts::{self, Socket};

/// How long one URL is tried.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSES: Delays = Delays::fixed(Duration::from_millis(100), Duration::from_secs(1));

/// What became of it.
pub enum Reached {
    /// It is connected, and knows which call this is.
    Server(Box<Socket>),
    /// It could not be connected to.
    Nobody,
    /// There is none for this call.
    NoServer,
}

/// Connects to the server of a call.
pub async fn reach(bridge: &Bridge, call: CallId, announcement: Option<Announcement>) -> Reached {
    let fallback = bridge.fallback.as_ref();
    let first = match &announcement {
        Some(announcement) => announcement.route(fallback).await,
        None => routing::route(None, fallback, &Payload::empty()),
    };
    let Route { sts_url: Some(url), overridden } = first else {
        info!(uuid = %call, "no speech-to-speech server for this call; set STS_URL to have one");
        return Reached::NoServer;
    };
    if overridden {
        info!(uuid = %call, "Overriding STS URL: {}", shown(&url));
    }
    if let Some(socket) = try_for_a_while(bridge, call, &url).await {
        return Reached::Server(Box::new(socket));
    }
    let second = announcement.filter(|_| overridden);
    let Some(url) = second.and_then(|call| call.without_decision(fallback).sts_url) else {
        return Reached::Nobody;
    };
    match try_for_a_while(bridge, call, &url).await {
        Some(socket) => Reached::Server(Box::new(socket)),
        None => Reached::Nobody,
    }
}

async fn try_for_a_while(bridge: &Bridge, call: CallId, url: &str) -> Option<Socket> {
    info!(uuid = %call, "Connecting to STS WebSocket: {}", shown(url));
    let begun = Instant::now();
    let deadline = begun + PATIENCE;
    let mut attempts = 0;
    let mut fault = "it does not answer".to_owned();
    while let Ok(connected) = timeout_at(deadline, bridge.connector.connect(url)).await {
        let pause = PAUSES.nth(attempts);
        attempts += 1;
        match connected {
            Ok(mut socket) => {
                // The first message finds room in any connection.
                socket.send(sts::init(call)).await;
                let took = begun.elapsed().as_secs_f64();
                bridge.metrics.calls.connect_seconds.observe(took);
                debug!(uuid = %call, attempts, "speech-to-speech server is connected");
                return Some(socket);
            }
            Err(error) => fault = error.to_string(),
        }
        if deadline.duration_since(Instant::now()) < pause {
            break;
        }
        sleep(pause).await;
    }
    bridge.metrics.calls.connect_failures.inc();
    warn!(
        uuid = %call,
        url = shown(url),
        error = fault,
        attempts,
        "speech-to-speech server cannot be reached"
    );
    None
}

/// The URL as it may be logged: the query holds callers' numbers, and perhaps keys.
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
