//! The report for build servers: JUnit XML, one test case a check. Pure.
//!
//! An advised check that fails counts as skipped, so that a build is red just where the exit code
//! is 1.

use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Property, Report as Document, SerializeError, TestCase, TestCaseStatus,
    TestSuite,
};

use super::catalogue::Level;
use super::report::{Back, Evidence, Finding, Report, Verdict};

/// The document. Characters that XML cannot hold are left out.
///
/// # Errors
/// Where a text cannot be written, which no text brings about.
pub fn document(report: &Report) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new("callhook check");
    suite.set_time(millis(report.took_ms));
    suite.add_property(Property::new("url", legal(&report.url)));
    suite.add_property(Property::new("callhook", report.callhook));
    suite.add_test_cases(report.checks.iter().map(case));
    let mut document = Document::new("callhook check");
    document.set_time(millis(report.took_ms));
    document.add_test_suite(suite);
    document.to_string()
}

fn case(finding: &Finding) -> TestCase {
    let mut status = match (finding.verdict, finding.level) {
        (Verdict::Pass, _) => TestCaseStatus::success(),
        (Verdict::Fail, Level::Required) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        (Verdict::Fail, Level::Advised) | (Verdict::Skipped, _) => TestCaseStatus::skipped(),
    };
    match (finding.verdict, finding.level) {
        (Verdict::Pass, _) => {}
        (Verdict::Fail, Level::Required) => {
            status.set_message(legal(&finding.reason)).set_type("required");
            status.set_description(details(finding));
        }
        (Verdict::Fail, Level::Advised) => {
            status.set_message(legal(&format!("advised, but fails: {}", finding.reason)));
        }
        (Verdict::Skipped, _) => {
            status.set_message(legal(&finding.reason));
        }
    }
    let mut case = TestCase::new(finding.name, status);
    case.set_classname(finding.group).set_time(millis(finding.took_ms));
    case.set_system_out(details(finding));
    case
}

fn details(finding: &Finding) -> String {
    let mut lines = vec![finding.rule.to_owned(), finding.reason.clone()];
    lines.extend(finding.advice.map(str::to_owned));
    if let Some(Evidence { sent, came, took_ms, curl }) = &finding.evidence {
        lines.push(format!("sent: {} {}", sent.method, sent.url));
        lines.extend(sent.headers.iter().cloned());
        lines.push(sent.body.clone());
        match came {
            Back::Answer { status, headers, body } => {
                lines.push(format!("came: {status} after {took_ms} ms"));
                lines.extend(headers.iter().cloned());
                lines.push(body.clone());
            }
            Back::Nothing { error } => lines.push(format!("came: {error}, after {took_ms} ms")),
        }
        lines.push(format!("again: {curl}"));
    }
    legal(&lines.join("\n"))
}

/// Without the two characters that XML cannot hold (<https://www.w3.org/TR/xml/#charsets>) and that
/// the crate lets through; it leaves out the control characters itself.
fn legal(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

fn millis(millis: u128) -> Duration {
    Duration::from_millis(millis.try_into().unwrap_or(u64::MAX))
}
