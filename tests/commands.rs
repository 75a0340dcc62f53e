//! The commands beside `serve`, as processes with nothing but their arguments: what `demo` shows, what
//! the receiver `receive` answers and prints, and why `health` fails. Settings are in `settings.rs`.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::receiver::{Receiver, Reply, free_port};
use support::service::{Answer, Service, Wire, request, run};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// The longest wait for a line, or for an end that is due at once.
const LIMIT: Duration = Duration::from_secs(10);
/// Longer than any test runs.
const FOR_EVER: &str = "60000";

/// A new call's uuid.
fn call() -> String {
    Uuid::new_v4().to_string()
}

fn event(uuid: &str, kind: &str) -> String {
    json!({ "uuid": uuid, "type": kind, "payload": {} }).to_string()
}

/// A running `callhook receive`; it is killed when dropped.
struct Receive {
    addr: SocketAddr,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Receive {
    /// Starts it on a free port and waits until it listens.
    async fn start(args: &[&str]) -> Receive {
        let mut child = Command::new(env!("CARGO_BIN_EXE_callhook"))
            .args(["receive", "--port", "0"])
            .args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let first = line_of(&mut lines).await;
        let port = first.strip_suffix("/events").and_then(|url| url.rsplit(':').next());
        let port = port.and_then(|port| port.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("the first line has the URL: {first:?}"));
        Receive { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), child, lines }
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.addr)
    }

    /// The next line that it prints.
    async fn line(&mut self) -> String {
        line_of(&mut self.lines).await
    }

    /// One event, sent by hand.
    async fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut wire = Wire::open(self.addr).await;
        wire.send(request("POST", "/events", headers, body)).await;
        wire.answer().await.expect("an answer")
    }

    async fn signal(&mut self, name: &str) -> i32 {
        let pid = self.child.id().expect("it runs").to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args([format!("-{name}"), pid]).status().expect("kill runs").success());
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("no end within {LIMIT:?} of a SIG{name}"));
        status.expect("the child can be awaited").code().expect("it ended by itself")
    }

    /// All that it prints from here to its end, byte for byte.
    async fn rest(mut self) -> Vec<u8> {
        assert_eq!(self.signal("TERM").await, 0);
        let mut rest = Vec::new();
        let stdout = self.lines.get_mut();
        stdout.read_to_end(&mut rest).await.expect("its output can be read");
        rest
    }
}

async fn line_of(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(LIMIT, lines.next_line()).await;
    let line = line.unwrap_or_else(|_| panic!("no line within {LIMIT:?}"));
    line.expect("output is UTF-8").expect("a line before the end of the output")
}

/// A service that sends to this URL and repeats what fails once, at once.
async fn service_for(url: &str) -> Service {
    let repeat = [("WEBHOOK_RETRY", "1"), ("WEBHOOK_BACKOFF", "1")];
    Service::start(&[&[("WEBHOOK_URL", url)], repeat.as_slice()].concat()).await
}

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
async fn demo_plays_the_same_whatever_the_environment_says() {
    let foreign =
        [("WEBHOOK_URL", "nonsense"), ("HTTP_PORT", "1"), ("HTTP_SECRET", "s"), ("PORT", "x")];
    let (code, out, err) = run(&["demo"], &foreign).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

#[tokio::test]
async fn receive_prints_one_line_an_event() {
    let mut receive = Receive::start(&[]).await;
    let service = service_for(&receive.url()).await;
    let uuid = call();
    for (n, kind) in ["call_started", "dtmf_digit"].into_iter().enumerate() {
        assert_eq!(service.post("/events", event(&uuid, kind)).await.status, 202);
        let line = receive.line().await;
        for part in [&uuid, kind, &format!("#{}", n + 1), "200"] {
            assert!(line.contains(part), "{part} in {line:?}");
        }
        assert!(!line.contains("attempt"), "{line:?}");
    }
    assert!(receive.rest().await.is_empty());
}

#[tokio::test]
async fn receive_answers_with_the_status_asked_for_and_counts_the_attempts() {
    let mut receive = Receive::start(&["--status", "500"]).await;
    let service = service_for(&receive.url()).await;
    let uuid = call();
    assert_eq!(service.post("/events", event(&uuid, "call_started")).await.status, 202);
    let first = receive.line().await;
    let second = receive.line().await;
    assert!(first.contains("500") && !first.contains("attempt"), "{first:?}");
    assert!(second.contains("500") && second.contains("attempt 2"), "{second:?}");
    assert!(second.contains(&uuid) && second.contains("#1"), "{second:?}");
}

#[tokio::test]
async fn receive_refuses_a_wrong_secret_with_401() {
    const SECRET: &str = "X-AVR-WEBHOOK-SECRET";
    let mut receive = Receive::start(&["--secret", "tulip"]).await;
    let body = event(&call(), "call_started");
    for (headers, status) in [
        ([].as_slice(), 401),
        (&[(SECRET, "rose")], 401),
        (&[(SECRET, "tuli")], 401),
        (&[(SECRET, "tulips")], 401),
        (&[(SECRET, "tulip")], 200),
    ] {
        assert_eq!(receive.post(headers, &body).await.status, status, "{headers:?}");
        let line = receive.line().await;
        assert!(line.contains(&status.to_string()), "{line:?}");
    }
    assert!(!String::from_utf8(receive.rest().await).unwrap().contains("tulip"));
}

#[tokio::test]
async fn receive_routes_call_initiated_and_nothing_else() {
    let receive = Receive::start(&["--sts-url", "wss://sts.test/a"]).await;
    let answer = receive.post(&[], &event(&call(), "call_initiated")).await;
    assert_eq!(answer.json()["sts_url"], "wss://sts.test/a", "{answer:?}");
    for kind in ["call_started", "transcription", "dtmf_digit", "call_ended"] {
        let answer = receive.post(&[], &event(&call(), kind)).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains("sts_url"), "{kind}: {answer:?}");
    }
}

#[tokio::test]
async fn receive_waits_before_each_answer() {
    let receive = Receive::start(&["--delay", "300"]).await;
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(receive.post(&[], &event(&call(), "call_started")).await.status, 200);
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    }
}

/// What `receive` prints on events that carry this text wherever text can be, sent by hand and relayed.
async fn printed(text: &str) -> String {
    let receive = Receive::start(&[]).await;
    let service = service_for(&receive.url()).await;
    let own = json!({ "uuid": text, "type": text, "timestamp": text, "payload": { text: text } });
    receive.post(&[("X-AVR-WEBHOOK-SEQUENCE", "1\u{9b}31m")], &own.to_string()).await;
    receive.post(&[], &json!({ "uuid": text, "type": text, "payload": text }).to_string()).await;
    // With the characters themselves between the quotes, as far as JSON allows.
    let raw = text.replace(|char| char < ' ', "");
    let relayed =
        format!(r#"{{"uuid":"{}","type":"call_started","payload":{{"from":"{raw}"}}}}"#, call());
    assert_eq!(service.post("/events", relayed).await.status, 202);
    service.terminate();
    service.whole_log().await;
    String::from_utf8(receive.rest().await).expect("output is UTF-8")
}

#[tokio::test]
async fn control_characters_in_an_event_do_not_reach_the_terminal() {
    let out = printed("a\u{1b}[31mb\u{7}\r\n\0\t\u{7f}\u{85}\u{9b}1mz\u{2028}").await;
    let bad: Vec<char> = out.chars().filter(|char| char.is_control() && *char != '\n').collect();
    assert_eq!(bad, [], "{out:?}");
    assert_eq!(out.lines().count(), 3, "one line an event: {out:?}");
}

#[tokio::test]
async fn marks_that_turn_text_around_do_not_reach_the_terminal() {
    let marks = ['\u{202a}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2069}', '\u{200f}'];
    let out = printed(&marks.iter().collect::<String>()).await;
    let bad: Vec<char> = out.chars().filter(|char| marks.contains(char)).collect();
    assert_eq!(bad, [], "{out:?}");
}

#[tokio::test]
async fn receive_ends_with_69_where_the_port_is_taken() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, out, err) = run(&["receive", "--port", &port], &[]).await;
    assert_eq!((code, out.as_str()), (69, ""), "{err}");
    assert!(err.contains(&port) && err.contains("--port"), "{err}");
}

#[tokio::test]
async fn a_signal_ends_receive_at_once_with_0_though_an_answer_is_due_later() {
    for signal in ["TERM", "INT"] {
        let mut receive = Receive::start(&["--delay", FOR_EVER]).await;
        let mut wire = Wire::open(receive.addr).await;
        // The interim answer tells that the body is being read, so that the answer is due.
        let body = event(&call(), "call_started");
        let head = request("POST", "/events", &[("Expect", "100-continue")], &body);
        wire.send(&head[..head.len() - body.len()]).await;
        assert_eq!(wire.answer().await.expect("an interim answer").status, 100);
        wire.send(body).await;
        let start = Instant::now();
        assert_eq!(receive.signal(signal).await, 0, "SIG{signal} with an answer due");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_signal_ends_receive_with_0_from_its_first_line_on() {
    // Often, as a signal that is not caught yet is a matter of microseconds.
    for _ in 0..40 {
        for signal in ["TERM", "INT"] {
            assert_eq!(Receive::start(&[]).await.signal(signal).await, 0, "SIG{signal}");
        }
    }
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
