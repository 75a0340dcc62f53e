//! Pulse: the samples of the last minutes, and the feed to the watchers, which are the clients of
//! `GET /api/stream`.
//!
//! Invariants and limits:
//! - No watcher is waited for: one that falls more than [`BACKLOG`] updates behind loses the oldest, and
//!   is told to fetch everything again (`event: reload`).
//! - At most [`MOST_WATCHERS`] watchers; samples of [`MOST_SAMPLES`] seconds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::HttpError;

/// Enough for browser tabs and a few curls.
const MOST_WATCHERS: usize = 16;

/// How many updates a slow watcher may fall behind: about three seconds.
const BACKLOG: usize = 16;

/// One a second: five minutes.
const MOST_SAMPLES: usize = 300;

/// The seconds that a rate is averaged over.
const RATE_SECONDS: usize = 5;

/// Tells a watcher to fetch everything again.
pub const RELOAD: &str = "event: reload\ndata: {}\n\n";

/// What was measured in one second, or at its end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// The second's end, in Unix milliseconds.
    pub at: u64,
    /// Events, at its end.
    pub waiting: usize,
    /// Calls, at its end.
    pub live: usize,
    pub accepted: u64,
    pub delivered: u64,
    /// Attempts; the other three are events.
    pub failed: u64,
    pub dead: u64,
}

/// Per second; `failed` is attempts, the others are events.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    accepted: f64,
    delivered: f64,
    failed: f64,
    dead: f64,
}

pub struct Pulse {
    samples: Mutex<VecDeque<Sample>>,
    /// `None` once the streams have ended.
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
    pub fn add(&self, sample: Sample) {
        let mut samples = lock(&self.samples);
        if samples.len() == MOST_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Oldest first.
    pub fn samples(&self) -> VecDeque<Sample> {
        lock(&self.samples).clone()
    }

    pub fn last_sample(&self) -> Option<Sample> {
        lock(&self.samples).back().copied()
    }

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

    /// Ends all streams, and refuses new ones.
    pub fn end(&self) {
        *lock(&self.feed) = None;
    }

    pub fn is_watched(&self) -> bool {
        lock(&self.feed).as_ref().is_some_and(|feed| feed.receiver_count() > 0)
    }

    pub fn tell(&self, update: Bytes) {
        if let Some(feed) = &*lock(&self.feed) {
            // The last watcher may have gone a moment ago.
            feed.send(update).ok();
        }
    }

    /// # Errors
    /// 503 where there are [`MOST_WATCHERS`], or the streams have ended.
    pub fn watch(&self) -> Result<Watcher, HttpError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            HttpError::unavailable(format!(
                "{MOST_WATCHERS} streams are open already; close one, or try again later"
            ))
        })?;
        let feed = lock(&self.feed).as_ref().map(broadcast::Sender::subscribe);
        let feed = feed.ok_or_else(|| HttpError::unavailable("callhook is stopping"))?;
        Ok(Watcher { feed, _place: place })
    }
}

pub struct Watcher {
    feed: broadcast::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next update; `None` once the streams have ended.
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
