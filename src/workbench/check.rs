//! `callhook check`: judges a webhook receiver, one claim at a time.
//!
//! Every request is made as callhook's delivery makes its attempts, by the same code, for calls
//! that are made up anew. [`catalogue`] says of each check what exactly passes. Leaves to others how a
//! request is made ([`sender`]), what an answer has to be ([`rules`]), and how the report looks
//! ([`text`], [`junit`], [`page`]).
//!
//! Invariants and limits:
//! - One fault of the receiver fails the check that is meant for it: later checks are told of it,
//!   and do without what is known to be broken.
//! - No secret is in any output ([`report`]).
//! - At most 20 requests at once, fewer than 400 in all; about 2 s against a receiver that answers
//!   at once.
//! - A receiver that is gone, or silent in two checks in a row, is left alone: the rest is
//!   skipped.

pub mod arrival;
pub mod catalogue;
pub mod curl;
pub mod exchange;
pub mod junit;
pub mod life;
pub mod load;
pub mod page;
pub mod report;
pub mod rules;
pub mod sender;
pub mod step;
pub mod text;
pub mod trial;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::SecretString;
use tokio::time::Instant;

use self::catalogue::{
    CALL_INITIATED, CATALOGUE, CONCURRENT_CALLS, Check, IN_TIME, KEEP_ALIVE, REACHED,
};
use self::exchange::{Came, Exchange};
use self::report::{CheckSummary, Finding, Report, Scribe, Verdict};
use self::sender::CheckSender;
use self::trial::{ReceiverTraits, Ruling, Stop, Trial};
use super::receiver_options::ReceiverOptions;
use crate::delivery::WebhookSettings;
use crate::output::{print, print_line};
use crate::routing::RouteRules;
use crate::routing::destination::{DestinationRule, Destinations};
use crate::text::printable;
use crate::time::{millis, timestamp_now};

/// So many checks in a row without an answer mean that the receiver hangs.
const SILENT_CHECKS: u32 = 2;

#[derive(Clone, Debug, clap::Args)]
#[command(
    mut_arg("secret", |arg| {
        arg.help("Its secret, sent as X-AVR-WEBHOOK-SECRET; then wrong and missing ones are tried, too")
    }),
    mut_arg("signing_key", |arg| {
        arg.help("Its signing key, whsec_…; then wrong, missing and old signatures are tried, too")
    })
)]
pub struct CheckOptions {
    #[command(flatten)]
    pub receiver: ReceiverOptions,
    /// Where it may send callers, as in ROUTE_TO (people/100,people/200); anywhere, if not given
    #[arg(long, value_name = "CONTEXT/EXTEN", value_delimiter = ',')]
    pub route_to: Vec<DestinationRule>,
    /// Print one JSON document in place of text
    #[arg(long)]
    pub json: bool,
    /// Write the results as JUnit XML, too, in which advised checks that fail count as skipped
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the results as a web page, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl CheckOptions {
    fn rules(&self) -> RouteRules {
        let people = (!self.route_to.is_empty()).then(|| Destinations::new(self.route_to.clone()));
        RouteRules { people, ..RouteRules::ANYWHERE }
    }
}

/// Judges the receiver, prints what was found and writes the files that were asked for.
///
/// # Errors
/// Where a required check failed, which the error names, or a file cannot be written.
pub async fn run(options: &CheckOptions) -> anyhow::Result<()> {
    let settings = options.receiver.settings();
    let key = options.receiver.signing_key.as_ref().map(|signing| &signing.text);
    let mut course = Course::new(settings, key, options.rules())?;
    let report = course.run(!options.json).await;
    if options.json {
        print_line(serde_json::to_string_pretty(&report)?);
    } else if reached(&report) {
        print(text::closing(&report));
    }
    if let Some(path) = &options.junit {
        write(path, &junit::document(&report)?)?;
    }
    if let Some(path) = &options.html {
        write(path, &page::page(&report))?;
    }
    verdict(&report)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn reached(report: &Report) -> bool {
    report.checks.first().is_some_and(|first| first.verdict == Verdict::Pass)
}

fn verdict(report: &Report) -> anyhow::Result<()> {
    let url = &report.url;
    let first = report.checks.first().expect("the catalogue is not empty");
    if first.verdict == Verdict::Fail {
        let advice = first.advice.unwrap_or_default();
        return Err(anyhow!("{url}: {}. {advice}", printable(&first.reason)));
    }
    match report.summary.failed {
        0 => Ok(()),
        1 => Err(anyhow!("{url}: a required check failed")),
        many => Err(anyhow!("{url}: {many} required checks failed")),
    }
}

struct Course {
    sender: CheckSender,
    scribe: Scribe,
    known: ReceiverTraits,
    rules: RouteRules,
    reached: bool,
    /// Checks in a row that ended in silence.
    silent: u32,
    /// Why the rest is skipped.
    halted: Option<String>,
}

impl Course {
    fn new(
        settings: WebhookSettings,
        key: Option<&SecretString>,
        rules: RouteRules,
    ) -> anyhow::Result<Self> {
        let sender = CheckSender::new(settings)?;
        Ok(Self {
            scribe: Scribe::new(sender.settings(), key, sender.patience()),
            sender,
            known: ReceiverTraits::default(),
            rules,
            reached: false,
            silent: 0,
            halted: None,
        })
    }

    /// Makes every check; prints a line each as it goes, where `aloud`.
    async fn run(&mut self, aloud: bool) -> Report {
        let (begun, started) = (Instant::now(), timestamp_now());
        let mut checks: Vec<Finding> = Vec::new();
        for check in &CATALOGUE {
            let finding = self.judge(check).await;
            checks.push(finding);
            if aloud && checks[0].verdict == Verdict::Pass {
                let (last, before) = checks.split_last().expect("one was pushed");
                print(text::line(last, before.last().map(|before| before.check.group)));
            }
        }
        let summary = CheckSummary::of(&checks);
        Report {
            callhook: env!("CARGO_PKG_VERSION"),
            url: self.sender.settings().shown_url(),
            started,
            took_ms: millis(begun.elapsed()),
            requests: self.known.requests,
            passed: summary.failed == 0,
            summary,
            checks,
        }
    }

    async fn judge(&mut self, check: &'static Check) -> Finding {
        let looks_back = check.name == IN_TIME && self.reached;
        if let Some(why) = self.halted.clone().filter(|_| !looks_back) {
            return self.finding(check, Err(Stop::Skip(why)), None, Duration::ZERO);
        }
        let begun = Instant::now();
        let mut trial = Trial::new(self.sender.clone(), self.known.clone(), self.rules.clone());
        let ruling = check.judge(&mut trial).await;
        let took = begun.elapsed();
        let Trial { exchanges, telling, .. } = trial;
        self.known.learn(&exchanges, self.sender.settings().timeout);
        self.draw_consequences(check, &ruling, &exchanges).await;
        let telling = telling.as_ref().or(exchanges.last());
        self.finding(check, ruling, telling, took)
    }

    /// What later checks do without, once this one went as it did.
    async fn draw_consequences(&mut self, check: &Check, ruling: &Ruling, exchanges: &[Exchange]) {
        let failed = matches!(ruling, Err(Stop::Fail(_)));
        match check.name {
            REACHED if failed => {
                self.halted = Some("the receiver was not reached".to_owned());
                return;
            }
            REACHED => self.reached = true,
            KEEP_ALIVE if failed => self.sender = self.sender.clone().without_keep_alive(),
            CALL_INITIATED => self.known.routes = !failed,
            CONCURRENT_CALLS => self.known.crowds = !failed,
            _ => {}
        }
        let broke = exchanges.iter().any(|exchange| matches!(exchange.came, Came::Broken { .. }));
        if broke && !self.sender.finds_receiver().await {
            self.halted = Some(format!("the receiver went away during {}", check.name));
        }
        let silent = exchanges.iter().any(|exchange| matches!(exchange.came, Came::Silence));
        self.silent = if silent { self.silent + 1 } else { 0 };
        if self.silent == SILENT_CHECKS {
            self.halted =
                Some(format!("the receiver was silent in {SILENT_CHECKS} checks in a row"));
        }
    }

    fn finding(
        &self,
        check: &'static Check,
        ruling: Ruling,
        telling: Option<&Exchange>,
        took: Duration,
    ) -> Finding {
        let (verdict, reason, advice) = match ruling {
            Ok(reason) => (Verdict::Pass, reason, None),
            Err(Stop::Fail(complaint)) => (Verdict::Fail, complaint.reason, complaint.advice),
            Err(Stop::Skip(why)) => (Verdict::Skipped, why, None),
            Err(Stop::Limited) => {
                (Verdict::Skipped, "the answer was 429; see request-rate".to_owned(), None)
            }
        };
        Finding {
            check,
            verdict,
            reason: self.scribe.masked(&reason),
            advice,
            took_ms: millis(took),
            evidence: telling.map(|exchange| self.scribe.evidence(exchange, check)),
        }
    }
}
