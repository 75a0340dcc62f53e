//! A disk that is full: what cannot be kept is refused, what was promised stays, callers do not wait,
//! and once there is room it goes on by itself.
//!
//! Two kinds of full: a limit on the size of files, which a process may be put under without any
//! privilege and which makes the journal's growth fail (`EFBIG`); and a small tmpfs of the process's own,
//! where a write within the file fails (`ENOSPC`), as on a real disk. That one needs user namespaces.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::journal::{PATIENT, all_of};
use crate::support::event::new_uuid;
use crate::support::journal::{Journal, kill};
use crate::support::receiver::{Receiver, Reply, nobody, numbers_of};
use crate::support::record::LIMIT;
use crate::support::service::{IGNORING_SIGXFSZ, Service};

const FALLBACK: &str = "ws://fallback.example:6030";

/// A service with the receiver away, and the events that it has promised.
struct Pressed {
    service: Service,
    uuid: String,
    next: usize,
    promised: Vec<usize>,
}

impl Pressed {
    fn new(service: Service) -> Pressed {
        Pressed { service, uuid: new_uuid(), next: 0, promised: Vec::new() }
    }

    /// Posts an event of that many bytes; true if it was taken, and if not it has to say why.
    async fn post(&mut self, size: usize) -> bool {
        let payload = json!({ "n": self.next, "text": "x".repeat(size) });
        let event = json!({ "uuid": self.uuid, "type": "transcription", "payload": payload });
        let answer = self.service.post("/events", event.to_string()).await;
        let taken = answer.status == 202;
        if taken {
            self.promised.push(self.next);
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.error().contains("journal"), "{answer:?}");
        }
        self.next += 1;
        taken
    }

    /// Posts until events are taken, or are not, as wanted.
    async fn until(&mut self, taken: bool, size: usize) {
        let posts = async { while self.post(size).await != taken {} };
        let noticed = timeout(LIMIT, posts).await;
        assert!(noticed.is_ok(), "taken: {} after {LIMIT:?}, {} posts", !taken, self.next);
    }

    /// Fills what room the file itself still has, and sees that nothing helps for a while.
    async fn is_full(&mut self) {
        self.until(false, 20_000).await;
        for _ in 0..5 {
            self.post(20_000).await;
        }
        self.until(false, 20_000).await;
    }

    /// A call is routed as if nothing were wrong, but for the receiver's decision.
    async fn routes_a_call(&self) {
        let body = json!({ "uuid": new_uuid(), "payload": { "n": 0 } }).to_string();
        let answer = timeout(Duration::from_secs(4), self.service.post("/call", body)).await;
        let answer = answer.expect("an answer within ROUTING_TIMEOUT");
        assert_eq!(answer.status, 200, "{answer:?}");
        let expected = json!({ "sts_url": format!("{FALLBACK}/?n=0"), "override": false });
        assert_eq!(answer.json(), expected);
    }

    /// Exactly what was promised arrives, in order, when the receiver is back.
    async fn keeps_its_promise(self, port: u16) {
        let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
        let seen = all_of(&self.service, &receiver, std::slice::from_ref(&self.uuid)).await;
        assert_eq!(numbers_of(&seen, &self.uuid), self.promised);
    }
}

fn settings<'a>(url: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    let own = [
        ("WEBHOOK_URL", url),
        ("JOURNAL_PATH", path),
        ("STS_URL", FALLBACK),
        ("ROUTING_TIMEOUT", "2000"),
    ];
    [&own[..], &PATIENT].concat()
}

/// A journal that cannot grow: after some events it has taken all that its file can hold.
async fn stuck(journal: &Journal, url: &str) -> Pressed {
    let path = journal.path();
    let path = path.to_str().expect("a path of plain text");
    let service = Service::start_under(&IGNORING_SIGXFSZ, &settings(url, path)).await;
    let mut pressed = Pressed::new(service);
    for _ in 0..3 {
        assert!(pressed.post(1000).await, "there is room yet");
    }
    let size = journal.path().metadata().expect("a file").len();
    pressed.service.limit_files(Some(size));
    pressed.is_full().await;
    pressed
}

#[tokio::test]
async fn a_journal_that_cannot_grow_refuses_and_goes_on_by_itself_when_it_can() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let mut pressed = stuck(&journal, &url).await;
    pressed.routes_a_call().await;
    pressed.service.limit_files(None);
    pressed.until(true, 20_000).await;
    for _ in 0..20 {
        assert!(pressed.post(1000).await, "it takes all again");
    }
    pressed.keeps_its_promise(port).await;
}

#[tokio::test]
async fn a_receiver_decides_about_calls_though_the_journal_cannot_grow() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let pressed = stuck(&journal, &url).await;
    let _receiver = Receiver::start_on(port, |seen| match seen.kind() {
        "call_initiated" => Reply::route("ws://agent.example"),
        _ => Reply::ok(),
    })
    .await;
    let decided = json!({ "sts_url": "ws://agent.example/?n=0", "override": true });
    let asks = async {
        loop {
            let body = json!({ "uuid": new_uuid(), "payload": { "n": 0 } }).to_string();
            let answer = pressed.service.post("/call", body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if answer.json() == decided {
                return;
            }
        }
    };
    assert!(timeout(LIMIT, asks).await.is_ok(), "the receiver is asked while the disk is full");
}

#[tokio::test]
async fn what_was_promised_before_the_disk_was_full_survives_a_kill_while_it_is() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let Pressed { service, uuid, next, promised } = stuck(&journal, &url).await;
    kill(service).await;
    let path = journal.path();
    let path = path.to_str().expect("a path of plain text");
    let service = Service::start(&settings(&url, path)).await;
    let mut pressed = Pressed { service, uuid, next, promised };
    pressed.until(true, 1000).await;
    pressed.keeps_its_promise(port).await;
}

#[tokio::test]
async fn a_full_disk_does_not_stop_what_waits_from_being_delivered_once_each() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let pressed = stuck(&journal, &url).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let seen = receiver.seen(pressed.promised.len()).await;
    assert_eq!(numbers_of(&seen, &pressed.uuid), pressed.promised);
}

/// A service in a mount namespace of its own, with a tmpfs of 2 MiB at that directory, which goes when
/// the process does. None if that is not permitted here.
async fn on_a_small_disk(directory: &Path, url: &str) -> Option<Service> {
    let directory = directory.to_str().expect("a path of plain text");
    let mount = r#"mount -t tmpfs -o size=2m none "$0" && exec "$@""#;
    let probe = tokio::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", mount, directory, "true"])
        .output()
        .await;
    let permitted = probe.as_ref().is_ok_and(|output| output.status.success());
    if !permitted {
        println!("no tmpfs of one's own is permitted here, so ENOSPC was not tried: {probe:?}");
        return None;
    }
    let launcher = ["unshare", "-Urm", "sh", "-c", mount, directory];
    let path = format!("{directory}/callhook.redb");
    Some(Service::start_under(&launcher, &settings(url, &path)).await)
}

/// Writes to this file until the disk is full.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a file on the small disk");
    let mut size = 64 * 1024;
    while size > 0 {
        if file.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_and_goes_on_by_itself_when_there_is_room() {
    let journal = Journal::new();
    let (port, url) = nobody();
    let Some(service) = on_a_small_disk(journal.directory.path(), &url).await else { return };
    // The disk as the process sees it.
    let root = PathBuf::from(format!("/proc/{}/root", service.pid()));
    let directory = journal.directory.path().strip_prefix("/").expect("an absolute path");
    let ballast = root.join(directory).join("ballast");
    let mut pressed = Pressed::new(service);
    for _ in 0..3 {
        assert!(pressed.post(1000).await, "there is room yet");
    }
    fill(&ballast);
    pressed.is_full().await;
    pressed.routes_a_call().await;
    std::fs::remove_file(&ballast).expect("the ballast can be removed");
    pressed.until(true, 1000).await;
    for _ in 0..20 {
        assert!(pressed.post(1000).await, "it takes all again");
    }
    pressed.keeps_its_promise(port).await;
}
