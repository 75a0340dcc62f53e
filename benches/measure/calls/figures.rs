//! From what each call said and heard to the figures of them all.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::frames::FRAMES_A_SECOND;
use crate::processes::Cores;

/// Microseconds since the run began.
pub type Micros = u32;

/// A frame that a call sent; its number is its place among the call's.
pub struct Said {
    /// When it was its turn.
    pub due: Micros,
    /// When its write began.
    pub at: Micros,
}

/// A frame that came back.
pub struct Heard {
    /// When it had been read.
    pub at: Micros,
    /// None if it is not, bit for bit, a frame of this call.
    pub number: Option<u32>,
}

/// One call, from its first frame to its last.
#[derive(Default)]
pub struct Call {
    /// In order.
    pub said: Vec<Said>,
    /// In the order it came.
    pub heard: Vec<Heard>,
    /// Whether somebody else than the caller ended it.
    pub cut_off: bool,
}

/// What is counted over the frames that were due in the measured time.
#[derive(Default)]
pub struct Figures {
    calls: usize,
    cut_off: usize,
    wanted: usize,
    sent: usize,
    echoed: usize,
    duplicated: usize,
    damaged: usize,
    gaps: Vec<Micros>,
    echoes: Vec<Micros>,
    lates: Vec<Micros>,
}

impl Figures {
    /// Of all calls, with the frames that were due within the given time.
    pub fn of(calls: &[Call], measured: &Range<Micros>) -> Self {
        let seconds = measured.len().div_ceil(1_000_000);
        let mut figures = Self {
            calls: calls.len(),
            wanted: calls.len() * seconds * FRAMES_A_SECOND,
            ..Self::default()
        };
        for call in calls {
            figures.add(call, measured);
        }
        figures
    }

    fn add(&mut self, call: &Call, measured: &Range<Micros>) {
        let first = call.said.partition_point(|said| said.due < measured.start);
        let end = call.said.partition_point(|said| said.due < measured.end);
        let mut missing = vec![true; end - first];
        let mut last = None;
        for heard in &call.heard {
            let Some(number) = heard.number else {
                self.damaged += usize::from(measured.contains(&heard.at));
                continue;
            };
            let number = number as usize;
            if !(first..end).contains(&number) {
                continue;
            }
            if let Some(last) = last.replace(heard.at) {
                self.gaps.push(heard.at - last);
            }
            if std::mem::take(&mut missing[number - first]) {
                self.echoed += 1;
                self.echoes.push(heard.at.saturating_sub(call.said[number].at));
            } else {
                self.duplicated += 1;
            }
        }
        self.sent += end - first;
        self.lates.extend(call.said[first..end].iter().map(|said| said.at - said.due));
        self.cut_off += usize::from(call.cut_off);
    }

    /// One line of JSON. Times are in milliseconds.
    pub fn into_json(mut self, cores: &Cores, idle_kib: u64, busy_kib: u64) -> String {
        let mut line = Map::new();
        let counts = [
            ("calls", self.calls),
            ("cut_off", self.cut_off),
            ("wanted", self.wanted),
            ("sent", self.sent),
            ("echoed", self.echoed),
            ("lost", self.sent - self.echoed),
            ("duplicated", self.duplicated),
            ("damaged", self.damaged),
        ];
        line.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
        for (name, times) in
            [("gap", &mut self.gaps), ("echo", &mut self.echoes), ("late", &mut self.lates)]
        {
            times.sort_unstable();
            for (rank, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
                line.insert(format!("{name}_{rank}_ms"), quantile(times, share));
            }
        }
        for (name, cores) in [
            ("cores", cores.measured),
            ("beside_cores", cores.beside),
            ("own_cores", cores.own),
            ("foreign_cores", cores.foreign),
        ] {
            line.insert(name.to_owned(), rounded(cores, 1000.0));
        }
        line.insert("idle_kib".to_owned(), idle_kib.into());
        line.insert("busy_kib".to_owned(), busy_kib.into());
        Value::Object(line).to_string()
    }
}

/// In milliseconds; null of nothing.
fn quantile(sorted: &[Micros], share: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a list that fits into memory"
    )]
    let place = (sorted.len() as f64 * share).ceil() as usize;
    match sorted.get(place.saturating_sub(1)) {
        Some(&micros) => rounded(f64::from(micros) / 1000.0, 100.0),
        None => Value::Null,
    }
}

fn rounded(number: f64, parts: f64) -> Value {
    json!((number * parts).round() / parts)
}
