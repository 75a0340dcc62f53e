//! One life of the service, from its start to the kill. The number of the life is its `WEBHOOK_SECRET`, and that of
//! the copies, so each request to a receiver tells which life it comes from, however late it is read.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::World;
use crate::book::Part;
use crate::support::record::LIMIT;
use crate::support::service::{command, signal};

const LISTENING: &str = "AVR HTTP Server listening on port ";

const QUEUE_LIMIT: &str = "4000";

pub struct Life {
    child: Child,
    listens: Option<oneshot::Receiver<()>>,
    log: JoinSet<String>,
}

impl Life {
    /// Starts the process; it may not listen yet.
    pub fn begin(number: u32, world: &World, urls: &[String; 3], directory: &Path) -> Life {
        let of_receiver = |(part, url): (Part, &String)| {
            let prefix = match part {
                Part::Main => "WEBHOOK".to_owned(),
                Part::Steady | Part::Moody => {
                    format!("RECEIVER_{}", part.name().to_ascii_uppercase())
                }
            };
            [
                (format!("{prefix}_URL"), url.clone()),
                (format!("{prefix}_SECRET"), number.to_string()),
            ]
        };
        let mut child = command(&[])
            .envs([
                ("HTTP_HOST", "127.0.0.1"),
                ("PORT", "0"),
                ("LOG_FORMAT", "json"),
                ("WEBHOOK_RETRY", "10"),
                ("WEBHOOK_BACKOFF", "2"),
                ("WEBHOOK_BACKOFF_MAX", "50"),
                // A timeout, on a busy machine, would be a duplicate without a crash.
                ("WEBHOOK_TIMEOUT", "20000"),
                // A copy that is down fills it up, the main receiver never.
                ("QUEUE_LIMIT", QUEUE_LIMIT),
            ])
            .envs(Part::ALL.into_iter().zip(urls).flat_map(of_receiver))
            .env("HTTP_PORT", world.addr.port().to_string())
            .env("ADMIN_PORT", world.admin.port().to_string())
            .env("JOURNAL_PATH", directory.join("callhook.redb"))
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (signal, listens) = oneshot::channel();
        let mut log = JoinSet::new();
        log.spawn(read(child.stderr.take().expect("stderr is a pipe"), signal));
        Life { child, listens: Some(listens), log }
    }

    /// Waits until the front listens.
    pub async fn listens(&mut self) {
        let listens = self.listens.take().expect("asked once");
        let said = timeout(LIMIT, listens).await;
        if !matches!(said, Ok(Ok(()))) {
            self.child.start_kill().expect("a child that was not awaited");
            panic!("it never listened; its log:\n{}", self.log().await);
        }
    }

    /// Kills it with SIGKILL, which it must have lived to see; returns its log.
    pub async fn kill(mut self) -> String {
        let ended = self.child.try_wait().expect("the child can be asked");
        if let Some(status) = ended {
            panic!("it ended by itself, {status}; its log:\n{}", self.log().await);
        }
        self.child.kill().await.expect("the child takes a SIGKILL");
        self.log().await
    }

    /// Ends it with SIGTERM, which it must obey; returns its log.
    pub async fn end(mut self) -> String {
        signal(&self.child, "TERM");
        let status = timeout(LIMIT, self.child.wait()).await.expect("an end in time");
        let (code, log) = (status.expect("the child can be awaited").code(), self.log().await);
        assert_eq!(code, Some(0), "the log:\n{log}");
        log
    }

    async fn log(&mut self) -> String {
        self.log.join_next().await.expect("one reader").expect("a reader that does not panic")
    }
}

/// Reads the log to its end; signals when it says that the front listens.
async fn read(stderr: ChildStderr, signal: oneshot::Sender<()>) -> String {
    let (mut log, mut signal) = (String::new(), Some(signal));
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains(LISTENING) {
            // Whoever waited may have gone on to the kill.
            signal.take().map(|signal| signal.send(()).ok());
        }
        log += &line;
        log.push('\n');
    }
    log
}
