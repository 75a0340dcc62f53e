//! The callhook binary as a child process: its settings, its log, its front, its end.
//!
//! The child gets only the variables that the test gives it, an empty directory of its own to run in, and
//! free ports; it is killed when the [`Service`] is dropped.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rlimit::Resource;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::copies::Copies;
use super::record::{LIMIT, Record};
pub use super::wire::{Answer, Wire, request, request_to};

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
const ADMIN_LISTENING: &str = "admin port listening on port ";
/// For [`Service::start_under`]: a process over its limit of file sizes gets a signal that would end it,
/// unless it ignores that.
pub const IGNORING_SIGXFSZ: [&str; 4] = ["sh", "-c", r#"trap "" XFSZ; exec "$@""#, "sh"];

/// A running `callhook serve`.
pub struct Service {
    /// Where the front listens.
    pub addr: SocketAddr,
    child: Child,
    log: Log,
    directory: TempDir,
    copies: Option<Arc<Copies>>,
}

impl Service {
    /// Starts the service and waits until its front listens.
    pub async fn start(vars: &[(&str, &str)]) -> Service {
        Service::start_by(command(&["serve"]), vars).await
    }

    /// Starts it as the last arguments of a launcher, which has to become it with `exec`.
    pub async fn start_under(launcher: &[&str], vars: &[(&str, &str)]) -> Service {
        let args = [&launcher[1..], &[env!("CARGO_BIN_EXE_callhook"), "serve"]].concat();
        Service::start_by(command_of(launcher[0], &args), vars).await
    }

    async fn start_by(mut command: Command, vars: &[(&str, &str)]) -> Service {
        let directory = TempDir::new().expect("a temporary directory");
        let unless_given = |(name, _): &&(&str, &str)| !vars.iter().any(|(given, _)| given == name);
        let journal = vars.iter().find(|(name, _)| *name == "JOURNAL_PATH").map(|(_, path)| *path);
        let copies = Copies::beside(journal).await;
        let mut child = command
            .current_dir(directory.path())
            .envs(USUAL.iter().filter(unless_given).copied())
            .envs(copies.iter().flat_map(|copies| copies.vars()))
            .envs(vars.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Log::of(child.stderr.take().expect("stderr is a pipe"));
        let addr = log.address_after(LISTENING).await;
        Service { addr, child, log, directory, copies }
    }

    /// Where AudioSocket listens.
    pub async fn audiosocket(&self) -> SocketAddr {
        self.log.address_after(AUDIOSOCKET_LISTENING).await
    }

    /// Where the admin port listens.
    pub async fn admin(&self) -> SocketAddr {
        self.log.address_after(ADMIN_LISTENING).await
    }

    /// One request to the admin port, on a connection of its own. `Host` is `localhost`: without a token the
    /// port answers to no other name.
    pub async fn ask_admin(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut wire = Wire::open(self.admin().await).await;
        wire.send(request_to("localhost", method, path, headers, "")).await;
        let answer = wire.answer().await;
        answer.unwrap_or_else(|| panic!("{method} {path} was answered by a close"))
    }

    /// The most memory that the child ever had resident, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the child is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * number.and_then(|number| number.parse::<u64>().ok()).expect("a number of kB")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the child was not awaited yet")
    }

    /// Limits the size of each file that the child writes, in bytes; None is the system's own limit.
    pub fn limit_files(&self, limit: Option<u64>) {
        let (_, most) = rlimit::getrlimit(Resource::FSIZE).expect("the limit can be read");
        let pid = i32::try_from(self.pid()).expect("a process id is small");
        let limits = Some((limit.unwrap_or(most), most));
        rlimit::prlimit(pid, Resource::FSIZE, limits, None).expect("a limit of one's own child");
    }

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

    /// Hands over an event, or an array of them, and expects 202.
    pub async fn relay(&self, events: impl ToString) -> Answer {
        let answer = self.post("/events", events.to_string()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer
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

    /// Sends bytes on a connection of their own; returns the bytes of the first response.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.response_bytes().await
    }

    /// A new connection to the front.
    pub async fn wire(&self) -> Wire {
        Wire::open(self.addr).await
    }

    /// Waits for a JSON line of the log that the predicate holds for; it may have come already.
    pub async fn log_line(&self, predicate: impl Fn(&Value) -> bool) -> Value {
        let matching = |line: &str| serde_json::from_str(line).ok().filter(&predicate);
        self.log.until(|lines| texts(lines).find_map(matching)).await
    }

    /// The JSON lines logged so far.
    pub fn log_so_far(&self) -> Vec<Value> {
        let json = |line: &str| serde_json::from_str(line).ok();
        self.log.lines.look(|lines| texts(lines).filter_map(json).collect())
    }

    /// Waits until the log contains the needle; returns all of the log.
    pub async fn text_log(&self, needle: &str) -> String {
        self.log.until(|lines| Some(joined(lines)).filter(|text| text.contains(needle))).await
    }

    /// Waits for the end of the log, which is the end of the process; returns all of it.
    pub async fn whole_log(&self) -> String {
        let ended = |lines: &[Line]| lines.last()?.is_none().then(|| joined(lines));
        self.log.lines.until("the end of the log", ended).await
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, named without `SIG`.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// The exit code, once the process has ended by itself.
    pub async fn wait(&mut self) -> i32 {
        let status = self.ended().await;
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }

    /// How the process ended; a signal is fine.
    pub async fn ended(&mut self) -> ExitStatus {
        let Ok(status) = timeout(LIMIT, self.child.wait()).await else {
            panic!("no exit within {LIMIT:?}; the log:\n{}", self.log.lines.look(joined));
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
        assert!(timeout(LIMIT, draining).await.is_ok(), "ready after {LIMIT:?}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(copies) = self.copies.as_ref().filter(|_| !std::thread::panicking()) {
            copies.check();
        }
    }
}

/// Starts a service that delivers to this URL.
pub async fn serve(url: &str, vars: &[(&str, &str)]) -> Service {
    Service::start(&[&[("WEBHOOK_URL", url)], vars].concat()).await
}

/// Runs the binary to its end with these arguments and nothing but these variables: exit code, stdout,
/// stderr.
pub async fn run(args: &[&str], vars: &[(&str, &str)]) -> (i32, String, String) {
    let directory = TempDir::new().expect("a temporary directory");
    let mut command = command(args);
    let output = command.current_dir(directory.path()).envs(vars.iter().copied()).output();
    let output = timeout(LIMIT, output).await;
    let output = output.unwrap_or_else(|_| panic!("callhook {args:?} ends within {LIMIT:?}"));
    let output = output.expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    let code = output.status.code().expect("the process ended by itself");
    (code, text(output.stdout), text(output.stderr))
}

/// The binary with these arguments, an empty environment and no input; it is killed when dropped.
pub fn command(args: &[&str]) -> Command {
    command_of(env!("CARGO_BIN_EXE_callhook"), args)
}

fn command_of(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Sends a signal, named without `SIG`, to a child that was not awaited yet.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("the child was not awaited yet").to_string();
    let status = std::process::Command::new("kill").args([format!("-{name}"), pid]).status();
    assert!(status.expect("kill runs").success(), "the child takes a SIG{name}");
}

/// The level of a line of the log, in lower case.
pub fn level(line: &Value) -> String {
    line["level"].as_str().expect("a level is text").to_lowercase()
}

/// A line that the child wrote to stderr; None is the end of it.
type Line = Option<String>;

struct Log {
    lines: Arc<Record<Line>>,
    _reader: JoinSet<()>,
}

impl Log {
    fn of(stderr: ChildStderr) -> Log {
        let lines = Arc::<Record<Line>>::default();
        let mut reader = JoinSet::new();
        let record = Arc::clone(&lines);
        reader.spawn(async move {
            let mut stderr = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = stderr.next_line().await {
                if !Copies::is_about(&line) {
                    record.push(Some(line));
                }
            }
            record.push(None);
        });
        Log { lines, _reader: reader }
    }

    /// Waits until `look` finds something in the lines; panics showing them after the limit, or when
    /// the child has closed its stderr without it.
    async fn until<T>(&self, look: impl Fn(&[Line]) -> Option<T>) -> T {
        let ended = |lines: &[Line]| lines.last().is_some_and(Option::is_none);
        let found = |lines: &[Line]| match look(lines) {
            None if ended(lines) => Some(None),
            found => found.map(Some),
        };
        let all = || self.lines.look(joined);
        match self.lines.found(found).await {
            Some(Some(found)) => found,
            Some(None) => panic!("the process ended without it; its log:\n{}", all()),
            None => panic!("not logged within {LIMIT:?}:\n{}", all()),
        }
    }

    async fn address_after(&self, text: &str) -> SocketAddr {
        let port = |line: &str| {
            let (_, rest) = line.split_once(text)?;
            let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        let port: u16 = self.until(|lines| texts(lines).find_map(port)).await;
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

fn texts(lines: &[Line]) -> impl Iterator<Item = &str> {
    lines.iter().flatten().map(String::as_str)
}

fn joined(lines: &[Line]) -> String {
    texts(lines).collect::<Vec<_>>().join("\n")
}
