//! `callhook demo`: everything in one process, on free ports of this machine.
//!
//! Three calls at once, as a dialplan makes them: `POST /call`, then AudioSocket. An agent of the demo's
//! own speaks to the callers, is interrupted and hears keys; the receiver routes one call elsewhere and
//! fails twice for another. What the receiver saw, and further ones that get copies, is printed as a timeline. Ends
//! with success only if every event arrived at each, in the order of its call, and every caller heard the agent.

mod agent;
mod phone;
mod speech;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{bail, ensure};
use axum::http::StatusCode;
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::agent::{Agent, Turn};
use self::phone::{CallerStep, Dialplan, Impression};
use super::receive::{Conduct, Ending, EventBody, Notice, Received, Receiver, Reply};
use crate::app::App;
use crate::config::Settings;
use crate::event::CallId;
use crate::output::print_line;
use crate::receiver::MOST_RECEIVERS;
use crate::wire::client_builder;

/// How long the demo waits for the next event before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the receiver fails for the third call.
const FAULTS: u32 = 2;

/// A call that the demo plays.
struct DemoCall {
    name: &'static str,
    from: &'static str,
    /// When it begins, in milliseconds.
    after: u64,
    agent: &'static [Turn],
    caller: &'static [CallerStep],
    /// The events that must come of it.
    events: &'static [&'static str],
}

const CALLS: [DemoCall; 3] = [
    DemoCall {
        name: "alice",
        from: "2001",
        after: 0,
        agent: &[
            Turn::Says("Good morning, how can I help?", 700),
            Turn::Hears("A table for two, tonight at eight."),
            Turn::Says("Booked. Anything else?", 500),
        ],
        caller: &[CallerStep::HearsOut, CallerStep::Says(500), CallerStep::HearsOut],
        events: &[
            "call_initiated",
            "call_started",
            "transcription",
            "transcription",
            "transcription",
            "call_ended",
        ],
    },
    DemoCall {
        name: "bob",
        from: "2002",
        after: 60,
        agent: &[
            Turn::Says("Buongiorno! Per prenotare prema uno, per cambiare…", 3000),
            Turn::IsInterrupted,
            Turn::WaitsForKey,
            Turn::Says("Grazie, a presto.", 400),
        ],
        caller: &[
            CallerStep::Hears(600),
            CallerStep::Says(300),
            CallerStep::Waits(100),
            CallerStep::Presses('1'),
            CallerStep::HearsOut,
        ],
        events: &[
            "call_initiated",
            "call_started",
            "transcription",
            "interruption",
            "dtmf_digit",
            "transcription",
            "call_ended",
        ],
    },
    DemoCall {
        name: "carol",
        from: "2003",
        after: 110,
        agent: &[
            Turn::Says("Hello, you have reached the clinic. Hash ends the call.", 400),
            Turn::WaitsForKey,
            Turn::HangsUp,
        ],
        caller: &[CallerStep::HearsOut, CallerStep::Presses('#'), CallerStep::StaysOn],
        events: &["call_initiated", "call_started", "transcription", "dtmf_digit", "call_ended"],
    },
];

/// The arguments of `callhook demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhook demo --receivers 2")]
pub struct DemoOptions {
    /// How many receivers get the events; the first decides about the calls, the others get copies
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=MOST_RECEIVERS as i64))]
    pub receivers: u8,
}

/// A receiver of the demo's own.
struct DemoReceiver {
    name: String,
    receiver: Receiver,
}

/// Plays the calls and prints the timeline.
///
/// # Errors
/// Where an event is missing or out of order, or nothing could be started.
pub async fn run(options: DemoOptions) -> anyhow::Result<()> {
    let agent = Agent::bind(part_for).await?;
    let mut receivers = Vec::new();
    for nth in 0..options.receivers {
        let (name, conduct) = match nth {
            0 => ("main".to_owned(), conduct(agent.address)),
            nth => (format!("copy{nth}"), content()),
        };
        receivers
            .push(DemoReceiver { name, receiver: Receiver::start("127.0.0.1", 0, conduct).await? });
    }
    let app = App::start(settings(&receivers, agent.address)?).await?;
    let listening: Vec<String> =
        receivers.iter().map(|at| format!("http://{}", at.receiver.address)).collect();
    print_line(format_args!(
        "callhook listens on http://{} and for AudioSocket on {},\nan agent on ws://{}, {} on {}",
        app.front(),
        app.audio(),
        agent.address,
        if receivers.len() == 1 { "a receiver" } else { "receivers" },
        listening.join(", ")
    ));
    print_line(format_args!(
        "three calls; the receiver routes bob elsewhere and fails twice for carol\n"
    ));
    let stop = CancellationToken::new();
    let playing = async {
        let played = play(&app, &mut receivers).await;
        stop.cancel();
        played
    };
    let (played, ()) = tokio::join!(playing, agent.serve(stop.clone()));
    app.stop().await;
    for at in receivers {
        at.receiver.stop().await;
    }
    print_line(format_args!("\n{}", played?));
    Ok(())
}

/// Plays the calls, and checks what came of them; the last line to print.
async fn play(app: &App, receivers: &mut [DemoReceiver]) -> anyhow::Result<String> {
    let calls = CALLS.each_ref().map(|call| (CallId::random(), call));
    let names = calls.iter().map(|(id, call)| (id.to_string(), call.name)).collect();
    let expected: usize = CALLS.iter().map(|call| call.events.len()).sum();
    let dialplan =
        Dialplan { http: client_builder().build()?, front: app.front(), audio: app.audio() };
    let playing = calls.iter().map(|(id, call)| {
        let after = Duration::from_millis(call.after);
        dialplan.call(*id, call.from, after, call.caller)
    });
    let (begun, several) = (Instant::now(), receivers.len() > 1);
    let watching = receivers.iter_mut().map(|at| watch(at, &names, expected, begun, several));
    let (impressions, seen) = tokio::try_join!(try_join_all(playing), try_join_all(watching))?;
    print_line("");
    for (call, Impression { route, heard }) in CALLS.iter().zip(&impressions) {
        let heard = heard.as_secs_f64();
        print_line(format_args!(
            "{:<6} heard {heard:.2} s of the agent, and was told {route}",
            call.name
        ));
        ensure!(heard > 0.0, "{} did not hear the agent", call.name);
    }
    for (seen, at) in seen.iter().zip(receivers.iter()) {
        for (id, call) in &calls {
            let (id, expected) = (id.to_string(), call.events);
            let of_call = seen.iter().filter(|event| event.uuid == id);
            let arrived: Vec<&str> = of_call.map(|event| event.kind.as_str()).collect();
            ensure!(
                arrived == expected,
                "{} at {}: {expected:?} should have arrived, but {arrived:?} did",
                call.name,
                at.name
            );
        }
    }
    let at =
        if several { format!(" at each of {} receivers", receivers.len()) } else { String::new() };
    Ok(format!("{expected} events of {} calls arrived{at}, each call in its order", CALLS.len()))
}

fn settings(receivers: &[DemoReceiver], agent: SocketAddr) -> anyhow::Result<Settings> {
    let url = |at: &DemoReceiver| format!("http://{}/events", at.receiver.address);
    let environment = [
        ("WEBHOOK_URL", url(&receivers[0])),
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
    let mut environment: BTreeMap<String, String> =
        environment.map(|(name, value)| (name.to_owned(), value)).into();
    for at in &receivers[1..] {
        environment.insert(format!("RECEIVER_{}_URL", at.name.to_uppercase()), url(at));
    }
    Settings::of_environment(&environment).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

/// Routes bob elsewhere, and fails for carol's `call_started` twice.
fn conduct(agent: SocketAddr) -> Arc<dyn Conduct> {
    let elsewhere = format!("ws://{agent}/vip?language=it");
    let faults = Mutex::new(FAULTS);
    let carol = OnceLock::new();
    Arc::new(move |received: &Received| {
        let event = &received.event;
        let from = event.payload.get("from").and_then(Value::as_str);
        if from == Some("2003") {
            carol.get_or_init(|| event.uuid.clone());
        }
        let mut faults = faults.lock().expect("nothing panics while it holds this lock");
        let fails = carol.get() == Some(&event.uuid) && event.kind == "call_started" && *faults > 0;
        *faults -= u32::from(fails);
        let ending = if fails {
            Ending::Fault(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            Ending::Usual(StatusCode::OK)
        };
        let sts_url = (from == Some("2002")).then(|| elsewhere.clone());
        Reply { sts_url, ..ending.into() }
    })
}

/// Takes everything.
fn content() -> Arc<dyn Conduct> {
    Arc::new(|_: &Received| Reply::from(Ending::Usual(StatusCode::OK)))
}

/// What the agent does for a caller of this number.
fn part_for(from: &str) -> &'static [Turn] {
    CALLS.iter().find(|call| call.from == from).map_or(&[], |call| call.agent)
}

/// Prints what arrives until the expected number of events was answered with 2xx.
async fn watch(
    at: &mut DemoReceiver,
    names: &BTreeMap<String, &str>,
    expected: usize,
    begun: Instant,
    several: bool,
) -> anyhow::Result<Vec<EventBody>> {
    let mut delivered = Vec::new();
    while delivered.len() < expected {
        let Ok(Some(notice)) = timeout(PATIENCE, at.receiver.notices.recv()).await else {
            bail!("only {} of {expected} events arrived at {}", delivered.len(), at.name);
        };
        // Nothing else is sent here, and no answer takes its time.
        let Notice::Ended { received, reply, .. } = notice else { continue };
        let to = if several { format!("{:<5}  ", at.name) } else { String::new() };
        print_line(format_args!("{to}{}", line(&received, &reply.ending, begun, names)));
        if reply.ending.takes() {
            delivered.push(received.event.clone());
        }
    }
    Ok(delivered)
}

fn line(
    received: &Received,
    ending: &Ending,
    begun: Instant,
    names: &BTreeMap<String, &str>,
) -> String {
    let event = &received.event;
    let attempt = received.attempt().unwrap_or_default();
    let sequence = received.sequence().unwrap_or_default();
    let name = names.get(&event.uuid).copied().unwrap_or("?");
    let after = received.at.duration_since(begun).as_secs_f64();
    let status = ending.status().unwrap_or_default().as_u16();
    let outcome = match attempt {
        _ if !ending.takes() => {
            format!("   → {status} on attempt {attempt}, will be tried again")
        }
        2.. => format!("   → {status} at last"),
        _ => String::new(),
    };
    format!("{after:6.3} s  {name:<6} #{sequence} {:<14} {}{outcome}", event.kind, event.payload)
}
