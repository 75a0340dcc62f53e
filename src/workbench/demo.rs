//! `callhook demo`: everything in one process, on free ports of this machine.
//!
//! Three calls with overlapping life cycles go through the real HTTP front to a receiver, which
//! routes one of them elsewhere and fails twice for another. What the receiver saw is printed as a
//! timeline. Ends with success only if every event arrived, in the order of its call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::receive::{Answer, Behaviour, Received, Receiver};
use crate::app::App;
use crate::config::Settings;
use crate::delivery::client_builder;
use crate::event::CallId;

/// How long the demo waits for the next event before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(10);

const FALLBACK: &str = "ws://sts.example:6030";
const ELSEWHERE: &str = "wss://vip.example/agent?language=it";

/// How often the receiver fails for the third call.
const FAULTS: u32 = 2;

/// One step of a call: how long after the last one, the event's type, and its payload.
type Step = (u64, &'static str, Value);

/// A call that the demo plays.
struct Script {
    name: &'static str,
    from: &'static str,
    starts_after: u64,
    steps: Vec<Step>,
}

/// Plays the calls and prints the timeline.
///
/// # Errors
/// Where an event is missing or out of order, or nothing could be started.
pub async fn run() -> anyhow::Result<()> {
    let mut receiver = Receiver::start("127.0.0.1", 0, behaviour()).await?;
    let app = App::start(settings(receiver.address)?).await?;
    println!(
        "callhook listens on http://{}, a receiver on http://{}",
        app.front(),
        receiver.address
    );
    println!("three calls; the receiver routes bob elsewhere and fails twice for carol\n");
    let scripts = scripts();
    let calls: Vec<CallId> = scripts.iter().map(|_| CallId::random()).collect();
    let names: BTreeMap<String, &str> =
        calls.iter().zip(&scripts).map(|(id, script)| (id.to_string(), script.name)).collect();
    let expected: usize = scripts.iter().map(|script| script.steps.len() + 1).sum();
    let client = Client { http: client_builder("http").build()?, front: app.front() };
    let playing = calls.iter().zip(&scripts).map(|(call, script)| client.play(*call, script));
    let playing = futures_util::future::try_join_all(playing);
    let (answers, seen) = tokio::try_join!(playing, watch(&mut receiver, &names, expected))?;
    println!();
    for (script, answer) in scripts.iter().zip(&answers) {
        println!("{:<6} was told {answer}", script.name);
    }
    app.stop().await;
    receiver.stop().await;
    check_order(&scripts, &names, &seen)?;
    println!("\n{expected} events of {} calls arrived, each call in its order", scripts.len());
    Ok(())
}

fn settings(receiver: SocketAddr) -> anyhow::Result<Settings> {
    let environment = [
        ("WEBHOOK_URL", format!("http://{receiver}/events")),
        ("WEBHOOK_RETRY", "3".to_owned()),
        ("WEBHOOK_BACKOFF", "150".to_owned()),
        ("STS_URL", FALLBACK.to_owned()),
        ("HTTP_HOST", "127.0.0.1".to_owned()),
        ("HTTP_PORT", "0".to_owned()),
        ("ADMIN_PORT", "0".to_owned()),
        ("JOURNAL_PATH", "none".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    Settings::of_environment(&environment).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

/// Routes bob elsewhere, and fails for carol's `call_started` twice.
fn behaviour() -> Behaviour {
    let faults = Mutex::new(FAULTS);
    let carol = Mutex::new(None::<String>);
    Arc::new(move |received| {
        let event = &received.event;
        let from = event.payload.get("from").and_then(Value::as_str);
        let mut carol = carol.lock().expect("nothing panics while it holds this lock");
        if from == Some("2003") {
            *carol = Some(event.uuid.clone());
        }
        let mut faults = faults.lock().expect("nothing panics while it holds this lock");
        let fails =
            carol.as_ref() == Some(&event.uuid) && event.kind == "call_started" && *faults > 0;
        *faults -= u32::from(fails);
        Answer {
            status: if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK },
            sts_url: (from == Some("2002")).then(|| ELSEWHERE.to_owned()),
            delay: Duration::ZERO,
        }
    })
}

fn scripts() -> Vec<Script> {
    let says = |role: &str, text: &str| json!({"role": role, "text": text});
    vec![
        Script {
            name: "alice",
            from: "2001",
            starts_after: 0,
            steps: vec![
                (30, "call_started", json!({})),
                (120, "transcription", says("agent", "Good morning, how can I help?")),
                (150, "transcription", says("user", "A table for two, tonight at eight.")),
                (140, "transcription", says("agent", "Booked. Anything else?")),
                (90, "call_ended", json!({})),
            ],
        },
        Script {
            name: "bob",
            from: "2002",
            starts_after: 60,
            steps: vec![
                (30, "call_started", json!({})),
                (100, "transcription", says("agent", "Buongiorno! Premi uno per…")),
                (60, "interruption", json!({})),
                (40, "dtmf_digit", json!({"digit": "1"})),
                (160, "call_ended", json!({})),
            ],
        },
        Script {
            name: "carol",
            from: "2003",
            starts_after: 110,
            steps: vec![
                (30, "call_started", json!({})),
                (60, "transcription", says("agent", "Hello, you have reached the clinic.")),
                (70, "dtmf_digit", json!({"digit": "#"})),
                (60, "call_ended", json!({})),
            ],
        },
    ]
}

/// The front, as Asterisk and a core reach it.
struct Client {
    http: reqwest::Client,
    front: SocketAddr,
}

impl Client {
    /// Plays one call; returns what `POST /call` answered.
    async fn play(&self, call: CallId, script: &Script) -> anyhow::Result<String> {
        let from = script.from;
        let payload =
            json!({"from": from, "to": "5001", "channel": format!("PJSIP/{from}-00000013")});
        sleep(Duration::from_millis(script.starts_after)).await;
        let answer =
            self.post("/call", json!({"uuid": call.to_string(), "payload": payload})).await?;
        for (pause, kind, payload) in &script.steps {
            sleep(Duration::from_millis(*pause)).await;
            let event = json!({"uuid": call.to_string(), "type": kind, "payload": payload});
            self.post("/events", event).await?;
        }
        Ok(answer)
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.front);
        let request = self.http.post(&url).body(body.to_string());
        let response = request.send().await.with_context(|| format!("POST {url}"))?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "POST {url} was answered {status}: {text}");
        Ok(text)
    }
}

/// Prints what arrives until the expected number of events was answered with 2xx.
async fn watch(
    receiver: &mut Receiver,
    names: &BTreeMap<String, &str>,
    expected: usize,
) -> anyhow::Result<Vec<Received>> {
    let begun = Instant::now();
    let mut delivered = Vec::new();
    while delivered.len() < expected {
        let Ok(Some(received)) = timeout(PATIENCE, receiver.received.recv()).await else {
            bail!("only {} of {expected} events arrived", delivered.len());
        };
        println!("{}", line(&received, begun, names));
        if received.status.is_success() {
            delivered.push(received);
        }
    }
    Ok(delivered)
}

fn line(received: &Received, begun: Instant, names: &BTreeMap<String, &str>) -> String {
    let event = &received.event;
    let name = names.get(&event.uuid).copied().unwrap_or("?");
    let after = received.at.duration_since(begun).as_secs_f64();
    let fault = if received.status.is_success() {
        String::new()
    } else {
        format!(
            "   → {} on attempt {}, will be tried again",
            received.status.as_u16(),
            received.attempt
        )
    };
    let again = match received.attempt {
        1 => "",
        _ if received.status.is_success() => "   → 200 at last",
        _ => "",
    };
    format!(
        "{after:6.3} s  {name:<6} #{} {:<14} {}{fault}{again}",
        received.sequence, event.kind, event.payload
    )
}

fn check_order(
    scripts: &[Script],
    names: &BTreeMap<String, &str>,
    seen: &[Received],
) -> anyhow::Result<()> {
    for script in scripts {
        let arrived: Vec<&str> = seen
            .iter()
            .filter(|received| names.get(&received.event.uuid) == Some(&script.name))
            .map(|received| received.event.kind.as_str())
            .collect();
        let mut sent = vec!["call_initiated"];
        sent.extend(script.steps.iter().map(|(_, kind, _)| *kind));
        ensure!(arrived == sent, "{}: sent {sent:?}, but {arrived:?} arrived", script.name);
    }
    Ok(())
}
