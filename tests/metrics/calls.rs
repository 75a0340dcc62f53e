//! What happens in bridged calls: how many, why they ended, and what became of their audio.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::Watched;
use crate::support::receiver::free_port;

/// The kinds of AudioSocket's frames, and the bytes of 20 ms.
const UUID: u8 = 0x01;
const AUDIO: u8 = 0x10;
const HANGUP: u8 = 0x00;
const FRAME: usize = 320;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], payload].concat()
}

/// An Asterisk that begins a call.
async fn begin(watched: &Watched) -> TcpStream {
    let mut stream = TcpStream::connect(watched.audio).await.unwrap();
    stream.write_all(&frame(UUID, Uuid::new_v4().as_bytes())).await.unwrap();
    stream
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

/// A speech-to-speech server that says so many bytes to whoever connects, as one message, and then
/// listens. It goes away with the set.
async fn server(bytes: usize) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut listening = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            listening.spawn(async move {
                let mut web = accept_async(stream).await.unwrap();
                let audio = BASE64_STANDARD.encode(vec![7; bytes]);
                let said = json!({"type": "audio", "audio": audio}).to_string();
                web.send(Message::text(said)).await.unwrap();
                while web.next().await.is_some_and(|message| message.is_ok()) {}
            });
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn a_call_is_live_until_it_ended_for_its_reason() {
    let vars = [("WEBHOOK_URL", "none"), ("AUDIO_CODEC", "slin")];
    let watched = Watched::start(&vars).await;
    let mut one = begin(&watched).await;
    let two = begin(&watched).await;
    watched.until_is("callhook_calls_live", 2.0).await;
    for _ in 0..5 {
        send(&mut one, &frame(AUDIO, &[0; FRAME])).await;
    }
    let metrics = watched.until_is("callhook_caller_frames_total", 5.0).await;
    assert_eq!(metrics.sum("callhook_calls_ended_total"), 0.0);
    send(&mut one, &frame(HANGUP, &[])).await;
    watched.until_is(r#"callhook_calls_ended_total{reason="hangup"}"#, 1.0).await;
    drop((one, two));
    watched.until_is(r#"callhook_calls_ended_total{reason="hangup"}"#, 2.0).await;
    let metrics = watched.until_is("callhook_calls_live", 0.0).await;
    assert_eq!(metrics.of("callhook_call_duration_seconds_count"), 2.0);
}

#[tokio::test]
async fn what_is_played_is_counted_frame_by_frame() {
    let (url, _server) = server(5 * FRAME).await;
    let watched = Watched::start(&[("WEBHOOK_URL", "none"), ("STS_URL", &url)]).await;
    let mut asterisk = begin(&watched).await;
    let mut heard = vec![0; 5 * (3 + FRAME)];
    asterisk.read_exact(&mut heard).await.unwrap();
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
    let (url, _server) = server(31 * second).await;
    let watched = Watched::start(&[("WEBHOOK_URL", "none"), ("STS_URL", &url)]).await;
    let _asterisk = begin(&watched).await;
    watched.until_is("callhook_agent_audio_dropped_bytes_total", second as f64).await;
}

#[tokio::test]
async fn a_server_that_is_not_reached_is_counted_and_so_is_what_the_caller_said_meanwhile() {
    let url = format!("ws://127.0.0.1:{}", free_port());
    let vars = [("WEBHOOK_URL", "none"), ("STS_URL", &*url), ("AUDIO_CODEC", "slin")];
    let watched = Watched::start(&vars).await;
    let mut asterisk = begin(&watched).await;
    // The last 100 frames are held until the server is there.
    for _ in 0..103 {
        send(&mut asterisk, &frame(AUDIO, &[0; FRAME])).await;
    }
    watched.until_is("callhook_caller_frames_dropped_total", 3.0).await;
    let metrics = watched.until_is("callhook_sts_connect_failures_total", 1.0).await;
    assert_eq!(metrics.of("callhook_sts_connect_seconds_count"), 0.0);
    watched.until_is(r#"callhook_calls_ended_total{reason="sts_failed"}"#, 1.0).await;
}
