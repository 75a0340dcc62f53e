//! Metrics: the registry behind `GET /metrics`.
//!
//! Each part defines its own metrics, with names, help texts and units; this file registers them. A test
//! compares them with the table in README.
//!
//! Invariants:
//! - Counting neither allocates nor waits. A histogram's lock is held for one observation.
//! - No label value comes from outside: an event type that callhook does not know is `other`.
//! - Exposing takes no lock of the queue or the journal.

pub mod process;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::bridge::metrics::BridgeMetrics;
use crate::http::metrics::HttpMetrics;
use crate::journal::{Journal, JournalMetrics};
use crate::log;
use crate::queue::metrics::QueueMetrics;
use crate::time::unix_millis;

/// OpenMetrics
/// (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
pub struct Metrics {
    pub queue: Arc<QueueMetrics>,
    pub journal: JournalMetrics,
    pub bridge: Arc<BridgeMetrics>,
    pub http: Arc<HttpMetrics>,
    log_lines_dropped: Counter,
    /// In bytes.
    resident: Gauge<u64, AtomicU64>,
    registry: Registry,
}

impl Metrics {
    /// The journal exists before the registry, and knows the receivers; so many of them are in the settings.
    pub fn new(journal: &Journal, configured: usize) -> Self {
        let (journal, receivers) = (journal.metrics().clone(), journal.receivers());
        let queue = Arc::new(QueueMetrics::of_receivers(configured));
        let refused = queue.events.refused.clone();
        let bridge = BridgeMetrics { refused, ..BridgeMetrics::default() };
        let http = HttpMetrics { routing: queue.routing.clone(), ..HttpMetrics::default() };
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("callhook");
        queue.register(receivers, own);
        journal.register(receivers, own);
        bridge.register(own);
        http.register(own);
        let log_lines_dropped = Counter::default();
        let help = "Lines of the log lost because nobody read them in time";
        own.register("log_lines_dropped", help, log_lines_dropped.clone());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The version of callhook that runs; always 1", version);
        let resident = Gauge::default();
        register_process(&mut registry, &resident);
        let (bridge, http) = (Arc::new(bridge), Arc::new(http));
        Self { queue, journal, bridge, http, log_lines_dropped, resident, registry }
    }

    /// As OpenMetrics text.
    ///
    /// # Errors
    /// None known: writing to a string does not fail.
    pub fn exposed(&self) -> Result<String, fmt::Error> {
        self.log_lines_dropped.inner().store(log::lines_dropped(), Ordering::Relaxed);
        self.resident.set(process::resident_bytes().unwrap_or_default());
        let mut text = String::with_capacity(32 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Under Prometheus's standard names for process metrics.
fn register_process(to: &mut Registry, resident: &Gauge<u64, AtomicU64>) {
    let start = Gauge::<f64, AtomicU64>::default();
    start.set(unix_millis() as f64 / 1000.0);
    let help = "When the process started, in seconds since 1970";
    to.register_with_unit("process_start_time", help, Unit::Seconds, start);
    let help = "Memory that the process holds";
    to.register_with_unit("process_resident_memory", help, Unit::Bytes, resident.clone());
}
