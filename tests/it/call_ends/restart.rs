//! Calls, a journal, and the end of callhook: each call that had a start has one end, after the next start
//! at the latest.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{DETAILS, busy_call};
use crate::support::event::new_uuid;
use crate::support::journal::Journal;
use crate::support::receiver::{Receiver, Reply, Seen, nobody};
use crate::support::service::Service;
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Sts};

/// A stage whose callhook keeps a journal that outlives it.
struct Kept {
    stage: Stage,
    journal: Journal,
}

impl Kept {
    /// Delivers to a receiver that is there.
    async fn set() -> Kept {
        let receiver = Receiver::content().await;
        let url = receiver.url.clone();
        Kept::delivering_to(&url, receiver).await
    }

    /// Delivers to nobody, so that everything waits in the journal for the next start.
    async fn set_alone() -> Kept {
        let (_, url) = nobody();
        Kept::delivering_to(&url, Receiver::content().await).await
    }

    async fn delivering_to(url: &str, receiver: Receiver) -> Kept {
        let journal = Journal::new();
        let sts = Sts::start(Manner::Usual).await;
        let service = serve(&journal, url, &sts).await;
        Kept { stage: Stage { receiver, sts, service }, journal }
    }

    /// Ends callhook with this signal.
    async fn end(&mut self, signal: &str) {
        self.stage.service.signal(signal);
        self.stage.service.ended().await;
    }

    /// Starts it again, with the receiver there.
    async fn begin(&mut self) {
        let url = self.stage.receiver.url.clone();
        self.stage.service = serve(&self.journal, &url, &self.stage.sts).await;
    }

    /// Returns when all that callhook took in before is on disk.
    async fn settles(&self) {
        let other =
            json!({ "uuid": new_uuid(), "type": "call_started", "payload": {} }).to_string();
        // What came before the first of these is on disk when the second is answered.
        for _ in 0..2 {
            self.stage.service.relay(other.clone()).await;
        }
    }

    /// The call's events, less the one that a crash may have repeated, and the reason of its end.
    fn story(&self, uuid: &str) -> (Vec<String>, String) {
        let mut events = self.stage.events(uuid);
        events.dedup_by_key(|event| event.header("webhook-id").map(str::to_owned));
        let reason = events.last().map(|event| event.body["payload"]["reason"].clone());
        let reason = reason.and_then(|reason| reason.as_str().map(str::to_owned));
        let kinds = events.iter().map(Seen::kind).map(str::to_owned).collect();
        (kinds, reason.unwrap_or_default())
    }
}

async fn serve(journal: &Journal, url: &str, sts: &Sts) -> Service {
    let vars = [
        ("WEBHOOK_RETRY", "100"),
        ("WEBHOOK_TIMEOUT", "60000"),
        ("DRAIN_TIMEOUT", "2000"),
        ("STS_URL", sts.url.as_str()),
        DETAILS,
    ];
    journal.serve(url, &vars).await
}

fn story(kinds: &[&str], reason: &str) -> (Vec<String>, String) {
    (kinds.iter().map(ToString::to_string).collect(), reason.to_owned())
}

#[tokio::test]
async fn a_call_that_callhook_died_in_gets_its_end_at_the_next_start_and_no_second_one() {
    let mut kept = Kept::set().await;
    let (live, over) = (busy_call(&kept.stage).await, busy_call(&kept.stage).await);
    over.asterisk.hang_up().await;
    kept.stage.event(&over.uuid, "call_ended").await;
    kept.stage.event(&live.uuid, "call_started").await;
    kept.settles().await;
    kept.end("KILL").await;
    kept.begin().await;
    kept.stage.event(&live.uuid, "call_ended").await;
    kept.settles().await;
    kept.end("KILL").await;
    kept.begin().await;
    kept.stage.close().await;
    assert_eq!(kept.story(&live.uuid), story(&["call_started", "call_ended"], "restart"));
    assert_eq!(kept.story(&over.uuid), story(&["call_started", "call_ended"], "hangup"));
}

#[tokio::test]
async fn what_was_not_delivered_before_the_death_comes_before_the_end() {
    let mut kept = Kept::set_alone().await;
    let mut call = kept.stage.call().await;
    call.asterisk.digit('1').await;
    call.session.message("dtmf_digit", 1).await;
    kept.settles().await;
    kept.end("KILL").await;
    kept.begin().await;
    kept.stage.event(&call.uuid, "call_ended").await;
    kept.stage.close().await;
    let expected = story(&["call_started", "dtmf_digit", "call_ended"], "restart");
    assert_eq!(kept.story(&call.uuid), expected);
}

#[tokio::test]
async fn an_end_that_was_not_delivered_before_the_death_is_the_only_one() {
    let mut kept = Kept::set_alone().await;
    let call = busy_call(&kept.stage).await;
    call.asterisk.hang_up().await;
    kept.stage.end_line(&call.uuid).await;
    kept.settles().await;
    kept.end("KILL").await;
    kept.begin().await;
    kept.stage.event(&call.uuid, "call_ended").await;
    kept.stage.close().await;
    let expected = story(&["call_started", "call_ended"], "hangup");
    assert_eq!(kept.story(&call.uuid), expected);
}

#[tokio::test]
async fn an_end_by_shutdown_that_could_not_be_delivered_arrives_after_the_next_start() {
    let silent = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3600))).await;
    let url = silent.url.clone();
    let mut kept = Kept::delivering_to(&url, Receiver::content().await).await;
    let call = busy_call(&kept.stage).await;
    silent.seen(1).await;
    let signalled = Instant::now();
    kept.stage.close().await;
    assert!(signalled.elapsed() < Duration::from_secs(6), "{:?}", signalled.elapsed());
    call.ear.hung_up().await;
    kept.begin().await;
    kept.stage.event(&call.uuid, "call_ended").await;
    kept.stage.close().await;
    let expected = story(&["call_started", "call_ended"], "shutdown");
    assert_eq!(kept.story(&call.uuid), expected);
}
