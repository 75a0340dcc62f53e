//! Response: how long a caller waits for the agent. Sees no clock: time is an argument.
//!
//! From the call's first frame to the agent's first audio; and from what a user said to the agent's next audio. That is
//! the time of the transcript, and counts only where the agent is silent then: a transcript that comes while the agent
//! speaks says nothing of when its answer began. A server without transcripts has none.

use std::time::Duration;

use tokio::time::Instant;

/// Of one call.
#[derive(Debug)]
pub struct Response {
    begun: Instant,
    was_heard: bool,
    /// When the user last said something that is not answered yet.
    said: Option<Instant>,
}

/// What the agent's audio ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// For its first audio.
    First(Duration),
    /// For its answer.
    Answer(Duration),
}

impl Response {
    pub fn of_call(begun: Instant) -> Self {
        Self { begun, was_heard: false, said: None }
    }

    /// The user said something, while the agent is heard or not.
    pub fn user_said(&mut self, now: Instant, agent_is_heard: bool) {
        self.said = (!agent_is_heard).then_some(now);
    }

    /// Audio of the agent came.
    pub fn agent_speaks(&mut self, now: Instant) -> Option<Waited> {
        let said = self.said.take();
        if !std::mem::replace(&mut self.was_heard, true) {
            return Some(Waited::First(now - self.begun));
        }
        said.map(|said| Waited::Answer(now - said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_for_the_first_audio_or_for_the_answer_to_what_was_said_last() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut response = Response::of_call(begun);
        response.user_said(at(100), false);
        assert_eq!(response.agent_speaks(at(300)), Some(Waited::First(at(300) - begun)));
        assert_eq!(response.agent_speaks(at(320)), None);
        response.user_said(at(1000), false);
        response.user_said(at(2000), false);
        assert_eq!(response.agent_speaks(at(2700)), Some(Waited::Answer(at(700) - begun)));
        assert_eq!(response.agent_speaks(at(2720)), None);
        response.user_said(at(3000), true);
        assert_eq!(response.agent_speaks(at(3001)), None, "it was speaking already");
    }
}
