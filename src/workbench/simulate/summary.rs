//! SimulationSummary: what came of it, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator as _;

use super::faults::Fault;
use super::options::SimulateOptions;
use super::tally::{Latency, Numbers};
use crate::text::printable;
use crate::time::millis;

#[derive(Debug)]
pub struct SimulationSummary {
    /// The receiver, without a user part.
    pub url: String,
    pub options: SimulateOptions,
    pub seed: u64,
    pub elapsed: Duration,
    pub interrupted: bool,
    pub numbers: Numbers,
}

impl SimulationSummary {
    /// Settled events a second.
    fn rate(&self) -> f64 {
        let Numbers { delivered, failed, spoiled, .. } = self.numbers;
        (delivered + failed + spoiled) as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    /// The faults that were asked for, with what they hit and what of that was accepted.
    fn faults(&self) -> impl Iterator<Item = (Fault, u64, u64)> {
        let asked = Fault::iter().filter(|fault| self.options.shares.of(*fault).fraction() > 0.0);
        asked.map(|fault| {
            let (hit, accepted) = self.numbers.faults[fault as usize];
            (fault, hit, accepted)
        })
    }

    /// The summary as one JSON object. Times are milliseconds, with three digits after the point.
    pub fn json(&self) -> Value {
        let numbers = &self.numbers;
        let scripts = numbers.scripts.iter().map(|((scenario, script), calls)| {
            json!({"scenario": scenario, "script": script, "calls": calls})
        });
        let failures = numbers.failures.iter().map(|(code, (events, error))| {
            ((*code).to_owned(), json!({"events": events, "error": error}))
        });
        let faults = self.faults().map(|(fault, hit, accepted)| {
            let share = self.options.shares.of(fault).to_string();
            (fault.name().to_owned(), json!({"share": share, "hit": hit, "accepted": accepted}))
        });
        let mut latency: Map<String, Value> =
            numbers.latency.iter().map(|(kind, latency)| (kind.clone(), latency.json())).collect();
        latency.insert("all".to_owned(), numbers.overall.json());
        json!({
            "url": self.url,
            "scenarios": self.options.scenarios,
            "seed": self.seed,
            "interrupted": self.interrupted,
            "elapsed_ms": millis(self.elapsed),
            "calls": {"asked": self.options.calls, "begun": numbers.begun, "over": numbers.over},
            "scripts": scripts.collect::<Vec<_>>(),
            "events": {
                "planned": numbers.planned, "sent": numbers.sent, "delivered": numbers.delivered,
                "failed": numbers.failed, "spoiled": numbers.spoiled,
                "unsettled": numbers.unsettled(),
            },
            "events_per_second": rounded(self.rate()),
            "attempts": numbers.attempts,
            "answers": numbers.answers,
            "failures": failures.collect::<Map<_, _>>(),
            "decisions": numbers.decisions,
            "latency_ms": latency,
            "faults": faults.collect::<Map<_, _>>(),
            "pauses": {"asked": numbers.pauses.0, "longest_ms": millis(numbers.pauses.1)},
        })
    }
}

impl fmt::Display for SimulationSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = &self.numbers;
        let played = self.options.scenarios.join(", ");
        let (url, seed) = (&self.url, self.seed);
        writeln!(f, "{} against {url}, seed {seed}", printable(&played))?;
        if self.interrupted {
            writeln!(f, "interrupted; so far:")?;
        }
        writeln!(f)?;
        let calls = self.options.calls;
        row(f, "calls", &format!("{} of {calls} begun, {} over", numbers.begun, numbers.over))?;
        row(f, "events", &events(numbers))?;
        let rate =
            format!("{:.1} s, {:.1} events a second", self.elapsed.as_secs_f64(), self.rate());
        row(f, "took", &rate)?;
        row(f, "answers", &counted(&numbers.answers))?;
        row(f, "decisions", &decisions(numbers))?;
        if numbers.pauses.0 > 0 {
            let (asked, longest) = (numbers.pauses.0, numbers.pauses.1.as_secs());
            row(f, "pauses", &format!("asked for {asked} times, for up to {longest} s"))?;
        }
        for (code, (events, error)) in &numbers.failures {
            row(f, "failures", &format!("{code}: {events} events, such as: {}", printable(error)))?;
        }
        self.write_faults(f)?;
        write_latency(f, numbers)
    }
}

impl SimulationSummary {
    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, hit, accepted) in self.faults() {
            let share = self.options.shares.of(fault);
            let accepted = match fault {
                Fault::Drop => "none of them sent".to_owned(),
                Fault::WrongSecret if accepted > 0 => {
                    format!("{accepted} answered 2xx: the secret is not checked")
                }
                _ => format!("{accepted} answered 2xx"),
            };
            row(f, fault.name(), &format!("{share}: {hit} events, {accepted}"))?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:<13} {text}")
}

fn events(numbers: &Numbers) -> String {
    let Numbers { planned, sent, delivered, failed, spoiled, .. } = numbers;
    let mut text =
        format!("{planned} planned, {sent} sent, {delivered} delivered, {failed} failed");
    if *spoiled > 0 {
        text.push_str(&format!(", {spoiled} spoiled and refused"));
    }
    if numbers.unsettled() > 0 {
        text.push_str(&format!(", {} unanswered", numbers.unsettled()));
    }
    text
}

fn counted(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{}: {count}", printable(name))).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn decisions(numbers: &Numbers) -> String {
    let decisions = &numbers.decisions;
    let mut text = format!("{} routed", decisions.routed);
    if decisions.people > 0 {
        text.push_str(&format!(", {} sent to people", decisions.people));
    }
    if !decisions.places.is_empty() {
        text.push_str(&format!(" ({})", counted(&decisions.places)));
    }
    text.push_str(&format!(", {} left to STS_URL", decisions.fallback));
    for (count, what) in [
        (decisions.invalid, "with an invalid sts_url or next"),
        (decisions.failed, "not answered 2xx"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn write_latency(f: &mut fmt::Formatter<'_>, numbers: &Numbers) -> fmt::Result {
    if numbers.overall.0.is_empty() {
        return Ok(());
    }
    writeln!(f)?;
    let heads = ["answers", "p50", "p90", "p99", "max"].map(|head| format!("{head:>9}"));
    writeln!(f, "{:<20}{}", "latency in ms", heads.concat())?;
    let kinds = numbers.latency.iter().map(|(kind, latency)| (kind.as_str(), latency));
    for (kind, latency) in kinds.chain([("all", &numbers.overall)]) {
        let mut line = format!("  {:<18}{:>9}", printable(kind), latency.0.len());
        for value in latency.values() {
            write!(line, "{value:>9.1}")?;
        }
        writeln!(f, "{line}")?;
    }
    Ok(())
}

impl Latency {
    /// Median, 90th and 99th percentile, and the longest, in milliseconds.
    fn values(&self) -> [f64; 4] {
        let at = |quantile| self.0.value_at_quantile(quantile);
        [at(0.5), at(0.9), at(0.99), self.0.max()].map(|micros| micros as f64 / 1000.0)
    }

    fn json(&self) -> Value {
        let [p50, p90, p99, max] = self.values().map(rounded);
        json!({"count": self.0.len(), "p50": p50, "p90": p90, "p99": p99, "max": max})
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
