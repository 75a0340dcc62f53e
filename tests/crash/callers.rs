//! Those who post: each plays one call after another, one request at a time, and notes what it was
//! promised. An event with an `Idempotency-Key` is repeated until it is acknowledged; one without is
//! not, so whether it was taken stays unknown if the connection broke.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Builder;

use crate::World;
use crate::support::service::{Answer, Wire, request};

/// The most events that may wait before callers hold back, so that the end does not take for ever.
const AHEAD: usize = 1500;
/// The longest wait for the service, or for the receiver to catch up.
const LIMIT: Duration = Duration::from_secs(60);

/// A call as its caller remembers it.
pub struct Call {
    pub uuid: String,
    pub posts: Vec<Post>,
}

/// One request that was made, once or until it was acknowledged.
pub struct Post {
    /// The numbers of its events within the call.
    pub numbers: Range<usize>,
    /// The id of each, if they were acknowledged.
    pub ids: Option<Vec<String>>,
    /// How often it was posted, for an account of what went wrong.
    pub tries: usize,
}

impl Call {
    /// Id and number of each acknowledged event, in the order they were sent.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&str, usize)> {
        self.posts.iter().flat_map(|post| {
            let ids = post.ids.iter().flatten().map(String::as_str);
            ids.zip(post.numbers.clone())
        })
    }
}

pub struct Caller {
    number: u64,
    world: Arc<World>,
    /// Says each time that the service listens again.
    lives: watch::Receiver<()>,
    rng: StdRng,
    wire: Option<Wire>,
}

impl Caller {
    pub fn new(number: u64, world: Arc<World>, lives: watch::Receiver<()>) -> Caller {
        let rng = StdRng::seed_from_u64(world.seed ^ (number + 1) << 48);
        Caller { number, world, lives, rng, wire: None }
    }

    /// Plays calls until the world is over.
    pub async fn play(mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while !self.over() {
            calls.push(self.call().await);
        }
        calls
    }

    fn over(&self) -> bool {
        self.world.over.load(Ordering::Relaxed)
    }

    /// One call, whose last event is always acknowledged: all others come before it.
    async fn call(&mut self) -> Call {
        let uuid = Builder::from_random_bytes(self.rng.random()).into_uuid().to_string();
        let (mut posts, mut next) = (Vec::new(), 0);
        for _ in 0..self.rng.random_range(3..40) {
            if self.over() {
                break;
            }
            let count = if self.rng.random_bool(0.3) { self.rng.random_range(2..=10) } else { 1 };
            let numbers = next..next + count;
            next = numbers.end;
            let keyed = self.rng.random_bool(0.5);
            posts.push(self.post(&uuid, numbers, keyed).await);
        }
        posts.push(self.post(&uuid, next..next + 1, true).await);
        Call { uuid, posts }
    }

    /// Posts these events, one as an object and several as an array.
    async fn post(&mut self, uuid: &str, numbers: Range<usize>, keyed: bool) -> Post {
        self.hold_back().await;
        let events: Vec<Value> = numbers.clone().map(|n| event(uuid, n)).collect();
        let body = match events.as_slice() {
            [one] => one.to_string(),
            many => json!(many).to_string(),
        };
        let key = format!("caller-{}.{uuid}.{}", self.number, numbers.start);
        let headers = [("Idempotency-Key", key.as_str())];
        let headers = if keyed { &headers[..] } else { &[] };
        let request = request("POST", "/events", headers, &body);
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            let answer = self.ask(&request).await;
            if answer.is_some() || !keyed {
                break answer;
            }
        };
        let ids = answer.map(|answer| {
            assert_eq!(answer.status, 202, "seed {}: {answer:?}", self.world.seed);
            ids(&answer)
        });
        if let Some(ids) = &ids {
            let expected = if keyed { keys(&key, numbers.len()) } else { ids.clone() };
            assert_eq!(ids, &expected, "seed {}: the ids of {body}", self.world.seed);
            self.world.acknowledged.fetch_add(ids.len(), Ordering::Relaxed);
        }
        Post { numbers, ids, tries }
    }

    /// Waits while too much is on its way to the receiver.
    async fn hold_back(&self) {
        let acknowledged = self.world.acknowledged.load(Ordering::Relaxed);
        let mut delivered = self.world.main().delivered.subscribe();
        let caught_up = delivered.wait_for(|delivered| acknowledged < delivered + AHEAD);
        let caught_up = timeout(LIMIT, caught_up).await;
        assert!(caught_up.is_ok(), "seed {}: nothing arrives for {LIMIT:?}", self.world.seed);
    }

    /// One request on the caller's connection; None if that broke before the answer was there.
    async fn ask(&mut self, request: &[u8]) -> Option<Answer> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.connect().await,
        };
        if !wire.send(request).await {
            return None;
        }
        let answer = wire.answer().await?;
        self.wire = Some(wire);
        Some(answer)
    }

    async fn connect(&mut self) -> Wire {
        loop {
            self.lives.mark_unchanged();
            if let Ok(wire) = Wire::try_open(self.world.addr).await {
                return wire;
            }
            let born = timeout(LIMIT, self.lives.changed()).await;
            born.unwrap_or_else(|_| panic!("seed {}: down for {LIMIT:?}", self.world.seed))
                .expect("the run outlives its callers");
        }
    }
}

fn event(uuid: &str, n: usize) -> Value {
    json!({ "uuid": uuid, "type": "transcription", "payload": { "n": n } })
}

/// The ids that events with this key are to have.
fn keys(key: &str, count: usize) -> Vec<String> {
    match count {
        1 => vec![key.to_owned()],
        _ => (0..count).map(|n| format!("{key}.{n}")).collect(),
    }
}

/// The ids in a 202, of one event or of an array.
fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let text = |id: &Value| id.as_str().expect("an id is text").to_owned();
    match json["ids"].as_array() {
        Some(ids) => ids.iter().map(text).collect(),
        None => vec![text(&json["id"])],
    }
}
