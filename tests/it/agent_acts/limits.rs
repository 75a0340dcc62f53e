//! Calls that are not taken, by `CALL_LIMIT` and `AUDIOSOCKET_UNANNOUNCED`, and those that last too long.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{DETAILS, SLACK, ended_once, frames, heard, known_end, next_of};
use crate::support::event::new_uuid;
use crate::support::service::level;
use crate::support::stage::Stage;
use crate::support::tools::{Tools, complaint};

/// Dials, and expects to be refused for this reason, without events.
async fn refused(stage: &Stage, uuid: &str, reason: &str) {
    let asterisk = stage.dial(uuid).await;
    asterisk.ear().hung_up().await;
    assert_eq!(
        known_end(stage, uuid).await,
        json!({ "state": "ended", "reason": reason, "duration_ms": 0 })
    );
    assert_eq!(next_of(stage, uuid).await, (200, String::new()));
}

/// The value of a counter.
async fn counted(stage: &Stage, reason: &str) -> f64 {
    let metrics = stage.service.ask_admin("GET", "/metrics", &[]).await.body;
    let name = format!(r#"callhook_calls_refused_total{{reason="{reason}"}} "#);
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {metrics}"))
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_before_they_begin() {
    let stage = Stage::set(&[DETAILS, ("CALL_LIMIT", "1")]).await;
    let call = stage.call().await;
    let late = new_uuid();
    for _ in 0..3 {
        refused(&stage, &late, "limit").await;
    }
    assert_eq!(counted(&stage, "limit").await, 3.0);
    let told = |line: &Value| line["message"] == "a call is refused";
    let line = stage.service.log_line(told).await;
    assert!(level(&line) == "warn" && line["error"].to_string().contains("CALL_LIMIT"), "{line}");
    // The one that is live does not notice, and its end makes room.
    call.session.audio(&frames(1, 5)).await;
    call.ear.at_least(5).await;
    call.asterisk.hang_up().await;
    known_end(&stage, &call.uuid).await;
    let next = stage.call_of(&late).await;
    assert_eq!(stage.service.get(&format!("/call/{late}")).await.json()["state"], "live");
    next.asterisk.hang_up().await;
    ended_once(&stage, &late, "hangup").await;
    assert_eq!(stage.kinds(&late), ["call_started", "call_ended"], "a refusal has no events");
}

#[tokio::test]
async fn only_announced_calls_are_taken_where_others_are_refused() {
    let stage = Stage::set(&[DETAILS, ("AUDIOSOCKET_UNANNOUNCED", "refuse")]).await;
    let stranger = new_uuid();
    refused(&stage, &stranger, "not_announced").await;
    let uuid = new_uuid();
    stage.announce(&uuid, json!({})).await;
    let call = stage.call_of(&uuid).await;
    // One that is live is refused twice, and goes on.
    let twice = stage.dial(&uuid).await;
    twice.ear().hung_up().await;
    assert_eq!(stage.service.get(&format!("/call/{uuid}")).await.json()["state"], "live");
    call.asterisk.hang_up().await;
    ended_once(&stage, &uuid, "hangup").await;
    assert_eq!(stage.kinds(&stranger), [""; 0]);
    assert_eq!(
        (counted(&stage, "not_announced").await, counted(&stage, "already_live").await),
        (1.0, 1.0)
    );
}

#[tokio::test]
async fn the_longest_call_has_five_seconds_to_play_what_is_queued() {
    let stage = Stage::set(&[DETAILS, ("CALL_MAX_DURATION", "2000")]).await;
    let begun = Instant::now();
    let (silent, talkative) = (stage.call().await, stage.call().await);
    talkative.session.audio(&frames(1, 1000)).await;
    let after = silent.ear.hung_up().await - begun;
    assert!(
        (Duration::from_millis(1900)..Duration::from_secs(2) + SLACK).contains(&after),
        "{after:?}"
    );
    ended_once(&stage, &silent.uuid, "max_duration").await;
    // What it says now is not heard, and nothing that is asked would have an effect.
    talkative.session.audio(&frames(2, 1)).await;
    talkative.session.interruption().await;
    stage.event(&talkative.uuid, "interruption").await;
    talkative.ear.hung_up().await;
    assert_eq!(heard(&talkative.ear, 2), 0);
    ended_once(&stage, &talkative.uuid, "max_duration").await;
    let stage = Stage::set(&[DETAILS, ("CALL_MAX_DURATION", "1000")]).await;
    let begun = Instant::now();
    let mut call = stage.call().await;
    call.session.audio(&frames(1, 1000)).await;
    // A second and a half of a call that goes on.
    call.asterisk.silence(75).await;
    complaint(&Tools::of(&stage.service).hang_up(&call.uuid).await, 404);
    let after = call.ear.hung_up().await - begun;
    assert!(
        (Duration::from_millis(5900)..Duration::from_secs(6) + SLACK).contains(&after),
        "{after:?}"
    );
    ended_once(&stage, &call.uuid, "max_duration").await;
}
