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

use super::arguments::ReceiveOptions;
use super::event::Received;
use super::faults::Faults;
use super::line::{MOST_NAME, cut};
use super::record::Recorder;
use super::reply::{Ending, Reply};
use super::report::ReceiveReport;
use super::server::{Conduct, Notice};
use super::trust::Trust;
use super::watch::{Sighting, Watch};
use crate::routing::destination::Destination;

#[derive(Debug)]
pub struct Desk {
    status: StatusCode,
    /// For `call_initiated`, where the status is 2xx.
    sts_url: Option<String>,
    /// As `sts_url`.
    next: Option<Destination>,
    /// In seconds, where the status is 429 or 503.
    retry_after: Option<u32>,
    trust: Trust,
    /// It is enough after this many events that were answered as usual.
    most: Option<u64>,
    enough: CancellationToken,
    hasher: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    faults: Faults,
    watch: Watch,
    recorder: Option<Recorder>,
    /// Events that were answered as usual.
    taken: u64,
}

impl Desk {
    /// # Errors
    /// Where the recording cannot be written.
    pub fn open(options: &ReceiveOptions, seed: u64) -> io::Result<Self> {
        let orders = &options.faults;
        let endings = orders.drop.iter().chain(&orders.fail).cloned().collect();
        let faults = Faults::new(endings, orders.delay.clone(), seed);
        let recorder = options.record.as_deref().map(Recorder::create).transpose()?;
        Ok(Self {
            status: StatusCode::from_u16(options.status).expect("clap checked the range"),
            sts_url: options.sts_url.clone(),
            next: options.next.clone(),
            retry_after: orders.retry_after,
            trust: Trust {
                secret: options.secret.clone().map(|secret| secret.0),
                key: options.signing_key.clone().map(|signing| signing.key),
            },
            most: options.events.map(Into::into),
            enough: CancellationToken::new(),
            hasher: RandomState::new(),
            seen: Mutex::new(Seen { faults, watch: Watch::default(), recorder, taken: 0 }),
        })
    }

    /// Waits until as many events as were asked for have been answered as usual.
    pub async fn enough(&self) {
        self.enough.cancelled().await;
    }

    /// Whether any fault depends on the seed.
    pub fn by_chance(&self) -> bool {
        self.seen().faults.by_chance()
    }

    /// The report, and whether the recording could be written, which is done now.
    pub fn close(&self) -> (ReceiveReport, io::Result<()>) {
        let mut seen = self.seen();
        let mut report = seen.watch.report();
        let written = seen.recorder.as_mut().map(Recorder::write).transpose();
        let written = written.map(|recorded| report.recorded = recorded);
        (report, written)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it holds this lock")
    }

    /// Keys for the call, and for the event, if that can be recognised.
    fn keys(&self, received: &Received) -> (u64, Option<u64>) {
        let event = received.identity().map(|identity| self.hasher.hash_one(identity));
        (self.hasher.hash_one(&received.event.uuid), event)
    }

    fn reply(&self, ending: Ending) -> Reply {
        let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        let is_busy = ending.status().is_some_and(|status| busy.contains(&status));
        let retry_after = self.retry_after.filter(|_| is_busy);
        Reply { retry_after, ..Reply::from(ending) }
    }
}

impl Conduct for Desk {
    fn arrived(&self, received: &Received) -> Reply {
        let trusted = self.trust.judge(&received.headers, &received.body, SystemTime::now());
        let (call, event) = self.keys(received);
        let mut seen = self.seen();
        if let Err(distrust) = trusted {
            seen.watch.refused();
            return Ending::Refused(distrust).into();
        }
        let kind = cut(&received.event.kind, MOST_NAME);
        let uuid = cut(&received.event.uuid, MOST_NAME);
        let (attempt, sequence) = (received.attempt(), received.sequence());
        let sighting = Sighting { call, event, uuid, kind, attempt, sequence };
        let (fresh, remarks) = seen.watch.arrived(&sighting);
        if let Some(recorder) = seen.recorder.as_mut().filter(|_| fresh) {
            recorder.take(call, received);
        }
        let (delay, fault) = seen.faults.fate(call, kind);
        let routes = fault.is_none() && kind == "call_initiated" && self.status.is_success();
        let sts_url = self.sts_url.clone().filter(|_| routes);
        let next = self.next.clone().filter(|_| routes);
        let ending = fault.unwrap_or(Ending::Usual(self.status));
        Reply { sts_url, next, delay, remarks, ..self.reply(ending) }
    }

    fn noticed(&self, notice: &Notice) {
        match notice {
            Notice::Arrived(..) => {}
            Notice::Ended { reply: Reply { ending: Ending::Refused(_), .. }, .. } => {}
            Notice::Ended { received, reply, .. } => {
                let (call, event) = self.keys(received);
                let mut seen = self.seen();
                seen.taken += u64::from(seen.watch.ended(call, event, &reply.ending));
                if self.most.is_some_and(|most| seen.taken >= most) {
                    self.enough.cancel();
                }
            }
            Notice::Strayed(stray) => self.seen().watch.strayed(stray.status),
        }
    }
}
