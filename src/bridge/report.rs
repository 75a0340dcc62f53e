//! Report: the way of one call's events to the queue, so that the call never waits for the disk; and of its waits to the
//! history.
//!
//! Invariant: events reach the queue in the order in which they were reported.
//!
//! Limit: [`MOST_REPORTED`] events that the queue has not taken yet.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{debug, error};

use super::metrics::BridgeMetrics;
use super::response::Waited;
use crate::event::{CallId, Event, EventType, Payload};
use crate::history::History;
use crate::queue::Queue;
use crate::queue::metrics::RefusalReason;

/// The most events of a call that wait for the journal; a disk that hangs must not fill the memory.
const MOST_REPORTED: usize = 1000;

/// Takes the events of one call.
#[derive(Clone)]
pub struct Reporter {
    pub call: CallId,
    /// Boxed, since a channel makes room for 32 at a time.
    events: mpsc::Sender<Box<Event>>,
    metrics: Arc<BridgeMetrics>,
    history: History,
}

impl Reporter {
    /// A reporter, and what it reports, for [`record`].
    pub fn new(
        call: CallId,
        metrics: Arc<BridgeMetrics>,
        history: History,
    ) -> (Self, mpsc::Receiver<Box<Event>>) {
        let (events, reported) = mpsc::channel(MOST_REPORTED);
        (Self { call, events, metrics, history }, reported)
    }

    /// Something happened in the call, now.
    pub fn report(&self, kind: EventType, payload: &Payload) {
        debug!(uuid = %self.call, r#type = kind.name(), "event of a call");
        self.send(Event::now(self.call, kind, payload));
    }

    /// The caller waited for the agent, who is heard now.
    pub fn waited(&self, waited: Waited) {
        match waited {
            Waited::First(time) => self.history.first_heard(self.call, time),
            Waited::Answer(time) => self.history.responded(self.call, time),
        }
    }

    pub fn send(&self, event: Event) {
        let kind = event.kind.clone();
        if self.events.try_send(Box::new(event)).is_err() {
            self.metrics.refused.count(RefusalReason::Backlog);
            error!(uuid = %self.call, r#type = kind.name(), "an event is lost: the disk takes none");
        }
    }
}

/// Hands the events of a call to the queue, for as long as its disk takes.
pub async fn record(queue: Queue, mut reported: mpsc::Receiver<Box<Event>>) {
    while let Some(event) = reported.recv().await {
        queue.record(*event).await;
    }
}
