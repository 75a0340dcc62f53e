//! The STS server that sends back what it hears. It looks at no more of a message than tells that it
//! is audio.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::small_buffers;
use crate::serving;

const AUDIO: &str = r#"{"type":"audio""#;

/// Serves until the process is ended.
#[tokio::main(flavor = "current_thread")]
pub async fn serve() -> anyhow::Result<()> {
    serving::serve(echo).await
}

async fn echo(stream: TcpStream) -> anyhow::Result<()> {
    let mut socket =
        tokio_tungstenite::accept_async_with_config(stream, Some(small_buffers())).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if text.starts_with(AUDIO) => {
                socket.send(Message::Text(text)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
