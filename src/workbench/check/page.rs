//! The report as a web page. Pure.
//!
//! Invariants: one file that loads nothing, with no scripts; nothing that a receiver says becomes
//! markup, since every text goes through maud's escaping, and a Content-Security-Policy stands
//! behind it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::catalogue::Level;
use super::report::{Evidence, Finding, Report, Verdict};
use crate::text::printable;

const STYLE: &str = include_str!("page.css");

pub fn page(report: &Report) -> String {
    let groups = report.checks.chunk_by(|one, next| one.check.group == next.check.group);
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
                    (report.summary) "; " (report.requests) " requests in " (report.took_ms) " ms, "
                    (report.started) ", callhook " (report.callhook)
                }
                @for group in groups {
                    h2 { (group[0].check.group) }
                    @for finding in group { (check(finding)) }
                }
            }
        }
    };
    page.into_string()
}

fn check(finding: &Finding) -> Markup {
    let (class, sign): (&str, char) = (finding.verdict.into(), finding.verdict.sign());
    html! {
        details class=(class) open[finding.verdict == Verdict::Fail] {
            summary {
                span.sign { (sign) } code { (finding.check.name) } " " (finding.check.claim)
                @if finding.check.level == Level::Advised { span.dim { " (advised)" } }
            }
            p.reason { (printable(&finding.reason)) }
            @if let Some(advice) = finding.advice { p { (advice) } }
            p.dim { (finding.check.rule) }
            @if let Some(shown) = &finding.evidence { (evidence(shown)) }
        }
    }
}

fn evidence(evidence: &Evidence) -> Markup {
    html! {
        h3 { "Sent" }
        pre { (visible(&evidence.sent_lines())) }
        h3 { "Came back" }
        pre { (visible(&evidence.came_lines())) }
        h3 { "Again" }
        pre { (visible(std::slice::from_ref(&evidence.curl))) }
    }
}

/// Without characters that turn the direction of writing around; line ends stay.
fn visible(lines: &[String]) -> String {
    let lines = lines.iter().flat_map(|line| line.lines());
    lines.map(printable).collect::<Vec<_>>().join("\n")
}
