//! What callhook costs, beside the barest thing that does the same, in one run on one machine: no test,
//! and no part of the program. `scripts/bench.sh` builds it and runs it.
//!
//! - `measure run --callhook PATH [PART…] [--rounds N] [--seconds S]` measures and prints one Markdown
//!   table. What goes on meanwhile is told on stderr.
//! - The other commands are the roles that it starts itself in, each in a process of its own: the ends
//!   of the line (`receiver`, `sick`, `sts`), the middle that callhook is compared with (`hop`, `bare`), and
//!   those who ask (`load`, `callers`).
//!
//! What is compared is measured in turn in every round, in the other order in every second one, and the
//! medians over the rounds are printed. A ratio is taken within a round and is then the median of the
//! rounds, since others on the machine and the machine's own moods fall on both sides of it. Everything
//! that takes part shares the processors and stays on the loopback interface, on free ports.
//!
//! callhook runs as it would for a customer: with its journal on the disk of the temporary directory
//! (`TMPDIR` names another one), its inspector on, and its default log. Set are the ports, the journal's
//! path and the receivers' URLs; for a bridge `STS_URL`; and where more events are to wait or fail than
//! usual, what [`stage::Stage::callhook`]'s callers say. `POST /call` is answered whatever the
//! journal does; an answer to `POST /events` comes when the events are on disk or delivered.
//!
//! Exit code: 0 when everything was measured cleanly, whether or not a target was reached; 1 when
//! something was not: an error, an event that did not arrive. 64 for a wrong option.
#![expect(
    clippy::disallowed_methods,
    reason = "a measuring tool has no drain: its connections may end with the process"
)]

mod calls;
mod hop;
mod latency;
mod load;
mod machine;
mod parts;
mod processes;
mod receiver;
mod serving;
mod sick;
mod stage;
mod table;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use hyper::Uri;
use tokio::signal::unix::{SignalKind, signal};

use crate::stage::Stage;
use crate::table::Table;

/// Exit code for a wrong option, as in `sysexits.h`.
const EX_USAGE: u8 = 64;
/// What a shell says of a command that was interrupted.
const INTERRUPTED: u8 = 130;

/// Measures callhook beside a bare hop and a bare bridge; scripts/bench.sh builds and runs it.
#[derive(Parser)]
#[command(name = "measure")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print a table
    Run(Options),
    #[command(hide = true)]
    Receiver,
    #[command(hide = true)]
    Sick { sickness: parts::receivers::Sickness },
    #[command(hide = true)]
    Hop { url: Uri },
    #[command(hide = true)]
    Load { address: SocketAddr, kind: load::Kind, connections: usize, seconds: u32 },
    #[command(hide = true)]
    Sts,
    #[command(hide = true)]
    Bare { sts_url: String },
    #[command(hide = true)]
    Callers { address: SocketAddr, count: u32, seconds: u32, pids: Vec<u32> },
}

/// What to measure, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// The program to measure
    #[arg(long, value_name = "PATH")]
    callhook: PathBuf,
    /// All of them unless some are named
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How often each thing is measured; 3 unless said, and 2 for bridges
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each time; 3 unless said, 5 for arrays, 12 for bridges, 4 for each step of break
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// POST /call: rates, latencies, processor time, and the way to the receiver
    Call,
    /// POST /events, one and a hundred at a time, and an array of 1000
    Events,
    /// Resident memory, and the size of the program
    Memory,
    /// Start-up, with an empty and with a full journal
    Start,
    /// A further receiver that hangs, trickles or is dead: what it costs the main one, and memory
    Receivers,
    /// 300 calls at once
    Bridge,
    /// How many calls at once until their sound comes in gaps
    Break,
}

fn main() -> ExitCode {
    // So do `cargo test --benches` and `cargo bench` call it; there is nothing to run then.
    let given: Vec<String> = std::env::args().skip(1).collect();
    if matches!(&*given, [] | [_] if given.iter().all(|argument| argument == "--bench")) {
        println!("{}", Arguments::command().render_long_help());
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where the terminal is gone there is nobody to tell.
            error.print().ok();
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    // A bridge has two connections a call. Where fewer are allowed, it is the calls that fail.
    rlimit::increase_nofile_limit(u64::MAX)?;
    match command {
        Command::Run(options) => return measure(&options),
        Command::Receiver => receiver::serve(),
        Command::Sick { sickness } => sick::serve(sickness),
        Command::Hop { url } => hop::serve(url),
        Command::Load { address, kind, connections, seconds } => {
            load::ask(address, kind, connections, seconds)
        }
        Command::Sts => calls::sts::serve(),
        Command::Bare { sts_url } => calls::bare::serve(&sts_url),
        Command::Callers { address, count, seconds, pids } => {
            calls::callers::call(address, count, seconds, &pids)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Measures until all is done or somebody interrupts; either way nothing is left running, as what was
/// started ends with the future that started it.
fn measure(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        tokio::select! {
            clean = measure_all(options) => Ok(ExitCode::from(u8::from(!clean?))),
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| INTERRUPTED.into()),
            _ = terminated.recv() => Ok(INTERRUPTED.into()),
            _ = hung_up.recv() => Ok(INTERRUPTED.into()),
        }
        .map_err(anyhow::Error::from)
    });
    // A thread that still waits for an answer waits in vain.
    runtime.shutdown_background();
    code
}

/// Whether everything was measured cleanly.
async fn measure_all(options: &Options) -> anyhow::Result<bool> {
    let stage = Stage::set(options)?;
    let machine = machine::describe(&stage)?;
    eprintln!("{machine}");
    let mut table = Table::default();
    for part in Part::value_variants() {
        if options.parts.is_empty() || options.parts.contains(part) {
            let name = part.to_possible_value().map(|value| value.get_name().to_owned());
            let name = name.unwrap_or_default();
            eprintln!("{name} …");
            if let Err(error) = part.measure(&stage, &mut table).await {
                table.fault(format!("{name}: {error:#}"));
            }
        }
    }
    println!("{machine}\n\n{table}");
    Ok(table.is_clean())
}

impl Part {
    async fn measure(self, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
        match self {
            Self::Call => parts::call::measure(stage, table).await,
            Self::Events => parts::events::measure(stage, table).await,
            Self::Memory => parts::memory::measure(stage, table).await,
            Self::Start => parts::start::measure(stage, table).await,
            Self::Receivers => parts::receivers::measure(stage, table).await,
            Self::Bridge => parts::bridge::measure(stage, table).await,
            Self::Break => parts::bridge::find_break(stage, table).await,
        }
    }
}
