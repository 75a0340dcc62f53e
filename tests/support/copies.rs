//! Copies: two further receivers for every service of `tests/with_copies.rs`, which is this seam's other side.
//!
//! One is content, and sees that the events of each call come in order: numbered 1, 2, … without a gap, and none again
//! but the last. The other is not there: by turns nobody listens, or nobody answers. What a test sees of its service
//! must be the same as without them, so what the log says of them is kept from it.
//!
//! Services on one journal have one pair, whose numbers go on from process to process, or begin anew where the journal
//! holds nothing of the call any more.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::receiver::{Receiver, Seen, free_port};

const STEADY: &str = "steady";
const ABSENT: &str = "absent";
/// Tells the processes on one journal from one another.
const LIFE: &str = "x-life";

pub struct Copies {
    steady: Receiver,
    absent: u16,
    /// It accepts no connection, so that the kernel does, and nobody answers.
    _silent: Option<TcpListener>,
    lives: AtomicUsize,
    memory: TempDir,
}

impl Copies {
    /// For the next process on this journal; `None` unless the binary is the one with copies.
    pub async fn beside(journal: Option<&str>) -> Option<Arc<Self>> {
        if env!("CARGO_CRATE_NAME") != "with_copies" {
            return None;
        }
        let journal = journal.filter(|path| path.starts_with('/'));
        if let Some(copies) = journal.and_then(|path| known().get(path).cloned()) {
            return Some(copies);
        }
        let copies = Arc::new(Self::start().await);
        if let Some(path) = journal {
            known().insert(path.to_owned(), Arc::clone(&copies));
        }
        Some(copies)
    }

    async fn start() -> Self {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let (steady, lives) = (Receiver::content().await, AtomicUsize::new(0));
        let memory = TempDir::new_in("/dev/shm").expect("a directory in memory");
        if TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Self { steady, absent: free_port(), _silent: None, lives, memory };
        }
        let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let absent = silent.local_addr().expect("a bound listener has an address").port();
        Self { steady, absent, _silent: Some(silent), lives, memory }
    }

    /// Settings for the next process.
    pub fn vars(&self) -> Vec<(String, String)> {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let var = |name: &str, suffix: &str, value: String| {
            (format!("RECEIVER_{}_{suffix}", name.to_ascii_uppercase()), value)
        };
        let journal = self.memory.path().join("callhook.redb");
        vec![
            var(STEADY, "URL", self.steady.url.clone()),
            var(STEADY, "HEADERS", format!(r#"{{"{LIFE}":"{life}"}}"#)),
            var(ABSENT, "URL", format!("http://127.0.0.1:{}/events", self.absent)),
            // A stop without a journal would wait for what nobody takes.
            ("JOURNAL_PATH".to_owned(), journal.display().to_string()),
            // Its dead letters would be among those that tests are about.
            var(ABSENT, "RETRY", "100".to_owned()),
            // A stop waits for attempts in flight.
            var(ABSENT, "TIMEOUT", "300".to_owned()),
        ]
    }

    /// Whether the line of a log, as JSON or as text, is about one of them.
    pub fn is_about(line: &str) -> bool {
        let about = |name| {
            line.contains(&format!(r#""receiver":"{name}""#))
                || line.contains(&format!("receiver={name}"))
        };
        about(STEADY) || about(ABSENT)
    }

    /// # Panics
    /// Where the events of a call came out of order.
    pub fn check(&self) {
        let seen = self.steady.so_far();
        let mut calls: HashMap<&str, Vec<&Seen>> = HashMap::new();
        for seen in &seen {
            calls.entry(seen.uuid()).or_default().push(seen);
        }
        for (uuid, mut seen) in calls {
            seen.sort_by_key(|seen| life(seen)); // stable, so by arrival within a life
            assert_eq!(seen[0].sequence(), 1, "the first of {uuid} at a copy");
            for pair in seen.windows(2) {
                assert!(follows(pair[0], pair[1]), "{uuid} at a copy: {pair:#?}");
            }
        }
    }
}

/// By the path of their journal.
fn known() -> MutexGuard<'static, HashMap<String, Arc<Copies>>> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Copies>>>> = LazyLock::new(Mutex::default);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn life(seen: &Seen) -> usize {
    seen.header(LIFE).and_then(|life| life.parse().ok()).expect("each request tells its process")
}

fn follows(before: &Seen, after: &Seen) -> bool {
    let (before_number, number) = (before.sequence(), after.sequence());
    let is_same = before.header("webhook-id") == after.header("webhook-id");
    match is_same {
        true => number == before_number,
        false => number == before_number + 1 || (number == 1 && life(before) < life(after)),
    }
}
