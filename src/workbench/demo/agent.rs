//! The demo's agent: a speech-to-speech server that plays a part.
//!
//! It speaks, transcribes, notices that it is interrupted and hears keys, as AVR's servers do; its lines
//! are fixed. Which part it plays it learns from the URL, which has the payload of `POST /call`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use super::speech::{is_voice, speech};
use crate::listener;
use crate::sts;

/// The most calls at a time.
const MOST_CALLS: usize = 16;

/// Frames without a voice that end what the caller says: 120 ms.
const PAUSE: u32 = 6;

/// The pitch of the agent's voice, in Hz.
const PITCH: f64 = 190.0;

/// What the agent does next.
#[derive(Clone, Debug)]
pub enum Turn {
    /// Says this, for some milliseconds.
    Says(&'static str, u32),
    /// Waits for the caller to say something, which is this.
    Hears(&'static str),
    /// Is interrupted as soon as the caller says anything.
    IsInterrupted,
    WaitsForKey,
    HangsUp,
}

/// The parts, by the caller's number.
pub type Parts = fn(&str) -> &'static [Turn];

/// The agent, listening.
pub struct Agent {
    pub address: SocketAddr,
    listener: TcpListener,
    parts: Parts,
}

impl Agent {
    /// Listens on a free port of this machine.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn bind(parts: Parts) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.context("cannot listen for the agent")?;
        Ok(Self { address: listener.local_addr()?, listener, parts })
    }

    pub async fn serve(self, stop: CancellationToken) {
        let parts = self.parts;
        let calls = stop.clone();
        let serve = move |stream| {
            let stop = calls.clone();
            async move {
                // A call that breaks off shows in the events that are missing.
                stop.run_until_cancelled(take(stream, parts)).await;
            }
        };
        listener::accept(self.listener, MOST_CALLS, stop, serve).await;
    }
}

async fn take(stream: TcpStream, parts: Parts) -> Option<()> {
    let query = Arc::new(std::sync::OnceLock::new());
    let seen = Arc::clone(&query);
    #[expect(clippy::result_large_err, reason = "the library wants a whole response")]
    let look = move |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        seen.get_or_init(|| request.uri().query().unwrap_or_default().to_owned());
        Ok(response)
    };
    let web = accept_hdr_async(stream, look).await.ok()?;
    let query = query.get().map(String::as_str).unwrap_or_default();
    let caller = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "from");
    let turns = parts(&caller?.1);
    Part { web, pcm: Vec::new() }.play(turns).await
}

/// One call of the agent's. A method's `None` is the end of the connection.
struct Part {
    web: WebSocketStream<TcpStream>,
    pcm: Vec<u8>,
}

enum CallerSound {
    Voice,
    Silence,
    Key,
}

impl Part {
    async fn play(mut self, turns: &[Turn]) -> Option<()> {
        for turn in turns {
            match turn {
                Turn::Says(text, milliseconds) => self.say(text, *milliseconds).await?,
                Turn::Hears(text) => self.hear_out(text).await?,
                Turn::IsInterrupted => {
                    while !matches!(self.hear().await?, CallerSound::Voice) {}
                    self.send(json!({"type": "interruption"})).await?;
                }
                Turn::WaitsForKey => while !matches!(self.hear().await?, CallerSound::Key) {},
                Turn::HangsUp => return self.web.close(None).await.ok(),
            }
        }
        // The rest of the call is the caller's.
        while self.hear().await.is_some() {}
        None
    }

    async fn say(&mut self, text: &str, milliseconds: u32) -> Option<()> {
        self.send(json!({"type": "transcript", "role": "agent", "text": text})).await?;
        let audio = sts::audio(&speech(milliseconds, PITCH));
        self.web.send(Message::text(audio)).await.ok()
    }

    async fn hear_out(&mut self, text: &str) -> Option<()> {
        while !matches!(self.hear().await?, CallerSound::Voice) {}
        let mut silent = 0;
        while silent < PAUSE {
            silent =
                if matches!(self.hear().await?, CallerSound::Silence) { silent + 1 } else { 0 };
        }
        self.send(json!({"type": "transcript", "role": "user", "text": text})).await
    }

    /// The next audio or key of the caller.
    async fn hear(&mut self) -> Option<CallerSound> {
        loop {
            let Message::Text(text) = self.web.next().await?.ok()? else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).ok()?;
            match message["type"].as_str()? {
                "audio" => {
                    sts::decode_audio(message["audio"].as_str()?, &mut self.pcm);
                    let voice = is_voice(&self.pcm);
                    return Some(if voice { CallerSound::Voice } else { CallerSound::Silence });
                }
                "dtmf_digit" => return Some(CallerSound::Key),
                _ => {}
            }
        }
    }

    async fn send(&mut self, message: Value) -> Option<()> {
        self.web.send(Message::text(message.to_string())).await.ok()
    }
}
