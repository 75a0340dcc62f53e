//! Pulse: what changes, for those who watch.
//!
//! Measures once a second, and tells all who watch through `GET /api/stream` the same, four times a
//! second: which calls changed, each once however much happened to it.
//!
//! Invariants and limits:
//! - Nobody is waited for: whoever takes more than [`BACKLOG`] updates too late loses them, and is told
//!   to look at everything again (`event: reload`).
//! - At most [`MOST_WATCHERS`] watch; at most [`MOST_CHANGED`] calls are told of at a time, beyond which
//!   it is `reload` for all. Samples of [`MOST_SAMPLES`] seconds are kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};

use super::Inspector;
use super::calls::Summary;
use super::state::{Standing, stand};
use crate::history::Totals;
use crate::http::Fault;
use crate::time::unix_millis;

/// Who may watch at a time: browser tabs, and some curls.
const MOST_WATCHERS: usize = 16;

/// The most calls that one update tells of: as many as a page shows.
const MOST_CHANGED: usize = 300;

/// Updates that a slow watcher may be behind: some three seconds.
const BACKLOG: usize = 16;

/// Seconds that are kept: five minutes.
const MOST_SAMPLES: usize = 300;

/// Over how many seconds a rate is taken.
const RATE_SECONDS: usize = 5;

/// How often watchers are told, and every how many of them it is measured.
const BEAT: Duration = Duration::from_millis(250);
const BEATS_A_SECOND: u64 = 4;

/// Look at everything again.
const RELOAD: &str = "event: reload\ndata: {}\n\n";

/// One second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Its end, in Unix milliseconds.
    at: u64,
    /// Events that wait, at its end.
    waiting: usize,
    /// Live calls, at its end.
    live: usize,
    /// Events taken in it.
    accepted: u64,
    /// Events delivered in it.
    delivered: u64,
    /// Attempts that failed in it.
    failed: u64,
    /// Events given up in it.
    dead: u64,
}

/// Events a second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    accepted: f64,
    delivered: f64,
    failed: f64,
    dead: f64,
}

/// What was measured, and the way to those who watch.
pub struct Pulse {
    samples: Mutex<VecDeque<Sample>>,
    /// Gone when nothing more is told.
    feed: Mutex<Option<broadcast::Sender<Bytes>>>,
    places: Arc<Semaphore>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            samples: Mutex::default(),
            feed: Mutex::new(Some(broadcast::Sender::new(BACKLOG))),
            places: Arc::new(Semaphore::new(MOST_WATCHERS)),
        }
    }
}

impl Pulse {
    /// The last seconds, oldest first.
    pub fn samples(&self) -> VecDeque<Sample> {
        lock(&self.samples).clone()
    }

    /// The last second.
    pub fn last_sample(&self) -> Option<Sample> {
        lock(&self.samples).back().copied()
    }

    /// The mean over the last seconds.
    pub fn rates(&self) -> Rates {
        let samples = lock(&self.samples);
        let last = || samples.iter().rev().take(RATE_SECONDS);
        let seconds = last().count().max(1);
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 2^53")]
        let mean = |of: fn(&Sample) -> u64| last().map(of).sum::<u64>() as f64 / seconds as f64;
        Rates {
            accepted: mean(|sample| sample.accepted),
            delivered: mean(|sample| sample.delivered),
            failed: mean(|sample| sample.failed),
            dead: mean(|sample| sample.dead),
        }
    }

    /// Ends all streams, and takes no new ones.
    pub fn end(&self) {
        *lock(&self.feed) = None;
    }

    fn is_watched(&self) -> bool {
        lock(&self.feed).as_ref().is_some_and(|feed| feed.receiver_count() > 0)
    }

    fn tell(&self, update: Bytes) {
        if let Some(feed) = &*lock(&self.feed) {
            // Whoever watched a moment ago may have gone.
            feed.send(update).ok();
        }
    }

    fn watch(&self) -> Result<Watcher, Fault> {
        let refused = |error: String| Fault::new(StatusCode::SERVICE_UNAVAILABLE, error);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            refused(format!("{MOST_WATCHERS} watch already; close one, or try again later"))
        })?;
        let feed = lock(&self.feed).as_ref().map(broadcast::Sender::subscribe);
        let feed = feed.ok_or_else(|| refused("callhook is stopping".to_owned()))?;
        Ok(Watcher { feed, _place: place })
    }
}

/// One who watches, and the place that is taken.
struct Watcher {
    feed: broadcast::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        match self.feed.recv().await {
            Ok(update) => Some(update),
            Err(RecvError::Lagged(_)) => Some(Bytes::from_static(RELOAD.as_bytes())),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Measures and tells, for ever.
pub async fn beat(inspector: &Arc<Inspector>) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut watched) = (inspector.queue.history().totals(), false);
    for beat in 0_u64.. {
        ticks.tick().await;
        let is_second = beat % BEATS_A_SECOND == 0;
        if is_second {
            before = measure(inspector, before);
        }
        let (pulse, history) = (&inspector.pulse, inspector.queue.history());
        let was_watched = watched;
        watched = pulse.is_watched();
        if watched != was_watched {
            history.watch(watched);
        }
        if !watched {
            continue;
        }
        if is_second {
            pulse.tell(update("state", &stand(inspector).await));
        }
        let changed = history.take_changed(MOST_CHANGED);
        if changed.overflowed || !was_watched {
            pulse.tell(Bytes::from_static(RELOAD.as_bytes()));
        } else if !changed.calls.is_empty() {
            let now = unix_millis();
            let calls: Vec<_> = changed.calls.iter().map(|call| Summary::of(call, now)).collect();
            pulse.tell(update("calls", &json!({"items": calls})));
        }
    }
}

/// Takes a sample; returns what was counted until now.
fn measure(inspector: &Inspector, before: Totals) -> Totals {
    let history = inspector.queue.history();
    let totals = history.totals();
    let mut samples = lock(&inspector.pulse.samples);
    if samples.len() == MOST_SAMPLES {
        samples.pop_front();
    }
    samples.push_back(Sample {
        at: unix_millis(),
        waiting: inspector.queue.unsettled(),
        live: history.size().live,
        // What the disk refuses is taken back, and counted no more.
        accepted: totals.accepted.saturating_sub(before.accepted),
        delivered: totals.delivered - before.delivered,
        failed: totals.failed - before.failed,
        dead: totals.dead - before.dead,
    });
    totals
}

/// `GET /api/stream`: how things stand, at once and every second (`event: state`); which calls changed
/// (`event: calls`); and that there was too much of it to tell (`event: reload`).
pub async fn stream(State(inspector): State<Arc<Inspector>>) -> Result<Response, Fault> {
    let watcher = inspector.pulse.watch()?;
    let standing: Standing = stand(&inspector).await;
    let first = stream::iter([Ok::<_, Infallible>(update("state", &standing))]);
    let updates =
        stream::unfold(
            watcher,
            |mut watcher| async move { Some((Ok(watcher.next().await?), watcher)) },
        );
    let body = Body::from_stream(stream::StreamExt::chain(first, updates));
    // Proxies such as nginx would hold it back otherwise.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    Ok(([(CONTENT_TYPE, "text/event-stream"), unbuffered], body).into_response())
}

/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>
fn update(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("what is told serialises");
    format!("event: {name}\ndata: {data}\n\n").into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}
