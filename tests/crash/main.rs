//! `kill -9` under load, again and again: many callers at once, a receiver that is slow and faulty, and
//! at the end an account of every event. `CALLHOOK_CRASH_CYCLES` says how often (20), and
//! `CALLHOOK_CRASH_SEED` repeats the choices of an earlier run, though not its timing.
//!
//! A binary of its own, since it keeps the whole machine busy for as long as it is told to: `scripts/crash.sh`
//! runs it at length, and optimized.
//!
//! `callers.rs` has those who post events and note what they were promised, `book.rs` the receiver's side,
//! `life.rs` the process from start to kill, `account.rs` the claims.

#[allow(dead_code, clippy::unwrap_used, reason = "tests/it uses all of it")]
#[path = "../support/mod.rs"]
mod support;

mod account;
mod book;
mod callers;
mod life;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::receiver::{Receiver, free_port};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use book::Book;
use callers::{Call, Caller};
use life::Life;

const CALLERS: u64 = 16;
/// How long a life lasts, in milliseconds, from its first answer on.
const LIFE: std::ops::Range<u64> = 20..600;
/// When a process is killed that has not come to listen, in milliseconds from its start.
const STILLBORN: std::ops::Range<u64> = 0..40;
/// The longest wait for all to arrive after the last kill.
const LIMIT: Duration = Duration::from_secs(30);

/// What the callers, the receiver and the run know of one another.
struct World {
    seed: u64,
    addr: SocketAddr,
    book: Book,
    /// Events that were acknowledged.
    acknowledged: AtomicUsize,
    /// Set when callers are to end the call that they play.
    over: AtomicBool,
}

#[expect(clippy::disallowed_methods, reason = "these are the test's own knobs, not settings")]
fn knob(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?}; expected a whole number")))
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    now.as_secs() * 1000 + u64::from(now.subsec_millis())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_arrives_once_and_in_order_through_kill_9() {
    let cycles = u32::try_from(knob("CALLHOOK_CRASH_CYCLES").unwrap_or(20)).expect("a number");
    let seed = knob("CALLHOOK_CRASH_SEED").unwrap_or_else(clock);
    println!("crash: CALLHOOK_CRASH_CYCLES={cycles} CALLHOOK_CRASH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let world = Arc::new(World {
        seed,
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
        book: Book::default(),
        acknowledged: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let pages = Arc::clone(&world);
    let receiver = Receiver::start(move |seen| pages.book.enter(seed, seen)).await;
    let mut directory = TempDir::new().expect("a temporary directory");

    let (calls, logs) = run(&world, &receiver, directory.path(), cycles, &mut rng).await;
    let account = account::of(&calls, &world.book.arrivals());
    if !account.broken.is_empty() {
        directory.disable_cleanup(true);
        let kept = directory.path().display();
        panic!("seed {seed}, journal kept in {kept}\n{}", account.explain(&logs));
    }
    println!(
        "crash: {cycles} cycles, seed {seed}, {} acknowledged, {} delivered, {} duplicates",
        account.acknowledged, account.delivered, account.duplicates
    );
}

/// Plays all lives of the service; returns what the callers noted, and the log of each life.
async fn run(
    world: &Arc<World>,
    receiver: &Receiver,
    directory: &std::path::Path,
    cycles: u32,
    rng: &mut StdRng,
) -> (Vec<Call>, Vec<String>) {
    let (born, lives) = watch::channel(());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(Caller::new(number, Arc::clone(world), lives.clone()).play());
    }
    let mut logs = Vec::new();
    for number in 0..cycles {
        let mut life = Life::begin(number, world.addr, &receiver.url, directory);
        if rng.random_bool(0.2) {
            pause(rng, STILLBORN).await;
        } else {
            life.listens().await;
            born.send_replace(());
            pause(rng, LIFE).await;
        }
        logs.push(life.kill().await);
    }
    let mut life = Life::begin(cycles, world.addr, &receiver.url, directory);
    life.listens().await;
    world.over.store(true, Ordering::Relaxed);
    born.send_replace(());
    let calls: Vec<Call> = callers.join_all().await.into_iter().flatten().collect();
    let due = calls.iter().flat_map(Call::acknowledged).map(|(id, _)| id.to_owned()).collect();
    let missing = timeout(LIMIT, world.book.delivered_all(due)).await.err();
    logs.push(life.end().await);
    if missing.is_some() {
        println!("crash: seed {}: not all has arrived after {LIMIT:?}", world.seed);
    }
    (calls, logs)
}

/// Lets time pass: when a kill comes is chance, and waits for nothing.
async fn pause(rng: &mut StdRng, range: std::ops::Range<u64>) {
    let micros = rng.random_range(range.start * 1000..range.end * 1000);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}
