//! How an STS server goes: what the caller still hears, and why the call is said to have ended.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{DETAILS, SLACK, ended_once};
use crate::support::asterisk::{AUDIO, HANGUP};
use crate::support::service::level;
use crate::support::stage::{Call, Stage};
use crate::support::sts::frame;

/// A call whose agent speaks for so many frames.
async fn spoken_to(stage: &Stage, frames: usize) -> Call {
    let call = stage.call().await;
    call.session.audio(&vec![1; frames * 320]).await;
    call.ear.at_least(1).await;
    call
}

/// Waits for the end, with this reason, which is a warning or not; returns the line of the log.
async fn line_of_end(stage: &Stage, call: &Call, reason: &str) -> Value {
    call.ear.hung_up().await;
    let line = stage.end_line(&call.uuid).await;
    assert_eq!(line["reason"], reason, "{line}");
    let bad = matches!(reason, "sts_failed" | "sts_lost");
    assert_eq!(level(&line), if bad { "warn" } else { "info" }, "{line}");
    assert!(line["duration_ms"].is_u64(), "{line}");
    line
}

#[tokio::test]
async fn a_goodbye_is_played_to_its_end_before_the_call_ends() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let call = spoken_to(&stage, 150).await;
    call.session.close().await;
    call.ear.hung_up().await;
    let played = call.ear.frames().iter().filter(|frame| frame.kind == AUDIO).count();
    assert_eq!(played, 150, "all of 3 s");
    call.session.gone().await;
    ended_once(&mut stage, &call.uuid, "sts_closed").await;
    let events = stage.events(&call.uuid);
    let duration = events[1].body["payload"]["duration_ms"].as_u64().expect("a number");
    assert!(duration > 2900, "the goodbye is part of the call: {duration} ms");
}

#[tokio::test]
async fn a_caller_may_hang_up_and_press_keys_while_the_goodbye_is_played() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let mut call = spoken_to(&stage, 500).await;
    call.session.close().await;
    call.session.gone().await;
    call.asterisk.digit('7').await;
    stage.event(&call.uuid, "dtmf_digit").await;
    let hung_up = Instant::now();
    call.asterisk.hang_up().await;
    stage.event(&call.uuid, "call_ended").await;
    assert!(hung_up.elapsed() < SLACK, "{:?}", hung_up.elapsed());
    ended_once(&mut stage, &call.uuid, "sts_closed").await;
}

#[tokio::test]
async fn a_stop_cuts_the_goodbye_and_leaves_the_reason() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let call = spoken_to(&stage, 500).await;
    call.session.close().await;
    call.session.gone().await;
    let signalled = Instant::now();
    stage.close().await;
    assert!(signalled.elapsed() < Duration::from_secs(8), "{:?}", signalled.elapsed());
    assert_eq!(stage.events(&call.uuid)[1].body["payload"]["reason"], "sts_closed");
    assert_eq!(call.ear.frames().last().map(|frame| frame.kind), Some(HANGUP));
}

#[tokio::test]
async fn a_server_that_closes_before_it_says_anything_has_failed() {
    let stage = Stage::set(&[]).await;
    let closes = [(Some(1000), ""), (None, ""), (Some(1011), "provider quota exceeded")];
    for (with_error, (code, reason)) in [false, true]
        .into_iter()
        .zip([closes; 2])
        .flat_map(|(with_error, closes)| closes.map(|close| (with_error, close)))
    {
        let call = stage.call().await;
        if with_error {
            call.session.say(json!({ "type": "error", "message": "no key" })).await;
        }
        call.session.close_with(code, reason).await;
        let line = line_of_end(&stage, &call, "sts_failed").await;
        assert_eq!(line["sts_code"].as_u64(), code.map(u64::from), "{line}");
        assert_eq!(line["sts_reason"].as_str().unwrap_or_default(), reason, "{line}");
    }
    for broken in [true, false] {
        let call = stage.call().await;
        match broken {
            true => drop(call.session.raw(frame(3, b"?")).await),
            false => call.session.vanish().await,
        }
        let line = line_of_end(&stage, &call, "sts_failed").await;
        assert!(line["sts_reason"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn a_server_that_closes_after_it_spoke_ended_the_call_or_was_lost() {
    let stage = Stage::set(&[]).await;
    for (code, text, reason) in [
        (Some(1000), "", "sts_closed"),
        (Some(1001), "going away", "sts_closed"),
        (None, "", "sts_closed"),
        (Some(1011), "provider quota exceeded", "sts_lost"),
        (Some(1006 + 2), "policy", "sts_lost"),
        (Some(4000), "", "sts_lost"),
    ] {
        let call = spoken_to(&stage, 5).await;
        call.session.close_with(code, text).await;
        let line = line_of_end(&stage, &call, reason).await;
        assert_eq!(line["sts_code"].as_u64(), code.map(u64::from), "{line}");
        assert_eq!(line["sts_reason"].as_str().unwrap_or_default(), text, "{line}");
    }
    let call = stage.call().await;
    call.session.transcript("agent", "goodbye").await;
    call.session.close().await;
    line_of_end(&stage, &call, "sts_closed").await;
}

#[tokio::test]
async fn a_server_whose_connection_breaks_after_it_spoke_was_lost() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let calls =
        [spoken_to(&stage, 5).await, spoken_to(&stage, 5).await, spoken_to(&stage, 5).await];
    calls[0].session.vanish().await;
    calls[1].session.reset().await;
    calls[2].session.raw(frame(1, &[b' '; 5000])[..3000].to_vec()).await;
    calls[2].session.vanish().await;
    for call in &calls {
        let line = line_of_end(&stage, call, "sts_lost").await;
        assert!(line["sts_reason"].is_string(), "{line}");
    }
    let broken = spoken_to(&stage, 5).await;
    broken.session.raw(frame(3, b"?")).await;
    line_of_end(&stage, &broken, "sts_lost").await;
    ended_once(&mut stage, &broken.uuid, "sts_lost").await;
}

#[tokio::test]
async fn a_server_that_closes_right_after_an_error_was_lost_and_later_it_was_not() {
    let stage = Stage::set(&[]).await;
    let error = json!({ "type": "error", "message": "the provider went away" });
    let mut calls = [spoken_to(&stage, 5).await, spoken_to(&stage, 5).await];
    for call in &calls {
        call.session.say(error.clone()).await;
    }
    calls[0].session.close().await;
    line_of_end(&stage, &calls[0], "sts_lost").await;
    // Three seconds of a call that goes on.
    calls[1].asterisk.silence(150).await;
    calls[1].session.close().await;
    line_of_end(&stage, &calls[1], "sts_closed").await;
}
