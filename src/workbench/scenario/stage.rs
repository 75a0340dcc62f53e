//! Stage: which step can follow which.
//!
//! A state machine over the steps of a script, so that a call that no phone could make is a mistake
//! in its file and not a puzzle at the receiver. An event of any type may come anywhere before the end.

use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

/// What a step does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Display, EnumIter, EnumString, IntoStaticStr, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Verb {
    /// `call_initiated`
    Initiated,
    /// `call_started`
    Started,
    /// The agent speaks.
    Agent,
    /// The caller speaks.
    User,
    BargeIn,
    Dtmf,
    Pause,
    /// An event of any type.
    Event,
    Repeat,
    HangUp,
    /// The caller gives up before the call is answered.
    Abandoned,
    /// Nothing is heard of the call any more.
    Lost,
}

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
    /// It is over, or lost.
    Over,
}

impl Stage {
    /// Where a step leads.
    ///
    /// # Errors
    /// Why it cannot come here.
    pub fn after(self, verb: Verb) -> Result<Self, &'static str> {
        use Verb as V;
        match (self, verb) {
            (Self::New, V::Initiated) => Ok(Self::Announced),
            (Self::New | Self::Announced, V::Started) => Ok(Self::Talking),
            (Self::Talking | Self::AgentSpeaks, V::Agent) => Ok(Self::AgentSpeaks),
            (Self::Talking | Self::AgentSpeaks, V::User | V::Dtmf | V::Repeat) => Ok(Self::Talking),
            (Self::AgentSpeaks, V::BargeIn | V::Pause) => Ok(Self::Talking),
            (Self::New | Self::Announced | Self::Talking, V::Pause) => Ok(self),
            (Self::New | Self::Announced | Self::Talking | Self::AgentSpeaks, V::Event) => Ok(self),
            (Self::Talking | Self::AgentSpeaks, V::HangUp) | (Self::Announced, V::Abandoned) => {
                Ok(Self::Over)
            }
            (Self::New | Self::Announced | Self::Talking | Self::AgentSpeaks, V::Lost) => {
                Ok(Self::Over)
            }
            (Self::Over, _) => Err("nothing follows the end of a call"),
            (Self::Announced | Self::Talking | Self::AgentSpeaks, V::Initiated) => {
                Err("initiated is a call's first step, if it has one")
            }
            (Self::Talking | Self::AgentSpeaks, V::Started) => Err("the call is started already"),
            (
                Self::New | Self::Announced,
                V::Agent | V::User | V::Dtmf | V::Repeat | V::BargeIn | V::HangUp,
            ) => Err("the call is not started yet: { started = {} } comes first"),
            (Self::Talking, V::BargeIn) => {
                Err("barge_in follows the agent's words that it breaks into")
            }
            (Self::New | Self::Talking | Self::AgentSpeaks, V::Abandoned) => Err(
                "abandoned is for a call that is initiated and not started; after that it is lost = true",
            ),
        }
    }

    /// Where a step that cannot come here would lead: one mistake is reported once, and not again
    /// at every step after it.
    pub fn taken(self, verb: Verb) -> Self {
        match verb {
            Verb::Started | Verb::User | Verb::Dtmf | Verb::BargeIn | Verb::Repeat => Self::Talking,
            Verb::Agent => Self::AgentSpeaks,
            Verb::HangUp | Verb::Abandoned | Verb::Lost => Self::Over,
            Verb::Initiated | Verb::Pause | Verb::Event => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::*;

    /// Each row is a stage; each letter of it where a verb leads, in the verbs' order, `.` for
    /// nowhere.
    #[test]
    fn the_whole_table() {
        let letter = |stage| match stage {
            Ok(Stage::New) => 'N',
            Ok(Stage::Announced) => 'A',
            Ok(Stage::Talking) => 'T',
            Ok(Stage::AgentSpeaks) => 'S',
            Ok(Stage::Over) => 'O',
            Err(_) => '.',
        };
        for (stage, row) in [
            (Stage::New, "AT....NN...O"),
            (Stage::Announced, ".T....AA..OO"),
            (Stage::Talking, "..ST.TTTTO.O"),
            (Stage::AgentSpeaks, "..STTTTSTO.O"),
            (Stage::Over, "............"),
        ] {
            let led: String = Verb::iter().map(|verb| letter(stage.after(verb))).collect();
            assert_eq!(led, row, "{stage:?}");
        }
    }
}
