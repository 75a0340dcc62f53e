//! What the bridge counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::life::EndReason;
use crate::calls::CannotBegin;
use crate::label::Each;
use crate::queue::metrics::RefusalReason;

/// From a wrong number to an hour.
const CALL_SECONDS: [f64; 10] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// What callers take for an answer, and what they hang up for.
const RESPONSE_SECONDS: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0];

/// An STS server is tried for 5 s at most.
const CONNECT_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Debug, Default)]
pub struct BridgeMetrics {
    pub calls: CallMetrics,
    pub playout: PlayoutMetrics,
    /// Events that were not taken. The queue's own counter, which has those of bridged calls too.
    pub refused: Each<RefusalReason>,
}

#[derive(Clone, Debug)]
pub struct CallMetrics {
    pub live: Gauge,
    pub ended: Each<EndReason>,
    /// Calls that never began.
    pub turned_away: Each<CannotBegin>,
    pub seconds: Histogram,
    pub caller_frames: Counter,
    /// Of `caller_frames`, those that the server was not sent.
    pub caller_frames_dropped: Counter,
    /// The agent's audio that found no room, in bytes.
    pub surplus_bytes: Counter,
    pub connect_seconds: Histogram,
    pub connect_failures: Counter,
    /// From the call's first frame.
    pub first_audio_seconds: Histogram,
    /// From a transcript of the user's.
    pub response_seconds: Histogram,
}

#[derive(Clone, Debug, Default)]
pub struct PlayoutMetrics {
    pub played: Counter,
    /// Frames that were dropped, because Asterisk does not read.
    pub unread: Counter,
    pub ticks: Counter,
    /// Of `ticks`, those that were a frame late or more.
    pub late: Counter,
}

impl BridgeMetrics {
    /// Registers all but `refused`, which the queue does.
    pub fn register(&self, to: &mut Registry) {
        self.calls.register(to);
        self.playout.register(to);
    }
}

impl CallMetrics {
    fn register(&self, to: &mut Registry) {
        to.register("calls_live", "Calls that are bridged now", self.live.clone());
        to.register("calls_ended", "Calls that ended, by reason", self.ended.clone());
        let help = "Calls on AudioSocket that were refused, by reason";
        to.register("calls_refused", help, self.turned_away.clone());
        let help = "Time from a call's first frame to its end";
        to.register_with_unit("call_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Frames of audio that callers sent";
        to.register("caller_frames", help, self.caller_frames.clone());
        let help = "Caller's frames that the STS server was not sent: not connected in time, or not reading";
        to.register("caller_frames_dropped", help, self.caller_frames_dropped.clone());
        let help = "Audio of the STS server that found no room, being 30 s ahead of what is played";
        let (name, metric) = ("agent_audio_dropped", self.surplus_bytes.clone());
        to.register_with_unit(name, help, Unit::Bytes, metric);
        let help = "Time until an STS server was connected";
        to.register_with_unit("sts_connect", help, Unit::Seconds, self.connect_seconds.clone());
        let help = "STS servers that could not be connected to";
        to.register("sts_connect_failures", help, self.connect_failures.clone());
        let help = "Time from a call's first frame to its agent's first audio";
        let (name, metric) = ("agent_first_audio", self.first_audio_seconds.clone());
        to.register_with_unit(name, help, Unit::Seconds, metric);
        let help =
            "Time from a transcript of what a silent agent's user said to the agent's next audio";
        let (name, metric) = ("agent_response", self.response_seconds.clone());
        to.register_with_unit(name, help, Unit::Seconds, metric);
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            live: Gauge::default(),
            ended: Each::default(),
            turned_away: Each::default(),
            seconds: Histogram::new(CALL_SECONDS),
            caller_frames: Counter::default(),
            caller_frames_dropped: Counter::default(),
            surplus_bytes: Counter::default(),
            connect_seconds: Histogram::new(CONNECT_SECONDS),
            connect_failures: Counter::default(),
            first_audio_seconds: Histogram::new(RESPONSE_SECONDS),
            response_seconds: Histogram::new(RESPONSE_SECONDS),
        }
    }
}

impl PlayoutMetrics {
    fn register(&self, to: &mut Registry) {
        let help = "Frames of 20 ms that were played to callers";
        to.register("agent_frames_played", help, self.played.clone());
        let help = "Frames that were not played, because Asterisk does not read";
        to.register("agent_frames_unread", help, self.unread.clone());
        let help = "Ticks of the clock of 20 ms, which runs while anything is to be played";
        to.register("playout_ticks", help, self.ticks.clone());
        let help = "Ticks that came 20 ms late or later";
        to.register("playout_late_ticks", help, self.late.clone());
    }
}
