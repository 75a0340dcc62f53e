//! The whole program while it serves: who is running?
//!
//! The only file that knows all parts. Starts them in order and stops them in reverse:
//!
//! | part | its failure | on stop |
//! | --- | --- | --- |
//! | receiver's client | start fails | idle connections close with the process |
//! | journal | start fails; later, events are refused until the disk works again | writes what waits, closes |
//! | queue | a panic in an attempt fails that attempt; a broken invariant ends the process | takes no more, ends attempts under way; without a file delivers what it can in time |
//! | AudioSocket | start fails if it cannot bind; a panic in a call ends that call | first takes announced calls alone, then none, and ends the live ones |
//! | admin port | start fails if it cannot bind | finishes requests under way |
//! | front | start fails if it cannot bind | `/ready` returns 503, finishes requests under way |
//!
//! Invariants:
//! - When the front logs that it listens, everything behind it is ready.
//! - A stop ends within `CALL_DRAIN_TIMEOUT` and `DRAIN_TIMEOUT` together; the number of events that are lost is logged.

use std::io::{self, IsTerminal as _};
use std::mem::take;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::bridge::metrics::BridgeMetrics;
use crate::bridge::playout::Clock;
use crate::bridge::{Bridge, Ends, RefusedCalls};
use crate::calls::Calls;
use crate::config::{Renewal, Settings};
use crate::delivery::trace::ProcessId;
use crate::delivery::{Webhook, WebhookSettings};
use crate::history::History;
use crate::http::{self, Front, HttpAnswers, Requests, Routes, Secrets};
use crate::inspector::Inspector;
use crate::journal::{Journal, OpenError, Recovered};
use crate::listener::ListenAddress;
use crate::metrics::{Metrics, process};
use crate::queue::metrics::{QueueMetrics, ReceiverMetrics};
use crate::queue::{Queue, QueueParts};
use crate::receiver::ReceiverName;
use crate::text::innermost;
use crate::time::millis;
use crate::wire::tls;

/// One tenth of `DRAIN_TIMEOUT` is kept for closing connections.
const CLOSING_SHARE: u32 = 10;

/// Live calls have a third of `DRAIN_TIMEOUT` to end; they need half a second.
const CALLS_SHARE: u32 = 3;

/// How long dialplans may ask why their calls ended, and at most another third of `DRAIN_TIMEOUT`.
const ASKING: Duration = Duration::from_secs(1);

/// Why the program cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {variables}={listen}: {cause}; free the port, or set another")]
    Bind { listen: ListenAddress, variables: &'static str, cause: io::Error },
    #[error("JOURNAL_PATH={path} {cause}")]
    Journal { path: String, cause: OpenError },
    /// TLS or signal handling cannot be set up.
    #[error("cannot start: {0}")]
    System(String),
}

impl StartError {
    /// Whether another process uses what is needed: a port, or the journal.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Bind { .. } | Self::Journal { cause: OpenError::InUse, .. } => true,
            Self::Journal { .. } | Self::System(_) => false,
        }
    }
}

pub struct App {
    queue: Queue,
    front: SocketAddr,
    call_drain_timeout: Duration,
    drain_timeout: Duration,
    metrics: Arc<QueueMetrics>,
    audio: SocketAddr,
    /// Ends the calls, before the rest.
    hang_up: CancellationToken,
    calls: TaskTracker,
    stop: CancellationToken,
    tasks: TaskTracker,
    register: Arc<Calls>,
    renewing: Renewing,
}

/// What can change while callhook runs, and where it is in use.
struct Renewing {
    renewal: Renewal,
    /// As in [`Settings`].
    webhooks: Vec<Option<Webhook>>,
    secrets: Secrets,
    agent_secrets: Secrets,
    tokens: Secrets,
    bridge: Arc<Bridge>,
}

impl Renewing {
    fn of(settings: &Settings, webhooks: Vec<Option<Webhook>>, bridge: &Arc<Bridge>) -> Self {
        Self {
            renewal: settings.renewal.clone(),
            webhooks,
            secrets: settings.front.secrets.clone(),
            agent_secrets: settings.front.agent_secrets.clone(),
            tokens: settings.admin.tokens.clone(),
            bridge: Arc::clone(bridge),
        }
    }
}

impl App {
    /// Starts every part. Once it returns, the front answers.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        for warning in &settings.warnings {
            warn!("{warning}");
        }
        let process = ProcessId::random();
        let webhooks = receivers(&settings, &process)?;
        let (journal, mut recovered) = open_journal(&settings)?;
        let metrics = Arc::new(Metrics::new(&journal, webhooks.len()));
        let (listener, front) = bind(&settings.front.listen, "HTTP_HOST:HTTP_PORT").await?;
        let (audio_listener, audio) = bind(&settings.call.listen, "AUDIOSOCKET_HOST:PORT").await?;
        let (admin_listener, admin) = bind(&settings.admin.listen, "ADMIN_HOST:ADMIN_PORT").await?;
        let (unfinished, ended) = (take(&mut recovered.calls), take(&mut recovered.ended));
        let parts = QueueParts {
            deliver: webhooks.iter().map(|webhook| Some(Arc::new(webhook.clone()?) as _)).collect(),
            journal: Arc::new(journal),
            history: History::of_calls(settings.admin.calls),
            metrics: Arc::clone(&metrics.queue),
        };
        let queue = Queue::start(settings.queue.clone(), parts.clone(), recovered);
        let calls = Arc::new(Calls::under(settings.rules));
        let ends = Ends::knowing(&ended, &calls, &parts.journal);
        let bridge = bridge(&settings, &queue, &parts.history, ends, &metrics.bridge);
        // Without a receiver their ends wait in the journal, as events do.
        if settings.webhooks.iter().any(Option::is_some) {
            bridge.end_recovered(unfinished, &ended).await;
        }
        let app = Self {
            queue: queue.clone(),
            front,
            call_drain_timeout: settings.call_drain_timeout,
            drain_timeout: settings.drain_timeout,
            metrics: Arc::clone(&metrics.queue),
            audio,
            hang_up: CancellationToken::new(),
            calls: TaskTracker::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            register: Arc::clone(&calls),
            renewing: Renewing::of(&settings, webhooks, &bridge),
        };
        let serving = Front {
            queue,
            calls,
            history: parts.history.clone(),
            fallback: settings.fallback,
            secrets: settings.front.secrets,
            agent_secrets: settings.front.agent_secrets,
            transfer_to: settings.front.transfer_to,
            process,
            requests: Requests::default(),
            metrics: Arc::clone(&metrics.http),
        };
        app.serve_front(listener, serving);
        let inspector = Arc::new(Inspector {
            queue: app.queue.clone(),
            parts,
            settings: settings.queue,
            calls: Arc::clone(&app.register),
            metrics,
            tokens: settings.admin.tokens,
            moving: Default::default(),
            pulse: Default::default(),
        });
        app.serve_admin(admin_listener, inspector);
        app.calls.spawn(bridge.serve(audio_listener, app.hang_up.clone()));
        app.log_start(admin);
        Ok(app)
    }

    fn serve_front(&self, listener: TcpListener, front: Front) {
        let routes = Routes::of(front);
        let answer = move |request, peer| routes.clone().answer(request, peer);
        self.tasks.spawn(http::serve(listener, answer, HttpAnswers::Whole, self.stop.clone()));
    }

    fn serve_admin(&self, listener: TcpListener, inspector: Arc<Inspector>) {
        let router = inspector.router();
        let answer = move |request, _| http::routed(router.clone(), request);
        self.tasks.spawn(http::serve(listener, answer, HttpAnswers::Streamed, self.stop.clone()));
        self.tasks.spawn(inspector.run(self.stop.clone()));
    }

    fn log_start(&self, admin: SocketAddr) {
        let (audio, front) = (self.audio, self.front);
        info!(
            longest_ms = millis(self.call_drain_timeout + self.drain_timeout),
            "a stop may take CALL_DRAIN_TIMEOUT and DRAIN_TIMEOUT together; what stops callhook must wait longer"
        );
        info!(address = %admin, "admin port listening on port {}", admin.port());
        // In AVR Core's words, which people's scripts wait for.
        info!(address = %audio, "AVR AudioSocket Server listening on port {}", audio.port());
        info!(address = %front, "AVR HTTP Server listening on port {}", front.port());
    }

    pub fn front(&self) -> SocketAddr {
        self.front
    }

    pub fn audio(&self) -> SocketAddr {
        self.audio
    }

    /// Reads secrets and certificates anew, and logs what changed.
    pub async fn renew(&mut self) {
        let mut renewal = self.renewing.renewal.clone();
        let reading = spawn_blocking(move || {
            let renewed = renewal.renew();
            (renewal, renewed, tls::connector(None).err())
        });
        let Ok((renewal, renewed, no_certificates)) = reading.await else {
            return error!("reading secrets anew broke off, which is a bug; the old ones stay");
        };
        for error in &renewed.errors {
            warn!("{error}; the old value stays");
        }
        for warning in &renewed.warnings {
            warn!("{warning}");
        }
        self.renewing.renewal = renewal;
        self.renewing.secrets.renew(&renewed.front.secrets);
        self.renewing.agent_secrets.renew(&renewed.front.agent_secrets);
        self.renewing.tokens.renew(&renewed.admin.tokens);
        match no_certificates {
            None => self.renewing.bridge.renew(),
            Some(error) => warn!(%error, "certificates cannot be read anew; the old ones stay"),
        }
        for (webhook, renewed) in self.renewing.webhooks.iter().zip(renewed.webhooks) {
            match (webhook, renewed) {
                (Some(webhook), Some(settings)) => {
                    let receiver = settings.name.clone();
                    if let Err(error) = webhook.renew(settings) {
                        let error = innermost(&error);
                        warn!(
                            %receiver,
                            error,
                            "the receiver's client cannot be set up anew; the old one stays"
                        );
                    }
                }
                (None, None) => {}
                _ => warn!("WEBHOOK_URL changed from or to none, which takes a restart"),
            }
        }
        info!(changed = renewed.changed.join(", "), "secrets and certificates are read anew");
    }

    /// Stops within `CALL_DRAIN_TIMEOUT` and `DRAIN_TIMEOUT` together. Returns how many events are lost.
    pub async fn stop(self) -> usize {
        let begun = Instant::now();
        info!(waiting = self.queue.unsettled(), "stopping");
        self.register.stop(begun);
        self.register.over(begun + self.call_drain_timeout).await;
        let begun = Instant::now();
        let deadline = begun + self.drain_timeout;
        if !self.register.had_calls() {
            self.queue.refuse();
        }
        self.hang_up.cancel();
        self.calls.close();
        // A call that is not over by then ends at the next start.
        timeout_at(begun + self.drain_timeout / CALLS_SHARE, self.calls.wait()).await.ok();
        if self.register.had_calls() {
            sleep(ASKING.min(self.drain_timeout / CALLS_SHARE)).await;
            self.queue.refuse();
        }
        let lost = self.queue.drain(deadline - self.drain_timeout / CLOSING_SHARE).await;
        self.stop.cancel();
        self.tasks.close();
        // Connections that are busy longer end with the process.
        timeout_at(deadline, self.tasks.wait()).await.ok();
        if lost > 0 {
            error!(lost, "events are lost: neither delivered in time nor on disk");
        }
        let sum = |of: fn(&ReceiverMetrics) -> u64| -> u64 {
            self.metrics.receivers().iter().map(of).sum()
        };
        info!(
            accepted = self.metrics.events.accepted.sum(),
            delivered = sum(|of| of.delivered.sum()),
            dead = sum(|of| of.dead.sum()),
            dropped = self.metrics.events.dropped.sum(),
            lost,
            "stopped"
        );
        lost
    }
}

/// A runtime on half of the processors, since Asterisk runs beside. On two processors that is one
/// thread without a work-stealing scheduler, which costs more than a second thread would gain.
///
/// # Errors
/// Where the system cannot start threads.
pub fn runtime() -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    match processors / 2 {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// Serves until SIGTERM or SIGINT, then stops in order; a second signal stops at once. SIGHUP reads secrets anew; on a
/// terminal, which is gone then, it is as SIGTERM.
///
/// # Errors
/// [`StartError`] where it cannot start.
pub async fn serve(settings: Settings) -> Result<(), StartError> {
    raise_open_files();
    let ignored = process::is_hang_up_ignored();
    let mut renewals = Renewals::listen()?;
    let mut signals = Signals::listen()?;
    if terminal_may_go(ignored) {
        signals.hang_up = renewals.0.take();
    }
    let mut app = App::start(settings).await?;
    let name = loop {
        tokio::select! {
            name = signals.next() => break name,
            () = renewals.next() => app.renew().await,
        }
    };
    info!(signal = name, "signal received; a second one stops at once");
    tokio::select! {
        _lost = app.stop() => {}
        name = signals.next() => warn!(signal = name, "stopped at once"),
    }
    Ok(())
}

/// Whether SIGHUP means that the terminal is gone: not where it was ignored when callhook started, as by `nohup`.
fn terminal_may_go(ignored: bool) -> bool {
    std::io::stderr().is_terminal() && !ignored
}

fn open_journal(settings: &Settings) -> Result<(Journal, Recovered), StartError> {
    let receivers = settings.queue.names();
    let Some(path) = &settings.journal else {
        info!("JOURNAL_PATH=none: events are kept in memory only");
        let journal = Journal::in_memory(&receivers, settings.dead_limit);
        return Ok((journal, Recovered::default()));
    };
    let shown = path.display().to_string();
    let (journal, recovered) = Journal::in_file(path, &receivers, settings.dead_limit)
        .map_err(|cause| StartError::Journal { path: shown.clone(), cause })?;
    info!(path = shown, waiting = recovered.items.len(), "journal is open");
    tell_retired(&journal, receivers.iter().len());
    Ok((journal, recovered))
}

/// What the journal keeps for receivers beyond those of the settings.
fn tell_retired(journal: &Journal, configured: usize) {
    // A disk that cannot be read is told by whoever needs it.
    let dead = journal.dead_counts().unwrap_or_default();
    for (id, name) in journal.receivers().iter().skip(configured) {
        warn!(
            receiver = %name,
            waiting = journal.waiting_retired(id),
            dead = dead.get(id.index()),
            "the receiver {name} is not in the settings any more; what is kept for it stays until it is set again, or \
             until `callhook dead purge --receiver {name}`"
        );
    }
}

fn bridge(
    settings: &Settings,
    queue: &Queue,
    history: &History,
    ends: Ends,
    metrics: &Arc<BridgeMetrics>,
) -> Arc<Bridge> {
    Arc::new(Bridge {
        queue: queue.clone(),
        history: history.clone(),
        ends,
        fallback: settings.fallback.clone(),
        settings: settings.call.clone(),
        connector: RwLock::default(),
        clock: Arc::new(Clock::new(metrics.playout.clone())),
        recording: TaskTracker::new(),
        metrics: Arc::clone(metrics),
        refused: RefusedCalls::default(),
    })
}

/// Their HTTP clients, as in [`Settings`].
fn receivers(settings: &Settings, process: &ProcessId) -> Result<Vec<Option<Webhook>>, StartError> {
    let names = settings.queue.receivers.iter().map(|rules| &rules.name);
    let webhooks = names.zip(&settings.webhooks);
    webhooks.map(|(name, webhook)| receiver(settings, name, webhook.as_ref(), process)).collect()
}

fn receiver(
    settings: &Settings,
    name: &ReceiverName,
    webhook: Option<&WebhookSettings>,
    process: &ProcessId,
) -> Result<Option<Webhook>, StartError> {
    let Some(webhook) = webhook else {
        warn!("WEBHOOK_URL=none: calls are routed to STS_URL, and no event goes there");
        return Ok(None);
    };
    let client = Webhook::new(webhook.clone(), settings.agent.clone(), process.clone()).map_err(
        |error| {
            let cause = innermost(&error);
            StartError::System(format!(
                "the HTTP client for the receiver {name} cannot be set up: {cause}"
            ))
        },
    )?;
    info!(receiver = %name, url = webhook.shown_url(), "events go to this receiver");
    Ok(Some(client))
}

async fn bind(
    listen: &ListenAddress,
    variables: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    // An IPv6 address comes with or without brackets.
    let host = listen.host.trim_matches(['[', ']']);
    let bound = TcpListener::bind((host, listen.port)).await;
    let bound = bound.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|cause| StartError::Bind { listen: listen.clone(), variables, cause })
}

/// Each live call holds a connection open, and the usual soft limit of 1024 files is far below
/// what the machine allows.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < 4096 => {
            warn!(limit, "the limit of open files is low; raise LimitNOFILE or ulimit -n")
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
}

/// SIGHUP, where it asks for secrets to be read anew.
struct Renewals(Option<Signal>);

impl Renewals {
    fn listen() -> Result<Self, StartError> {
        let hang_up = signal(SignalKind::hangup());
        hang_up
            .map(|hang_up| Self(Some(hang_up)))
            .map_err(|error| StartError::System(error.to_string()))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(hang_up) => drop(hang_up.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// The signals that ask to stop: SIGTERM and SIGINT; on a terminal SIGHUP, too.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn listen() -> Result<Self, StartError> {
        let catch = |kind| signal(kind).map_err(|error| StartError::System(error.to_string()));
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: None,
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hang_up => "SIGHUP",
        }
    }
}
