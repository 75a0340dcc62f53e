//! `callhook receive`: a small receiver that prints one line an event.
//!
//! Answers `POST` on any path; what it answers is a function of the event, so that `callhook demo`
//! can use it with faults.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, routing};
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::printable;
use crate::app::{Signals, StartError};
use crate::config::Listen;

/// Requests that were answered and are not yet printed; more make the receiver wait.
const BACKLOG: usize = 1024;

/// The command's options.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhook receive --port 9000 --sts-url ws://localhost:6030\n\
                        and, for callhook: WEBHOOK_URL=http://localhost:9000/events")]
pub struct Options {
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Refuse events whose X-AVR-WEBHOOK-SECRET differs, with 401
    #[arg(long)]
    pub secret: Option<String>,
    /// Answer call_initiated with this sts_url
    #[arg(long)]
    pub sts_url: Option<String>,
    /// Answer every event with this status
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub status: u16,
    /// Wait so many milliseconds before each answer
    #[arg(long, default_value_t = 0)]
    pub delay: u64,
}

/// A request as the receiver saw it, with what it answered.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it had arrived.
    pub at: Instant,
    /// Its envelope.
    pub event: Envelope,
    /// `X-AVR-WEBHOOK-ATTEMPT`, 0 where it is absent.
    pub attempt: u32,
    /// `X-AVR-WEBHOOK-SEQUENCE`, 0 where it is absent.
    pub sequence: u64,
    /// `X-AVR-WEBHOOK-SECRET`.
    pub secret: Option<String>,
    /// The status it was answered with.
    pub status: StatusCode,
}

/// The body of a webhook, read leniently.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Envelope {
    /// The call.
    pub uuid: String,
    /// The event type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    pub timestamp: String,
    /// What happened.
    pub payload: Value,
}

/// What a receiver answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `sts_url` in the body.
    pub sts_url: Option<String>,
    /// How long it takes its time.
    pub delay: Duration,
}

/// Decides what to answer; its request's `status` is still 200 then.
pub type Behaviour = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

/// A receiver that listens.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it saw, in the order of the answers.
    pub received: mpsc::Receiver<Received>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Clone)]
struct Shared {
    behaviour: Behaviour,
    seen: mpsc::Sender<Received>,
}

impl Receiver {
    /// Starts to listen.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn start(host: &str, port: u16, behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind((host, port)).await?;
        let address = listener.local_addr()?;
        let (seen, received) = mpsc::channel(BACKLOG);
        let router =
            Router::new().fallback(routing::post(take)).with_state(Shared { behaviour, seen });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await },
        );
        Ok(Self { address, received, stop, tasks })
    }

    /// Stops listening and waits for the answers under way.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn take(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    let Ok(event) = serde_json::from_slice::<Envelope>(&body) else {
        let error = Json(json!({"error": "the body is no JSON object of an event"}));
        return (StatusCode::BAD_REQUEST, error).into_response();
    };
    let mut received = Received {
        at: Instant::now(),
        event,
        attempt: number("x-avr-webhook-attempt")
            .and_then(|n| n.try_into().ok())
            .unwrap_or_default(),
        sequence: number("x-avr-webhook-sequence").unwrap_or_default(),
        secret: text("x-avr-webhook-secret"),
        status: StatusCode::OK,
    };
    let answer = (shared.behaviour)(&received);
    sleep(answer.delay).await;
    received.status = answer.status;
    // Whoever watches may have gone; the receiver goes on answering.
    shared.seen.send(received).await.ok();
    let body = match answer.sts_url {
        Some(sts_url) => json!({"sts_url": sts_url}),
        None => json!({}),
    };
    (answer.status, Json(body)).into_response()
}

impl Options {
    fn behaviour(self) -> Behaviour {
        let status = StatusCode::from_u16(self.status).expect("clap checked the range");
        Arc::new(move |received| {
            let refused = self.secret.is_some() && self.secret != received.secret;
            let routed = received.event.kind == "call_initiated" && status.is_success();
            Answer {
                status: if refused { StatusCode::UNAUTHORIZED } else { status },
                sts_url: self.sts_url.clone().filter(|_| routed && !refused),
                delay: Duration::from_millis(self.delay),
            }
        })
    }
}

/// Runs the command until it is interrupted.
///
/// # Errors
/// [`StartError`] where the port is taken.
pub async fn run(options: Options) -> Result<(), StartError> {
    let listen = Listen { host: options.host.clone(), port: options.port };
    let started = Receiver::start(&listen.host, listen.port, options.behaviour()).await;
    let mut receiver =
        started.map_err(|cause| StartError::Bind { listen, variables: "--host:--port", cause })?;
    let mut signals = Signals::listen()?;
    println!("receiving on http://{}/events", receiver.address);
    loop {
        tokio::select! {
            Some(received) = receiver.received.recv() => println!("{}", line(&received)),
            // What is still being answered ends with the process: nobody relies on it.
            _ = signals.next() => return Ok(()),
        }
    }
}

fn line(received: &Received) -> String {
    let event = &received.event;
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let retry = if received.attempt > 1 {
        format!(" (attempt {})", received.attempt)
    } else {
        String::new()
    };
    format!(
        "{time} {} #{} {:<14} {} → {}{retry}",
        printable(&event.uuid),
        received.sequence,
        printable(&event.kind),
        printable(&event.payload.to_string()),
        received.status.as_u16(),
    )
}
