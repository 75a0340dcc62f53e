//! Play: calls begin at their times, and their events are handed over to the queue at theirs.
//!
//! Owns the tasks, one a call. What a call comes to is [`scenario::plan()`]'s, the order and the
//! retries are the queue's.
//!
//! Limits: as many calls at one time as were asked for, and [`MOST_WAITING`] events that were
//! handed over and are not settled; more wait, so that memory does not grow with a slow receiver.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::{EventSending, spoil};
use super::options::SimulateOptions;
use super::sender::{FaultySender, Order, Playing};
use super::tally::Tally;
use crate::event::{CallId, Event, EventId};
use crate::queue::Queue;
use crate::time::timestamp;
use crate::workbench::dice::Dice;
use crate::workbench::scenario::{self, Scenario};

/// The most events that wait in the queue: a few seconds' work for a fast receiver.
pub const MOST_WAITING: usize = 10_000;

/// The dice of the faults throw in streams of their own, beside those of the calls.
const FAULTS: u64 = 1 << 63;

pub struct Players {
    options: SimulateOptions,
    /// At least one.
    scenarios: Vec<Scenario>,
    seed: u64,
    queue: Queue,
    sender: FaultySender,
    tally: Arc<Tally>,
    calls: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Players {
    pub fn new(
        options: SimulateOptions,
        scenarios: Vec<Scenario>,
        seed: u64,
        queue: Queue,
        sender: FaultySender,
        tally: Arc<Tally>,
    ) -> Self {
        let at_once = usize::try_from(options.concurrency).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            options,
            scenarios,
            seed,
            queue,
            sender,
            tally,
            calls: Arc::new(Semaphore::new(at_once)),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Plays all calls; ends when every event is settled.
    pub async fn play(self: &Arc<Self>) {
        let begun = Instant::now();
        for call in 0..self.options.calls {
            sleep_until(begun + self.options.rate.begins(call)).await;
            let place = place(&self.calls).await;
            let players = Arc::clone(self);
            self.tasks.spawn(async move {
                let played = players.call(u64::from(call) + 1, place);
                // A call that is stopped in the middle is left as it is.
                players.stop.run_until_cancelled(played).await;
            });
        }
        let all = self.calls.acquire_many(self.options.concurrency).await;
        drop(all.expect("the semaphore is never closed"));
    }

    /// Hands nothing more over.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn call(&self, number: u64, place: OwnedSemaphorePermit) {
        let plan = scenario::plan(&self.scenarios, self.seed, number);
        let mut dice = Dice::new(self.seed, FAULTS | number);
        let sendings = spoil(plan.events.clone(), &self.options.shares, &mut dice);
        self.tally.begins(&plan, sendings.len());
        let call = Arc::new(Playing { tally: Arc::clone(&self.tally), _place: place });
        let begun = (Instant::now(), Utc::now());
        for sending in sendings {
            self.send(plan.call, begun, sending, &call).await;
        }
        sleep_until(begun.0 + self.options.speed.lasts(plan.length)).await;
    }

    async fn send(
        &self,
        id: CallId,
        (begun, clock): (Instant, DateTime<Utc>),
        sending: EventSending,
        call: &Arc<Playing>,
    ) {
        let speed = self.options.speed;
        let EventSending { at, happened, sequence, kind, payload, faults } = sending;
        sleep_until(begun + speed.lasts(at)).await;
        let order =
            Order { sequence, faults, _place: place(&self.waiting).await, _call: Arc::clone(call) };
        let timestamp = timestamp_after(clock, speed.lasts(happened));
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

fn timestamp_after(begun: DateTime<Utc>, after: Duration) -> String {
    let after = TimeDelta::from_std(after).unwrap_or(TimeDelta::MAX);
    timestamp(begun.checked_add_signed(after).unwrap_or(begun))
}
