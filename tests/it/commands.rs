//! The commands beside `serve`, as processes with nothing but their arguments: what `demo` shows and
//! why `health` fails. Settings are in `settings.rs`, and `receive.rs`, `simulate.rs`, `check.rs` and
//! `dead.rs` have the commands of that name.

use std::net::Ipv4Addr;

use crate::support::event::numbered;
use crate::support::receiver::{Receiver, Reply, free_port, nobody};
use crate::support::record::LIMIT;
use crate::support::service::{Service, command, run, serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::timeout;
use uuid::Uuid;

#[tokio::test]
async fn demo_shows_every_event_of_three_calls_and_ends_with_0() {
    let (code, out, err) = run(&["demo"], &[]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = out.lines().map(words).collect();
    let mut total = 0;
    for name in ["alice", "bob", "carol"] {
        // `0.003 s alice #1 call_initiated {…}`; a repeated event has a line an attempt.
        let of = lines.iter().filter(|line| line.len() > 4 && line[2] == name);
        let mut events: Vec<(&str, &str)> =
            of.map(|line| (line[3].as_str(), line[4].as_str())).collect();
        events.dedup();
        let numbers: Vec<&str> = events.iter().map(|(number, _)| *number).collect();
        let expected: Vec<String> = (1..=events.len()).map(|n| format!("#{n}")).collect();
        assert_eq!(numbers, expected, "each event of {name} in its order:\n{out}");
        let kinds: Vec<&str> = events.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds[..2], ["call_initiated", "call_started"], "{name}:\n{out}");
        assert_eq!(kinds.last(), Some(&"call_ended"), "{name}:\n{out}");
        total += events.len();
    }
    assert!(out.contains(&format!("{total} events of 3 calls arrived")), "{out}");
    for kind in ["transcription", "interruption", "dtmf_digit"] {
        assert!(lines.iter().any(|line| line.len() > 4 && line[4] == kind), "{kind}:\n{out}");
    }
}

#[tokio::test]
async fn demo_shows_the_call_that_is_routed_and_the_failures() {
    let (_, out, _) = run(&["demo"], &[]).await;
    let failures: Vec<&str> = out.lines().filter(|line| line.contains("→ 500")).collect();
    assert_eq!(failures.len(), 2, "{out}");
    for (at, line) in failures.iter().enumerate() {
        assert!(line.contains("carol"), "{line}");
        assert!(line.contains(&format!("attempt {}", at + 1)), "{line}");
    }
    assert!(out.lines().any(|line| line.contains("carol") && line.contains("→ 200")), "{out}");
    let told = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name) && line.contains("told"));
        let line = line.unwrap_or_else(|| panic!("what {name} was told:\n{out}"));
        let json = &line[line.find('{').expect("an answer")..];
        serde_json::from_str::<Value>(json).expect("the answer is shown as it is")
    };
    let overridden = ["alice", "bob", "carol"].map(|name| told(name)["override"] == true);
    assert_eq!(overridden, [false, true, false], "bob alone is routed:\n{out}");
}

#[tokio::test]
async fn demo_with_two_receivers_shows_what_each_gets() {
    let (code, out, err) = run(&["demo", "--receivers", "2"], &[]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for name in ["main", "copy1"] {
        let ended = |line: &&str| line.starts_with(name) && line.contains(" call_ended ");
        assert_eq!(out.lines().filter(ended).count(), 3, "{name}:\n{out}");
    }
    assert!(out.contains("at each of 2 receivers, each call in its order"), "{out}");
    let (code, _, err) = run(&["demo", "--receivers", "10"], &[]).await;
    assert_eq!(code, 64);
    assert!(err.contains("10 is not in 1..=9"), "{err}");
}

#[tokio::test]
async fn demo_plays_the_same_whatever_the_environment_says() {
    let foreign =
        [("WEBHOOK_URL", "nonsense"), ("HTTP_PORT", "1"), ("HTTP_SECRET", "s"), ("PORT", "x")];
    let (code, out, err) = run(&["demo"], &foreign).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

/// `callhook health` against this port: exit code and what it says.
async fn health(port: u16) -> (i32, String) {
    let port = port.to_string();
    let (code, out, err) = run(&["health"], &[("HTTP_PORT", &port)]).await;
    assert_eq!(out, "", "faults go to stderr");
    (code, err)
}

#[tokio::test]
async fn health_is_0_and_silent_while_the_service_lives() {
    let service = Service::start(&[("WEBHOOK_URL", "none")]).await;
    assert_eq!(health(service.addr.port()).await, (0, String::new()));
}

#[tokio::test]
async fn health_says_that_nobody_listens_and_where() {
    let port = free_port();
    let (code, said) = health(port).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!(":{port}/health")), "{said}");
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn health_says_what_else_was_answered() {
    let other = Receiver::start(|_| Reply::status(503)).await;
    let (code, said) = health(other.port()).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("503") && said.contains(&other.port().to_string()), "{said}");
}

#[tokio::test]
async fn health_does_not_wait_for_ever_and_says_so() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let (code, said) = health(silent.local_addr().expect("an address").port()).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("timed out"), "{said}");
}

#[tokio::test]
async fn health_says_which_setting_keeps_it_from_asking() {
    let (code, said) = health(0).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("HTTP_PORT"), "{said}");
    let (code, _, err) = run(&["health"], &[("HTTP_PORT", "six")]).await;
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("HTTP_PORT=six"), "{err}");
}

/// Arguments and variables.
type Run<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// Runs the command with an output, and a log, whose reader has gone: exit code, and what it says where there is
/// somebody.
async fn unread(args: &[&str], vars: &[(&str, &str)], both: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = command(args);
    command.envs(vars.iter().copied()).stdout(writer.try_clone().expect("a pipe"));
    match both {
        true => command.stderr(writer),
        false => command.stderr(std::process::Stdio::piped()),
    };
    let child = command.spawn().expect("the binary starts");
    let output = timeout(LIMIT, child.wait_with_output()).await;
    let output = output.expect("it ends").expect("the child can be awaited");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[tokio::test]
async fn every_command_ends_quietly_where_its_reader_has_gone() {
    let receiver = Receiver::content().await;
    let service = serve(&nobody().1, &[("WEBHOOK_BREAKER", "0")]).await;
    service.relay(numbered(&Uuid::new_v4().to_string(), 1)).await;
    service.log_line(|line| line["message"] == "webhook delivery failed").await;
    let admin = service.admin().await.port().to_string();
    let admin = [("ADMIN_PORT", admin.as_str())];
    let none = [("WEBHOOK_URL", "none")];
    let simulate = ["simulate", receiver.url.as_str(), "--calls", "2", "--speed", "100"];
    let commands: [Run<'_>; 9] = [
        (&["--help"], &[]),
        (&["--version"], &[]),
        (&["config"], &none),
        (&["demo"], &[]),
        (&["dead", "list"], &admin),
        (&["dead", "list", "--json"], &admin),
        (&["check", receiver.url.as_str(), "--timeout", "500"], &[]),
        (&["receive", "--port", "0"], &[]),
        (&simulate, &[]),
    ];
    for (args, vars) in commands {
        let (code, said) = unread(args, vars, false).await;
        assert_eq!(code, Some(0), "{args:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("ipe"), "{args:?}: {said}");
        let (code, _) = unread(args, vars, true).await;
        assert_eq!(code, Some(0), "{args:?} without a log");
    }
    // Faults are told to nobody, but the exit code stands.
    assert_eq!(unread(&["config"], &[], true).await.0, Some(64));
    assert_eq!(unread(&["health"], &[("HTTP_PORT", "0")], true).await.0, Some(1));
}
