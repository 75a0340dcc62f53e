//! From the STS server to Asterisk: 320 bytes each 20 ms, whatever comes.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::asterisk::{AUDIO, BEAT, Frame};
use crate::support::event::new_uuid;
use crate::support::sound::{bytes_of, voice};
use crate::support::stage::{Call, Stage};
use crate::support::sts::{Manner, Sts};

fn payloads(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.payload.clone()).collect()
}

/// So many frames, each of samples that are its number.
fn numbered(count: i16) -> Vec<u8> {
    (1..=count).flat_map(|number| bytes_of(&[number; 160])).collect()
}

/// The number of a frame; 0 is silence.
fn number(frame: &Frame) -> i16 {
    let number = i16::from_le_bytes([frame.payload[0], frame.payload[1]]);
    assert_eq!(frame.payload, bytes_of(&[number; 160]), "frames are not mixed");
    number
}

#[tokio::test]
async fn agent_audio_is_played_in_frames_of_320_bytes_each_in_one_write() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    let pcm = bytes_of(&voice(100 * 160));
    call.session.audio(&pcm).await;
    let frames = call.ear.at_least(100).await;
    for frame in &frames {
        assert_eq!((frame.kind, frame.payload.len()), (AUDIO, 320));
    }
    assert_eq!(payloads(&frames), pcm);
    assert_eq!(call.ear.parts(), [0; 0], "no part of a frame came alone");
}

#[tokio::test]
async fn frames_leave_each_20_ms_on_a_clock_that_does_not_drift() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.session.audio(&[1; 200 * 320]).await;
    let frames = call.ear.at_least(200).await;
    let first = frames[0].at;
    for (n, frame) in (0..).zip(&frames) {
        let (after, due) = (frame.at - first, BEAT * n);
        assert!(after + Duration::from_millis(25) > due, "frame {n} is early: {after:?}");
    }
    let span = frames[199].at - first;
    assert!(span < BEAT * 199 + Duration::from_millis(400), "it drifts: {span:?} for 3.98 s");
    let mut gaps: Vec<Duration> = frames.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    gaps.sort();
    let median = gaps[gaps.len() / 2];
    assert!((Duration::from_millis(15)..Duration::from_millis(25)).contains(&median), "{median:?}");
}

#[tokio::test]
async fn pieces_of_any_size_are_cut_to_frames_without_loss() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    let pcm = bytes_of(&voice(60 * 160));
    // The first piece plays for a while, so that the rest comes in time.
    let mut rest = &pcm[..];
    for size in [6400, 1, 2, 3, 319, 320, 321, 1, 640, 1001, 7, 5000, 0, 33, 1, usize::MAX] {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        call.session.audio(piece).await;
        rest = after;
    }
    let frames = call.ear.at_least(60).await;
    assert!(frames.iter().all(|frame| frame.payload.len() == 320));
    assert!(payloads(&frames) == pcm, "the same bytes in the same order");
}

/// Some servers send what is to be said as soon as they have all of it.
#[tokio::test]
async fn a_whole_utterance_in_one_message_is_played() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.session.audio(&numbered(25 * 50)).await;
    let frames = call.ear.at_least(20).await;
    let order: Vec<i16> = frames.iter().take(20).map(number).collect();
    assert_eq!(order, (1..=20).collect::<Vec<_>>());
    call.session.interruption().await;
    stage.event(&call.uuid, "interruption").await;
    assert!(!stage.kinds(&call.uuid).contains(&"call_ended".to_owned()));
}

#[tokio::test]
async fn the_last_piece_of_an_utterance_is_filled_up_with_silence() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.session.audio(&[5; 400]).await;
    let frames = call.ear.at_least(2).await;
    assert_eq!(frames[0].payload, [5; 320]);
    assert_eq!(frames[1].payload, [[5; 80].as_slice(), &[0; 240]].concat());
}

#[tokio::test]
async fn silence_is_sent_at_once_and_each_second_while_there_is_nothing_to_play() {
    // Its STS server never answers, so that there is never anything.
    let stage = Stage::with(Sts::start(Manner::Mute).await, &[]).await;
    let asterisk = stage.dial(&new_uuid()).await;
    let at = asterisk.ear().silent_for(4).await;
    let span = at[3] - at[0];
    assert!((Duration::from_millis(2900)..Duration::from_secs(5)).contains(&span), "{span:?}");
}

#[tokio::test]
async fn nothing_but_silence_is_sent_while_there_is_nothing_to_play() {
    let stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    call.asterisk.silence(30).await;
    assert_eq!(call.ear.frames().len(), 0);
    call.session.audio(&numbered(3)).await;
    call.ear.at_least(3).await;
    call.asterisk.silence(30).await;
    assert_eq!(call.ear.frames().iter().map(number).collect::<Vec<_>>(), [1, 2, 3]);
    call.session.audio(&numbered(2)).await;
    let frames = call.ear.at_least(5).await;
    assert_eq!(frames.iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 1, 2]);
    let pause = frames[3].at - frames[2].at;
    assert!(pause > Duration::from_millis(300), "{pause:?}");
    assert_eq!(call.ear.parts(), [0; 0], "no part of a frame came alone");
}

#[tokio::test]
async fn no_silence_is_sent_into_what_the_agent_says() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.session.audio(&numbered(150)).await;
    let frames = call.ear.at_least(150).await;
    let within = |at: &Instant| *at > frames[0].at && *at < frames[149].at;
    assert!(!call.ear.silences().iter().any(within));
}

#[tokio::test]
async fn an_interruption_empties_what_is_queued() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.session.audio(&numbered(400)).await;
    call.ear.at_least(10).await;
    call.session.interruption().await;
    call.session.audio(&bytes_of(&[-1; 160 * 20])).await;
    let new = |frames: &[Frame]| {
        let new = frames.iter().filter(|frame| number(frame) == -1).count();
        (new >= 20).then(|| frames.to_vec())
    };
    let frames = call.ear.until("the audio after the interruption", new).await;
    let old = frames.len() - 20;
    assert!((10..150).contains(&old), "{old} frames of 400 were played before");
    let order: Vec<i16> = frames.iter().map(number).collect();
    let expected: Vec<i16> = (1..=400).take(old).chain([-1; 20]).collect();
    assert_eq!(order, expected, "the old, cut short, and then the new");
}

/// Sends a word after which all that the server said before has been taken in.
async fn settled(stage: &Stage, call: &Call, word: &str) {
    call.session.transcript("agent", word).await;
    let said = |seen: &crate::support::receiver::Seen| seen.body["payload"]["text"] == word;
    stage.receiver.until(word, |seen| seen.iter().find(|seen| said(seen)).map(drop)).await;
}

#[tokio::test]
async fn an_interruption_is_an_event_only_if_the_agent_spoke() {
    let stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    call.session.interruption().await;
    settled(&stage, &call, "before").await;
    assert_eq!(stage.kinds(&call.uuid), ["call_started", "transcription"]);

    call.session.audio(&numbered(250)).await;
    call.session.interruption().await;
    settled(&stage, &call, "queued").await;
    assert_eq!(stage.kinds(&call.uuid)[2..], ["interruption", "transcription"]);

    call.session.audio(&numbered(250)).await;
    call.ear.at_least(5).await;
    call.session.interruption().await;
    call.session.interruption().await;
    settled(&stage, &call, "playing").await;
    assert_eq!(stage.kinds(&call.uuid)[4..], ["interruption", "transcription"], "once for two");

    let known = call.ear.frames().len();
    call.session.audio(&numbered(2)).await;
    call.ear.at_least(known + 2).await;
    call.asterisk.silence(25).await;
    call.session.interruption().await;
    settled(&stage, &call, "after").await;
    assert_eq!(stage.kinds(&call.uuid)[6..], ["transcription"]);
}
