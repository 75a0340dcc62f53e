//! `callhook simulate`: whole phone calls' webhooks, played against a receiver.
//!
//! ```text
//!  scenario ─► plan ─► spoil ─► queue ─► sender ─► webhook ─► receiver
//!                                          │
//!                                          └─► tally ─► progress, summary
//! ```
//!
//! The queue and the client are those that serve: what a receiver sees here is what it sees there,
//! order, retries and headers included. Events are kept in memory, and the receiver never counts as
//! down, so that every event is settled and the command ends.

pub mod clock;
pub mod faults;
pub mod options;
mod play;
mod progress;
mod sender;
mod summary;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

pub use self::options::SimulateOptions;
use self::play::{MOST_WAITING, Players};
use self::sender::FaultySender;
use self::summary::SimulationSummary;
use self::tally::Tally;
use super::dice;
use super::scenario::{LoadError, Scenario};
use crate::app::Signals;
use crate::delivery::trace::ProcessId;
use crate::delivery::{Webhook, WebhookSettings};
use crate::history::History;
use crate::journal::{Journal, Recovered};
use crate::output::{complain, print, print_line};
use crate::queue::{Limits, Queue, QueueParts, QueueSettings, ReceiverRules};
use crate::receiver::Receivers;
use crate::retry::{Delays, RetryPolicy};
use crate::routing::RouteRules;
use crate::text::innermost;

/// Attempts in flight in all, as `WEBHOOK_CONCURRENCY` is by default; in a call there is one.
const IN_FLIGHT: u32 = 64;

/// The delays between attempts, as `WEBHOOK_BACKOFF` and `WEBHOOK_BACKOFF_MAX` are by default.
const DELAYS: Delays = Delays::fixed(Duration::from_millis(500), Duration::from_secs(30));

/// How long a decision is waited for, as `ROUTING_TIMEOUT` is by default.
const ROUTING: Duration = Duration::from_secs(5);

/// Time for the queue to take note of the last answers.
const CLOSING: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("{0}")]
    Scenario(#[from] LoadError),
    /// Events without a fault put on them, and all that were sent.
    #[error("{failed} of {sent} events were not answered with 2xx")]
    Refused { failed: u64, sent: u64 },
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Plays the calls and prints the summary.
///
/// # Errors
/// [`SimulateError`]; with [`SimulateError::Refused`] the summary was printed.
pub async fn run(options: SimulateOptions) -> Result<(), SimulateError> {
    let scenarios: Vec<Scenario> =
        options.scenarios.iter().map(|name| Scenario::load(name)).collect::<Result<_, _>>()?;
    let seed = options.seed.or_else(|| scenarios.iter().find_map(|scenario| scenario.seed));
    let seed = seed.unwrap_or_else(dice::seed);
    let settings = options.receiver.settings();
    let url = settings.shown_url();
    let tally = Arc::new(Tally::default());
    let (queue, sender) = options.sender(&settings, &tally)?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let SimulateOptions { calls, rate, speed, json, .. } = options;
    let played = options.scenarios.join(", ");
    complain(format_args!(
        "{calls} calls of {played} to {url}: rate {rate}, speed {speed}, seed {seed}"
    ));
    let players =
        Players::new(options.clone(), scenarios, seed, queue.clone(), sender, Arc::clone(&tally));
    let players = Arc::new(players);
    let begun = Instant::now();
    let interrupted = tokio::select! {
        () = players.play() => false,
        _ = signals.next() => true,
        () = progress::show(&tally, calls) => false,
    };
    // What happens from here on is not part of it: what is under way is broken off.
    let (elapsed, numbers) = (begun.elapsed(), tally.numbers());
    players.stop().await;
    queue.drain(Instant::now() + if interrupted { Duration::ZERO } else { CLOSING }).await;
    let (failed, sent) = (numbers.failed, numbers.sent);
    let summary = SimulationSummary { url, options, seed, elapsed, interrupted, numbers };
    if json {
        print_line(summary.json())
    } else {
        print(format_args!("\n{summary}"))
    }
    if failed > 0 { Err(SimulateError::Refused { failed, sent }) } else { Ok(()) }
}

impl SimulateOptions {
    /// The queue, and whoever sends for it.
    fn sender(
        &self,
        settings: &WebhookSettings,
        tally: &Arc<Tally>,
    ) -> anyhow::Result<(Queue, FaultySender)> {
        let webhook =
            Webhook::new(settings.clone(), None, ProcessId::random()).map_err(|error| {
                anyhow::anyhow!("cannot set up the HTTP client: {}", innermost(&error))
            })?;
        let retry = RetryPolicy::new(self.retry, DELAYS);
        let sender =
            FaultySender::new(webhook, retry.attempts(), settings.timeout, Arc::clone(tally));
        let in_flight = usize::try_from(self.concurrency.min(IN_FLIGHT)).unwrap_or(usize::MAX);
        let settings = QueueSettings {
            receivers: vec![ReceiverRules {
                // Twice, since an event frees its place a moment before the queue lets go of it.
                limits: Limits {
                    concurrency: in_flight,
                    queue: 2 * MOST_WAITING,
                    bytes: usize::MAX,
                    timeout: settings.timeout,
                    routing_timeout: ROUTING,
                    breaker: 0,
                },
                retry,
                ..ReceiverRules::default()
            }],
            relay_timeout: ROUTING,
            rules: RouteRules::ANYWHERE,
        };
        let parts = QueueParts {
            deliver: vec![Some(Arc::new(sender.clone()))],
            journal: Arc::new(Journal::in_memory(&Receivers::main(), 1)),
            history: History::default(),
            metrics: Arc::default(),
        };
        Ok((Queue::start(settings, parts, Recovered::default()), sender))
    }
}
