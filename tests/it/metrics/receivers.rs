//! Several receivers: each has every metric that tells them apart, from the start, and counts for itself alone.

use std::collections::{BTreeMap, BTreeSet};

use super::exposition::{Exposition, Family, Sample};
use super::{Watched, event};
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::{IGNORING_SIGXFSZ, Service};

const NAMES: [&str; 3] = ["crm", "main", "n8n"];

/// What is counted for each receiver.
const OF_EACH: [&str; 15] = [
    "callhook_attempt_duration_seconds",
    "callhook_attempt_failures",
    "callhook_attempts_in_flight",
    "callhook_dead_letters",
    "callhook_dead_letters_dropped",
    "callhook_events_dead",
    "callhook_events_delivered",
    "callhook_events_missed",
    "callhook_events_recovered",
    "callhook_events_replayed",
    "callhook_events_retried",
    "callhook_queue_events",
    "callhook_queue_oldest_seconds",
    "callhook_receiver_paused",
    "callhook_receiver_up",
];

/// The label `receiver` of one, and a further one with its value.
fn at(receiver: &str, metric: &str, further: &str) -> String {
    format!(r#"callhook_{metric}{{receiver="{receiver}"{further}}}"#)
}

/// The values of one receiver, by name and labels but that of the receiver.
fn of_one(family: &Family, receiver: &str) -> BTreeMap<(String, Vec<String>), f64> {
    let its = |sample: &&Sample| sample.labels.get("receiver").unwrap() == receiver;
    let others = |sample: &Sample| {
        let others = sample.labels.iter().filter(|(label, _)| *label != "receiver");
        others.map(|(label, value)| format!("{label}={value}")).collect()
    };
    let samples = family.samples.iter().filter(its);
    samples.map(|sample| ((sample.name.clone(), others(sample)), sample.value)).collect()
}

fn check_each_has_all(metrics: &Exposition) {
    let labelled =
        metrics.families.iter().filter(|(_, family)| !family.values("receiver").is_empty());
    let labelled: BTreeMap<&str, &Family> = labelled.map(|(name, of)| (&**name, of)).collect();
    assert_eq!(labelled.keys().copied().collect::<BTreeSet<_>>(), OF_EACH.into());
    for (name, family) in labelled {
        assert_eq!(family.values("receiver").into_iter().collect::<BTreeSet<_>>(), NAMES.into());
        let main = of_one(family, "main");
        let expected = if name == "callhook_receiver_up" { 1.0 } else { 0.0 };
        assert!(main.values().all(|value| *value == expected), "{name}: {main:?}");
        for copy in ["crm", "n8n"] {
            assert_eq!(of_one(family, copy), main, "{name} at {copy}");
        }
    }
}

#[tokio::test]
async fn each_receiver_has_every_metric_from_the_start_and_families_stay_whole() {
    let receiver = Receiver::content().await;
    let vars =
        ["WEBHOOK_URL", "RECEIVER_N8N_URL", "RECEIVER_CRM_URL"].map(|name| (name, &*receiver.url));
    let watched = Watched::start(&vars).await;
    // Reading it checks the text itself.
    check_each_has_all(&watched.metrics().await);
}

#[tokio::test]
async fn an_event_is_accepted_once_and_counted_where_it_goes() {
    let main = Receiver::content().await;
    let crm = Receiver::start(|_| Reply::status(422)).await;
    let n8n = Receiver::start(|_| Reply::status(429).header("retry-after", "900")).await;
    let vars = [
        ("WEBHOOK_URL", &*main.url),
        ("RECEIVER_CRM_URL", &crm.url),
        ("RECEIVER_N8N_URL", &n8n.url),
        ("RECEIVER_N8N_EVENTS", "call_ended"),
    ];
    let watched = Watched::start(&vars).await;
    for kind in ["call_started", "call_ended"] {
        watched.service.relay(event(kind)).await;
    }
    let paused = at("n8n", "receiver_paused", "");
    let metrics = watched
        .until("all is settled that can be", |metrics| {
            metrics.of(&paused) == 1.0
                && metrics.sum("callhook_events_delivered_total") == 2.0
                && metrics.sum("callhook_dead_letters") == 2.0
        })
        .await;
    let ended = r#",type="call_ended""#;
    for (sample, expected) in [
        (r#"callhook_events_accepted_total{type="call_ended"}"#.to_owned(), 1.0),
        (at("main", "events_delivered_total", ended), 1.0),
        (at("crm", "events_delivered_total", ended), 0.0),
        (at("crm", "events_dead_total", ended), 1.0),
        (at("main", "events_dead_total", ended), 0.0),
        (at("crm", "dead_letters", ""), 2.0),
        (at("main", "dead_letters", ""), 0.0),
        (at("crm", "attempt_failures_total", r#",code="ERR_BAD_REQUEST""#), 2.0),
        (at("main", "attempt_failures_total", r#",code="ERR_BAD_REQUEST""#), 0.0),
        (at("main", "attempt_duration_seconds_count", r#",outcome="delivered""#), 2.0),
        (at("n8n", "queue_events", ""), 1.0),
        (at("main", "queue_events", ""), 0.0),
        (at("main", "receiver_paused", ""), 0.0),
        (at("n8n", "receiver_up", ""), 1.0),
    ] {
        assert_eq!(metrics.of(&sample), expected, "{sample}");
    }
    assert_eq!(metrics.sum("callhook_events_accepted_total"), 2.0);
    assert!(metrics.of(&at("n8n", "queue_oldest_seconds", "")) > 0.0);
}

#[tokio::test]
async fn what_a_full_copy_does_not_get_while_the_disk_fails_is_counted_as_missed() {
    let main = Receiver::content().await;
    let (crm, _gate) = Receiver::held().await;
    let vars = [
        ("WEBHOOK_URL", &*main.url),
        ("RECEIVER_CRM_URL", &crm.url),
        ("JOURNAL_PATH", "journal.redb"),
        ("QUEUE_LIMIT", "1"),
    ];
    let watched = Watched { service: Service::start_under(&IGNORING_SIGXFSZ, &vars).await };
    watched.service.relay(event("dtmf_digit")).await;
    crm.seen(1).await;
    watched.until_is(&at("main", "queue_events", ""), 0.0).await;
    watched.service.limit_files(Some(0));
    // Whatever it is answered, it tells that the disk fails.
    watched.service.post("/events", event("dtmf_digit")).await;
    watched.until_is("callhook_journal_failing", 1.0).await;
    watched.until_is(&at("main", "queue_events", ""), 0.0).await;
    watched.service.relay(event("dtmf_digit")).await;
    let metrics = watched.until_is(&at("crm", "events_missed_total", ""), 1.0).await;
    assert_eq!(metrics.of(&at("main", "events_missed_total", "")), 0.0);
}
