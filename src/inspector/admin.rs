//! What the admin port's routes share.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::Mutex;

use super::pulse::Pulse;
use crate::listener::ListenAddress;
use crate::metrics::Metrics;
use crate::queue::{Queue, QueueParts, QueueSettings};

/// The admin port.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen: ListenAddress,
    /// What it asks for.
    pub token: Option<SecretString>,
    /// Calls that the inspector remembers; 0 = none.
    pub calls: usize,
}

/// What the admin port's routes need.
pub struct Inspector {
    pub queue: Queue,
    /// What the queue works with.
    pub parts: QueueParts,
    /// How the queue behaves.
    pub settings: QueueSettings,
    pub metrics: Arc<Metrics>,
    /// `ADMIN_TOKEN`.
    pub token: Option<SecretString>,
    /// Held while dead letters are moved, so that two requests cannot replay one twice.
    pub moving: Mutex<()>,
    /// What changes, for those who watch.
    pub pulse: Pulse,
}
