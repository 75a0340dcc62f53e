//! The queue: what was accepted, until it is delivered or given up.
//!
//! Accepts events, sends what is due through a [`Deliver`], draws the consequences of each
//! outcome and logs them. Asks nobody about HTTP or Asterisk. The decisions themselves are pure
//! and live in the files below; this one owns the lock, the clock and the tasks.
//!
//! Invariants:
//! - The events of a call arrive in the order they were accepted, one attempt at a time.
//! - An event that was accepted is delivered or given up; what is given up is logged as an error and
//!   kept as a dead letter. Whoever waits for the promise gets it when the journal has the event.
//! - Nothing is awaited under the lock.

mod age;
mod attempts;
mod breaker;
pub mod dispatcher;
mod intake;
mod lane;
pub mod metrics;
pub mod slot;
mod window;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use self::age::accepted_at;
pub use self::dispatcher::{Availability, Limits, Status};
use self::dispatcher::{Dispatch, Dispatcher};
use self::intake::Taken;
pub use self::intake::{Accepted, Receipt};
use self::metrics::{QueueMetrics, Refusal};
use self::slot::Slot;
use self::window::Window;
use crate::attempt::{Attempt, Deliver};
use crate::event::{Event, EventFilter, EventType};
use crate::history::History;
use crate::journal::{DeadLetter, DiskError, Entry, Haste, Journal, Recovered};
use crate::retry::RetryPolicy;
use crate::routing::{AllowedHosts, NoDecision};
use crate::time::unix_millis;

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

/// Why events were not taken. None of a batch is, then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The journal cannot be written.
    #[error("{0}; what was promised before is kept; try again later")]
    Disk(DiskError),
    /// The process is about to stop.
    #[error("callhook is stopping; try again in a moment")]
    Draining,
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::Full { .. } | Refused::TooMany { .. } => Self::Full,
            Refused::Disk(_) => Self::Disk,
            Refused::Draining => Self::Stopping,
        }
    }
}

struct Inner {
    settings: QueueSettings,
    deliver: Option<Arc<dyn Deliver>>,
    journal: Journal,
    state: Mutex<Shared>,
    /// The timer must look again: something is due earlier than it knew.
    rearm: Notify,
    /// An attempt was concluded, for those who wait for the drain.
    concluded: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<QueueMetrics>,
    history: History,
}

struct Shared {
    dispatcher: Dispatcher,
    window: Window,
    draining: bool,
    /// When the timer will look.
    armed: Option<Instant>,
}

impl Queue {
    /// Starts a queue that sends through `deliver`, with what the journal recovered; without a
    /// receiver every event is dropped, and what was recovered waits.
    pub fn start(
        settings: QueueSettings,
        deliver: Option<Arc<dyn Deliver>>,
        metrics: Arc<QueueMetrics>,
        history: History,
        journal: Journal,
        recovered: Recovered,
    ) -> Self {
        metrics.events.recovered.inc_by(recovered.events.len() as u64);
        for entry in &recovered.events {
            history.accepted(&entry.event, entry.order, entry.sequence);
        }
        let mut shared = Shared::restore(&settings, &journal, recovered);
        if deliver.is_none() {
            shared.dispatcher.stop();
        }
        let queue = Self(Arc::new(Inner {
            settings,
            deliver,
            journal,
            state: Mutex::new(shared),
            rearm: Notify::new(),
            concluded: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
            history,
        }));
        queue.0.tell_limits();
        queue.0.tasks.spawn(Arc::clone(&queue.0).run_timer());
        queue.0.tasks.spawn(Arc::clone(&queue.0).take_back_what_the_disk_refuses());
        queue.0.pump();
        queue
    }

    /// Takes events, all or none, in their order; they are under way at once.
    ///
    /// An id that was given within the last hour is answered as it was then and queues nothing.
    ///
    /// # Errors
    /// [`Refused`], with nothing taken.
    pub fn accept(&self, events: Vec<Event>) -> Result<Receipt, Refused> {
        let taken = self.take(events, Haste::Soon)?;
        Ok(Receipt { taken, queue: self.clone() })
    }

    /// Takes a `call_initiated`; the slot is where its decision will be. Nobody is promised that it is
    /// kept, as it is answered with the decision: it is written only if it is not delivered soon.
    ///
    /// # Errors
    /// [`Refused`], with nothing taken.
    pub fn ask(&self, event: Event) -> Result<Slot, Refused> {
        let taken = self.take(vec![event], Haste::Unhurried)?;
        let slot = taken.accepted.into_iter().next().and_then(|accepted| accepted.slot);
        // Where call_initiated is not delivered nobody will decide.
        Ok(slot.unwrap_or_else(Slot::without_decision))
    }

    /// Takes what happened in a call that callhook bridges. There is nobody to refuse it to, so it is
    /// kept through a full queue (as a dead letter), a disk that fails (in memory), and a stop.
    ///
    /// That the call began or ended is not sent before it is on disk: after a crash in between the call
    /// would get no end, or two.
    pub async fn record(&self, event: Event) {
        if let Some((entry, ticket)) = self.0.take_bridged(event) {
            // Where the disk does not take it, order and speed are all that is left to keep.
            ticket.kept().await;
            let now = Instant::now();
            let since = accepted_at(&entry.event.id, now);
            self.0.lock().dispatcher.restore(entry, since, now);
        }
        self.0.pump();
    }

    /// Sends dead letters again, as far as there is room; they go to the end of their calls' lanes.
    /// Returns how many were taken, once that is on disk.
    ///
    /// # Errors
    /// [`Refused`], with none taken.
    pub async fn replay(&self, letters: Vec<DeadLetter>) -> Result<usize, Refused> {
        let (count, ticket) = self.0.take_again(letters)?;
        self.0.pump();
        if ticket.kept().await { Ok(count) } else { Err(Refused::Disk(self.0.disk_error())) }
    }

    /// Takes no more, but from calls that are live.
    pub fn refuse(&self) {
        self.0.lock().draining = true;
    }

    /// Stops within the deadline. What the journal keeps is left there, and only attempts under way
    /// are ended; without a journal all that can be is delivered. Returns how many events are lost.
    pub async fn drain(&self, deadline: Instant) -> usize {
        let durable = self.0.journal.is_durable();
        {
            let mut shared = self.0.lock();
            shared.draining = true;
            if durable {
                shared.dispatcher.stop();
                // What waits now is sent after the next start, too late for any caller.
                shared.dispatcher.close_slots(NoDecision::Stopping);
            }
        }
        let done = |dispatcher: &Dispatcher| match durable {
            true => dispatcher.is_quiet(),
            false => dispatcher.unsettled() == 0,
        };
        let settled = async {
            loop {
                let concluded = self.0.concluded.notified();
                if done(&self.0.lock().dispatcher) {
                    return;
                }
                concluded.await;
            }
        };
        // What is left at the deadline is counted, so running out of time is no fault here.
        timeout_at(deadline, settled).await.ok();
        // Callers who still wait get the fallback now instead of no answer.
        self.0.lock().dispatcher.close_slots(NoDecision::Stopping);
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.close_journal().await;
        if durable { self.0.journal.unwritten().len() } else { self.unsettled() }
    }

    /// Events accepted and not yet settled.
    pub fn unsettled(&self) -> usize {
        self.0.lock().dispatcher.unsettled()
    }

    /// Whether the queue takes no more because the process stops.
    pub fn is_draining(&self) -> bool {
        self.0.lock().draining
    }

    /// The place that the next event gets among all.
    pub fn next_order(&self) -> u64 {
        self.0.lock().dispatcher.next_place()
    }

    /// How the receiver and the queue stand.
    pub fn status(&self) -> Status {
        let shared = self.0.lock();
        shared.dispatcher.status(Instant::now())
    }

    /// What happened lately.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// The numbers and addresses that the queue works with.
    pub fn settings(&self) -> &QueueSettings {
        &self.0.settings
    }

    /// The headers of an attempt that was made at that time, without what is secret.
    pub fn shown_headers(&self, attempt: &Attempt, at: SystemTime) -> Vec<(String, String)> {
        let deliver = self.0.deliver.as_ref();
        deliver.map(|deliver| deliver.shown_headers(attempt, at)).unwrap_or_default()
    }

    /// The journal, for its dead letters.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    fn take(&self, events: Vec<Event>, haste: Haste) -> Result<Taken, Refused> {
        let count = events.len() as u64;
        let taken = self.0.take(events, haste).inspect_err(|refused| {
            self.0.metrics.events.refused.of(refused.into()).inc_by(count);
        });
        self.0.pump();
        taken
    }

    async fn close_journal(&self) {
        let inner = Arc::clone(&self.0);
        let closed = tokio::task::spawn_blocking(move || inner.journal.close()).await;
        if closed.is_err() {
            error!("closing the journal panicked");
        }
    }
}

impl Shared {
    fn restore(settings: &QueueSettings, journal: &Journal, recovered: Recovered) -> Self {
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(settings.limits, settings.retry);
        for entry in recovered.events {
            let since = accepted_at(&entry.event.id, now);
            dispatcher.restore(entry, since, now);
        }
        dispatcher.continue_from(recovered.next_order);
        let mut window = Window::default();
        let forgotten = window.restore(recovered.ids, now, unix_millis());
        journal.forget(forgotten);
        Self { dispatcher, window, draining: false, armed: None }
    }
}

impl Inner {
    /// Sets what is told once.
    fn tell_limits(&self) {
        let limits = self.settings.limits;
        self.metrics.waiting.limit.set(limits.queue.try_into().unwrap_or(i64::MAX));
        self.metrics.attempts.limit.set(limits.concurrency.try_into().unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(|_| {
            error!("the queue's order is broken, which is a bug; ending at once, to begin anew in order");
            std::process::abort()
        })
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

    /// An event that the disk did not take is not kept in memory either, unless it is on its way.
    async fn take_back_what_the_disk_refuses(self: Arc<Self>) {
        while self.stop.run_until_cancelled(self.journal.refused()).await.is_some() {
            let now = Instant::now();
            let mut shared = self.lock();
            // The last ones first, so that numbers within calls are given again.
            let refusable = |entry: &Entry| !entry.bridged;
            for entry in self.journal.unwritten().into_iter().rev().filter(refusable) {
                let Some(queued) = shared.dispatcher.withdraw(entry.event.call, entry.order, now)
                else {
                    continue;
                };
                shared.window.revoke(&entry.event.id);
                self.journal.withdraw(entry.order);
                self.metrics.events.refused.count(Refusal::Disk);
                self.history.withdrawn(entry.event.call, entry.order);
                if let Some(slot) = queued.slot {
                    slot.close(NoDecision::Refused);
                }
                if entry.event.kind == EventType::CallInitiated {
                    error!(uuid = %entry.event.call, "call_initiated is lost: the journal cannot be written");
                }
            }
            // In time for the write in which the ids themselves would be found.
            self.journal.forget(shared.window.take_forgotten());
        }
    }

    fn disk_error(&self) -> DiskError {
        self.journal.fault().unwrap_or_else(|| DiskError("it failed a moment ago".into()))
    }
}
