//! A journal that an earlier release wrote, and what it keeps for receivers that come and go.

use std::collections::BTreeMap;

use callhook::event::EventId;
use callhook::journal::{DeadFilter, Journal};
use callhook::receiver::{ReceiverId, Receivers};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tempfile::TempDir;

use crate::support::journal::Journal as Kept;
use crate::support::receiver::Receiver;

/// Written by the release before format 2: after `kill -9`, with a receiver that was down.
const FORMAT_1: &[u8] = include_bytes!("../../journals/format-1.redb");

/// In the order in which they were accepted; of three calls.
const WAITING: [&str; 6] =
    ["dtmf_digit", "call_ended", "interruption", "call_started", "call_started", "call_ended"];

fn format_1() -> (TempDir, std::path::PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("callhook.redb");
    std::fs::write(&path, FORMAT_1).unwrap();
    (directory, path)
}

fn format_of(path: &std::path::Path) -> u64 {
    let database = Database::open(path).unwrap();
    let read = database.begin_read().unwrap();
    let meta = read.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
    meta.get("format").unwrap().unwrap().value()
}

#[test]
fn what_the_release_before_wrote_is_found_and_the_file_is_of_the_new_format_then() {
    let (_directory, path) = format_1();
    assert_eq!(format_of(&path), 1);
    for again in [false, true] {
        let (journal, recovered) = Journal::in_file(&path, &Receivers::main(), 100).unwrap();
        let kinds: Vec<&str> = recovered.items.iter().map(|item| item.event.kind.name()).collect();
        assert_eq!(kinds, WAITING, "again: {again}");
        assert!(recovered.items.iter().all(|item| item.receiver == ReceiverId::MAIN));
        assert_eq!(recovered.items[2].event.agent(), Some("other"));
        assert_eq!(recovered.items[0].event.id, EventId::given("digit").unwrap());
        let decisions: BTreeMap<String, bool> = recovered
            .ids
            .iter()
            .map(|(id, given)| (id.to_string(), given.decision.is_some()))
            .collect();
        assert_eq!(decisions, [("digit".into(), false), ("first".into(), true)].into());
        assert_eq!(recovered.calls.len(), 1);
        assert_eq!(recovered.ended[0].reason, "hangup");
        let (letters, _) = journal.dead_letters(&DeadFilter::default(), 0, 9).unwrap();
        let answers: Vec<_> = letters.iter().map(|letter| letter.answer.as_deref()).collect();
        assert_eq!(answers, [Some(r#"{"message":"no such flow"}"#); 2]);
        journal.close();
    }
    assert_eq!(format_of(&path), 2);
}

#[tokio::test]
async fn what_the_release_before_left_is_delivered_in_order() {
    let kept = Kept::new();
    std::fs::write(kept.path(), FORMAT_1).unwrap();
    let receiver = Receiver::content().await;
    let service = kept.serve(&receiver.url, &[]).await;
    // The call that was cut gets its end, too.
    let seen = receiver.seen(WAITING.len() + 1).await;
    let mut of_calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for seen in &seen {
        of_calls.entry(seen.uuid()).or_default().push(seen.kind());
    }
    let kinds: Vec<Vec<&str>> = of_calls.into_values().collect();
    assert_eq!(
        kinds,
        [
            vec!["interruption"],
            vec!["dtmf_digit", "call_ended"],
            vec!["call_started", "call_ended"],
            vec!["call_started", "call_ended"],
        ]
    );
    drop(service);
}
