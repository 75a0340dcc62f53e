//! The demo's phone: Asterisk and a caller in one, who calls by the dialplan's two steps.
//!
//! `POST /call`, then AudioSocket with the same UUID: a frame each 20 ms, be it silence, until the
//! caller, or the other end, hangs up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::speech::speech;
use crate::audiosocket::{self, FRAME_AUDIO, FRAME_TIME, Frame};
use crate::event::CallId;

/// The pitch of a caller's voice, in Hz.
const PITCH: f64 = 120.0;

/// Frames without any audio that end what the agent says: 200 ms.
const PAUSE: u32 = 10;

/// What a caller does next.
#[derive(Clone, Debug)]
pub enum CallerStep {
    /// Listens until the agent has said something and is silent.
    HearsOut,
    /// Listens for some milliseconds from when the agent begins to speak.
    Hears(u32),
    /// In milliseconds.
    Says(u32),
    /// Is silent for some milliseconds.
    Waits(u32),
    Presses(char),
    /// Waits for the other end to hang up.
    StaysOn,
}

/// Calls as a dialplan does, on the ports that Asterisk uses.
#[derive(Clone)]
pub struct Dialplan {
    pub http: reqwest::Client,
    pub front: SocketAddr,
    pub audio: SocketAddr,
}

pub struct Impression {
    /// What `POST /call` answered.
    pub route: String,
    /// Of the agent.
    pub heard: Duration,
}

impl Dialplan {
    /// Plays one call to its end.
    ///
    /// # Errors
    /// Where a port does not answer as it should.
    pub async fn call(
        &self,
        call: CallId,
        from: &str,
        after: Duration,
        steps: &[CallerStep],
    ) -> anyhow::Result<Impression> {
        sleep(after).await;
        let payload =
            json!({"from": from, "to": "5001", "channel": format!("PJSIP/{from}-00000013")});
        let route = self.announce(json!({"uuid": call.to_string(), "payload": payload})).await?;
        let stream = TcpStream::connect(self.audio).await.context("AudioSocket")?;
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(&[&[0x01, 0, 16], &call.to_bytes()[..]].concat()).await?;
        let mut line = FarEnd { frames: 0, silent: 0, ended: false, buffer: Vec::new() };
        let mut clock = interval(FRAME_TIME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for step in steps {
            let (mut said, mut ticks, heard_before) = (step.frames(), 0, line.frames);
            while !line.ended
                && (!said.is_empty()
                    || !step.is_over(ticks, line.frames - heard_before, line.silent))
            {
                tokio::select! {
                    read = reader.read_buf(&mut line.buffer) => line.take(read.unwrap_or_default()),
                    _ = clock.tick() => {
                        line.silent += 1;
                        ticks += 1;
                        let frame = said.pop_front().unwrap_or_else(|| audio(&[0; FRAME_AUDIO]));
                        // Where the other end hung up the next read tells.
                        writer.write_all(&frame).await.ok();
                    }
                }
            }
        }
        Ok(Impression { route, heard: FRAME_TIME * line.frames })
    }

    async fn announce(&self, body: Value) -> anyhow::Result<String> {
        let url = format!("http://{}/call", self.front);
        let request = self.http.post(&url).body(body.to_string());
        let response = request.send().await.with_context(|| format!("POST {url}"))?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "POST {url} was answered {status}: {text}");
        Ok(text)
    }
}

/// What came from the other end.
struct FarEnd {
    /// Frames of audio.
    frames: u32,
    /// Ticks since the last one.
    silent: u32,
    ended: bool,
    buffer: Vec<u8>,
}

impl FarEnd {
    fn take(&mut self, bytes: usize) {
        self.ended |= bytes == 0;
        let mut start = 0;
        while let Ok(Some((frame, length))) = audiosocket::read(&self.buffer[start..]) {
            start += length;
            match frame {
                // Of callhook's own, while the agent says nothing.
                Frame::Audio { samples, .. } if samples.iter().all(|byte| *byte == 0) => {}
                Frame::Audio { .. } => {
                    self.frames += 1;
                    self.silent = 0;
                }
                Frame::HangUp | Frame::Uuid(_) | Frame::Digit(_) => self.ended = true,
            }
        }
        self.buffer.drain(..start);
    }
}

impl CallerStep {
    /// What is sent for it.
    fn frames(&self) -> VecDeque<Vec<u8>> {
        match self {
            Self::Says(milliseconds) => {
                speech(*milliseconds, PITCH).as_chunks().0.iter().map(audio).collect()
            }
            Self::Presses(digit) => [vec![0x03, 0, 1, *digit as u8]].into(),
            Self::HearsOut | Self::Hears(_) | Self::Waits(_) | Self::StaysOn => VecDeque::new(),
        }
    }

    /// Whether it is over after this many ticks, and frames heard, the last one `silent` ticks ago.
    fn is_over(&self, ticks: u32, heard: u32, silent: u32) -> bool {
        match self {
            Self::HearsOut => heard > 0 && silent >= PAUSE,
            Self::Hears(milliseconds) => heard >= milliseconds / 20,
            Self::Waits(milliseconds) => ticks >= milliseconds / 20,
            Self::Says(_) | Self::Presses(_) => true,
            Self::StaysOn => false,
        }
    }
}

fn audio(pcm: &[u8; FRAME_AUDIO]) -> Vec<u8> {
    audiosocket::audio_frame(pcm).to_vec()
}
