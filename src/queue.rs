//! The queue: what was accepted, until it is delivered or given up.
//!
//! Accepts events, sends what is due through a [`Deliver`](crate::attempt::Deliver), draws the consequences
//! of each outcome and logs them. Asks nobody about HTTP or Asterisk. The decisions themselves are pure
//! and live in the files below; this one starts the tasks, and stops them.
//!
//! Invariants:
//! - The events of a call arrive in the order they were accepted, one attempt at a time.
//! - An event that was accepted is delivered or given up; what is given up is logged as an error and
//!   kept as a dead letter. Whoever waits for the promise gets it when the journal has the event.

mod ages;
mod attempts;
mod breaker;
pub mod dispatcher;
mod failure_log;
mod full_copies;
mod intake;
mod lane;
mod lanes;
pub mod metrics;
mod reach;
mod shared;
pub mod slot;
mod status;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use self::ages::accepted_at;
use self::dispatcher::Dispatcher;
pub use self::dispatcher::Limits;
use self::failure_log::FailureLog;
use self::full_copies::FullCopies;
pub use self::intake::{Accepted, Receipt, Refused};
use self::metrics::QueueMetrics;
use self::shared::{ID_KEPT, Known, MOST_IDS, QueueState, Shared};
pub use self::shared::{QueueParts, QueueSettings, ReceiverRules};
use self::slot::Slot;
pub use self::status::{QueueStatus, ReceiverStatus};
use crate::event::{Event, EventId};
use crate::expiring::Expiring;
use crate::journal::{DeadLetter, GivenId, Journal, Recovered};
use crate::receiver::ReceiverId;
use crate::routing::{Decision, DecisionReader, NoDecision};
use crate::time::unix_millis;

/// The queue's handle; clones share one queue.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// Starts a queue with what its journal recovered.
    pub fn start(settings: QueueSettings, parts: QueueParts, recovered: Recovered) -> Self {
        tell_limits(&parts.metrics, &settings);
        for item in &recovered.items {
            parts.metrics.of(item.receiver).recovered.inc();
            parts.history.accepted(item);
        }
        let mut state = restored(&settings, &parts.journal, recovered);
        for (dispatcher, deliver) in state.dispatchers.iter_mut().zip(&parts.deliver) {
            if deliver.is_none() {
                dispatcher.stop();
            }
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let shared = Arc::new(Shared {
            failure_log: FailureLog::new(tasks.clone(), stop.clone()),
            full_copies: FullCopies::new(settings.receivers.len(), tasks.clone(), stop.clone()),
            decisions: DecisionReader::new(settings.rules.clone()),
            settings,
            parts,
            state: Mutex::new(state),
            rearm: Notify::new(),
            concluded: Notify::new(),
            tasks,
            stop,
        });
        shared.tasks.spawn(run_timer(Arc::clone(&shared)));
        shared.tasks.spawn(take_back_what_the_disk_refuses(Arc::clone(&shared)));
        shared.pump();
        Self(shared)
    }

    /// Takes events, all or none, in their order; they are under way at once.
    ///
    /// An id that was given within the last hour is answered as it was then and queues nothing; for another event it
    /// is refused.
    ///
    /// # Errors
    /// [`Refused`], with nothing taken.
    pub fn accept(&self, events: Vec<Event>) -> Result<Receipt, Refused> {
        let count = events.len() as u64;
        self.taken(count, self.0.take(events))
    }

    /// Takes a `call_initiated`; the slot is where its decision will be. Nobody is promised that it is
    /// kept, as it is answered with the decision: it is written only if it is not delivered soon.
    ///
    /// # Errors
    /// [`Refused`], with nothing taken.
    pub fn ask(&self, event: Event) -> Result<Slot, Refused> {
        self.taken(1, self.0.take_question(event))
    }

    /// Takes what happened in a call that callhook bridges. There is nobody to refuse it to, so it is
    /// kept through a full queue (as a dead letter), a disk that fails (in memory), and a stop.
    ///
    /// That the call began or ended is not sent before it is on disk: after a crash in between the call
    /// would get no end, or two.
    pub async fn record(&self, event: Event) {
        if let Some((items, promise)) = self.0.take_bridged(event) {
            // Where the disk does not take it, order and speed are all that is left to keep.
            promise.kept().await;
            let now = Instant::now();
            let mut state = self.0.lock();
            for item in items {
                let since = accepted_at(&item.event.id, now);
                state.of(item.receiver).restore(item, since, now);
            }
        }
        self.0.pump();
    }

    /// Sends a receiver's dead letters again, as far as there is room; they go to the end of their calls' lanes.
    /// Returns how many were taken, once that is on disk.
    ///
    /// # Errors
    /// [`Refused`], with none taken.
    ///
    /// # Panics
    /// For a receiver that is not in the settings.
    pub async fn replay(
        &self,
        receiver: ReceiverId,
        letters: Vec<DeadLetter>,
    ) -> Result<usize, Refused> {
        let (count, promise) = self.0.take_again(receiver, letters)?;
        self.0.pump();
        if promise.kept().await { Ok(count) } else { Err(Refused::Disk(self.0.disk_error())) }
    }

    /// Takes no more, but from calls that are live.
    pub fn refuse(&self) {
        self.0.lock().draining = true;
    }

    /// Stops within the deadline. What the journal keeps is left there, and only attempts under way
    /// are ended; without a journal all that can be is delivered. Returns how many events are lost.
    pub async fn drain(&self, deadline: Instant) -> usize {
        let journal = &self.0.parts.journal;
        let durable = journal.is_durable();
        {
            let mut state = self.0.lock();
            state.draining = true;
            if durable {
                state.dispatchers.iter_mut().for_each(Dispatcher::stop);
                // What waits now is sent after the next start, too late for any caller.
                state.main().close_unsent_slots(NoDecision::Stopping);
            }
        }
        let done = |state: &QueueState| match durable {
            true => state.dispatchers.iter().all(Dispatcher::is_quiet),
            false => state.unsettled() == 0,
        };
        let settled = async {
            loop {
                let concluded = self.0.concluded.notified();
                if done(&self.0.lock()) {
                    return;
                }
                concluded.await;
            }
        };
        // What is left at the deadline is counted, so running out of time is no fault here.
        timeout_at(deadline, settled).await.ok();
        // Callers who still wait get the fallback now instead of no answer.
        self.0.lock().main().close_slots(NoDecision::Stopping);
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let closing = Arc::clone(journal);
        if tokio::task::spawn_blocking(move || closing.close()).await.is_err() {
            error!("closing the journal panicked");
        }
        if durable { journal.unwritten().len() } else { self.unsettled() }
    }

    /// Events accepted and not yet settled, counted for each receiver.
    pub fn unsettled(&self) -> usize {
        self.0.lock().unsettled()
    }

    /// Whether the queue takes no more because the process stops.
    pub fn is_draining(&self) -> bool {
        self.0.lock().draining
    }

    /// The place that the next event gets among all.
    pub fn next_place(&self) -> u64 {
        self.0.lock().next_place
    }

    /// How each receiver and what waits for it stands.
    pub fn statuses(&self) -> Vec<QueueStatus> {
        let now = Instant::now();
        self.0.lock().dispatchers.iter().map(|dispatcher| dispatcher.status(now)).collect()
    }

    fn taken<T>(&self, count: u64, taken: Result<T, Refused>) -> Result<T, Refused> {
        if let Err(refused) = &taken {
            self.0.parts.metrics.events.refused.of(refused.into()).inc_by(count);
        }
        self.0.pump();
        taken
    }
}

/// Sets what does not change.
fn tell_limits(metrics: &QueueMetrics, settings: &QueueSettings) {
    let Limits { queue, concurrency, .. } = settings.main().limits;
    metrics.queue_limit.set(queue.try_into().unwrap_or(i64::MAX));
    metrics.attempts_limit.set(concurrency.try_into().unwrap_or(i64::MAX));
}

fn restored(settings: &QueueSettings, journal: &Journal, recovered: Recovered) -> QueueState {
    let now = Instant::now();
    let main = Dispatcher::new(settings.main().limits, settings.main().retry);
    let copy = |rules: &ReceiverRules| Dispatcher::of_copy(rules.limits, rules.retry);
    let copies = settings.receivers.iter().skip(1).map(copy);
    let mut dispatchers: Vec<Dispatcher> = [main].into_iter().chain(copies).collect();
    for item in recovered.items {
        let since = accepted_at(&item.event.id, now);
        dispatchers[item.receiver.index()].restore(item, since, now);
    }
    dispatchers.iter_mut().for_each(|dispatcher| dispatcher.start(now));
    let (known, forgotten) = known_ids(recovered.ids, now);
    journal.forget(forgotten);
    let next_place = recovered.next_place;
    QueueState { dispatchers, next_place, known, draining: false, armed: None }
}

/// The ids that the journal holds, and those of them that are too old or too many.
fn known_ids(
    mut ids: Vec<(EventId, GivenId)>,
    now: Instant,
) -> (Expiring<EventId, Known>, Vec<EventId>) {
    let unix_millis = unix_millis();
    let (mut known, mut forgotten) = (Expiring::new(ID_KEPT, MOST_IDS), Vec::new());
    ids.sort_by_key(|(_, given)| given.at);
    for (id, GivenId { at, decision }) in ids {
        let age = Duration::from_millis(unix_millis.saturating_sub(at));
        let slot =
            decision.and_then(|given| Decision::recall(&given)).map(Arc::new).map(Slot::decided);
        match now.checked_sub(age).filter(|_| age <= ID_KEPT) {
            Some(since) => {
                let entry = Known { digest: None, slot, promise: None };
                known.insert(id, entry, since, |id, _| forgotten.push(id));
            }
            None => forgotten.push(id),
        }
    }
    (known, forgotten)
}

async fn run_timer(shared: Arc<Shared>) {
    loop {
        let armed = shared.lock().armed;
        let alarm = async {
            match armed {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.rearm.notified() => {}
            () = alarm => {
                shared.lock().armed = None;
                shared.pump();
            }
        }
    }
}

async fn take_back_what_the_disk_refuses(shared: Arc<Shared>) {
    while shared.stop.run_until_cancelled(shared.parts.journal.refused()).await.is_some() {
        shared.take_back().await;
    }
}
