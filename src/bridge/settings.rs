//! What operators set about calls.

use std::str::FromStr;
use std::time::Duration;

use super::codec::Codec;
use crate::listener::ListenAddress;

/// AudioSocket and the call.
#[derive(Clone, Debug)]
pub struct CallSettings {
    pub listen: ListenAddress,
    /// What callers' audio of kind 0x10 is.
    pub codec: AudioCodec,
    /// A call is ended after so long without any frame.
    pub idle_timeout: Duration,
    /// A call is ended after so long; `None` = never.
    pub max_duration: Option<Duration>,
    /// Whether `call_ended` says why and how long.
    pub ended_details: bool,
}

/// `AUDIO_CODEC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// Detected from the first frames.
    Auto,
    Fixed(Codec),
}

impl FromStr for AudioCodec {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            codec => {
                let codec = codec.parse().map_err(|_| "expected auto, slin, ulaw or alaw")?;
                Ok(Self::Fixed(codec))
            }
        }
    }
}
