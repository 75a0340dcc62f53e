//! The fastest receiver there is. It reads each request whole, counts it, and answers with one fixed
//! routing decision. `GET /arrived/N` is answered when N requests have come, with how many there are:
//! so whoever measures learns at once that the last event is there, and need not look again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::serving;
use crate::wire::Wire;

/// What it decides for every call; port 9 is "discard", nothing is ever sent there.
pub const DECISION: &str = r#"{"sts_url":"ws://127.0.0.1:9/"}"#;

/// Where it is asked how many have come.
pub const ARRIVED: &str = "/arrived/";

struct Arrivals {
    count: AtomicU64,
    /// The count that somebody waits for.
    wanted: AtomicU64,
    reached: Notify,
}

/// Serves until the process is ended.
#[tokio::main(flavor = "current_thread")]
pub async fn serve() -> anyhow::Result<()> {
    let arrivals = Arc::new(Arrivals {
        count: AtomicU64::new(0),
        wanted: AtomicU64::new(u64::MAX),
        reached: Notify::new(),
    });
    serving::serve(|stream| receive(stream, Arc::clone(&arrivals))).await
}

async fn receive(stream: TcpStream, arrivals: Arc<Arrivals>) -> anyhow::Result<()> {
    let decision = json(DECISION);
    let mut wire = Wire::new(stream);
    while let Some(request) = wire.next().await? {
        if let Some(path) = request.asks_for() {
            let wanted = path.strip_prefix(ARRIVED).and_then(|number| number.parse().ok());
            let count = arrivals.reach(wanted.unwrap_or_default()).await;
            wire.send(&json(&count.to_string())).await?;
        } else {
            arrivals.note();
            wire.send(&decision).await?;
        }
    }
    Ok(())
}

impl Arrivals {
    fn note(&self) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count >= self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(u64::MAX, Ordering::Relaxed);
            self.reached.notify_waiters();
        }
    }

    /// Waits until so many have come; there is one thread, so none comes between look and wait.
    async fn reach(&self, wanted: u64) -> u64 {
        let reached = self.reached.notified();
        if self.count.load(Ordering::Relaxed) < wanted {
            self.wanted.store(wanted, Ordering::Relaxed);
            reached.await;
        }
        self.count.load(Ordering::Relaxed)
    }
}

/// An answer of 200.
pub fn json(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
