//! From the start of the process to the first 200 from `/health`: on an empty journal, and on one in
//! which events wait, after an end in good order and after none. Each start must find them all.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::{AWAY, fill, rest};
use crate::stage::{FRONT, Server, Stage, nobody};
use crate::table::{Table, Wanted, median};
use crate::wire::{self, Wire};

/// Starts on an empty journal.
const COLD: usize = 10;
/// Restarts of either kind.
const RESTARTS: usize = 2;
const EVENTS: usize = 100_000;
const CALLS: usize = 10_000;

/// Milliseconds.
const RESTART: Wanted = Wanted::Below(2000.0);

pub async fn measure(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let mut cold = Vec::new();
    for _ in 0..COLD {
        let journal = stage.fresh_journal()?;
        let (_, milliseconds) = start(stage, &journal, 0).await?;
        cold.push(milliseconds);
    }
    let name = "start to the first 200 from `/health`, median of 10: ms";
    table.figure((name, 1), None, median(&cold), Wanted::Nothing);

    let journal = stage.fresh_journal()?;
    let (mut callhook, _) = start(stage, &journal, 0).await?;
    fill(&callhook, EVENTS, CALLS).await?;
    rest().await;
    let (mut terminated, mut killed) = (0.0_f64, 0.0_f64);
    for _ in 0..RESTARTS {
        callhook.process.terminate().await?;
        let (again, milliseconds) = start(stage, &journal, EVENTS).await?;
        terminated = terminated.max(milliseconds);
        drop(again);
        let (again, milliseconds) = start(stage, &journal, EVENTS).await?;
        killed = killed.max(milliseconds);
        callhook = again;
    }
    for (signal, worst) in [("SIGTERM", terminated), ("SIGKILL", killed)] {
        let name = format!("the same with 100,000 events waiting, after {signal}, worst of 2: ms");
        table.figure((&name, 0), None, worst, RESTART);
    }
    Ok(())
}

/// Starts callhook, whose journal must hold so many events, and measures until it answers.
async fn start(stage: &Stage, journal: &Path, waiting: usize) -> anyhow::Result<(Server, f64)> {
    let begun = Instant::now();
    let process = stage.start_callhook(nobody(), journal, &AWAY)?;
    let callhook = process.listening(FRONT).await?;
    let health = wire::get(callhook.address, "/health");
    let mut wire = Wire::connect(callhook.address).await?;
    let healthy = wire.ask(&health).await?.status() == b"200";
    let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
    ensure!(healthy, "/health was not answered 200");
    let found = callhook.process.says("waiting=").await?;
    let found: usize = found.parse().with_context(|| format!("waiting={found}"))?;
    ensure!(found == waiting, "{waiting} events waited, and a start found {found}");
    Ok((callhook, milliseconds))
}
