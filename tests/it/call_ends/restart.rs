//! Calls, a journal, and the end of callhook: each call that had a start has one end, after the next start
//! at the latest.

use std::time::Duration;

use callhook::journal;
use callhook::receiver::Receivers;
use serde_json::json;
use tokio::time::Instant;

use super::{DETAILS, busy_call, millis_of};
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

/// What its last event says of a call: when it ended, and after how many milliseconds.
fn end_of(stage: &Stage, uuid: &str) -> (u64, u64) {
    let events = stage.events(uuid);
    let ended = &events.last().expect("the call had events").body;
    let duration = ended["payload"]["duration_ms"].as_u64().expect("a number");
    (millis_of(&ended["timestamp"]), duration)
}

#[tokio::test]
async fn the_time_that_callhook_was_away_is_no_part_of_the_call() {
    const NIGHT: Duration = Duration::from_secs(8 * 3600);
    let mut kept = Kept::set().await;
    let dialled = Instant::now();
    let mut call = busy_call(&kept.stage).await;
    kept.stage.event(&call.uuid, "call_started").await;
    // Long enough for it to be written that the call lives.
    call.asterisk.silence(540).await;
    kept.end("KILL").await;
    let lasted = u64::try_from(dialled.elapsed().as_millis()).expect("small");
    kept.journal.set_back(NIGHT);
    let died = callhook::time::unix_millis() - u64::try_from(NIGHT.as_millis()).expect("small");
    kept.begin().await;
    kept.stage.event(&call.uuid, "call_ended").await;
    kept.stage.close().await;
    assert_eq!(kept.story(&call.uuid), story(&["call_started", "call_ended"], "restart"));
    let (at, duration) = end_of(&kept.stage, &call.uuid);
    assert!(
        (lasted.saturating_sub(10_000)..=lasted).contains(&duration),
        "{duration} of {lasted} ms"
    );
    assert!((died - 10_000..=died).contains(&at), "{at} for {died}");
}

#[tokio::test]
async fn an_end_is_on_disk_before_asterisk_learns_of_it_and_is_the_one_that_is_reported() {
    let mut kept = Kept::set().await;
    let call = kept.stage.call().await;
    call.session.transcript("agent", "goodbye").await;
    kept.stage.event(&call.uuid, "transcription").await;
    call.session.close().await;
    call.ear.hung_up().await;
    kept.end("KILL").await;
    let opened =
        journal::Journal::in_file(&kept.journal.path(), &Receivers::main(), 1).map_err(drop);
    let (closing, recovered) = opened.expect("the journal opens");
    let uuid = call.uuid.parse().expect("a uuid");
    let ended: Vec<_> = recovered.ended.iter().filter(|ended| ended.call == uuid).collect();
    assert_eq!((ended.len(), &*ended[0].reason), (1, "sts_closed"));
    drop(closing);
    kept.begin().await;
    kept.stage.event(&call.uuid, "call_ended").await;
    kept.stage.close().await;
    let expected = story(&["call_started", "transcription", "call_ended"], "sts_closed");
    assert_eq!(kept.story(&call.uuid), expected);
    assert_eq!(end_of(&kept.stage, &call.uuid), (ended[0].at, ended[0].duration_ms));
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
