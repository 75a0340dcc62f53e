//! Tally: what happened so far, in numbers.
//!
//! Invariants:
//! - Every event that was handed over is counted once as delivered or failed, when it is settled.
//! - Memory does not grow with the number of calls: at most [`MOST_KINDS`] types and
//!   [`MOST_PLACES`] places are told apart, the others are counted together.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use strum::EnumCount as _;

use super::faults::Fault;
use crate::attempt::{Failure, Outcome};
use crate::event::EventType;
use crate::routing::{self, Decision, Reading, RouteRules};
use crate::workbench::by_name::ByName;
use crate::workbench::scenario::Plan;

/// The most event types whose latency is told apart: each takes some 20 KB.
const MOST_KINDS: usize = 32;

/// The most places that calls are sent to which are told apart.
const MOST_PLACES: usize = 32;

/// The longest latency that is told apart, in microseconds: an hour, above any `--timeout`.
const LONGEST: u64 = 3_600_000_000;

#[derive(Debug, Default)]
pub struct Tally(Mutex<Numbers>);

#[derive(Clone, Debug, Default)]
pub struct Numbers {
    pub begun: u64,
    /// Calls whose every event is settled.
    pub over: u64,
    pub scripts: BTreeMap<(String, String), u64>,
    /// Events that the begun calls have by their scripts.
    pub planned: u64,
    /// Events handed over to the queue.
    pub sent: u64,
    pub delivered: u64,
    /// Events given up that nothing was spoiled of.
    pub failed: u64,
    /// Events given up that were spoiled on purpose.
    pub spoiled: u64,
    /// Requests, including those that repeat an event.
    pub attempts: u64,
    /// Requests by status, or by the code of what came instead of one.
    pub answers: BTreeMap<String, u64>,
    /// Events given up by their last failure's code, with the first one's sentence.
    pub failures: BTreeMap<&'static str, (u64, String)>,
    pub decisions: Decisions,
    /// How long answers took, by event type.
    pub latency: ByName<Latency, MOST_KINDS>,
    pub overall: Latency,
    /// For each fault how many events it hit, and how many of those were answered with 2xx.
    pub faults: [(u64, u64); Fault::COUNT],
    /// How often the receiver asked for a pause, and for how long at most.
    pub pauses: (u64, Duration),
}

/// What the receiver decided about the calls that it was asked about.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decisions {
    /// It named a speech-to-speech server.
    pub routed: u64,
    /// It sent the caller to people, before any agent.
    pub people: u64,
    /// It answered 2xx and named neither: callhook would take `STS_URL`.
    pub fallback: u64,
    /// It named one that cannot be followed.
    pub invalid: u64,
    /// It answered no `call_initiated` with 2xx.
    pub failed: u64,
    pub places: ByName<u64, MOST_PLACES>,
}

/// How long answers took, in microseconds, within 1%.
#[derive(Clone, Debug)]
pub struct Latency(pub Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_max(LONGEST, 2).expect("the bounds are constants that fit"))
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn numbers(&self) -> Numbers {
        self.lock().clone()
    }

    /// A look at a few numbers, without a copy of all.
    pub fn look<T>(&self, look: impl FnOnce(&Numbers) -> T) -> T {
        look(&self.lock())
    }

    pub fn begins(&self, plan: &Plan, sending: usize) {
        let mut numbers = self.lock();
        let planned = plan.events.len();
        numbers.begun += 1;
        numbers.planned += count(planned);
        numbers.faults[Fault::Drop as usize].0 += count(planned.saturating_sub(sending));
        *numbers.scripts.entry((plan.scenario.clone(), plan.script.clone())).or_default() += 1;
    }

    pub fn is_over(&self) {
        self.lock().over += 1;
    }

    pub fn sends(&self) {
        self.lock().sent += 1;
    }

    /// A request was answered, or not. `took` is left out where the request itself took its time.
    pub fn answered(&self, kind: &EventType, outcome: &Outcome, took: Option<Duration>) {
        let mut numbers = self.lock();
        numbers.attempts += 1;
        let answer = match outcome {
            Outcome::Delivered { status, .. } => status.to_string(),
            Outcome::Failed(failure) => failure
                .status
                .map_or_else(|| failure.code.name().to_owned(), |status| status.to_string()),
        };
        *numbers.answers.entry(answer).or_default() += 1;
        if let Outcome::Failed(failure) = outcome {
            numbers.note_pause(failure);
        }
        if let Some(took) = took.filter(|_| outcome.status().is_some()) {
            numbers.note_latency(kind, took);
        }
    }

    pub fn repeated(&self, outcome: &Outcome) {
        let accepted = matches!(outcome, Outcome::Delivered { .. });
        self.lock().note_fault(Fault::Duplicate, accepted);
    }

    pub fn settled(&self, kind: &EventType, faults: &[Fault], outcome: &Outcome) {
        let mut numbers = self.lock();
        let accepted = matches!(outcome, Outcome::Delivered { .. });
        // Its second sending is counted by itself.
        let spoiling = || faults.iter().filter(|fault| **fault != Fault::Duplicate);
        for fault in spoiling() {
            numbers.note_fault(*fault, accepted);
        }
        match outcome {
            Outcome::Delivered { .. } => numbers.delivered += 1,
            Outcome::Failed(_) if spoiling().next().is_some() => numbers.spoiled += 1,
            Outcome::Failed(_) => numbers.failed += 1,
        }
        if let Outcome::Failed(failure) = outcome {
            let example = || (0, failure.error.clone());
            numbers.failures.entry(failure.code.name()).or_insert_with(example).0 += 1;
        }
        if *kind == EventType::CallInitiated {
            numbers.decisions.note(outcome);
        }
    }
}

impl Numbers {
    pub fn unsettled(&self) -> u64 {
        self.sent.saturating_sub(self.delivered + self.failed + self.spoiled)
    }

    fn note_fault(&mut self, fault: Fault, accepted: bool) {
        let (hit, fine) = &mut self.faults[fault as usize];
        *hit += 1;
        *fine += u64::from(accepted);
    }

    fn note_pause(&mut self, failure: &Failure) {
        if let Some(pause) = failure.pause() {
            self.pauses.0 += 1;
            self.pauses.1 = self.pauses.1.max(pause);
        }
    }

    fn note_latency(&mut self, kind: &EventType, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST);
        self.latency.of(kind.name()).0.saturating_record(micros);
        self.overall.0.saturating_record(micros);
    }
}

impl Decisions {
    fn note(&mut self, outcome: &Outcome) {
        let Outcome::Delivered { answer, .. } = outcome else {
            self.failed += 1;
            return;
        };
        let answer = answer.as_deref().unwrap_or_default();
        let Reading { decision, faults } = routing::decision(answer, &RouteRules::ANYWHERE);
        if let Some(decision) = &decision {
            *self.places.of(&decision.place()) += 1;
        }
        match decision {
            Some(Decision::Agent { .. }) => self.routed += 1,
            Some(Decision::People(_)) => self.people += 1,
            None if faults.is_empty() => self.fallback += 1,
            None => self.invalid += 1,
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
