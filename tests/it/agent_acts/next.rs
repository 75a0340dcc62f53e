//! `GET /call/{uuid}/next`: a dialplan asks where to send its caller, the moment its AudioSocket closes, and gets a
//! destination or nothing.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use callhook::bridge::metrics::BridgeMetrics;
use callhook::bridge::playout::Clock;
use callhook::bridge::{AudioCodec, Bridge, CallSettings, Ends, RefusedCalls};
use callhook::calls::Calls;
use callhook::calls::asked::CallRequest;
use callhook::event::CallId;
use callhook::history::History;
use callhook::listener::ListenAddress;
use callhook::routing::destination::Destination;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{DETAILS, PEOPLE, announced_call, next_of};
use crate::support::asterisk::Asterisk;
use crate::support::disk::Disk;
use crate::support::event::new_uuid;
use crate::support::journal::{Journal, kill};
use crate::support::queue::{Taker, settings};
use crate::support::receiver::Receiver;
use crate::support::service::level;
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Sts};
use crate::support::tools::Tools;

#[tokio::test]
async fn what_is_no_destination_has_an_empty_body_whatever_the_status() {
    let stage = Stage::set(&[("HTTP_SECRET", "sesame")]).await;
    let path = format!("/call/{}/next", new_uuid());
    let secret = ("X-AVR-WEBHOOK-SECRET", "sesame");
    for (status, method, path, headers) in [
        (404, "GET", path.as_str(), vec![secret]),
        (404, "GET", "/call/x/next", vec![secret]),
        (401, "GET", &path, vec![]),
        (403, "GET", &path, vec![secret, ("Origin", "https://evil.test")]),
        (405, "POST", &path, vec![secret]),
    ] {
        let answer = stage.service.ask(method, path, &headers, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{path}");
    }
}

#[tokio::test]
async fn a_transfer_is_told_as_often_as_it_is_asked_for() {
    let stage = Stage::set(&[DETAILS, PEOPLE]).await;
    let call = announced_call(&stage).await;
    Tools::of(&stage.service).transferred(&call.uuid, "100").await;
    assert_eq!(next_of(&stage, &call.uuid).await, (200, String::new()), "it lives");
    call.session.close().await;
    call.ear.hung_up().await;
    for uuid in [call.uuid.clone(), call.uuid.to_uppercase(), call.uuid.replace('-', "")] {
        assert_eq!(next_of(&stage, &uuid).await, (200, "people,100,1".to_owned()));
    }
    // The same call again is another one.
    super::ended_once(&stage, &call.uuid, "transfer").await;
    let _again = stage.dial(&call.uuid).await;
    stage.sts.session(1).await;
    assert_eq!(next_of(&stage, &call.uuid).await, (200, String::new()));
}

#[tokio::test]
async fn a_transfer_that_nobody_asks_for_is_a_warning_that_names_dials_g() {
    let stage = Stage::set(&[DETAILS, PEOPLE]).await;
    let (asked, missed) = (announced_call(&stage).await, announced_call(&stage).await);
    for call in [&asked, &missed] {
        Tools::of(&stage.service).transferred(&call.uuid, "100").await;
        call.session.close().await;
        call.ear.hung_up().await;
    }
    assert_eq!(next_of(&stage, &asked.uuid).await.1, "people,100,1");
    let nobody =
        |line: &Value| line["message"].to_string().contains("nobody asked where to transfer");
    let line = stage.service.log_line(nobody).await;
    assert_eq!(
        (level(&line), line["uuid"].as_str()),
        ("warn".to_owned(), Some(missed.uuid.as_str()))
    );
    assert!(line["message"].to_string().contains(",,g)"), "{line}");
    assert_eq!(stage.service.log_so_far().iter().filter(|line| nobody(line)).count(), 1);
}

#[tokio::test]
async fn a_restart_between_a_transfer_and_next_changes_nothing() {
    let (journal, receiver) = (Journal::new(), Receiver::content().await);
    let sts = Sts::start(Manner::Usual).await;
    let vars = [("STS_URL", sts.url.as_str()), PEOPLE];
    let service = journal.serve(&receiver.url, &vars).await;
    let stage = Stage { receiver, sts, service };
    let call = announced_call(&stage).await;
    Tools::of(&stage.service).transferred(&call.uuid, "200").await;
    call.session.close().await;
    call.ear.hung_up().await;
    let Stage { receiver, sts, service } = stage;
    kill(service).await;
    let vars = [("STS_URL", sts.url.as_str())];
    let service = journal.serve(&receiver.url, &vars).await;
    let stage = Stage { receiver, sts, service };
    assert_eq!(next_of(&stage, &call.uuid).await, (200, "people,200,1".to_owned()));
}

/// callhook's port for Asterisk alone, with a journal on this disk.
async fn bridge_on(
    disk: &Disk,
    sts: &Sts,
    calls: &Arc<Calls>,
) -> (std::net::SocketAddr, JoinSet<()>) {
    let (queue, journal, _) = Taker::of(disk).opened().queue(settings());
    let metrics = Arc::new(BridgeMetrics::default());
    let bridge = Arc::new(Bridge {
        queue,
        history: History::default(),
        ends: Ends { calls: Arc::clone(calls), journal },
        fallback: Some(sts.url.parse().unwrap()),
        settings: CallSettings {
            listen: ListenAddress { host: String::new(), port: 0 },
            codec: AudioCodec::Auto,
            idle_timeout: Duration::from_secs(300),
            max_duration: None,
            ended_details: true,
        },
        connector: RwLock::default(),
        clock: Arc::new(Clock::new(metrics.playout.clone())),
        metrics,
        refused: RefusedCalls::default(),
        recording: TaskTracker::new(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(bridge.serve(listener, CancellationToken::new()));
    (address, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialplan_that_asks_at_once_gets_the_destination_each_time_though_the_disk_is_slow() {
    const TIMES: usize = 1000;
    let (disk, sts, calls) =
        (Disk::default(), Sts::start(Manner::Usual).await, Arc::new(Calls::default()));
    let (address, _serving) = bridge_on(&disk, &sts, &calls).await;
    disk.slow_down(Duration::from_millis(50));
    let sts = Arc::new(sts);
    let mut dialplans = JoinSet::new();
    for lane in 0..50 {
        let (sts, calls) = (Arc::clone(&sts), Arc::clone(&calls));
        dialplans.spawn(async move {
            for nth in (lane..TIMES).step_by(50) {
                let uuid = new_uuid();
                let call: CallId = uuid.parse().unwrap();
                calls.next_of(call).await;
                let mut asterisk = Asterisk::connect(address).await;
                assert!(asterisk.uuid(&uuid).await);
                let session = sts.session_of(&uuid).await;
                let to = Destination::new("people", &nth.to_string()).unwrap();
                let request = CallRequest::Transfer(Some(to.clone()));
                calls.ask(call, request, tokio::time::Instant::now()).unwrap();
                session.close().await;
                asterisk.ear().closed().await;
                assert_eq!(calls.next_of(call).await, Some(Some(to)), "{nth}");
            }
        });
    }
    while let Some(done) = dialplans.join_next().await {
        done.unwrap();
    }
}
