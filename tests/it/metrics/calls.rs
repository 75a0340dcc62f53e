//! What happens in bridged calls: how many, why they ended, and what became of their audio.

use super::Watched;
use crate::support::asterisk::{AUDIO, FRAME, HANGUP};
use crate::support::receiver::free_port;
use crate::support::sts::{Manner, Sts};

#[tokio::test]
async fn a_call_is_live_until_it_ended_for_its_reason() {
    let vars = [("WEBHOOK_URL", "none"), ("AUDIO_CODEC", "slin")];
    let watched = Watched::start(&vars).await;
    let mut one = watched.dial().await;
    let two = watched.dial().await;
    watched.until_is("callhook_calls_live", 2.0).await;
    for _ in 0..5 {
        assert!(one.frame(AUDIO, &[0; FRAME]).await, "the call is live");
    }
    let metrics = watched.until_is("callhook_caller_frames_total", 5.0).await;
    assert_eq!(metrics.sum("callhook_calls_ended_total"), 0.0);
    assert!(one.frame(HANGUP, &[]).await, "the call is live");
    watched.until_is(r#"callhook_calls_ended_total{reason="hangup"}"#, 1.0).await;
    drop((one, two));
    watched.until_is(r#"callhook_calls_ended_total{reason="hangup"}"#, 2.0).await;
    let metrics = watched.until_is("callhook_calls_live", 0.0).await;
    assert_eq!(metrics.of("callhook_call_duration_seconds_count"), 2.0);
}

#[tokio::test]
async fn what_is_played_is_counted_frame_by_frame() {
    let sts = Sts::start(Manner::Usual).await;
    let watched = Watched::start(&[("WEBHOOK_URL", "none"), ("STS_URL", &sts.url)]).await;
    let asterisk = watched.dial().await;
    sts.session(0).await.audio(&[7; 5 * FRAME]).await;
    asterisk.ear().at_least(5).await;
    let metrics = watched.until_is("callhook_agent_frames_played_total", 5.0).await;
    assert!(metrics.of("callhook_playout_ticks_total") >= 1.0);
    assert!(
        metrics.of("callhook_playout_late_ticks_total")
            <= metrics.of("callhook_playout_ticks_total")
    );
    assert_eq!(metrics.of("callhook_sts_connect_seconds_count"), 1.0);
    assert_eq!(metrics.of("callhook_agent_frames_unread_total"), 0.0);
}

#[tokio::test]
async fn audio_that_finds_no_room_is_counted_in_bytes() {
    // 30 s find room, and one second more does not.
    let second = 50 * FRAME;
    let sts = Sts::start(Manner::Usual).await;
    let watched = Watched::start(&[("WEBHOOK_URL", "none"), ("STS_URL", &sts.url)]).await;
    let _asterisk = watched.dial().await;
    sts.session(0).await.audio(&vec![7; 31 * second]).await;
    watched.until_is("callhook_agent_audio_dropped_bytes_total", second as f64).await;
}

#[tokio::test]
async fn a_server_that_is_not_reached_is_counted_and_so_is_what_the_caller_said_meanwhile() {
    let url = format!("ws://127.0.0.1:{}", free_port());
    let vars = [("WEBHOOK_URL", "none"), ("STS_URL", &*url), ("AUDIO_CODEC", "slin")];
    let watched = Watched::start(&vars).await;
    let mut asterisk = watched.dial().await;
    // The last 100 frames are held until the server is there.
    for _ in 0..103 {
        assert!(asterisk.frame(AUDIO, &[0; FRAME]).await, "the call is live");
    }
    watched.until_is("callhook_caller_frames_dropped_total", 3.0).await;
    let metrics = watched.until_is("callhook_sts_connect_failures_total", 1.0).await;
    assert_eq!(metrics.of("callhook_sts_connect_seconds_count"), 0.0);
    watched.until_is(r#"callhook_calls_ended_total{reason="sts_failed"}"#, 1.0).await;
}

#[tokio::test]
async fn how_long_a_caller_waits_for_the_agent_is_measured() {
    let sts = Sts::start(Manner::Usual).await;
    let watched = Watched::start(&[("WEBHOOK_URL", "none"), ("STS_URL", &sts.url)]).await;
    let asterisk = watched.dial().await;
    let (session, ear) = (sts.session(0).await, asterisk.ear());
    session.audio(&[7; 5 * FRAME]).await;
    let metrics = watched.until_is("callhook_agent_first_audio_seconds_count", 1.0).await;
    assert_eq!(metrics.of("callhook_agent_response_seconds_count"), 0.0, "nobody asked");
    // While the agent speaks, a transcript says nothing of its answer.
    session.audio(&[7; 100 * FRAME]).await;
    session.transcript("user", "a table").await;
    session.audio(&[7; FRAME]).await;
    ear.at_least(106).await;
    ear.silent_for(ear.silences().len() + 1).await;
    session.transcript("user", "for two").await;
    session.transcript("agent", "for two").await;
    session.audio(&[7; FRAME]).await;
    session.audio(&[7; FRAME]).await;
    let metrics = watched.until_is("callhook_agent_response_seconds_count", 1.0).await;
    assert_eq!(metrics.of("callhook_agent_first_audio_seconds_count"), 1.0);
}
