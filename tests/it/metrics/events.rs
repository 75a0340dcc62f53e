//! What becomes of events: counted by type, with the state of queue, receiver and journal.

use std::sync::Arc;

use callhook::event::{CallId, Event, EventType, Item, Origin, Payload, Spent};
use callhook::journal::{DeadFilter, DeadLetter, Journal};
use callhook::receiver::{ReceiverId, Receivers};

use super::{Watched, at_main, event};
use crate::support::receiver::{Receiver, Reply, nobody};
use crate::support::service::{IGNORING_SIGXFSZ, Service, run};

/// Settings with which a failing receiver is noticed by its events, not by its silence.
const QUICK: [(&str, &str); 3] =
    [("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "0"), ("WEBHOOK_BREAKER", "0")];

/// At the main receiver, where it is told apart by receiver.
fn of_type(metric: &str, kind: &str) -> String {
    let receiver = match metric {
        "accepted" | "dropped" => "",
        _ => r#"receiver="main","#,
    };
    format!(r#"callhook_events_{metric}_total{{{receiver}type="{kind}"}}"#)
}

/// Of the main receiver's attempts.
fn of_code(code: &str) -> String {
    format!(r#"callhook_attempt_failures_total{{receiver="main",code="{code}"}}"#)
}

#[tokio::test]
async fn each_type_is_counted_by_what_becomes_of_it_and_unknown_ones_are_other() {
    let receiver =
        Receiver::start(|seen| match (seen.kind(), seen.header("x-avr-webhook-attempt")) {
            ("call_started", Some("1")) | ("call_ended", _) => Reply::status(500),
            ("transcription", _) => Reply::status(422),
            _ => Reply::ok(),
        })
        .await;
    let types = "call_started,call_ended,transcription,tool,crm";
    let vars = [&QUICK[..], &[("WEBHOOK_URL", &receiver.url), ("WEBHOOK_EVENTS", types)]].concat();
    let watched = Watched::start(&vars).await;
    for kind in ["call_started", "call_ended", "transcription", "tool", "crm", "crm", "dtmf_digit"]
    {
        watched.service.relay(event(kind)).await;
    }
    let metrics = watched
        .until("all is settled", |metrics| {
            metrics.sum("callhook_events_delivered_total")
                + metrics.sum("callhook_events_dead_total")
                >= 6.0
        })
        .await;
    for (metric, kind, expected) in [
        ("accepted", "call_started", 1.0),
        ("accepted", "other", 3.0),
        ("accepted", "dtmf_digit", 0.0),
        ("dropped", "dtmf_digit", 1.0),
        ("delivered", "call_started", 1.0),
        ("delivered", "other", 3.0),
        ("retried", "call_started", 1.0),
        ("retried", "call_ended", 1.0),
        ("retried", "transcription", 0.0),
        ("dead", "call_ended", 1.0),
        ("dead", "transcription", 1.0),
    ] {
        let sample = of_type(metric, kind);
        assert_eq!(metrics.of(&sample), expected, "{sample}");
    }
    let attempts = |outcome| {
        format!(r#"callhook_attempt_duration_seconds_count{{receiver="main",outcome="{outcome}"}}"#)
    };
    assert_eq!(metrics.of(&attempts("delivered")), 4.0);
    assert_eq!(metrics.of(&attempts("failed")), 4.0);
    assert_eq!(metrics.of(&of_code("ERR_BAD_RESPONSE")), 3.0);
    assert_eq!(metrics.of(&of_code("ERR_BAD_REQUEST")), 1.0);
}

#[tokio::test]
async fn what_waits_is_told_with_the_age_of_the_oldest_until_it_is_settled() {
    let (receiver, gate) = Receiver::held().await;
    let vars =
        [("WEBHOOK_URL", &*receiver.url), ("QUEUE_LIMIT", "3"), ("WEBHOOK_CONCURRENCY", "2")];
    let watched = Watched::start(&vars).await;
    assert_eq!(watched.metrics().await.of(&at_main("callhook_queue_oldest_seconds")), 0.0);
    for _ in 0..3 {
        watched.service.relay(event("dtmf_digit")).await;
    }
    assert_eq!(watched.service.post("/events", event("dtmf_digit")).await.status, 503);
    let metrics = watched.until_is(&at_main("callhook_attempts_in_flight"), 2.0).await;
    assert_eq!(metrics.of("callhook_attempts_limit"), 2.0);
    assert_eq!(metrics.of(&at_main("callhook_queue_events")), 3.0);
    assert_eq!(metrics.of("callhook_queue_limit_events"), 3.0);
    assert_eq!(metrics.of(r#"callhook_events_refused_total{reason="full"}"#), 1.0);
    let first = metrics.of(&at_main("callhook_queue_oldest_seconds"));
    let second = watched.metrics().await.of(&at_main("callhook_queue_oldest_seconds"));
    assert!(0.0 < first && first < second, "{first} s, then {second} s");
    gate.add_permits(3);
    let metrics = watched.until_is(&at_main("callhook_queue_events"), 0.0).await;
    assert_eq!(metrics.of(&at_main("callhook_queue_oldest_seconds")), 0.0);
    assert_eq!(metrics.of(&at_main("callhook_attempts_in_flight")), 0.0);
}

#[tokio::test]
async fn a_receiver_is_up_then_down_then_up_again() {
    let (port, url) = nobody();

    let watched = Watched::start(&[("WEBHOOK_URL", &url), ("WEBHOOK_BREAKER", "1")]).await;
    assert_eq!(watched.metrics().await.of(&at_main("callhook_receiver_up")), 1.0);
    watched.service.relay(event("dtmf_digit")).await;
    let metrics = watched.until_is(&at_main("callhook_receiver_up"), 0.0).await;
    assert!(metrics.of(&of_code("ECONNREFUSED")) >= 1.0);
    watched.service.relay(event("dtmf_digit")).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    receiver.seen(1).await;
    watched.until_is(&at_main("callhook_receiver_up"), 1.0).await;
}

#[tokio::test]
async fn a_pause_that_the_receiver_asks_for_is_told() {
    let receiver = Receiver::start(|_| Reply::status(429).header("retry-after", "900")).await;
    let vars = [&QUICK[..], &[("WEBHOOK_URL", &receiver.url)]].concat();
    let watched = Watched::start(&vars).await;
    assert_eq!(watched.metrics().await.of(&at_main("callhook_receiver_paused")), 0.0);
    watched.service.relay(event("dtmf_digit")).await;
    let metrics = watched.until_is(&at_main("callhook_receiver_paused"), 1.0).await;
    assert_eq!(
        metrics.of(&at_main("callhook_receiver_up")),
        1.0,
        "whoever asks for a pause is there"
    );
}

#[tokio::test]
async fn what_outlives_the_process_is_told_again_after_a_restart() {
    let receiver = Receiver::start(|seen| match seen.kind() {
        "dtmf_digit" => Reply::status(422),
        _ => Reply::status(500),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal.redb");
    let journal = journal.to_str().unwrap();
    let vars = [
        ("WEBHOOK_URL", receiver.url.as_str()),
        ("JOURNAL_PATH", journal),
        ("WEBHOOK_RETRY", "9"),
        ("WEBHOOK_BACKOFF", "600000"),
        ("WEBHOOK_BACKOFF_MAX", "600000"),
    ];
    let mut watched = Watched::start(&vars).await;
    watched.service.relay(event("dtmf_digit")).await;
    watched.service.relay(event("call_ended")).await;
    let metrics = watched.until_is(&at_main("callhook_dead_letters"), 1.0).await;
    assert_eq!(metrics.of("callhook_dead_letters_limit"), 100_000.0);
    assert!(metrics.of("callhook_journal_commit_seconds_count") >= 1.0);
    assert!(metrics.of("callhook_journal_batch_changes_sum") >= 2.0);
    watched
        .until("the retry waits", |metrics| metrics.of(&of_type("retried", "call_ended")) >= 1.0)
        .await;
    let age = watched.metrics().await.of(&at_main("callhook_queue_oldest_seconds"));
    watched.service.terminate();
    assert_eq!(watched.service.wait().await, 0);
    let watched = Watched::start(&vars).await;
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of(&at_main("callhook_dead_letters")), 1.0);
    assert_eq!(metrics.of(&at_main("callhook_events_recovered_total")), 1.0);
    assert!(
        metrics.of(&at_main("callhook_queue_oldest_seconds")) > age,
        "older than before the restart"
    );
    replay(&watched).await;
    assert_eq!(watched.metrics().await.of(&at_main("callhook_events_replayed_total")), 1.0);
}

async fn replay(watched: &Watched) {
    let port = watched.service.admin().await.port().to_string();
    let (code, _, fault) = run(&["dead", "replay", "--all"], &[("ADMIN_PORT", &port)]).await;
    assert_eq!(code, 0, "{fault}");
}

#[tokio::test]
async fn an_id_that_is_given_twice_is_counted_as_a_repeat() {
    let receiver = Receiver::content().await;
    let watched = Watched::start(&[("WEBHOOK_URL", &receiver.url)]).await;
    let body = event("dtmf_digit");
    for _ in 0..3 {
        let answer = watched.service.post_with("/events", &[("webhook-id", "one")], &*body).await;
        assert_eq!(answer.status, 202);
    }
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of("callhook_events_repeated_total"), 2.0);
    assert_eq!(metrics.of(&of_type("accepted", "dtmf_digit")), 1.0);
}

#[tokio::test]
async fn a_disk_that_refuses_is_told_until_it_writes_again() {
    // What is on its way is not refused any more, so the receiver is down.
    let (_, url) = nobody();
    let vars = [("WEBHOOK_URL", &*url), ("WEBHOOK_BREAKER", "1"), ("JOURNAL_PATH", "journal.redb")];
    let watched = Watched { service: Service::start_under(&IGNORING_SIGXFSZ, &vars).await };
    watched.service.relay(event("dtmf_digit")).await;
    watched.until_is(&at_main("callhook_receiver_up"), 0.0).await;
    watched.service.limit_files(Some(0));
    let answer = watched.service.post("/events", event("dtmf_digit")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of("callhook_journal_failing"), 1.0);
    assert!(metrics.of("callhook_journal_failures_total") >= 1.0);
    assert!(metrics.of(r#"callhook_events_refused_total{reason="disk"}"#) >= 1.0);
    watched.service.limit_files(None);
    watched.until_is("callhook_journal_failing", 0.0).await;
}

#[tokio::test]
async fn dead_letters_beyond_the_limit_are_counted_as_dropped() {
    let journal = Journal::in_memory(&Receivers::main(), 2);
    let metrics = journal.metrics().clone();
    for place in 0..5 {
        journal.died(letter(place));
    }
    // Reading waits until all is written.
    assert_eq!(journal.dead_letters(&DeadFilter::default(), 0, 9).unwrap().0.len(), 2);
    let letters = metrics.of(ReceiverId::MAIN);
    assert_eq!((letters.dead.get(), metrics.dead_limit.get(), letters.dropped.get()), (2, 2, 3));
}

fn letter(place: u64) -> DeadLetter {
    let event = Event::now(CallId::random(), EventType::DtmfDigit, &Payload::empty());
    let spent = Spent { attempts: 1, first_failed_at: None };
    DeadLetter {
        item: Item { sequence: 1, spent, ..Item::new(Arc::new(event), place, Origin::Relayed) },
        status: Some(422),
        code: "ERR_BAD_REQUEST".to_owned(),
        error: String::new(),
        answer: None,
        last_at: 0,
    }
}
