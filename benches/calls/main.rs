//! What `scripts/load-calls.sh` measures callhook's bridge against and with: no test, and no part of
//! the program.
//!
//! - `calls sts PORT`: the cheapest STS server there is. It sends each `audio` message back as it came
//!   and ignores everything else.
//! - `calls bare PORT STS_URL`: the barest bridge between AudioSocket and such a server. No clock, no
//!   queue, no events, no detection: what is left between its figures and callhook's is what callhook's
//!   own work costs.
//! - `calls callers ADDRESS COUNT SECONDS [PID…]`: so many calls at once, each of which sends a frame
//!   every 20 ms and looks for it among those that come back. It prints one line of JSON. Of the first
//!   process named it measures memory and processor time; the others are known to belong to the run, so
//!   that what the rest of the machine took can be told.
//!
//! Everything stays on the loopback interface. Port 0 takes a free port; both servers say
//! `listening on port N` on stdout.
#![expect(
    clippy::disallowed_methods,
    reason = "a measuring tool has no drain: its connections may end with the process"
)]

mod bare;
mod callers;
mod figures;
mod frames;
mod processes;
mod sts;
mod voice;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const USAGE: &str = "usage: calls sts PORT | calls bare PORT STS_URL | calls callers ADDRESS COUNT SECONDS [PID…]\n\
                     scripts/load-calls.sh runs all of them.";

/// Room for a few messages of 20 ms, in bytes; Tungstenite's own 128 KiB a connection would be what a
/// call costs, and it clears the whole buffer before each read.
const READ_BUFFER: usize = 2 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // So do `cargo test --benches` and `cargo bench` call it; there is nothing to run then.
    if matches!(*arguments, [] | ["--bench"]) {
        eprintln!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calls: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match *arguments {
        ["sts", port] => sts::serve(port_number(port)?),
        ["bare", port, sts_url] => bare::serve(port_number(port)?, sts_url),
        ["callers", address, count, seconds, ref pids @ ..] => {
            let pids = pids.iter().map(|pid| number(pid, "PID")).collect::<Result<Vec<_>, _>>()?;
            callers::call(
                address.parse::<SocketAddr>().context("ADDRESS is an IP address and a port")?,
                number(count, "COUNT")?,
                number(seconds, "SECONDS")?,
                &pids,
            )
        }
        _ => bail!("{USAGE}"),
    }
}

fn port_number(text: &str) -> anyhow::Result<u16> {
    text.parse().context("PORT is a number up to 65535")
}

fn number(text: &str, name: &str) -> anyhow::Result<u32> {
    let number: u32 = text.parse().with_context(|| format!("{name} is a number"))?;
    ensure!(number > 0, "{name} is above 0");
    Ok(number)
}

/// Each message is written at once, and little memory is held for a connection.
fn small_buffers() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0)
}
