//! Stage: which step can follow which.
//!
//! A state machine over the steps of a script, so that a call that no phone could make is a mistake
//! of its file and not a riddle at the receiver. Free events may stand anywhere before the end.

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is known of it yet.
    New,
    /// It is announced, and not yet answered.
    Announced,
    /// It is answered, and the agent is silent.
    Talking,
    /// The agent speaks, and can be interrupted.
    AgentSpeaks,
    /// It is over, or nobody will hear of it again.
    Over,
}

/// What a step is to the course of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// `call_initiated`.
    Initiated,
    /// `call_started`.
    Started,
    /// The agent speaks.
    Agent,
    /// The caller speaks or presses keys.
    Caller,
    /// The caller breaks in.
    BargeIn,
    /// Time goes by.
    Pause,
    /// An event of any type.
    Free,
    /// `call_ended`.
    HangUp,
    /// The caller gives up before the call is answered.
    Abandoned,
    /// Nothing is heard of the call any more.
    Lost,
}

impl Stage {
    /// Where a step leads.
    ///
    /// # Errors
    /// Why it cannot stand here.
    pub fn after(self, turn: Turn) -> Result<Self, &'static str> {
        use Turn as T;
        match (self, turn) {
            (Self::New, T::Initiated) => Ok(Self::Announced),
            (Self::New | Self::Announced, T::Started) => Ok(Self::Talking),
            (Self::Talking | Self::AgentSpeaks, T::Agent) => Ok(Self::AgentSpeaks),
            (Self::Talking | Self::AgentSpeaks, T::Caller) => Ok(Self::Talking),
            (Self::AgentSpeaks, T::BargeIn | T::Pause) => Ok(Self::Talking),
            (Self::New | Self::Announced | Self::Talking, T::Pause) => Ok(self),
            (Self::New | Self::Announced | Self::Talking | Self::AgentSpeaks, T::Free) => Ok(self),
            (Self::Talking | Self::AgentSpeaks, T::HangUp) | (Self::Announced, T::Abandoned) => {
                Ok(Self::Over)
            }
            (Self::New | Self::Announced | Self::Talking | Self::AgentSpeaks, T::Lost) => {
                Ok(Self::Over)
            }
            (Self::Over, _) => Err("nothing follows the end of a call"),
            (Self::Announced | Self::Talking | Self::AgentSpeaks, T::Initiated) => {
                Err("initiated is a call's first step, if it has one")
            }
            (Self::Talking | Self::AgentSpeaks, T::Started) => Err("the call is started already"),
            (Self::New | Self::Announced, T::Agent | T::Caller | T::BargeIn | T::HangUp) => {
                Err("the call is not started yet: { started = {} } comes first")
            }
            (Self::Talking, T::BargeIn) => {
                Err("barge_in follows the agent's words that it breaks into")
            }
            (Self::New | Self::Talking | Self::AgentSpeaks, T::Abandoned) => Err(
                "abandoned is for a call that is initiated and not started; after that it is lost = true",
            ),
        }
    }

    /// Where a step leads that cannot stand here, if it is taken all the same: one mistake is told
    /// once, and not again at every step after it.
    pub fn taken(self, turn: Turn) -> Self {
        match turn {
            Turn::Started | Turn::Caller | Turn::BargeIn => Self::Talking,
            Turn::Agent => Self::AgentSpeaks,
            Turn::HangUp | Turn::Abandoned | Turn::Lost => Self::Over,
            Turn::Initiated | Turn::Pause | Turn::Free => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: [Turn; 10] = [
        Turn::Initiated,
        Turn::Started,
        Turn::Agent,
        Turn::Caller,
        Turn::BargeIn,
        Turn::Pause,
        Turn::Free,
        Turn::HangUp,
        Turn::Abandoned,
        Turn::Lost,
    ];

    #[test]
    fn the_whole_table() {
        use Stage::{AgentSpeaks as S, Announced as A, New as N, Over as O, Talking as T};
        for (stage, row) in [
            (N, [Some(A), Some(T), None, None, None, Some(N), Some(N), None, None, Some(O)]),
            (A, [None, Some(T), None, None, None, Some(A), Some(A), None, Some(O), Some(O)]),
            (T, [None, None, Some(S), Some(T), None, Some(T), Some(T), Some(O), None, Some(O)]),
            (S, [None, None, Some(S), Some(T), Some(T), Some(T), Some(S), Some(O), None, Some(O)]),
            (O, [None; 10]),
        ] {
            for (turn, expected) in TURNS.into_iter().zip(row) {
                assert_eq!(stage.after(turn).ok(), expected, "{stage:?} after {turn:?}");
            }
        }
    }
}
