//! A further receiver that is sick, and what it costs the main one and the callers: callhook with it beside callhook
//! without it, in turn, each with a backlog behind it, so that all of the sick one's connections are in use.
//!
//! What is compared is the way of a call's announcement to the main receiver's socket and the answer to `POST /call`;
//! then the memory that a dead one costs when far more came than `QUEUE_LIMIT` has room for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{ask, fill, in_turn, rest, uuid};
use crate::latency::{Ends, Found};
use crate::load::{self, Kind};
use crate::processes::resident_kib;
use crate::stage::{FRONT, Server, Stage, arrived, nobody};
use crate::table::{Name, Table, Wanted, median};
use crate::wire::{self, Wire};

/// More than the sick one has connections.
const BACKLOG: usize = 1000;
/// Calls of a round, one at a time, and the pause between.
const CALLS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(2);
const CONNECTIONS: [usize; 2] = [1, 32];
/// A tenth worse.
const WORSE: Wanted = Wanted::AtMost(1.1);

/// For the memory: events handed over, and how many of them may wait.
const EVENTS: usize = 50_000;
const ROOM: (&str, &str) = ("QUEUE_LIMIT", "2000");
/// How long all of that may take.
const LIMIT: Duration = Duration::from_secs(60);
/// MB, as a million bytes: two thousand events, and what the journal and the dead letters need at once.
const MORE_MB: Wanted = Wanted::Below(5.0);

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sickness {
    /// It takes every request, and answers none.
    Hangs,
    /// It answers ten bytes a second.
    Trickles,
    /// Nobody listens.
    Dead,
}

/// Figures of the rounds, in microseconds.
#[derive(Default)]
struct Figures {
    way: Vec<Found>,
    answers: [Vec<(f64, f64)>; CONNECTIONS.len()],
}

pub async fn measure(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    for (sickness, name) in [
        (Sickness::Hangs, "hangs"),
        (Sickness::Trickles, "answers 10 bytes a second"),
        (Sickness::Dead, "is dead"),
    ] {
        let mut figures = [Figures::default(), Figures::default()];
        for round in 0..stage.rounds(3) {
            measure_round(stage, sickness, round, &mut figures).await?;
        }
        report(table, name, &figures);
    }
    measure_memory(stage, table).await
}

/// The first figures are those without it.
async fn measure_round(
    stage: &Stage,
    sickness: Sickness,
    round: u32,
    figures: &mut [Figures; 2],
) -> anyhow::Result<()> {
    let sick = match sickness {
        Sickness::Hangs => Some(stage.server("sick", &["hangs"]).await?),
        Sickness::Trickles => Some(stage.server("sick", &["trickles"]).await?),
        Sickness::Dead => None,
    };
    let sick = sick.as_ref().map_or(nobody(), |server| server.address);
    let ends = Ends::open()?;
    let sides = [
        (0, callhook(stage, ends.receiver, None).await?),
        (1, callhook(stage, ends.receiver, Some(sick)).await?),
    ];
    let receiver = stage.receiver().await?;
    let loaded = [
        (0, callhook(stage, receiver.address, None).await?),
        (1, callhook(stage, receiver.address, Some(sick)).await?),
    ];
    let asked: Vec<_> = in_turn(round, sides.iter().map(|(side, server)| (*side, server.address)));
    let announcing = tokio::task::spawn_blocking(move || {
        let announce = |(side, address)| anyhow::Ok((side, ends.announce(address, CALLS, PAUSE)?));
        asked.into_iter().map(announce).collect::<anyhow::Result<Vec<(usize, Found)>>>()
    });
    for (side, found) in announcing.await?? {
        figures[side].way.push(found);
    }
    for (_, server) in &loaded {
        fill(server, BACKLOG, BACKLOG).await?;
    }
    arrived(receiver.address, 2 * BACKLOG as u64).await?;
    for (nth, connections) in CONNECTIONS.into_iter().enumerate() {
        for (side, server) in in_turn(round, &loaded) {
            let run = ask(stage, server, (Kind::Call, connections, stage.seconds(3))).await?;
            figures[*side].answers[nth].push((run.found.p50, run.found.p99));
        }
    }
    Ok(())
}

/// With a journal of its own, as two of them run at a time. The sick one is waited for as long as it takes, so that
/// its connections stay in use.
async fn callhook(
    stage: &Stage,
    receiver: SocketAddr,
    sick: Option<SocketAddr>,
) -> anyhow::Result<Server> {
    let directory = tempfile::TempDir::new_in(stage.directory())?.keep();
    let url = sick.map(|sick| format!("http://{sick}/events"));
    let settings: Vec<(&str, &str)> = match &url {
        Some(url) => vec![("RECEIVER_SICK_URL", url), ("RECEIVER_SICK_TIMEOUT", "600000")],
        None => Vec::new(),
    };
    let journal = directory.join("journal.redb");
    stage.start_callhook(receiver, &journal, &settings)?.listening(FRONT).await
}

fn report(table: &mut Table, sickness: &str, figures: &[Figures; 2]) {
    let mut compare = |name: &str, of: &dyn Fn(&Figures) -> Vec<f64>, wanted| {
        let name = format!("without and with a receiver that {sickness}: {name}");
        let row: Name<'_> = (&name, 0);
        table.compare(row, &of(&figures[0]), &of(&figures[1]), wanted);
    };
    let way = |figure: fn(&Found) -> f64| {
        move |of: &Figures| of.way.iter().map(figure).collect::<Vec<f64>>()
    };
    compare("to the main receiver's socket, p50, µs", &way(|found| found.p50), WORSE);
    compare("to the main receiver's socket, p99, µs", &way(|found| found.p99), WORSE);
    for (nth, connections) in CONNECTIONS.into_iter().enumerate() {
        let answers = |figure: fn(&(f64, f64)) -> f64| {
            move |of: &Figures| of.answers[nth].iter().map(figure).collect::<Vec<f64>>()
        };
        // What is asked as fast as it can be answered pays for the copies, too, be they taken or not.
        let wanted = if connections == 1 { WORSE } else { Wanted::Nothing };
        let name = |rank| format!("`POST /call`, {connections} at once, {rank}, µs");
        compare(&name("p50"), &answers(|(p50, _)| *p50), wanted);
        compare(&name("p99"), &answers(|(_, p99)| *p99), wanted);
    }
}

/// Hands events over, an array at a time, each when the one before has arrived; all are of calls of their own.
async fn pour(callhook: &Server, receiver: &Server) -> anyhow::Result<()> {
    let (mut wire, begun) = (Wire::connect(callhook.address).await?, Instant::now());
    for from in (0..EVENTS).step_by(BACKLOG) {
        let body =
            load::array(from..from + BACKLOG, |number| load::transcription(&uuid(number), number));
        let request = wire::post(callhook.address, "/events", &body);
        // What has arrived takes room until that is on disk.
        while wire.ask(&request).await?.status() != b"202" {
            ensure!(begun.elapsed() < LIMIT, "there is no room for an array after {LIMIT:?}");
        }
        arrived(receiver.address, (from + BACKLOG) as u64).await?;
    }
    Ok(())
}

/// Everything beyond the room of the dead one becomes a dead letter on disk.
async fn measure_memory(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let mut megabytes = [Vec::new(), Vec::new()];
    let dead = format!("http://{}/events", nobody());
    for round in 0..stage.rounds(3) {
        for side in in_turn(round, [0, 1]) {
            let receiver = stage.receiver().await?;
            let further = ("RECEIVER_DEAD_URL", dead.as_str());
            let settings = if side == 0 { vec![ROOM] } else { vec![ROOM, further] };
            let callhook = stage.callhook(receiver.address, &settings).await?;
            pour(&callhook, &receiver).await?;
            rest().await;
            megabytes[side].push(resident_kib(callhook.process.id())? as f64 * 1024.0 / 1e6);
        }
    }
    let [without, with] = megabytes.map(|figures| median(&figures));
    let name = "without and with a dead receiver, QUEUE_LIMIT=2000, after 50,000 events: MB";
    table.figure((name, 1), Some(without), with, Wanted::Nothing);
    table.figure(("memory that the dead receiver costs: MB", 1), None, with - without, MORE_MB);
    Ok(())
}
