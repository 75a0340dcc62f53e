//! Arrays under a key while the disk fails and as many ids are remembered as ever are: each is answered,
//! and nobody else waits for that.
//!
//! A binary of its own, since it holds the service to a tenth of a second, which a busy neighbour would spoil.

#[allow(dead_code, clippy::unwrap_used, reason = "tests/it uses all of it")]
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{Database, TableDefinition};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use support::event::{new_uuid, numbered};
use support::journal::{Journal, terminate};
use support::receiver::{Receiver, Reply, closed_gate, nobody};
use support::service::{Answer, IGNORING_SIGXFSZ, Service};

/// As many ids as are remembered at most.
const IDS: usize = 200_000;

/// How long a caller, or a health check, may wait for a disk that fails; on a machine that is too busy for
/// that, twice as long as with a healthy disk.
const PROMPT: Duration = Duration::from_millis(100);

/// How long the journal takes to try a disk twice that fails.
const TWO_TRIES: Duration = Duration::from_secs(2);

/// The longest wait for the answer to an array.
const LIMIT: Duration = Duration::from_secs(30);

/// Writes ids into the journal as if they had been given a minute ago.
async fn remember_ids(journal: &Journal) {
    let (_port, url) = nobody();
    terminate(journal.serve(&url, &[]).await).await;
    let ids: TableDefinition<'_, &str, (u64, Option<&str>)> = TableDefinition::new("ids");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let at = u64::try_from(now.as_millis()).expect("milliseconds fit") - 60_000;
    let database = Database::open(journal.path()).expect("the journal can be opened");
    let write = database.begin_write().expect("it can be written");
    {
        let mut table = write.open_table(ids).expect("it has this table");
        for n in 0..IDS {
            table.insert(format!("known.{n:06}").as_str(), (at, None)).expect("it takes an id");
        }
    }
    write.commit().expect("it takes them all");
}

async fn post_array(service: &Service, key: &str) -> Answer {
    let uuid = new_uuid();
    let events = (0..1000).map(|n| numbered(&uuid, n));
    let body = Value::from(events.collect::<Vec<_>>()).to_string();
    service.post_with("/events", &[("Idempotency-Key", key)], body).await
}

/// Four arrays at once, each of which has to be answered.
async fn post_arrays(service: &Service, keys: [&str; 4]) -> Vec<Answer> {
    let arrays = futures_util::future::join_all(keys.map(|key| post_array(service, key)));
    timeout(LIMIT, arrays).await.expect("every array is answered")
}

/// The longest time that a caller, and a health check, waits until `until` is over, and a while after.
async fn longest_waits(service: &Service, until: impl Future<Output = ()>) -> [Duration; 2] {
    let mut longest = [Duration::ZERO; 2];
    let mut until = std::pin::pin!(until);
    let (mut is_over, begun) = (false, Instant::now());
    while !is_over || begun.elapsed() < TWO_TRIES {
        let asked = Instant::now();
        let body = json!({ "uuid": new_uuid(), "payload": {} }).to_string();
        assert_eq!(service.post("/call", body).await.status, 200);
        longest[0] = longest[0].max(asked.elapsed());
        let asked = Instant::now();
        assert_eq!(service.get("/health").await.status, 200);
        longest[1] = longest[1].max(asked.elapsed());
        is_over = is_over || timeout(Duration::ZERO, &mut until).await.is_ok();
    }
    longest
}

#[tokio::test]
async fn every_keyed_array_is_answered_and_no_caller_waits_while_the_disk_fails() {
    let journal = Journal::new();
    remember_ids(&journal).await;
    let gate = closed_gate();
    let held = Reply::ok().when(&gate);
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => Reply::ok(),
        _ => held.clone(),
    })
    .await;
    let (path, url) = (journal.path(), receiver.url.clone());
    let vars = [
        ("WEBHOOK_URL", url.as_str()),
        ("JOURNAL_PATH", path.to_str().expect("a path of plain text")),
        ("WEBHOOK_TIMEOUT", "60000"),
    ];
    let service = Service::start_under(&IGNORING_SIGXFSZ, &vars).await;
    // To take four thousand events is work, disk or no disk, and more on a busy machine.
    let healthy = longest_waits(&service, async {
        for answer in post_arrays(&service, ["a", "b", "c", "d"]).await {
            assert_eq!(answer.status, 202, "{answer:?}");
        }
    })
    .await;
    // From now on every write fails.
    service.limit_files(Some(1));
    let failing = longest_waits(&service, async {
        for answer in post_arrays(&service, ["e", "f", "g", "h"]).await {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
    })
    .await;
    for (failing, healthy) in failing.into_iter().zip(healthy) {
        assert!(
            failing < PROMPT.max(healthy * 2),
            "{failing:?}, and {healthy:?} on a healthy disk"
        );
    }
}
