//! Those who watch: what they are told, how many they may be, and that a slow one costs nobody anything.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{Admin, HOST};
use crate::support::receiver::Receiver;
use crate::support::record::LIMIT;
use crate::support::service::request_to;

/// A connection that watches.
pub async fn watch(admin: &Admin) -> TcpStream {
    let mut stream = TcpStream::connect(admin.address).await.unwrap();
    let ask = request_to(HOST.1, "GET", "/api/stream", &[], "");
    stream.write_all(&ask).await.unwrap();
    stream
}

/// Reads what comes next.
pub async fn read_more(stream: &mut TcpStream, text: &mut String) {
    let mut chunk = vec![0; 64 * 1024];
    let size = stream.read(&mut chunk).await.unwrap();
    assert!(size > 0, "the stream ended after {text}");
    text.push_str(&String::from_utf8_lossy(&chunk[..size]));
}

/// Reads until the text is there; returns all that came.
async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(needle) {
            read_more(stream, &mut text).await;
        }
    };
    timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("{needle} comes in time"));
    text
}

#[tokio::test]
async fn the_stream_tells_the_state_at_once_and_then_which_calls_changed() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[]).await;
    let mut stream = watch(&admin).await;
    let begun = read_until(&mut stream, "event: reload").await;
    assert!(
        begun.contains("text/event-stream") && begun.contains("event: state\ndata: {"),
        "{begun}"
    );
    let call = Uuid::new_v4();
    for _ in 0..50 {
        admin.send(call, "dtmf_digit", json!({"digit": "1"})).await;
    }
    let told = read_until(&mut stream, "\"events\":50").await;
    assert!(told.contains("event: calls\ndata: {\"items\":[{"), "{told}");
    assert!(
        told.matches("event: calls").count() < 25,
        "what happens at once is told at once: {told}"
    );
    assert!(!told.contains("\"digit\""), "payloads are not told");
}

#[tokio::test]
async fn a_stop_ends_the_streams() {
    let mut admin = Admin::with(&[("WEBHOOK_URL", "none"), ("DRAIN_TIMEOUT", "10000")]).await;
    let mut stream = watch(&admin).await;
    read_until(&mut stream, "event: state").await;
    let begun = Instant::now();
    admin.service.terminate();
    assert_eq!(admin.service.wait().await, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn only_so_many_watch_at_a_time() {
    let admin = Admin::with(&[("WEBHOOK_URL", "none")]).await;
    let mut watching = Vec::new();
    for _ in 0..16 {
        let mut stream = watch(&admin).await;
        read_until(&mut stream, "event: state").await;
        watching.push(stream);
    }
    let refused = admin.ask("GET", "/api/stream", &[HOST]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("16"), "{refused:?}");
    assert_eq!(admin.ask("GET", "/api/calls", &[HOST]).await.status, 200);
    drop(watching);
    let again = async {
        loop {
            let mut stream = watch(&admin).await;
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            if start.ends_with(b"200") {
                return;
            }
        }
    };
    timeout(LIMIT, again).await.expect("who goes makes room");
}

#[tokio::test]
async fn a_slow_watcher_loses_updates_and_holds_nothing_up() {
    let receiver = Receiver::content().await;
    let admin = Admin::start(&receiver, &[("INSPECTOR_CALLS", "300")]).await;
    let mut slow = watch(&admin).await;
    let mut quick = watch(&admin).await;
    read_until(&mut quick, "event: reload").await;
    // Far more than the slow one's connection takes: 300 calls of 4 KB, four times a second.
    let name = "x".repeat(4000);
    let calls: Vec<Uuid> = (0..290).map(|_| Uuid::new_v4()).collect();
    let announcement = |call: &Uuid| json!({"uuid": call.to_string(), "type": "call_initiated", "payload": {"from": name}});
    let told = json!(calls.iter().map(announcement).collect::<Vec<_>>()).to_string();
    admin.service.relay(told).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        let digits = |call: &Uuid| json!({"uuid": call.to_string(), "type": "dtmf_digit"});
        let body = json!(calls.iter().map(digits).collect::<Vec<_>>()).to_string();
        let asked = Instant::now();
        admin.service.relay(body).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        read_until(&mut quick, "event: calls").await;
    }
    let late = read_until(&mut slow, "event: reload").await;
    let after = late.len();
    let late = late + &read_until(&mut slow, "event: reload").await;
    assert!(late.len() > after, "the slow one is told to look at everything again");
    assert!(late.len() < 200 * 1024 * 1024);
    read_until(&mut slow, "event: state").await;
}
