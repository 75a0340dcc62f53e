//! FaultySender: the receiver's client, with faults on purpose.
//!
//! Stands between the queue and [`Webhook`]: the queue decides when and in what order, the webhook
//! builds and sends the request, and here it is altered and measured.
//!
//! Invariant: an order is kept until its event is delivered or given up by the queue's own rule,
//! and then dropped, which frees its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Request;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::faults::Fault;
use super::tally::Tally;
use crate::attempt::{Attempt, Deliver, Outcome};
use crate::delivery::Webhook;
use crate::event::EventId;
use crate::wire::connections::RequestBody;
use crate::workbench::alteration::Alteration;

/// A call that is being played; it is over when the last one who knows of it is gone.
#[derive(Debug)]
pub struct Playing {
    pub tally: Arc<Tally>,
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
    pub faults: Vec<Fault>,
    pub _place: OwnedSemaphorePermit,
    pub _call: Arc<Playing>,
}

/// Sends, spoils and measures; clones share one list of orders.
#[derive(Clone)]
pub struct FaultySender {
    webhook: Webhook,
    /// Attempts for an event in all.
    attempts: u32,
    timeout: Duration,
    tally: Arc<Tally>,
    orders: Arc<Mutex<HashMap<EventId, Arc<Order>>>>,
}

impl FaultySender {
    pub fn new(webhook: Webhook, attempts: u32, timeout: Duration, tally: Arc<Tally>) -> Self {
        Self { webhook, attempts, timeout, tally, orders: Arc::default() }
    }

    /// Takes note of how an event is to be sent, before the queue has it.
    pub fn expect(&self, id: EventId, order: Order) {
        self.orders().insert(id, Arc::new(order));
    }

    fn orders(&self) -> MutexGuard<'_, HashMap<EventId, Arc<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(&self, mut attempt: Attempt) -> Outcome {
        let order = self.orders().get(&attempt.item.event.id).cloned();
        let order = order.expect("an event is expected before the queue has it");
        attempt.item.sequence = order.sequence;
        let request = self.spoiled(&attempt, &order);
        let headers = order.faults.contains(&Fault::Duplicate).then(|| request.headers().clone());
        let outcome = self.ask(request, &attempt, &order).await;
        let accepted = matches!(outcome, Outcome::Delivered { .. });
        if let Some(headers) = headers.filter(|_| accepted) {
            let mut again = self.spoiled(&attempt, &order);
            *again.headers_mut() = headers;
            let again = self.ask(again, &attempt, &order).await;
            self.tally.repeated(&again);
        }
        if self.is_settled(&attempt, &outcome) {
            self.tally.settled(&attempt.item.event.kind, &order.faults, &outcome);
            self.orders().remove(&attempt.item.event.id);
        }
        outcome
    }

    fn spoiled(&self, attempt: &Attempt, order: &Order) -> Request<RequestBody> {
        let mut request = self.webhook.request(attempt);
        for alteration in self.alterations(order) {
            alteration.apply(&mut request, &attempt.item.event, None);
        }
        request
    }

    fn alterations<'o>(&self, order: &'o Order) -> impl Iterator<Item = Alteration> + use<'o> {
        let timeout = self.timeout;
        order.faults.iter().filter_map(move |fault| fault.alteration(timeout))
    }

    async fn ask(
        &self,
        request: Request<RequestBody>,
        attempt: &Attempt,
        order: &Order,
    ) -> Outcome {
        let is_slow = self.alterations(order).any(|one| matches!(one, Alteration::Pieces(..)));
        let begun = Instant::now();
        let outcome = self.webhook.send(request, attempt.timeout).await;
        // What is slow on purpose says nothing about the receiver.
        let took = (!is_slow).then(|| begun.elapsed());
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

impl Deliver for FaultySender {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let sender = self.clone();
        Box::pin(async move { sender.make(attempt).await })
    }

    fn shown_url(&self) -> String {
        self.webhook.shown_url()
    }
}
