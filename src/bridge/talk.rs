//! Talk: the two sockets of one call, and what happens on them.
//!
//! Turns what comes into inputs of [`life`](super::life), and does what that says. Has the sockets, the
//! time and the buffers; decides nothing.
//!
//! Limit: [`MOST_HELD`] messages until the server is there.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::caller::CallerAudio;
use super::codec::Reading;
use super::deadlines::Deadlines;
use super::ending::{CallEnd, Ends};
use super::frames::FrameReader;
use super::life::{EndReason, LifeAction, LifeActions, LifeInput, LifeState};
use super::metrics::CallMetrics;
use super::playout::{CallerLine, Clock};
use super::reach::Reached;
use super::report::Reporter;
use super::response::{Response, Waited};
use super::settings::CallSettings;
use crate::audiosocket::{FRAME_AUDIO, Frame};
use crate::calls::Announcement;
use crate::calls::asked::Asked;
use crate::event::CallId;
use crate::sts::{self, Close, Incoming, Said, Socket};
use crate::time::{millis, unix_millis};

/// How long the server is listened to for last transcripts after the caller is gone.
const GRACE: Duration = Duration::from_millis(500);

/// A server that closes so soon after an error closes because of it.
const ERROR_TIME: Duration = Duration::from_secs(2);

/// How often a caller to whom nothing is played gets a frame of silence.
const SILENCE_EACH: Duration = Duration::from_secs(1);

/// Beyond this a caller who hears nothing of the agent hangs up.
const FIRST_AUDIO: Duration = Duration::from_secs(3);

/// The most messages that are held until the server is connected: 2 s of audio. Older ones go first.
const MOST_HELD: usize = 100;

/// One call under way.
pub struct Talk<'a> {
    call: CallId,
    reporter: Reporter,
    line: Arc<CallerLine>,
    clock: &'a Clock,
    deadlines: Deadlines,
    response: Response,
    asked: Arc<Asked>,
    announced: Option<Announcement>,
    metrics: &'a CallMetrics,
    ends: &'a Ends,
    audio: CallerAudio,
    state: LifeState,
    begun: Instant,
    /// There once the call has a reason to end.
    end: Option<CallEnd>,
    /// There whenever the state is one in which messages are forwarded.
    sts: Option<Box<Socket>>,
    /// How the server closed.
    close: Option<Close>,
    /// When the server last reported an error.
    failed_at: Option<Instant>,
    held: VecDeque<String>,
    /// When the last frame came.
    heard_at: Instant,
    /// The next of the deadlines while the call lives, then the time for last transcripts.
    alarm: Pin<Box<Sleep>>,
    /// One message's audio, decoded; kept for its memory.
    pcm: Vec<u8>,
    warned_of_surplus: bool,
    warned_of_drops: bool,
    warned_of_audio: bool,
}

impl<'a> Talk<'a> {
    /// A call that just began.
    pub fn new(
        reporter: Reporter,
        line: Arc<CallerLine>,
        clock: &'a Clock,
        settings: &CallSettings,
        metrics: &'a CallMetrics,
        ends: &'a Ends,
        (asked, announced): (Arc<Asked>, Option<Announcement>),
    ) -> Self {
        let begun = Instant::now();
        let deadlines = Deadlines::new(settings.idle_timeout, settings.max_duration, begun);
        Self {
            call: reporter.call,
            reporter,
            line,
            clock,
            alarm: Box::pin(sleep_until(deadlines.next(begun))),
            deadlines,
            response: Response::of_call(begun),
            asked,
            announced,
            metrics,
            ends,
            audio: CallerAudio::new(settings.codec),
            state: LifeState::Reaching,
            begun,
            end: None,
            sts: None,
            close: None,
            failed_at: None,
            held: VecDeque::new(),
            heard_at: begun,
            pcm: Vec::new(),
            warned_of_surplus: false,
            warned_of_drops: false,
            warned_of_audio: false,
        }
    }

    /// Talks until the call is over, and says how it ended. `reaching` is boxed, and gone once it is done:
    /// it needs more memory than all the rest of a call.
    pub async fn run(
        mut self,
        caller: &mut FrameReader,
        reaching: Pin<Box<impl Future<Output = Reached>>>,
        stop: CancellationToken,
    ) -> CallEnd {
        let mut reaching = reaching.fuse();
        let mut stopped = pin!(stop.cancelled());
        // The first of it comes at once.
        let mut silence = interval(SILENCE_EACH);
        silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (line, asked) = (Arc::clone(&self.line), Arc::clone(&self.asked));
        let mut came = pin!(asked.came());
        // What came together with the UUID.
        self.take_frames(caller).await;
        loop {
            if let LifeState::Over(_) = self.state {
                self.finish().await;
                return self.end.expect("a call that is over has ended");
            }
            tokio::select! {
                more = caller.fill(), if !caller.is_gone() => match more {
                    true => self.take_frames(caller).await,
                    false => self.step(LifeInput::HungUp).await,
                },
                incoming = next_of(&mut self.sts) => self.take_incoming(incoming).await,
                reached = &mut reaching => self.take_reached(reached).await,
                () = &mut stopped, if self.state.is_live() => self.step(LifeInput::Shutdown).await,
                () = line.played(), if self.awaits_silence() => self.take_silence().await,
                () = &mut came => {
                    came.set(asked.came());
                    self.take_asked().await;
                }
                _ = silence.tick(), if self.state.is_live() => line.send_silence(),
                () = self.alarm.as_mut() => self.take_alarm().await,
            }
        }
    }

    async fn take_frames(&mut self, caller: &mut FrameReader) {
        self.heard_at = Instant::now();
        loop {
            match caller.next() {
                Ok(Some(frame)) => self.take_frame(frame).await,
                Ok(None) => return,
                Err(error) => {
                    if self.state.is_live() {
                        warn!(uuid = %self.call, %error, "what Asterisk sent cannot be read");
                    }
                    return self.step(LifeInput::BadFrame).await;
                }
            }
        }
    }

    async fn take_frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::HangUp => self.step(LifeInput::HungUp).await,
            Frame::Digit(digit) => self.step(LifeInput::Digit(digit)).await,
            Frame::Audio { rate, samples } => self.take_audio(rate, samples).await,
            Frame::Uuid(other) => {
                warn!(uuid = %self.call, %other, "Asterisk named the call twice");
                self.step(LifeInput::BadFrame).await;
            }
        }
    }

    async fn take_audio(&mut self, rate: u32, samples: &[u8]) {
        self.metrics.caller_frames.inc();
        let mut messages = Vec::new();
        let pass_on = |pcm: &[u8]| messages.push(sts::audio(pcm));
        let news = self.audio.hear(rate, samples, self.heard_at, pass_on);
        for message in messages {
            self.step(LifeInput::Audio(message)).await;
        }
        match news {
            Some(Reading::Audio { codec, .. }) => {
                info!(uuid = %self.call, codec = codec.name(), "audio codec detected");
            }
            Some(Reading::Wideband { rate }) => {
                info!(uuid = %self.call, codec = "slin", rate, "audio codec detected");
            }
            Some(Reading::Unreadable) => warn!(
                uuid = %self.call,
                bytes = samples.len(),
                "the caller's audio is neither slin, ulaw nor alaw and is not sent on; \
                 let Asterisk transcode it: Dial(AudioSocket/HOST:PORT/UUID/c(slin))"
            ),
            None => {}
        }
    }

    async fn take_reached(&mut self, reached: Reached) {
        let input = match reached {
            Reached::Server(socket) => {
                self.sts = Some(socket);
                LifeInput::StsReached
            }
            Reached::Failed => LifeInput::StsFailed,
            Reached::NoUrl => {
                self.held = VecDeque::new();
                LifeInput::NoSts
            }
        };
        self.step(input).await;
    }

    async fn take_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => self.take_said(sts::read(&message)).await,
            Incoming::Binary(bytes) => {
                debug!(uuid = %self.call, bytes, "a binary message is not understood");
            }
            Incoming::Closed(close) => self.take_close(close).await,
        }
    }

    async fn take_close(&mut self, close: Close) {
        self.sts = None;
        if let Close::Broken(error) = &close {
            warn!(uuid = %self.call, error, "what the speech-to-speech server sent cannot be read");
        }
        let failing = self.failed_at.is_some_and(|at| at.elapsed() < ERROR_TIME);
        let orderly = close.is_orderly() && !failing;
        if self.state.is_live() {
            self.close = Some(close);
        }
        self.step(LifeInput::StsGone { orderly, busy: self.line.is_busy() }).await;
    }

    async fn take_said(&mut self, said: Said<'_>) {
        match said {
            Said::Audio(base64) => {
                let mut pcm = std::mem::take(&mut self.pcm);
                if !sts::decode_audio(&base64, &mut pcm) {
                    self.warn_of_audio();
                } else if !pcm.is_empty() {
                    self.step(LifeInput::Speech(&pcm)).await;
                }
                self.pcm = pcm;
                // After a whole utterance its room is not needed.
                self.pcm.shrink_to(4 * FRAME_AUDIO);
            }
            Said::Interruption => {
                let busy = self.line.is_busy();
                self.deadlines.caller_speaks(Instant::now());
                self.step(LifeInput::Interruption { busy }).await;
            }
            Said::Transcript { role, text } => {
                if role == "user" {
                    let now = Instant::now();
                    self.deadlines.caller_speaks(now);
                    self.response.user_said(now, self.line.is_busy());
                }
                self.step(LifeInput::Transcript { role, text }).await;
            }
            Said::Error { message } => {
                warn!(uuid = %self.call, error = message, "speech-to-speech server reports a fault");
                self.failed_at = Some(Instant::now());
                self.step(LifeInput::StsError { message }).await;
            }
            Said::Other => debug!(uuid = %self.call, "a message is not understood"),
        }
    }

    async fn take_alarm(&mut self) {
        if !self.state.is_live() {
            return self.step(LifeInput::GraceOver).await;
        }
        if let Some(input) = self.deadlines.due(self.heard_at, Instant::now()) {
            self.step(input).await;
        }
        if self.state.is_live() {
            self.alarm.as_mut().reset(self.deadlines.next(self.heard_at));
        }
    }

    /// Whether something follows as soon as the caller has heard all that is queued.
    fn awaits_silence(&self) -> bool {
        self.state.is_playing_out() || self.deadlines.awaits_silence()
    }

    async fn take_silence(&mut self) {
        if self.state.is_playing_out() {
            return self.step(LifeInput::PlayedOut).await;
        }
        self.deadlines.agent_is_silent(Instant::now());
        self.hasten_alarm();
    }

    async fn take_asked(&mut self) {
        let asked = self.asked.news().take();
        if let Some(ask) = asked {
            self.step(LifeInput::Asked(ask)).await;
        }
    }

    /// A goodbye may be over sooner than was expected.
    fn hasten_alarm(&mut self) {
        let next = self.deadlines.next(self.heard_at);
        if next < self.alarm.deadline() {
            self.alarm.as_mut().reset(next);
        }
    }

    /// Goes where the input leads, by way of what was asked meanwhile: that was answered as taken, so it came before.
    fn advance<'i>(&mut self, input: LifeInput<'i>) -> [LifeActions<'i>; 2] {
        if !self.state.is_live() {
            let (state, actions) = self.state.after(input);
            self.state = state;
            return [[None, None], actions];
        }
        let mut news = self.asked.news();
        let (asked, first) = match news.take() {
            Some(ask) => self.state.after(LifeInput::Asked(ask)),
            None => (self.state, [None, None]),
        };
        let (state, second) = asked.after(input);
        if !state.takes_requests() {
            news.close();
        }
        drop(news);
        let was_playing_out = self.state.is_playing_out();
        self.state = state;
        if state.is_playing_out() && !was_playing_out {
            self.ends.calls.is_ending(self.call);
        }
        if let LifeState::Goodbye(_) = state {
            self.deadlines.say_goodbye(Instant::now(), self.line.is_busy());
            self.hasten_alarm();
        }
        [first, second]
    }

    async fn step(&mut self, input: LifeInput<'_>) {
        let was_live = self.state.is_live();
        let actions = self.advance(input);
        if let Some(reason) = self.state.end().filter(|_| was_live) {
            self.note_end(reason).await;
        }
        for action in actions.into_iter().flatten().flatten() {
            match action {
                LifeAction::Hold(message) => self.hold(message),
                LifeAction::Forward(message) => self.forward(message).await,
                LifeAction::ForwardHeld => {
                    for message in std::mem::take(&mut self.held) {
                        self.forward(message).await;
                    }
                }
                LifeAction::Play(pcm) => self.play(pcm),
                LifeAction::Silence => self.line.silence(),
                LifeAction::Report(kind, payload) => self.reporter.report(kind, &payload),
                LifeAction::HangUp => self.line.hang_up(),
                LifeAction::AwaitTranscripts => self.alarm.as_mut().reset(Instant::now() + GRACE),
            }
        }
    }

    async fn note_end(&mut self, reason: EndReason) {
        let (lasted, at, close) = (self.begun.elapsed(), unix_millis(), self.close.take());
        let next = if reason == EndReason::Transfer {
            self.asked.destination()
        } else {
            let failed = self.announced.as_ref().filter(|_| reason.is_agents_failure());
            failed.and_then(Announcement::people_instead)
        };
        let end = self.end.insert(CallEnd { reason, lasted, at, close, next });
        self.ends.note(self.call, end).await;
    }

    fn warn_of_audio(&mut self) {
        if !self.warned_of_audio {
            self.warned_of_audio = true;
            warn!(uuid = %self.call, "audio of the speech-to-speech server is not base64 and is not played");
        }
    }

    fn hold(&mut self, message: String) {
        if self.held.len() == MOST_HELD {
            self.held.pop_front();
            self.metrics.caller_frames_dropped.inc();
        }
        self.held.push_back(message);
    }

    async fn forward(&mut self, message: String) {
        let sts = self.sts.as_mut().expect("only a call that talks forwards, and it has a server");
        if sts.send(message).await {
            return;
        }
        self.metrics.caller_frames_dropped.inc();
        if !self.warned_of_drops {
            self.warned_of_drops = true;
            warn!(uuid = %self.call, "speech-to-speech server does not read; the caller's audio is dropped");
        }
    }

    fn play(&mut self, pcm: &[u8]) {
        self.deadlines.agent_speaks();
        if let Some(waited) = self.response.agent_speaks(Instant::now()) {
            self.note_wait(waited);
        }
        let dropped = self.clock.play(&self.line, pcm);
        self.metrics.surplus_bytes.inc_by(dropped as u64);
        if dropped > 0 && !self.warned_of_surplus {
            self.warned_of_surplus = true;
            warn!(
                uuid = %self.call,
                "speech-to-speech server is 30 s ahead of what is played; the surplus is dropped"
            );
        }
    }

    fn note_wait(&self, waited: Waited) {
        self.reporter.waited(waited);
        match waited {
            Waited::First(time) => {
                self.metrics.first_audio_seconds.observe(time.as_secs_f64());
                if time > FIRST_AUDIO {
                    warn!(uuid = %self.call, took_ms = millis(time), "the agent's first audio came late");
                }
            }
            Waited::Answer(time) => self.metrics.response_seconds.observe(time.as_secs_f64()),
        }
    }

    async fn finish(&mut self) {
        if let Some(sts) = self.sts.take() {
            sts.close().await;
        }
        let frames = self.line.unread();
        if frames > 0 {
            warn!(uuid = %self.call, frames, "Asterisk did not read; so many frames were not played");
        }
    }
}

/// What comes from the server next; never where there is none.
async fn next_of(sts: &mut Option<Box<Socket>>) -> Incoming {
    match sts {
        Some(sts) => sts.next().await,
        None => std::future::pending().await,
    }
}
