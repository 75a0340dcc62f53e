//! The trial of one check: sends what the check asks for, keeps every exchange, and stops the check
//! at the first one that settles it.
//!
//! Silence, a broken connection and a 429 mean the same to every check, so they are dealt with here;
//! any other answer is for the check's own rule.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;

use super::exchange::{Answer, Came, Exchange, Sending};
use super::rules::{Complaint, Rule};
use super::sender::CheckSender;
use crate::routing::RouteRules;

/// Why a check did not pass.
#[derive(Debug)]
pub enum Stop {
    Fail(Complaint),
    /// The receiver answered 429: that is for the check of the rate, and this one cannot be judged.
    Limited,
    Skip(String),
}

impl From<Complaint> for Stop {
    fn from(complaint: Complaint) -> Self {
        Self::Fail(complaint)
    }
}

impl Stop {
    /// Says of a failure what it happened to.
    pub fn of(self, what: &str) -> Self {
        match self {
            Self::Fail(complaint) if !what.is_empty() => {
                let reason = format!("{what}: {}", complaint.reason);
                Self::Fail(Complaint { reason, ..complaint })
            }
            stop => stop,
        }
    }

    /// Gives other advice about a failure.
    pub fn advise(self, advice: &'static str) -> Self {
        match self {
            Self::Fail(Complaint { reason, .. }) => Complaint::new(reason, advice).into(),
            stop => stop,
        }
    }
}

/// How a check ended: with what was seen in plain words, where it passes.
pub type Ruling = Result<String, Stop>;

#[derive(Clone, Debug)]
pub struct ReceiverTraits {
    /// A `call_initiated` is answered with 2xx.
    pub routes: bool,
    /// Twenty calls at once are no trouble.
    pub crowds: bool,
    pub requests: usize,
    /// The number of the request that was first answered 429.
    pub limited_at: Option<usize>,
    pub late: usize,
    pub slowest: Option<Exchange>,
}

impl Default for ReceiverTraits {
    fn default() -> Self {
        Self { routes: true, crowds: true, requests: 0, limited_at: None, late: 0, slowest: None }
    }
}

impl ReceiverTraits {
    /// Takes note of what a check sent and got.
    pub fn learn(&mut self, exchanges: &[Exchange], limit: Duration) {
        for exchange in exchanges {
            self.requests += 1;
            match &exchange.came {
                Came::Answer(answer) if is_limited(answer) => {
                    self.limited_at.get_or_insert(self.requests);
                }
                Came::Answer(_) | Came::Silence => {}
                Came::Broken { .. } => continue,
            }
            self.late += usize::from(exchange.took > limit);
            if self.slowest.as_ref().is_none_or(|slowest| exchange.took > slowest.took) {
                self.slowest = Some(exchange.clone());
            }
        }
    }
}

pub struct Trial {
    pub sender: CheckSender,
    pub known: ReceiverTraits,
    pub rules: RouteRules,
    /// Every exchange of this check.
    pub exchanges: Vec<Exchange>,
    /// The exchange that settles it; the last one unless it is said.
    pub telling: Option<Exchange>,
}

impl Trial {
    pub fn new(sender: CheckSender, known: ReceiverTraits, rules: RouteRules) -> Self {
        Self { sender, known, rules, exchanges: Vec::new(), telling: None }
    }

    /// Sends one request and holds the answer against the rule.
    pub async fn expect(&mut self, sending: Sending, rule: Rule) -> Result<Answer, Stop> {
        let exchange = self.sender.send(sending).await;
        let ruling = judge(&exchange, rule, self.sender.patience());
        self.exchanges.push(exchange);
        ruling
    }

    /// Sends calls at once, the events of each one at a time and in order, as callhook does. Once a
    /// request settles the check, no further one goes out.
    pub async fn expect_calls(&mut self, calls: Vec<Vec<Sending>>, rule: Rule) -> Result<(), Stop> {
        let settled = Cell::new(false);
        let (sender, patience) = (&self.sender, self.sender.patience());
        let play = async |events: Vec<Sending>| {
            let mut seen = Vec::new();
            for sending in events {
                if settled.get() {
                    break;
                }
                let exchange = sender.send(sending).await;
                let ruling = judge(&exchange, rule, patience);
                // Only the first is told: what comes while it is so is often its consequence.
                let first = ruling.is_err() && !settled.replace(true);
                let stop = if first { ruling.err() } else { None };
                seen.push((exchange, stop));
            }
            seen
        };
        let seen = join_all(calls.into_iter().map(play)).await;
        let mut ruling = Ok(());
        for (exchange, stop) in seen.into_iter().flatten() {
            if let Some(stop) = stop {
                self.telling = Some(exchange.clone());
                ruling = Err(stop);
            }
            self.exchanges.push(exchange);
        }
        ruling
    }
}

fn judge(exchange: &Exchange, rule: Rule, patience: Duration) -> Result<Answer, Stop> {
    let what = exchange.sending.what();
    match &exchange.came {
        Came::Answer(answer) if is_limited(answer) => Err(Stop::Limited),
        Came::Answer(answer) => Ok(rule.judge(answer, &what).map(|()| answer.clone())?),
        Came::Silence => {
            let waited = patience.as_millis();
            let reason = format!("{what} got no answer within {waited} ms, --timeout and 5 s more");
            let advice =
                "Answer as soon as the event is taken, and do what takes longer afterwards.";
            Err(Complaint::new(reason, advice).into())
        }
        Came::Broken { code, error } => {
            let reason = format!("{what} got no answer: {error} ({code})");
            let advice =
                "The receiver closed the connection, or crashed. Its own log should say why.";
            Err(Complaint::new(reason, advice).into())
        }
    }
}

fn is_limited(answer: &Answer) -> bool {
    answer.status == StatusCode::TOO_MANY_REQUESTS
}
