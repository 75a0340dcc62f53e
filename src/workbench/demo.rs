//! `callhook demo`: everything in one process, on free ports of this machine.
//!
//! Three calls at once, as a dialplan makes them: `POST /call`, then AudioSocket. An agent of the demo's
//! own speaks to the callers, is interrupted and hears keys; the receiver routes one call elsewhere and
//! fails twice for another. What the receiver saw is printed as a timeline. Ends with success only if
//! every event arrived, in the order of its call, and every caller heard the agent.

mod agent;
mod phone;
mod speech;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{bail, ensure};
use axum::http::StatusCode;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::agent::{Agent, Turn};
use self::phone::{Exchange, Impression, Step};
use super::receive::{Answer, Behaviour, Ended, Notice, Received, Receiver};
use crate::app::App;
use crate::config::Settings;
use crate::event::CallId;
use crate::wire::client_builder;

/// How long the demo waits for the next event before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the receiver fails for the third call.
const FAULTS: u32 = 2;

/// A call that the demo plays.
struct Script {
    name: &'static str,
    from: &'static str,
    /// When it begins, in milliseconds.
    after: u64,
    /// What the caller does.
    caller: Vec<Step>,
    /// The events that must come of it.
    events: Vec<&'static str>,
}

/// Plays the calls and prints the timeline.
///
/// # Errors
/// Where an event is missing or out of order, or nothing could be started.
pub async fn run() -> anyhow::Result<()> {
    let agent = Agent::bind(part_for).await?;
    let mut receiver = Receiver::start("127.0.0.1", 0, behaviour(agent.address)).await?;
    let app = App::start(settings(receiver.address, agent.address)?).await?;
    println!(
        "callhook listens on http://{} and for AudioSocket on {},\nan agent on ws://{}, a receiver on \
         http://{}",
        app.front(),
        app.audio(),
        agent.address,
        receiver.address
    );
    println!("three calls; the receiver routes bob elsewhere and fails twice for carol\n");
    let stop = CancellationToken::new();
    let playing = async {
        let played = play(&app, &mut receiver).await;
        stop.cancel();
        played
    };
    let (played, ()) = tokio::join!(playing, agent.serve(stop.clone()));
    app.stop().await;
    receiver.stop().await;
    println!("\n{}", played?);
    Ok(())
}

/// Plays the calls, and checks what came of them; the last line to print.
async fn play(app: &App, receiver: &mut Receiver) -> anyhow::Result<String> {
    let scripts = scripts();
    let calls: Vec<CallId> = scripts.iter().map(|_| CallId::random()).collect();
    let names: BTreeMap<String, &str> =
        calls.iter().zip(&scripts).map(|(id, script)| (id.to_string(), script.name)).collect();
    let expected: usize = scripts.iter().map(|script| script.events.len()).sum();
    let exchange =
        Exchange { http: client_builder("http").build()?, front: app.front(), audio: app.audio() };
    let playing = calls.iter().zip(&scripts).map(|(call, script)| {
        let after = Duration::from_millis(script.after);
        exchange.call(*call, script.from, after, &script.caller)
    });
    let watching = watch(receiver, &names, expected);
    let (impressions, seen) = tokio::try_join!(try_join_all(playing), watching)?;
    println!();
    for (script, Impression { route, heard }) in scripts.iter().zip(&impressions) {
        let heard = heard.as_secs_f64();
        println!("{:<6} heard {heard:.2} s of the agent, and was told {route}", script.name);
        ensure!(heard > 0.0, "{} did not hear the agent", script.name);
    }
    check_order(&scripts, &names, &seen)?;
    Ok(format!("{expected} events of {} calls arrived, each call in its order", scripts.len()))
}

fn settings(receiver: SocketAddr, agent: SocketAddr) -> anyhow::Result<Settings> {
    let environment = [
        ("WEBHOOK_URL", format!("http://{receiver}/events")),
        ("WEBHOOK_RETRY", "3".to_owned()),
        ("WEBHOOK_BACKOFF", "150".to_owned()),
        ("STS_URL", format!("ws://{agent}")),
        ("HTTP_HOST", "127.0.0.1".to_owned()),
        ("HTTP_PORT", "0".to_owned()),
        ("AUDIOSOCKET_HOST", "127.0.0.1".to_owned()),
        ("PORT", "0".to_owned()),
        ("ADMIN_PORT", "0".to_owned()),
        ("JOURNAL_PATH", "none".to_owned()),
        ("CALL_ENDED_DETAILS", "true".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    Settings::of_environment(&environment).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

/// Routes bob elsewhere, and fails for carol's `call_started` twice.
fn behaviour(agent: SocketAddr) -> Behaviour {
    let elsewhere = format!("ws://{agent}/vip?language=it");
    let faults = Mutex::new(FAULTS);
    let carol = Mutex::new(None::<String>);
    Arc::new(move |received: &Received| {
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
            sts_url: (from == Some("2002")).then(|| elsewhere.clone()),
            ..Answer::default()
        }
    })
}

/// What the agent does for a caller of this number.
fn part_for(from: &str) -> Vec<Turn> {
    match from {
        "2001" => vec![
            Turn::Says("Good morning, how can I help?", 700),
            Turn::Hears("A table for two, tonight at eight."),
            Turn::Says("Booked. Anything else?", 500),
        ],
        "2002" => vec![
            Turn::Says("Buongiorno! Per prenotare prema uno, per cambiare…", 3000),
            Turn::IsInterrupted,
            Turn::WaitsForKey,
            Turn::Says("Grazie, a presto.", 400),
        ],
        _ => vec![
            Turn::Says("Hello, you have reached the clinic. Hash ends the call.", 400),
            Turn::WaitsForKey,
            Turn::HangsUp,
        ],
    }
}

fn scripts() -> Vec<Script> {
    vec![
        Script {
            name: "alice",
            from: "2001",
            after: 0,
            caller: vec![Step::HearsOut, Step::Says(500), Step::HearsOut],
            events: vec![
                "call_initiated",
                "call_started",
                "transcription",
                "transcription",
                "transcription",
                "call_ended",
            ],
        },
        Script {
            name: "bob",
            from: "2002",
            after: 60,
            caller: vec![
                Step::Hears(600),
                Step::Says(300),
                Step::Waits(100),
                Step::Presses('1'),
                Step::HearsOut,
            ],
            events: vec![
                "call_initiated",
                "call_started",
                "transcription",
                "interruption",
                "dtmf_digit",
                "transcription",
                "call_ended",
            ],
        },
        Script {
            name: "carol",
            from: "2003",
            after: 110,
            caller: vec![Step::HearsOut, Step::Presses('#'), Step::StaysOn],
            events: vec![
                "call_initiated",
                "call_started",
                "transcription",
                "dtmf_digit",
                "call_ended",
            ],
        },
    ]
}

/// Prints what arrives until the expected number of events was answered with 2xx.
async fn watch(
    receiver: &mut Receiver,
    names: &BTreeMap<String, &str>,
    expected: usize,
) -> anyhow::Result<Vec<Ended>> {
    let begun = Instant::now();
    let mut delivered = Vec::new();
    while delivered.len() < expected {
        let Ok(Some(notice)) = timeout(PATIENCE, receiver.notices.recv()).await else {
            bail!("only {} of {expected} events arrived", delivered.len());
        };
        // Nothing else is sent here, and no answer takes its time.
        let Notice::Ended(ended) = notice else { continue };
        println!("{}", line(&ended, begun, names));
        if ended.answer.status.is_success() {
            delivered.push(*ended);
        }
    }
    Ok(delivered)
}

fn line(ended: &Ended, begun: Instant, names: &BTreeMap<String, &str>) -> String {
    let (received, status) = (&ended.received, ended.answer.status);
    let event = &received.event;
    let attempt = received.attempt().unwrap_or_default();
    let sequence = received.sequence().unwrap_or_default();
    let name = names.get(&event.uuid).copied().unwrap_or("?");
    let after = received.at.duration_since(begun).as_secs_f64();
    let fault = if status.is_success() {
        String::new()
    } else {
        format!("   → {} on attempt {attempt}, will be tried again", status.as_u16())
    };
    let again = if attempt > 1 && status.is_success() { "   → 200 at last" } else { "" };
    format!(
        "{after:6.3} s  {name:<6} #{sequence} {:<14} {}{fault}{again}",
        event.kind, event.payload
    )
}

fn check_order(
    scripts: &[Script],
    names: &BTreeMap<String, &str>,
    seen: &[Ended],
) -> anyhow::Result<()> {
    for script in scripts {
        let arrived: Vec<&str> = seen
            .iter()
            .map(|ended| &ended.received.event)
            .filter(|event| names.get(&event.uuid) == Some(&script.name))
            .map(|event| event.kind.as_str())
            .collect();
        let expected = &script.events;
        ensure!(
            arrived == *expected,
            "{}: {expected:?} should have arrived, but {arrived:?} did",
            script.name
        );
    }
    Ok(())
}
