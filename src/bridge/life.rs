//! The life of one call: a state machine that sees no clock and no socket.
//!
//! Owns what follows from what happens, and why a call ends. What happened comes in with its data, as a
//! [`LifeInput`]; what is to be done comes out with the data it takes, as [`LifeAction`]s, so that
//! whoever has the sockets and the time decides nothing.
//!
//! A state is a function, and an input a row in each of them; the test walks the whole table.
//!
//! Invariants:
//! - A call ends once, for the first [`EndReason`] there is.
//! - Where the server closed, what it said before is played to its end; else nothing is played once the call
//!   is ending. Of what the server says then only transcripts and errors count.

use serde_json::json;
use strum::VariantArray as _;

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
    /// callhook was told to stop.
    Shutdown,
    /// callhook itself died, or failed, in the middle.
    Restart,
}

impl EndReason {
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Label for EndReason {
    fn all() -> Vec<Self> {
        Self::VARIANTS.to_vec()
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
use LifeState::{Alone, Connected, Ending, Over, PlayingOut, Reaching, Talking};

/// What is to be done, in this order. No row needs more than two.
pub type LifeActions<'a> = [Option<LifeAction<'a>>; 2];

impl LifeState {
    /// Where an input leads, and what is to be done.
    pub fn after(self, input: LifeInput<'_>) -> (Self, LifeActions<'_>) {
        match self {
            Reaching => reaching(input),
            Connected | Talking => talking(self, input),
            Alone => alone(&input),
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
            Reaching | Connected | Talking | Alone | PlayingOut(_) => None,
            Ending(reason) | Over(reason) => Some(reason),
        }
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
        // There is no server yet to say anything.
        LifeInput::Speech(_)
        | LifeInput::Interruption { .. }
        | LifeInput::Transcript { .. }
        | LifeInput::StsError { .. }
        | LifeInput::StsGone { .. }
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
            if busy { (PlayingOut(reason), nothing()) } else { (Over(reason), one(HangUp)) }
        }
        LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::PlayedOut
        | LifeInput::GraceOver => (state, nothing()),
    }
}

/// The server has ended the call already: whatever else happens does not change the reason.
fn playing_out(reason: EndReason, input: &LifeInput<'_>) -> (LifeState, LifeActions<'static>) {
    match input {
        LifeInput::Digit(key) => (PlayingOut(reason), one(digit(*key))),
        LifeInput::HungUp
        | LifeInput::BadFrame
        | LifeInput::Idle
        | LifeInput::Shutdown
        | LifeInput::PlayedOut => (Over(reason), one(HangUp)),
        LifeInput::Audio(_)
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::Speech(_)
        | LifeInput::Interruption { .. }
        | LifeInput::Transcript { .. }
        | LifeInput::StsError { .. }
        | LifeInput::StsGone { .. }
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
        LifeInput::Audio(_)
        | LifeInput::StsReached
        | LifeInput::StsFailed
        | LifeInput::NoSts
        | LifeInput::Speech(_)
        | LifeInput::Interruption { .. }
        | LifeInput::Transcript { .. }
        | LifeInput::StsError { .. }
        | LifeInput::StsGone { .. }
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

    const ROWS: usize = 20;

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
        ]
    }

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
        ]
    }

    fn alone_column() -> Column {
        let over = |reason| (Over(reason), &["hang up"][..]);
        let mut column = [(Alone, &[][..]); ROWS];
        column[1] = (Alone, &[DIGIT]);
        column[2] = over(EndReason::Hangup);
        column[3] = over(EndReason::ProtocolError);
        column[4] = over(EndReason::Idle);
        column[5] = over(EndReason::Shutdown);
        column
    }

    fn playing_out_column(reason: EndReason) -> Column {
        let over = (Over(reason), &["hang up"][..]);
        let mut column = [(PlayingOut(reason), &[][..]); ROWS];
        column[1] = (PlayingOut(reason), &[DIGIT]);
        column[2..6].fill(over);
        column[ROWS - 1] = over;
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
        ];
        for reason in EndReason::VARIANTS.iter().copied() {
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
        for state in [Reaching, Connected, Talking, Alone, PlayingOut(EndReason::StsClosed)] {
            assert!(state.is_live(), "{state:?}");
        }
        for reason in EndReason::VARIANTS.iter().copied() {
            for state in [Ending(reason), Over(reason)] {
                assert_eq!((state.is_live(), state.end()), (false, Some(reason)), "{state:?}");
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
                "sts_closed",
                "sts_failed",
                "sts_lost",
                "protocol_error",
                "idle",
                "shutdown",
                "restart"
            ]
        );
    }
}
