//! What the journal counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::label::ByReceiver;
use crate::receiver::{ReceiverId, Receivers};

/// An fsync takes well under 10 ms on a good disk, and seconds on a failing one.
const COMMIT_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// From a single event to a whole queue that waited for its disk.
const BATCH_CHANGES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 10_000.0];

/// The help texts below say what each one is.
#[derive(Clone, Debug)]
pub struct JournalMetrics {
    pub commit_seconds: Histogram,
    pub batch_changes: Histogram,
    pub failures: Counter,
    /// Set when metrics are exposed.
    pub failing: Gauge,
    pub dead_limit: Gauge,
    /// By [`ReceiverId`].
    letters: Vec<LetterMetrics>,
}

/// One receiver's dead letters.
#[derive(Clone, Debug, Default)]
pub struct LetterMetrics {
    pub dead: Gauge,
    pub dropped: Counter,
}

impl JournalMetrics {
    /// For that many receivers.
    pub fn of_receivers(count: usize) -> Self {
        Self {
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            batch_changes: Histogram::new(BATCH_CHANGES),
            failures: Counter::default(),
            failing: Gauge::default(),
            dead_limit: Gauge::default(),
            letters: (0..count).map(|_| LetterMetrics::default()).collect(),
        }
    }

    pub fn of(&self, receiver: ReceiverId) -> &LetterMetrics {
        &self.letters[receiver.index()]
    }

    /// With the names of its receivers.
    pub fn register(&self, receivers: &Receivers, to: &mut Registry) {
        let help = "Time of one transaction, with its fsync";
        to.register_with_unit("journal_commit", help, Unit::Seconds, self.commit_seconds.clone());
        let help = "Changes written in one transaction";
        to.register("journal_batch_changes", help, self.batch_changes.clone());
        let help = "Transactions that the disk refused";
        to.register("journal_failures", help, self.failures.clone());
        let help = "1 while the journal cannot be written and new events are refused";
        to.register("journal_failing", help, self.failing.clone());
        let letters = || receivers.iter().zip(&self.letters).map(|((_, name), of)| (name, of));
        let dead = ByReceiver::new(letters().map(|(name, of)| (name.to_string(), of.dead.clone())));
        to.register("dead_letters", "Dead letters kept", dead);
        let help = "DEAD_LIMIT, for each receiver";
        to.register("dead_letters_limit", help, self.dead_limit.clone());
        let help = "Dead letters dropped because there were more than DEAD_LIMIT";
        let dropped = letters().map(|(name, of)| (name.to_string(), of.dropped.clone()));
        to.register("dead_letters_dropped", help, ByReceiver::new(dropped));
    }
}
