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
pub mod reply;
pub mod report;
pub mod sequence;
pub mod server;
pub mod trust;
pub mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

pub use self::arguments::ReceiveOptions;
use self::desk::Desk;
pub use self::event::{EventBody, Received};
use self::printer::Printer;
pub use self::reply::{Ending, Reply};
pub use self::server::{Conduct, Notice, Receiver};
use crate::app::{Signals, StartError};
use crate::listener::ListenAddress;
use crate::time::millis;
use crate::workbench::dice;

/// How long answers under way are waited for at the end, and the output after a signal.
const CLOSING: Duration = Duration::from_secs(1);

/// Why the command does not end with success.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("--record {}: {cause}", path.display())]
    Record { path: PathBuf, cause: io::Error },
    #[error("cannot write to the standard output: {0}")]
    Output(io::Error),
}

/// Runs the command until it is interrupted, or has what it was asked for; then prints the report.
///
/// # Errors
/// [`ReceiveError`]
pub async fn run(options: ReceiveOptions) -> Result<(), ReceiveError> {
    let mut signals = Signals::listen()?;
    let seed = options.faults.seed.unwrap_or_else(dice::seed);
    let record_failed =
        |cause| ReceiveError::Record { path: options.record.clone().unwrap_or_default(), cause };
    let desk = Arc::new(Desk::open(&options, seed).map_err(record_failed)?);
    let ReceiveOptions { host, port, run_time, json, .. } = &options;
    let listen = ListenAddress { host: host.clone(), port: *port };
    let started = Receiver::start(host, *port, Arc::clone(&desk) as Arc<dyn Conduct>).await;
    let mut receiver =
        started.map_err(|cause| StartError::Bind { listen, variables: "--host:--port", cause })?;
    let begun = Instant::now();
    let mut printer = Printer::new(*json);
    greet(&mut printer, &receiver, desk.by_chance().then_some(seed));
    let (mut interrupted, mut written) = (false, Ok(()));
    tokio::select! {
        followed = printer.follow(&mut receiver.notices) => written = followed,
        // Answers under way end with the process: nobody relies on them.
        _ = signals.next() => interrupted = true,
        _ = timeout(run_time.unwrap_or(Duration::MAX), desk.enough()) => {
            written = finish(&mut printer, &mut receiver).await;
        }
    }
    let (mut report, recorded) = desk.close();
    report.took_ms = millis(begun.elapsed());
    if written.is_ok() {
        printer.catch_up(&mut receiver.notices);
        printer.put("report", &report.to_string(), &report);
        written = tokio::select! {
            flushed = printer.flush() => flushed,
            // A slow reader is waited for, unless a signal came.
            () = sleep(CLOSING), if interrupted => Ok(()),
            _ = signals.next() => Ok(()),
        };
    }
    recorded.map_err(record_failed)?;
    // As with `| head`: the reader has seen enough.
    let has_seen_enough = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    written
        .or_else(|error| if has_seen_enough(&error) { Ok(()) } else { Err(error) })
        .map_err(ReceiveError::Output)
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
