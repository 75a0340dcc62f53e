//! Talk: the two sockets of one call, and what happens on them.
//!
//! Turns what comes into inputs of [`life`](super::life), and does what that says. Has the data; decides
//! nothing.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::caller::{CallerAudio, Finding};
use super::frames::Caller;
use super::life::{Action, Input, Reason, State};
use super::playout::Line;
use super::reach::{Reached, reach};
use super::{Bridge, MOST_HELD, Reporter};
use crate::audiosocket::{FRAME_AUDIO, Frame};
use crate::calls::Announcement;
use crate::event::{CallId, EventType, Payload};
use crate::sts::{self, Incoming, Said, Socket};

/// How long the server is listened to for last transcripts after the caller is gone.
const GRACE: Duration = Duration::from_millis(500);

/// One call under way.
pub struct Talk<'a> {
    bridge: &'a Bridge,
    call: CallId,
    line: Arc<Line>,
    reporter: Reporter,
    audio: CallerAudio,
    state: State,
    sts: Option<Box<Socket>>,
    /// What the caller sent before the server was there.
    held: VecDeque<String>,
    /// When the last frame came.
    heard_at: Instant,
    /// One message's audio, decoded; kept for its memory.
    pcm: Vec<u8>,
    /// What was warned of, to do so once.
    warned: Warned,
}

#[derive(Default)]
struct Warned {
    surplus: bool,
    untaken: bool,
}

/// What comes with an input.
enum Data<'a> {
    Nothing,
    /// The caller's audio, as the server is sent it.
    Audio(String),
    Digit(char),
    /// The agent's audio.
    Speech(&'a [u8]),
    Transcript {
        role: String,
        text: String,
    },
    Fault {
        message: String,
    },
    Interruption,
}

impl<'a> Talk<'a> {
    /// A call that just began.
    pub fn new(bridge: &'a Bridge, call: CallId, line: Arc<Line>, reporter: Reporter) -> Self {
        Self {
            bridge,
            call,
            line,
            reporter,
            audio: CallerAudio::new(bridge.settings.codec),
            state: State::Reaching,
            sts: None,
            held: VecDeque::new(),
            heard_at: Instant::now(),
            pcm: Vec::new(),
            warned: Warned::default(),
        }
    }

    /// Talks until the call is over, and says why it is.
    pub async fn run(
        mut self,
        caller: &mut Caller,
        announcement: Option<Announcement>,
        stop: CancellationToken,
    ) -> Reason {
        // Apart, and gone once it is done: it needs more memory than all the rest of a call.
        let mut reaching = Some(Box::pin(reach(self.bridge, self.call, announcement)));
        let mut stopped = pin!(stop.cancelled());
        let mut alarm = pin!(sleep(self.bridge.settings.idle_timeout));
        // What came together with the UUID.
        self.take_frames(caller).await;
        loop {
            if let State::Over(reason) = self.state {
                self.finish().await;
                return reason;
            }
            let lives = self.is_live();
            tokio::select! {
                more = caller.fill(), if !caller.is_gone() => match more {
                    true => self.take_frames(caller).await,
                    false => self.step(Input::HungUp, Data::Nothing).await,
                },
                heard = hear(&mut self.sts) => self.take_heard(heard).await,
                reached = until_done(&mut reaching) => {
                    reaching = None;
                    self.take_reached(reached).await;
                }
                () = &mut stopped, if lives => self.step(Input::Shutdown, Data::Nothing).await,
                () = &mut alarm => self.take_alarm(alarm.as_mut()).await,
            }
            if lives && matches!(self.state, State::Ending(_)) {
                alarm.as_mut().reset(Instant::now() + GRACE);
            }
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.state, State::Reaching | State::Talking | State::Alone)
    }

    async fn take_frames(&mut self, caller: &mut Caller) {
        self.heard_at = Instant::now();
        loop {
            match caller.next() {
                Ok(Some(frame)) => self.take_frame(frame).await,
                Ok(None) => return,
                Err(fault) => {
                    if self.is_live() {
                        warn!(uuid = %self.call, error = %fault, "what Asterisk sent cannot be read");
                    }
                    return self.step(Input::BadFrame, Data::Nothing).await;
                }
            }
        }
    }

    async fn take_frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::HangUp => self.step(Input::HungUp, Data::Nothing).await,
            Frame::Digit(digit) => self.step(Input::Digit, Data::Digit(digit)).await,
            Frame::Audio { rate, samples } => self.take_audio(rate, samples).await,
            Frame::Uuid(other) => {
                warn!(uuid = %self.call, %other, "Asterisk named the call twice");
                self.step(Input::BadFrame, Data::Nothing).await;
            }
        }
    }

    async fn take_audio(&mut self, rate: u32, samples: &[u8]) {
        self.bridge.metrics.calls.caller_frames.inc();
        let mut heard = Vec::new();
        let pass_on = |pcm: &[u8]| heard.push(sts::audio(pcm));
        let finding = self.audio.hear(rate, samples, self.heard_at, pass_on);
        for message in heard {
            self.step(Input::Audio, Data::Audio(message)).await;
        }
        match finding {
            Some(Finding::Codec(codec)) => {
                info!(uuid = %self.call, codec = codec.name(), "audio codec detected");
            }
            Some(Finding::Unreadable) => warn!(
                uuid = %self.call,
                bytes = samples.len(),
                "the caller's audio is neither slin, ulaw nor alaw and is not sent on; \
                 let Asterisk transcode it: Dial(AudioSocket/HOST:PORT/UUID/c(slin))"
            ),
            None => {}
        }
    }

    async fn take_reached(&mut self, reached: Reached) {
        match reached {
            Reached::Server(socket) => {
                self.sts = Some(socket);
                self.step(Input::Reached, Data::Nothing).await;
            }
            Reached::Nobody => self.step(Input::NotReached, Data::Nothing).await,
            Reached::NoServer => {
                self.held = VecDeque::new();
                self.step(Input::NoServer, Data::Nothing).await;
            }
        }
    }

    async fn take_heard(&mut self, heard: Incoming) {
        match heard {
            Incoming::Message(message) => self.take_said(sts::read(&message)).await,
            Incoming::Closed => {
                self.sts = None;
                self.step(Input::StsClosed, Data::Nothing).await;
            }
            Incoming::Broken(fault) => {
                self.sts = None;
                warn!(uuid = %self.call, error = fault, "what the speech-to-speech server sent cannot be read");
                self.step(Input::StsBroke, Data::Nothing).await;
            }
        }
    }

    async fn take_said(&mut self, said: Said<'_>) {
        match said {
            Said::Audio(base64) => {
                let mut pcm = std::mem::take(&mut self.pcm);
                if sts::decode_audio(&base64, &mut pcm) {
                    self.step(Input::Speech, Data::Speech(&pcm)).await;
                } else {
                    debug!(uuid = %self.call, "audio of the speech-to-speech server is no base64");
                }
                self.pcm = pcm;
                // After a whole utterance its room is not needed.
                self.pcm.shrink_to(4 * FRAME_AUDIO);
            }
            Said::Interruption => {
                let busy = self.line.is_busy();
                self.step(Input::Interruption { busy }, Data::Interruption).await;
            }
            Said::Transcript { role, text } => {
                self.step(Input::Transcript, Data::Transcript { role, text }).await;
            }
            Said::Error { message } => {
                warn!(uuid = %self.call, error = message, "speech-to-speech server reports a fault");
                self.step(Input::Fault, Data::Fault { message }).await;
            }
            Said::Other => debug!(uuid = %self.call, "a message is not understood"),
        }
    }

    /// The one timer of a call: idleness while it lives, then the time for last transcripts.
    async fn take_alarm(&mut self, alarm: Pin<&mut Sleep>) {
        if !self.is_live() {
            return self.step(Input::GraceOver, Data::Nothing).await;
        }
        let idle_at = self.heard_at + self.bridge.settings.idle_timeout;
        if idle_at <= Instant::now() {
            self.step(Input::Idle, Data::Nothing).await;
        } else {
            alarm.reset(idle_at);
        }
    }

    async fn step(&mut self, input: Input, mut data: Data<'_>) {
        let (state, actions) = self.state.after(input);
        self.state = state;
        for action in actions {
            match action {
                Action::Hold => self.hold(data.take_message()),
                Action::Forward => self.forward(data.take_message()).await,
                Action::ForwardHeld => self.forward_held().await,
                Action::Play => self.play(&data),
                Action::Silence => {
                    self.line.silence();
                }
                Action::Report => self.report(&data),
                Action::HangUp => self.line.hang_up(),
            }
        }
    }

    fn hold(&mut self, message: Option<String>) {
        if self.held.len() == MOST_HELD {
            self.held.pop_front();
            self.bridge.metrics.calls.caller_frames_dropped.inc();
        }
        self.held.extend(message);
    }

    async fn forward_held(&mut self) {
        for message in std::mem::take(&mut self.held) {
            self.forward(Some(message)).await;
        }
    }

    async fn forward(&mut self, message: Option<String>) {
        let (Some(sts), Some(message)) = (&mut self.sts, message) else {
            return;
        };
        if sts.send(message).await {
            return;
        }
        self.bridge.metrics.calls.caller_frames_dropped.inc();
        if !self.warned.untaken {
            self.warned.untaken = true;
            warn!(uuid = %self.call, "speech-to-speech server does not read; the caller's audio is dropped");
        }
    }

    fn play(&mut self, data: &Data<'_>) {
        let Data::Speech(pcm) = data else {
            return;
        };
        let dropped = self.bridge.clock.play(&self.line, pcm);
        self.bridge.metrics.calls.surplus_bytes.inc_by(dropped as u64);
        if dropped > 0 && !self.warned.surplus {
            self.warned.surplus = true;
            warn!(
                uuid = %self.call,
                "speech-to-speech server is 30 s ahead of what is played; the surplus is dropped"
            );
        }
    }

    fn report(&self, data: &Data<'_>) {
        let (kind, payload) = match data {
            Data::Digit(digit) => (EventType::DtmfDigit, Payload::of(&json!({"digit": digit}))),
            Data::Transcript { role, text } => {
                (EventType::Transcription, Payload::of(&json!({"role": role, "text": text})))
            }
            Data::Interruption => (EventType::Interruption, Payload::empty()),
            Data::Fault { message } => {
                (EventType::Error, Payload::of(&json!({"message": message})))
            }
            Data::Nothing | Data::Audio(_) | Data::Speech(_) => return,
        };
        self.reporter.report(kind, &payload);
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

/// What becomes of the connecting; never once that is known.
async fn until_done(reaching: &mut Option<Pin<Box<impl Future<Output = Reached>>>>) -> Reached {
    match reaching {
        Some(reaching) => reaching.await,
        None => std::future::pending().await,
    }
}

/// What comes from the server next; never where there is none.
async fn hear(sts: &mut Option<Box<Socket>>) -> Incoming {
    match sts {
        Some(sts) => sts.next().await,
        None => std::future::pending().await,
    }
}

impl Data<'_> {
    /// What the server is sent of what the caller does.
    fn take_message(&mut self) -> Option<String> {
        match self {
            Self::Audio(message) => Some(std::mem::take(message)),
            Self::Digit(digit) => Some(sts::digit(*digit)),
            Self::Speech(_)
            | Self::Transcript { .. }
            | Self::Fault { .. }
            | Self::Interruption
            | Self::Nothing => None,
        }
    }
}
