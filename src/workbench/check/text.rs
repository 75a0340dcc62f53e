//! The report for people at a terminal. Pure.

use std::time::Duration;

use super::catalogue::Level;
use super::report::{Evidence, Finding, Report, Verdict};
use crate::text::printable;

/// The widest name and its mark.
const WIDTH: usize = 30;

/// One line for a check, as soon as it is judged, under the name of its group where that is new.
pub fn line(finding: &Finding, group_before: Option<&str>) -> String {
    let heading = match group_before {
        Some(before) if before == finding.check.group => String::new(),
        Some(_) | None => format!("\n{}\n", finding.check.group),
    };
    let name = labelled(finding);
    let said = match finding.verdict {
        Verdict::Pass | Verdict::Fail => printable(&finding.reason),
        Verdict::Skipped => format!("skipped: {}", printable(&finding.reason)),
    };
    format!("{heading}  {} {name:<WIDTH$} {said}\n", finding.verdict.sign())
}

fn labelled(finding: &Finding) -> String {
    match finding.check.level {
        Level::Required => finding.check.name.to_owned(),
        Level::Advised => format!("{} (advised)", finding.check.name),
    }
}

/// The details of what failed, and how many checks went how.
pub fn closing(report: &Report) -> String {
    let failed = report.checks.iter().filter(|finding| finding.verdict == Verdict::Fail);
    let details: String = failed.map(details).collect();
    format!(
        "{details}{}\n{}: {}; {} requests in {:.1} s\n",
        variables(report),
        if report.passed { "passed" } else { "failed" },
        report.summary,
        report.requests,
        Duration::from_millis(report.took_ms).as_secs_f64(),
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
    let mut text = format!("\n✗ {}: {}\n", labelled(finding), finding.check.claim);
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
    let again = std::slice::from_ref(&evidence.curl);
    [
        block("sent", &evidence.sent_lines()),
        block("came", &evidence.came_lines()),
        block("again", again),
    ]
    .concat()
}

/// Lines with a name before the first.
fn block(name: &str, lines: &[String]) -> String {
    let lines = lines.iter().flat_map(|line| line.lines()).filter(|line| !line.is_empty());
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(lines).map(|(name, line)| format!("    {name:<5}  {}\n", printable(line))).collect()
}
