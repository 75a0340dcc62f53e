//! Calls through the bare bridge and through callhook's, each of which sends 50 frames a second to an
//! STS server that sends them back, and looks for each of them. The processes are fresh each time, so
//! that memory is counted from idle.
//!
//! What the rest of the machine took meanwhile stands beside it: other people's load is in every figure.

use anyhow::bail;
use serde::Deserialize;

use super::{Side, in_turn};
use crate::stage::{AUDIO, Server, Stage};
use crate::table::{Table, Wanted, median};

const CALLS: u32 = 300;
const CPU: Wanted = Wanted::AtMost(1.0);
/// Milliseconds, as are the following.
const GAP_MS: f64 = 25.0;
const GAP: Wanted = Wanted::Below(GAP_MS);
const ECHO: Wanted = Wanted::Below(45.0);
/// KB, as a thousand bytes.
const MEMORY_KB: Wanted = Wanted::Below(32.0);

/// Calls more at each step, on the way to where a bridge breaks, and where the way ends at the latest.
const STEP: u32 = 100;
const LAST_STEP: u32 = 5000;
/// How often a step fails until it counts; how often it is tried; and what others may take of the
/// machine, in processors, for a failure not to be theirs.
const FAILURES: u32 = 2;
const ATTEMPTS: u32 = 4;
const QUIET: f64 = 0.25;

/// What the callers found.
#[derive(Deserialize)]
struct Found {
    calls: u32,
    cut_off: u32,
    wanted: u64,
    sent: u64,
    lost: u64,
    damaged: u64,
    duplicated: u64,
    gap_p99_ms: Option<f64>,
    echo_p99_ms: Option<f64>,
    late_p99_ms: Option<f64>,
    cores: f64,
    foreign_cores: f64,
    idle_kib: f64,
    busy_kib: f64,
}

impl Found {
    fn lost(&self) -> f64 {
        (self.lost + self.damaged + self.duplicated) as f64
    }

    /// Processor time of a call, in milliseconds a second.
    fn cpu(&self) -> f64 {
        self.cores * 1000.0 / f64::from(self.calls)
    }

    fn kilobytes(&self) -> f64 {
        (self.busy_kib - self.idle_kib) * 1.024 / f64::from(self.calls)
    }

    fn gap(&self) -> f64 {
        self.gap_p99_ms.unwrap_or(f64::NAN)
    }

    /// Whether the callers could speak as they meant to.
    fn is_whole(&self) -> bool {
        self.cut_off == 0 && self.sent == self.wanted
    }

    /// Whether the calls were as they should be.
    fn is_carried(&self) -> bool {
        self.is_whole() && self.lost() == 0.0 && self.gap() <= GAP_MS
    }
}

pub async fn measure(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let (mut bare, mut callhook) = (Vec::new(), Vec::new());
    for round in 0..stage.rounds(2) {
        for side in in_turn(round, [Side::Bare, Side::Callhook]) {
            let found = call(stage, side, CALLS, stage.seconds(12)).await?;
            if !found.is_whole() {
                let Found { cut_off, sent, wanted, .. } = found;
                table.fault(format!(
                    "{}: {cut_off} of {CALLS} calls cut off, {sent} of {wanted} frames sent",
                    side.name()
                ));
            }
            match side {
                Side::Bare => bare.push(found),
                Side::Callhook => callhook.push(found),
            }
        }
    }
    report(table, &bare, &callhook);
    Ok(())
}

fn report(table: &mut Table, bare: &[Found], callhook: &[Found]) {
    let name = |what| format!("{CALLS} calls: {what}");
    let of = |side: &[Found], figure: fn(&Found) -> f64| -> Vec<f64> {
        side.iter().map(figure).collect()
    };
    let cpu = name("processor time a call, ms/s");
    table.compare((&cpu, 3), &of(bare, Found::cpu), &of(callhook, Found::cpu), CPU);
    let lost = |side| of(side, Found::lost).iter().sum();
    table.figure(
        (&name("frames lost, damaged or played twice"), 0),
        Some(lost(bare)),
        lost(callhook),
        Wanted::Zero,
    );
    let mut row = |what, decimals, figure: fn(&Found) -> f64, wanted| {
        let (bare, callhook) = (median(&of(bare, figure)), median(&of(callhook, figure)));
        table.figure((&name(what), decimals), Some(bare), callhook, wanted);
    };
    row("gap between frames, p99, ms", 1, Found::gap, GAP);
    row("echo delay, p99, ms", 1, |found| found.echo_p99_ms.unwrap_or(f64::NAN), ECHO);
    row("memory of a call, KB", 1, Found::kilobytes, MEMORY_KB);
    row("others' load, processors", 2, |found| found.foreign_cores, Wanted::Nothing);
}

/// Calls through a fresh bridge.
async fn call(stage: &Stage, side: Side, calls: u32, seconds: u32) -> anyhow::Result<Found> {
    let receiver = stage.receiver().await?;
    let sts = stage.server("sts", &[]).await?;
    let sts_url = format!("ws://{}", sts.address);
    let bridge = match side {
        Side::Bare => stage.server("bare", &[&sts_url]).await?,
        Side::Callhook => {
            let journal = stage.fresh_journal()?;
            let settings = [("STS_URL", &*sts_url)];
            let process = stage.start_callhook(receiver.address, &journal, &settings)?;
            process.listening(AUDIO).await?
        }
    };
    super::rest().await;
    let id = |server: &Server| server.process.id().to_string();
    let arguments = [
        bridge.address.to_string(),
        calls.to_string(),
        seconds.to_string(),
        id(&bridge),
        id(&sts),
        id(&receiver),
    ];
    let found: Found =
        serde_json::from_str(&stage.role("callers", &arguments)?.figures(seconds).await?)?;
    eprintln!(
        "  {}, {calls} calls: {} lost, gap p99 {:.1} ms, {:.2} processors, sender late p99 {:.1} ms, \
         others {:.2} processors",
        side.name(),
        found.lost(),
        found.gap(),
        found.cores,
        found.late_p99_ms.unwrap_or(f64::NAN),
        found.foreign_cores,
    );
    Ok(found)
}

/// The most calls that either bridge carries. Both take each step before either takes the next.
pub async fn find_break(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let mut carried = [(Side::Bare, 0), (Side::Callhook, 0)];
    for calls in (CALLS..=LAST_STEP).step_by(STEP as usize) {
        let mut any = false;
        for (side, carries) in &mut carried {
            // Who failed at the step before takes no more.
            let goes_on = *carries + STEP == calls || calls == CALLS;
            if goes_on && carries_all(stage, *side, calls).await? {
                *carries = calls;
                any = true;
            }
        }
        if !any {
            break;
        }
    }
    let [(_, bare), (_, callhook)] = carried.map(|(side, calls)| (side, f64::from(calls)));
    let name = "calls carried, until frames are lost or the gap's p99 is over 25 ms";
    table.figure((name, 0), Some(bare), callhook, Wanted::AtLeast((1.1 * bare).round()));
    if bare == 0.0 {
        table.fault(format!("the bare bridge does not carry {CALLS} calls"));
    }
    Ok(())
}

/// Whether a bridge carries so many calls.
///
/// # Errors
/// Where it failed each time, but others took so much of the machine that it may be their doing.
async fn carries_all(stage: &Stage, side: Side, calls: u32) -> anyhow::Result<bool> {
    let mut failures = 0;
    for _ in 0..ATTEMPTS {
        match call(stage, side, calls, stage.seconds(4)).await {
            Ok(found) if found.is_carried() => return Ok(true),
            Ok(found) => failures += u32::from(found.foreign_cores <= QUIET),
            Err(error) => {
                eprintln!("  {}, {calls} calls: {error:#}", side.name());
                failures += 1;
            }
        }
        if failures == FAILURES {
            return Ok(false);
        }
    }
    bail!(
        "{}: others keep the machine too busy to tell whether it carries {calls} calls",
        side.name()
    )
}
