//! `callhook receive`: a receiver for people who develop against one, with faults on order.
//!
//! ```text
//!  request ─► server ─► desk: trust ─► watch ─► recorder ─► faults ─► answer
//!               │
//!               └─► notice ─► printer                        (at the end: report, recording)
//! ```
//!
//! Answers `POST` on any path. Prints a line an event when it is answered, and one more when it
//! arrives if the answer comes later. What is odd is marked in the line where it happens and counted
//! in the report. `callhook demo` uses the server with a behaviour of its own.
//!
//! Limits: memory is bounded by [`faults::CALLS`], [`watch::EVENTS`], [`server::BACKLOG`],
//! [`server::MAX_BODY`] and, with `--record`, [`super::scenario::MAX_FILE`].

pub mod arguments;
mod desk;
pub mod event;
pub mod faults;
pub mod line;
pub mod orders;
mod printer;
mod record;
pub mod remark;
pub mod report;
pub mod sequence;
pub mod server;
pub mod trust;
pub mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

pub use self::arguments::Options;
use self::desk::{Desk, Usual};
pub use self::event::{Envelope, Received};
use self::faults::Faults;
use self::line::millis;
use self::printer::Printer;
use self::record::Recorder;
pub use self::server::{Answer, Behaviour, Ended, Notice, Receiver};
use self::trust::Trust;
use crate::app::{Signals, StartError};
use crate::listener::Listen;

/// How long answers under way are waited for at the end, and the output after a signal.
const CLOSING: Duration = Duration::from_secs(1);

/// The seed where none is given is below this: short enough to be typed again.
const SEEDS: u64 = 1_000_000;

/// Why the command does not end with success.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It could not listen.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The recording cannot be written.
    #[error("--record {}: {cause}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The system's word.
        cause: io::Error,
    },
    /// Nothing can be printed.
    #[error("the output takes no more: {0}")]
    Output(io::Error),
}

/// Runs the command until it is interrupted, or has what it was asked for; then prints the report.
///
/// # Errors
/// [`ReceiveError`]
pub async fn run(options: Options) -> Result<(), ReceiveError> {
    let mut signals = Signals::listen()?;
    let seed = options.faults.seed.unwrap_or_else(seed);
    let desk = Arc::new(options.desk(seed)?);
    let Options { host, port, run_time, json, .. } = &options;
    let listen = Listen { host: host.clone(), port: *port };
    let started = Receiver::start(host, *port, Arc::clone(&desk) as Behaviour).await;
    let mut receiver =
        started.map_err(|cause| StartError::Bind { listen, variables: "--host:--port", cause })?;
    let begun = Instant::now();
    let mut printer = Printer::new(*json);
    greet(&mut printer, &receiver, desk.by_chance().then_some(seed));
    let (mut asked_to, mut written) = (false, Ok(()));
    tokio::select! {
        followed = printer.follow(&mut receiver.notices) => written = followed,
        // What is still being answered ends with the process: nobody relies on it.
        _ = signals.next() => asked_to = true,
        () = enough(&desk, *run_time) => written = finish(&mut printer, &mut receiver).await,
    }
    let (mut report, recorded) = desk.close();
    report.took_ms = millis(begun.elapsed());
    if written.is_ok() {
        printer.catch_up(&mut receiver.notices);
        printer.put("report", &report.to_string(), &report);
        written = tokio::select! {
            flushed = printer.flush() => flushed,
            // Whoever reads slowly is waited for, unless it was asked to end.
            () = sleep(CLOSING), if asked_to => Ok(()),
            _ = signals.next() => Ok(()),
        };
    }
    recorded.map_err(|cause| ReceiveError::record(options.record.as_deref(), cause))?;
    // As with `| head`: whoever read it has seen enough.
    let has_seen_enough = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    written
        .or_else(|error| if has_seen_enough(&error) { Ok(()) } else { Err(error) })
        .map_err(ReceiveError::Output)
}

impl ReceiveError {
    fn record(path: Option<&Path>, cause: io::Error) -> Self {
        Self::Record { path: path.map(Path::to_owned).unwrap_or_default(), cause }
    }
}

/// Waits until as many events came, or as much time went by, as was asked for.
async fn enough(desk: &Desk, run_time: Option<Duration>) {
    let over = async {
        match run_time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = desk.enough() => {}
        () = over => {}
    }
}

/// Stops listening, and gives the answers under way a moment.
async fn finish(printer: &mut Printer, receiver: &mut Receiver) -> io::Result<()> {
    receiver.close();
    timeout(CLOSING, printer.follow(&mut receiver.notices)).await.unwrap_or(Ok(()))
}

fn greet(printer: &mut Printer, receiver: &Receiver, seed: Option<u64>) {
    let url = format!("http://{}/events", receiver.address);
    let repeat = seed.map(|seed| format!("\n--seed {seed} strikes the same requests again"));
    let text = format!("receiving on {url}{}", repeat.unwrap_or_default());
    printer.put("listening", &text, &json!({ "url": url, "seed": seed }));
}

fn seed() -> u64 {
    u64::from(uuid::Uuid::new_v4().as_fields().0) % SEEDS
}

impl Options {
    fn desk(&self, seed: u64) -> Result<Desk, ReceiveError> {
        let status = StatusCode::from_u16(self.status).expect("clap checked the range");
        let retry_after = self.faults.retry_after;
        let usual = Usual { status, sts_url: self.sts_url.clone(), retry_after };
        let trust = Trust {
            secret: self.secret.clone().map(|secret| secret.0),
            key: self.signing_key.clone().map(|signing| signing.key),
        };
        let recorder = self.record.as_ref().map(|path| {
            let opened = Recorder::create(path);
            opened.map_err(|cause| ReceiveError::record(Some(path), cause))
        });
        let most = self.events.map(Into::into);
        let orders = &self.faults;
        let faults = Faults::new(&orders.drop, &orders.fail, &orders.delay, seed);
        Ok(Desk::new(usual, trust, faults, recorder.transpose()?, most))
    }
}
