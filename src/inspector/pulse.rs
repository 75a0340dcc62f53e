//! Pulse: what was measured lately, and the way to those who watch.
//!
//! Invariants and limits:
//! - Nobody is waited for: whoever takes more than [`BACKLOG`] updates too late loses them, and is told
//!   to look at everything again (`event: reload`).
//! - At most [`MOST_WATCHERS`] watch. Samples of [`MOST_SAMPLES`] seconds are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::Fault;

/// Who may watch at a time: browser tabs, and some curls.
const MOST_WATCHERS: usize = 16;

/// Updates that a slow watcher may be behind: some three seconds.
const BACKLOG: usize = 16;

/// Seconds that are kept: five minutes.
const MOST_SAMPLES: usize = 300;

/// Over how many seconds a rate is taken.
const RATE_SECONDS: usize = 5;

/// Look at everything again.
pub const RELOAD: &str = "event: reload\ndata: {}\n\n";

/// One second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Its end, in Unix milliseconds.
    pub at: u64,
    /// Events that wait, at its end.
    pub waiting: usize,
    /// Live calls, at its end.
    pub live: usize,
    /// Events taken in it.
    pub accepted: u64,
    /// Events delivered in it.
    pub delivered: u64,
    /// Attempts that failed in it.
    pub failed: u64,
    /// Events given up in it.
    pub dead: u64,
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
    /// Keeps a second, in place of the oldest one where there are enough.
    pub fn add(&self, sample: Sample) {
        let mut samples = lock(&self.samples);
        if samples.len() == MOST_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

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

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        lock(&self.feed).as_ref().is_some_and(|feed| feed.receiver_count() > 0)
    }

    /// Tells all who watch.
    pub fn tell(&self, update: Bytes) {
        if let Some(feed) = &*lock(&self.feed) {
            // Whoever watched a moment ago may have gone.
            feed.send(update).ok();
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 503 where there is none.
    pub fn watch(&self) -> Result<Watcher, Fault> {
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
pub struct Watcher {
    feed: broadcast::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next update; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self.feed.recv().await {
            Ok(update) => Some(update),
            Err(RecvError::Lagged(_)) => Some(Bytes::from_static(RELOAD.as_bytes())),
            Err(RecvError::Closed) => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}
