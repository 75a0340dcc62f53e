//! The bare bridge: what comes from the one side goes to the other at once, in the other's form. No
//! clock, no queue, no events, no detection: what is left between its figures and callhook's is what
//! callhook's own work costs.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64_simd::STANDARD as BASE64;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::frames::{AUDIO, Frames, HEADER, UUID};
use super::small_buffers;
use crate::serving;

type Sts = WebSocketStream<TcpStream>;

/// Of a message from the STS server, what the bridge looks at.
#[derive(Deserialize)]
struct FromSts<'a> {
    r#type: &'a str,
    audio: Option<&'a str>,
}

/// Serves until the process is ended, on the runtime that callhook would have.
pub fn serve(sts_url: &str) -> anyhow::Result<()> {
    let sts_url: Arc<str> = sts_url.into();
    serving::serve_as_callhook(move |stream| bridge(stream, Arc::clone(&sts_url)))
}

/// One call, until either side ends it.
async fn bridge(mut caller: TcpStream, sts_url: Arc<str>) -> anyhow::Result<()> {
    let (from_caller, to_caller) = caller.split();
    let mut from_caller = Frames::new(from_caller);
    let Some((UUID, uuid)) = from_caller.next().await? else {
        bail!("a call that does not begin with its UUID");
    };
    let mut sts = connect(&sts_url).await?;
    let uuid = Uuid::from_slice(&uuid)?;
    sts.send(format!(r#"{{"type":"init","uuid":"{uuid}"}}"#).into()).await?;
    let (to_sts, from_sts) = sts.split();
    tokio::select! {
        ended = hear(from_caller, to_sts) => ended,
        ended = speak(from_sts, to_caller) => ended,
    }
}

async fn connect(sts_url: &str) -> anyhow::Result<Sts> {
    let url = url::Url::parse(sts_url)?;
    let host = url.host_str().context("an STS URL without a host")?;
    let stream = TcpStream::connect((host, url.port_or_known_default().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (sts, _) =
        tokio_tungstenite::client_async_with_config(sts_url, stream, Some(small_buffers())).await?;
    Ok(sts)
}

/// From the caller to the STS server.
async fn hear(
    mut from_caller: Frames<ReadHalf<'_>>,
    mut to_sts: SplitSink<Sts, Message>,
) -> anyhow::Result<()> {
    const BEFORE: &str = r#"{"type":"audio","audio":""#;
    const AFTER: &str = r#""}"#;
    while let Some((kind, payload)) = from_caller.next().await? {
        if kind == AUDIO {
            let encoded = payload.len().div_ceil(3) * 4;
            let mut text = String::with_capacity(BEFORE.len() + encoded + AFTER.len());
            text.push_str(BEFORE);
            BASE64.encode_append(&payload, &mut text);
            text.push_str(AFTER);
            to_sts.send(text.into()).await?;
        }
    }
    Ok(())
}

/// From the STS server to the caller.
async fn speak(mut from_sts: SplitStream<Sts>, mut to_caller: WriteHalf<'_>) -> anyhow::Result<()> {
    let mut frame = Vec::new();
    while let Some(message) = from_sts.next().await {
        let Message::Text(text) = message? else { continue };
        let FromSts { r#type: "audio", audio: Some(audio) } = serde_json::from_str(&text)? else {
            continue;
        };
        frame.clear();
        frame.extend_from_slice(&[AUDIO, 0, 0]);
        BASE64.decode_append(audio, &mut frame)?;
        let length = u16::try_from(frame.len() - HEADER).context("more than a frame can hold")?;
        frame[1..HEADER].copy_from_slice(&length.to_be_bytes());
        to_caller.write_all(&frame).await?;
    }
    Ok(())
}
