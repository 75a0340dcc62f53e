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
use super::report::{Finding, Report, Verdict};

/// The document. Characters that XML cannot hold are left out.
///
/// # Errors
/// Where a text cannot be written, which no text brings about.
pub fn document(report: &Report) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new("callhook check");
    suite.set_time(Duration::from_millis(report.took_ms));
    suite.add_property(Property::new("url", legal(&report.url)));
    suite.add_property(Property::new("callhook", report.callhook));
    suite.add_test_cases(report.checks.iter().map(case));
    let mut document = Document::new("callhook check");
    document.set_time(Duration::from_millis(report.took_ms));
    document.add_test_suite(suite);
    document.to_string()
}

fn case(finding: &Finding) -> TestCase {
    let status = match (finding.verdict, finding.check.level) {
        (Verdict::Pass, _) => TestCaseStatus::success(),
        (Verdict::Fail, Level::Required) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(legal(&finding.reason)).set_type("required");
            status.set_description(details(finding));
            status
        }
        (Verdict::Fail, Level::Advised) => {
            skipped(&format!("advised, but fails: {}", finding.reason))
        }
        (Verdict::Skipped, _) => skipped(&finding.reason),
    };
    let mut case = TestCase::new(finding.check.name, status);
    case.set_classname(finding.check.group).set_time(Duration::from_millis(finding.took_ms));
    case.set_system_out(details(finding));
    case
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(legal(why));
    status
}

fn details(finding: &Finding) -> String {
    let mut text = format!("{}\n{}\n", finding.check.rule, finding.reason);
    if let Some(advice) = finding.advice {
        text += &format!("{advice}\n");
    }
    if let Some(evidence) = &finding.evidence {
        let (sent, came) = (evidence.sent_lines().join("\n"), evidence.came_lines().join("\n"));
        text += &format!("sent: {sent}\ncame: {came}\nagain: {}\n", evidence.curl);
    }
    legal(text.trim_end())
}

/// Without the two characters that XML cannot hold (<https://www.w3.org/TR/xml/#charsets>) and that
/// the crate lets through; it leaves out the control characters itself.
fn legal(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
