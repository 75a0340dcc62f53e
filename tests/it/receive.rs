//! `callhook receive` as a process: what it answers and prints. `receive/faults.rs` has the faults on
//! order, `receive/trust.rs` whom it refuses, `receive/watch.rs` what is odd about a call,
//! `receive/lines.rs` what it prints and how it ends, `receive/record.rs` what `simulate` plays again.

mod faults;
mod lines;
mod record;
mod trust;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use crate::support::event::{bare, new_uuid};
use crate::support::record::LIMIT;
use crate::support::service::{Answer, Service, Wire, command, request, run, serve, signal};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

/// Longer than any test runs.
const FOR_EVER: &str = "60000";

/// A running `callhook receive`; it is killed when dropped.
struct Receive {
    addr: SocketAddr,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Receive {
    /// Starts it on a free port and waits until it listens.
    async fn start(args: &[&str]) -> Receive {
        let args = [&["receive", "--port", "0"], args].concat();
        let mut child = command(&args).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let first = line_of(&mut lines).await;
        let port = first.split_once("/events").and_then(|(url, _)| url.rsplit(':').next());
        let port = port.and_then(|port| port.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("the first line has the URL: {first:?}"));
        Receive { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), child, lines }
    }

    /// Starts it to print JSON.
    async fn json(args: &[&str]) -> Receive {
        Receive::start(&[args, &["--json"]].concat()).await
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.addr)
    }

    /// The next line that it prints.
    async fn line(&mut self) -> String {
        line_of(&mut self.lines).await
    }

    /// The next line, which is a JSON object.
    async fn object(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// One event, sent by hand.
    async fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_post(headers, body).await.expect("an answer")
    }

    /// One event, and its answer, unless the connection was closed in place of one.
    async fn try_post(&self, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let mut wire = Wire::open(self.addr).await;
        wire.send(request("POST", "/events", headers, body)).await;
        wire.answer().await
    }

    /// Sends a signal and waits for the end.
    async fn signal(&mut self, name: &str) -> i32 {
        signal(&self.child, name);
        self.code().await
    }

    /// Waits for its end.
    async fn code(&mut self) -> i32 {
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("no end within {LIMIT:?}"));
        status.expect("the child can be awaited").code().expect("it ended by itself")
    }

    /// Ends it; the lines that it prints from here on.
    async fn end(self) -> Vec<String> {
        signal(&self.child, "TERM");
        self.rest().await
    }

    /// Waits until it ends by itself; the lines that it prints from here on.
    async fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = timeout(LIMIT, self.lines.next_line()).await.unwrap().unwrap() {
            rest.push(line);
        }
        assert_eq!(self.code().await, 0);
        rest
    }

    /// Ends it; its report, where it prints JSON.
    async fn report(self) -> Value {
        report_in(&self.end().await)
    }
}

/// The report, which is the last line.
fn report_in(lines: &[String]) -> Value {
    let report: Value = serde_json::from_str(lines.last().expect("a report")).unwrap();
    assert_eq!(report["line"], "report", "{report}");
    report
}

async fn line_of(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(LIMIT, lines.next_line()).await;
    let line = line.unwrap_or_else(|_| panic!("no line within {LIMIT:?}"));
    line.expect("output is UTF-8").expect("a line before the end of the output")
}

/// A service that sends to this URL and repeats what fails once, at once.
async fn service_for(url: &str) -> Service {
    serve(url, &[("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")]).await
}

#[tokio::test]
async fn receive_prints_one_line_an_event() {
    let mut receive = Receive::start(&[]).await;
    let service = service_for(&receive.url()).await;
    let uuid = new_uuid();
    for (n, kind) in ["call_started", "dtmf_digit"].into_iter().enumerate() {
        service.relay(bare(&uuid, kind)).await;
        let line = receive.line().await;
        for part in [&uuid, kind, &format!("#{}", n + 1), "200"] {
            assert!(line.contains(part), "{part} in {line:?}");
        }
        assert!(!line.contains("attempt"), "{line:?}");
    }
    let rest = receive.end().await;
    assert!(rest[0].starts_with("1 call, 2 events in 2 requests"), "the report follows: {rest:?}");
}

#[tokio::test]
async fn receive_answers_with_the_status_asked_for_and_counts_the_attempts() {
    let mut receive = Receive::start(&["--status", "500"]).await;
    let service = service_for(&receive.url()).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    let first = receive.line().await;
    let second = receive.line().await;
    assert!(first.contains("500") && !first.contains("attempt"), "{first:?}");
    assert!(second.contains("500") && second.contains("attempt 2"), "{second:?}");
    assert!(second.contains(&uuid) && second.contains("#1"), "{second:?}");
}

#[tokio::test]
async fn receive_routes_call_initiated_and_nothing_else() {
    let receive = Receive::start(&["--sts-url", "wss://sts.test/a"]).await;
    let answer = receive.post(&[], &bare(&new_uuid(), "call_initiated")).await;
    assert_eq!(answer.json()["sts_url"], "wss://sts.test/a", "{answer:?}");
    for kind in ["call_started", "transcription", "dtmf_digit", "call_ended"] {
        let answer = receive.post(&[], &bare(&new_uuid(), kind)).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains("sts_url"), "{kind}: {answer:?}");
    }
}

#[tokio::test]
async fn receive_sends_callers_to_people_alone_or_beside_an_agent() {
    let people = json!({ "context": "people", "exten": "100", "priority": 1 });
    let agent = "ws://sts.test";
    for (args, expected) in [
        (&["--next", "people/100"][..], json!({ "next": people })),
        (
            &["--next", "people/100,1", "--sts-url", agent],
            json!({ "sts_url": agent, "next": people }),
        ),
        (&["--next", "people/100", "--status", "500"], json!({})),
    ] {
        let receive = Receive::start(args).await;
        let answer = receive.post(&[], &bare(&new_uuid(), "call_initiated")).await;
        assert_eq!(answer.json(), expected, "{args:?}");
        let answer = receive.post(&[], &bare(&new_uuid(), "call_started")).await;
        assert_eq!(answer.json(), json!({}), "{args:?}");
    }
}

#[tokio::test]
async fn a_next_that_is_no_place_is_refused_in_words() {
    for (text, said) in [
        ("people", "expected CONTEXT/EXTEN"),
        ("people/100,2", "can only be 1"),
        ("people/100,1,1", "can only be 1"),
        ("people/", "an extension has 1 to 80"),
        ("people/*/1", "an extension has 1 to 80"),
        ("/100", "a context has 1 to 80"),
        ("people/h", "one letter"),
    ] {
        let (code, stdout, stderr) = run(&["receive", "--port", "0", "--next", text], &[]).await;
        assert_eq!((code, stdout.as_str()), (64, ""), "{text}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains("--next"), "{text}: {stderr}");
    }
}
