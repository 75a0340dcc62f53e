//! Connections to the receiver: those that are kept, those that break, and those that grow old.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callhook::attempt::{Attempt, Deliver as _, Outcome};
use callhook::delivery::trace::ProcessId;
use callhook::delivery::{Webhook, WebhookSettings};
use callhook::event::{CallId, Event, EventType, Item, Origin, Payload};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::event::{bare, new_uuid};
use crate::support::flawed::{read_request, write_answer};
use crate::support::record::Record;
use crate::support::service::{Service, serve};

/// How a connection ends when its second request came.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
    /// After the first byte of an answer.
    MidAnswer,
    /// Not at all: every request is answered.
    Never,
}

/// A receiver that answers the first request of each connection and breaks it at the second.
struct Breaker {
    url: String,
    /// Requests that were answered, and how many were not.
    answered: Arc<Record<Value>>,
    broken: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Breaker {
    async fn start(end: End) -> Breaker {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/events", listener.local_addr().expect("an address"));
        let answered = Arc::<Record<Value>>::default();
        let (broken, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        let (book, breaks, opened) = (answered.clone(), broken.clone(), connections.clone());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::SeqCst);
                open.spawn(converse(stream, end, Arc::clone(&book), Arc::clone(&breaks)));
            }
        });
        Breaker { url, answered, broken, connections, _tasks: tasks }
    }

    fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn answered(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} answers");
        self.answered.until(&what, |seen| (seen.len() >= count).then(|| seen.to_vec())).await
    }
}

async fn converse(
    mut stream: TcpStream,
    end: End,
    answered: Arc<Record<Value>>,
    broken: Arc<AtomicUsize>,
) {
    let mut first = true;
    while let Some(body) = read_request(&mut stream).await {
        if first || matches!(end, End::Never) {
            first = false;
            // Before the answer, so that it is there when the sender goes on.
            answered.push(serde_json::from_str(&body).expect("JSON"));
            write_answer(&mut stream, "200 OK").await;
            continue;
        }
        broken.fetch_add(1, Ordering::SeqCst);
        match end {
            End::MidAnswer => stream.write_all(b"H").await.expect("the sender waits"),
            End::Reset => stream.set_zero_linger().expect("SO_LINGER can be set"),
            End::Fin | End::Never => {}
        }
        return;
    }
}

async fn dead_letters(service: &Service) -> usize {
    let answer = service.ask_admin("GET", "/api/dead", &[]).await;
    answer.json()["items"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_kept_connection_that_breaks_unanswered_costs_no_event_and_no_attempt() {
    for end in [End::Fin, End::Reset] {
        let receiver = Breaker::start(end).await;
        let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "0")]).await;
        let uuid = new_uuid();
        for _ in 0..20 {
            service.relay(bare(&uuid, "dtmf_digit")).await;
        }
        receiver.answered(20).await;
        service.relay(bare(&uuid, "call_ended")).await;
        let answered = receiver.answered(21).await;
        assert_eq!(answered.len(), 21, "{end:?}: each was answered once");
        assert_eq!(answered[20]["type"], "call_ended", "{end:?}: in order");
        assert!(receiver.broken() > 0, "{end:?}: connections are kept");
        assert_eq!(dead_letters(&service).await, 0, "{end:?}");
        let failed = |line: &Value| line["code"] == "ECONNRESET";
        assert!(!service.log_so_far().iter().any(failed), "{end:?}: no attempt failed");
    }
}

#[tokio::test]
async fn an_attempt_is_not_made_again_once_a_byte_of_its_answer_came() {
    let receiver = Breaker::start(End::MidAnswer).await;
    let service = serve(&receiver.url, &[("WEBHOOK_RETRY", "0")]).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    receiver.answered(1).await;
    service.relay(bare(&uuid, "call_ended")).await;
    let failed = |line: &Value| line["message"] == "webhook delivery failed";
    let line = service.log_line(failed).await;
    assert_eq!((&line["code"], &line["type"]), (&"ECONNRESET".into(), &"call_ended".into()));
    assert_eq!((receiver.broken(), receiver.answered(1).await.len()), (1, 1));
}

fn attempt(number: u64) -> Attempt {
    let event = Event::now(CallId::random(), EventType::DtmfDigit, &Payload::empty());
    let item = Item::new(Arc::new(event), number, Origin::Relayed);
    let item = Item { sequence: number, ..item };
    Attempt { item, probe: false, timeout: Duration::from_secs(10) }
}

/// Lets that much time pass for all who look at Tokio's clock.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_connection_is_used_for_a_minute_at_most_and_a_new_one_follows_the_name() {
    let receiver = Breaker::start(End::Never).await;
    let webhook = Webhook::new(settings(&receiver), None, ProcessId::random())
        .expect("http needs no certificates");
    // Steady traffic: no pause of 4 s, after which connections are closed anyway. Real time passes as well.
    for second in (0..=60).step_by(2) {
        let outcome = webhook.attempt(attempt(second + 1)).await;
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
        assert!(second > 50 || receiver.connections() == 1, "kept after {second} s");
        pass(Duration::from_secs(2)).await;
    }
    assert_eq!(receiver.connections(), 2, "not after a minute");
}

#[tokio::test]
async fn a_connection_is_closed_after_four_seconds_without_a_request() {
    let receiver = Breaker::start(End::Never).await;
    let webhook = Webhook::new(settings(&receiver), None, ProcessId::random())
        .expect("http needs no certificates");
    webhook.attempt(attempt(1)).await;
    pass(Duration::from_secs(4)).await;
    webhook.attempt(attempt(2)).await;
    assert_eq!(receiver.connections(), 2);
}

fn settings(receiver: &Breaker) -> WebhookSettings {
    let url = WebhookSettings::read_url(&receiver.url).expect("a URL");
    WebhookSettings::to(url, Duration::from_secs(10))
}
