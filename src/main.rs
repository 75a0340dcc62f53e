//! The command line: arguments to a command, errors to an exit code.
//!
//! Exit codes (64 and 69 as in `sysexits.h`): 0 success, 1 failed, 64 usage or settings, 69 cannot
//! listen, or the journal is in use.

use std::process::ExitCode;

use callhook::app::{self, StartError};
use callhook::command::{dead, health};
use callhook::config::{self, SettingError, Settings};
use callhook::http::FrontSettings;
use callhook::inspector::AdminSettings;
use callhook::log;
use callhook::output::{complain, print};
use callhook::workbench::receive::{self, ReceiveError};
use callhook::workbench::simulate::{self, SimulateError};
use callhook::workbench::{check, demo};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// The system's allocator keeps what a backlog took: after 4,800 events of 90 KB, hundreds of megabytes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FAILED: u8 = 1;
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;

/// Calls, call routing and webhooks for voice agents on Asterisk: ordered, retried, durable.
#[derive(Parser)]
#[command(
    version,
    after_help = "Settings are environment variables; `callhook config` shows them.\n\
                                 Example: WEBHOOK_URL=http://localhost:9000/events callhook"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Take calls and deliver their events (the default)
    #[command(
        after_help = "Example: WEBHOOK_URL=http://localhost:9000/events STS_URL=ws://localhost:6030 callhook serve"
    )]
    Serve,
    /// Ask the running callhook for its health; exit code 0 or 1
    #[command(after_help = "Example, in a Dockerfile: HEALTHCHECK CMD [\"callhook\", \"health\"]")]
    Health,
    /// Print the effective settings and where each came from
    #[command(after_help = "Example: env $(grep -v '^#' .env) callhook config")]
    Config,
    /// Play three phone calls, all in this process, and show the events as they arrive
    Demo(demo::DemoOptions),
    /// Show, replay or delete events that could not be delivered
    Dead {
        #[command(subcommand)]
        command: dead::DeadCommand,
    },
    /// Run a receiver that prints a line per event, with faults on demand
    Receive(Box<receive::ReceiveOptions>),
    /// Check a receiver: all that a call can bring, repeats, secrets, odd input, load
    #[command(
        after_help = "Examples: callhook check http://localhost:9000/events --secret \"$SECRET\"\n\
                            \x20         callhook check http://localhost:9000/events --route-to people/100,people/200\n\
                            Exit code: 0, or 1 where a required check fails."
    )]
    Check(Box<check::CheckOptions>),
    /// Send a receiver the webhooks of whole phone calls
    Simulate(Box<simulate::SimulateOptions>),
}

/// How a command fails.
enum CommandError {
    Settings(Vec<SettingError>),
    Usage(String),
    Start(StartError),
    Other(anyhow::Error),
}

impl From<Vec<SettingError>> for CommandError {
    fn from(errors: Vec<SettingError>) -> Self {
        Self::Settings(errors)
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<ReceiveError> for CommandError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Start(error) => Self::Start(error),
            ReceiveError::Record { .. } | ReceiveError::Output(_) => Self::Other(error.into()),
        }
    }
}

impl From<SimulateError> for CommandError {
    fn from(error: SimulateError) -> Self {
        match error {
            SimulateError::Scenario(_) => Self::Usage(error.to_string()),
            SimulateError::Refused { .. } | SimulateError::Other(_) => Self::Other(error.into()),
        }
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let runtime = match app::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("callhook: cannot start worker threads: {error}"));
            return FAILED.into();
        }
    };
    let result = runtime.block_on(run(arguments.command.unwrap_or(Command::Serve)));
    // What still runs has had its time; waiting for it could take for ever.
    runtime.shutdown_background();
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error).into(),
    };
    log::finish();
    code
}

async fn run(command: Command) -> Result<(), CommandError> {
    let environment = config::environment();
    match command {
        Command::Serve => {
            let settings = Settings::of_environment(&environment)?;
            log::start(settings.log);
            app::serve(settings).await?;
        }
        Command::Health => health::ask(&FrontSettings::of_environment(&environment)?)
            .await
            .map_err(anyhow::Error::from)?,
        Command::Config => print(config::describe(&environment)?),
        Command::Demo(options) => demo::run(options).await?,
        Command::Dead { command } => {
            let settings = AdminSettings::of_environment(&environment)?;
            dead::run(command, &settings).await.map_err(anyhow::Error::from)?;
        }
        Command::Receive(options) => receive::run(*options).await?,
        Command::Check(options) => check::run(&options).await?,
        Command::Simulate(options) => simulate::run(*options).await?,
    }
    Ok(())
}

fn usage(error: &clap::Error) -> ExitCode {
    // If the terminal is gone, nobody can be told.
    error.print().ok();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => EX_USAGE.into(),
    }
}

fn report(error: &CommandError) -> u8 {
    match error {
        CommandError::Settings(errors) => {
            let wrong = match errors.len() {
                1 => "1 setting is wrong".to_owned(),
                many => format!("{many} settings are wrong"),
            };
            complain(format_args!("callhook: {wrong}; config/default.toml explains every setting"));
            for error in errors {
                complain(format_args!("  {error}"));
            }
            EX_USAGE
        }
        CommandError::Usage(text) => {
            complain(format_args!("callhook: {text}"));
            EX_USAGE
        }
        CommandError::Start(error) => {
            // The log has started if the settings were right, and has the form that was asked for.
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{error}");
            } else {
                complain(format_args!("callhook: {error}"));
            }
            if error.is_unavailable() { EX_UNAVAILABLE } else { FAILED }
        }
        CommandError::Other(error) => {
            complain(format_args!("callhook: {error:#}"));
            FAILED
        }
    }
}
