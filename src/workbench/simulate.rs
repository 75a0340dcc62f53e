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
mod play;
mod progress;
mod sender;
mod summary;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::HeaderValue;
use secrecy::SecretString;
use tokio::time::Instant;
use url::Url;

use self::clock::{Rate, Speed};
use self::faults::Shares;
use self::play::{MOST_WAITING, Players, Script};
use self::sender::Sender;
use self::summary::Summary;
use self::tally::Tally;
use super::scenario::{LoadError, Scenario};
use crate::app::Signals;
use crate::delivery::signature::{BadSigningKey, SigningKey};
use crate::delivery::{Webhook, WebhookSettings};
use crate::event::EventFilter;
use crate::history::History;
use crate::journal::{Journal, Recovered};
use crate::queue::{Limits, Queue, QueueParts, QueueSettings};
use crate::retry::{Delays, RetryPolicy};
use crate::routing::AllowedHosts;
use crate::text::innermost;

/// Attempts in flight in all, as `WEBHOOK_CONCURRENCY` is by default; in a call there is one.
const IN_FLIGHT: u32 = 64;

/// The delays between attempts, as `WEBHOOK_BACKOFF` and `WEBHOOK_BACKOFF_MAX` are by default.
const DELAYS: Delays = Delays::fixed(Duration::from_millis(500), Duration::from_secs(30));

/// How long a decision is waited for, as `ROUTING_TIMEOUT` is by default.
const ROUTING: Duration = Duration::from_secs(5);

/// What is sent in place of the secret; the second one where the first is the secret itself.
const WRONG_SECRETS: [&str; 2] = ["not-the-secret", "not-the-secret-either"];

/// The seed where none is given is below this: short enough to be typed again.
const SEEDS: u64 = 1_000_000;

/// Time for the queue to take note of the last answers.
const CLOSING: Duration = Duration::from_secs(5);

/// The command's options.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callhook simulate http://localhost:9000/events
  callhook simulate http://localhost:9000/events --scenario ivr --scenario ./mine.toml \\
      --calls 200 --rate 20 --speed 10x --duplicate 5% --late 2% --seed 42

Scenarios that come with callhook: booking, ivr, impatient, abandoned, long, lost.
Exit status: 0 if every event was answered with 2xx, but for those that a fault was put on; 1 if
not; 64 for a wrong option or scenario. Ctrl-C prints the summary so far.")]
pub struct Options {
    /// The receiver's http:// or https:// URL
    pub url: String,
    /// Sent as X-AVR-WEBHOOK-SECRET
    #[arg(long)]
    pub secret: Option<String>,
    /// `whsec_…`: sign every attempt as Standard Webhooks
    #[arg(long)]
    pub signing_key: Option<String>,
    /// A scenario's name or file; several are played alike, and one named twice twice as often
    #[arg(long = "scenario", value_name = "NAME|FILE", default_value = "booking")]
    pub scenarios: Vec<String>,
    /// How many calls to play
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// Calls that begin in a second, or max
    #[arg(long, default_value = "1")]
    pub rate: Rate,
    /// Calls at one time at most; further ones begin later than --rate says. Up to 64 requests
    /// are in flight, one a call
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// How many times faster than real the calls go by, or max for no waiting at all
    #[arg(long, default_value = "1x")]
    pub speed: Speed,
    /// Plays the same calls, with the same uuids and faults, again; by default the scenario's, or
    /// another one each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// Milliseconds for one attempt
    #[arg(long, default_value_t = 3000, value_name = "MS",
          value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub timeout: u32,
    /// Additional attempts after the first
    #[arg(long, default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retry: u32,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
    /// What is spoiled
    #[command(flatten)]
    pub shares: Shares,
}

/// Why the command does not end with success.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An option is wrong.
    #[error("{0}")]
    Usage(String),
    /// A scenario is wrong.
    #[error("{0}")]
    Scenario(#[from] LoadError),
    /// So many events were not answered with 2xx.
    #[error("{failed} of {sent} events were not answered with 2xx")]
    Refused {
        /// Those without a fault put on them.
        failed: u64,
        /// All that were sent.
        sent: u64,
    },
    /// It could not be played.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Plays the calls and prints the summary.
///
/// # Errors
/// [`SimulateError`]; with [`SimulateError::Refused`] the summary was printed.
pub async fn run(options: Options) -> Result<(), SimulateError> {
    let scenarios: Vec<Scenario> =
        options.scenarios.iter().map(|name| Scenario::load(name)).collect::<Result<_, _>>()?;
    let seed = options.seed.or_else(|| scenarios.iter().find_map(|scenario| scenario.seed));
    let seed = seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0) % SEEDS);
    let settings = options.webhook()?;
    let url = settings.shown_url();
    let tally = Arc::new(Tally::default());
    let (queue, sender) = options.sender(&settings, &tally)?;
    let mut signals = Signals::listen().context("no signals to be had")?;
    let played = options.scenarios.join(", ");
    let Options { calls, shares, rate, speed, .. } = options;
    eprintln!("{calls} calls of {played} to {url}: rate {rate}, speed {speed}, seed {seed}");
    let script = Script { scenarios, seed, shares, calls, rate, speed };
    let at_once = options.concurrency;
    let players = Players::new(script, queue.clone(), sender, Arc::clone(&tally), at_once);
    let begun = Instant::now();
    let interrupted = tokio::select! {
        () = players.play() => false,
        _ = signals.next() => true,
        () = progress::show(&tally, calls) => false,
    };
    // What happens from here on is not part of it: what is under way is broken off.
    let numbers = tally.numbers();
    let elapsed = begun.elapsed();
    players.stop().await;
    queue.drain(Instant::now() + if interrupted { Duration::ZERO } else { CLOSING }).await;
    let (failed, sent) = (numbers.failed, numbers.sent);
    let scenarios = options.scenarios;
    let summary = Summary { url, scenarios, seed, shares, calls, elapsed, interrupted, numbers };
    if options.json {
        println!("{}", summary.json())
    } else {
        print!("\n{summary}")
    }
    if failed > 0 { Err(SimulateError::Refused { failed, sent }) } else { Ok(()) }
}

impl Options {
    /// The receiver, checked. What is wrong with a secret or a URL is told without repeating it.
    fn webhook(&self) -> Result<WebhookSettings, SimulateError> {
        let usage = |text: &str| SimulateError::Usage(text.to_owned());
        let url = Url::parse(&self.url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| {
            usage("URL: expected the receiver's http:// or https:// URL, such as http://localhost:9000/events")
        })?;
        let fit = |secret: &String| !secret.is_empty() && HeaderValue::from_str(secret).is_ok();
        if !self.secret.iter().all(fit) {
            return Err(usage("--secret: expected visible text, as it is sent in a header"));
        }
        let key = self.signing_key.as_deref().map(str::parse::<SigningKey>).transpose();
        let signing_key =
            key.map_err(|why: BadSigningKey| usage(&format!("--signing-key: {why}")))?;
        Ok(WebhookSettings {
            url,
            secret: self.secret.clone().map(SecretString::from),
            timeout: Duration::from_millis(self.timeout.into()),
            signing_key,
        })
    }

    /// The queue, and whoever sends for it.
    fn sender(
        &self,
        settings: &WebhookSettings,
        tally: &Arc<Tally>,
    ) -> Result<(Queue, Sender), SimulateError> {
        let client = |settings| {
            Webhook::new(settings, None).map_err(|error| {
                anyhow::anyhow!("no client for the receiver: {}", innermost(&error))
            })
        };
        let is_wrong = |secret: &&str| self.secret.as_deref() != Some(secret);
        let other = WRONG_SECRETS.iter().copied().find(is_wrong).expect("one differs of two");
        let wrong = WebhookSettings { secret: Some(other.into()), ..settings.clone() };
        let retry = RetryPolicy::new(self.retry, DELAYS);
        let (right, wrong) = (client(settings.clone())?, client(wrong)?);
        let sender =
            Sender::new(right, wrong, retry.attempts(), settings.timeout, Arc::clone(tally));
        let in_flight = usize::try_from(self.concurrency.min(IN_FLIGHT)).unwrap_or(usize::MAX);
        let settings = QueueSettings {
            filter: EventFilter::All,
            // Twice, since an event frees its place a moment before the queue lets go of it.
            limits: Limits { concurrency: in_flight, queue: 2 * MOST_WAITING, breaker: 0 },
            retry,
            routing_timeout: ROUTING,
            allowed_hosts: AllowedHosts::Any,
            receiver: settings.shown_url(),
        };
        let parts = QueueParts {
            deliver: Some(Arc::new(sender.clone())),
            journal: Arc::new(Journal::in_memory(1)),
            history: History::default(),
            metrics: Arc::default(),
        };
        Ok((Queue::start(settings, parts, Recovered::default()), sender))
    }
}
