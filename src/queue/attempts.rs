//! Attempts: making them, and what follows from each.
//!
//! Owns the task that an attempt runs in, and what its outcome means outside the dispatcher: for whoever
//! waits for a decision, for the journal, the history, the metrics and the log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::dispatcher::AfterFailure;
use super::metrics::AttemptResult;
use super::reach::ReceiverChange;
use super::shared::Shared;
use super::slot::Slot;
use crate::attempt::{Attempt, Failure, Outcome};
use crate::event::{EventId, Item};
use crate::journal::{DeadLetter, Ticket};
use crate::log::{FAILURE, GIVEN_UP};
use crate::receiver::ReceiverId;
use crate::routing::NoDecision;
use crate::time::{millis, unix_millis};

impl Shared {
    /// Sends everything that is due.
    pub fn pump(self: &Arc<Self>) {
        self.send(self.due());
    }

    fn send(self: &Arc<Self>, due: impl IntoIterator<Item = Attempt>) {
        for attempt in due {
            self.tasks.spawn(Arc::clone(self).attempt_from(attempt));
        }
    }

    /// Makes an attempt and, in the same task, those that became due through its outcome.
    async fn attempt_from(self: Arc<Self>, first: Attempt) {
        let mut next = Some(first);
        while let Some(attempt) = next {
            let begun = Instant::now();
            let deliver = self.parts.deliver[attempt.item.receiver.index()].as_ref();
            let deliver = Arc::clone(deliver.expect("nothing is sent to nobody"));
            let outcome = AssertUnwindSafe(deliver.attempt(attempt.clone())).catch_unwind();
            let outcome = tokio::select! {
                outcome = outcome => outcome.unwrap_or_else(|_| Outcome::Failed(Failure::of_panic())),
                () = self.stop.cancelled() => return,
            };
            self.conclude(&attempt, outcome, begun.elapsed()).await;
            let mut due = self.due().into_iter();
            next = due.next();
            self.send(due);
        }
    }

    async fn conclude(self: &Arc<Self>, attempt: &Attempt, outcome: Outcome, took: Duration) {
        self.measure(attempt.item.receiver, &outcome, took);
        let (changes, then) = match outcome {
            Outcome::Delivered { status, answer } => {
                self.parts.history.delivered(attempt, status, took);
                self.delivered(attempt, answer.as_deref(), took)
            }
            Outcome::Failed(failure) => self.failed(attempt, &failure),
        };
        for change in changes {
            self.log_change(attempt.item.receiver, change);
        }
        if let Then::SettleOnceWritten(ticket) = &then {
            // The lane stays in flight, so that its next event waits. Others may go.
            self.pump();
            ticket.kept().await;
        }
        if !matches!(then, Then::TryAgain) {
            let call = attempt.item.event.call;
            self.lock().of(attempt.item.receiver).settle(call, Instant::now());
        }
        self.concluded.notify_waiters();
    }

    fn measure(&self, receiver: ReceiverId, outcome: &Outcome, took: Duration) {
        let attempts = self.parts.metrics.of(receiver);
        let attempted = match outcome {
            Outcome::Delivered { .. } => AttemptResult::Delivered,
            Outcome::Failed(failure) => {
                attempts.failures.count(failure.code);
                AttemptResult::Failed
            }
        };
        attempts.attempt_seconds.of(attempted).observe(took.as_secs_f64());
    }

    fn delivered(
        &self,
        attempt: &Attempt,
        answer: Option<&[u8]>,
        took: Duration,
    ) -> (Vec<ReceiverChange>, Then) {
        let now = Instant::now();
        let receiver = attempt.item.receiver;
        let (slot, changes) = self.lock().of(receiver).delivered(attempt, took, now);
        let event = &attempt.item.event;
        self.parts.metrics.of(receiver).delivered.count((&event.kind).into());
        debug!(
            receiver = %self.settings.of(receiver).name,
            r#type = event.kind.name(),
            uuid = %event.call,
            id = %event.id,
            attempt = attempt.number(),
            sequence = attempt.item.sequence,
            "event delivered"
        );
        if let Some(slot) = slot {
            self.decide(&attempt.item, &slot, answer, now);
        }
        (changes, Then::settle(self.parts.journal.delivered(attempt.item.place)))
    }

    fn failed(&self, attempt: &Attempt, failure: &Failure) -> (Vec<ReceiverChange>, Then) {
        let (now, unix_millis) = (Instant::now(), unix_millis());
        let receiver = attempt.item.receiver;
        let (after, changes) = self.lock().of(receiver).failed(attempt, failure, now, unix_millis);
        let journal = &self.parts.journal;
        let given_up = matches!(after, AfterFailure::GivenUp(_));
        let then = match after {
            AfterFailure::Unspent => Then::TryAgain,
            AfterFailure::Retry(item) => {
                journal.spent(&item);
                Then::TryAgain
            }
            AfterFailure::GivenUp(item) => {
                let (status, code) = (failure.status, failure.code.name().to_owned());
                let (error, answer, last_at) =
                    (failure.error.clone(), failure.answer.clone(), unix_millis);
                let letter = DeadLetter { item, status, code, error, answer, last_at };
                Then::settle(journal.died(letter))
            }
        };
        self.parts.history.failed(attempt, failure, given_up);
        let events = self.parts.metrics.of(receiver);
        let counter = if given_up { &events.dead } else { &events.retried };
        counter.count((&attempt.item.event.kind).into());
        self.log_failure(attempt, failure, given_up);
        (changes, then)
    }

    fn decide(&self, item: &Item, slot: &Slot, answer: Option<&[u8]>, now: Instant) {
        let call = item.event.call;
        let (decision, faults) = self.decisions.read(answer.unwrap_or_default());
        for fault in &faults {
            let field = fault.field();
            warn!(uuid = %call, error = %fault, "{field} of the receiver is invalid and is ignored");
        }
        let Some(decision) = decision else {
            return slot.close(match faults.is_empty() {
                true => NoDecision::NotGiven,
                false => NoDecision::Invalid,
            });
        };
        let place = decision.place();
        if !slot.decide(Arc::clone(&decision), now) {
            self.parts.metrics.routing.late.inc();
            return warn!(uuid = %call, place, "routing decision came too late and is ignored");
        }
        self.parts.history.routed(call, &place);
        // Whoever repeats the event's id is answered the same, also after a restart.
        if let (EventId::Given(_), Some(given)) = (&item.event.id, decision.given()) {
            self.parts.journal.decided(item.event.id.clone(), given.into());
        }
    }

    /// A warning, or an error where it was the event's last attempt. A probe of a receiver that is down
    /// says so, since it repeats the attempt's number.
    fn log_failure(&self, attempt: &Attempt, failure: &Failure, given_up: bool) {
        let receiver = attempt.item.receiver;
        let (rules, url) = (self.settings.of(receiver), self.parts.url_of(receiver));
        if !self.failure_log.wants_in_full((&rules.name, &url), attempt, failure, given_up) {
            return;
        }
        macro_rules! record {
            ($level:ident, $message:expr) => {
                $level!(
                    target: FAILURE,
                    r#type = attempt.item.event.kind.name(),
                    uuid = %attempt.item.event.call,
                    id = %attempt.item.event.id,
                    attempt = attempt.number(),
                    attempts = rules.retry.attempts(),
                    error = failure.error,
                    code = failure.code.name(),
                    url,
                    method = "POST",
                    status = failure.status,
                    probe = attempt.probe.then_some(true),
                    duration_ms = millis(failure.took),
                    receiver = %rules.name,
                    "{}", $message
                )
            };
        }
        match given_up {
            true => record!(error, GIVEN_UP),
            false => record!(warn, "webhook attempt failed"),
        }
    }

    fn log_change(&self, receiver: ReceiverId, change: ReceiverChange) {
        let (name, url) = (&self.settings.of(receiver).name, self.parts.url_of(receiver));
        let waiting = self.lock().of(receiver).unsettled();
        match change {
            ReceiverChange::WentDown => error!(
                receiver = %name,
                url,
                waiting,
                "receiver is down; events wait until it answers a probe"
            ),
            ReceiverChange::CameBack => {
                info!(receiver = %name, url, waiting, "receiver is back");
            }
            ReceiverChange::RoutingBroke { failed } => warn!(
                url,
                failed,
                "routing is broken: so many call_initiated in a row failed; callers get STS_URL at once \
                 until one succeeds"
            ),
            ReceiverChange::RoutingWorks => info!(url, "routing works again"),
            ReceiverChange::Slow { took, timeout } => warn!(
                receiver = %name,
                url,
                took_ms = millis(took),
                timeout_ms = millis(timeout),
                "receiver is slow"
            ),
            ReceiverChange::Paused { wait } => warn!(
                receiver = %name,
                url,
                waiting,
                seconds = wait.as_secs(),
                "receiver asked for a pause; all events wait"
            ),
        }
    }
}

/// What becomes of an event after an attempt.
enum Then {
    /// It stays at the front of its lane.
    TryAgain,
    /// It is gone, and the call's next event may go.
    Settle,
    /// The same, once the journal has it.
    SettleOnceWritten(Ticket),
}

impl Then {
    fn settle(on_disk: Option<Ticket>) -> Self {
        on_disk.map_or(Self::Settle, Self::SettleOnceWritten)
    }
}
