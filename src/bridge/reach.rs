//! Reach: which STS server a call has, and the connection to it.
//!
//! The receiver's choice is tried first, then `STS_URL`. Until one of them is connected, the caller hears
//! silence, so this is over soon: what will not change by waiting is not tried again.
//!
//! Limits: all of it takes [`PATIENCE`]; a URL is tried again for [`RETRIED`] or [`OVERRIDE_RETRIED`].

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};
use url::Url;

use super::metrics::CallMetrics;
use crate::calls::Announcement;
use crate::event::{CallId, Payload};
use crate::retry::Delays;
use crate::routing::{self, Route, StsUrl, without_user};
use crate::sts::{self, ConnectError, Connector, Socket};

/// How long a caller waits for a server.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a refused or broken connection is tried again: a server that restarts takes about that.
const RETRIED: Duration = Duration::from_secs(3);

/// The same where `STS_URL` comes next, and how long an override has that does not answer at all.
const OVERRIDE_RETRIED: Duration = Duration::from_secs(1);
const OVERRIDE_PATIENCE: Duration = Duration::from_secs(3);

/// Between two attempts.
const PAUSES: Delays = Delays::fixed(Duration::from_millis(100), Duration::from_millis(500));

/// Until when a URL is tried.
struct Limits {
    /// No attempt begins later.
    retried: Instant,
    /// No attempt takes longer.
    deadline: Instant,
}

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
    let first = match (&announcement, &first.next) {
        (Some(announcement), Some(people)) => {
            warn!(
                uuid = %call,
                next = %people,
                "the receiver sends this caller to people, and the dialplan dialled the agent all the same; \
                 the call goes to STS_URL"
            );
            announcement.without_decision(fallback)
        }
        _ => first,
    };
    let Route { sts_url: Some(url), overridden, .. } = first else {
        warn!(
            uuid = %call,
            "no speech-to-speech server for this call, the caller hears silence; set STS_URL to have one"
        );
        return Reached::NoUrl;
    };
    if overridden {
        info!(uuid = %call, "Overriding STS URL: {}", shown(&url));
    }
    let begun = Instant::now();
    let deadline = begun + PATIENCE;
    let second = announcement.filter(|_| overridden);
    let second = second.and_then(|call| call.without_decision(fallback).sts_url);
    let (retried, patience) = match second {
        Some(_) => (OVERRIDE_RETRIED, OVERRIDE_PATIENCE),
        None => (RETRIED, PATIENCE),
    };
    let limits = Limits { retried: begun + retried, deadline: begun + patience };
    if let Some(socket) = try_for_a_while(connector, metrics, call, &url, limits).await {
        return Reached::Server(Box::new(socket));
    }
    let Some(url) = second else { return Reached::Failed };
    let limits = Limits { retried: Instant::now() + RETRIED, deadline };
    match try_for_a_while(connector, metrics, call, &url, limits).await {
        Some(socket) => Reached::Server(Box::new(socket)),
        None => Reached::Failed,
    }
}

async fn try_for_a_while(
    connector: &Connector,
    metrics: &CallMetrics,
    call: CallId,
    url: &str,
    Limits { retried, deadline }: Limits,
) -> Option<Socket> {
    info!(uuid = %call, "Connecting to STS WebSocket: {}", shown(url));
    let begun = Instant::now();
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
            Err(failed) => {
                error = failed.to_string();
                if matches!(failed, ConnectError::Lasting(_)) {
                    break;
                }
            }
        }
        if retried.min(deadline) < Instant::now() + pause {
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
