//! Metrics, as Prometheus sees them: each counts what it says, README explains all there are, and alerts
//! and dashboard use no other. `metrics/exposition.rs` reads the text, `metrics/events.rs`,
//! `metrics/receivers.rs`, `metrics/routing.rs` and `metrics/calls.rs` see what is counted,
//! `metrics/documents.rs` compares the files.

mod calls;
mod documents;
mod events;
mod exposition;
mod receivers;
mod routing;

use self::exposition::Exposition;
use crate::support::asterisk::Asterisk;
use crate::support::record::LIMIT;
use crate::support::service::{Answer, Service};
use tokio::time::timeout;
use uuid::Uuid;

/// A service whose metrics are read.
struct Watched {
    service: Service,
}

impl Watched {
    async fn start(vars: &[(&str, &str)]) -> Watched {
        Watched { service: Service::start(vars).await }
    }

    /// An Asterisk that begins a call.
    async fn dial(&self) -> Asterisk {
        Asterisk::dial(self.service.audiosocket().await).await
    }

    async fn ask(&self, headers: &[(&str, &str)]) -> Answer {
        self.service.ask_admin("GET", "/metrics", headers).await
    }

    /// What is exposed now.
    async fn metrics(&self) -> Exposition {
        let answer = self.ask(&[]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Exposition::read(&answer.body)
    }

    /// Asks until what is exposed is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Exposition) -> bool) -> Exposition {
        let mut last = None;
        let search = async {
            loop {
                let metrics = last.insert(self.metrics().await);
                if wanted(metrics) {
                    return;
                }
            }
        };
        let found = timeout(LIMIT, search).await;
        let metrics = last.expect("one answer at least");
        assert!(found.is_ok(), "not within {LIMIT:?}: {what}; at last:\n{}", metrics.nonzero());
        metrics
    }

    /// Waits until this sample has this value.
    async fn until_is(&self, sample: &str, value: f64) -> Exposition {
        let what = format!("{sample} is {value}");
        self.until(&what, |metrics| (metrics.of(sample) - value).abs() < 1e-9).await
    }
}

fn event(kind: &str) -> String {
    format!(r#"{{"uuid":"{}","type":"{kind}","payload":{{}}}}"#, Uuid::new_v4())
}

/// A metric's sample of the main receiver, where that is its only label.
fn at_main(metric: &str) -> String {
    format!(r#"{metric}{{receiver="main"}}"#)
}

fn call() -> String {
    format!(r#"{{"uuid":"{}","payload":{{"from":"2000"}}}}"#, Uuid::new_v4())
}

#[tokio::test]
async fn the_text_is_open_metrics_and_everything_is_there_from_the_start() {
    let watched = Watched::start(&[("WEBHOOK_URL", "none")]).await;
    let answer = watched.ask(&[]).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let metrics = Exposition::read(&answer.body);
    for (name, family) in &metrics.families {
        assert!(name.starts_with("callhook_") || name.starts_with("process_"), "{name}");
        assert!(!family.samples.is_empty(), "{name} has a value from the start");
        assert!(!family.help.is_empty(), "{name} has a help text");
    }
    let version = format!(r#"callhook_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert!((metrics.of(&version) - 1.0).abs() < 1e-9);
    assert!(metrics.of("process_resident_memory_bytes") > 1e6);
    let now = chrono::Utc::now().timestamp_millis() as f64 / 1000.0;
    let age = now - metrics.of("process_start_time_seconds");
    assert!((0.0..60.0).contains(&age), "started {age} s ago");
    assert_eq!(metrics.of(&at_main("callhook_receiver_up")), 1.0, "none is not down");
}

#[tokio::test]
async fn metrics_are_for_those_who_have_the_token() {
    let vars = [("WEBHOOK_URL", "none"), ("ADMIN_TOKEN", "open-sesame")];
    let watched = Watched::start(&vars).await;
    for headers in [&[][..], &[("Authorization", "Bearer other")]] {
        let answer = watched.ask(headers).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.body.contains("callhook_"), "{answer:?}");
    }
    let answer = watched.ask(&[("Authorization", "Bearer open-sesame")]).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("open-sesame"));
}

#[tokio::test]
async fn requests_are_counted_by_route_and_class_and_made_up_paths_are_one() {
    let watched = Watched::start(&[("WEBHOOK_URL", "none"), ("STS_URL", "ws://sts.test")]).await;
    let service = &watched.service;
    assert_eq!(service.get("/health").await.status, 200);
    assert_eq!(service.get("/ready").await.status, 200);
    assert_eq!(service.post("/call", call()).await.status, 200);
    assert_eq!(service.post("/call", "{").await.status, 400);
    service.relay(event("dtmf_digit")).await;
    for path in ["/a", "/b?c=d", "/events/"] {
        assert_eq!(service.get(path).await.status, 404);
    }
    let metrics = watched.metrics().await;
    for (route, status, expected) in [
        ("/health", "2xx", 1.0),
        ("/ready", "2xx", 1.0),
        ("/call", "2xx", 1.0),
        ("/call", "4xx", 1.0),
        ("/events", "2xx", 1.0),
        ("/events", "5xx", 0.0),
        ("other", "4xx", 3.0),
    ] {
        let sample =
            format!(r#"callhook_http_requests_total{{route="{route}",status="{status}"}}"#);
        assert_eq!(metrics.of(&sample), expected, "{sample}");
    }
}
