//! The life of one call: a state machine that sees no clock and no socket.
//!
//! Owns what follows from what happens, and why a call ends. What happened comes in with its data, as a
//! [`LifeInput`]; what is to be done comes out with the data it takes, as [`LifeAction`]s, so that
//! whoever has the sockets and the time decides nothing.
//!
//! A state is a function, and an input a row in each of them; the test walks the whole table.
//!
//! Invariants:
//! - A call ends once, for the first [`EndReason`] there is. Three reasons can still change before the end: one of the
//!   server's gives way to what was asked meanwhile, a hang-up that was asked for to a transfer, and a transfer to the
//!   hang-up of its caller.
//! - Where the server closed, or the agent's time is over, what it said before is played to its end; else nothing is
//!   played once the call is ending. Of what the server says then only transcripts and errors count.
//! - An agent that asked for the end is heard until it has said goodbye.

use serde_json::json;
use strum::VariantArray as _;

use crate::calls::Ask;
use crate::event::{EventType, Payload};
use crate::label::Label;
use crate::sts;

/// Why a call ended. Its name in logs, metrics and payloads is that of the variant, in snake case.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum EndReason {
    /// The caller hung up.
    Hangup,
    /// The agent asked for the end, or somebody at the inspector.
    AgentHangup,
    /// The agent asked to send the caller on.
    Transfer,
    /// The STS server closed its connection, as it does when the conversation is over.
    StsClosed,
    /// The STS server could not be reached, or closed before it said anything: so does one whose provider has
    /// no quota left.
    StsFailed,
    /// The connection to the STS server broke in the middle, or was closed because of a fault.
    StsLost,
    /// Asterisk sent what cannot be read.
    ProtocolError,
    /// Nothing came from the caller for `CALL_IDLE_TIMEOUT`.
    Idle,
    /// There were `CALL_LIMIT` calls already: it never began.
    Limit,
    /// `POST /call` did not announce it, which it had to: it never began.
    NotAnnounced,
    /// It lasted for `CALL_MAX_DURATION`.
    MaxDuration,
    /// callhook was told to stop.
    Shutdown,
    /// callhook itself died, or failed, in the middle.
    Restart,
}

impl EndReason {
    pub fn name(self) -> &'static str {
        self.into()
    }

    fn of(ask: Ask) -> Self {
        match ask {
            Ask::HangUp => Self::AgentHangup,
            Ask::Transfer => Self::Transfer,
        }
    }

    /// The reason once this was asked, while the caller hears the last words.
    fn once_asked(self, ask: Ask) -> Self {
        match (self, ask) {
            (Self::StsClosed | Self::StsFailed | Self::StsLost, _)
            | (Self::AgentHangup, Ask::Transfer) => Self::of(ask),
            (Self::AgentHangup, Ask::HangUp)
            | (
                Self::Hangup
                | Self::Transfer
                | Self::ProtocolError
                | Self::Idle
                | Self::Limit
                | Self::NotAnnounced
                | Self::MaxDuration
                | Self::Shutdown
                | Self::Restart,
                _,
            ) => self,
        }
    }

    /// The reason once the caller has hung up: nobody is left to be sent on.
    fn once_hung_up(self) -> Self {
        if self == Self::Transfer { Self::Hangup } else { self }
    }

    /// Whether the caller had no agent, or lost it.
    pub fn is_agents_failure(self) -> bool {
        matches!(self, Self::StsFailed | Self::StsLost)
    }

    /// Whether calls of this reason never begin.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Limit | Self::NotAnnounced)
    }
}

impl Label for EndReason {
    fn all() -> Vec<Self> {
        Self::VARIANTS.iter().copied().filter(|reason| !reason.is_refusal()).collect()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.name())]
    }
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(strum::EnumCount))]
pub enum LifeState {
    /// The server is being connected to; the caller hears silence.
    Reaching,
    /// Both are connected; the server has said nothing yet.
    Connected,
    /// The server has said something.
    Talking,
    /// There is no server for this call.
    Alone,
    /// The end was asked for; the agent says goodbye.
    Goodbye(Ask),
    /// The agent's time is over; the caller hears what it said last.
    LastWords(EndReason),
    /// The server is gone; the caller hears what it said last.
    PlayingOut(EndReason),
    /// The caller is gone; the server may have last transcripts.
    Ending(EndReason),
    /// Nothing happens any more.
    Over(EndReason),
}

/// What happened to a call.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(strum::EnumCount))]
pub enum LifeInput<'a> {
    /// The caller sent audio that can be read; this is the message that takes it to the server.
    Audio(String),
    /// The caller pressed a key.
    Digit(char),
    /// The caller hung up.
    HungUp,
    /// Asterisk sent what is no frame, or none that belongs here.
    BadFrame,
    /// No frame came for too long.
    Idle,
    /// callhook is to stop.
    Shutdown,
    /// The server is connected.
    StsReached,
    /// The server could not be reached in time.
    StsFailed,
    /// There is none for this call.
    NoSts,
    /// The server sent audio, here decoded.
    Speech(&'a [u8]),
    /// The server says that the caller breaks in.
    Interruption {
        /// Whether the caller was hearing the agent.
        busy: bool,
    },
    /// Something was said.
    Transcript { role: String, text: String },
    /// The server reports an error; it may go on all the same.
    StsError { message: String },
    /// Somebody asked for the end.
    Asked(Ask),
    /// The agent has said goodbye.
    GoodbyeOver,
    /// Its goodbye takes too long.
    GoodbyeLate,
    /// The call has lasted as long as one may.
    MaxDuration,
    /// The server is gone.
    StsGone {
        /// It meant to end the call.
        orderly: bool,
        /// The caller still hears what it said.
        busy: bool,
    },
    /// The caller has heard all that was queued.
    PlayedOut,
    /// The time for last transcripts is over.
    GraceOver,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum LifeAction<'a> {
    /// Keep the message until the server is connected.
    Hold(String),
    /// Send the message on to the server.
    Forward(String),
    /// Send on what was held.
    ForwardHeld,
    /// Queue the audio to be played.
    Play(&'a [u8]),
    /// Drop what is queued to be played.
    Silence,
    /// Report an event of the call.
    Report(EventType, Payload),
    /// Let Asterisk hang up, and play nothing more.
    HangUp,
    /// Give the server time for last transcripts, up to [`LifeInput::GraceOver`].
    AwaitTranscripts,
}

use LifeAction::{AwaitTranscripts, Forward, ForwardHeld, HangUp, Hold, Play, Report, Silence};
use LifeState::{
    Alone, Connected, Ending, Goodbye, LastWords, Over, PlayingOut, Reaching, Talking,
};

/// What is to be done, in this order. No row needs more than two.
pub type LifeActions<'a> = [Option<LifeAction<'a>>; 2];

impl LifeState {
    /// Where an input leads, and what is to be done.
    pub fn after(self, input: LifeInput<'_>) -> (Self, LifeActions<'_>) {
        match self {
            Reaching => reaching(input),
            Connected | Talking => talking(self, input),
            Alone => alone(&input),
            Goodbye(ask) => goodbye(ask, input),
            LastWords(reason) => last_words(reason, input),
            PlayingOut(reason) => playing_out(reason, &input),
            Ending(reason) => ending(reason, input),
            // Whatever comes: a call that is over stays so.
            Over(_) => (self, nothing()),
        }
    }

    /// Whether the caller is still there.
    pub fn is_live(self) -> bool {
        self.end().is_none()
    }

    /// Why the call ended, if it has.
    pub fn end(self) -> Option<EndReason> {
        match self {
            Reaching | Connected | Talking | Alone | Goodbye(_) | LastWords(_) | PlayingOut(_) => {
                None
            }
            Ending(reason) | Over(reason) => Some(reason),
        }
    }

    /// Whether what is asked now has an effect.
    pub fn takes_requests(self) -> bool {
        match self {
            Reaching | Connected | Talking | Alone | Goodbye(_) => true,
            LastWords(reason) | PlayingOut(reason) => reason != EndReason::MaxDuration,
            Ending(_) | Over(_) => false,
        }
    }

    /// Whether the call is over as soon as all that is queued was played.
    pub fn is_playing_out(self) -> bool {
        matches!(self, LastWords(_) | PlayingOut(_))
    }
}

fn reaching(input: LifeInput<'_>) -> (LifeState, LifeActions<'_>) {
    let over = |reason| (Over(reason), one(HangUp));
    match input {
        LifeInput::Audio(message) => (Reaching, one(Hold(message))),
        LifeInput::Digit(key) => (Reaching, two(digit(key), Hold(sts::digit(key)))),
        LifeInput::StsReached => (Connected, one(ForwardHeld)),
        LifeInput::StsFailed => over(EndReason::StsFailed),
        LifeInput::NoSts => (Alone, nothing()),
        LifeInput::HungUp => over(EndReason::Hangup),
        LifeInput::BadFrame => over(EndReason::ProtocolError),
        LifeInput::Idle => over(EndReason::Idle),
        LifeInput::Shutdown => over(EndReason::Shutdown),
        LifeInput::MaxDuration => over(EndReason::MaxDuration),
        // There is no agent to say goodbye.
        LifeInput::Asked(ask) => over(EndReason::of(ask)),
        // There is no server yet to say anything.
        LifeInput::Speech(_)
        | LifeInput::Interruption { .. }
        | LifeInput::Transcript { .. }
        | LifeInput::StsError { .. }
        | LifeInput::StsGone { .. }
        | LifeInput::GoodbyeOver
        | LifeInput::GoodbyeLate
        | LifeInput::PlayedOut
        | LifeInput::GraceOver => (Reaching, nothing()),
    }
}

/// `state` is [`Connected`] or [`Talking`].
fn talking(state: LifeState, input: LifeInput<'_>) -> (LifeState, LifeActions<'_>) {
    let ending = |reason| (Ending(reason), two(HangUp, AwaitTranscripts));
    match input {
        LifeInput::Audio(message) => (state, one(Forward(message))),
        LifeInput::Digit(key) => (state, two(digit(key), Forward(sts::digit(key)))),
        LifeInput::Speech(pcm) => (Talking, one(Play(pcm))),
        LifeInput::Interruption { busy: true } => (state, two(Silence, interruption())),
        // Most servers also say so of every sentence of a caller who interrupts nobody.
        LifeInput::Interruption { busy: false } => (state, nothing()),
        LifeInput::Transcript { role, text } => (Talking, one(transcription(&role, &text))),
        LifeInput::StsError { message } => (state, one(error(&message))),
        LifeInput::HungUp => ending(EndReason::Hangup),
        LifeInput::BadFrame => ending(EndReason::ProtocolError),
        LifeInput::Idle => ending(EndReason::Idle),
        LifeInput::Shutdown => ending(EndReason::Shutdown),
        LifeInput::StsGone { orderly, busy } => {
            let reason = match (state, orderly) {
                (Connected, _) => EndReason::StsFailed,
                (_, true) => EndReason::StsClosed,
                (_, false) => EndReason::StsLost,
            };
            played_out(reason, busy)
        }
        LifeInput::Asked(ask) => (Goodbye(ask), nothing()),
        LifeInput::MaxDuration => (LastWords(EndReason::MaxDuration), nothing()),
        LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::GoodbyeOver
        | LifeInput::GoodbyeLate
        | LifeInput::PlayedOut
        | LifeInput::GraceOver => (state, nothing()),
    }
}

/// The agent is heard as before, and the call ends once it has said goodbye.
fn goodbye(ask: Ask, input: LifeInput<'_>) -> (LifeState, LifeActions<'_>) {
    let (state, reason) = (Goodbye(ask), EndReason::of(ask));
    let ending = |reason| (Ending(reason), two(HangUp, AwaitTranscripts));
    match input {
        LifeInput::Audio(message) => (state, one(Forward(message))),
        LifeInput::Digit(key) => (state, two(digit(key), Forward(sts::digit(key)))),
        LifeInput::Speech(pcm) => (state, one(Play(pcm))),
        LifeInput::Interruption { busy: true } => (state, two(Silence, interruption())),
        LifeInput::Transcript { role, text } => (state, one(transcription(&role, &text))),
        LifeInput::StsError { message } => (state, one(error(&message))),
        LifeInput::Asked(newer) => (Goodbye(ask.max(newer)), nothing()),
        LifeInput::HungUp => ending(reason.once_hung_up()),
        LifeInput::GoodbyeOver | LifeInput::BadFrame | LifeInput::Idle | LifeInput::Shutdown => {
            ending(reason)
        }
        LifeInput::GoodbyeLate | LifeInput::MaxDuration => (LastWords(reason), nothing()),
        LifeInput::StsGone { busy, .. } => played_out(reason, busy),
        LifeInput::Interruption { busy: false }
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::PlayedOut
        | LifeInput::GraceOver => (state, nothing()),
    }
}

/// The server is still there, and what it says now is not played any more.
fn last_words(reason: EndReason, input: LifeInput<'_>) -> (LifeState, LifeActions<'_>) {
    let state = LastWords(reason);
    let ending = |reason| (Ending(reason), two(HangUp, AwaitTranscripts));
    match input {
        LifeInput::Audio(message) => (state, one(Forward(message))),
        LifeInput::Digit(key) => (state, two(digit(key), Forward(sts::digit(key)))),
        LifeInput::Interruption { busy: true } => (state, two(Silence, interruption())),
        LifeInput::Transcript { role, text } => (state, one(transcription(&role, &text))),
        LifeInput::StsError { message } => (state, one(error(&message))),
        LifeInput::Asked(ask) => (LastWords(reason.once_asked(ask)), nothing()),
        LifeInput::HungUp => ending(reason.once_hung_up()),
        LifeInput::BadFrame | LifeInput::Idle | LifeInput::Shutdown | LifeInput::PlayedOut => {
            ending(reason)
        }
        LifeInput::StsGone { busy, .. } => played_out(reason, busy),
        LifeInput::Speech(_)
        | LifeInput::Interruption { busy: false }
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::GoodbyeOver
        | LifeInput::GoodbyeLate
        | LifeInput::MaxDuration
        | LifeInput::GraceOver => (state, nothing()),
    }
}

/// The server is gone: the end, once what is queued was played.
fn played_out<'a>(reason: EndReason, busy: bool) -> (LifeState, LifeActions<'a>) {
    if busy { (PlayingOut(reason), nothing()) } else { (Over(reason), one(HangUp)) }
}

/// The server is gone, and the call has a reason to end.
fn playing_out(reason: EndReason, input: &LifeInput<'_>) -> (LifeState, LifeActions<'static>) {
    match input {
        LifeInput::Digit(key) => (PlayingOut(reason), one(digit(*key))),
        LifeInput::Asked(ask) => (PlayingOut(reason.once_asked(*ask)), nothing()),
        LifeInput::HungUp => (Over(reason.once_hung_up()), one(HangUp)),
        LifeInput::BadFrame | LifeInput::Idle | LifeInput::Shutdown | LifeInput::PlayedOut => {
            (Over(reason), one(HangUp))
        }
        LifeInput::Audio(_)
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::Speech(_)
        | LifeInput::Interruption { .. }
        | LifeInput::Transcript { .. }
        | LifeInput::StsError { .. }
        | LifeInput::StsGone { .. }
        | LifeInput::GoodbyeOver
        | LifeInput::GoodbyeLate
        | LifeInput::MaxDuration
        | LifeInput::GraceOver => (PlayingOut(reason), nothing()),
    }
}

fn alone(input: &LifeInput<'_>) -> (LifeState, LifeActions<'static>) {
    let over = |reason| (Over(reason), one(HangUp));
    match input {
        LifeInput::Digit(key) => (Alone, one(digit(*key))),
        LifeInput::HungUp => over(EndReason::Hangup),
        LifeInput::BadFrame => over(EndReason::ProtocolError),
        LifeInput::Idle => over(EndReason::Idle),
        LifeInput::Shutdown => over(EndReason::Shutdown),
        LifeInput::MaxDuration => over(EndReason::MaxDuration),
        LifeInput::Asked(ask) => over(EndReason::of(*ask)),
        LifeInput::Audio(_)
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::Speech(_)
        | LifeInput::Interruption { .. }
        | LifeInput::Transcript { .. }
        | LifeInput::StsError { .. }
        | LifeInput::StsGone { .. }
        | LifeInput::GoodbyeOver
        | LifeInput::GoodbyeLate
        | LifeInput::PlayedOut
        | LifeInput::GraceOver => (Alone, nothing()),
    }
}

fn ending(reason: EndReason, input: LifeInput<'_>) -> (LifeState, LifeActions<'_>) {
    match input {
        LifeInput::Transcript { role, text } => (Ending(reason), one(transcription(&role, &text))),
        LifeInput::StsError { message } => (Ending(reason), one(error(&message))),
        LifeInput::StsGone { .. } | LifeInput::GraceOver => (Over(reason), nothing()),
        LifeInput::Audio(_)
        | LifeInput::Digit(_)
        | LifeInput::HungUp
        | LifeInput::BadFrame
        | LifeInput::Idle
        | LifeInput::Shutdown
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::Speech(_)
        | LifeInput::Asked(_)
        | LifeInput::GoodbyeOver
        | LifeInput::GoodbyeLate
        | LifeInput::MaxDuration
        | LifeInput::PlayedOut
        | LifeInput::Interruption { .. } => (Ending(reason), nothing()),
    }
}

fn nothing<'a>() -> LifeActions<'a> {
    [None, None]
}

fn one(action: LifeAction<'_>) -> LifeActions<'_> {
    [Some(action), None]
}

fn two<'a>(first: LifeAction<'a>, second: LifeAction<'a>) -> LifeActions<'a> {
    [Some(first), Some(second)]
}

fn digit<'a>(digit: char) -> LifeAction<'a> {
    Report(EventType::DtmfDigit, Payload::of(&json!({"digit": digit})))
}

fn interruption<'a>() -> LifeAction<'a> {
    Report(EventType::Interruption, Payload::empty())
}

fn transcription<'a>(role: &str, text: &str) -> LifeAction<'a> {
    Report(EventType::Transcription, Payload::of(&json!({"role": role, "text": text})))
}

fn error<'a>(message: &str) -> LifeAction<'a> {
    Report(EventType::Error, Payload::of(&json!({"message": message})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::mem::discriminant;
    use strum::EnumCount as _;

    const ROWS: usize = 25;

    fn inputs() -> [LifeInput<'static>; ROWS] {
        [
            LifeInput::Audio("audio".to_owned()),
            LifeInput::Digit('5'),
            LifeInput::HungUp,
            LifeInput::BadFrame,
            LifeInput::Idle,
            LifeInput::Shutdown,
            LifeInput::StsReached,
            LifeInput::StsFailed,
            LifeInput::NoSts,
            LifeInput::Speech(&[7, 8]),
            LifeInput::Interruption { busy: true },
            LifeInput::Interruption { busy: false },
            LifeInput::Transcript { role: "user".to_owned(), text: "yes".to_owned() },
            LifeInput::StsError { message: "quota".to_owned() },
            LifeInput::StsGone { orderly: true, busy: false },
            LifeInput::StsGone { orderly: true, busy: true },
            LifeInput::StsGone { orderly: false, busy: false },
            LifeInput::StsGone { orderly: false, busy: true },
            LifeInput::GraceOver,
            LifeInput::PlayedOut,
            LifeInput::Asked(Ask::HangUp),
            LifeInput::Asked(Ask::Transfer),
            LifeInput::GoodbyeOver,
            LifeInput::GoodbyeLate,
            LifeInput::MaxDuration,
        ]
    }

    const PLAYED_OUT: usize = 19;
    const ASKED: usize = 20;
    const MAX_DURATION: usize = 24;

    const DIGIT: &str = r#"report dtmf_digit {"digit":"5"}"#;
    const INTERRUPTION: &str = "report interruption {}";
    const TRANSCRIPTION: &str = r#"report transcription {"role":"user","text":"yes"}"#;
    const ERROR: &str = r#"report error {"message":"quota"}"#;

    /// Where each input leads, in the order of [`inputs`].
    type Column = [(LifeState, &'static [&'static str]); ROWS];

    fn reaching_column() -> Column {
        let over = |reason| (Over(reason), &["hang up"][..]);
        let mut column = [(Reaching, &[][..]); ROWS];
        column[..9].copy_from_slice(&[
            (Reaching, &["hold audio"]),
            (Reaching, &[DIGIT, r#"hold {"type":"dtmf_digit","digit":"5"}"#]),
            over(EndReason::Hangup),
            over(EndReason::ProtocolError),
            over(EndReason::Idle),
            over(EndReason::Shutdown),
            (Connected, &["forward what was held"]),
            over(EndReason::StsFailed),
            (Alone, &[]),
        ]);
        column[ASKED..][..2]
            .copy_from_slice(&[over(EndReason::AgentHangup), over(EndReason::Transfer)]);
        column[MAX_DURATION] = over(EndReason::MaxDuration);
        column
    }

    /// Of a state with both connected; the server's end has these reasons where it is orderly, and not.
    fn connected_column(state: LifeState, [orderly, faulty]: [EndReason; 2]) -> Column {
        let ends = |reason| (Ending(reason), &["hang up", "await transcripts"][..]);
        let over = |reason| (Over(reason), &["hang up"][..]);
        let stays = (state, &[][..]);
        [
            (state, &["forward audio"]),
            (state, &[DIGIT, r#"forward {"type":"dtmf_digit","digit":"5"}"#]),
            ends(EndReason::Hangup),
            ends(EndReason::ProtocolError),
            ends(EndReason::Idle),
            ends(EndReason::Shutdown),
            stays,
            stays,
            stays,
            (Talking, &["play [7, 8]"]),
            (state, &["silence", INTERRUPTION]),
            stays,
            (Talking, &[TRANSCRIPTION]),
            (state, &[ERROR]),
            over(orderly),
            (PlayingOut(orderly), &[]),
            over(faulty),
            (PlayingOut(faulty), &[]),
            stays,
            stays,
            (Goodbye(Ask::HangUp), &[]),
            (Goodbye(Ask::Transfer), &[]),
            stays,
            stays,
            (LastWords(EndReason::MaxDuration), &[]),
        ]
    }

    /// Of a goodbye with this reason, which is another where the caller hangs up.
    fn goodbye_column(ask: Ask, reason: EndReason, hung_up: EndReason) -> Column {
        let state = Goodbye(ask);
        let ends = |reason| (Ending(reason), &["hang up", "await transcripts"][..]);
        let over = (Over(reason), &["hang up"][..]);
        let stays = (state, &[][..]);
        [
            (state, &["forward audio"]),
            (state, &[DIGIT, r#"forward {"type":"dtmf_digit","digit":"5"}"#]),
            ends(hung_up),
            ends(reason),
            ends(reason),
            ends(reason),
            stays,
            stays,
            stays,
            (state, &["play [7, 8]"]),
            (state, &["silence", INTERRUPTION]),
            stays,
            (state, &[TRANSCRIPTION]),
            (state, &[ERROR]),
            over,
            (PlayingOut(reason), &[]),
            over,
            (PlayingOut(reason), &[]),
            stays,
            stays,
            stays,
            (Goodbye(Ask::Transfer), &[]),
            ends(reason),
            (LastWords(reason), &[]),
            (LastWords(reason), &[]),
        ]
    }

    fn last_words_column(reason: EndReason) -> Column {
        let state = LastWords(reason);
        let ends = |reason| (Ending(reason), &["hang up", "await transcripts"][..]);
        let over = (Over(reason), &["hang up"][..]);
        let stays = (state, &[][..]);
        let [hung_up, asked @ ..] = later_reasons(reason);
        [
            (state, &["forward audio"]),
            (state, &[DIGIT, r#"forward {"type":"dtmf_digit","digit":"5"}"#]),
            ends(hung_up),
            ends(reason),
            ends(reason),
            ends(reason),
            stays,
            stays,
            stays,
            stays,
            (state, &["silence", INTERRUPTION]),
            stays,
            (state, &[TRANSCRIPTION]),
            (state, &[ERROR]),
            over,
            (PlayingOut(reason), &[]),
            over,
            (PlayingOut(reason), &[]),
            stays,
            ends(reason),
            (LastWords(asked[0]), &[]),
            (LastWords(asked[1]), &[]),
            stays,
            stays,
            stays,
        ]
    }

    /// What becomes of a reason when the caller hangs up, when a hang-up is asked for, and when a transfer is.
    fn later_reasons(reason: EndReason) -> [EndReason; 3] {
        match reason.name() {
            "transfer" => [EndReason::Hangup, reason, reason],
            "agent_hangup" => [reason, reason, EndReason::Transfer],
            "sts_closed" | "sts_failed" | "sts_lost" => {
                [reason, EndReason::AgentHangup, EndReason::Transfer]
            }
            _ => [reason; 3],
        }
    }

    fn alone_column() -> Column {
        let over = |reason| (Over(reason), &["hang up"][..]);
        let mut column = [(Alone, &[][..]); ROWS];
        column[1] = (Alone, &[DIGIT]);
        column[2] = over(EndReason::Hangup);
        column[3] = over(EndReason::ProtocolError);
        column[4] = over(EndReason::Idle);
        column[5] = over(EndReason::Shutdown);
        column[ASKED..][..2]
            .copy_from_slice(&[over(EndReason::AgentHangup), over(EndReason::Transfer)]);
        column[MAX_DURATION] = over(EndReason::MaxDuration);
        column
    }

    fn playing_out_column(reason: EndReason) -> Column {
        let over = (Over(reason), &["hang up"][..]);
        let mut column = [(PlayingOut(reason), &[][..]); ROWS];
        column[1] = (PlayingOut(reason), &[DIGIT]);
        let [hung_up, asked @ ..] = later_reasons(reason);
        column[2] = (Over(hung_up), &["hang up"]);
        column[3..6].fill(over);
        column[PLAYED_OUT] = over;
        column[ASKED] = (PlayingOut(asked[0]), &[]);
        column[ASKED + 1] = (PlayingOut(asked[1]), &[]);
        column
    }

    fn ending_column(reason: EndReason) -> Column {
        let mut column = [(Ending(reason), &[][..]); ROWS];
        column[12] = (Ending(reason), &[TRANSCRIPTION]);
        column[13] = (Ending(reason), &[ERROR]);
        column[14..19].fill((Over(reason), &[]));
        column
    }

    fn shown(action: LifeAction<'_>) -> String {
        match action {
            Hold(message) => format!("hold {message}"),
            Forward(message) => format!("forward {message}"),
            ForwardHeld => "forward what was held".to_owned(),
            Play(pcm) => format!("play {pcm:?}"),
            Silence => "silence".to_owned(),
            Report(kind, payload) => format!("report {kind} {}", payload.as_str()),
            HangUp => "hang up".to_owned(),
            AwaitTranscripts => "await transcripts".to_owned(),
        }
    }

    #[test]
    fn every_input_in_every_state_leads_where_the_table_says() {
        let mut table = vec![
            (Reaching, reaching_column()),
            (Connected, connected_column(Connected, [EndReason::StsFailed; 2])),
            (Talking, connected_column(Talking, [EndReason::StsClosed, EndReason::StsLost])),
            (Alone, alone_column()),
            (Goodbye(Ask::HangUp), {
                let reason = EndReason::AgentHangup;
                goodbye_column(Ask::HangUp, reason, reason)
            }),
            (
                Goodbye(Ask::Transfer),
                goodbye_column(Ask::Transfer, EndReason::Transfer, EndReason::Hangup),
            ),
        ];
        for reason in EndReason::VARIANTS.iter().copied() {
            table.push((LastWords(reason), last_words_column(reason)));
            table.push((PlayingOut(reason), playing_out_column(reason)));
            table.push((Ending(reason), ending_column(reason)));
            table.push((Over(reason), [(Over(reason), &[]); ROWS]));
        }
        let states: HashSet<_> = table.iter().map(|(state, _)| discriminant(state)).collect();
        assert_eq!(states.len(), LifeState::COUNT, "a state is missing");
        let known: HashSet<_> = inputs().iter().map(discriminant).collect();
        assert_eq!(known.len(), LifeInput::COUNT, "an input is missing");
        for (state, column) in table {
            for (input, (expected_state, expected_actions)) in inputs().into_iter().zip(column) {
                let case = format!("{state:?} {input:?}");
                let (after, actions) = state.after(input);
                let actions: Vec<_> = actions.into_iter().flatten().map(shown).collect();
                assert_eq!(after, expected_state, "{case}");
                assert_eq!(actions, expected_actions, "{case}");
            }
        }
    }

    #[test]
    fn a_call_lives_until_its_caller_is_gone() {
        let reason = EndReason::StsClosed;
        let goodbye = Goodbye(Ask::HangUp);
        let live =
            [Reaching, Connected, Talking, Alone, goodbye, LastWords(reason), PlayingOut(reason)];
        for state in live {
            assert!(state.is_live() && state.takes_requests(), "{state:?}");
        }
        for state in [LastWords, PlayingOut].map(|state| state(EndReason::MaxDuration)) {
            assert!(state.is_live() && !state.takes_requests(), "{state:?}");
        }
        for reason in EndReason::VARIANTS.iter().copied() {
            for state in [Ending(reason), Over(reason)] {
                assert_eq!((state.is_live(), state.end()), (false, Some(reason)), "{state:?}");
                assert!(!state.takes_requests(), "{state:?}");
            }
        }
    }

    #[test]
    fn a_reason_has_the_name_that_receivers_read() {
        let names: Vec<_> = EndReason::VARIANTS.iter().map(|reason| reason.name()).collect();
        assert_eq!(
            names,
            [
                "hangup",
                "agent_hangup",
                "transfer",
                "sts_closed",
                "sts_failed",
                "sts_lost",
                "protocol_error",
                "idle",
                "limit",
                "not_announced",
                "max_duration",
                "shutdown",
                "restart"
            ]
        );
    }
}
