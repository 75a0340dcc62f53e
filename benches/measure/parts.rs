//! The parts of a measurement, each of which begins with an empty stage and leaves one.

pub mod bridge;
pub mod call;
pub mod events;
pub mod memory;
pub mod receivers;
pub mod start;

use std::time::Duration;

use anyhow::ensure;

use crate::load::{self, Found};
use crate::processes;
use crate::stage::{Server, Stage, arrived};
use crate::wire::{self, Wire};

/// For a receiver that is away: at the first failure it counts as down, and no event is given up.
pub const AWAY: [(&str, &str); 2] = [("WEBHOOK_BREAKER", "1"), ("WEBHOOK_RETRY", "100")];

/// The barest thing that does it, or callhook.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Bare,
    Callhook,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Callhook => "callhook",
        }
    }
}

/// Each after the other, and in every second round the other way round.
pub fn in_turn<T>(round: u32, each: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut each: Vec<T> = each.into_iter().collect();
    if round % 2 == 1 {
        each.reverse();
    }
    each
}

/// What one run with a load found.
#[derive(Clone, Copy)]
pub struct Run {
    pub found: Found,
    /// Requests answered, or events delivered, in a second.
    pub rate: f64,
    /// Of the server's, for one request.
    pub cpu_micros: f64,
}

/// Asks a server, and notes what that cost it.
pub async fn ask(
    stage: &Stage,
    server: &Server,
    (kind, connections, seconds): (load::Kind, usize, u32),
) -> anyhow::Result<Run> {
    let before = processes::processor_time(server.process.id())?;
    let found = stage.ask(server.address, kind, connections, seconds).await?;
    let taken = processes::processor_time(server.process.id())? - before;
    let answered = found.answered as f64;
    Ok(Run {
        found,
        rate: answered / found.seconds,
        cpu_micros: taken.as_secs_f64() * 1e6 / answered,
    })
}

/// Hands over so many events of so many calls, in arrays of 1000, one after the other.
pub async fn fill(server: &Server, events: usize, calls: usize) -> anyhow::Result<()> {
    const ARRAY: usize = 1000;
    let address = server.address;
    let mut wire = Wire::connect(address).await?;
    for from in (0..events).step_by(ARRAY) {
        let body = load::array(from..events.min(from + ARRAY), |number| {
            load::transcription(&uuid(number % calls), number)
        });
        let answer = wire.ask(&wire::post(address, "/events", &body)).await?;
        ensure!(answer.status() == b"202", "events were not taken: {}", answer.first_line());
    }
    Ok(())
}

/// A call of those that fill a queue.
pub fn uuid(call: usize) -> String {
    format!("c0ffee00-0000-4000-8000-{call:012x}")
}

/// Time for a process to do what it does after its last answer, before it is looked at.
pub async fn rest() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// How many requests a receiver has had so far.
pub async fn arrived_so_far(receiver: &Server) -> anyhow::Result<u64> {
    arrived(receiver.address, 0).await
}
