//! `POST /call` with fresh uuids through the bare hop and through callhook, to the same receiver; and
//! the receiver asked directly, which is as fast as anything could be.
//!
//! Each round has fresh processes. Processor time is the server's own, over the requests that were
//! answered, and the steadiest figure on a machine that is shared.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Run, Side, ask, in_turn};
use crate::latency::{Ends, Found};
use crate::load::Kind;
use crate::stage::Stage;
use crate::table::{Table, Wanted, median};

/// How many connections ask at once.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// From how many on something is wanted of callhook.
const JUDGED_FROM: usize = 32;
const RATE: Wanted = Wanted::AtLeast(0.7);
const P99: Wanted = Wanted::AtMost(1.5);

/// Calls of a round, one at a time; without a pause, and with one in which the processor may go to
/// sleep.
const WAYS: [(&str, u32, Duration); 2] =
    [("back to back", 3000, Duration::ZERO), ("2 ms apart", 1000, Duration::from_millis(2))];
/// Microseconds.
const TO_THE_RECEIVER: Wanted = Wanted::Below(150.0);

/// Who is asked; none is the receiver itself.
type Runs = BTreeMap<(usize, Option<Side>), Vec<Run>>;

pub async fn measure(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let mut runs = Runs::new();
    let rounds = stage.rounds(3);
    for round in 0..rounds {
        measure_round(stage, round, &mut runs).await?;
        eprintln!("  round {} of {rounds} done", round + 1);
    }
    for connections in CONNECTIONS {
        report(table, connections, &runs);
    }
    measure_way(stage, table).await
}

async fn measure_round(stage: &Stage, round: u32, runs: &mut Runs) -> anyhow::Result<()> {
    let receiver = stage.receiver().await?;
    let hop = stage.hop(receiver.address).await?;
    let callhook = stage.callhook(receiver.address, &[]).await?;
    let servers = [(None, &receiver), (Some(Side::Bare), &hop), (Some(Side::Callhook), &callhook)];
    for (_, server) in servers {
        // Nobody's first requests count.
        ask(stage, server, (Kind::Call, JUDGED_FROM, 1)).await?;
    }
    for connections in CONNECTIONS {
        for (side, server) in in_turn(round, servers) {
            let run = ask(stage, server, (Kind::Call, connections, stage.seconds(3))).await?;
            runs.entry((connections, side)).or_default().push(run);
        }
    }
    Ok(())
}

fn report(table: &mut Table, connections: usize, runs: &Runs) {
    let of = |side, figure: fn(&Run) -> f64| -> Vec<f64> {
        runs[&(connections, side)].iter().map(figure).collect()
    };
    let unless_few = |wanted| if connections >= JUDGED_FROM { wanted } else { Wanted::Nothing };
    let mut compare = |name: &str, decimals, figure: fn(&Run) -> f64, wanted| {
        let name = format!("`POST /call`, {connections} at once: {name}");
        let (bare, callhook) = (of(Some(Side::Bare), figure), of(Some(Side::Callhook), figure));
        table.compare((&name, decimals), &bare, &callhook, wanted);
    };
    compare("requests/s", 0, |run| run.rate, unless_few(RATE));
    compare("p50, µs", 0, |run| run.found.p50, Wanted::Nothing);
    compare("p99, µs", 0, |run| run.found.p99, unless_few(P99));
    compare("processor time a request, µs", 1, |run| run.cpu_micros, Wanted::Nothing);
    let name = format!("the receiver asked directly, {connections} at once: requests/s");
    table.bare((&name, 0), median(&of(None, |run| run.rate)));
}

/// How long it takes to the receiver's socket.
async fn measure_way(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let mut found: BTreeMap<(usize, Side), Vec<Found>> = BTreeMap::new();
    for round in 0..stage.rounds(3) {
        let ends = Ends::open()?;
        let hop = stage.hop(ends.receiver).await?;
        let callhook = stage.callhook(ends.receiver, &[]).await?;
        let asked: Vec<_> =
            in_turn(round, [(Side::Bare, hop.address), (Side::Callhook, callhook.address)]);
        let announcing = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for (way, (_, calls, pause)) in WAYS.into_iter().enumerate() {
                for &(side, address) in &asked {
                    found.push(((way, side), ends.announce(address, calls, pause)?));
                }
            }
            anyhow::Ok(found)
        });
        for (key, run) in announcing.await?? {
            found.entry(key).or_default().push(run);
        }
    }
    for (way, (name, ..)) in WAYS.into_iter().enumerate() {
        let mut row = |rank, figure: fn(&Found) -> f64, wanted| {
            let of = |side| -> Vec<f64> { found[&(way, side)].iter().map(figure).collect() };
            let name = format!("`POST /call` to the receiver's socket, {name}: {rank}, µs");
            let (bare, callhook) = (median(&of(Side::Bare)), median(&of(Side::Callhook)));
            table.figure((&name, 0), Some(bare), callhook, wanted);
        };
        row("p50", |found| found.p50, TO_THE_RECEIVER);
        row("p99", |found| found.p99, Wanted::Nothing);
    }
    Ok(())
}
