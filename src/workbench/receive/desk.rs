//! Desk: what `callhook receive` decides about each request, and what it keeps of it.
//!
//! One lock for all of it: what is done under it is a few look-ups, and no request waits for another
//! one's answer.
//!
//! A request that is not trusted is refused before anything else: no fault strikes it, and what it
//! says is neither watched nor recorded.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use axum::http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::event::Received;
use super::faults::{Fault, Faults};
use super::line::{MOST_NAME, cut};
use super::record::Recorder;
use super::report::Report;
use super::server::{Answer, Conduct, End, Stray, Verdict};
use super::trust::Trust;
use super::watch::{Sighting, Watch};

/// How events are usually answered.
#[derive(Clone, Debug)]
pub struct Usual {
    /// The status.
    pub status: StatusCode,
    /// `sts_url` for `call_initiated`.
    pub sts_url: Option<String>,
    /// `Retry-After` where the status is 429 or 503, in seconds.
    pub retry_after: Option<u32>,
}

/// Decides and keeps.
#[derive(Debug)]
pub struct Desk {
    usual: Usual,
    trust: Trust,
    /// After so many events that were answered as usual it is enough.
    most: Option<u64>,
    /// It is enough.
    enough: CancellationToken,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    watch: Watch,
    recorder: Option<Recorder>,
    taken: u64,
}

impl Desk {
    /// A desk that nobody has come to yet.
    pub fn new(
        usual: Usual,
        trust: Trust,
        faults: Faults,
        recorder: Option<Recorder>,
        most: Option<u64>,
    ) -> Self {
        let state = State { faults, watch: Watch::default(), recorder, taken: 0 };
        let (enough, hasher) = (CancellationToken::new(), RandomState::new());
        Self { usual, trust, most, enough, hasher, state: Mutex::new(state) }
    }

    /// Waits until as many events as were asked for have been answered as usual.
    pub async fn enough(&self) {
        self.enough.cancelled().await;
    }

    /// Whether any fault depends on the seed.
    pub fn by_chance(&self) -> bool {
        self.state().faults.by_chance()
    }

    /// What came of it. The recording is written now; whether that went well.
    pub fn close(&self) -> (Report, io::Result<()>) {
        let mut state = self.state();
        let mut report = state.watch.report();
        let written = match state.recorder.as_mut().map(Recorder::write) {
            Some(Err(error)) => Err(error),
            Some(Ok(recorded)) => {
                report.recorded = Some(recorded);
                Ok(())
            }
            None => Ok(()),
        };
        (report, written)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn places(&self, received: &Received) -> (u64, Option<u64>) {
        let event = received.identity().map(|identity| self.hasher.hash_one(identity));
        (self.hasher.hash_one(&received.event.uuid), event)
    }

    fn answer(&self, status: StatusCode, verdict: Verdict) -> Answer {
        let busy =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let retry_after = self.usual.retry_after.filter(|_| busy);
        Answer { status, verdict, retry_after, ..Answer::default() }
    }
}

impl Conduct for Desk {
    fn arrived(&self, received: &Received) -> Answer {
        let trusted = self.trust.judge(&received.headers, &received.body, SystemTime::now());
        let (call, event) = self.places(received);
        let kind = cut(&received.event.kind, MOST_NAME);
        let mut state = self.state();
        if let Err(refusal) = trusted {
            state.watch.refused();
            return self.answer(StatusCode::UNAUTHORIZED, Verdict::Refused(refusal));
        }
        let uuid = cut(&received.event.uuid, MOST_NAME);
        let (attempt, sequence) = (received.attempt(), received.sequence());
        let sighting = Sighting { call, event, uuid, kind, attempt, sequence };
        let (fresh, remarks) = state.watch.arrived(&sighting);
        if let Some(recorder) = state.recorder.as_mut().filter(|_| fresh) {
            recorder.take(call, received);
        }
        let fate = state.faults.fate(call, kind);
        let answer = match fate.fault {
            Some(Fault::Drop) => self.answer(StatusCode::OK, Verdict::Drop),
            Some(Fault::Status(status)) => self.answer(status, Verdict::Fault),
            None => {
                let status = self.usual.status;
                let routes = kind == "call_initiated" && status.is_success();
                let sts_url = self.usual.sts_url.clone().filter(|_| routes);
                Answer { sts_url, ..self.answer(status, Verdict::Usual) }
            }
        };
        Answer { delay: fate.delay, remarks, ..answer }
    }

    fn ended(&self, received: &Received, answer: &Answer, end: End) {
        let (call, event) = self.places(received);
        let mut state = self.state();
        if matches!(answer.verdict, Verdict::Refused(_)) {
            state.watch.refused_ended(end);
            return;
        }
        let usual = answer.verdict == Verdict::Usual;
        state.taken += u64::from(state.watch.ended(call, event, end, usual));
        if self.most.is_some_and(|most| state.taken >= most) {
            self.enough.cancel();
        }
    }

    fn strayed(&self, stray: &Stray) {
        self.state().watch.strayed(stray.status);
    }
}
