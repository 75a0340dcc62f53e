//! Who asks as fast as answers come: so many connections, each with one request under way, and every
//! request of calls that nobody has heard of before.
//!
//! It shares the processors with what it measures, so it is cheap: one thread, one prepared request a
//! connection into which fresh uuids are written, and of an answer no more is read than its status and
//! its length.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::wire::{self, Wire};

/// Events in an array, and of how many calls they are: as a relay would send them that gathers for a
/// moment. One hexadecimal digit numbers the calls of an array.
pub const ARRAY: usize = 100;
const CALLS_AN_ARRAY: usize = 10;

/// The longest time that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Digits of the uuid's end, which number the calls of a run.
const NUMBER: Range<usize> = 24..36;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// POST /call with the body that Asterisk sends.
    Call,
    /// POST /events with one transcription, as AVR Core sends it.
    Event,
    /// POST /events with [`ARRAY`] of them.
    Array,
}

/// What came of it.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Found {
    /// Requests that were answered as they should be.
    pub answered: u64,
    /// Requests that were not.
    pub wrong: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Microseconds from a request's first byte to its answer's last.
    pub p50: f64,
    pub p99: f64,
}

/// A request that is sent again and again, each time of other calls.
struct Request {
    bytes: Vec<u8>,
    /// Where the number of a call stands, and which of the request's calls it is.
    numbers: Vec<(usize, u64)>,
    calls: u64,
}

/// What the connections of a run have in common.
struct Run {
    until: Instant,
    next_call: AtomicU64,
    wrong: AtomicU64,
    /// In nanoseconds.
    latencies: Mutex<Histogram<u32>>,
}

/// Asks for so many seconds and prints what was found, as one line of JSON.
#[tokio::main(flavor = "current_thread")]
pub async fn ask(
    address: SocketAddr,
    kind: Kind,
    connections: usize,
    seconds: u32,
) -> anyhow::Result<()> {
    let mut wires = Vec::new();
    for _ in 0..connections {
        wires.push(Wire::connect(address).await?);
    }
    // Tells this run's calls from those of all others.
    let prefix = rand::random::<u32>();
    let begun = Instant::now();
    let run = Arc::new(Run {
        until: begun + Duration::from_secs(seconds.into()),
        next_call: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
        latencies: Mutex::new(Histogram::new_with_max(LONGEST, 3)?),
    });
    let mut asking = JoinSet::new();
    for wire in wires {
        asking.spawn(keep_asking(wire, kind.request(address, prefix), Arc::clone(&run)));
    }
    while let Some(asked) = asking.join_next().await {
        if let Err(error) = asked? {
            eprintln!("load: {error:#}");
            run.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&run.found(seconds))?);
    Ok(())
}

async fn keep_asking(mut wire: Wire, mut request: Request, run: Arc<Run>) -> anyhow::Result<()> {
    let mut now = Instant::now();
    while now < run.until {
        request.renew(run.next_call.fetch_add(request.calls, Ordering::Relaxed));
        wire.send(&request.bytes).await?;
        let answer = wire.next().await?.context("the connection was closed")?;
        let as_wanted = answer.status().starts_with(b"2");
        let first_line = (!as_wanted).then(|| answer.first_line());
        let asked = std::mem::replace(&mut now, Instant::now());
        run.note(now - asked, as_wanted);
        // One such answer tells as much as thousands, and they would be thousands a second.
        ensure!(as_wanted, "answered {}", first_line.unwrap_or_default());
    }
    Ok(())
}

impl Run {
    fn note(&self, latency: Duration, as_wanted: bool) {
        if as_wanted {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
        }
    }

    fn found(&self, seconds: f64) -> Found {
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = |share| latencies.value_at_quantile(share) as f64 / 1000.0;
        Found {
            answered: latencies.len(),
            wrong: self.wrong.load(Ordering::Relaxed),
            seconds,
            p50: micros(0.5),
            p99: micros(0.99),
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Event => "event",
            Self::Array => "array",
        }
    }

    fn request(self, address: SocketAddr, prefix: u32) -> Request {
        let uuid = |call: usize| format!("{prefix:08x}-0000-4000-8000-{call:012x}");
        let (path, body, calls) = match self {
            Self::Call => ("/call", announcement(&uuid(0)), 1),
            Self::Event => ("/events", transcription(&uuid(0), 1), 1),
            Self::Array => {
                let event = |number| transcription(&uuid(number % CALLS_AN_ARRAY), number);
                ("/events", array(0..ARRAY, event), CALLS_AN_ARRAY)
            }
        };
        Request::new(wire::post(address, path, &body), &format!("{prefix:08x}-"), calls)
    }
}

impl Request {
    fn new(bytes: Vec<u8>, prefix: &str, calls: usize) -> Self {
        let starts = bytes.windows(prefix.len()).enumerate();
        let starts = starts.filter(|(_, start)| *start == prefix.as_bytes());
        let numbers = starts.map(|(uuid, _)| {
            let digit = bytes[uuid + NUMBER.end - 1];
            let call = char::from(digit).to_digit(16).expect("a uuid ends with a digit");
            (uuid + NUMBER.start, call.into())
        });
        Self { numbers: numbers.collect(), calls: calls as u64, bytes }
    }

    /// Makes it a request of calls that are numbered from here.
    fn renew(&mut self, first_call: u64) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for &(place, call) in &self.numbers {
            let mut number = first_call + call;
            for digit in self.bytes[place..place + NUMBER.len()].iter_mut().rev() {
                *digit = DIGITS[(number & 15) as usize];
                number >>= 4;
            }
        }
    }
}

fn announcement(uuid: &str) -> String {
    format!(
        r#"{{"uuid":"{uuid}","payload":{{"from":"2000","to":"5001","uniqueid":"1795457910.1","channel":"PJSIP/2000-00000001"}}}}"#
    )
}

/// One event as AVR Core sends it.
pub fn transcription(uuid: &str, number: usize) -> String {
    format!(
        r#"{{"uuid":"{uuid}","type":"transcription","timestamp":"2026-11-23T20:00:00.000Z","payload":{{"role":"user","text":"This is sentence {number} of the caller."}}}}"#
    )
}

/// The JSON of these events.
pub fn array(numbers: Range<usize>, event: impl Fn(usize) -> String) -> String {
    format!("[{}]", numbers.map(event).collect::<Vec<_>>().join(","))
}
