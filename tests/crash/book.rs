//! A receiver's side: how it answers each request, by the seed, and what it notes of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::receiver::{Reply, Seen};

/// How many requests of a life that begins with an outage are answered with 503: enough to make the
/// receiver count as down.
const OUTAGE: usize = 6;

/// For how many lives the one that is down by turns stays down, or up: long enough to fill its queue.
const SPELL: usize = 12;

/// Which of the receivers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    /// A copy that is as well as the main one.
    Steady,
    /// A copy that is down half of the time, though not in the last life.
    Moody,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Main, Self::Steady, Self::Moody];

    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Steady => "steady",
            Self::Moody => "moody",
        }
    }
}

/// One request to the receiver.
#[derive(Clone)]
pub struct Arrival {
    /// The life of the service that sent it.
    pub life: usize,
    pub call: String,
    pub id: String,
    /// The event's number within its call.
    pub n: usize,
    pub sequence: u64,
    pub attempt: u64,
    pub body: String,
    pub status: u16,
    /// Set once it was answered; the sender may have gone before.
    done: Arc<OnceLock<Instant>>,
}

impl Arrival {
    /// Whether it was answered with a 2xx.
    pub fn delivered(&self) -> bool {
        self.status == 200 && self.done.get().is_some()
    }
}

/// All requests, in the order of their arrival.
pub struct Book {
    part: Part,
    seed: u64,
    last_life: usize,
    pages: Mutex<Pages>,
    /// How many events were answered with 200.
    pub delivered: watch::Sender<usize>,
}

#[derive(Default)]
struct Pages {
    arrivals: Vec<Arrival>,
    delivered: HashSet<String>,
    /// How many requests came from each life.
    of_life: Vec<usize>,
}

impl Book {
    pub fn new(part: Part, seed: u64, last_life: usize) -> Self {
        let (pages, delivered) = (Mutex::default(), watch::Sender::default());
        Self { part, seed, last_life, pages, delivered }
    }

    pub fn part(&self) -> Part {
        self.part
    }

    /// Notes a request and decides the answer.
    pub fn enter(&self, seen: &Seen) -> Reply {
        let number = |name: &str| -> u64 {
            let text = seen.header(name).unwrap_or_else(|| panic!("{name} in {seen:?}"));
            text.parse().unwrap_or_else(|_| panic!("{name}: {text}; expected a number"))
        };
        let small = |number: u64| usize::try_from(number).expect("a small number");
        let life = small(number("x-avr-webhook-secret"));
        let mut pages = self.pages();
        if pages.of_life.len() <= life {
            pages.of_life.resize(life + 1, 0);
        }
        pages.of_life[life] += 1;
        let of_life = pages.of_life[life];
        let (status, delay) = self.fate(pages.arrivals.len(), life, of_life);
        let arrival = Arrival {
            life,
            call: seen.uuid().to_owned(),
            id: seen.header("webhook-id").expect("a webhook-id").to_owned(),
            n: small(seen.body["payload"]["n"].as_u64().expect("a numbered event")),
            sequence: number("x-avr-webhook-sequence"),
            attempt: number("x-avr-webhook-attempt"),
            body: seen.raw.clone(),
            status,
            done: Arc::clone(&seen.done),
        };
        if status == 200 {
            pages.delivered.insert(arrival.id.clone());
            self.delivered.send_replace(pages.delivered.len());
        }
        pages.arrivals.push(arrival);
        Reply::status(status).after(delay)
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.pages().arrivals.clone()
    }

    /// Waits until each of these ids was answered with 200.
    pub async fn delivered_all(&self, mut due: Vec<String>) {
        let mut news = self.delivered.subscribe();
        loop {
            due.retain(|id| !self.pages().delivered.contains(id));
            if due.is_empty() {
                return;
            }
            news.changed().await.expect("the book outlives its readers");
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Status and delay of the n-th request, which is the `of_life`-th of its life.
    fn fate(&self, n: usize, life: usize, of_life: usize) -> (u16, Duration) {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_add(n as u64));
        let status = match rng.random_range(0..100) {
            _ if self.is_down(life) || (life % 8 == 5 && of_life <= OUTAGE) => 503,
            0..4 => 500,
            4..7 => 503,
            _ => 200,
        };
        let slow = rng.random_bool(0.5);
        let delay = if slow { rng.random_range(0..=20) } else { 0 };
        (status, Duration::from_millis(delay))
    }

    fn is_down(&self, life: usize) -> bool {
        let at = life + usize::from(self.seed.to_le_bytes()[0]);
        self.part == Part::Moody && life < self.last_life && (at / SPELL).is_multiple_of(2)
    }
}
