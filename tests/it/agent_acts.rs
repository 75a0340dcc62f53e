//! The agent acts: it ends its call and is heard to the end of its goodbye, or sends the caller on. Here, what the caller
//! hears; `agent_acts/races.rs` has what else may happen meanwhile, `agent_acts/requests.rs` what is asked and answered,
//! `agent_acts/next.rs` what the dialplan is told, `agent_acts/people.rs` whom a receiver sends callers to, `agent_acts/limits.rs` the calls that are not taken, or too long.

mod limits;
mod next;
mod people;
mod races;
mod requests;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::asterisk::{AUDIO, Ear};
use crate::support::event::new_uuid;
use crate::support::stage::{Call, Stage};
use crate::support::tools::Tools;

const DETAILS: (&str, &str) = ("CALL_ENDED_DETAILS", "true");
const PEOPLE: (&str, &str) = ("TRANSFER_TO", "people/100,people/200,queues/*");

/// What anything may take on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// An announced call whose dialplan has asked where to send its caller.
async fn announced_call(stage: &Stage) -> Call {
    let uuid = new_uuid();
    stage.announce(&uuid, json!({ "from": "2000" })).await;
    assert_eq!(next_of(stage, &uuid).await, (200, String::new()));
    stage.call_of(&uuid).await
}

/// Status and body.
async fn next_of(stage: &Stage, uuid: &str) -> (u16, String) {
    let answer = stage.service.get(&format!("/call/{uuid}/next")).await;
    (answer.status, answer.body)
}

/// The frames of audio with this byte that were heard so far.
fn heard(ear: &Ear, byte: u8) -> usize {
    let spoken = |payload: &[u8]| payload.iter().all(|sample| *sample == byte);
    ear.frames().iter().filter(|frame| frame.kind == AUDIO && spoken(&frame.payload)).count()
}

fn frames(byte: u8, count: usize) -> Vec<u8> {
    vec![byte; count * 320]
}

/// Expects one end of the call, last and for this reason.
async fn ended_once(stage: &Stage, uuid: &str, reason: &str) {
    stage.ended_by(uuid, reason).await;
    let events = stage.events(uuid);
    let ends: Vec<&Value> = events
        .iter()
        .filter(|event| event.kind() == "call_ended")
        .map(|event| &event.body["payload"]["reason"])
        .collect();
    assert_eq!(ends, [reason], "{events:#?}");
    assert_eq!(events.last().map(|event| event.kind().to_owned()).as_deref(), Some("call_ended"));
}

/// Waits until the call is known to have ended; returns what is known.
async fn known_end(stage: &Stage, uuid: &str) -> Value {
    loop {
        let standing = stage.service.get(&format!("/call/{uuid}")).await.json();
        if standing["state"] == "ended" {
            return standing;
        }
    }
}

#[tokio::test]
async fn a_goodbye_that_comes_only_after_the_tools_answer_is_heard_whole() {
    let stage = Stage::set(&[DETAILS]).await;
    let call = stage.call().await;
    call.session.audio(&frames(1, 10)).await;
    call.ear.at_least(10).await;
    let tools = Tools::of(&stage.service);
    assert!(tools.hung_up(&call.uuid).await.contains("goodbye"));
    // A model takes its time, and speaks in pieces.
    call.session.audio(&frames(2, 50)).await;
    call.session.transcript("agent", "Goodbye,").await;
    call.ear.at_least(40).await;
    call.session.audio(&frames(2, 50)).await;
    let closed = call.ear.hung_up().await;
    assert_eq!((heard(&call.ear, 1), heard(&call.ear, 2)), (10, 100));
    let last = call.ear.frames().iter().rfind(|frame| frame.kind == AUDIO).expect("audio").at;
    let pause = closed - last;
    assert!((Duration::from_millis(1900)..SLACK).contains(&pause), "{pause:?}");
    call.session.gone().await;
    ended_once(&stage, &call.uuid, "agent_hangup").await;
}

#[tokio::test]
async fn what_was_queued_at_the_request_is_played_before_the_call_ends() {
    let stage = Stage::set(&[DETAILS]).await;
    let call = stage.call().await;
    call.session.audio(&frames(1, 150)).await;
    call.ear.at_least(1).await;
    let tools = Tools::of(&stage.service);
    tools.hung_up(&call.uuid).await;
    let asked = Instant::now();
    // To ask again does not begin anew.
    tools.hung_up(&call.uuid).await;
    let after = call.ear.hung_up().await - asked;
    assert_eq!(heard(&call.ear, 1), 150);
    assert!(
        (Duration::from_millis(4500)..Duration::from_secs(5) + SLACK).contains(&after),
        "{after:?}"
    );
    ended_once(&stage, &call.uuid, "agent_hangup").await;
}

#[tokio::test]
async fn an_agent_that_is_silent_has_four_seconds_and_a_caller_who_speaks_two_more() {
    let stage = Stage::set(&[DETAILS]).await;
    let (silent, talkative) = (stage.call().await, stage.call().await);
    let tools = Tools::of(&stage.service);
    tools.hung_up(&talkative.uuid).await;
    let asked = Instant::now();
    tools.hung_up(&silent.uuid).await;
    let after = silent.ear.hung_up().await - asked;
    assert!(
        (Duration::from_millis(3900)..Duration::from_secs(4) + SLACK).contains(&after),
        "{after:?}"
    );
    ended_once(&stage, &silent.uuid, "agent_hangup").await;
    drop(talkative);
    let call = stage.call().await;
    call.session.audio(&frames(1, 1)).await;
    call.ear.at_least(1).await;
    tools.hung_up(&call.uuid).await;
    call.session.audio(&frames(1, 1)).await;
    call.ear.at_least(2).await;
    // In each pause of the agent's the caller says something.
    for _ in 0..3 {
        call.ear.silent_for(call.ear.silences().len() + 1).await;
        call.session.transcript("user", "and thank you").await;
    }
    let last = Instant::now();
    let after = call.ear.hung_up().await - last;
    assert!((Duration::from_millis(1900)..SLACK).contains(&after), "{after:?}");
    ended_once(&stage, &call.uuid, "agent_hangup").await;
}

#[tokio::test]
async fn a_caller_who_breaks_in_silences_the_goodbye_and_ends_it() {
    let stage = Stage::set(&[DETAILS]).await;
    let call = stage.call().await;
    call.session.audio(&frames(1, 500)).await;
    call.ear.at_least(5).await;
    Tools::of(&stage.service).hung_up(&call.uuid).await;
    call.session.interruption().await;
    stage.event(&call.uuid, "interruption").await;
    let interrupted = Instant::now();
    let after = call.ear.hung_up().await - interrupted;
    assert!((Duration::from_millis(1500)..SLACK).contains(&after), "{after:?}");
    assert!(heard(&call.ear, 1) < 400, "what was queued is dropped");
    ended_once(&stage, &call.uuid, "agent_hangup").await;
}

#[tokio::test]
async fn a_call_without_an_agent_ends_at_once() {
    let stage = Stage::set(&[DETAILS, ("STS_URL", ""), PEOPLE]).await;
    let uuid = new_uuid();
    let asterisk = stage.dial(&uuid).await;
    stage.event(&uuid, "call_started").await;
    let alone = |line: &Value| {
        line["uuid"] == uuid.as_str() && line["message"].to_string().contains("set STS_URL")
    };
    stage.service.log_line(alone).await;
    Tools::of(&stage.service).hung_up(&uuid).await;
    asterisk.ear().hung_up().await;
    ended_once(&stage, &uuid, "agent_hangup").await;
}

#[tokio::test]
async fn an_agent_that_begins_to_speak_only_after_three_seconds_is_told() {
    let stage = Stage::set(&[]).await;
    let (mut late, early) = (stage.call().await, stage.call().await);
    early.session.audio(&frames(1, 1)).await;
    late.asterisk.silence(160).await;
    late.session.audio(&frames(1, 1)).await;
    let told = |line: &Value| line["message"] == "the agent's first audio came late";
    let line = stage.service.log_line(told).await;
    assert_eq!(line["uuid"], late.uuid.as_str());
    assert!(line["took_ms"].as_u64().is_some_and(|took| took > 3000), "{line}");
    assert_eq!(stage.service.log_so_far().iter().filter(|line| told(line)).count(), 1);
}

#[tokio::test]
async fn an_agent_that_does_not_stop_talking_is_heard_for_twenty_seconds() {
    let stage = Stage::set(&[DETAILS]).await;
    let call = stage.call().await;
    Tools::of(&stage.service).hung_up(&call.uuid).await;
    let asked = Instant::now();
    let second = async |nth: usize| {
        call.session.audio(&frames(1, 50)).await;
        call.ear.at_least(50 * nth).await;
    };
    for nth in 1..=15 {
        second(nth).await;
    }
    let talks_on = async {
        for nth in 16.. {
            second(nth).await;
        }
    };
    let closed = tokio::select! {
        () = talks_on => unreachable!("it never stops"),
        closed = call.ear.hung_up() => closed - asked,
    };
    let limit = Duration::from_secs(20);
    assert!((limit..limit + SLACK).contains(&closed), "{closed:?}");
    ended_once(&stage, &call.uuid, "agent_hangup").await;
}
