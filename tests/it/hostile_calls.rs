//! Callers and STS servers that are slow, broken or malicious: each harms its own call at most, with one
//! `call_ended`, and the next call is as good as ever. `hostile_calls/callers.rs` has those who call,
//! `hostile_calls/servers.rs` those who are called.

mod callers;
mod servers;

use std::time::Duration;

use crate::support::asterisk::AUDIO;
use crate::support::stage::Stage;
use tokio::time::Instant;

/// What a call from beginning to end may take on a busy machine.
const BRISK: Duration = Duration::from_secs(6);

/// Plays a call from beginning to end, with all that belongs to it.
async fn is_well(stage: &Stage) {
    let start = Instant::now();
    let mut call = stage.call().await;
    call.asterisk.play(AUDIO, std::iter::repeat_n(&[0; 320][..], 15)).await;
    call.session.audio_of(15 * 320).await;
    call.session.audio(&[9; 3200]).await;
    let frames = call.ear.at_least(10).await;
    assert!(frames.iter().all(|frame| frame.payload == [9; 320]));
    call.asterisk.digit('5').await;
    call.session.message("dtmf_digit", 1).await;
    call.asterisk.hang_up().await;
    stage.event(&call.uuid, "call_ended").await;
    assert_eq!(stage.kinds(&call.uuid), ["call_started", "dtmf_digit", "call_ended"]);
    assert!(start.elapsed() < BRISK, "{:?}", start.elapsed());
}

/// Closes callhook and expects that the call had one start and one end, at the ends of its events.
async fn ended_once(stage: &mut Stage, uuid: &str) {
    stage.event(uuid, "call_ended").await;
    stage.close().await;
    let kinds = stage.kinds(uuid);
    let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!((count("call_started"), count("call_ended")), (1, 1), "{kinds:?}");
    assert_eq!(kinds.first().map(String::as_str), Some("call_started"));
    assert_eq!(kinds.last().map(String::as_str), Some("call_ended"));
}

/// How much more memory the service has had than before, in MiB.
fn grown(stage: &Stage, before: u64) -> u64 {
    stage.service.memory_peak().saturating_sub(before) / (1024 * 1024)
}
