//! The life of one call, as a state machine that sees no clock and no socket.
//!
//! What happens comes in as an [`Input`], with nothing of its data; what follows comes out as
//! [`Action`]s, for whoever has the data and the sockets.
//!
//! Invariants:
//! - A call ends once, for the first [`Reason`] there is.
//! - Once it is ending nothing is played, and of what the server says only transcripts and faults count.

use crate::label::Label;

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller hung up.
    Hangup,
    /// The speech-to-speech server closed its connection.
    StsClosed,
    /// The server could not be reached.
    StsFailed,
    /// Somebody sent what cannot be read.
    ProtocolError,
    /// Nothing came from the caller for `CALL_IDLE_TIMEOUT`.
    Idle,
    /// callhook was told to stop.
    Shutdown,
    /// callhook itself died, or failed, in the middle.
    Restart,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 7] = [
        Self::Hangup,
        Self::StsClosed,
        Self::StsFailed,
        Self::ProtocolError,
        Self::Idle,
        Self::Shutdown,
        Self::Restart,
    ];

    /// The name in logs and payloads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::StsClosed => "sts_closed",
            Self::StsFailed => "sts_failed",
            Self::ProtocolError => "protocol_error",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
            Self::Restart => "restart",
        }
    }
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server is being connected to; the caller hears silence.
    Reaching,
    /// Both are connected.
    Talking,
    /// There is no server for this call.
    Alone,
    /// The caller is gone; the server may have last transcripts.
    Ending(Reason),
    /// Nothing happens any more.
    Over(Reason),
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The caller sent audio that can be read.
    Audio,
    /// The caller pressed a key.
    Digit,
    /// The caller hung up.
    HungUp,
    /// The caller sent what is no frame.
    BadFrame,
    /// No frame came for too long.
    Idle,
    /// callhook is to stop.
    Shutdown,
    /// The server is connected.
    Reached,
    /// The server could not be reached in time.
    NotReached,
    /// There is none for this call.
    NoServer,
    /// The server sent audio.
    Speech,
    /// The server says that the caller breaks in.
    Interruption {
        /// Whether the caller was hearing the agent.
        busy: bool,
    },
    /// The server sent a transcript.
    Transcript,
    /// The server reports a fault.
    Fault,
    /// The server closed its connection.
    StsClosed,
    /// The server sent what cannot be read.
    StsBroke,
    /// The time for last transcripts is over.
    GraceOver,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep what the caller sent until the server is connected.
    Hold,
    /// Send it on to the server.
    Forward,
    /// Send on what was held.
    ForwardHeld,
    /// Queue what the server sent to be played.
    Play,
    /// Drop what is queued to be played.
    Silence,
    /// Report it as an event.
    Report,
    /// Let Asterisk hang up.
    HangUp,
}

use Action::{Forward, ForwardHeld, HangUp, Hold, Play, Report, Silence};

impl State {
    /// Where an input leads, and what is to be done.
    pub fn after(self, input: Input) -> (Self, &'static [Action]) {
        match self {
            Self::Reaching => reaching(input),
            Self::Talking => talking(input),
            Self::Alone => alone(input),
            Self::Ending(reason) => ending(reason, input),
            Self::Over(_) => (self, &[]),
        }
    }
}

fn reaching(input: Input) -> (State, &'static [Action]) {
    let over = |reason| (State::Over(reason), &[HangUp][..]);
    match input {
        Input::Audio => (State::Reaching, &[Hold]),
        Input::Digit => (State::Reaching, &[Report, Hold]),
        Input::Reached => (State::Talking, &[ForwardHeld]),
        Input::NotReached => over(Reason::StsFailed),
        Input::NoServer => (State::Alone, &[]),
        Input::HungUp => over(Reason::Hangup),
        Input::BadFrame => over(Reason::ProtocolError),
        Input::Idle => over(Reason::Idle),
        Input::Shutdown => over(Reason::Shutdown),
        // There is no server yet to say anything.
        Input::Speech
        | Input::Interruption { .. }
        | Input::Transcript
        | Input::Fault
        | Input::StsClosed
        | Input::StsBroke
        | Input::GraceOver => (State::Reaching, &[]),
    }
}

fn talking(input: Input) -> (State, &'static [Action]) {
    let ending = |reason| (State::Ending(reason), &[Silence, HangUp][..]);
    let over = |reason| (State::Over(reason), &[Silence, HangUp][..]);
    match input {
        Input::Audio => (State::Talking, &[Forward]),
        Input::Digit => (State::Talking, &[Report, Forward]),
        Input::Speech => (State::Talking, &[Play]),
        Input::Interruption { busy: true } => (State::Talking, &[Silence, Report]),
        // Most servers also say so of every sentence of a caller who interrupts nobody.
        Input::Interruption { busy: false } => (State::Talking, &[]),
        Input::Transcript | Input::Fault => (State::Talking, &[Report]),
        Input::HungUp => ending(Reason::Hangup),
        Input::BadFrame => ending(Reason::ProtocolError),
        Input::Idle => ending(Reason::Idle),
        Input::Shutdown => ending(Reason::Shutdown),
        Input::StsClosed => over(Reason::StsClosed),
        Input::StsBroke => over(Reason::ProtocolError),
        Input::Reached | Input::NotReached | Input::NoServer | Input::GraceOver => {
            (State::Talking, &[])
        }
    }
}

fn alone(input: Input) -> (State, &'static [Action]) {
    let over = |reason| (State::Over(reason), &[HangUp][..]);
    match input {
        Input::Digit => (State::Alone, &[Report]),
        Input::HungUp => over(Reason::Hangup),
        Input::BadFrame => over(Reason::ProtocolError),
        Input::Idle => over(Reason::Idle),
        Input::Shutdown => over(Reason::Shutdown),
        Input::Audio
        | Input::Reached
        | Input::NotReached
        | Input::NoServer
        | Input::Speech
        | Input::Interruption { .. }
        | Input::Transcript
        | Input::Fault
        | Input::StsClosed
        | Input::StsBroke
        | Input::GraceOver => (State::Alone, &[]),
    }
}

fn ending(reason: Reason, input: Input) -> (State, &'static [Action]) {
    match input {
        Input::Transcript | Input::Fault => (State::Ending(reason), &[Report]),
        Input::StsClosed | Input::StsBroke | Input::GraceOver => (State::Over(reason), &[]),
        Input::Audio
        | Input::Digit
        | Input::HungUp
        | Input::BadFrame
        | Input::Idle
        | Input::Shutdown
        | Input::Reached
        | Input::NotReached
        | Input::NoServer
        | Input::Speech
        | Input::Interruption { .. } => (State::Ending(reason), &[]),
    }
}

impl Label for Reason {
    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.name())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Alone, Ending, Over, Reaching, Talking};

    const INPUTS: [Input; 17] = [
        Input::Audio,
        Input::Digit,
        Input::HungUp,
        Input::BadFrame,
        Input::Idle,
        Input::Shutdown,
        Input::Reached,
        Input::NotReached,
        Input::NoServer,
        Input::Speech,
        Input::Interruption { busy: true },
        Input::Interruption { busy: false },
        Input::Transcript,
        Input::Fault,
        Input::StsClosed,
        Input::StsBroke,
        Input::GraceOver,
    ];

    type Row = [(State, &'static [Action]); 17];

    fn reaching_row() -> Row {
        let over = |reason| (Over(reason), &[HangUp][..]);
        let stays = (Reaching, &[][..]);
        [
            (Reaching, &[Hold]),
            (Reaching, &[Report, Hold]),
            over(Reason::Hangup),
            over(Reason::ProtocolError),
            over(Reason::Idle),
            over(Reason::Shutdown),
            (Talking, &[ForwardHeld]),
            over(Reason::StsFailed),
            (Alone, &[]),
            stays,
            stays,
            stays,
            stays,
            stays,
            stays,
            stays,
            stays,
        ]
    }

    fn talking_row() -> Row {
        let ends = |reason| (Ending(reason), &[Silence, HangUp][..]);
        let over = |reason| (Over(reason), &[Silence, HangUp][..]);
        let stays = (Talking, &[][..]);
        [
            (Talking, &[Forward]),
            (Talking, &[Report, Forward]),
            ends(Reason::Hangup),
            ends(Reason::ProtocolError),
            ends(Reason::Idle),
            ends(Reason::Shutdown),
            stays,
            stays,
            stays,
            (Talking, &[Play]),
            (Talking, &[Silence, Report]),
            stays,
            (Talking, &[Report]),
            (Talking, &[Report]),
            over(Reason::StsClosed),
            over(Reason::ProtocolError),
            stays,
        ]
    }

    fn alone_row() -> Row {
        let over = |reason| (Over(reason), &[HangUp][..]);
        let mut row = [(Alone, &[][..]); 17];
        row[1] = (Alone, &[Report]);
        row[2] = over(Reason::Hangup);
        row[3] = over(Reason::ProtocolError);
        row[4] = over(Reason::Idle);
        row[5] = over(Reason::Shutdown);
        row
    }

    fn ending_row() -> Row {
        let mut row = [(Ending(Reason::Idle), &[][..]); 17];
        row[12] = (Ending(Reason::Idle), &[Report]);
        row[13] = (Ending(Reason::Idle), &[Report]);
        row[14..].fill((Over(Reason::Idle), &[]));
        row
    }

    #[test]
    fn every_input_in_every_state_leads_where_the_table_says() {
        let table = [
            (Reaching, reaching_row()),
            (Talking, talking_row()),
            (Alone, alone_row()),
            (Ending(Reason::Idle), ending_row()),
            (Over(Reason::Idle), [(Over(Reason::Idle), &[]); 17]),
        ];
        for (state, row) in table {
            for (input, expected) in INPUTS.into_iter().zip(row) {
                assert_eq!(state.after(input), expected, "{state:?} {input:?}");
            }
        }
    }
}
