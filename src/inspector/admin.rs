//! What the admin port's routes share.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::Mutex;

use super::pulse::Pulse;
use crate::listener::Listen;
use crate::metrics::Metrics;
use crate::queue::Queue;

/// The admin port.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen: Listen,
    /// What it asks for.
    pub token: Option<SecretString>,
    /// Calls that the inspector remembers; 0 = none.
    pub calls: usize,
}

/// What the admin port's routes need.
pub struct Inspector {
    /// What happens.
    pub queue: Queue,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is asked for.
    pub token: Option<SecretString>,
    /// Held while dead letters are moved, so that two requests cannot replay one twice.
    pub moving: Mutex<()>,
    /// What changes, for those who watch.
    pub pulse: Pulse,
}

impl Inspector {
    /// An inspector of this queue, which asks for the token if there is one.
    pub fn new(queue: Queue, metrics: Arc<Metrics>, settings: AdminSettings) -> Arc<Self> {
        let AdminSettings { token, .. } = settings;
        Arc::new(Self { queue, metrics, token, moving: Mutex::new(()), pulse: Pulse::default() })
    }
}
