//! Deadlines: what becomes of a call by the time alone. Sees no clock: time is an argument, and what is due comes out as
//! an input of [`life`](super::life).
//!
//! Owns the times of a goodbye. It is over [`PAUSE`] after the agent's last audio was played, an interruption, or what a
//! user said, whichever is last; an agent that was silent when the end was asked for has [`FIRST_WORD`], since models
//! often speak only once their tool has answered. It is late [`GOODBYE`] after that, whatever is said meanwhile.
//!
//! Limits: `CALL_IDLE_TIMEOUT` without a frame; `CALL_MAX_DURATION`, and [`LAST_WORDS`] for what is queued then.

use std::time::Duration;

use tokio::time::Instant;

use super::life::LifeInput;

const PAUSE: Duration = Duration::from_secs(2);
const FIRST_WORD: Duration = Duration::from_secs(4);
const GOODBYE: Duration = Duration::from_secs(20);

/// How long a caller is played to who has talked for as long as one may.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The times of one call.
#[derive(Debug)]
pub struct Deadlines {
    idle: Duration,
    /// When the call has lasted as long as one may.
    longest: Option<Instant>,
    /// When nothing more is played after that.
    cut: Option<Instant>,
    goodbye: Option<Goodbye>,
    said_goodbye: bool,
}

/// An agent's goodbye.
#[derive(Clone, Copy, Debug)]
struct Goodbye {
    late: Instant,
    /// Until when it may begin.
    first: Option<Instant>,
    /// When something was last said.
    last: Instant,
    /// Whether the agent is heard, or about to be.
    speaking: bool,
}

impl Deadlines {
    pub fn new(idle: Duration, longest: Option<Duration>, begun: Instant) -> Self {
        let longest = longest.map(|longest| begun + longest);
        Self { idle, longest, cut: None, goodbye: None, said_goodbye: false }
    }

    /// The end was asked for; that it is asked for again changes nothing.
    pub fn say_goodbye(&mut self, now: Instant, speaking: bool) {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            let first = (!speaking).then(|| now + FIRST_WORD);
            self.goodbye = Some(Goodbye { late: now + GOODBYE, first, last: now, speaking });
        }
    }

    /// Whether it is to be said when the agent has been heard to the end.
    pub fn awaits_silence(&self) -> bool {
        self.goodbye.is_some_and(|goodbye| goodbye.speaking)
    }

    /// The agent's audio is queued.
    pub fn agent_speaks(&mut self) {
        if let Some(goodbye) = &mut self.goodbye {
            goodbye.speaking = true;
            goodbye.first = None;
        }
    }

    /// All of the agent's audio was played, or dropped.
    pub fn agent_is_silent(&mut self, now: Instant) {
        if let Some(goodbye) = &mut self.goodbye {
            goodbye.speaking = false;
            goodbye.last = now;
        }
    }

    /// The caller said something, or began to.
    pub fn caller_speaks(&mut self, now: Instant) {
        if let Some(goodbye) = &mut self.goodbye {
            goodbye.last = now;
        }
    }

    /// When to look next, of a call whose last frame came then.
    pub fn next(&self, heard: Instant) -> Instant {
        let goodbye = self.goodbye.map(|goodbye| goodbye.next().0);
        let others = [self.longest, self.cut, goodbye];
        others.into_iter().flatten().fold(heard + self.idle, Instant::min)
    }

    /// What is due, once.
    pub fn due(&mut self, heard: Instant, now: Instant) -> Option<LifeInput<'static>> {
        if self.longest.take_if(|longest| *longest <= now).is_some() {
            self.cut = Some(now + LAST_WORDS);
            return Some(LifeInput::MaxDuration);
        }
        if self.cut.take_if(|cut| *cut <= now).is_some() {
            return Some(LifeInput::PlayedOut);
        }
        if let Some(goodbye) = self.goodbye.take_if(|goodbye| goodbye.next().0 <= now) {
            return Some(goodbye.next().1);
        }
        (heard + self.idle <= now).then_some(LifeInput::Idle)
    }
}

impl Goodbye {
    fn next(&self) -> (Instant, LifeInput<'static>) {
        let quiet = self.last + PAUSE;
        let over = self.first.map_or(quiet, |first| first.max(quiet));
        match self.speaking || self.late < over {
            true => (self.late, LifeInput::GoodbyeLate),
            false => (over, LifeInput::GoodbyeOver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What is due first, and after how many milliseconds, where no frame comes any more.
    fn first(deadlines: &mut Deadlines, begun: Instant) -> (u128, String) {
        let at = deadlines.next(begun);
        assert!(deadlines.due(begun, at - ms(1)).is_none());
        let due = deadlines.due(begun, at).expect("it is due then");
        ((at - begun).as_millis(), format!("{due:?}"))
    }

    fn over(after: u128) -> (u128, String) {
        (after, "GoodbyeOver".to_owned())
    }

    #[test]
    fn a_goodbye_is_over_two_seconds_after_the_last_word() {
        let begun = Instant::now();
        let asked = |speaking| {
            let mut deadlines = Deadlines::new(IDLE, None, begun);
            deadlines.say_goodbye(begun, speaking);
            deadlines
        };
        let mut silent = asked(false);
        assert_eq!(first(&mut silent, begun), over(4000), "time for its first word");
        let mut interrupted = asked(false);
        interrupted.caller_speaks(begun + ms(500));
        assert_eq!(first(&mut interrupted, begun), over(4000));
        let mut answered = asked(false);
        answered.caller_speaks(begun + ms(3000));
        assert_eq!(first(&mut answered, begun), over(5000));
        let mut speaks = asked(false);
        speaks.agent_speaks();
        assert!(speaks.awaits_silence());
        speaks.agent_is_silent(begun + ms(700));
        assert_eq!(first(&mut speaks, begun), over(2700), "its first word was said");
        let mut spoke = asked(true);
        spoke.agent_is_silent(begun + ms(100));
        spoke.say_goodbye(begun + ms(1500), false);
        assert_eq!(first(&mut spoke, begun), over(2100), "to ask again changes nothing");
        spoke.say_goodbye(begun + ms(2500), false);
        assert_eq!(spoke.next(begun), begun + IDLE);
    }

    #[test]
    fn a_goodbye_without_end_is_late_after_twenty_seconds() {
        let begun = Instant::now();
        let late = (20_000, "GoodbyeLate".to_owned());
        let mut deadlines = Deadlines::new(IDLE, None, begun);
        deadlines.say_goodbye(begun, true);
        assert_eq!(first(&mut deadlines, begun), late);
        assert!(!deadlines.awaits_silence(), "it is over when all is played");
        let mut talkative = Deadlines::new(IDLE, None, begun);
        talkative.say_goodbye(begun, false);
        talkative.caller_speaks(begun + ms(19_000));
        assert_eq!(first(&mut talkative, begun), late);
    }

    #[test]
    fn the_longest_call_has_five_seconds_for_its_last_words() {
        let begun = Instant::now();
        let mut deadlines = Deadlines::new(IDLE, Some(ms(60_000)), begun);
        assert_eq!(first(&mut deadlines, begun), (60_000, "MaxDuration".to_owned()));
        assert_eq!(first(&mut deadlines, begun), (65_000, "PlayedOut".to_owned()));
        assert_eq!(first(&mut deadlines, begun), (300_000, "Idle".to_owned()));
    }

    #[test]
    fn a_call_is_idle_after_its_last_frame() {
        let begun = Instant::now();
        let mut deadlines = Deadlines::new(IDLE, None, begun);
        assert!(deadlines.due(begun + ms(10), begun + IDLE).is_none());
        let due = deadlines.due(begun + ms(10), begun + IDLE + ms(10));
        assert!(matches!(due, Some(LifeInput::Idle)));
    }
}
