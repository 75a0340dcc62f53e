//! The queue: what was accepted, until it is delivered or given up.
//!
//! Accepts events, sends what is due through a [`Deliver`], draws the consequences of each
//! outcome and logs them. Asks nobody about HTTP or Asterisk. The decisions themselves are pure
//! and live in the files below; this one owns the lock, the clock and the tasks.
//!
//! Invariants:
//! - The events of a call arrive in the order they were accepted, one attempt at a time.
//! - An event that was accepted is delivered or given up; what is given up is logged as an error.
//! - Nothing is awaited under the lock.

mod breaker;
mod dispatcher;
mod lane;
pub mod retry;
pub mod slot;
mod window;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use self::breaker::Change;
pub use self::dispatcher::Limits;
use self::dispatcher::{Conclusion, Dispatch, Dispatcher, Verdict};
use self::retry::RetryPolicy;
use self::slot::Slot;
use self::window::Window;
use crate::delivery::failure::Failure;
use crate::delivery::{Deliver, Outcome};
use crate::event::{Event, EventFilter, EventId, EventType};
use crate::routing::{self, AllowedHosts};
use crate::telemetry::{self, Metrics};

/// How the queue behaves.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Which types are delivered.
    pub filter: EventFilter,
    /// Sizes.
    pub limits: Limits,
    /// Attempts and their delays.
    pub retry: RetryPolicy,
    /// How long a routing decision is waited for (`ROUTING_TIMEOUT`).
    pub routing_timeout: Duration,
    /// Where a receiver may route to.
    pub allowed_hosts: AllowedHosts,
    /// The receiver's URL without userinfo, for the failure log.
    pub receiver: String,
}

/// The queue's handle; clones share one queue.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

/// What became of an event that was handed in.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its id; `None` for a type that is not delivered.
    pub id: Option<EventId>,
    /// Where its decision is found, for `call_initiated`.
    pub slot: Option<Slot>,
}

/// Why events were not taken. None of a batch is, then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `QUEUE_LIMIT` is reached.
    #[error("the queue is full: QUEUE_LIMIT={limit} events wait for the receiver; try again later")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// More than ever find room came at once.
    #[error("{count} events at once exceed QUEUE_LIMIT={limit}; send fewer")]
    TooMany {
        /// How many came.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The process is about to stop.
    #[error("callhook is stopping; try again in a moment")]
    Draining,
}

struct Inner {
    settings: QueueSettings,
    deliver: Option<Arc<dyn Deliver>>,
    state: Mutex<Shared>,
    /// The timer must look again: something is due earlier than it knew.
    rearm: Notify,
    /// An attempt was concluded, for those who wait for the drain.
    concluded: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

struct Shared {
    dispatcher: Dispatcher,
    window: Window,
    draining: bool,
    /// When the timer will look.
    armed: Option<Instant>,
}

impl Queue {
    /// Starts a queue that sends through `deliver`; without one every event is dropped.
    pub fn start(
        settings: QueueSettings,
        deliver: Option<Arc<dyn Deliver>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let dispatcher = Dispatcher::new(settings.limits, settings.retry);
        let queue = Self(Arc::new(Inner {
            settings,
            deliver,
            state: Mutex::new(Shared {
                dispatcher,
                window: Window::default(),
                draining: false,
                armed: None,
            }),
            rearm: Notify::new(),
            concluded: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
        }));
        queue.0.tasks.spawn(Arc::clone(&queue.0).run_timer());
        queue
    }

    /// Takes events, all or none, in their order.
    ///
    /// An id that was given within the last hour is answered as it was then and queues nothing.
    ///
    /// # Errors
    /// [`Refused`], with nothing taken.
    pub fn accept(&self, events: Vec<Event>) -> Result<Vec<Accepted>, Refused> {
        let accepted = self.0.take(events)?;
        self.0.pump();
        Ok(accepted)
    }

    /// Delivers what it can until the deadline, without accepting more; returns how many events
    /// are lost because they are only in memory.
    pub async fn drain(&self, deadline: Instant) -> usize {
        self.0.lock().draining = true;
        let settled = async {
            loop {
                let concluded = self.0.concluded.notified();
                if self.unsettled() == 0 {
                    return;
                }
                concluded.await;
            }
        };
        // What is left at the deadline is counted, so running out of time is no fault here.
        timeout_at(deadline, settled).await.ok();
        // Callers who still wait get the fallback now instead of no answer.
        self.0.lock().dispatcher.close_slots();
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.unsettled()
    }

    /// Events accepted and not yet settled.
    pub fn unsettled(&self) -> usize {
        self.0.lock().dispatcher.unsettled()
    }

    /// Whether the queue takes no more because the process stops.
    pub fn is_draining(&self) -> bool {
        self.0.lock().draining
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(|_| {
            error!("the queue's order is broken, which is a bug; ending at once, to begin anew in order");
            std::process::abort()
        })
    }

    fn take(&self, events: Vec<Event>) -> Result<Vec<Accepted>, Refused> {
        let now = Instant::now();
        let mut shared = self.lock();
        let news = events
            .iter()
            .filter(|event| {
                self.delivers(&event.kind) && shared.window.find(&event.id, now).is_none()
            })
            .count();
        self.check_room(&shared, news)?;
        Ok(events.into_iter().map(|event| self.take_one(&mut shared, event, now)).collect())
    }

    fn delivers(&self, kind: &EventType) -> bool {
        self.deliver.is_some() && self.settings.filter.admits(kind)
    }

    fn check_room(&self, shared: &Shared, count: usize) -> Result<(), Refused> {
        let limit = self.settings.limits.queue;
        if shared.draining {
            Err(Refused::Draining)
        } else if count > limit {
            Err(Refused::TooMany { count, limit })
        } else if !shared.dispatcher.has_room_for(count) {
            Err(Refused::Full { limit })
        } else {
            Ok(())
        }
    }

    fn take_one(&self, shared: &mut Shared, event: Event, now: Instant) -> Accepted {
        if !self.delivers(&event.kind) {
            self.metrics.dropped.fetch_add(1, Relaxed);
            return Accepted { id: None, slot: None };
        }
        let id = Some(event.id.clone());
        if let Some(slot) = shared.window.find(&event.id, now) {
            return Accepted { id, slot };
        }
        let slot = (event.kind == EventType::CallInitiated)
            .then(|| self.open_slot(&shared.dispatcher, now));
        if matches!(event.id, EventId::Given(_)) {
            shared.window.remember(event.id.clone(), slot.clone(), now);
        }
        self.metrics.accepted.fetch_add(1, Relaxed);
        shared.dispatcher.accept(Arc::new(event), slot.clone(), now);
        Accepted { id, slot }
    }

    fn open_slot(&self, dispatcher: &Dispatcher, now: Instant) -> Slot {
        let deadline = now + self.settings.routing_timeout;
        let slot = Slot::until(deadline);
        if dispatcher.cannot_decide_by(deadline) {
            slot.close();
        }
        slot
    }

    /// Sends everything that is due.
    fn pump(self: &Arc<Self>) {
        self.send(self.due());
    }

    fn send(self: &Arc<Self>, due: impl IntoIterator<Item = Dispatch>) {
        for dispatch in due {
            self.tasks.spawn(Arc::clone(self).deliver_from(dispatch));
        }
    }

    fn due(&self) -> Vec<Dispatch> {
        let now = Instant::now();
        let mut shared = self.lock();
        let due = std::iter::from_fn(|| shared.dispatcher.next(now)).collect();
        let wake_at = shared.dispatcher.wake_at();
        if wake_at.is_some_and(|at| shared.armed.is_none_or(|armed| at < armed)) {
            shared.armed = wake_at;
            self.rearm.notify_one();
        }
        due
    }

    async fn run_timer(self: Arc<Self>) {
        loop {
            let armed = self.lock().armed;
            let alarm = async {
                match armed {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.rearm.notified() => {}
                () = alarm => {
                    self.lock().armed = None;
                    self.pump();
                }
            }
        }
    }

    /// Makes an attempt and, in the same task, those that became due through its outcome.
    async fn deliver_from(self: Arc<Self>, first: Dispatch) {
        let deliver =
            Arc::clone(self.deliver.as_ref().expect("without a receiver nothing is accepted"));
        let mut next = Some(first);
        while let Some(dispatch) = next {
            let attempt =
                AssertUnwindSafe(deliver.attempt(dispatch.attempt.clone())).catch_unwind();
            let outcome = tokio::select! {
                outcome = attempt => outcome.unwrap_or_else(|_| Outcome::Failed(Failure::of_panic())),
                () = self.stop.cancelled() => return,
            };
            self.conclude(&dispatch, outcome);
            let mut due = self.due().into_iter();
            next = due.next();
            self.send(due);
        }
    }

    fn conclude(&self, dispatch: &Dispatch, outcome: Outcome) {
        let now = Instant::now();
        let conclusion = match &outcome {
            Outcome::Delivered { .. } => self.lock().dispatcher.delivered(&dispatch.attempt, now),
            Outcome::Failed(failure) => self.lock().dispatcher.failed(dispatch, failure, now),
        };
        match (&conclusion.verdict, outcome) {
            (Verdict::Delivered(slot), Outcome::Delivered { answer }) => {
                self.metrics.delivered.fetch_add(1, Relaxed);
                self.log_delivered(dispatch);
                if let Some(slot) = slot {
                    self.decide(dispatch, slot, answer.as_deref(), now);
                }
            }
            (verdict, Outcome::Failed(failure)) => self.log_failure(dispatch, verdict, &failure),
            (verdict, Outcome::Delivered { .. }) => unreachable!("delivered, yet {verdict:?}"),
        }
        self.log_change(&conclusion);
        self.concluded.notify_waiters();
    }

    fn decide(&self, dispatch: &Dispatch, slot: &Slot, answer: Option<&[u8]>, now: Instant) {
        let call = dispatch.attempt.event.call;
        match routing::decision(answer.unwrap_or_default(), &self.settings.allowed_hosts) {
            Ok(Some(decision)) => {
                let sts_url = decision.url.to_string();
                if !slot.decide(decision, now) {
                    warn!(uuid = %call, sts_url, "routing decision came too late and is ignored");
                }
            }
            Ok(None) => slot.close(),
            Err(fault) => {
                warn!(uuid = %call, error = %fault, "sts_url of the receiver is invalid and is ignored");
                slot.close();
            }
        }
    }

    fn log_delivered(&self, dispatch: &Dispatch) {
        let attempt = &dispatch.attempt;
        debug!(
            r#type = attempt.event.kind.name(),
            uuid = %attempt.event.call,
            id = %attempt.event.id,
            attempt = attempt.number,
            sequence = attempt.sequence,
            "event delivered"
        );
    }

    fn log_failure(&self, dispatch: &Dispatch, verdict: &Verdict, failure: &Failure) {
        let given_up = matches!(verdict, Verdict::GivenUp);
        let counter = if given_up { &self.metrics.dead } else { &self.metrics.retried };
        counter.fetch_add(1, Relaxed);
        let attempts = self.settings.retry.attempts();
        telemetry::log_failure(
            &dispatch.attempt,
            attempts,
            failure,
            &self.settings.receiver,
            given_up,
        );
    }

    fn log_change(&self, conclusion: &Conclusion) {
        let url = &self.settings.receiver;
        let waiting = || self.lock().dispatcher.unsettled();
        match conclusion.change {
            Some(Change::WentDown) => error!(
                url,
                waiting = waiting(),
                "receiver is down; events wait until it answers a probe"
            ),
            Some(Change::CameBack) => info!(url, waiting = waiting(), "receiver is back"),
            None => {}
        }
    }
}
