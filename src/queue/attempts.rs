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

use super::Inner;
use super::breaker::Change;
use super::dispatcher::{Dispatch, Spent, Verdict};
use super::metrics::Attempted;
use super::slot::Slot;
use crate::attempt::{Failure, Outcome};
use crate::event::EventId;
use crate::journal::{DeadLetter, KnownId, Ticket};
use crate::log::{FAILURE, GIVEN_UP};
use crate::routing::{self, NoDecision};
use crate::time::{millis, unix_millis};

impl Inner {
    /// Makes an attempt and, in the same task, those that became due through its outcome.
    pub(super) async fn deliver_from(self: Arc<Self>, first: Dispatch) {
        let deliver =
            Arc::clone(self.deliver.as_ref().expect("without a receiver nothing is accepted"));
        let mut next = Some(first);
        while let Some(dispatch) = next {
            let begun = Instant::now();
            let attempt =
                AssertUnwindSafe(deliver.attempt(dispatch.attempt.clone())).catch_unwind();
            let outcome = tokio::select! {
                outcome = attempt => outcome.unwrap_or_else(|_| Outcome::Failed(Failure::of_panic())),
                () = self.stop.cancelled() => return,
            };
            let took = begun.elapsed();
            self.measure(&outcome, took);
            self.conclude(&dispatch, outcome, took).await;
            let mut due = self.due().into_iter();
            next = due.next();
            self.send(due);
        }
    }

    fn measure(&self, outcome: &Outcome, took: Duration) {
        let attempted = match outcome {
            Outcome::Delivered { .. } => Attempted::Delivered,
            Outcome::Failed(failure) => {
                self.metrics.attempts.failures.count(failure.code);
                Attempted::Failed
            }
        };
        self.metrics.attempts.seconds.of(attempted).observe(took.as_secs_f64());
    }

    async fn conclude(self: &Arc<Self>, dispatch: &Dispatch, outcome: Outcome, took: Duration) {
        let (changes, then) = match outcome {
            Outcome::Delivered { status, answer } => {
                let Dispatch { attempt, order, probe } = dispatch;
                self.history.delivered(attempt, *order, *probe, status, took);
                self.delivered(dispatch, answer.as_deref())
            }
            Outcome::Failed(failure) => self.failed(dispatch, &failure),
        };
        for change in changes {
            self.log_change(change);
        }
        if let Then::SettleOnceWritten(ticket) = &then {
            // The lane stays in flight, so that its next event waits. Others may go.
            self.pump();
            ticket.kept().await;
        }
        if !matches!(then, Then::TryAgain) {
            self.lock().dispatcher.settle(dispatch.attempt.event.call, Instant::now());
        }
        self.concluded.notify_waiters();
    }

    fn delivered(&self, dispatch: &Dispatch, answer: Option<&[u8]>) -> (Vec<Change>, Then) {
        let now = Instant::now();
        let (slot, changes) = self.lock().dispatcher.delivered(&dispatch.attempt, now);
        self.metrics.events.delivered.count((&dispatch.attempt.event.kind).into());
        self.log_delivered(dispatch);
        if let Some(slot) = slot {
            self.decide(dispatch, &slot, answer, now);
        }
        (changes, Then::settle(self.journal.delivered(dispatch.order)))
    }

    fn failed(&self, dispatch: &Dispatch, failure: &Failure) -> (Vec<Change>, Then) {
        let unix_millis = unix_millis();
        let (verdict, changes) =
            self.lock().dispatcher.failed(dispatch, failure, Instant::now(), unix_millis);
        let then = match &verdict {
            Verdict::Retry(None) => Then::TryAgain,
            Verdict::Retry(Some(spent)) => {
                self.journal.spent(dispatch.order, spent.attempts, spent.first_at);
                Then::TryAgain
            }
            Verdict::GivenUp(spent) => {
                let letter = dead_letter(dispatch, failure, *spent, unix_millis);
                Then::settle(self.journal.died(letter))
            }
        };
        self.log_failure(dispatch, &verdict, failure);
        (changes, then)
    }

    fn decide(&self, dispatch: &Dispatch, slot: &Slot, answer: Option<&[u8]>, now: Instant) {
        let call = dispatch.attempt.event.call;
        match routing::decision(answer.unwrap_or_default(), &self.settings.allowed_hosts) {
            Ok(Some(decision)) => {
                let place = decision.url.place();
                let given = decision.given.clone();
                if slot.decide(decision, now) {
                    self.history.routed(call, &place);
                    self.remember_decision(&dispatch.attempt.event.id, given);
                } else {
                    self.metrics.routing.late.inc();
                    warn!(uuid = %call, place, "routing decision came too late and is ignored");
                }
            }
            Ok(None) => slot.close(NoDecision::NotGiven),
            Err(fault) => {
                warn!(uuid = %call, error = %fault, "sts_url of the receiver is invalid and is ignored");
                slot.close(NoDecision::Invalid);
            }
        }
    }

    /// Whoever repeats the event's id is answered the same, also after a restart.
    fn remember_decision(&self, id: &EventId, given: Box<str>) {
        if matches!(id, EventId::Given(_)) {
            let (id, at) = (id.clone(), unix_millis());
            self.journal.remember(KnownId { id, at, decision: Some(given) });
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
        let given_up = matches!(verdict, Verdict::GivenUp(_));
        let Dispatch { attempt, order, probe } = dispatch;
        self.history.failed(attempt, *order, *probe, failure, given_up);
        let events = &self.metrics.events;
        let counter = if given_up { &events.dead } else { &events.retried };
        counter.count((&attempt.event.kind).into());
        // A probe of a receiver that is down says so, since it repeats the attempt's number.
        macro_rules! record {
            ($level:ident, $message:expr) => {
                $level!(
                    target: FAILURE,
                    r#type = attempt.event.kind.name(),
                    uuid = %attempt.event.call,
                    id = %attempt.event.id,
                    attempt = attempt.number,
                    attempts = self.settings.retry.attempts(),
                    error = failure.error,
                    code = failure.code.name(),
                    url = self.settings.receiver,
                    method = "POST",
                    status = failure.status,
                    probe = probe.then_some(true),
                    duration_ms = millis(failure.took),
                    "{}", $message
                )
            };
        }
        if given_up {
            record!(error, GIVEN_UP);
        } else {
            record!(warn, "webhook attempt failed");
        }
    }

    fn log_change(&self, change: Change) {
        let url = &self.settings.receiver;
        let waiting = self.lock().dispatcher.unsettled();
        match change {
            Change::WentDown => {
                error!(url, waiting, "receiver is down; events wait until it answers a probe");
            }
            Change::CameBack => info!(url, waiting, "receiver is back"),
            Change::RoutingBroke { failed } => warn!(
                url,
                failed,
                "routing is broken: so many call_initiated in a row failed; callers get STS_URL at once \
                 until one succeeds"
            ),
            Change::RoutingWorks => info!(url, "routing works again"),
            Change::Paused { wait } => warn!(
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

fn dead_letter(dispatch: &Dispatch, failure: &Failure, spent: Spent, now: u64) -> DeadLetter {
    DeadLetter {
        order: dispatch.order,
        sequence: dispatch.attempt.sequence,
        event: Arc::clone(&dispatch.attempt.event),
        attempts: spent.attempts,
        status: failure.status,
        code: failure.code.name().to_owned(),
        error: failure.error.clone(),
        first_at: spent.first_at,
        last_at: now,
    }
}
