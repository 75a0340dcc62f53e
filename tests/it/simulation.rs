//! The queue against a receiver that is slow, fails, refuses and goes away, in virtual time.
//!
//! The clock is paused, so hours pass in seconds and nothing depends on the machine's speed. Each
//! run is determined by its seed, which a failure prints.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use callhook::attempt::{Attempt, Deliver, Failure, FailureCode, Outcome};
use callhook::event::{CallId, Event, EventId, EventType, Payload};
use callhook::history::History;
use callhook::journal::{Journal, Recovered};
use callhook::queue::metrics::QueueMetrics;
use callhook::queue::{Limits, Queue, QueueParts, QueueSettings, ReceiverRules};
use callhook::receiver::{ReceiverId, Receivers};
use callhook::retry::{Delays, RetryPolicy};
use callhook::time::timestamp_now;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::support::queue::settings as usual;

/// What the receiver is like during one stretch of time.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Fine,
    Flaky,
    Gone,
    Busy,
}

/// A receiver that behaves as its seed says and checks what must hold for every attempt.
struct Flapping {
    begun: Instant,
    moods: Vec<(Duration, Mood)>,
    attempts_allowed: u32,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    under_way: HashSet<CallId>,
    in_flight_peak: usize,
    attempts: u64,
    /// Sequence numbers that were delivered, per call.
    delivered: HashMap<CallId, Vec<u64>>,
    last_tried: HashMap<CallId, u64>,
}

impl Flapping {
    fn new(seed: u64, hours: u64, attempts_allowed: u32) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut at = Duration::ZERO;
        let mut moods = Vec::new();
        while at < Duration::from_secs(hours * 3600) {
            let mood = [Mood::Fine, Mood::Fine, Mood::Flaky, Mood::Gone, Mood::Busy]
                [rng.random_range(0..5)];
            at += Duration::from_secs(rng.random_range(5..900));
            moods.push((at, mood));
        }
        Arc::new(Self {
            begun: Instant::now(),
            moods,
            attempts_allowed,
            state: Mutex::new(State {
                rng,
                under_way: HashSet::new(),
                in_flight_peak: 0,
                attempts: 0,
                delivered: HashMap::new(),
                last_tried: HashMap::new(),
            }),
        })
    }

    /// After the last stretch the receiver is fine for good.
    fn mood(&self) -> Mood {
        let since = self.begun.elapsed();
        self.moods.iter().find(|(until, _)| since < *until).map_or(Mood::Fine, |(_, mood)| *mood)
    }

    fn begin(&self, attempt: &Attempt) -> (Duration, Outcome) {
        let mood = self.mood();
        let mut state = self.state.lock().unwrap();
        let call = attempt.item.event.call;
        assert!(state.under_way.insert(call), "two attempts of one call at once");
        assert!((1..=self.attempts_allowed).contains(&attempt.number()), "{}", attempt.number());
        let last = state.last_tried.insert(call, attempt.item.sequence).unwrap_or_default();
        assert!(attempt.item.sequence >= last, "an earlier event came after a later one");
        state.attempts += 1;
        state.in_flight_peak = state.in_flight_peak.max(state.under_way.len());
        let took = Duration::from_millis(state.rng.random_range(1..2000));
        (took, outcome(mood, &mut state.rng, took))
    }

    fn end(&self, attempt: &Attempt, outcome: &Outcome) {
        let mut state = self.state.lock().unwrap();
        state.under_way.remove(&attempt.item.event.call);
        if matches!(outcome, Outcome::Delivered { .. }) {
            state.delivered.entry(attempt.item.event.call).or_default().push(attempt.item.sequence);
        }
    }
}

fn outcome(mood: Mood, rng: &mut StdRng, took: Duration) -> Outcome {
    let delivered = || Outcome::Delivered { status: 200, answer: Some(Bytes::new()) };
    let status = |status: u16, retry_after: Option<u64>| {
        Outcome::Failed(Failure::of_status(status, retry_after.map(Duration::from_secs), took))
    };
    match (mood, rng.random_range(0..10)) {
        (Mood::Fine, _) | (Mood::Flaky, 0..5) => delivered(),
        (Mood::Flaky, 5..7) => status(500, None),
        (Mood::Flaky, 7) => status(422, None),
        (Mood::Flaky, _) => status(503, None),
        (Mood::Busy, 0..8) => delivered(),
        (Mood::Busy, _) => status(429, Some(rng.random_range(0..120))),
        (Mood::Gone, _) => Outcome::Failed(Failure::unanswered(
            FailureCode::ConnectionRefused,
            String::new(),
            took,
        )),
    }
}

struct Receiver(Arc<Flapping>);

impl Deliver for Receiver {
    fn attempt(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let receiver = Arc::clone(&self.0);
        Box::pin(async move {
            let (took, outcome) = receiver.begin(&attempt);
            sleep(took).await;
            receiver.end(&attempt, &outcome);
            outcome
        })
    }
}

fn settings(retries: u32, concurrency: usize) -> QueueSettings {
    QueueSettings {
        receivers: vec![ReceiverRules {
            limits: Limits { concurrency, queue: 1_000_000, ..Limits::default() },
            retry: RetryPolicy::new(
                retries,
                Delays::fixed(Duration::from_millis(500), Duration::from_secs(30)),
            ),
            ..ReceiverRules::default()
        }],
        ..usual()
    }
}

fn event(call: CallId, kind: EventType) -> Event {
    Event::new(EventId::make(), call, kind, &timestamp_now(), &Payload::empty())
}

/// Plays `calls` calls with their events spread over the hours, and waits until all is settled.
async fn play(seed: u64, calls: usize, hours: u64) {
    let retries = u32::try_from(seed % 4).unwrap();
    let concurrency = [1, 4, 64][usize::try_from(seed % 3).unwrap()];
    let receiver = Flapping::new(seed, hours, retries + 1);
    let metrics = Arc::new(QueueMetrics::default());
    let parts = QueueParts {
        deliver: vec![Some(Arc::new(Receiver(Arc::clone(&receiver))))],
        journal: Arc::new(Journal::in_memory(&Receivers::main(), 1_000_000)),
        history: History::default(),
        metrics: Arc::clone(&metrics),
    };
    let queue = Queue::start(settings(retries, concurrency), parts, Recovered::default());
    let mut rng = StdRng::seed_from_u64(seed ^ 0xca11);
    let mut live: Vec<(CallId, u32)> = Vec::new();
    let mut accepted: HashMap<CallId, u64> = HashMap::new();
    let (mut begun, pause) = (0, hours * 3_600_000 / (calls as u64 * 6));
    while begun < calls || !live.is_empty() {
        sleep(Duration::from_millis(rng.random_range(0..=pause * 2))).await;
        if begun < calls && (live.is_empty() || rng.random_bool(0.2)) {
            live.push((CallId::random(), rng.random_range(1..8)));
            begun += 1;
        }
        let place = rng.random_range(0..live.len());
        let (call, left) = &mut live[place];
        let kind = if *left == 1 { EventType::CallEnded } else { EventType::Transcription };
        queue.accept(vec![event(*call, kind)]).unwrap();
        *accepted.entry(*call).or_default() += 1;
        *left -= 1;
        if *left == 0 {
            live.swap_remove(place);
        }
    }
    let lost = queue.drain(Instant::now() + Duration::from_secs(3 * 86400)).await;
    assert_eq!(lost, 0, "everything is settled in the end");
    check(&receiver, &metrics, &accepted, concurrency);
}

fn check(
    receiver: &Flapping,
    metrics: &QueueMetrics,
    accepted: &HashMap<CallId, u64>,
    concurrency: usize,
) {
    let state = receiver.state.lock().unwrap();
    let delivered: usize = state.delivered.values().map(Vec::len).sum();
    let dead = usize::try_from(metrics.of(ReceiverId::MAIN).dead.sum()).unwrap();
    let total: u64 = accepted.values().sum();
    assert_eq!(
        delivered + dead,
        usize::try_from(total).unwrap(),
        "delivered or given up, none twice"
    );
    assert!(state.in_flight_peak <= concurrency, "{} at once", state.in_flight_peak);
    for (call, sequences) in &state.delivered {
        assert!(sequences.is_sorted_by(|a, b| a < b), "{call}: {sequences:?}");
        assert!(sequences.last() <= accepted.get(call), "{call}: {sequences:?}");
    }
}

/// Runs one seed with a paused clock; a failure names it.
fn run(seed: u64, calls: usize, hours: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(play(seed, calls, hours));
    }));
    assert!(played.is_ok(), "seed {seed}, {calls} calls over {hours} h");
}

#[test]
fn order_exclusivity_and_attempts_hold_for_every_seed() {
    for seed in 0..48 {
        run(seed, 60, 2);
    }
}

#[test]
fn thousands_of_calls_over_hours_of_a_flapping_receiver_are_all_settled() {
    run(4711, 4000, 12);
}
