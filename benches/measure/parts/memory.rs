//! Resident memory, each time of a process that has done nothing else: idle, with a lane open for each
//! of many calls, with a full queue; and the size of the program. The receiver is away, so that no
//! connection is counted.

use super::{AWAY, fill, rest};
use crate::processes::resident_kib;
use crate::stage::{Stage, nobody};
use crate::table::{Table, Wanted};

const CALLS: usize = 10_000;
/// As many as the default of `QUEUE_LIMIT`.
const EVENTS: usize = 100_000;

/// MB, as a million bytes.
const IDLE_MB: Wanted = Wanted::Below(10.0);
const FULL_MB: Wanted = Wanted::Below(60.0);
const PROGRAM_MB: Wanted = Wanted::Below(12.0);
/// KB, as a thousand bytes.
const LANE_KB: Wanted = Wanted::Below(2.0);

pub async fn measure(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let (idle, _) = resident_mb(stage, 0).await?;
    table.figure(("resident memory, idle: MB", 1), None, idle, IDLE_MB);
    let (before, open) = resident_mb(stage, CALLS).await?;
    let lane = (open - before) * 1000.0 / CALLS as f64;
    table.figure(("memory of an open lane, with 10,000: KB", 2), None, lane, LANE_KB);
    let (_, full) = resident_mb(stage, EVENTS).await?;
    let name = "resident memory, 100,000 events of 10,000 calls waiting: MB";
    table.figure((name, 1), None, full, FULL_MB);
    let size = std::fs::metadata(&stage.callhook)?.len() as f64 / 1e6;
    table.figure(("size of the program: MB", 1), None, size, PROGRAM_MB);
    Ok(())
}

/// Before and after so many events were handed over.
async fn resident_mb(stage: &Stage, events: usize) -> anyhow::Result<(f64, f64)> {
    let callhook = stage.callhook(nobody(), &AWAY).await?;
    let megabytes = || Ok(resident_kib(callhook.process.id())? as f64 * 1024.0 / 1e6);
    rest().await;
    let before: anyhow::Result<f64> = megabytes();
    fill(&callhook, events, CALLS).await?;
    rest().await;
    Ok((before?, megabytes()?))
}
