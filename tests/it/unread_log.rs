//! A log that nobody reads: lines are lost and counted, and nothing waits for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use crate::support::asterisk::Asterisk;
use crate::support::event::{new_uuid, numbered};
use crate::support::receiver::free_port;
use crate::support::record::LIMIT;
use crate::support::service::{Answer, Wire, command, request, request_to, signal};
use crate::support::sts::{Manner, Sts};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

/// A service whose log is a pipe that nobody reads.
struct Unread {
    child: Child,
    front: SocketAddr,
    audio: SocketAddr,
    admin: SocketAddr,
    _directory: TempDir,
}

impl Unread {
    async fn start(vars: &[(&str, &str)]) -> Unread {
        let directory = TempDir::new().expect("a temporary directory");
        let ports = [(); 3].map(|()| free_port().to_string());
        let child = command(&["serve"])
            .current_dir(directory.path())
            .envs([("HTTP_PORT", &ports[0]), ("PORT", &ports[1]), ("ADMIN_PORT", &ports[2])])
            .envs([("HTTP_HOST", "127.0.0.1"), ("AUDIOSOCKET_HOST", "127.0.0.1")])
            .envs([("JOURNAL_PATH", "none"), ("LOG_LEVEL", "debug")])
            .envs(vars.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let address =
            |port: &String| SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
        let [front, audio, admin] = ports.each_ref().map(address);
        let unread = Unread { child, front, audio, admin, _directory: directory };
        let listens = async {
            while Wire::try_open(front).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, listens).await.expect("the front listens");
        unread
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut wire = Wire::open(self.front).await;
        wire.send(request(method, path, &[], body)).await;
        let answer = timeout(LIMIT, wire.answer()).await;
        answer.unwrap_or_else(|_| panic!("{method} {path}: no answer")).expect("an answer")
    }

    /// Makes callhook log so many lines.
    async fn log_lines(&self, lines: usize) {
        let array: Vec<Value> = (0..1000).map(|n| numbered(&new_uuid(), n)).collect();
        let array = Value::from(array).to_string();
        for _ in 0..lines.div_ceil(1000) {
            assert_eq!(self.ask("POST", "/events", &array).await.status, 202);
        }
    }

    async fn metric(&self, name: &str) -> f64 {
        let mut wire = Wire::open(self.admin).await;
        wire.send(request_to("localhost", "GET", "/metrics", &[], "")).await;
        let answer = wire.answer().await.expect("an answer");
        let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_loses_lines_and_holds_up_nothing() {
    let sts = Sts::start(Manner::Usual).await;
    let mut unread = Unread::start(&[("WEBHOOK_URL", "none"), ("STS_URL", &sts.url)]).await;
    // Far more than a pipe holds, and than waits for one.
    unread.log_lines(12_000).await;
    assert_eq!(unread.ask("GET", "/health", "").await.status, 200);
    let uuid = new_uuid();
    let call = format!(r#"{{"uuid":"{uuid}","payload":{{}}}}"#);
    assert_eq!(unread.ask("POST", "/call", &call).await.status, 200);
    let mut asterisk = Asterisk::connect(unread.audio).await;
    assert!(asterisk.uuid(&uuid).await);
    let session = sts.session_of(&uuid).await;
    asterisk.silence(5).await;
    session.audio(&[1; 1600]).await;
    asterisk.ear().at_least(3).await;
    assert!(unread.metric("callhook_log_lines_dropped_total").await > 0.0, "they are counted");
    let signalled = Instant::now();
    signal(&unread.child, "TERM");
    let ended = timeout(LIMIT, unread.child.wait()).await.expect("SIGTERM is obeyed");
    assert_eq!(ended.expect("the child can be awaited").code(), Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(10), "{:?}", signalled.elapsed());
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_holds_up_nothing() {
    let mut unread = Unread::start(&[("WEBHOOK_URL", "none")]).await;
    drop(unread.child.stderr.take());
    unread.log_lines(1000).await;
    assert_eq!(unread.ask("GET", "/health", "").await.status, 200);
    assert!(unread.metric("callhook_log_lines_dropped_total").await > 0.0, "they are counted");
    signal(&unread.child, "TERM");
    let ended = timeout(LIMIT, unread.child.wait()).await.expect("SIGTERM is obeyed");
    assert_eq!(ended.expect("the child can be awaited").code(), Some(0));
}
