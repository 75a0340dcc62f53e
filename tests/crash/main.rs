//! `kill -9` under load, again and again: many callers at once, receivers that are slow and faulty, one of which is down
//! half of the time, and at the end an account of every event at each of them. `CALLHOOK_CRASH_CYCLES` says how often (20), and
//! `CALLHOOK_CRASH_SEED` repeats the choices of an earlier run, though not its timing.
//!
//! A binary of its own, since it keeps the whole machine busy for as long as it is told to: `scripts/crash.sh`
//! runs it at length, and optimized.
//!
//! `callers.rs` has those who post events and note what they were promised, `book.rs` a receiver's side, `letters.rs`
//! what it did not get, `life.rs` the process from start to kill, `account.rs` the claims.

#[allow(dead_code, clippy::unwrap_used, reason = "tests/it uses all of it")]
#[path = "../support/mod.rs"]
mod support;

mod account;
mod book;
mod callers;
mod letters;
mod life;

use std::collections::HashSet;
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
use tokio::time::{Instant, timeout};

use book::{Book, Part};
use callers::{Call, Caller};
use letters::Letter;
use life::Life;

const CALLERS: u64 = 16;
/// How long a life lasts, in milliseconds, from its first answer on.
const LIFE: std::ops::Range<u64> = 20..600;
/// When a process is killed that has not come to listen, in milliseconds from its start.
const STILLBORN: std::ops::Range<u64> = 0..40;
/// The longest wait for all to arrive after the last kill.
const LIMIT: Duration = Duration::from_secs(30);
/// How often dead letters are looked for meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// What the callers, the receivers and the run know of one another.
struct World {
    seed: u64,
    addr: SocketAddr,
    admin: SocketAddr,
    /// In the order of [`Part::ALL`].
    books: [Arc<Book>; 3],
    /// Events that were acknowledged.
    acknowledged: AtomicUsize,
    /// Set when callers are to end the call that they play.
    over: AtomicBool,
}

impl World {
    fn main(&self) -> &Book {
        &self.books[0]
    }
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
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let last_life = usize::try_from(cycles).expect("a number");
    let world = Arc::new(World {
        seed,
        addr: local(free_port()),
        admin: local(free_port()),
        books: Part::ALL.map(|part| Arc::new(Book::new(part, seed, last_life))),
        acknowledged: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut directory = TempDir::new().expect("a temporary directory");

    let End { calls, letters, logs } = run(&world, directory.path(), cycles, &mut rng).await;
    let mut told = format!("crash: {cycles} cycles, seed {seed}");
    for (book, letters) in world.books.iter().zip(&letters) {
        let account = account::of(&calls, &book.arrivals(), letters);
        let name = book.part().name();
        if !account.broken.is_empty() {
            directory.disable_cleanup(true);
            let kept = directory.path().display();
            let faults = account.explain(&logs);
            panic!("seed {seed}, journal kept in {kept}, receiver {name}\n{faults}");
        }
        told += &format!(
            "\n  {name}: {} acknowledged, {} delivered, {} duplicates, {} without room, {} given up",
            account.acknowledged,
            account.delivered,
            account.duplicates,
            account.without_room,
            letters.len() - account.without_room
        );
    }
    println!("{told}");
}

/// What a run leaves.
struct End {
    calls: Vec<Call>,
    /// Of each receiver.
    letters: [Vec<Letter>; 3],
    /// Of each life.
    logs: Vec<String>,
}

/// Plays all lives of the service.
async fn run(
    world: &Arc<World>,
    directory: &std::path::Path,
    cycles: u32,
    rng: &mut StdRng,
) -> End {
    let mut receivers = Vec::new();
    for book in &world.books {
        let book = Arc::clone(book);
        receivers.push(Receiver::start(move |seen| book.enter(seen)).await);
    }
    let urls = [0, 1, 2].map(|index| receivers[index].url.clone());
    let (born, lives) = watch::channel(());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(Caller::new(number, Arc::clone(world), lives.clone()).play());
    }
    let mut logs = Vec::new();
    for number in 0..cycles {
        let mut life = Life::begin(number, world, &urls, directory);
        if rng.random_bool(0.2) {
            pause(rng, STILLBORN).await;
        } else {
            life.listens().await;
            born.send_replace(());
            pause(rng, LIFE).await;
        }
        logs.push(life.kill().await);
    }
    let mut life = Life::begin(cycles, world, &urls, directory);
    life.listens().await;
    world.over.store(true, Ordering::Relaxed);
    born.send_replace(());
    let calls: Vec<Call> = callers.join_all().await.into_iter().flatten().collect();
    let mut letters = [const { Vec::new() }; 3];
    for (book, letters) in world.books.iter().zip(&mut letters) {
        *letters = settled(world, book, &calls).await;
    }
    logs.push(life.end().await);
    End { calls, letters, logs }
}

/// Waits until all that was acknowledged is delivered to a receiver, or a dead letter of it; returns those.
async fn settled(world: &World, book: &Book, calls: &[Call]) -> Vec<Letter> {
    let (name, end) = (book.part().name(), Instant::now() + LIMIT);
    let acknowledged = calls.iter().flat_map(Call::acknowledged);
    let mut due: Vec<String> = acknowledged.map(|(id, _)| id.to_owned()).collect();
    loop {
        let letters = letters::of(world.admin, name).await;
        let dead: HashSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
        due.retain(|id| !dead.contains(id.as_str()));
        if timeout(LOOK, book.delivered_all(due.clone())).await.is_ok() {
            return letters;
        }
        if Instant::now() > end {
            println!("crash: seed {}: not all is settled at {name} after {LIMIT:?}", world.seed);
            return letters;
        }
    }
}

/// Lets time pass: when a kill comes is chance, and waits for nothing.
async fn pause(rng: &mut StdRng, range: std::ops::Range<u64>) {
    let micros = rng.random_range(range.start * 1000..range.end * 1000);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}
