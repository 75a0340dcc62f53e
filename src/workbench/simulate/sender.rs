//! Sender: the receiver's client, with faults on purpose.
//!
//! Stands between the queue and [`Webhook`]: the queue decides when and in what order, the webhook
//! makes the request, and here it is spoiled and measured.
//!
//! Invariant: an order is kept until its event is delivered or given up by the queue's own rule,
//! and then dropped, which frees its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::faults::Fault;
use super::tally::Tally;
use crate::attempt::{Attempt, Deliver, Outcome};
use crate::delivery::{Pace, Webhook};
use crate::event::EventId;

/// The pieces of a body that trickles in.
const SLOW_PIECES: u32 = 20;
/// The time that a body takes which trickles in, unless half of the timeout is shorter.
const SLOW: Duration = Duration::from_secs(1);

/// The pieces of a body in several segments.
const SPLIT_PIECES: u32 = 5;
/// Between two of them: long enough for each to leave on its own.
const SPLIT_PAUSE: Duration = Duration::from_millis(2);

/// A call that is being played; it is over when the last one who knows of it is gone.
#[derive(Debug)]
pub struct Playing {
    /// Who counts.
    pub tally: Arc<Tally>,
    /// Its place among the calls at one time.
    pub _place: OwnedSemaphorePermit,
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.tally.is_over();
    }
}

/// How one event is to be sent.
#[derive(Debug)]
pub struct Order {
    /// Its number in the call without faults.
    pub sequence: u64,
    /// What is spoiled.
    pub faults: Vec<Fault>,
    /// Its place among the events that wait.
    pub _place: OwnedSemaphorePermit,
    /// Its call.
    pub _call: Arc<Playing>,
}

/// Sends, spoils and measures.
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    right: Webhook,
    /// The same receiver, told another secret.
    wrong: Webhook,
    /// Attempts for an event in all.
    attempts: u32,
    slow: Pace,
    tally: Arc<Tally>,
    orders: Mutex<HashMap<EventId, Arc<Order>>>,
}

impl Sender {
    /// A sender with `wrong` for those who shall be refused. An event has so many attempts in all,
    /// each of which may take as long as `timeout`.
    pub fn new(
        right: Webhook,
        wrong: Webhook,
        attempts: u32,
        timeout: Duration,
        tally: Arc<Tally>,
    ) -> Self {
        let slow = Pace::Pieces(SLOW_PIECES, SLOW.min(timeout / 2) / SLOW_PIECES);
        let orders = Mutex::default();
        Self(Arc::new(Inner { right, wrong, attempts, slow, tally, orders }))
    }

    /// Takes note of how an event is to be sent, before the queue has it.
    pub fn expect(&self, id: EventId, order: Order) {
        self.0.orders().insert(id, Arc::new(order));
    }
}

impl Deliver for Sender {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.attempt(attempt).await })
    }
}

impl Inner {
    fn orders(&self) -> MutexGuard<'_, HashMap<EventId, Arc<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self, mut attempt: Attempt) -> Outcome {
        let order = self.orders().get(&attempt.item.event.id).cloned();
        let order = order.expect("an event is expected before the queue has it");
        attempt.item.sequence = order.sequence;
        let outcome = self.ask(&attempt, &order).await;
        let accepted = matches!(outcome, Outcome::Delivered { .. });
        if accepted && order.faults.contains(&Fault::Duplicate) {
            let again = self.ask(&attempt, &order).await;
            self.tally.repeated(&again);
        }
        if self.is_settled(&attempt, &outcome) {
            self.tally.settled(&attempt.item.event.kind, &order.faults, &outcome);
            self.orders().remove(&attempt.item.event.id);
        }
        outcome
    }

    async fn ask(&self, attempt: &Attempt, order: &Order) -> Outcome {
        let hit = |fault| order.faults.contains(&fault);
        let webhook = if hit(Fault::WrongSecret) { &self.wrong } else { &self.right };
        let pace = match (hit(Fault::SlowBody), hit(Fault::Split)) {
            (true, _) => self.slow,
            (false, true) => Pace::Pieces(SPLIT_PIECES, SPLIT_PAUSE),
            (false, false) => Pace::Whole,
        };
        let begun = Instant::now();
        let outcome = webhook.ask(attempt, pace).await;
        // What is slow on purpose says nothing about the receiver.
        let took = (pace == Pace::Whole).then(|| begun.elapsed());
        self.tally.answered(&attempt.item.event.kind, &outcome, took);
        outcome
    }

    /// Whether the queue, whose receiver never counts as down here, makes no further attempt.
    fn is_settled(&self, attempt: &Attempt, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Delivered { .. } => true,
            Outcome::Failed(failure) => failure.is_final() || attempt.number() >= self.attempts,
        }
    }
}
