//! The least that makes a bridged call: an Asterisk that sends frames, and a speech-to-speech server that
//! says its piece to whoever connects.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

/// The kinds of AudioSocket's frames.
pub const HANGUP: u8 = 0x00;
pub const UUID: u8 = 0x01;
pub const DTMF: u8 = 0x03;
pub const AUDIO: u8 = 0x10;

/// 20 ms of audio, in bytes.
pub const FRAME: usize = 320;

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[kind], &length[..], payload].concat()
}

/// An Asterisk that begins a call.
pub async fn begin(audio: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(audio).await.expect("AudioSocket listens");
    send(&mut stream, UUID, Uuid::new_v4().as_bytes()).await;
    stream
}

pub async fn send(stream: &mut TcpStream, kind: u8, payload: &[u8]) {
    stream.write_all(&frame(kind, payload)).await.expect("the call is live");
}

/// So many bytes of the agent's audio, as one message.
pub fn speech(bytes: usize) -> Value {
    json!({"type": "audio", "audio": BASE64_STANDARD.encode(vec![7; bytes])})
}

/// A speech-to-speech server that sends these to whoever connects, and then listens; its URL. It goes
/// away with the set.
pub async fn server(messages: Vec<Value>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    let (mut tasks, messages) = (JoinSet::new(), Arc::new(messages));
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(talk(stream, Arc::clone(&messages)));
        }
    });
    (url, tasks)
}

async fn talk(stream: TcpStream, messages: Arc<Vec<Value>>) {
    let mut web = accept_async(stream).await.expect("a WebSocket handshake");
    for message in &*messages {
        web.send(Message::text(message.to_string())).await.expect("callhook listens");
    }
    while web.next().await.is_some_and(|message| message.is_ok()) {}
}
