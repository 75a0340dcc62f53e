//! What operators set about calls.

use std::str::FromStr;
use std::time::Duration;

use crate::listener::Listen;

/// AudioSocket and the call.
#[derive(Clone, Debug)]
pub struct CallSettings {
    /// Where AudioSocket listens.
    pub listen: Listen,
    /// What callers' audio of kind 0x10 is.
    pub codec: AudioCodec,
    /// A call without any frame for so long is ended.
    pub idle_timeout: Duration,
    /// Whether `call_ended` says why and how long.
    pub ended_details: bool,
}

/// `AUDIO_CODEC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// Told from the first frames.
    Auto,
    /// Signed linear, 16 bit, little-endian.
    Slin,
    /// G.711 µ-law.
    Ulaw,
    /// G.711 A-law.
    Alaw,
}

impl FromStr for AudioCodec {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "slin" => Ok(Self::Slin),
            "ulaw" => Ok(Self::Ulaw),
            "alaw" => Ok(Self::Alaw),
            _ => Err("expected auto, slin, ulaw or alaw"),
        }
    }
}
