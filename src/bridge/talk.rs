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
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::caller::CallerAudio;
use super::codec::Reading;
use super::ending::{CallEnd, Ends};
use super::frames::FrameReader;
use super::life::{EndReason, LifeAction, LifeInput, LifeState};
use super::metrics::CallMetrics;
use super::playout::{CallerLine, Clock};
use super::reach::Reached;
use super::report::Reporter;
use super::settings::CallSettings;
use crate::audiosocket::{FRAME_AUDIO, Frame};
use crate::event::CallId;
use crate::sts::{self, Close, Incoming, Said, Socket};
use crate::time::unix_millis;

/// How long the server is listened to for last transcripts after the caller is gone.
const GRACE: Duration = Duration::from_millis(500);

/// A server that closes so soon after an error closes because of it.
const ERROR_TIME: Duration = Duration::from_secs(2);

/// How often a caller to whom nothing is played gets a frame of silence.
const SILENCE_EACH: Duration = Duration::from_secs(1);

/// The most messages that are held until the server is connected: 2 s of audio. Older ones go first.
const MOST_HELD: usize = 100;

/// One call under way.
pub struct Talk<'a> {
    call: CallId,
    reporter: Reporter,
    line: Arc<CallerLine>,
    clock: &'a Clock,
    idle_timeout: Duration,
    metrics: &'a CallMetrics,
    ends: &'a Ends,
    audio: CallerAudio,
    state: LifeState,
    begun: Instant,
    /// There once the call has a reason to end.
    end: Option<CallEnd>,
    /// There whenever the state is [`LifeState::Connected`] or [`LifeState::Talking`].
    sts: Option<Box<Socket>>,
    /// How the server closed.
    close: Option<Close>,
    /// When the server last reported an error.
    failed_at: Option<Instant>,
    held: VecDeque<String>,
    /// When the last frame came.
    heard_at: Instant,
    /// Idleness while the call lives, then the time for last transcripts.
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
    ) -> Self {
        Self {
            call: reporter.call,
            reporter,
            line,
            clock,
            idle_timeout: settings.idle_timeout,
            metrics,
            ends,
            audio: CallerAudio::new(settings.codec),
            state: LifeState::Reaching,
            begun: Instant::now(),
            end: None,
            sts: None,
            close: None,
            failed_at: None,
            held: VecDeque::new(),
            heard_at: Instant::now(),
            alarm: Box::pin(sleep(settings.idle_timeout)),
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
        let line = Arc::clone(&self.line);
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
                () = line.played(), if matches!(self.state, LifeState::PlayingOut(_)) => {
                    self.step(LifeInput::PlayedOut).await;
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
        if let LifeState::PlayingOut(_) = self.state {
            self.ends.calls.is_ending(self.call);
        }
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
                self.step(LifeInput::Interruption { busy }).await;
            }
            Said::Transcript { role, text } => {
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
        let idle_at = self.heard_at + self.idle_timeout;
        if !self.state.is_live() {
            self.step(LifeInput::GraceOver).await;
        } else if idle_at <= Instant::now() {
            self.step(LifeInput::Idle).await;
        } else {
            self.alarm.as_mut().reset(idle_at);
        }
    }

    async fn step(&mut self, input: LifeInput<'_>) {
        let (state, actions) = self.state.after(input);
        let was_live = self.state.is_live();
        self.state = state;
        if let Some(reason) = state.end().filter(|_| was_live) {
            self.note_end(reason).await;
        }
        for action in actions.into_iter().flatten() {
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
        let end = self.end.insert(CallEnd { reason, lasted, at, close });
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
