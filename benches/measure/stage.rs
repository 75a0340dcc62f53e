//! The processes of a measurement: started with settings of their own and none of the caller's, and
//! ended with whoever started them, unless that is killed with SIGKILL.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::Options;
use crate::load::{Found, Kind};
use crate::receiver::ARRIVED;
use crate::serving::LISTENING;
use crate::wire::{self, Wire};

/// Nobody listens there: "discard". A free port could become a sender's own.
const NOBODY: u16 = 9;
/// How long a process may take to say that it is ready, and longer than was planned to come to its end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The fewest events in a millisecond at which a backlog is expected to be delivered.
const SLOWEST: u64 = 2;
/// How much is kept of what a process says, in bytes. What callhook says after that is lost.
const LOG: usize = 64 * 1024;

/// Where processes are started from.
pub struct Stage {
    pub callhook: PathBuf,
    own: PathBuf,
    directory: TempDir,
    rounds: Option<u32>,
    seconds: Option<u32>,
}

/// One process; dropped, it is killed, and gone when that is done.
pub struct Process {
    name: String,
    child: Child,
    log: watch::Receiver<String>,
}

/// One of them that listens.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
}

impl Stage {
    pub fn set(options: &Options) -> anyhow::Result<Self> {
        let callhook = &options.callhook;
        Ok(Self {
            callhook: callhook.canonicalize().with_context(|| format!("{}", callhook.display()))?,
            own: std::env::current_exe()?,
            directory: TempDir::with_prefix("callhook-bench-")?,
            rounds: options.rounds,
            seconds: options.seconds,
        })
    }

    /// Where the journals are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn rounds(&self, unless_told: u32) -> u32 {
        self.rounds.unwrap_or(unless_told)
    }

    pub fn seconds(&self, unless_told: u32) -> u32 {
        self.seconds.unwrap_or(unless_told)
    }

    /// Starts this program in one of its roles.
    pub fn role<S: AsRef<OsStr>>(&self, name: &str, arguments: &[S]) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.own);
        command.arg(name).args(arguments).env_clear();
        Process::start(name, command)
    }

    /// Starts a role that listens.
    pub async fn server(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Server> {
        self.role(name, arguments)?.listening(LISTENING).await
    }

    pub async fn receiver(&self) -> anyhow::Result<Server> {
        self.server("receiver", &[]).await
    }

    /// The bare hop to a receiver.
    pub async fn hop(&self, receiver: SocketAddr) -> anyhow::Result<Server> {
        self.server("hop", &[&events_url(receiver)]).await
    }

    /// callhook with a fresh journal, for a receiver, with further settings.
    pub async fn callhook(
        &self,
        receiver: SocketAddr,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let journal = self.fresh_journal()?;
        self.start_callhook(receiver, &journal, settings)?.listening(FRONT).await
    }

    /// A path where no journal is.
    pub fn fresh_journal(&self) -> anyhow::Result<PathBuf> {
        let journal = self.directory().join("journal.redb");
        match std::fs::remove_file(&journal) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(journal),
        }
    }

    /// callhook on the journal that is there, not yet ready.
    pub fn start_callhook(
        &self,
        receiver: SocketAddr,
        journal: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.callhook);
        command
            .arg("serve")
            .env_clear()
            .env("WEBHOOK_URL", events_url(receiver))
            .env("JOURNAL_PATH", journal)
            .env("HTTP_HOST", "127.0.0.1")
            .env("AUDIOSOCKET_HOST", "127.0.0.1")
            .envs([("HTTP_PORT", "0"), ("PORT", "0"), ("ADMIN_PORT", "0")])
            .envs(settings.iter().copied());
        Process::start("callhook", command)
    }

    /// Has a server asked in a process of its own.
    pub async fn ask(
        &self,
        address: SocketAddr,
        kind: Kind,
        connections: usize,
        seconds: u32,
    ) -> anyhow::Result<Found> {
        let arguments = [
            address.to_string(),
            kind.name().to_owned(),
            connections.to_string(),
            seconds.to_string(),
        ];
        let found = self.role("load", &arguments)?.figures(seconds).await?;
        let found: Found = serde_json::from_str(&found)?;
        ensure!(found.wrong == 0, "{} of {connections} connections ended in an error", found.wrong);
        Ok(found)
    }
}

/// What callhook says before the port of `/call` and `/events`.
pub const FRONT: &str = "AVR HTTP Server listening on port";
/// And before the one for AudioSocket.
pub const AUDIO: &str = "AVR AudioSocket Server listening on port";

/// A receiver's address where there is no receiver.
pub fn nobody() -> SocketAddr {
    on_loopback(NOBODY)
}

fn on_loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn events_url(receiver: SocketAddr) -> String {
    format!("http://{receiver}/events")
}

/// Waits until a receiver has had so many requests, and says how many it has had.
pub async fn arrived(receiver: SocketAddr, count: u64) -> anyhow::Result<u64> {
    let mut wire = Wire::connect(receiver).await?;
    let patience = PATIENCE + Duration::from_millis(count / SLOWEST);
    let request = wire::get(receiver, &format!("{ARRIVED}{count}"));
    let answer = wire.ask_within(&request, patience).await;
    let answer = answer.with_context(|| format!("{count} events never arrived"))?;
    Ok(std::str::from_utf8(answer.body)?.parse()?)
}

impl Process {
    fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{name} does not start"))?;
        let (said, log) = watch::channel(String::new());
        for pipe in pipes(&mut child) {
            let said = said.clone();
            std::thread::spawn(move || listen(pipe, &said));
        }
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says a text, and gives what follows that up to the next space.
    pub async fn says(&self, text: &str) -> anyhow::Result<String> {
        let name = &self.name;
        let mut log = self.log.clone();
        let said = log.wait_for(|log| word_after(log, text).is_some());
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(log)) => Ok(word_after(&log, text).unwrap_or_default().to_owned()),
            Ok(Err(_)) => bail!("{name} ended and never said \"{text}\": {}", *self.log.borrow()),
            Err(_) => bail!("{name} never said \"{text}\" within {PATIENCE:?}"),
        }
    }

    /// Waits until it says where it listens.
    pub async fn listening(self, text: &str) -> anyhow::Result<Server> {
        let port = self.says(text).await?.parse()?;
        Ok(Server { process: self, address: on_loopback(port) })
    }

    /// Waits for the end of a process that prints one line of JSON after so many seconds; gives that.
    pub async fn figures(mut self, seconds: u32) -> anyhow::Result<String> {
        let patience = PATIENCE + Duration::from_secs(seconds.into());
        let status = self.ended(patience).await?;
        let log = self.log.borrow();
        let figures = log.lines().find(|line| line.starts_with('{'));
        for line in log.lines().filter(|line| !line.starts_with('{')).take(10) {
            eprintln!("{}: {line}", self.name);
        }
        ensure!(status.success(), "{} failed: {status}", self.name);
        Ok(figures.with_context(|| format!("{} found nothing", self.name))?.to_owned())
    }

    /// Ends it with SIGTERM, which it must obey in good order.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        let id = self.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "{id} is gone");
        let status = self.ended(PATIENCE).await?;
        ensure!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        Ok(())
    }

    /// Both its outputs end when it does.
    async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(patience, self.log.wait_for(|_| false)).await.is_ok();
        ensure!(ended, "{} did not end within {patience:?}", self.name);
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails for one that has ended, which is all that is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn pipes(child: &mut Child) -> impl Iterator<Item = Box<dyn Read + Send>> + use<> {
    let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    stdout.into_iter().chain(stderr)
}

/// Reads until the end, so that nobody waits for room in a pipe.
fn listen(pipe: Box<dyn Read + Send>, said: &watch::Sender<String>) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        if said.borrow().len() + line.len() < LOG {
            said.send_modify(|log| {
                log.push_str(&line);
                log.push('\n');
            });
        }
    }
}

fn word_after<'a>(log: &'a str, text: &str) -> Option<&'a str> {
    let (_, after) = log.split_once(text)?;
    after.split_ascii_whitespace().next()
}
