//! A copy is on its own: what ails it, what it answers, and whether it is there at all, is nothing to the main receiver,
//! the callers and the stop.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::event::{bare, event, new_uuid, numbered};
use crate::support::journal::{Journal, end, kill, terminate};
use crate::support::receiver::{Receiver, Reply, Seen, free_port, nobody, numbers_of};
use crate::support::record::LIMIT;
use crate::support::routing::{fallback, routed, serve};
use crate::support::service::Service;

const ROUTE: &str = "wss://sts.test/a";

/// A copy that takes what comes and never answers: nobody accepts its connections but the kernel.
struct Silent(TcpListener);

impl Silent {
    fn start() -> Self {
        Self(TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.0.local_addr().expect("a bound listener has an address"))
    }
}

/// Answers ten bytes a second, for as long as it is kept.
async fn trickling() -> (String, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}/events", listener.local_addr().expect("a bound listener"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Padding: nothing\r\n\r\nok";
                for ten in answer.chunks(10) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if stream.write_all(ten).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, tasks)
}

async fn call(service: &Service) -> Value {
    let body = json!({ "uuid": new_uuid(), "payload": {} }).to_string();
    let answer = service.post("/call", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Relays one event of each of so many calls.
async fn fill(service: &Service, calls: usize) {
    let events: Vec<Value> = (0..calls).map(|n| numbered(&new_uuid(), n)).collect();
    service.relay(Value::from(events)).await;
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Calls in turn through a callhook without and one with the copy, which has as many of its events as it can have in
/// flight. `scripts/bench.sh receivers` measures what this only bounds.
async fn costs_callers_nothing(copy: &str) {
    const CALLS: usize = 40;
    let receiver = Receiver::start(|seen| match seen.kind() {
        "call_initiated" => Reply::route(ROUTE),
        _ => Reply::ok(),
    })
    .await;
    let alone = serve(&receiver.url, &[]).await;
    let further = [("RECEIVER_CRM_URL", copy), ("RECEIVER_CRM_TIMEOUT", "600000")];
    let beside = serve(&receiver.url, &further).await;
    fill(&alone, 100).await;
    fill(&beside, 100).await;
    receiver.seen(200).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        for (service, times) in [(&alone, &mut without), (&beside, &mut with)] {
            let begun = Instant::now();
            assert_eq!(call(service).await, routed(ROUTE));
            times.push(begun.elapsed());
        }
    }
    let (without, with) = (median(without), median(with));
    println!("POST /call: {without:?} without {copy}, {with:?} with it");
    assert!(with < 2 * without + Duration::from_millis(20), "{without:?}, with it {with:?}");
}

#[tokio::test]
async fn a_copy_that_hangs_trickles_or_is_dead_costs_callers_no_time() {
    let (silent, (trickling, _tasks), (_, dead)) = (Silent::start(), trickling().await, nobody());
    for copy in [&silent.url(), &trickling, &dead] {
        costs_callers_nothing(copy).await;
    }
}

#[tokio::test]
async fn what_a_copy_answers_to_call_initiated_decides_nothing() {
    let main = Receiver::start(|_| Reply::ok().after(Duration::from_millis(100))).await;
    let crm = Receiver::start(|_| Reply::route(ROUTE)).await;
    let service = serve(&main.url, &[("RECEIVER_CRM_URL", &crm.url)]).await;
    assert_eq!(call(&service).await, fallback());
    let question = bare(&new_uuid(), "call_initiated");
    let answer = service.post("/events", question).await;
    assert_eq!((answer.status, answer.json().get("sts_url")), (200, None), "{answer:?}");
    crm.seen(2).await;
}

#[tokio::test]
async fn a_call_initiated_that_only_a_copy_takes_is_answered_at_once() {
    let (main, crm) = (Receiver::content().await, Silent::start());
    let vars = [
        ("WEBHOOK_EVENTS", "call_ended"),
        ("RECEIVER_CRM_URL", &crm.url()),
        ("RECEIVER_CRM_EVENTS", "call_initiated"),
        ("ROUTING_TIMEOUT", "15000"),
    ];
    let service = serve(&main.url, &vars).await;
    let begun = Instant::now();
    assert_eq!(call(&service).await, fallback());
    let answer = service.post("/events", bare(&new_uuid(), "call_initiated")).await;
    assert_eq!((answer.status, answer.json()["id"].is_string()), (200, true), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // And one that nobody takes is dropped.
    let answer = service.post("/events", bare(&new_uuid(), "call_started")).await;
    assert_eq!((answer.status, answer.json()), (202, json!({ "id": null })));
}

#[tokio::test]
async fn without_a_main_receiver_copies_get_their_events_and_nobody_is_refused() {
    let (journal, (port, url)) = (Journal::new(), nobody());
    let vars = [("RECEIVER_CRM_URL", url.as_str()), ("QUEUE_LIMIT", "3"), ("WEBHOOK_RETRY", "20")];
    let service = journal.serve("none", &vars).await;
    let uuid = new_uuid();
    for n in 0..5 {
        service.relay(numbered(&uuid, n)).await;
    }
    kill(service).await;
    let service = journal.serve("none", &vars).await;
    let crm = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers_of(&crm.seen(3).await, &uuid), [0, 1, 2]);
    let letters = service.ask_admin("GET", "/api/dead", &[]).await.json();
    let told: Vec<&Value> =
        letters["items"].as_array().unwrap().iter().map(|item| &item["code"]).collect();
    assert_eq!(told, ["ERR_QUEUE_FULL", "ERR_QUEUE_FULL"]);
}

/// Replays its dead letters as far as there is room.
async fn replayed_to_crm(service: &Service) -> Value {
    service.ask_admin("POST", "/api/dead/replay?receiver=crm", &[]).await.json()
}

#[tokio::test]
async fn what_a_copy_has_no_room_for_in_bytes_is_its_dead_letters_and_can_be_sent_later() {
    let (journal, main, (port, url)) = (Journal::new(), Receiver::content().await, nobody());
    let vars =
        [("RECEIVER_CRM_URL", url.as_str()), ("QUEUE_BYTES", "5000"), ("WEBHOOK_RETRY", "20")];
    let service = journal.serve(&main.url, &vars).await;
    let uuid = new_uuid();
    for n in 0..4 {
        let payload = json!({ "n": n, "text": "x".repeat(2000) });
        let event = event(&uuid, "transcription", payload).to_string();
        // The main receiver's own room holds two.
        let taken = async { while service.post("/events", event.clone()).await.status != 202 {} };
        timeout(LIMIT, taken).await.expect("the main receiver takes all");
    }
    assert_eq!(numbers_of(&main.seen(4).await, &uuid), [0, 1, 2, 3]);
    let letters = service.ask_admin("GET", "/api/dead", &[]).await.json();
    let letters = letters["items"].as_array().unwrap();
    let says = |item: &Value| item["error"].as_str().unwrap().contains("QUEUE_BYTES=5000");
    assert!(letters.iter().all(says), "{letters:?}");
    let told: Vec<Value> = letters
        .iter()
        .map(|item| json!([item["receiver"], item["code"], item["attempts"], item["payload"]["n"]]))
        .collect();
    assert_eq!(told, [2, 3].map(|n| json!(["crm", "ERR_QUEUE_FULL", 0, n])));
    let crm = Receiver::start_on(port, |_| Reply::ok()).await;
    assert_eq!(numbers_of(&crm.seen(2).await, &uuid), [0, 1]);
    let again = async { while replayed_to_crm(&service).await["left"] != 0 {} };
    timeout(LIMIT, again).await.expect("there is room again");
    assert_eq!(numbers_of(&crm.seen(4).await, &uuid), [0, 1, 2, 3]);
    let log = terminate(service).await;
    let log = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let sums: Vec<Value> = log
        .filter(|line| line["message"].as_str().is_some_and(|text| text.contains("has no room")))
        .map(|line| json!([line["level"], line["receiver"], line["count"], line["missed"]]))
        .collect();
    assert_eq!(
        sums,
        [json!(["error", "crm", 2, 0])],
        "one line for both, at the stop at the latest"
    );
}

#[tokio::test]
async fn a_copys_pause_is_its_own() {
    let main = Receiver::content().await;
    let at = AtomicUsize::new(0);
    let crm = Receiver::start(move |_| match at.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).header("retry-after", "2"),
        _ => Reply::ok(),
    })
    .await;
    let service = serve(&main.url, &[("RECEIVER_CRM_URL", &crm.url)]).await;
    let uuid = new_uuid();
    service.relay(numbered(&uuid, 0)).await;
    service.log_line(|line| line["receiver"] == "crm" && line["code"].is_string()).await;
    for n in 1..5 {
        service.relay(numbered(&uuid, n)).await;
    }
    let last = main.seen(5).await[4].at;
    let seen = crm.seen(6).await;
    assert!(last < seen[1].at, "the main receiver has all before the copy's pause is over");
    assert_eq!(numbers_of(&seen, &uuid), [0, 0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_copy_that_hangs_does_not_hold_up_the_stop_beyond_drain_timeout() {
    let (journal, main, crm) = (Journal::new(), Receiver::content().await, Silent::start());
    let url = crm.url();
    let vars = [
        ("RECEIVER_CRM_URL", url.as_str()),
        ("RECEIVER_CRM_TIMEOUT", "600000"),
        ("DRAIN_TIMEOUT", "1500"),
    ];
    let service = journal.serve(&main.url, &vars).await;
    let uuid = new_uuid();
    for n in 0..100 {
        service.relay(numbered(&new_uuid(), n)).await;
    }
    service.relay(numbered(&uuid, 0)).await;
    main.seen(101).await;
    let begun = Instant::now();
    end(service, "TERM").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let back = Receiver::content().await;
    let vars = [("RECEIVER_CRM_URL", back.url.as_str())];
    let _service = journal.serve(&main.url, &vars).await;
    assert_eq!(back.seen(101).await.iter().filter(|seen| seen.uuid() == uuid).count(), 1);
    assert_eq!(main.so_far().len(), 101, "the main one had them");
}

/// What waits for a receiver waits for its name: under another one it is another receiver.
#[tokio::test]
async fn a_receiver_is_known_by_its_name_through_renaming_and_back_again() {
    let (journal, main, (port, url)) = (Journal::new(), Receiver::content().await, nobody());
    let under = |name: &str| format!("RECEIVER_{name}_URL");
    let (crm, erp) = (under("CRM"), under("ERP"));
    let uuid = new_uuid();
    let service = journal.serve(&main.url, &[(&crm, &url), ("WEBHOOK_RETRY", "20")]).await;
    for n in 0..3 {
        service.relay(numbered(&uuid, n)).await;
    }
    end(service, "KILL").await;
    let other = Receiver::content().await;
    let service = journal.serve(&main.url, &[(&erp, &other.url)]).await;
    service.relay(numbered(&uuid, 3)).await;
    assert_eq!(numbers_of(&other.seen(1).await, &uuid), [3]);
    assert_eq!(other.so_far()[0].sequence(), 1);
    end(service, "KILL").await;
    let back = Receiver::start_on(port, |_| Reply::ok()).await;
    let service = journal.serve(&main.url, &[(&crm, &url)]).await;
    let seen = back.seen(3).await;
    service.relay(numbered(&uuid, 4)).await;
    assert_eq!(numbers_of(&seen, &uuid), [0, 1, 2]);
    assert_eq!(numbers_of(&back.seen(4).await, &uuid), [0, 1, 2, 4]);
    assert!(numbers_of(&other.so_far(), &uuid).iter().all(|n| *n == 3));
}

#[tokio::test]
async fn eight_copies_get_each_event_once_and_in_order() {
    let main = Receiver::content().await;
    let mut copies = Vec::new();
    for _ in 0..8 {
        copies.push(Receiver::content().await);
    }
    let names: Vec<String> = (0..8).map(|n| format!("RECEIVER_R{n}_URL")).collect();
    let vars: Vec<(&str, &str)> =
        names.iter().zip(&copies).map(|(name, copy)| (name.as_str(), copy.url.as_str())).collect();
    let journal = Journal::new();
    let service = journal.serve(&main.url, &vars).await;
    let uuid = new_uuid();
    for n in 0..20 {
        service.relay(numbered(&uuid, n)).await;
    }
    let ids = |seen: &[Seen]| -> Vec<String> {
        seen.iter().map(|seen| seen.header("webhook-id").unwrap().to_owned()).collect()
    };
    let expected = ids(&main.seen(20).await);
    for copy in &copies {
        let seen = copy.seen(20).await;
        assert_eq!(numbers_of(&seen, &uuid), (0..20).collect::<Vec<_>>());
        assert_eq!(ids(&seen), expected);
    }
}

/// The most that callhook, with these further settings, ever has resident while so many events of 20 KB each come.
async fn peak(events: usize, further: &[(&str, &str)]) -> u64 {
    const AT_ONCE: usize = 50;
    let (journal, main) = (Journal::new(), Receiver::content().await);
    // What the inspector remembers of calls is not what this is about.
    let vars = [&[("QUEUE_LIMIT", "100"), ("INSPECTOR_CALLS", "0")], further].concat();
    let service = journal.serve(&main.url, &vars).await;
    let text = "x".repeat(20_000);
    let event = |n| event(&new_uuid(), "transcription", json!({ "n": n, "text": text }));
    for first in (0..events).step_by(AT_ONCE) {
        let array = Value::from((0..AT_ONCE).map(event).collect::<Vec<_>>()).to_string();
        // What has arrived takes room until that is on disk.
        let taken = async { while service.post("/events", array.clone()).await.status != 202 {} };
        timeout(LIMIT, taken).await.expect("there is room again");
        main.until("all before", |seen| (seen.len() >= first + AT_ONCE).then_some(())).await;
    }
    service.memory_peak()
}

#[tokio::test]
async fn a_dead_copy_takes_no_more_memory_than_its_queue_has_room_for() {
    const EVENTS: usize = 2000;
    let url = format!("http://127.0.0.1:{}/events", free_port());
    let without = peak(EVENTS, &[]).await;
    let with = peak(EVENTS, &[("RECEIVER_CRM_URL", &url)]).await;
    println!("at most {without} bytes without a dead copy, {with} with it");
    // There is room for 2 MB of 40.
    assert!(with < without + 20_000_000, "{without}, with it {with}");
}
