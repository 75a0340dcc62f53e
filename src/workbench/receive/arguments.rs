//! The arguments.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgGroup;
use clap::builder::NonEmptyStringValueParser;

use super::orders::{self, FaultOrder};
use super::reply::Ending;
use crate::routing::destination::{Destination, PRIORITY};
use crate::workbench::credentials::{Hushed, KeyText, Secret};

/// The longest `--for`: a week.
const LONGEST_RUN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest `--retry-after`, in seconds: a day.
const LONGEST_RETRY_AFTER: i64 = 24 * 60 * 60;

const FAULTS: &str = "Faults on order, which can be given more than once and add up";

#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("credentials").multiple(true)))]
#[command(after_help = "\
SHARE is a percentage of the requests, or a count from 1 to 99: the first requests of each call.
TYPE is an event type. TIME is milliseconds, or a number with a unit: 300, 2s, 1m.

Examples:
  callhook receive --port 9000 --sts-url ws://localhost:6030
                            and, for callhook: WEBHOOK_URL=http://localhost:9000/events
  callhook receive --next people/100                 no agent: callers go to people
  callhook receive --fail 10%:503 --retry-after 2    one request in ten
  callhook receive --fail call_started:2:500         the first two attempts at each call_started
  callhook receive --fail 5%:500 --fail 5%:429       one in ten in all
  callhook receive --drop 1 --delay transcription:1s --delay 20%:2s --seed 7
  callhook receive --verify --secret \"$SECRET\" --signing-key \"$KEY\"
  callhook receive --events 100 --for 60s --json | jq 'select(.line == \"report\")'
  callhook receive --record calls.toml               then: callhook simulate URL --scenario calls.toml

Exit status: 0; 1 if FILE cannot be written; 64 for a wrong option; 69 if the port is taken.")]
pub struct ReceiveOptions {
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Answer call_initiated with this sts_url
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub sts_url: Option<String>,
    /// Answer call_initiated with this place in the dialplan as next: in place of an agent, or, beside
    /// --sts-url, where the agent fails
    #[arg(long, value_name = "CONTEXT/EXTEN[,1]", value_parser = next)]
    pub next: Option<Destination>,
    /// Answer every event with this status
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub status: u16,
    /// Refuse events whose X-AVR-WEBHOOK-SECRET differs, with 401
    #[arg(long, value_parser = Hushed::<Secret>::default(), group = "credentials")]
    pub secret: Option<Secret>,
    /// Refuse events that this whsec_… key has not signed in the last 5 minutes, with 401
    #[arg(long, value_name = "KEY", value_parser = Hushed::<KeyText>::default(),
        group = "credentials")]
    pub signing_key: Option<KeyText>,
    /// Start only with something to verify: --secret, --signing-key or both
    #[arg(long, requires = "credentials")]
    pub verify: bool,
    /// End after this many events, each counted once, when it is answered without a fault
    #[arg(long, value_name = "N")]
    pub events: Option<NonZeroU64>,
    /// End after this time, such as 30s
    #[arg(long = "for", value_name = "TIME", value_parser = run_time)]
    pub run_time: Option<Duration>,
    /// Print a JSON object a line, its kind in `line`; the last one is the report
    #[arg(long)]
    pub json: bool,
    /// Keep the calls, up to 10,000 of them or 16 MiB, as a scenario for callhook simulate
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    #[command(flatten)]
    pub faults: FaultOptions,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = FAULTS)]
pub struct FaultOptions {
    /// Answer so many requests with STATUS, 503 if none is given
    #[arg(long, value_name = "[TYPE:]SHARE[:STATUS]", value_parser = orders::fail)]
    pub fail: Vec<FaultOrder<Ending>>,
    /// Close the connection of so many requests without an answer; of all, if no share is given
    #[arg(long, value_name = "[TYPE:]SHARE", num_args = 0..=1, default_missing_value = "100%",
        value_parser = orders::drop)]
    pub drop: Vec<FaultOrder<Ending>>,
    /// Wait before the answers to so many requests, or to all
    #[arg(long, value_name = "[TYPE:][SHARE:]TIME", value_parser = orders::delay)]
    pub delay: Vec<FaultOrder<Duration>>,
    /// Send Retry-After with every 429 and 503
    #[arg(long, value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(0..=LONGEST_RETRY_AFTER))]
    pub retry_after: Option<u32>,
    /// Strikes the same requests again, by their place in their call and the call's place
    #[arg(long)]
    pub seed: Option<u64>,
}

fn next(text: &str) -> Result<Destination, String> {
    let (place, priority) = text.split_once(',').map_or((text, None), |(p, n)| (p, Some(n)));
    let (context, exten) =
        place.split_once('/').ok_or("expected CONTEXT/EXTEN, such as people/100")?;
    if priority.is_some_and(|priority| priority != PRIORITY.to_string()) {
        return Err(format!("the priority after the comma can only be {PRIORITY}"));
    }
    Destination::new(context, exten).map_err(|error| error.to_string())
}

fn run_time(text: &str) -> Result<Duration, &'static str> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| !time.is_zero() && *time <= LONGEST_RUN)
        .ok_or("expected a time with its unit, such as 500ms, 30s or 10m, up to 7 days")
}
