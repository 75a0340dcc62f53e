//! The recordings of a real Asterisk, at their own pace: the events they make, and their sound.

use crate::support::asterisk::AUDIO;
use crate::support::capture::Capture;
use crate::support::sound::{expanded, from_ulaw};
use crate::support::stage::Stage;

/// How a replay ends.
enum End {
    Eof,
    Reset,
}

/// Replays the recording; returns the sound that the STS server got.
async fn replayed(name: &str, end: &End) -> (Capture, Vec<Vec<u8>>) {
    let mut stage = Stage::set(&[("CALL_ENDED_DETAILS", "true")]).await;
    let capture = Capture::load(name);
    let uuid = capture.uuid();
    let answer = stage.service.post("/call", capture.announcement.clone()).await;
    assert_eq!(answer.status, 200);
    let mut asterisk = stage.connect().await;
    asterisk.replay(&capture).await;
    match end {
        End::Eof => asterisk.hang_up().await,
        End::Reset => asterisk.reset().await,
    }
    let session = stage.sts.session_of(&uuid).await;
    assert!(session.target.contains("from=1001&to=500"), "{}", session.target);
    stage.ended_by(&uuid, "hangup").await;
    stage.close().await;
    let events = stage.events(&uuid);
    let told: Vec<(&str, String)> = events
        .iter()
        .map(|event| {
            (event.kind(), event.body["payload"]["digit"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    let digits = ["1", "2", "#"].map(|digit| ("dtmf_digit", digit.to_owned()));
    let [initiated, started] = ["call_initiated", "call_started"].map(|kind| (kind, String::new()));
    let expected = [&[initiated, started][..], &digits, &[("call_ended", String::new())]].concat();
    assert_eq!(told, expected);
    let told = session.messages("dtmf_digit");
    let told: Vec<&str> = told.iter().filter_map(|message| message["digit"].as_str()).collect();
    assert_eq!(told, ["1", "2", "#"]);
    let length = events.last().expect("events").body["payload"]["duration_ms"].as_u64();
    let length = length.expect("a whole number of milliseconds");
    let recorded = u64::try_from(capture.end.as_millis()).expect("small");
    assert!((recorded - 200..recorded + 3000).contains(&length), "{length} ms for {recorded} ms");
    (capture, session.audio_messages())
}

/// The sound that came is this, frame by frame but for a reset, which may take the last ones with it.
fn assert_same(messages: &[Vec<u8>], expected: &[u8], frames: usize, end: &End) {
    let got = messages.concat();
    match end {
        End::Eof => {
            assert_eq!(messages.len(), frames, "a message a frame");
            assert_eq!(got.len(), expected.len());
        }
        End::Reset => assert!(got.len() + 10 * 320 >= expected.len(), "{} bytes", got.len()),
    }
    let same = got.iter().zip(expected).take_while(|(left, right)| left == right).count();
    assert_eq!(same, got.len(), "bytes that are alike");
}

fn frames_of(capture: &Capture) -> usize {
    capture.frames().iter().filter(|(kind, _)| *kind == AUDIO).count()
}

async fn slin(name: &str, end: End) {
    let (capture, messages) = replayed(name, &end).await;
    assert_same(&messages, &capture.audio(), frames_of(&capture), &end);
}

async fn ulaw(name: &str, end: End) {
    let (capture, messages) = replayed(name, &end).await;
    let pcm = expanded(&capture.audio(), from_ulaw);
    assert_same(&messages, &pcm, frames_of(&capture), &end);
}

#[tokio::test]
async fn a_local_channel_in_slin_is_understood_to_its_end() {
    slin("chan-local-slin", End::Eof).await;
}

#[tokio::test]
async fn a_local_channel_in_slin_is_understood_to_its_reset() {
    slin("chan-local-slin", End::Reset).await;
}

#[tokio::test]
async fn a_sip_phone_in_mu_law_is_understood_to_its_end() {
    ulaw("chan-sip-ulaw", End::Eof).await;
}

#[tokio::test]
async fn a_sip_phone_in_mu_law_is_understood_to_its_reset() {
    ulaw("chan-sip-ulaw", End::Reset).await;
}

#[tokio::test]
async fn a_sip_phone_through_the_application_is_understood_to_its_end() {
    slin("app-sip-ulaw", End::Eof).await;
}

#[tokio::test]
async fn a_sip_phone_through_the_application_is_understood_to_its_reset() {
    slin("app-sip-ulaw", End::Reset).await;
}
