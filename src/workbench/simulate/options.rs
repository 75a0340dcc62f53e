//! The arguments of `callhook simulate`.

use super::clock::{Rate, Speed};
use super::faults::Shares;
use crate::workbench::receiver_options::ReceiverOptions;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  callhook simulate http://localhost:9000/events
  callhook simulate http://localhost:9000/events --scenario ivr --scenario ./mine.toml \\
      --calls 200 --rate 20 --speed 10x --duplicate 5% --late 2% --seed 42

Scenarios that come with callhook: booking, ivr, impatient, abandoned, long, lost.
Exit status: 0 if every event was answered with 2xx, but for those that a fault was put on; 1 if
not; 64 for a wrong option or scenario. Ctrl-C prints the summary so far.")]
pub struct SimulateOptions {
    #[command(flatten)]
    pub receiver: ReceiverOptions,
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
    /// Additional attempts after the first
    #[arg(long, default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retry: u32,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub shares: Shares,
}
