//! What the admin port's routes share.

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::pulse::Pulse;
use crate::calls::Calls;
use crate::http::{HttpError, Secrets};
use crate::listener::ListenAddress;
use crate::metrics::Metrics;
use crate::queue::{Queue, QueueParts, QueueSettings};

/// The most items of a page.
pub const MOST_ITEMS: usize = 1000;

/// `ADMIN_*` and `INSPECTOR_CALLS`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub listen: ListenAddress,
    /// `ADMIN_TOKEN`.
    pub tokens: Secrets,
    /// Calls that the inspector remembers; 0 = none.
    pub calls: usize,
}

pub struct Inspector {
    pub queue: Queue,
    pub parts: QueueParts,
    pub settings: QueueSettings,
    pub calls: Arc<Calls>,
    pub metrics: Arc<Metrics>,
    /// `ADMIN_TOKEN`.
    pub tokens: Secrets,
    /// Held while dead letters are moved, so that two requests cannot replay the same one.
    pub moving: Mutex<()>,
    pub pulse: Pulse,
}

/// The items of a page: 100, unless `limit` says otherwise.
///
/// # Errors
/// 400 for a limit out of range.
pub fn page_size(limit: Option<usize>) -> Result<usize, HttpError> {
    match limit.unwrap_or(100) {
        limit @ 1..=MOST_ITEMS => Ok(limit),
        limit => {
            Err(HttpError::bad_request(format!("limit: expected 1 to {MOST_ITEMS}, not {limit}")))
        }
    }
}

/// # Errors
/// 400 with the parameter's name, what is accepted, and its value.
pub fn read_parameter<T, E: Display>(
    name: &str,
    text: &str,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, HttpError> {
    read(text).map_err(|error| HttpError::bad_request(format!("{name}: {error}, not {text:?}")))
}
