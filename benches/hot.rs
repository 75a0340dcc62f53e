//! What callhook does for every event and every 20 ms of a call, a function at a time: how long it takes,
//! and how often it allocates. `cargo bench --bench hot` runs all in a few seconds; a word behind `--`
//! picks those whose name has it.
//!
//! What is measured is pure: no socket, and no disk but the journal's. What Asterisk says is what it was seen to say
//! (`tests/captures`). The allocations are exact, the times are of this machine, with the counting in
//! them: what is freed by dropping a result is not counted, what is freed on the way is.
//!
//! Left to `scripts/bench.sh`: what all of it together costs, sockets included.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callhook::delivery::trace::ProcessId;
use callhook::event::{CallId, Event, EventId, EventType, Item, Origin, Payload};
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Calls that take turns where lanes matter: as many as a busy PBX has at a time.
const CALLS: u128 = 100;

/// A request as Asterisk sent it.
const ANNOUNCEMENT: &str = include_str!("../tests/captures/chan-sip-ulaw.http");

/// The bytes that Asterisk sent in a call, of each coding that usually comes.
const SLIN: &str = include_str!("../tests/captures/chan-local-slin.jsonl");
const ULAW: &str = include_str!("../tests/captures/chan-sip-ulaw.jsonl");

/// How long each is measured, unless `--min-time` says otherwise: the times are noisy below.
const TIME: Duration = Duration::from_millis(200);

fn main() {
    divan::Divan::default().min_time(TIME).config_with_args().main();
}

fn announcement() -> &'static str {
    let (_, body) = ANNOUNCEMENT.split_once("\r\n\r\n").expect("a head ends with an empty line");
    body
}

/// A frame from the middle of a call, as it was read from its connection.
fn frame(capture: &str) -> Vec<u8> {
    let line = capture.lines().nth(100).expect("the call lasted for longer");
    let read: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
    let bytes = read["b64"].as_str().expect("each line has what was read");
    STANDARD.decode(bytes).expect("it is base64")
}

/// Its samples.
fn samples(capture: &str) -> Vec<u8> {
    frame(capture).split_off(callhook::audiosocket::HEADER)
}

fn call(nth: u128) -> CallId {
    CallId::from_bytes((nth + 1).to_be_bytes())
}

fn transcript() -> Payload {
    Payload::of(&json!({"role": "user", "text": "I would like to move my appointment to Friday."}))
}

fn transcription(nth: u128) -> Event {
    Event::now(call(nth % CALLS), EventType::Transcription, &transcript())
}

mod event {
    use super::*;
    use callhook::http::{body, events};

    /// A payload of callhook's own making.
    #[divan::bench]
    fn payload() -> Payload {
        transcript()
    }

    /// The envelope around it, with a new id and the time.
    #[divan::bench]
    fn now(bencher: Bencher<'_, '_>) {
        let payload = transcript();
        let length = transcription(0).body.len();
        bencher
            .counter(BytesCount::new(length))
            .bench(|| Event::now(call(0), EventType::Transcription, black_box(&payload)));
    }

    /// The time, as an event has it.
    #[divan::bench]
    fn timestamp() -> String {
        callhook::time::timestamp_now()
    }

    /// As an event from elsewhere has it.
    #[divan::bench]
    fn timestamp_given() -> Option<usize> {
        callhook::time::iso_8601_fraction(black_box("2026-01-31T12:00:00.000Z"))
    }

    /// The same around a payload that somebody sent: a body of `POST /events`.
    #[divan::bench]
    fn from_body(bencher: Bencher<'_, '_>) {
        let body = transcription(0).body;
        bencher.counter(BytesCount::new(body.len())).bench(|| {
            let json = body::strict_json(black_box(&body)).expect("it is JSON");
            events::read(EventId::make(), json).expect("it is an event")
        });
    }
}

mod attempt {
    use super::*;
    use callhook::attempt::Attempt;
    use callhook::delivery::signature::{Signed, SigningKeys};
    use callhook::delivery::{Webhook, WebhookSettings};

    fn key() -> SigningKeys {
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("it is a key")
    }

    #[divan::bench]
    fn signature(bencher: Bencher<'_, '_>) {
        let (key, event) = (key(), transcription(0));
        let (id, now) = (event.id.to_string(), SystemTime::now());
        bencher
            .counter(BytesCount::new(event.body.len()))
            .bench(|| -> Signed { key.sign(black_box(&id), now, black_box(&event.body)) });
    }

    /// The whole request, signed.
    #[divan::bench]
    fn request(bencher: Bencher<'_, '_>) {
        let url = "http://127.0.0.1:9000/webhook".parse().expect("it is a URL");
        let settings = WebhookSettings {
            secret: Some("a secret of the usual length".into()),
            signing_keys: Some(key()),
            ..WebhookSettings::to(url, Duration::from_secs(3))
        };
        let webhook =
            Webhook::new(settings, None, ProcessId::random()).expect("http needs no certificates");
        let item = Item::new(Arc::new(transcription(0)), 0, Origin::Relayed);
        let item = Item { sequence: 7, ..item };
        let attempt = Attempt { item, probe: false, timeout: Duration::from_secs(3) };
        bencher.bench(|| webhook.request(black_box(&attempt)));
    }
}

mod audiosocket {
    use super::*;
    use callhook::audiosocket::{FRAME_AUDIO, audio_frame, read};

    #[divan::bench]
    fn decode(bencher: Bencher<'_, '_>) {
        let frame = frame(SLIN);
        bencher
            .counter(BytesCount::of_slice(&frame))
            .bench(|| read(black_box(&frame)).expect("it is a frame").is_some());
    }

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let samples: [u8; FRAME_AUDIO] = samples(SLIN).try_into().expect("it takes 20 ms");
        bencher.counter(BytesCount::of_slice(&samples)).bench(|| audio_frame(black_box(&samples)));
    }
}

mod sts {
    use super::*;
    use callhook::audiosocket::{FRAME_AUDIO, RATE};
    use callhook::bridge::AudioCodec;
    use callhook::bridge::caller::CallerAudio;
    use callhook::bridge::codec::Codec;
    use callhook::sts::{Said, audio, decode_audio, read};
    use tokio::time::Instant;

    /// A message with a caller's frame.
    #[divan::bench]
    fn outgoing(bencher: Bencher<'_, '_>) {
        let samples = samples(SLIN);
        bencher.counter(BytesCount::of_slice(&samples)).bench(|| audio(black_box(&samples)));
    }

    /// From a frame of the caller's coding to the message, once the coding is known.
    #[divan::bench(args = ["slin", "ulaw", "slin16"])]
    fn caller(bencher: Bencher<'_, '_>, coding: &str) {
        let (codec, rate, frame) = match coding {
            "ulaw" => (Codec::Ulaw, RATE, samples(ULAW)),
            "slin16" => (Codec::Slin, 2 * RATE, samples(SLIN).repeat(2)),
            _ => (Codec::Slin, RATE, samples(SLIN)),
        };
        let mut caller = CallerAudio::new(AudioCodec::Fixed(codec));
        let now = Instant::now();
        bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
            let mut message = None;
            caller.hear(rate, black_box(&frame), now, |pcm| message = Some(audio(pcm)));
            message
        });
    }

    /// A server's message: 20 ms of audio, or the second that some send at a time.
    #[divan::bench(args = [FRAME_AUDIO, 50 * FRAME_AUDIO])]
    fn incoming(bencher: Bencher<'_, '_>, bytes: usize) {
        let message = audio(&samples(SLIN).repeat(bytes / FRAME_AUDIO));
        let mut pcm = Vec::with_capacity(bytes);
        bencher.counter(BytesCount::new(bytes)).bench_local(|| {
            let Said::Audio(base64) = read(black_box(&message)) else {
                unreachable!("it is audio");
            };
            assert!(decode_audio(&base64, &mut pcm), "it is base64");
        });
    }
}

mod playout {
    use super::*;
    use callhook::audiosocket::FRAME_AUDIO;
    use callhook::bridge::playout::Playout;

    /// A message of so many frames comes in, and each of its ticks takes one out.
    #[divan::bench(args = [1, 50])]
    fn ticks(bencher: Bencher<'_, '_>, frames: usize) {
        let message = samples(SLIN).repeat(frames);
        let mut playout = Playout::default();
        bencher.counter(ItemsCount::new(frames)).bench_local(|| {
            assert_eq!(playout.add(black_box(&message)), 0, "there is room");
            for _ in 0..frames {
                let frame: Option<[u8; FRAME_AUDIO]> = black_box(playout.tick());
                assert!(frame.is_some(), "there is something to play");
            }
        });
    }
}

mod routing {
    use super::*;
    use callhook::http::call::parse;
    use callhook::routing::{AllowedHosts, DecisionReader, RouteRules, StsUrl, decision, route};

    const ANSWER: &[u8] = br#"{"sts_url":"wss://sts.example:6030/agent?voice=anna&to=5001"}"#;

    fn rules() -> RouteRules {
        let hosts = ["10.0.0.7:6030", "sts.example"];
        let hosts = hosts.map(|host| host.parse().expect("it is a host")).into();
        RouteRules { hosts: AllowedHosts::Only(hosts), people: None }
    }

    /// The body of a `POST /call`.
    #[divan::bench]
    fn announced(bencher: Bencher<'_, '_>) {
        let body = announcement().as_bytes();
        bencher
            .counter(BytesCount::of_slice(body))
            .bench(|| parse(black_box(body)).expect("Asterisk sent it"));
    }

    /// The receiver's answer.
    #[divan::bench]
    fn decided(bencher: Bencher<'_, '_>) {
        let rules = rules();
        bencher
            .counter(BytesCount::of_slice(ANSWER))
            .bench(|| decision(black_box(ANSWER), &rules).decision.expect("it may be followed"));
    }

    /// The same answer as to the call before.
    #[divan::bench]
    fn decided_again(bencher: Bencher<'_, '_>) {
        let reader = DecisionReader::new(rules());
        bencher
            .counter(BytesCount::of_slice(ANSWER))
            .bench(|| reader.read(black_box(ANSWER)).0.expect("it may be followed"));
    }

    /// The URL that Asterisk is told, by that answer or by `STS_URL`.
    #[divan::bench(args = ["decision", "fallback"])]
    fn url(bencher: Bencher<'_, '_>, by: &str) {
        let (_, payload) = parse(announcement().as_bytes()).expect("Asterisk sent it");
        let decision = decision(ANSWER, &rules()).decision;
        let decision = decision.filter(|_| by == "decision");
        let fallback: StsUrl = "ws://127.0.0.1:6030".parse().expect("it is an STS URL");
        bencher.bench(|| route(decision.as_ref(), Some(&fallback), black_box(&payload)));
    }
}

mod queue {
    use super::*;
    use callhook::attempt::{Attempt, Deliver, Outcome};
    use callhook::history::History;
    use callhook::journal::{Journal, Recovered};
    use callhook::queue::dispatcher::Dispatcher;
    use callhook::queue::{Limits, Queue, QueueParts, QueueSettings, ReceiverRules};
    use callhook::receiver::Receivers;
    use callhook::retry::{Delays, RetryPolicy};
    use callhook::routing::RouteRules;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use tokio::time::Instant;

    fn policy() -> RetryPolicy {
        RetryPolicy::new(3, Delays::fixed(Duration::from_millis(500), Duration::from_secs(30)))
    }

    fn item(nth: u128) -> Item {
        let place = u64::try_from(nth).expect("nobody counts so far");
        Item::new(Arc::new(transcription(nth)), place, Origin::Relayed)
    }

    /// A lane's step: an event comes in, the oldest of so many others is due, is sent, is delivered.
    #[divan::bench(args = [0, 10_000])]
    fn lane(bencher: Bencher<'_, '_>, waiting: u128) {
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(Limits::default(), policy());
        for nth in 0..waiting {
            dispatcher.accept(&mut item(nth), None, now);
        }
        let mut nth = waiting;
        let input = || {
            nth += 1;
            item(nth)
        };
        bencher.counter(ItemsCount::new(1_usize)).with_inputs(input).bench_local_values(|item| {
            let mut item = item;
            dispatcher.accept(&mut item, None, now);
            let due = dispatcher.next(now).expect("an event is due");
            dispatcher.delivered(&due, Duration::ZERO, now);
            dispatcher.settle(due.item.event.call, now);
            due
        });
    }

    /// A receiver that is there at once.
    struct Swift;

    impl Deliver for Swift {
        fn attempt(&self, _: Attempt) -> BoxFuture<'static, Outcome> {
            std::future::ready(Outcome::Delivered { status: 200, answer: None }).boxed()
        }
    }

    /// The same with all that is around a lane but the journal's file: the task of the attempt, the
    /// metrics, the memory of recent calls.
    #[divan::bench]
    fn whole(bencher: Bencher<'_, '_>) {
        let settings = QueueSettings {
            receivers: vec![ReceiverRules { retry: policy(), ..ReceiverRules::default() }],
            relay_timeout: std::time::Duration::from_secs(5),
            rules: RouteRules::ANYWHERE,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime can be built");
        let queue = runtime.block_on(async {
            let parts = QueueParts {
                deliver: vec![Some(Arc::new(Swift))],
                journal: Arc::new(Journal::in_memory(&Receivers::main(), 1)),
                history: History::of_calls(1000),
                metrics: Arc::default(),
            };
            Queue::start(settings, parts, Recovered::default())
        });
        let mut nth = 0;
        let input = || {
            nth += 1;
            vec![transcription(nth)]
        };
        bencher.counter(ItemsCount::new(1_usize)).with_inputs(input).bench_local_values(|events| {
            runtime.block_on(async {
                let receipt = queue.accept(events).expect("there is room");
                while queue.unsettled() > 0 {
                    tokio::task::yield_now().await;
                }
                receipt
            })
        });
    }
}

mod journal {
    use super::{ItemsCount, transcription};
    use std::sync::Arc;

    use callhook::event::{Item, Origin, Share};
    use callhook::journal::Journal;
    use callhook::receiver::Receivers;
    use divan::Bencher;

    const EVENTS: usize = 1000;

    /// Of so many receivers, with what an event for each of them is.
    fn receivers(count: usize) -> Receivers {
        let names = ["main", "crm", "n8n"].into_iter().take(count);
        Receivers::new(names.map(|name| name.parse().expect("it is a name")))
    }

    fn items(receivers: &Receivers, first: u64) -> Vec<Item> {
        let count = receivers.iter().len() as u64;
        let events = (0..EVENTS as u64).map(|nth| (nth, Arc::new(transcription(nth.into()))));
        let items = events.flat_map(|(nth, event)| {
            receivers.iter().zip(0..).map(move |((receiver, _), copy)| {
                let place = first + nth * count + u64::from(copy);
                let share = if count == 1 { Share::Own } else { Share::Nth(copy) };
                let item = Item::new(Arc::clone(&event), place, Origin::Relayed);
                Item { receiver, share, sequence: nth + 1, ..item }
            })
        });
        items.collect()
    }

    /// A thousand events for so many receivers come to the disk, and are taken off it again.
    #[divan::bench(args = [1, 3], sample_count = 30)]
    fn thousand(bencher: Bencher<'_, '_>, count: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime can be built");
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("journal.redb");
        let receivers = receivers(count);
        let (journal, _) = Journal::in_file(&path, &receivers, 1).expect("a new journal");
        let mut first = 0;
        let input = || {
            first += (EVENTS * count) as u64;
            items(&receivers, first)
        };
        bencher.counter(ItemsCount::new(EVENTS)).with_inputs(input).bench_local_values(|items| {
            let places: Vec<u64> = items.iter().map(|item| item.place).collect();
            assert!(runtime.block_on(journal.put(items, Vec::new()).kept()));
            let gone: Vec<_> =
                places.iter().filter_map(|place| journal.delivered(*place)).collect();
            gone.into_iter().for_each(|ticket| assert!(runtime.block_on(ticket.kept())));
        });
    }
}
