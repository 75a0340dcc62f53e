//! Progress: what is seen on stderr while calls are played: a bar on a terminal, else plain lines.

use crate::output::complain;
use std::future::pending;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::tally::{Numbers, Tally};

/// Between two looks on a terminal.
const GLANCE: Duration = Duration::from_millis(100);

/// Between two lines elsewhere, as in a log of a build.
const LINE: Duration = Duration::from_secs(5);

const STYLE: &str = "{elapsed:>4} {wide_bar} {pos}/{len} calls  {msg}";

/// Shows the progress of so many calls until it is dropped.
pub async fn show(tally: &Tally, calls: u32) {
    if stderr().is_terminal() { bar(tally, calls).await } else { lines(tally, calls).await }
}

async fn bar(tally: &Tally, calls: u32) {
    let Ok(style) = ProgressStyle::with_template(STYLE) else {
        return pending().await;
    };
    // Dropped, it clears itself, so that the summary follows on a clean line.
    let bar =
        ProgressBar::new(calls.into()).with_style(style).with_finish(ProgressFinish::AndClear);
    every(GLANCE, |_| {
        let (over, told) = tally.look(|numbers| (numbers.over, told(numbers)));
        bar.set_position(over);
        bar.set_message(told);
    })
    .await;
}

async fn lines(tally: &Tally, calls: u32) {
    every(LINE, |elapsed| {
        let (over, told) = tally.look(|numbers| (numbers.over, told(numbers)));
        complain(format_args!("{:>4} s  {over} of {calls} calls over, {told}", elapsed.as_secs()));
    })
    .await;
}

fn told(numbers: &Numbers) -> String {
    let failed = numbers.failed + numbers.spoiled;
    let mut told = format!("{} events delivered, {failed} failed", numbers.delivered);
    if numbers.pauses.0 > 0 {
        let seconds = numbers.pauses.1.as_secs();
        told.push_str(&format!("; the receiver asked for a pause of up to {seconds} s"));
    }
    told
}

async fn every(period: Duration, mut look: impl FnMut(Duration)) {
    let begun = Instant::now();
    let mut ticks = interval_at(begun + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let now = ticks.tick().await;
        look(now.duration_since(begun));
    }
}
