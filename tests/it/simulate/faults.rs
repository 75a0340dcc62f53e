//! Faults on purpose: each does what it says, to the share that was asked for, and the summary counts
//! what the receiver saw.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Ended, by_call, simulate};
use crate::support::receiver::{Receiver, Reply, Seen};

/// Calls enough for a share to show: with seed 3 they have about a thousand events.
const MANY: [&str; 5] = ["--calls", "90", "--seed", "3", "--json"];

async fn spoiled(script: fn(&Seen) -> Reply, args: &[&str]) -> (Receiver, Ended) {
    let receiver = Receiver::start(script).await;
    let ended = simulate(&receiver.url, &[&MANY[..], args].concat()).await;
    (receiver, ended)
}

fn ok(_: &Seen) -> Reply {
    Reply::ok()
}

/// The number of events that a fault hit, which has to be near this share of all.
fn hit(ended: &Ended, fault: &str, share: f64) -> u64 {
    let summary = ended.summary();
    let hit = summary["faults"][fault]["hit"].as_u64().unwrap_or_else(|| panic!("{summary}"));
    let planned = summary["events"]["planned"].as_u64().unwrap();
    let near = share * planned as f64;
    assert!((near * 0.7..near * 1.3).contains(&(hit as f64)), "{hit} of {planned}, not {share}");
    hit
}

#[tokio::test]
async fn duplicate_sends_the_same_request_again_before_the_next_event() {
    let (receiver, ended) = spoiled(ok, &["--duplicate", "20%"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let twice = hit(&ended, "duplicate", 0.2);
    let mut found = 0;
    for call in by_call(&receiver.so_far()).values() {
        let pairs = call.windows(2).filter(|pair| pair[0].sequence() == pair[1].sequence());
        for pair in pairs {
            assert_eq!(pair[0].raw, pair[1].raw);
            assert_eq!(pair[0].headers, pair[1].headers);
            found += 1;
        }
        let mut sequences: Vec<u64> = call.iter().map(Seen::sequence).collect();
        sequences.dedup();
        assert!(sequences.is_sorted() && sequences.len() as u64 == *sequences.last().unwrap());
    }
    assert_eq!(found, twice);
    let summary = ended.summary();
    let sent = summary["events"]["sent"].as_u64().unwrap();
    assert_eq!(summary["attempts"], sent + twice);
    assert_eq!(
        summary["faults"]["duplicate"],
        json!({"share": "20%", "hit": twice, "accepted": twice})
    );
}

#[tokio::test]
async fn reorder_swaps_neighbours_of_a_call_and_their_numbers_tell() {
    let (receiver, ended) = spoiled(ok, &["--reorder", "10%"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    // Each throw that hits moves two events.
    let hit = hit(&ended, "reorder", 0.2);
    let mut moved = 0;
    for call in by_call(&receiver.so_far()).values() {
        for (place, seen) in (1..).zip(call) {
            assert!(seen.sequence().abs_diff(place) <= 1, "no further than one place");
            moved += u64::from(seen.sequence() != place);
        }
        let mut in_order = call.clone();
        in_order.sort_by_key(Seen::sequence);
        let times = in_order.iter().map(|seen| seen.body["timestamp"].as_str());
        assert!(times.is_sorted(), "each keeps the time when it happened");
    }
    assert_eq!(moved, hit);
}

#[tokio::test]
async fn late_sends_one_event_after_call_ended_in_so_many_calls() {
    let (receiver, ended) = spoiled(ok, &["--late", "30%"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let late = ended.summary()["faults"]["late"]["hit"].as_u64().unwrap();
    assert!((15..40).contains(&late), "{late} of 90 calls");
    let mut found = 0;
    for call in by_call(&receiver.so_far()).values() {
        let end = call.iter().position(|seen| seen.kind() == "call_ended").unwrap();
        match &call[end + 1..] {
            [] => {}
            [one] => {
                assert_eq!(one.sequence() + 1, call[end].sequence());
                found += 1;
            }
            more => panic!("{} late events", more.len()),
        }
    }
    assert_eq!(found, late);
}

#[tokio::test]
async fn drop_leaves_events_out_and_a_gap_in_the_numbers() {
    let (receiver, ended) = spoiled(ok, &["--drop", "10%"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let dropped = hit(&ended, "drop", 0.1);
    let seen = receiver.so_far();
    let summary = ended.summary();
    assert_eq!(summary["events"]["planned"], seen.len() as u64 + dropped);
    assert_eq!(summary["events"]["sent"], seen.len());
    let gaps = by_call(&seen).into_values().map(|call| {
        let sequences: Vec<u64> = call.iter().map(Seen::sequence).collect();
        assert!(sequences.is_sorted());
        sequences.last().unwrap() - sequences.len() as u64
    });
    // What is dropped at the end of a call leaves no gap.
    let gaps: u64 = gaps.sum();
    assert!(gaps > 0 && gaps <= dropped, "{gaps} gaps of {dropped}");
}

#[tokio::test]
async fn wrong_secret_is_refused_with_401_and_no_failure_of_the_receiver() {
    fn guarded(seen: &Seen) -> Reply {
        match seen.header("x-avr-webhook-secret") {
            Some("tulip") => Reply::ok(),
            Some(_) | None => Reply::status(401),
        }
    }
    let (receiver, ended) = spoiled(guarded, &["--secret", "tulip", "--wrong-secret", "10%"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let wrong = hit(&ended, "wrong-secret", 0.1);
    let summary = ended.summary();
    assert_eq!(summary["answers"]["401"], wrong);
    assert_eq!(summary["events"]["spoiled"], wrong);
    assert_eq!(summary["events"]["failed"], 0);
    assert_eq!(summary["faults"]["wrong-secret"]["accepted"], 0);
    let is_wrong = |seen: &&Seen| seen.header("x-avr-webhook-secret") != Some("tulip");
    assert_eq!(receiver.so_far().iter().filter(is_wrong).count() as u64, wrong);
}

#[tokio::test]
async fn a_receiver_that_takes_any_secret_is_told_of() {
    let receiver = Receiver::start(ok).await;
    let args = ["--calls", "1", "--secret", "not-the-secret", "--wrong-secret", "100%"];
    let ended = simulate(&receiver.url, &args).await;
    assert!(ended.out.contains("answered 2xx: the secret is not checked"), "{}", ended.out);
    let seen = receiver.so_far();
    assert!(seen.iter().all(|seen| seen.header("x-avr-webhook-secret") != Some("not-the-secret")));
}

#[tokio::test]
async fn a_fault_without_a_share_hits_one_in_twenty() {
    let (_, ended) = spoiled(ok, &["--duplicate", "--split"]).await;
    let summary = ended.summary();
    assert_eq!(summary["faults"]["duplicate"]["share"], "5%");
    assert_eq!(summary["faults"]["split"]["share"], "5%");
    hit(&ended, "split", 0.05);
}

#[tokio::test]
async fn faults_are_the_same_with_the_same_seed() {
    let args = ["--duplicate", "10%", "--reorder", "10%", "--drop", "10%", "--late", "20%"];
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (receiver, _) = spoiled(ok, &args).await;
        let calls = by_call(&receiver.so_far());
        let told =
            calls.into_iter().map(|(uuid, seen)| (uuid, seen.iter().map(Seen::sequence).collect()));
        runs.push(told.collect::<Vec<(String, Vec<u64>)>>());
    }
    assert_eq!(runs[0], runs[1]);
}

/// A request as it came off the wire.
#[derive(Debug)]
struct Raw {
    /// How many reads brought a part of the body.
    pieces: usize,
    /// From the end of the head to the end of the body.
    took: Duration,
    head: String,
    body: Vec<u8>,
}

/// A receiver that looks at each read: its URL, and the requests as they come.
fn raw_receiver() -> (String, mpsc::Receiver<Raw>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (told, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let told = told.clone();
            thread::spawn(move || {
                while let Some(raw) = next_request(stream.as_ref().unwrap()) {
                    told.send(raw).unwrap();
                    stream
                        .as_ref()
                        .unwrap()
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        .unwrap();
                }
            });
        }
    });
    (url, requests)
}

/// The next request on the connection; `None` at its end.
fn next_request(mut stream: &TcpStream) -> Option<Raw> {
    let (mut bytes, mut pieces, mut head) = (Vec::new(), 0, None);
    loop {
        let mut chunk = [0; 16 * 1024];
        let size = stream.read(&mut chunk).ok().filter(|size| *size > 0)?;
        bytes.extend_from_slice(&chunk[..size]);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end.map(|at| at + 4) else { continue };
        let (at, text) = head.get_or_insert_with(|| {
            (Instant::now(), String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase())
        });
        pieces += usize::from(bytes.len() > end);
        let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length, not chunks").parse().unwrap();
        if bytes.len() == end + length {
            let body = bytes.split_off(end);
            return Some(Raw { pieces, took: at.elapsed(), head: text.clone(), body });
        }
    }
}

#[tokio::test]
async fn split_sends_the_body_in_several_segments_and_nothing_else_differs() {
    let (url, requests) = raw_receiver();
    let ended = simulate(&url, &["--calls", "3", "--split", "100%"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let requests: Vec<Raw> = requests.try_iter().collect();
    assert!(requests.len() > 10);
    for raw in &requests {
        let event: serde_json::Value = serde_json::from_slice(&raw.body).unwrap();
        assert!(event["uuid"].is_string(), "the body is whole: {event}");
        assert!(!raw.head.contains("transfer-encoding"), "{}", raw.head);
        assert!(raw.pieces <= 5, "{raw:?}");
    }
    // A reader that is held up gets several at once.
    let split = requests.iter().filter(|raw| raw.pieces >= 3).count();
    assert!(split * 2 > requests.len(), "{split} of {} came in pieces", requests.len());
}

#[tokio::test]
async fn slow_body_takes_half_of_the_timeout_and_arrives() {
    let (url, requests) = raw_receiver();
    let args =
        ["--calls", "1", "--scenario", "abandoned", "--slow-body", "100%", "--timeout", "800"];
    let ended = simulate(&url, &args).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let raw = requests.recv().unwrap();
    assert!(raw.pieces > 5, "{raw:?}");
    assert!(raw.took >= Duration::from_millis(200), "{raw:?}");
    assert!(ended.out.contains("slow-body     100%: 1 events, 1 answered 2xx"), "{}", ended.out);
    assert!(!ended.out.contains("latency in ms"), "what is slow on purpose is not measured");
}

#[tokio::test]
async fn an_ordinary_body_comes_whole() {
    let (url, requests) = raw_receiver();
    let ended = simulate(&url, &["--calls", "2"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(requests.try_iter().all(|raw| raw.pieces == 1));
}
