//! What the queue's handle and its tasks share: its state under one lock, and the parts it works with.
//!
//! Invariant: nothing is awaited under the lock. Whoever panics while holding it has broken the order of
//! some call, which ends the process.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::dispatcher::{Dispatcher, Limits};
use super::failure_log::FailureLog;
use super::full_copies::FullCopies;
use super::metrics::QueueMetrics;
use super::slot::Slot;
use crate::attempt::{Attempt, Deliver};
use crate::event::{EventFilter, EventId};
use crate::expiring::Expiring;
use crate::history::History;
use crate::journal::{DiskError, Journal, Ticket};
use crate::receiver::{ReceiverId, ReceiverName, Receivers};
use crate::retry::RetryPolicy;
use crate::routing::{DecisionReader, RouteRules};

/// How long an id that a client gave is remembered.
pub const ID_KEPT: Duration = Duration::from_secs(60 * 60);

/// The most ids that are remembered, of at most 128 bytes each with a digest, and for a `call_initiated` its decision:
/// 55 a second for the whole hour.
pub const MOST_IDS: usize = 200_000;

/// How the queue behaves.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// By [`ReceiverId`]; the main one is always there.
    pub receivers: Vec<ReceiverRules>,
    /// How long a relay waits for a decision, in place of `limits.routing_timeout`.
    pub relay_timeout: Duration,
    /// Where a receiver may route to.
    pub rules: RouteRules,
}

/// What goes to a receiver, and how.
#[derive(Clone, Debug)]
pub struct ReceiverRules {
    pub name: ReceiverName,
    /// Which types are delivered.
    pub filter: EventFilter,
    pub limits: Limits,
    pub retry: RetryPolicy,
}

/// The main receiver, with the defaults of the settings but without retries.
impl Default for ReceiverRules {
    fn default() -> Self {
        Self {
            name: ReceiverName::main(),
            filter: EventFilter::All,
            limits: Limits::default(),
            retry: RetryPolicy::once(),
        }
    }
}

impl QueueSettings {
    /// # Panics
    /// Without a main receiver.
    pub fn main(&self) -> &ReceiverRules {
        self.receivers.first().expect("the main receiver is always there")
    }

    /// # Panics
    /// For a receiver that is not in the settings.
    pub fn of(&self, receiver: ReceiverId) -> &ReceiverRules {
        &self.receivers[receiver.index()]
    }

    pub fn names(&self) -> Receivers {
        Receivers::new(self.receivers.iter().map(|rules| rules.name.clone()))
    }
}

/// The parts that the queue works with, and tells what happens.
#[derive(Clone)]
pub struct QueueParts {
    /// By receiver. `None`, which only the main one is: nothing goes there, and what was recovered for it waits.
    pub deliver: Vec<Option<Arc<dyn Deliver>>>,
    pub journal: Arc<Journal>,
    pub history: History,
    pub metrics: Arc<QueueMetrics>,
}

impl QueueParts {
    /// The receiver's URL as it is now, without userinfo; empty without one.
    pub fn url_of(&self, receiver: ReceiverId) -> String {
        self.deliver[receiver.index()].as_ref().map(|to| to.shown_url()).unwrap_or_default()
    }
}

pub struct Shared {
    pub settings: QueueSettings,
    pub parts: QueueParts,
    pub decisions: DecisionReader,
    pub state: Mutex<QueueState>,
    /// The timer must look again: something is due earlier than it knew.
    pub rearm: Notify,
    /// An attempt was concluded, for those who wait for the drain.
    pub concluded: Notify,
    pub failure_log: FailureLog,
    pub full_copies: FullCopies,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

pub struct QueueState {
    /// By receiver.
    pub dispatchers: Vec<Dispatcher>,
    /// The place that the next item gets.
    pub next_place: u64,
    /// The same id again within [`ID_KEPT`] answers the same and queues nothing. Ids that were made here are
    /// never sent in.
    pub known: Expiring<EventId, Known>,
    pub draining: bool,
    /// When the timer will look.
    pub armed: Option<Instant>,
}

/// What is known of an id that a client gave.
#[derive(Clone, Debug)]
pub struct Known {
    /// Of the event itself ([`Event::digest`](crate::event::Event::digest)); `None` if it came before the last start.
    pub digest: Option<[u8; 32]>,
    /// Where the decision is found, for a `call_initiated`.
    pub slot: Option<Slot>,
    /// The promise that the event is kept; `None` if it was made before the last start.
    pub promise: Option<Ticket>,
}

impl QueueState {
    pub fn main(&self) -> &Dispatcher {
        &self.dispatchers[ReceiverId::MAIN.index()]
    }

    pub fn of(&mut self, receiver: ReceiverId) -> &mut Dispatcher {
        &mut self.dispatchers[receiver.index()]
    }

    pub fn take_place(&mut self) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        place
    }

    /// Events accepted and not yet settled, counted for each receiver.
    pub fn unsettled(&self) -> usize {
        self.dispatchers.iter().map(Dispatcher::unsettled).sum()
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(|_| {
            error!(
                "the order of the queue is broken, which is a bug; aborting, to restart in order"
            );
            std::process::abort()
        })
    }

    /// Every attempt that is due; arms the timer for the next.
    pub fn due(&self) -> Vec<Attempt> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut due = Vec::new();
        for dispatcher in &mut state.dispatchers {
            due.extend(std::iter::from_fn(|| dispatcher.next(now)));
        }
        let wake_at = state.dispatchers.iter().filter_map(Dispatcher::wake_at).min();
        if wake_at.is_some_and(|at| state.armed.is_none_or(|armed| at < armed)) {
            state.armed = wake_at;
            self.rearm.notify_one();
        }
        due
    }

    pub fn disk_error(&self) -> DiskError {
        let fault = self.parts.journal.fault();
        fault.unwrap_or_else(|| DiskError("it failed a moment ago".into()))
    }
}
