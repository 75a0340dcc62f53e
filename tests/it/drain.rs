//! How a stop goes while there are calls, `CALL_DRAIN_TIMEOUT`; and SIGHUP, which is no stop.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use crate::support::asterisk::Asterisk;
use crate::support::event::new_uuid;
use crate::support::receiver::free_port;
use crate::support::record::LIMIT;
use crate::support::service::{Wire, request, signal};
use crate::support::stage::{Call, Stage};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

const DETAILS: (&str, &str) = ("CALL_ENDED_DETAILS", "true");

/// Longer than any of these tests waits.
const LONG: (&str, &str) = ("CALL_DRAIN_TIMEOUT", "600000");

fn announcement(uuid: &str) -> String {
    json!({ "uuid": uuid, "payload": { "from": "2000" } }).to_string()
}

async fn announced(stage: &Stage) -> String {
    let uuid = new_uuid();
    assert_eq!(stage.service.post("/call", announcement(&uuid)).await.status, 200);
    uuid
}

/// The reason of the call's end.
async fn reason(stage: &Stage, uuid: &str) -> Value {
    stage.event(uuid, "call_ended").await.body["payload"]["reason"].clone()
}

async fn hang_up(stage: &Stage, call: Call) {
    call.asterisk.hang_up().await;
    assert_eq!(reason(stage, &call.uuid).await, "hangup");
}

#[tokio::test]
async fn live_calls_go_on_and_the_stop_is_over_with_the_last_one() {
    let mut stage = Stage::set(&[DETAILS, LONG]).await;
    let mut call = stage.call().await;
    let repeated = announced(&stage).await;
    Asterisk::dial(stage.service.audiosocket().await).await.hang_up().await;
    stage.service.terminate();
    stage.service.drains().await;
    assert_eq!(stage.service.get("/ready").await.status, 503);
    assert_eq!(stage.service.get("/health").await.status, 200);
    // Events of others are still taken.
    let event = json!({ "uuid": new_uuid(), "type": "call_started", "payload": {} });
    stage.service.relay(event).await;
    // The call goes on: both hear each other.
    call.asterisk.silence(5).await;
    call.session.audio(&[1; 3200]).await;
    call.ear.at_least(5).await;
    // A new call is refused and emits nothing, a repeat has its answer.
    let new = new_uuid();
    assert_eq!(stage.service.post("/call", announcement(&new)).await.status, 503);
    assert_eq!(stage.service.post("/call", announcement(&repeated)).await.status, 200);
    // One that nobody announced is refused, one that was announced is taken.
    let late = new_uuid();
    let mut refused = Asterisk::connect(stage.service.audiosocket().await).await;
    refused.uuid(&late).await;
    refused.ear().closed().await;
    let mut taken = Asterisk::connect(stage.service.audiosocket().await).await;
    assert!(taken.uuid(&repeated).await);
    stage.event(&repeated, "call_started").await;
    taken.hang_up().await;
    hang_up(&stage, call).await;
    assert_eq!(stage.service.wait().await, 0, "the last call was the end");
    assert_eq!(stage.kinds(&late), [""; 0]);
    assert_eq!(stage.kinds(&new), [""; 0]);
}

#[tokio::test]
async fn what_is_left_of_the_calls_ends_at_the_deadline() {
    let vars = [DETAILS, ("CALL_DRAIN_TIMEOUT", "1500"), ("DRAIN_TIMEOUT", "6000")];
    let mut stage = Stage::set(&vars).await;
    let call = stage.call().await;
    let signalled = Instant::now();
    stage.service.terminate();
    assert_eq!(reason(&stage, &call.uuid).await, "shutdown");
    assert!(signalled.elapsed() >= Duration::from_millis(1500), "{:?}", signalled.elapsed());
    // Dialplans learn the reason.
    assert_eq!(stage.service.get("/health").await.status, 200);
    assert_eq!(stage.service.wait().await, 0);
    assert!(signalled.elapsed() < Duration::from_secs(12), "{:?}", signalled.elapsed());
}

#[tokio::test]
async fn the_longest_stop_is_logged_at_the_start() {
    let stage = Stage::set(&[("CALL_DRAIN_TIMEOUT", "90000"), ("DRAIN_TIMEOUT", "5000")]).await;
    let longest = |line: &Value| line["longest_ms"] == 95_000;
    let line = stage.service.log_line(longest).await;
    for name in ["CALL_DRAIN_TIMEOUT", "DRAIN_TIMEOUT"] {
        assert!(line["message"].as_str().unwrap().contains(name), "{line}");
    }
}

#[tokio::test]
async fn sighup_without_a_terminal_ends_nothing() {
    let stage = Stage::set(&[DETAILS]).await;
    let call = stage.call().await;
    stage.service.signal("HUP");
    stage
        .service
        .log_line(|line| line["message"] == "secrets and certificates are read anew")
        .await;
    call.session.audio(&[1; 3200]).await;
    call.ear.at_least(5).await;
    assert_eq!(stage.service.get("/ready").await.status, 200);
    hang_up(&stage, call).await;
}

/// What SIGHUP does to a service whose stderr is a terminal, started by this launcher: its exit code, if it ends.
async fn hung_up_terminal(launcher: &[&str]) -> Option<i32> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&terminal).expect("it can be granted");
    unlockpt(&terminal).expect("it can be unlocked");
    let path = ptsname(&terminal, Vec::new()).expect("it has a name").into_string();
    let end = File::options().read(true).write(true).open(path.expect("a plain path"));
    let port = free_port();
    let args = [launcher, &[env!("CARGO_BIN_EXE_callhook"), "serve"]].concat();
    let mut child = Command::new(args[0])
        .args(&args[1..])
        .env_clear()
        .envs([("WEBHOOK_URL", "none"), ("JOURNAL_PATH", "none"), ("HTTP_HOST", "127.0.0.1")])
        .envs([("HTTP_PORT", port.to_string().as_str()), ("PORT", "0"), ("ADMIN_PORT", "0")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(end.expect("the terminal's other end"))
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let health = async || {
        let mut wire = Wire::try_open(address).await.ok()?;
        wire.send(request("GET", "/health", &[], "")).await;
        wire.answer().await.filter(|answer| answer.status == 200)
    };
    let listens = async { while health().await.is_none() {} };
    timeout(LIMIT, listens).await.expect("it listens");
    signal(&child, "HUP");
    // A signal that does not end it is followed by answers, one that does by an end.
    let ends = async {
        for _ in 0..200 {
            if health().await.is_none() {
                return child.wait().await.expect("the child can be awaited").code();
            }
        }
        None
    };
    let code = timeout(LIMIT, ends).await.expect("an end, or answers");
    drop(terminal);
    code
}

#[tokio::test]
async fn sighup_of_a_terminal_is_a_stop_unless_it_was_ignored_at_the_start() {
    // Whoever runs the tests under nohup ignores it, and so would the service.
    let heeding = ["env", "--default-signal=HUP"];
    assert_eq!(hung_up_terminal(&heeding).await, Some(0));
    let ignoring = ["sh", "-c", r#"trap "" HUP; exec "$@""#, "sh"];
    assert_eq!(hung_up_terminal(&ignoring).await, None);
}
