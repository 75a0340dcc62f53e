//! `POST /events` into the journal, of calls that nobody has heard of before: one event a request beside
//! the bare hop, then arrays. What is acknowledged is on disk or delivered; what is delivered is counted
//! at the receiver, from the first request until the last event is there.
//!
//! What is on disk is acknowledged sooner than it is delivered, so `QUEUE_LIMIT` has room for all of it.

use std::time::Instant;

use anyhow::ensure;

use super::{AWAY, Run, arrived_so_far, ask, in_turn, rest, uuid};
use crate::load::{self, ARRAY, Kind};
use crate::processes::processor_time;
use crate::stage::{Server, Stage, arrived, nobody};
use crate::table::{Table, Wanted, median};
use crate::wire::{self, Wire};

/// Connections with one event a request, and with arrays.
const SENDERS: usize = 32;
const RELAYS: usize = 4;
const ROOM: (&str, &str) = ("QUEUE_LIMIT", "10000000");

const ACKNOWLEDGED: Wanted = Wanted::AtLeast(0.75);
/// Events in a second, unless the receiver takes fewer.
const DELIVERED: f64 = 45_000.0;

/// Arrays of 1000 that are acknowledged one after the other, and within how many milliseconds.
const BATCHES: usize = 20;
const BATCH: usize = 1000;
const BATCH_MS: Wanted = Wanted::Below(20.0);
/// Events of a batch that are of one call: a relay's batch holds a few turns of many calls.
const EVENTS_A_CALL: usize = 10;

/// A run through callhook, whose processor time is that of an event, delivered and all; and how many
/// events were delivered in a second.
struct Durable {
    run: Run,
    delivered: f64,
}

pub async fn measure(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    measure_single(stage, table).await?;
    measure_arrays(stage, table).await?;
    measure_batches(stage, table).await
}

async fn measure_single(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let (mut bare, mut durable) = (Vec::new(), Vec::new());
    for round in 0..stage.rounds(3) {
        let receiver = stage.receiver().await?;
        let hop = stage.hop(receiver.address).await?;
        let callhook = stage.callhook(receiver.address, &[ROOM]).await?;
        ask(stage, &hop, (Kind::Event, SENDERS, 1)).await?;
        deliver(stage, &callhook, &receiver, (Kind::Event, SENDERS, 1)).await?;
        let asked = (Kind::Event, SENDERS, stage.seconds(3));
        for through_callhook in in_turn(round, [false, true]) {
            if through_callhook {
                durable.push(deliver(stage, &callhook, &receiver, asked).await?);
            } else {
                bare.push(ask(stage, &hop, asked).await?);
            }
        }
    }
    let bare_of = |figure: fn(&Run) -> f64| -> Vec<f64> { bare.iter().map(figure).collect() };
    let mut compare = |name: &str, decimals, figure: fn(&Run) -> f64, wanted| {
        let name = format!("durable `POST /events`, {SENDERS} at once: {name}");
        let callhook: Vec<f64> = durable.iter().map(|durable| figure(&durable.run)).collect();
        table.compare((&name, decimals), &bare_of(figure), &callhook, wanted);
    };
    compare("acknowledged/s", 0, |run| run.rate, ACKNOWLEDGED);
    compare("p50, µs", 0, |run| run.found.p50, Wanted::Nothing);
    compare("p99, µs", 0, |run| run.found.p99, Wanted::Nothing);
    compare("processor time an event, µs", 1, |run| run.cpu_micros, Wanted::Nothing);
    let delivered: Vec<f64> = durable.iter().map(|durable| durable.delivered).collect();
    let name = format!("durable `POST /events`, {SENDERS} at once: delivered/s");
    table.compare((&name, 0), &bare_of(|run| run.rate), &delivered, Wanted::Nothing);
    Ok(())
}

async fn measure_arrays(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let (mut own, mut durable) = (Vec::new(), Vec::new());
    for round in 0..stage.rounds(3) {
        let receiver = stage.receiver().await?;
        let callhook = stage.callhook(receiver.address, &[ROOM]).await?;
        for through_callhook in in_turn(round, [false, true]) {
            let seconds = stage.seconds(5);
            if through_callhook {
                let asked = (Kind::Array, RELAYS, seconds);
                durable.push(deliver(stage, &callhook, &receiver, asked).await?);
            } else {
                own.push(ask(stage, &receiver, (Kind::Event, SENDERS, 1)).await?.rate);
            }
        }
    }
    let of = |figure: fn(&Durable) -> f64| -> f64 {
        median(&durable.iter().map(figure).collect::<Vec<_>>())
    };
    let own = median(&own);
    table.bare(("the receiver asked directly, 32 at once: events/s", 0), own);
    let name = |what| format!("durable `/events` in arrays of {ARRAY}, {RELAYS} at once: {what}");
    let delivered = of(|durable| durable.delivered);
    let wanted = Wanted::AtLeast(DELIVERED.min(own));
    table.figure((&name("delivered/s"), 0), None, delivered, wanted);
    let acknowledged = of(|durable| durable.run.rate * ARRAY as f64);
    table.figure((&name("acknowledged/s"), 0), None, acknowledged, Wanted::Nothing);
    let cpu = of(|durable| durable.run.cpu_micros);
    table.figure((&name("processor time an event, µs"), 1), None, cpu, Wanted::Nothing);
    Ok(())
}

/// Hands events over until the time is up, then waits until all are delivered.
async fn deliver(
    stage: &Stage,
    callhook: &Server,
    receiver: &Server,
    asked: (Kind, usize, u32),
) -> anyhow::Result<Durable> {
    let before = arrived_so_far(receiver).await?;
    let taken = processor_time(callhook.process.id())?;
    let mut run = ask(stage, callhook, asked).await?;
    let handed_over = Instant::now();
    let events = run.found.answered * if asked.0 == Kind::Array { ARRAY as u64 } else { 1 };
    let delivered = arrived(receiver.address, before + events).await? - before;
    let seconds = run.found.seconds + handed_over.elapsed().as_secs_f64();
    let taken = processor_time(callhook.process.id())? - taken;
    run.cpu_micros = taken.as_secs_f64() * 1e6 / delivered as f64;
    rest().await;
    let after = arrived_so_far(receiver).await? - before;
    ensure!(after == events, "{events} events were taken, and {after} arrived");
    Ok(Durable { run, delivered: delivered as f64 / seconds })
}

/// How long an array of 1000 takes to be acknowledged. Each is of calls of its own, so that nothing of
/// one stands in the lane of the next; and the receiver is away, so that nothing else goes on.
async fn measure_batches(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let callhook = stage.callhook(nobody(), &AWAY).await?;
    let mut wire = Wire::connect(callhook.address).await?;
    let mut times = Vec::new();
    for batch in 0..BATCHES {
        let from = batch * BATCH;
        let body = load::array(from..from + BATCH, |number| {
            load::transcription(&uuid(number / EVENTS_A_CALL), number)
        });
        let request = wire::post(callhook.address, "/events", &body);
        let begun = Instant::now();
        let answer = wire.ask(&request).await?;
        ensure!(answer.status() == b"202", "an array was not taken: {}", answer.first_line());
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let name = "an array of 1000 events acknowledged, median of 20: ms";
    table.figure((name, 1), None, median(&times), BATCH_MS);
    Ok(())
}
