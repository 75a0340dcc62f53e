//! `callhook check`, as a process, against receivers in this one: a good receiver passes clean, each
//! flawed one fails the check that is meant for it and no other, and no report gives a secret away
//! or lets a receiver's words become markup.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::flawed::{
    ALLOWED, Flaw, Wants, close_after_each, parrot, read_request, receiver, write_answer,
};
use crate::support::receiver::{Receiver, Reply, Seen, nobody, of_call};
use crate::support::service::run;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

const SECRET: &str = "hush-hush";
const SIGNING_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BOTH: Wants = Wants { secret: Some(SECRET), signing_key: Some(SIGNING_KEY) };

/// What `--json` printed, and how the process ended.
struct Judged {
    code: i32,
    report: Value,
    stderr: String,
}

impl Judged {
    /// The names of the checks of this level with this verdict.
    fn named(&self, level: &str, verdict: &str) -> Vec<&str> {
        let checks = self.report["checks"].as_array().expect("a list of checks");
        checks
            .iter()
            .filter(|check| check["level"] == level && check["verdict"] == verdict)
            .map(|check| check["name"].as_str().expect("a name"))
            .collect()
    }

    fn check(&self, name: &str) -> &Value {
        let checks = self.report["checks"].as_array().expect("a list of checks");
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("a check {name} in {:#}", self.report))
    }

    /// Fails just these checks, required and advised, and says so with the exit code.
    #[track_caller]
    fn fails_only(&self, required: &[&str], advised: &[&str]) {
        let report = &self.report;
        assert_eq!(self.named("required", "fail"), required, "{report:#}");
        assert_eq!(self.named("advised", "fail"), advised, "{report:#}");
        assert_eq!(self.code, i32::from(!required.is_empty()), "{}", self.stderr);
        assert_eq!(report["passed"], required.is_empty());
    }
}

async fn check(url: &str, args: &[&str]) -> Judged {
    let (code, stdout, stderr) = run(&[&["check", url, "--json"], args].concat(), &[]).await;
    let report = serde_json::from_str(&stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    Judged { code, report, stderr }
}

/// Judges a receiver with this flaw, to which both secret and signing key matter.
async fn judged(flaw: Flaw) -> Judged {
    let receiver = Receiver::start(receiver(flaw, BOTH)).await;
    check(&receiver.url, &["--secret", SECRET, "--signing-key", SIGNING_KEY]).await
}

#[tokio::test]
async fn a_good_receiver_passes_every_check_in_under_15_seconds() {
    let begun = Instant::now();
    let judged = judged(Flaw::None).await;
    judged.fails_only(&[], &[]);
    let skipped = [judged.named("required", "skipped"), judged.named("advised", "skipped")];
    assert_eq!(skipped.concat(), Vec::<&str>::new());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(judged.stderr, "");
}

#[tokio::test]
async fn a_receiver_that_says_ok_to_every_event_passes() {
    let open = |seen: &Seen| match &seen.body {
        Value::Object(_) => Reply::status(200).body("OK"),
        _ => Reply::status(400),
    };
    let receiver = Receiver::start(open).await;
    let judged = check(&receiver.url, &[]).await;
    judged.fails_only(&[], &[]);
    assert_eq!(judged.named("required", "skipped"), ["secret-wrong", "secret-missing"]);
}

#[tokio::test]
async fn a_receiver_that_fails_to_route_fails_call_initiated_with_advice() {
    let judged = judged(Flaw::FailsToRoute).await;
    // It is one of the six types, too.
    judged.fails_only(&["event-types", "call-initiated"], &[]);
    let advice = judged.check("call-initiated")["advice"].as_str().expect("advice");
    assert!(advice.contains("res is not defined"), "{advice}");
}

#[tokio::test]
async fn an_sts_url_that_cannot_be_followed_fails_call_initiated() {
    judged(Flaw::RoutesNowhere).await.fails_only(&["call-initiated"], &[]);
}

/// Judges a receiver that answers each `call_initiated` so.
async fn judged_routing(answer: &Value, args: &[&str]) -> Judged {
    let answer = answer.to_string();
    let receiver = Receiver::start(move |seen| match (&seen.body, seen.kind()) {
        (Value::Object(_), "call_initiated") => Reply::status(200).body(answer.clone()),
        (Value::Object(_), _) => Reply::ok(),
        _ => Reply::status(400),
    })
    .await;
    check(&receiver.url, args).await
}

#[tokio::test]
async fn a_receiver_that_sends_callers_to_people_passes_and_is_told_where_to() {
    let people = json!({ "context": "people", "exten": "100" });
    let beside = json!({ "sts_url": "ws://sts.test", "next": people });
    let listed = ["--route-to", "people/200,people/100"];
    for (answer, args, said) in [
        (json!({ "next": people }), &[][..], "to people/100, which ROUTE_TO has to list, before"),
        (json!({ "next": people }), &listed, "to people/100, which --route-to lists, before"),
        (beside, &listed, "to sts.test, and to people/100, which --route-to lists, if the agent"),
    ] {
        let judged = judged_routing(&answer, args).await;
        judged.fails_only(&[], &[]);
        let reason = judged.check("call-initiated")["reason"].as_str().expect("a reason");
        assert!(reason.contains(said), "{reason}");
    }
}

#[tokio::test]
async fn a_next_that_callhook_would_ignore_fails_call_initiated_with_the_reason() {
    let place = |exten: Value, priority: u32| json!({ "context": "people", "exten": exten, "priority": priority });
    for (next, said, advised) in [
        (json!("people/100"), r#"expected {"context":"people","exten":"100"}"#, "Answer {"),
        (place(json!(["100"]), 1), r#"expected {"context":"people","exten":"100"}"#, "Answer {"),
        (place(json!("1 00"), 1), "an extension has 1 to 80 characters", "Answer {"),
        (place(json!("h"), 1), "an extension of one letter is Asterisk's own", "Answer {"),
        (place(json!("100"), 2), "priority \"2\": expected 1", "Answer {"),
        (place(json!("300"), 1), "people/300 is not among ROUTE_TO", "--route-to"),
    ] {
        let answer = json!({ "sts_url": "ws://sts.test", "next": next });
        let judged = judged_routing(&answer, &["--route-to", "people/100"]).await;
        judged.fails_only(&["call-initiated"], &[]);
        let found = judged.check("call-initiated");
        let reason = found["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("its next cannot be followed: "), "{reason}");
        assert!(reason.contains(said), "{reason}");
        assert!(found["advice"].as_str().expect("advice").contains(advised), "{found}");
    }
}

#[tokio::test]
async fn a_receiver_that_ignores_the_secret_fails_the_checks_of_the_secret() {
    judged(Flaw::IgnoresTheSecret).await.fails_only(&["secret-wrong", "secret-missing"], &[]);
}

#[tokio::test]
async fn a_secret_that_is_refused_with_403_fails() {
    judged(Flaw::Forbids).await.fails_only(&["secret-wrong", "secret-missing"], &[]);
}

#[tokio::test]
async fn a_receiver_that_ignores_the_signature_fails_advised_checks_only() {
    let wrong = ["signature-wrong", "signature-missing", "signature-old"];
    judged(Flaw::IgnoresTheSignature).await.fails_only(&[], &wrong);
}

#[tokio::test]
async fn a_receiver_that_takes_an_old_signature_fails_that_check_only() {
    judged(Flaw::IgnoresTheAge).await.fails_only(&[], &["signature-old"]);
}

#[tokio::test]
async fn a_receiver_that_refuses_repeats_fails_repeat() {
    judged(Flaw::RefusesRepeats).await.fails_only(&["repeat"], &[]);
}

#[tokio::test]
async fn a_receiver_that_routes_a_repeat_elsewhere_fails_repeat() {
    let judged = judged(Flaw::RoutesRepeatsElsewhere).await;
    judged.fails_only(&["repeat"], &[]);
    let reason = judged.check("repeat")["reason"].as_str().expect("a reason");
    assert_eq!(reason.matches("ws://sts-").count(), 2, "{reason}");
}

#[tokio::test]
async fn a_receiver_that_sends_a_repeat_to_other_people_fails_repeat() {
    let receiver = Receiver::start(|seen| match (&seen.body, seen.kind()) {
        (Value::Object(_), "call_initiated") => {
            let exten = seen.header("x-avr-webhook-attempt");
            let next = json!({ "context": "people", "exten": exten });
            Reply::status(200).body(json!({ "sts_url": "ws://sts.test", "next": next }).to_string())
        }
        (Value::Object(_), _) => Reply::ok(),
        _ => Reply::status(400),
    })
    .await;
    let judged = check(&receiver.url, &[]).await;
    judged.fails_only(&["repeat"], &[]);
    let reason = judged.check("repeat")["reason"].as_str().expect("a reason");
    let [first, second] = [1, 2].map(|exten| format!("ws://sts.test/, and people/{exten} if it"));
    assert!(reason.contains(&first) && reason.contains(&second), "{reason}");
}

#[tokio::test]
async fn a_receiver_that_breaks_on_concurrent_events_fails_concurrent_calls() {
    judged(Flaw::BreaksOnConcurrency).await.fails_only(&["concurrent-calls"], &[]);
}

#[tokio::test]
async fn a_receiver_that_limits_the_rate_fails_request_rate_and_is_judged_in_all_else() {
    let judged = judged(Flaw::LimitsTheRate).await;
    judged.fails_only(&["request-rate"], &[]);
    assert_eq!(judged.named("required", "skipped"), Vec::<&str>::new());
    let reason = judged.check("request-rate")["reason"].as_str().expect("a reason");
    assert!(reason.contains("Retry-After: 900"), "{reason}");
    let requests = judged.report["requests"].as_u64().expect("a number");
    assert!(
        (ALLOWED as u64..ALLOWED as u64 + 25).contains(&requests),
        "it stops at once: {requests}"
    );
}

#[tokio::test]
async fn a_receiver_that_was_limited_before_fails_request_rate_and_the_rest_is_skipped() {
    let receiver = Receiver::start(|_: &Seen| Reply::status(429)).await;
    let judged = check(&receiver.url, &[]).await;
    judged.fails_only(&["request-rate"], &[]);
    assert_eq!(judged.named("required", "pass"), ["reached", "in-time"]);
}

#[tokio::test]
async fn a_receiver_that_drops_keep_alive_fails_that_advised_check_only() {
    judged(Flaw::DropsKeepAlive).await.fails_only(&[], &["keep-alive"]);
}

#[tokio::test]
async fn a_receiver_that_closes_without_a_word_fails_keep_alive_only() {
    let url = close_after_each().await;
    check(&url, &[]).await.fails_only(&[], &["keep-alive"]);
}

#[tokio::test]
async fn a_slow_receiver_fails_in_time_and_nothing_else() {
    let receiver = Receiver::start(receiver(Flaw::Slow, Wants::default())).await;
    let judged = check(&receiver.url, &["--timeout", "20"]).await;
    judged.fails_only(&["in-time"], &[]);
    let reason = judged.check("in-time")["reason"].as_str().expect("a reason");
    assert!(reason.contains("longer than 20 ms"), "{reason}");
}

#[tokio::test]
async fn bad_json_that_is_accepted_or_breaks_the_receiver_fails_bad_json() {
    judged(Flaw::AcceptsBadJson).await.fails_only(&["bad-json"], &[]);
    // GET comes without a body, which is no JSON either.
    judged(Flaw::BreaksOnBadJson).await.fails_only(&["bad-json"], &["get-and-head"]);
}

#[tokio::test]
async fn each_oddity_that_breaks_a_receiver_fails_its_own_check() {
    for (flaw, required, advised) in [
        (Flaw::BreaksOnUnknownTypes, &["unknown-type"][..], &[][..]),
        (Flaw::RefusesUnknownKeys, &[], &["unknown-payload-keys"]),
        (Flaw::BreaksOnEmoji, &["unicode"], &[]),
        (Flaw::RefusesLongTexts, &["long-text"], &[]),
        (Flaw::ForgetsEndedCalls, &["after-call-ended"], &[]),
    ] {
        judged(flaw).await.fails_only(required, advised);
    }
}

#[tokio::test]
async fn a_receiver_that_ends_over_bad_json_fails_that_check_and_the_rest_is_skipped() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let serving = async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            while let Some(body) = read_request(&mut stream).await {
                if !serde_json::from_str::<Value>(&body).is_ok_and(|event| event.is_object()) {
                    return;
                }
                write_answer(&mut stream, "200 OK").await;
            }
        }
    };
    let (judged, ()) = tokio::join!(check(&url, &[]), serving);
    judged.fails_only(&["bad-json"], &[]);
    let skipped = judged.named("required", "skipped");
    assert!(skipped.contains(&"concurrent-calls"), "{skipped:?}");
    let why = judged.check("concurrent-calls")["reason"].as_str().expect("a reason");
    assert!(why.contains("went away during bad-json"), "{why}");
}

#[tokio::test]
async fn a_receiver_that_falls_silent_is_left_alone_after_two_checks() {
    let silent = |seen: &Seen| match seen.header("x-avr-webhook-sequence") {
        Some("1") if seen.kind() == "call_initiated" => Reply::ok().after(Duration::from_secs(60)),
        _ => Reply::ok(),
    };
    let receiver = Receiver::start(silent).await;
    let judged = check(&receiver.url, &["--timeout", "1"]).await;
    judged.fails_only(&["event-types", "call-initiated", "in-time"], &[]);
    let why = judged.check("repeat")["reason"].as_str().expect("a reason");
    assert!(why.contains("silent in 2 checks"), "{why}");
}

#[tokio::test]
async fn a_receiver_that_cannot_be_reached_is_one_error_that_says_what_to_do() {
    let (_, url) = nobody();
    let (code, stdout, stderr) = run(&["check", &url], &[]).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in [url.as_str(), "ECONNREFUSED", "start the receiver"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    check(&url, &[]).await.fails_only(&["reached"], &[]);
}

#[tokio::test]
async fn a_receiver_that_wants_a_secret_or_another_path_is_one_error_that_says_so() {
    for (status, hint) in [(401, "--secret"), (404, "/webhooks"), (302, "Redirects")] {
        let receiver = Receiver::start(move |_: &Seen| Reply::status(status)).await;
        let (code, stdout, stderr) = run(&["check", &receiver.url], &[]).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(hint), "{stderr}");
        assert_eq!(receiver.so_far().len(), 1, "nothing more is sent");
    }
}

#[tokio::test]
async fn wrong_usage_is_64_and_never_repeats_what_may_be_secret() {
    let url = "http://127.0.0.1:1/";
    for args in [
        &["check"][..],
        &["check", "ftp://user:pass-word@host/"],
        &["check", "user:pass-word@host"],
        &["check", url, "--signing-key", "pass-word"],
        &["check", url, "--secret", "pass-word\u{7f}"],
        &["check", url, "--timeout", "0"],
        &["check", url, "--timeout", "600001"],
        &["check", url, "--route-to", "people"],
        &["check", url, "--route-to", "people/100,"],
    ] {
        let (code, stdout, stderr) = run(args, &[]).await;
        assert_eq!((code, stdout.as_str()), (64, ""), "{args:?}: {stderr}");
        assert!(!stderr.contains("pass-word") && !stderr.is_empty(), "{stderr}");
    }
}

#[tokio::test]
async fn requests_are_those_of_delivery_one_at_a_time_within_a_call() {
    let receiver = Receiver::start(receiver(Flaw::None, BOTH)).await;
    let args = ["--secret", SECRET, "--signing-key", SIGNING_KEY];
    check(&receiver.url, &args).await.fails_only(&[], &[]);
    let first: HashSet<String> =
        receiver.so_far().iter().map(|seen| seen.uuid().to_owned()).collect();
    for uuid in first.iter().filter(|uuid| !uuid.is_empty()) {
        assert_eq!(receiver.in_flight_peak_of(uuid), 1);
        let seen = receiver.so_far();
        let numbers = of_call(&seen, uuid).map(Seen::sequence);
        assert!(numbers.collect::<Vec<u64>>().is_sorted());
    }
    for seen in receiver.so_far() {
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("callhook/")));
        assert!(seen.header("webhook-id").is_some_and(|id| id.len() == 36));
        assert!(matches!(seen.header("x-avr-webhook-attempt"), Some("1" | "2")));
        assert!(seen.sequence() > 0);
    }
    let before = receiver.so_far().len();
    check(&receiver.url, &args).await.fails_only(&[], &[]);
    let again = receiver.so_far();
    let again = again[before..].iter().map(|seen| seen.uuid().to_owned());
    let both: Vec<String> = again.filter(|uuid| !uuid.is_empty() && first.contains(uuid)).collect();
    assert_eq!(both, Vec::<String>::new(), "each run makes up calls anew");
}

#[tokio::test]
async fn text_tells_each_check_in_a_line_and_each_failure_in_full() {
    let wants = Wants { secret: Some(SECRET), signing_key: None };
    let receiver = Receiver::start(receiver(Flaw::AcceptsBadJson, wants)).await;
    let (code, stdout, stderr) = run(&["check", &receiver.url, "--secret", SECRET], &[]).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(stderr.contains("a required check failed"), "{stderr}");
    let marked = |mark: &str| stdout.lines().filter(|line| line.trim().starts_with(mark)).count();
    assert_eq!((marked("✓"), marked("–")), (17, 4), "{stdout}");
    let (_, details) = stdout.split_once("\n✗ bad-json").expect("details of what failed");
    for part in ["sent ", "came ", "200 after", "again ", "curl ", "$SECRET", "17 passed, 1 failed"]
    {
        assert!(details.contains(part), "{part}: {details}");
    }
}

#[tokio::test]
async fn junit_is_well_formed_and_counts_as_the_exit_code_does() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("report.xml");
    // One required check fails, and one that is advised.
    let receiver = Receiver::start(receiver(Flaw::BreaksOnBadJson, Wants::default())).await;
    let judged = check(&receiver.url, &["--junit", text(&file)]).await;
    let xml = std::fs::read_to_string(&file).expect("the file is written");
    let document = roxmltree::Document::parse(&xml).expect("well-formed XML");
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    let checks = judged.report["checks"].as_array().expect("a list").len();
    let skipped = ["required", "advised"].map(|level| judged.named(level, "skipped").len());
    let skipped = skipped.iter().sum::<usize>() + 1;
    assert_eq!((count("testcase"), count("failure"), count("skipped")), (checks, 1, skipped));
    let suite = document.descendants().find(|node| node.has_tag_name("testsuite"));
    let suite = suite.expect("a suite");
    let counts = ["tests", "failures", "skipped"].map(|name| suite.attribute(name));
    assert_eq!(counts, [Some(&*checks.to_string()), Some("1"), Some(&*skipped.to_string())]);
}

#[tokio::test]
async fn what_a_hostile_receiver_says_is_text_in_every_report() {
    let hostile = "<script>alert(1)</script>]]>&\"'\u{1b}[2J\u{0}\u{202e}\u{ffff}";
    let receiver = Receiver::start(move |seen: &Seen| match seen.kind() {
        "call_initiated" => Reply::route(&format!("ws://a{hostile}")),
        _ => Reply::status(500).body(hostile).header("content-type", "<img src=x onerror=y>"),
    })
    .await;
    let directory = TempDir::new().expect("a temporary directory");
    let (page, xml) = (directory.path().join("r.html"), directory.path().join("r.xml"));
    let url = format!("{}?<script>", receiver.url);
    let args = ["check", &url, "--html", text(&page), "--junit", text(&xml)];
    let (_, stdout, _) = run(&args, &[]).await;
    assert!(stdout.contains("alert(1)") && !stdout.contains(['\u{1b}', '\u{0}', '\u{202e}']));
    let page = std::fs::read_to_string(page).expect("the page is written");
    let lower = page.to_lowercase();
    assert!(lower.contains("&lt;script&gt;alert(1)"), "it is shown");
    for markup in ["<script", "<img", "<link", "src=\"", "href=", "\u{1b}", "\u{202e}"] {
        assert!(!lower.contains(markup), "{markup}");
    }
    assert!(lower.contains("prefers-color-scheme: dark") && lower.contains("default-src 'none'"));
    let xml = std::fs::read_to_string(xml).expect("the file is written");
    let document = roxmltree::Document::parse(&xml).expect("well-formed XML");
    assert!(!document.descendants().any(|node| node.has_tag_name("script")));
}

#[tokio::test]
async fn no_secret_is_in_any_output_though_the_receiver_repeats_it() {
    let receiver = Receiver::start(parrot).await;
    let directory = TempDir::new().expect("a temporary directory");
    let (page, xml) = (directory.path().join("r.html"), directory.path().join("r.xml"));
    let url = receiver.url.replace("http://", "http://user:pass-word@");
    let secret = "hu\"sh\\hush";
    let args = ["check", &url, "--secret", secret, "--signing-key", SIGNING_KEY];
    let files = ["--html", text(&page), "--junit", text(&xml)];
    let (_, stdout, stderr) = run(&[&args[..], &files].concat(), &[]).await;
    let (_, json, _) = run(&[&args[..], &["--json"]].concat(), &[]).await;
    let read = |path: &Path| std::fs::read_to_string(path).expect("the file is written");
    for output in [stdout, stderr, json, read(&page), read(&xml)] {
        // The last one is the user part as Basic has it.
        for secret in ["hush", "MfKQ9r8GKYqr", "pass-word", "dXNlcjpwYXNzLXdvcmQ"] {
            assert!(!output.contains(secret), "{secret}: {output}");
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_an_error_that_names_it() {
    let receiver = Receiver::start(receiver(Flaw::None, Wants::default())).await;
    let (code, _, stderr) =
        run(&["check", &receiver.url, "--html", "no/such/place.html"], &[]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("no/such/place.html"), "{stderr}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}
