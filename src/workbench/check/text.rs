//! The report for people at a terminal. Pure.

use super::catalogue::Level;
use super::report::{Back, Evidence, Finding, Report, Verdict};
use crate::text::printable;

/// The widest name and its mark.
const WIDTH: usize = 30;

/// One line for a check, as soon as it is judged, under the name of its group where that is new.
pub fn line(finding: &Finding, group_before: Option<&str>) -> String {
    let heading = match group_before {
        Some(before) if before == finding.group => String::new(),
        Some(_) | None => format!("\n{}\n", finding.group),
    };
    let name = labelled(finding);
    let said = match finding.verdict {
        Verdict::Pass | Verdict::Fail => printable(&finding.reason),
        Verdict::Skipped => format!("skipped: {}", printable(&finding.reason)),
    };
    format!("{heading}  {} {name:<WIDTH$} {said}\n", sign(finding.verdict))
}

fn sign(verdict: Verdict) -> char {
    match verdict {
        Verdict::Pass => '✓',
        Verdict::Fail => '✗',
        Verdict::Skipped => '–',
    }
}

fn labelled(finding: &Finding) -> String {
    match finding.level {
        Level::Required => finding.name.to_owned(),
        Level::Advised => format!("{} (advised)", finding.name),
    }
}

/// The details of what failed, and how many checks went how.
pub fn closing(report: &Report) -> String {
    let failed = report.checks.iter().filter(|finding| finding.verdict == Verdict::Fail);
    let details: String = failed.map(details).collect();
    let summary = report.summary;
    let variables = variables(report);
    format!(
        "{details}{variables}\n{}: {} passed, {} failed, {} advised failed, {} skipped; {} requests in {:.1} s\n",
        if report.passed { "passed" } else { "failed" },
        summary.passed,
        summary.failed,
        summary.advised_failed,
        summary.skipped,
        report.requests,
        seconds(report.took_ms),
    )
}

/// What has to be set for the lines that send a request again.
fn variables(report: &Report) -> String {
    let failed = report.checks.iter().filter(|finding| finding.verdict == Verdict::Fail);
    let lines: Vec<&str> = failed
        .filter_map(|finding| finding.evidence.as_ref())
        .map(|evidence| evidence.curl.as_str())
        .collect();
    let needed: Vec<&str> = ["$SECRET", "$SIGNING_KEY", "$WEBHOOK_USER"]
        .into_iter()
        // Without the dollar sign, since the signing key stands in braces.
        .filter(|name| lines.iter().any(|line| line.contains(&name[1..])))
        .collect();
    if needed.is_empty() {
        return String::new();
    }
    format!("\nThe curl lines read {}; set them before.\n", needed.join(" and "))
}

fn details(finding: &Finding) -> String {
    let mut text = format!("\n✗ {}: {}\n", labelled(finding), finding.claim);
    text.push_str(&format!("  {}\n", printable(&finding.reason)));
    if let Some(advice) = finding.advice {
        text.push_str(&format!("  {advice}\n"));
    }
    if let Some(evidence) = &finding.evidence {
        text.push_str(&shown(evidence));
    }
    text
}

fn shown(evidence: &Evidence) -> String {
    let sent = &evidence.sent;
    let mut lines = vec![format!("{} {}", sent.method, sent.url)];
    lines.extend(sent.headers.iter().cloned());
    lines.push(sent.body.clone());
    let mut text = block("sent", &lines);
    let lines = match &evidence.came {
        Back::Answer { status, headers, body } => {
            let mut lines = vec![format!("{status} after {} ms", evidence.took_ms)];
            lines.extend(headers.iter().cloned());
            lines.push(body.clone());
            lines
        }
        Back::Nothing { error } => vec![format!("{error}, after {} ms", evidence.took_ms)],
    };
    text.push_str(&block("came", &lines));
    text.push_str(&block("again", std::slice::from_ref(&evidence.curl)));
    text
}

/// Lines with a name before the first.
fn block(name: &str, lines: &[String]) -> String {
    let lines = lines.iter().flat_map(|line| line.lines()).filter(|line| !line.is_empty());
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(lines).map(|(name, line)| format!("    {name:<5}  {}\n", printable(line))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a run takes some seconds")]
fn seconds(millis: u128) -> f64 {
    millis as f64 / 1000.0
}
