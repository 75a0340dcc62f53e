//! The durable queue, one claim at a time: what was promised outlives the process, however that ended.
//! `journal/restart.rs` has the ends and new beginnings, `journal/limits.rs` how much it takes, `journal/upgrade.rs` a
//! file of an earlier release; `journal_file.rs` is about the file itself, `journal_full.rs` about a disk that is full.
//! `tests/crash` tries it all at once, under load.

mod limits;
mod restart;
mod upgrade;

use crate::support::event::numbered;
use crate::support::journal::{Journal, end, kill, terminate};
use crate::support::receiver::{Receiver, Seen, of_call};
use crate::support::service::Service;
use serde_json::Value;

/// Settings for a receiver that is away for a while: nothing is given up, and it is asked often.
pub const PATIENT: [(&str, &str); 3] =
    [("WEBHOOK_RETRY", "20"), ("WEBHOOK_BACKOFF", "10"), ("WEBHOOK_BACKOFF_MAX", "100")];

pub fn array(uuid: &str, numbers: std::ops::Range<usize>) -> String {
    Value::from(numbers.map(|n| numbered(uuid, n)).collect::<Vec<_>>()).to_string()
}

/// Hands over event `n` of a call, which has to be taken; returns its id.
pub async fn relay(service: &Service, uuid: &str, n: usize) -> String {
    let answer = service.relay(numbered(uuid, n)).await;
    answer.json()["id"].as_str().expect("an id").to_owned()
}

pub fn ids_of(seen: &[Seen], uuid: &str) -> Vec<String> {
    headers_of(seen, uuid, "webhook-id")
}

fn headers_of(seen: &[Seen], uuid: &str, name: &str) -> Vec<String> {
    of_call(seen, uuid)
        .map(|seen| seen.header(name).expect("each request has it").to_owned())
        .collect()
}

/// Waits until all that the journal held for these calls has arrived: one more event of each, and what
/// came of it all. Those last events are left out.
pub async fn all_of(service: &Service, receiver: &Receiver, calls: &[String]) -> Vec<Seen> {
    const LAST: usize = 999_999;
    let mut last = Vec::new();
    for uuid in calls {
        last.push(relay(service, uuid, LAST).await);
    }
    let mut count = calls.len();
    loop {
        let mut seen = receiver.seen(count).await;
        let came = |id: &String| seen.iter().any(|seen| seen.header("webhook-id") == Some(id));
        if last.iter().all(came) {
            seen.retain(|seen| seen.n() != LAST);
            return seen;
        }
        count = seen.len() + 1;
    }
}
