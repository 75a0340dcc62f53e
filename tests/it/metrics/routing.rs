//! What callers are answered, and how long they wait for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Watched, at_main, call, event};
use crate::support::receiver::{Receiver, Reply, closed_gate, nobody};

const STS: (&str, &str) = ("STS_URL", "ws://fallback.test");

fn answers(outcome: &str) -> String {
    format!(r#"callhook_routing_answers_total{{outcome="{outcome}"}}"#)
}

async fn routed(watched: &Watched) -> Value {
    let answer = watched.service.post("/call", call()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The outcome of one call with this receiver.
async fn outcome_of(reply: Reply, vars: &[(&str, &str)], outcome: &str) -> Watched {
    let receiver = Receiver::start(move |_| reply.clone()).await;
    let vars = [&[("WEBHOOK_URL", receiver.url.as_str()), STS], vars].concat();
    let watched = Watched::start(&vars).await;
    assert_eq!(routed(&watched).await["override"], outcome == "decided");
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of(&answers(outcome)), 1.0, "{outcome}: {}", metrics.nonzero());
    assert_eq!(metrics.sum("callhook_routing_answers_total"), 1.0);
    assert_eq!(metrics.of("callhook_routing_decision_seconds_count"), 1.0);
    watched
}

#[tokio::test]
async fn what_the_receiver_answers_is_the_outcome() {
    let allowed = [("STS_ALLOWED_HOSTS", "fallback.test")];
    outcome_of(Reply::route("ws://vip.test"), &[], "decided").await;
    outcome_of(Reply::ok(), &[], "none").await;
    outcome_of(Reply::route("http://vip.test"), &[], "invalid").await;
    outcome_of(Reply::route("ws://vip.test"), &allowed, "invalid").await;
    outcome_of(Reply::status(500), &[], "failed").await;
    outcome_of(Reply::ok(), &[("WEBHOOK_EVENTS", "call_ended")], "not_asked").await;
}

#[tokio::test]
async fn a_relay_that_asks_for_a_decision_is_counted_too() {
    let receiver = Receiver::start(|_| Reply::route("ws://vip.test")).await;
    let watched = Watched::start(&[("WEBHOOK_URL", &receiver.url)]).await;
    assert_eq!(watched.service.post("/events", event("call_initiated")).await.status, 200);
    assert_eq!(watched.metrics().await.of(&answers("decided")), 1.0);
}

#[tokio::test]
async fn a_decision_that_comes_too_late_is_counted_beside_the_time_out() {
    let gate = closed_gate();
    let opened = Arc::clone(&gate);
    let receiver = Receiver::start(move |_| Reply::route("ws://vip.test").when(&opened)).await;
    let vars = [("WEBHOOK_URL", &*receiver.url), ("ROUTING_TIMEOUT", "50"), STS];
    let watched = Watched::start(&vars).await;
    assert_eq!(routed(&watched).await["override"], false);
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of(&answers("timed_out")), 1.0);
    assert_eq!(metrics.of("callhook_routing_late_total"), 0.0);
    let waited = Duration::from_secs_f64(metrics.of("callhook_routing_decision_seconds_sum"));
    assert!(waited >= Duration::from_millis(50), "{waited:?}");
    gate.add_permits(1);
    watched.until_is("callhook_routing_late_total", 1.0).await;
}

#[tokio::test]
async fn a_receiver_that_is_known_to_be_away_is_the_outcome() {
    let (_, url) = nobody();
    let vars = [("WEBHOOK_URL", &*url), ("WEBHOOK_BREAKER", "1"), STS];
    let watched = Watched::start(&vars).await;
    watched.service.relay(event("dtmf_digit")).await;
    watched.until_is(&at_main("callhook_receiver_up"), 0.0).await;
    routed(&watched).await;
    assert_eq!(watched.metrics().await.of(&answers("receiver_down")), 1.0);
}

#[tokio::test]
async fn a_receiver_that_asked_for_a_pause_is_the_outcome() {
    let busy = Reply::status(429).header("retry-after", "900");
    let receiver = Receiver::start(move |_| busy.clone()).await;
    let vars = [("WEBHOOK_URL", &*receiver.url), STS];
    let watched = Watched::start(&vars).await;
    watched.service.relay(event("dtmf_digit")).await;
    watched.until_is(&at_main("callhook_receiver_paused"), 1.0).await;
    routed(&watched).await;
    assert_eq!(watched.metrics().await.of(&answers("receiver_paused")), 1.0);
}

#[tokio::test]
async fn a_copy_that_answers_questions_with_500_says_nothing_of_routing() {
    let (main, copy) = (Receiver::content().await, Receiver::start(|_| Reply::status(500)).await);
    let vars = [
        ("WEBHOOK_URL", &*main.url),
        ("RECEIVER_CRM_URL", &*copy.url),
        ("WEBHOOK_BREAKER", "2"),
        STS,
    ];
    let watched = Watched::start(&vars).await;
    for _ in 0..4 {
        routed(&watched).await;
    }
    copy.seen(4).await;
    let dead = r#"callhook_events_dead_total{receiver="crm",type="call_initiated"}"#;
    watched.until_is(dead, 4.0).await;
    assert_eq!(watched.metrics().await.of("callhook_routing_works"), 1.0);
}

#[tokio::test]
async fn routing_that_is_broken_is_told_until_it_works_again() {
    let receiver = Receiver::start(|seen| match seen.body["payload"]["from"].as_str() {
        Some("2000") => Reply::status(500),
        _ => Reply::ok(),
    })
    .await;
    let vars = [("WEBHOOK_URL", &*receiver.url), ("WEBHOOK_BREAKER", "2"), STS];
    let watched = Watched::start(&vars).await;
    assert_eq!(watched.metrics().await.of("callhook_routing_works"), 1.0);
    for _ in 0..3 {
        routed(&watched).await;
    }
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of("callhook_routing_works"), 0.0);
    assert_eq!(metrics.of(&at_main("callhook_receiver_up")), 1.0, "a 500 is an answer");
    assert_eq!(metrics.of(&answers("failed")), 2.0);
    assert_eq!(metrics.of(&answers("routing_broken")), 1.0);
    let good = call().replace("2000", "3000");
    assert_eq!(watched.service.post("/call", good).await.status, 200);
    watched.until_is("callhook_routing_works", 1.0).await;
}

#[tokio::test]
async fn a_queue_without_room_is_the_outcome_and_the_loss_is_counted() {
    let (receiver, _gate) = Receiver::held().await;
    let vars = [("WEBHOOK_URL", &*receiver.url), ("QUEUE_LIMIT", "1"), STS];
    let watched = Watched::start(&vars).await;
    watched.service.relay(event("dtmf_digit")).await;
    routed(&watched).await;
    let metrics = watched.metrics().await;
    assert_eq!(metrics.of(&answers("refused")), 1.0);
    assert_eq!(metrics.of(r#"callhook_events_refused_total{reason="full"}"#), 1.0);
}
