//! `config/receivers/slack.py`, between callhook and a stand-in for Slack.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{call, file, first, pointed_at, serve_with};
use crate::support::event::{bare, event, new_uuid};
use crate::support::receiver::{Receiver, Reply, Seen, nobody};
use crate::support::record::LIMIT;
use crate::support::wire::{Answer, Wire, request};

const SECRET: &str = "change-me";

/// Killed when dropped.
struct Program {
    _child: Child,
    addr: SocketAddr,
}

impl Program {
    async fn start(slack: &str) -> Program {
        let mut command = Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/config/receivers/slack.py"))
            .env("SLACK_WEBHOOK_URL", slack)
            .env("WEBHOOK_SECRET", SECRET)
            .env("PORT", "0")
            // Of the machine that the tests run on, whose proxy knows no stand-in.
            .env("no_proxy", "*")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("python3 is there");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let line = timeout(LIMIT, lines.next_line()).await.expect("it starts");
        let line = line.expect("stdout is text").expect("it says where it listens");
        let port = line.strip_prefix("listening on port ").expect("a port").parse();
        let addr = SocketAddr::from(([127, 0, 0, 1], port.expect("a number")));
        Program { _child: child, addr }
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut wire = Wire::open(self.addr).await;
        wire.send(request("POST", "/", headers, body)).await;
        wire.answer().await.expect("an answer")
    }

    /// A call that ended, under this id and with the secret.
    async fn post_end(&self, id: &str) -> Answer {
        let headers = [("webhook-id", id), ("X-AVR-WEBHOOK-SECRET", SECRET)];
        self.post(&headers, &ended(new_uuid().as_str())).await
    }
}

fn ended(uuid: &str) -> String {
    event(uuid, "call_ended", json!({ "reason": "sts_lost", "duration_ms": 74_210 })).to_string()
}

/// Takes what Slack takes.
fn as_slack(seen: &Seen) -> Reply {
    let fields = seen.body.as_object();
    match fields.and_then(|fields| fields.get("text")).and_then(|text| text.as_str()) {
        Some(text) if !text.is_empty() && fields.is_some_and(|fields| fields.len() == 1) => {
            Reply::status(200).body("ok")
        }
        _ => Reply::status(400).body("no_text"),
    }
}

fn texts(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.body["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn slack_is_told_of_a_call_that_ended_by_the_settings_in_slack_md() {
    let (main, slack) = (Receiver::content().await, Receiver::start(as_slack).await);
    let program = Program::start(&slack.url).await;
    let url = format!("http://{}/", program.addr);
    let settings = pointed_at(&file("config/receivers/slack.md"), "RECEIVER_SLACK_URL", &url);
    let service = serve_with(&main, &settings).await;
    call(&service).await;
    let seen = slack.seen(1).await;
    let uuid = first(&main, "call_ended").await.uuid().to_owned();
    assert_eq!(texts(&seen), [format!("Call {uuid} ended: hangup after 0:00")]);
}

#[tokio::test]
async fn slack_itself_refuses_what_callhook_sends() {
    let slack = Receiver::start(as_slack).await;
    let service = crate::support::service::serve(&slack.url, &[]).await;
    service.relay(bare(&new_uuid(), "call_ended")).await;
    let line = service.log_line(|line| line["message"] == "webhook delivery failed").await;
    assert_eq!(line["status"], 400, "{line}");
}

#[tokio::test]
async fn an_event_is_told_once_however_often_it_comes() {
    let slack = Receiver::start(as_slack).await;
    let program = Program::start(&slack.url).await;
    for id in ["one", "one", "two", "one"] {
        assert_eq!(program.post_end(id).await.status, 200);
    }
    let seen = slack.so_far();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(texts(&seen).iter().all(|text| text.ends_with("ended: sts_lost after 1:14")));
}

#[tokio::test]
async fn without_the_secret_and_for_what_is_no_end_of_a_call_slack_is_told_nothing() {
    let slack = Receiver::start(as_slack).await;
    let program = Program::start(&slack.url).await;
    let uuid = new_uuid();
    let id = ("webhook-id", "one");
    let known = ("X-AVR-WEBHOOK-SECRET", SECRET);
    let unknown = ("X-AVR-WEBHOOK-SECRET", "change-me-not");
    let deep = "[".repeat(100_000);
    for (headers, body, status) in [
        (&[id][..], ended(&uuid), 401),
        (&[id, unknown], ended(&uuid), 401),
        (&[id, ("X-AVR-WEBHOOK-SECRET", "é")], ended(&uuid), 401),
        (&[known], ended(&uuid), 400),
        (&[id, known], "{".to_owned(), 400),
        (&[id, known], deep, 400),
        (&[id, known], r#"{"type":"call_ended"}"#.to_owned(), 400),
        (&[id, known], r#"["call_ended"]"#.to_owned(), 400),
        (
            &[id, known],
            event(&uuid, "call_ended", json!({ "duration_ms": "long" })).to_string(),
            400,
        ),
        (&[id, known], bare(&uuid, "call_started"), 200),
    ] {
        let answer = program.post(headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?} {:.80}", body);
    }
    assert!(slack.so_far().is_empty());
    // Without details, and with what Slack would read as a link.
    assert_eq!(program.post(&[id, known], &bare(&uuid, "call_ended")).await.status, 200);
    let link = event("<!channel>&", "call_ended", json!({ "reason": "<http://a|b>" })).to_string();
    assert_eq!(program.post(&[("webhook-id", "two"), known], &link).await.status, 200);
    let seen = slack.so_far();
    let shown = "Call &lt;!channel&gt;&amp; ended: &lt;http://a|b&gt; after 0:00";
    assert_eq!(texts(&seen), [&*format!("Call {uuid} ended"), shown]);
}

#[tokio::test]
async fn what_slack_does_not_take_now_is_for_callhook_to_send_again() {
    let replies = [
        Reply::status(429).header("retry-after", "7"),
        Reply::status(500),
        Reply::status(404).body("no_service"),
        Reply::status(400).body("invalid_payload"),
        Reply::status(200).body("ok"),
    ];
    let count = std::sync::atomic::AtomicUsize::new(0);
    let slack = Receiver::start(move |_| {
        replies[count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)].clone()
    })
    .await;
    let program = Program::start(&slack.url).await;
    let pause = program.post_end("one").await;
    assert_eq!((pause.status, pause.header("retry-after")), (429, Some("7")));
    for expected in [502, 502, 422, 200, 200] {
        assert_eq!(program.post_end("one").await.status, expected);
    }
    assert_eq!(slack.so_far().len(), 5);
    let (_, url) = nobody();
    assert_eq!(Program::start(&url).await.post_end("one").await.status, 502);
}
