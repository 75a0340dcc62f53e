//! The report as a web page. Pure.
//!
//! Invariants: one file that loads nothing, with no scripts; nothing that a receiver says becomes
//! markup, since every text goes through maud's escaping, and a Content-Security-Policy stands
//! behind it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::catalogue::Level;
use super::report::{Back, Evidence, Finding, Report, Verdict};
use crate::text::printable;

const STYLE: &str = include_str!("page.css");

/// The page.
pub fn page(report: &Report) -> String {
    let summary = report.summary;
    let groups = report.checks.chunk_by(|one, next| one.group == next.group);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { "callhook check " (report.url) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (if report.passed { "✓" } else { "✗" }) " " (report.url) }
                p.dim {
                    (summary.passed) " passed, " (summary.failed) " failed, "
                    (summary.advised_failed) " advised failed, " (summary.skipped) " skipped; "
                    (report.requests) " requests in " (report.took_ms) " ms, "
                    (report.started) ", callhook " (report.callhook)
                }
                @for group in groups {
                    h2 { (group[0].group) }
                    @for finding in group { (check(finding)) }
                }
            }
        }
    };
    page.into_string()
}

fn check(finding: &Finding) -> Markup {
    let (class, sign) = match finding.verdict {
        Verdict::Pass => ("pass", "✓"),
        Verdict::Fail => ("fail", "✗"),
        Verdict::Skipped => ("skipped", "–"),
    };
    html! {
        details class=(class) open[finding.verdict == Verdict::Fail] {
            summary {
                span.sign { (sign) } code { (finding.name) } " " (finding.claim)
                @if finding.level == Level::Advised { span.dim { " (advised)" } }
            }
            p.reason { (printable(&finding.reason)) }
            @if let Some(advice) = finding.advice { p { (advice) } }
            p.dim { (finding.rule) }
            @if let Some(shown) = &finding.evidence { (evidence(shown)) }
        }
    }
}

fn evidence(evidence: &Evidence) -> Markup {
    let sent = &evidence.sent;
    html! {
        h3 { "Sent" }
        pre { (sent.method) " " (sent.url) "\n" (lines(&sent.headers)) "\n" (visible(&sent.body)) }
        h3 { "Came back after " (evidence.took_ms) " ms" }
        @match &evidence.came {
            Back::Answer { status, headers, body } => {
                pre { (status) "\n" (lines(headers)) "\n" (visible(body)) }
            }
            Back::Nothing { error } => pre { (visible(error)) },
        }
        h3 { "Again" }
        pre { (visible(&evidence.curl)) }
    }
}

fn lines(headers: &[String]) -> String {
    headers.iter().map(|header| format!("{}\n", printable(header))).collect()
}

/// The text without characters that turn the direction of writing around; line ends stay.
fn visible(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}
