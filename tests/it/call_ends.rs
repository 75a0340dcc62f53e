//! Every way for a call to end, and what each party gets to see of it: Asterisk a hang-up, the STS server a
//! close, the receiver exactly one `call_ended`, the operator the reason. `call_ends/restart.rs` has the
//! calls that callhook itself did not live to see the end of, `call_ends/sts_server.rs` the ways of an STS server
//! to go.

mod restart;
mod sts_server;

use std::time::Duration;

use crate::support::asterisk::{AUDIO, Asterisk, DTMF, HANGUP, UUID};
use crate::support::event::new_uuid;
use crate::support::receiver::{Receiver, Reply, free_port};
use crate::support::service::serve;
use crate::support::stage::{Call, Stage};
use crate::support::sts::{Manner, Sts};
use serde_json::{Value, json};
use tokio::time::Instant;

const DETAILS: (&str, &str) = ("CALL_ENDED_DETAILS", "true");
/// What anything may take on a busy machine.
const SLACK: Duration = Duration::from_secs(4);
/// How long an STS server that does not answer is waited for, and one that refuses is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRIED: Duration = Duration::from_secs(3);

/// Waits for the end of the call, closes callhook, and expects one `call_ended`, last and for this reason.
async fn ended_once(stage: &mut Stage, uuid: &str, reason: &str) {
    stage.ended_by(uuid, reason).await;
    stage.close().await;
    let events = stage.events(uuid);
    let last = events.last().expect("the call had events");
    assert_eq!(last.kind(), "call_ended", "{events:#?}");
    assert_eq!(last.body["payload"]["reason"], reason);
    for kind in ["call_started", "call_ended"] {
        let count = events.iter().filter(|event| event.kind() == kind).count();
        assert_eq!(count, 1, "one {kind}: {events:#?}");
    }
}

/// A timestamp in Unix milliseconds.
fn millis_of(timestamp: &Value) -> u64 {
    callhook::time::unix_millis_of(timestamp.as_str().expect("a text")).expect("a timestamp")
}

/// A call in the middle of things: its caller speaks, and its agent has ten seconds queued.
async fn busy_call(stage: &Stage) -> Call {
    let mut call = stage.call().await;
    call.asterisk.silence(2).await;
    call.session.audio(&[1; 160_000]).await;
    call.ear.at_least(2).await;
    call
}

#[tokio::test]
async fn a_caller_hangs_up_by_the_end_of_the_stream() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let call = busy_call(&stage).await;
    call.asterisk.hang_up().await;
    call.session.closed().await;
    ended_once(&mut stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn a_caller_hangs_up_by_a_reset() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let call = busy_call(&stage).await;
    call.asterisk.reset().await;
    call.session.closed().await;
    ended_once(&mut stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn a_caller_hangs_up_by_a_frame() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let mut call = busy_call(&stage).await;
    assert!(call.asterisk.frame(HANGUP, &[]).await);
    call.session.closed().await;
    call.ear.closed().await;
    ended_once(&mut stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn a_caller_hangs_up_right_after_its_uuid() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let uuid = new_uuid();
    stage.dial(&uuid).await.hang_up().await;
    ended_once(&mut stage, &uuid, "hangup").await;
}

/// Dials into an STS server that cannot be reached, and expects the call to end about so much later.
async fn fails(mut stage: Stage, time: Duration) -> Stage {
    let uuid = new_uuid();
    let dialled = Instant::now();
    let mut asterisk = stage.dial(&uuid).await;
    stage.event(&uuid, "call_started").await;
    assert!(dialled.elapsed() < SLACK, "it starts before its STS server is there");
    asterisk.silence(50).await;
    let ear = asterisk.ear();
    let after = ear.hung_up().await - dialled;
    assert!((time.mul_f64(0.6)..time + SLACK).contains(&after), "{after:?}");
    let silent = ear.frames().iter().all(|frame| frame.kind == HANGUP);
    assert!(silent, "silence to the caller");
    ended_once(&mut stage, &uuid, "sts_failed").await;
    stage
}

/// A stage whose STS server is at this URL.
async fn stage_at(url: &str) -> Stage {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("STS_URL", url), DETAILS]).await;
    Stage { receiver, sts: Sts::start(Manner::Usual).await, service }
}

#[tokio::test]
async fn an_sts_server_that_is_not_there_ends_the_call_after_three_seconds() {
    fails(stage_at(&format!("ws://127.0.0.1:{}", free_port())).await, RETRIED).await;
}

#[tokio::test]
async fn an_sts_server_that_drops_each_connection_is_tried_again_for_three_seconds() {
    let stage = Stage::with(Sts::start(Manner::Drops).await, &[DETAILS]).await;
    let tries = fails(stage, RETRIED).await.sts.connections();
    assert!((2..=200).contains(&tries.len()), "{} tries", tries.len());
}

#[tokio::test]
async fn what_will_not_change_by_waiting_ends_the_call_at_once() {
    let refusing = Stage::with(Sts::start(Manner::Refuses).await, &[DETAILS]).await;
    for mut stage in [refusing, stage_at("ws://nobody.invalid:6030").await] {
        let uuid = new_uuid();
        let asterisk = stage.dial(&uuid).await;
        let in_vain = |line: &Value| line["message"] == "speech-to-speech server cannot be reached";
        assert_eq!(stage.service.log_line(in_vain).await["attempts"], 1);
        asterisk.ear().hung_up().await;
        ended_once(&mut stage, &uuid, "sts_failed").await;
    }
}

#[tokio::test]
async fn an_sts_server_that_never_answers_the_handshake_ends_the_call_after_five_seconds() {
    fails(Stage::with(Sts::start(Manner::Mute).await, &[DETAILS]).await, PATIENCE).await;
}

#[tokio::test]
async fn an_sts_server_that_answers_after_ten_seconds_is_too_late() {
    let late = Manner::Late(Duration::from_secs(10));
    fails(Stage::with(Sts::start(late).await, &[DETAILS]).await, PATIENCE).await;
}

#[tokio::test]
async fn an_override_that_never_answers_leaves_time_for_sts_url_and_five_seconds_are_all() {
    let (one, other) = (Sts::start(Manner::Mute).await, Sts::start(Manner::Mute).await);
    let route = one.url.clone();
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => Reply::route(&route),
        _ => Reply::ok(),
    })
    .await;
    let mut stage = Stage::of(receiver, other, &[DETAILS]).await;
    let uuid = new_uuid();
    stage.announce(&uuid, json!({})).await;
    let dialled = Instant::now();
    let asterisk = stage.dial(&uuid).await;
    let after = asterisk.ear().hung_up().await - dialled;
    assert!((PATIENCE.mul_f64(0.9)..PATIENCE + SLACK).contains(&after), "{after:?}");
    assert_eq!((one.connections().len(), stage.sts.connections().len()), (1, 1));
    ended_once(&mut stage, &uuid, "sts_failed").await;
}

#[tokio::test]
async fn an_sts_server_that_comes_back_in_time_gets_the_call() {
    let manners = [Manner::Drops, Manner::Drops, Manner::Usual];
    let mut stage = Stage::with(Sts::start_each(&manners).await, &[DETAILS]).await;
    let mut call = stage.call().await;
    assert!(stage.sts.connections().len() >= 3);
    call.asterisk.digit('1').await;
    call.session.message("dtmf_digit", 1).await;
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn an_override_that_cannot_be_reached_gives_way_to_sts_url() {
    let route = format!("ws://127.0.0.1:{}/gone", free_port());
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => Reply::route(&route),
        _ => Reply::ok(),
    })
    .await;
    let mut stage = Stage::of(receiver, Sts::start(Manner::Usual).await, &[DETAILS]).await;
    let uuid = new_uuid();
    stage.announce(&uuid, json!({ "from": "2000" })).await;
    let dialled = Instant::now();
    let call = stage.call_of(&uuid).await;
    assert!(dialled.elapsed() < Duration::from_secs(4), "{:?}", dialled.elapsed());
    assert_eq!(call.session.target, "/?from=2000", "the fallback gets the payload, too");
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &uuid, "hangup").await;
}

#[tokio::test]
async fn a_caller_may_hang_up_while_the_sts_server_is_tried() {
    let mut stage = Stage::with(Sts::start(Manner::Mute).await, &[DETAILS]).await;
    let uuid = new_uuid();
    let asterisk = stage.dial(&uuid).await;
    stage.sts.connected(1).await;
    let hung_up = Instant::now();
    asterisk.hang_up().await;
    stage.event(&uuid, "call_ended").await;
    assert!(hung_up.elapsed() < SLACK, "{:?}", hung_up.elapsed());
    ended_once(&mut stage, &uuid, "hangup").await;
}

#[tokio::test]
async fn a_call_without_frames_ends_as_idle() {
    let mut stage = Stage::set(&[DETAILS, ("CALL_IDLE_TIMEOUT", "1000")]).await;
    let mut call = stage.call().await;
    // Twice the timeout, but never idle for it.
    call.asterisk.silence(100).await;
    call.asterisk.digit('1').await;
    let last = Instant::now();
    let after = call.ear.hung_up().await - last;
    assert!((Duration::from_millis(900)..SLACK).contains(&after), "{after:?}");
    call.session.closed().await;
    assert!(stage.kinds(&call.uuid).contains(&"dtmf_digit".to_owned()));
    ended_once(&mut stage, &call.uuid, "idle").await;
}

#[tokio::test]
async fn a_frame_that_is_none_of_the_protocol_ends_the_call() {
    let faults: [(&str, u8, &[u8]); 6] = [
        ("an unknown kind", 0x42, &[0; 4]),
        ("kind 2", 0x02, &[]),
        ("a rate beyond the last", 0x19, &[0; 320]),
        ("a second uuid", UUID, &[9; 16]),
        ("two digits at once", DTMF, b"12"),
        ("no digit", DTMF, &[]),
    ];
    let stage = Stage::set(&[DETAILS]).await;
    for (what, kind, payload) in faults {
        println!("{what}");
        let mut call = busy_call(&stage).await;
        call.asterisk.frame(kind, payload).await;
        call.ear.hung_up().await;
        call.session.closed().await;
        stage.ended_by(&call.uuid, "protocol_error").await;
        assert_eq!(stage.kinds(&call.uuid), ["call_started", "call_ended"]);
    }
}

#[tokio::test]
async fn sigterm_ends_the_calls_within_drain_timeout_and_their_events_arrive() {
    let mut stage = Stage::set(&[DETAILS, ("DRAIN_TIMEOUT", "6000")]).await;
    let (one, two) = (busy_call(&stage).await, busy_call(&stage).await);
    let signalled = Instant::now();
    stage.close().await;
    assert!(signalled.elapsed() < Duration::from_secs(7), "{:?}", signalled.elapsed());
    for call in [one, two] {
        call.ear.hung_up().await;
        call.session.closed().await;
        assert_eq!(stage.kinds(&call.uuid), ["call_started", "call_ended"]);
        let ended = &stage.events(&call.uuid)[1];
        assert_eq!(ended.body["payload"]["reason"], "shutdown");
    }
}

#[tokio::test]
async fn no_call_is_taken_while_callhook_drains() {
    let stage = Stage::set(&[DETAILS]).await;
    let addr = stage.service.audiosocket().await;
    let _call = busy_call(&stage).await;
    stage.service.terminate();
    stage.service.drains().await;
    let uuid = new_uuid();
    if let Ok(mut late) = Asterisk::try_connect(addr).await {
        late.uuid(&uuid).await;
        late.ear().closed().await;
    }
    stage.service.whole_log().await;
    assert_eq!(stage.kinds(&uuid), [""; 0]);
}

#[tokio::test]
async fn an_end_that_meets_a_full_queue_is_a_dead_letter_that_can_be_replayed() {
    let (receiver, gate) = Receiver::held().await;
    let vars = [DETAILS, ("QUEUE_LIMIT", "3"), ("WEBHOOK_TIMEOUT", "15000")];
    let mut stage = Stage::of(receiver, Sts::start(Manner::Usual).await, &vars).await;
    let call = stage.call().await;
    stage.event(&call.uuid, "call_started").await;
    let other = json!({ "uuid": new_uuid(), "type": "call_started", "payload": {} }).to_string();
    while stage.service.post("/events", other.clone()).await.status == 202 {}
    call.session.audio(&[1; 3200]).await;
    call.ear.at_least(10).await;
    call.asterisk.hang_up().await;
    let lost = |line: &Value| line["type"] == "call_ended" && line["uuid"] == call.uuid;
    assert_eq!(stage.service.log_line(lost).await["level"], "error");
    let dead = stage.service.ask_admin("GET", "/api/dead", &[]).await.json();
    let items = dead["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "{dead}");
    assert_eq!((&items[0]["uuid"], &items[0]["type"]), (&json!(call.uuid), &json!("call_ended")));
    gate.add_permits(100);
    stage.receiver.seen(3).await;
    stage.service.ask_admin("POST", "/api/dead/replay", &[]).await.json();
    ended_once(&mut stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn transcripts_on_their_way_when_the_caller_hangs_up_are_kept() {
    let mut stage = Stage::with(Sts::start(Manner::Clings).await, &[DETAILS]).await;
    let call = busy_call(&stage).await;
    call.asterisk.hang_up().await;
    // The second is sent when the first was delivered: well within 500 ms of the end.
    call.session.transcript("user", "goodbye").await;
    stage.event(&call.uuid, "transcription").await;
    call.session.transcript("agent", "bye").await;
    ended_once(&mut stage, &call.uuid, "hangup").await;
    let expected = ["call_started", "transcription", "transcription", "call_ended"];
    assert_eq!(stage.kinds(&call.uuid), expected);
    let events = stage.events(&call.uuid);
    let at = |event: usize| millis_of(&events[event].body["timestamp"]);
    assert!(at(3) <= at(1), "the end is when the caller hung up: {events:#?}");
    let duration = events[3].body["payload"]["duration_ms"].as_u64().expect("a number");
    assert!(at(0) + duration <= at(3) + 5, "and so long the call was: {events:#?}");
}

#[tokio::test]
async fn a_server_that_does_not_close_holds_up_the_end_for_half_a_second_only() {
    let mut stage = Stage::with(Sts::start(Manner::Clings).await, &[DETAILS]).await;
    let call = busy_call(&stage).await;
    let hung_up = Instant::now();
    call.asterisk.hang_up().await;
    stage.event(&call.uuid, "call_ended").await;
    assert!(hung_up.elapsed() < Duration::from_secs(3), "{:?}", hung_up.elapsed());
    call.session.transcript("agent", "too late").await;
    call.session.gone().await;
    ended_once(&mut stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn the_agent_is_cut_off_when_the_caller_has_hung_up() {
    let mut stage = Stage::set(&[DETAILS]).await;
    let mut call = busy_call(&stage).await;
    assert!(call.asterisk.frame(HANGUP, &[]).await);
    call.ear.closed().await;
    let played = call.ear.frames().iter().filter(|frame| frame.kind == AUDIO).count();
    assert!(played < 400, "{played} of 500 queued frames were played to nobody");
    ended_once(&mut stage, &call.uuid, "hangup").await;
}
