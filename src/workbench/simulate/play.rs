//! Play: calls begin at their times, and their events are handed over to the queue at theirs.
//!
//! Owns the tasks, one a call. What a call comes to is [`scenario::plan()`]'s, the order and the
//! retries are the queue's.
//!
//! Limits: as many calls at one time as were asked for, and [`MOST_WAITING`] events that were
//! handed over and are not settled; more wait, so that memory does not grow with a slow receiver.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::{Rate, Speed};
use super::faults::{Sending, Shares, spoil};
use super::sender::{Order, Playing, Sender};
use super::tally::Tally;
use crate::event::{CallId, Event, EventId};
use crate::queue::Queue;
use crate::workbench::dice::Dice;
use crate::workbench::scenario::{self, Scenario};

/// The most events that wait in the queue: a few seconds' work for a fast receiver.
pub const MOST_WAITING: usize = 10_000;

/// The dice of the faults throw in streams of their own, beside those of the calls.
const FAULTS: u64 = 1 << 63;

/// What is played, and how.
pub struct Script {
    /// At least one.
    pub scenarios: Vec<Scenario>,
    /// What chance depends on.
    pub seed: u64,
    /// What is spoiled.
    pub shares: Shares,
    /// How many calls.
    pub calls: u32,
    /// How many begin in a second.
    pub rate: Rate,
    /// How fast time goes by.
    pub speed: Speed,
}

/// Those who play, and where they may.
#[derive(Clone)]
pub struct Players(Arc<Inner>);

struct Inner {
    script: Script,
    queue: Queue,
    sender: Sender,
    tally: Arc<Tally>,
    calls: Arc<Semaphore>,
    at_once: u32,
    waiting: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Players {
    /// Players of at most `at_once` calls at one time.
    pub fn new(
        script: Script,
        queue: Queue,
        sender: Sender,
        tally: Arc<Tally>,
        at_once: u32,
    ) -> Self {
        let places = usize::try_from(at_once).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            script,
            queue,
            sender,
            tally,
            calls: Arc::new(Semaphore::new(places)),
            at_once,
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Plays all calls; ends when every event is settled.
    pub async fn play(&self) {
        let begun = Instant::now();
        for call in 0..self.0.script.calls {
            sleep_until(begun + self.0.script.rate.begins(call)).await;
            let place = place(&self.0.calls).await;
            let inner = Arc::clone(&self.0);
            let stop = self.0.stop.clone();
            self.0.tasks.spawn(async move {
                // A call that is stopped in the middle is left as it is.
                stop.run_until_cancelled(inner.call(u64::from(call) + 1, place)).await;
            });
        }
        let all = self.0.calls.acquire_many(self.0.at_once).await;
        drop(all.expect("the semaphore is never closed"));
    }

    /// Hands nothing more over.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    async fn call(&self, number: u64, place: OwnedSemaphorePermit) {
        let Script { scenarios, seed, shares, speed, .. } = &self.script;
        let plan = scenario::plan(scenarios, *seed, number);
        let mut dice = Dice::new(*seed, FAULTS | number);
        let sendings = spoil(plan.events.clone(), shares, &mut dice);
        self.tally.begins(&plan, sendings.len());
        let call = Arc::new(Playing { tally: Arc::clone(&self.tally), _place: place });
        let begun = (Instant::now(), Utc::now());
        for sending in sendings {
            self.send(plan.call, begun, sending, &call).await;
        }
        sleep_until(begun.0 + speed.lasts(plan.length)).await;
    }

    async fn send(
        &self,
        id: CallId,
        (begun, clock): (Instant, DateTime<Utc>),
        sending: Sending,
        call: &Arc<Playing>,
    ) {
        let speed = self.script.speed;
        let Sending { at, happened, sequence, kind, payload, faults } = sending;
        sleep_until(begun + speed.lasts(at)).await;
        let order =
            Order { sequence, faults, _place: place(&self.waiting).await, _call: Arc::clone(call) };
        let timestamp = timestamp(clock, speed.lasts(happened));
        let event = Event::new(EventId::make(), id, kind, &timestamp, &payload);
        self.sender.expect(event.id.clone(), order);
        self.tally.sends();
        let taken = self.queue.accept(vec![event]);
        taken.map(drop).expect("the queue has room for all who have a place, until it is drained");
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let place = Arc::clone(places).acquire_owned().await;
    place.expect("the semaphore is never closed")
}

fn timestamp(begun: DateTime<Utc>, after: Duration) -> String {
    let after = TimeDelta::from_std(after).unwrap_or(TimeDelta::MAX);
    let at = begun.checked_add_signed(after).unwrap_or(begun);
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
