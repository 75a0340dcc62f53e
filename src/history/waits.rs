//! Waits: how long a caller waited for the agent.

use std::time::Duration;

/// Of one connection to an agent; none where the agent was not heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// From the call's first frame to the agent's first audio.
    pub first_audio: Option<Duration>,
    /// How often the user said something and the agent answered.
    pub responses: u32,
    /// From a transcript of the user's to the agent's next audio.
    pub last_response: Option<Duration>,
    pub worst_response: Option<Duration>,
}

impl Waits {
    pub fn responded(&mut self, waited: Duration) {
        self.responses += 1;
        self.last_response = Some(waited);
        self.worst_response = self.worst_response.max(Some(waited));
    }
}
