//! The callhook binary as a child process: its settings, its log, its front, its end.
//!
//! The child gets an empty environment but for what the test gives it, an empty directory of its own to
//! run in, and free ports; it is killed when the [`Service`] is dropped.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use super::wire::{Answer, Wire, request};

/// The longest wait for a line of the log.
const LOG_LIMIT: Duration = Duration::from_secs(15);
/// The longest wait for a process to end.
const EXIT_LIMIT: Duration = Duration::from_secs(20);
/// What the tests set unless they say otherwise.
const USUAL: [(&str, &str); 7] = [
    ("HTTP_HOST", "127.0.0.1"),
    ("HTTP_PORT", "0"),
    ("AUDIOSOCKET_HOST", "127.0.0.1"),
    ("PORT", "0"),
    ("ADMIN_PORT", "0"),
    ("JOURNAL_PATH", "none"),
    ("LOG_FORMAT", "json"),
];
/// What AVR Core logs when its HTTP server is up, followed by the port.
const LISTENING: &str = "AVR HTTP Server listening on port ";
/// And before it, when AudioSocket is.
const AUDIOSOCKET_LISTENING: &str = "AVR AudioSocket Server listening on port ";

/// A running `callhook serve`.
pub struct Service {
    /// Where the front listens.
    pub addr: SocketAddr,
    child: Child,
    log: Log,
    directory: TempDir,
}

impl Service {
    /// Starts the service and waits until its front listens.
    pub async fn start(vars: &[(&str, &str)]) -> Service {
        Service::start_by(command, vars).await
    }

    /// Starts it as the last arguments of a launcher, which has to become it with `exec`.
    pub async fn start_under(launcher: &[&str], vars: &[(&str, &str)]) -> Service {
        let wrapped = |args: &[&str], directory: &std::path::Path| {
            let service = [&launcher[1..], &[env!("CARGO_BIN_EXE_callhook")], args].concat();
            command_of(launcher[0], &service, directory)
        };
        Service::start_by(wrapped, vars).await
    }

    async fn start_by(
        command: impl FnOnce(&[&str], &std::path::Path) -> Command,
        vars: &[(&str, &str)],
    ) -> Service {
        let directory = TempDir::new().expect("a temporary directory");
        let unless_given = |(name, _): &&(&str, &str)| !vars.iter().any(|(given, _)| given == name);
        let mut child = command(&["serve"], directory.path())
            .envs(USUAL.iter().filter(unless_given).copied())
            .envs(vars.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Log::of(child.stderr.take().expect("stderr is a pipe"));
        let addr = SocketAddr::from(([127, 0, 0, 1], log.port_after(LISTENING).await));
        Service { addr, child, log, directory }
    }

    /// Where AudioSocket listens.
    pub async fn audiosocket(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.log.port_after(AUDIOSOCKET_LISTENING).await))
    }

    /// The most memory that the child ever had resident, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the child is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * number.and_then(|number| number.parse::<u64>().ok()).expect("a number of kB")
    }

    /// The process id of the child.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the child was not awaited yet")
    }

    /// The directory that the child runs in.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<String>,
    ) -> Answer {
        self.ask("POST", path, headers, &body.into()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// One request on a connection of its own.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut wire = self.wire().await;
        wire.send(request(method, path, headers, body)).await;
        let answer = wire.answer().await;
        answer.unwrap_or_else(|| panic!("{method} {path} was answered by a close"))
    }

    /// Sends bytes on a connection of their own; what came back, up to the end of the first response.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.response_bytes().await
    }

    /// A new connection to the front.
    pub async fn wire(&self) -> Wire {
        Wire::open(self.addr).await
    }

    /// Waits for a JSON line of the log, be it a past one, that the predicate holds for.
    pub async fn log_line(&self, predicate: impl Fn(&Value) -> bool) -> Value {
        let matching = |line: &String| serde_json::from_str(line).ok().filter(&predicate);
        self.log.wait(|lines| lines.iter().find_map(matching)).await
    }

    /// The JSON lines logged so far.
    pub fn log_so_far(&self) -> Vec<Value> {
        let lines = self.log.lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the log contains the needle; returns all of the log.
    pub async fn text_log(&self, needle: &str) -> String {
        self.log.wait(|lines| Some(lines.join("\n")).filter(|text| text.contains(needle))).await
    }

    /// Waits for the end of the log, which is the end of the process; returns all of it.
    pub async fn whole_log(&self) -> String {
        self.log.wait_for_end().await
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, named without `SIG`.
    pub fn signal(&self, name: &str) {
        let mut kill = std::process::Command::new("kill");
        let status = kill.args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success(), "the child takes a SIG{name}");
    }

    /// The exit code, once the process has ended by itself.
    pub async fn wait(&mut self) -> i32 {
        let status = self.ended().await;
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }

    /// How the process ended, be it by a signal.
    pub async fn ended(&mut self) -> ExitStatus {
        let Ok(status) = timeout(EXIT_LIMIT, self.child.wait()).await else {
            panic!("no exit within {EXIT_LIMIT:?}; the log:\n{}", self.log.lines().join("\n"));
        };
        status.expect("the child can be awaited")
    }

    /// Waits until the drain has begun: `GET /ready` is not answered with 200 any more.
    pub async fn drains(&self) {
        let draining = async {
            loop {
                let Ok(mut wire) = Wire::try_open(self.addr).await else { return };
                wire.send(request("GET", "/ready", &[], "")).await;
                if wire.answer().await.is_none_or(|answer| answer.status != 200) {
                    return;
                }
            }
        };
        assert!(timeout(EXIT_LIMIT, draining).await.is_ok(), "ready after {EXIT_LIMIT:?}");
    }
}

/// Runs the binary to its end with these arguments and nothing but these variables: exit code, stdout,
/// stderr.
pub async fn run(args: &[&str], vars: &[(&str, &str)]) -> (i32, String, String) {
    let directory = TempDir::new().expect("a temporary directory");
    let output = command(args, directory.path()).envs(vars.iter().copied()).output();
    let output = timeout(EXIT_LIMIT, output).await;
    let output = output.unwrap_or_else(|_| panic!("callhook {args:?} ends within {EXIT_LIMIT:?}"));
    let output = output.expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    let code = output.status.code().expect("the process ended by itself");
    (code, text(output.stdout), text(output.stderr))
}

fn command(args: &[&str], directory: &std::path::Path) -> Command {
    command_of(env!("CARGO_BIN_EXE_callhook"), args, directory)
}

fn command_of(program: &str, args: &[&str], directory: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What the child wrote to stderr, and a signal on each new line.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    news: watch::Receiver<()>,
    _reader: JoinSet<()>,
}

impl Log {
    fn of(stderr: tokio::process::ChildStderr) -> Log {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (signal, news) = watch::channel(());
        let mut reader = JoinSet::new();
        let store = Arc::clone(&lines);
        reader.spawn(async move {
            let mut stderr = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = stderr.next_line().await {
                store.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                signal.send_replace(());
            }
        });
        Log { lines, news, _reader: reader }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `look` finds something in the lines; panics showing them after the limit, or when
    /// the child has closed its stderr without it.
    async fn wait<T>(&self, look: impl Fn(&[String]) -> Option<T>) -> T {
        let mut news = self.news.clone();
        let search = async {
            loop {
                let open = news.has_changed().is_ok();
                news.mark_unchanged();
                if let Some(found) = look(&self.lines()) {
                    return Some(found);
                }
                if !open || news.changed().await.is_err() {
                    return look(&self.lines());
                }
            }
        };
        match timeout(LOG_LIMIT, search).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                panic!("the process ended without it; its log:\n{}", self.lines().join("\n"))
            }
            Err(_) => panic!("not logged within {LOG_LIMIT:?}:\n{}", self.lines().join("\n")),
        }
    }

    async fn wait_for_end(&self) -> String {
        let mut news = self.news.clone();
        let end = async { while news.changed().await.is_ok() {} };
        assert!(timeout(EXIT_LIMIT, end).await.is_ok(), "the log ends within {EXIT_LIMIT:?}");
        self.lines().join("\n")
    }

    async fn port_after(&self, text: &str) -> u16 {
        let port = |line: &String| {
            let (_, rest) = line.split_once(text)?;
            let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        self.wait(|lines| lines.iter().find_map(port)).await
    }
}
