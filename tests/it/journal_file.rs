//! The file: made where it is missing, one process at a time, never changed where it is damaged, and what it is to be
//! without one.

use std::path::Path;

use callhook::event::CallId;
use callhook::journal::EndedCall;
use callhook::receiver::Receivers;
use callhook::routing::destination::Destination;
use callhook::time::unix_millis;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::journal::{PATIENT, all_of, array, ids_of, relay};
use crate::support::event::{new_uuid, numbered};
use crate::support::journal::{Journal, end, kill, terminate};
use crate::support::receiver::{Receiver, Reply, nobody, numbers_of};
use crate::support::service::{Service, run, serve};

/// A start that has to fail: its exit code, and what it says.
async fn refused(path: &Path) -> (i32, String) {
    let path = path.to_str().expect("a path of plain text");
    let (code, _, log) = run(
        &["serve"],
        &[
            ("WEBHOOK_URL", "http://127.0.0.1:9/events"),
            ("JOURNAL_PATH", path),
            ("HTTP_HOST", "127.0.0.1"),
            ("HTTP_PORT", "0"),
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
        ],
    )
    .await;
    assert!(log.contains(path), "it names {path}:\n{log}");
    assert!(!log.contains("panicked"), "an error, no panic:\n{log}");
    (code, log)
}

#[tokio::test]
async fn a_missing_file_is_made_with_its_directories() {
    let journal = Journal::new();
    let path = journal.directory.path().join("not/there/yet.redb");
    let receiver = Receiver::content().await;
    let vars = [
        ("WEBHOOK_URL", receiver.url.as_str()),
        ("JOURNAL_PATH", path.to_str().expect("a path of plain text")),
    ];
    let service = Service::start(&vars).await;
    relay(&service, &new_uuid(), 0).await;
    receiver.seen(1).await;
    assert!(path.is_file());
}

#[tokio::test]
async fn unless_told_otherwise_it_is_in_data_where_the_process_runs() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("JOURNAL_PATH", "undefined")]).await;
    relay(&service, &new_uuid(), 0).await;
    receiver.seen(1).await;
    assert!(service.directory().join("data/callhook.redb").is_file());
}

#[tokio::test]
async fn without_a_journal_a_restart_begins_with_nothing_and_the_loss_was_logged() {
    let journal = Journal::new();
    let none = [("JOURNAL_PATH", "none"), ("DRAIN_TIMEOUT", "500"), ("WEBHOOK_RETRY", "20")];
    let (port, url) = nobody();
    let vars = [&none[..], &[("WEBHOOK_URL", url.as_str())]].concat();
    let service = Service::start(&vars).await;
    let uuid = new_uuid();
    for n in 0..7 {
        relay(&service, &uuid, n).await;
    }
    let log = terminate(service).await;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(lines.into_iter().any(|line| line["lost"] == 7), "it says how many:\n{log}");
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let service = Service::start(&vars).await;
    let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
    assert!(seen.is_empty(), "{seen:#?}");
    assert!(!journal.path().exists());
}

#[tokio::test]
async fn an_empty_file_is_a_new_journal() {
    let journal = Journal::new();
    std::fs::write(journal.path(), "").expect("a file can be made");
    let (port, url) = nobody();
    let service = journal.serve(&url, &PATIENT).await;
    let uuid = new_uuid();
    relay(&service, &uuid, 0).await;
    kill(service).await;
    let receiver = Receiver::start_on(port, |_| Reply::ok()).await;
    let service = journal.serve(&url, &PATIENT).await;
    let seen = all_of(&service, &receiver, std::slice::from_ref(&uuid)).await;
    assert_eq!(numbers_of(&seen, &uuid), [0]);
}

#[tokio::test]
async fn a_directory_in_its_place_is_a_clear_error() {
    let journal = Journal::new();
    std::fs::create_dir(journal.path()).expect("a directory can be made");
    let (code, log) = refused(&journal.path()).await;
    assert_eq!(code, 1, "{log}");
}

#[tokio::test]
async fn a_second_process_on_one_journal_exits_with_69_and_says_why() {
    let journal = Journal::new();
    let receiver = Receiver::content().await;
    let service = journal.serve(&receiver.url, &[]).await;
    let (code, log) = refused(&journal.path()).await;
    assert_eq!(code, 69, "{log}");
    assert!(log.contains("in use"), "{log}");
    let uuid = new_uuid();
    relay(&service, &uuid, 0).await;
    assert_eq!(numbers_of(&receiver.seen(1).await, &uuid), [0], "the first goes on");
    terminate(service).await;
    let service = journal.serve(&receiver.url, &[]).await;
    relay(&service, &uuid, 1).await;
    assert_eq!(numbers_of(&receiver.seen(2).await, &uuid), [0, 1], "it is free again");
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_an_error_and_stays_as_it_is() {
    let mut noise = vec![0; 100_000];
    StdRng::seed_from_u64(11).fill_bytes(&mut noise);
    let zeros = vec![0; 8192];
    for content in [&b"x"[..], b"{\"not\":\"a journal\"}\n", &noise[..4096], &noise, &zeros] {
        let journal = Journal::new();
        std::fs::write(journal.path(), content).expect("a file can be made");
        let (code, log) = refused(&journal.path()).await;
        assert_eq!(code, 1, "{} bytes: {log}", content.len());
        assert!(journal.bytes() == content, "{} bytes were changed: {log}", content.len());
    }
}

/// A journal that holds 300 events of one call, left behind by that signal; and their ids.
async fn filled(uuid: &str, signal: &str) -> (Journal, Vec<String>) {
    let journal = Journal::new();
    let (_, url) = nobody();
    let service = journal.serve(&url, &[("WEBHOOK_RETRY", "20")]).await;
    let answer = service.relay(array(uuid, 0..300)).await;
    let ids = answer.json()["ids"].as_array().expect("ids").clone();
    let ids = ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect();
    end(service, signal).await;
    (journal, ids)
}

#[tokio::test]
async fn a_journal_overwritten_in_the_middle_is_an_error_and_stays_as_it_is() {
    for signal in ["KILL", "TERM"] {
        let (journal, _) = filled(&new_uuid(), signal).await;
        let mut bytes = journal.bytes();
        let size = bytes.len();
        StdRng::seed_from_u64(12).fill_bytes(&mut bytes[size / 4..size / 4 * 3]);
        std::fs::write(journal.path(), &bytes).expect("the journal can be written");
        let (code, log) = refused(&journal.path()).await;
        assert_eq!(code, 1, "after SIG{signal}: {log}");
        assert!(journal.bytes() == bytes, "it was changed, after SIG{signal}: {log}");
    }
}

#[tokio::test]
async fn a_journal_cut_short_is_an_error_and_is_not_deleted() {
    for signal in ["KILL", "TERM"] {
        let (journal, _) = filled(&new_uuid(), signal).await;
        let bytes = journal.bytes();
        for part in [100, bytes.len() / 2, bytes.len() - 4096] {
            std::fs::write(journal.path(), &bytes[..part]).expect("the journal can be written");
            let (code, log) = refused(&journal.path()).await;
            assert_eq!(code, 1, "{part} bytes of it, after SIG{signal}: {log}");
            // The store may have mended what it could; but the file is still there to be looked at.
            assert!(!journal.bytes().is_empty(), "{part} bytes of it are gone: {log}");
        }
    }
}

/// Some pages hold nothing, and a header has a spare: damage is noticed, or it does no harm. This is of a
/// journal that was closed: after a kill, the last transaction may look like one that was cut off.
#[tokio::test]
async fn a_damaged_page_is_noticed_or_costs_no_event() {
    const SEED: u64 = 13;
    let uuid = new_uuid();
    let (journal, ids) = filled(&uuid, "TERM").await;
    let whole = journal.bytes();
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut noticed, mut harmless) = (0, 0);
    for page in (0..whole.len() / 4096).step_by(2) {
        let mut bytes = whole.clone();
        let at = page * 4096 + rng.random_range(0..64);
        rng.fill_bytes(&mut bytes[at..page * 4096 + 2048]);
        std::fs::write(journal.path(), &bytes).expect("the journal can be written");
        if starts_with_all(&journal, &uuid, &ids, &format!("page {page}, seed {SEED}")).await {
            harmless += 1;
        } else {
            noticed += 1;
            assert!(journal.bytes() == bytes, "page {page} was changed, seed {SEED}");
        }
    }
    assert!(noticed > 4, "{noticed} noticed, {harmless} harmless, seed {SEED}");
}

/// False if the start was refused as it should be; panics if it starts without one of the events.
async fn starts_with_all(journal: &Journal, uuid: &str, ids: &[String], what: &str) -> bool {
    let path = journal.path();
    let path = path.to_str().expect("a path of plain text").to_owned();
    let receiver = Receiver::content().await;
    let url = receiver.url.clone();
    let mut start = JoinSet::new();
    start.spawn(
        async move { Service::start(&[("WEBHOOK_URL", &url), ("JOURNAL_PATH", &path)]).await },
    );
    let Some(Ok(service)) = start.join_next().await else {
        let (code, log) = refused(&journal.path()).await;
        assert_eq!(code, 1, "{what}: {log}");
        return false;
    };
    let seen = all_of(&service, &receiver, &[uuid.to_owned()]).await;
    assert_eq!(ids_of(&seen, uuid), ids, "{what}");
    kill(service).await;
    true
}

#[tokio::test]
async fn a_copy_of_a_journal_in_another_place_is_that_journal() {
    let uuid = new_uuid();
    let (journal, ids) = filled(&uuid, "KILL").await;
    let other = Journal::new();
    std::fs::copy(journal.path(), other.path()).expect("the journal can be copied");
    let receiver = Receiver::content().await;
    let service = other.serve(&receiver.url, &[]).await;
    service.relay(numbered(&uuid, 300)).await;
    let seen = receiver.seen(301).await;
    assert_eq!(ids_of(&seen, &uuid)[..300], ids);
    assert_eq!(numbers_of(&seen, &uuid), (0..=300).collect::<Vec<_>>());
}

/// How calls ended, as a callhook writes it that knows no destinations.
const ENDED: TableDefinition<'_, (u64, [u8; 16]), (&str, u64)> = TableDefinition::new("ended");

/// Makes a journal as that callhook does, with a call that ended.
fn make_older(path: &Path, call: CallId, at: u64) {
    type Event<'a> = (u64, [u8; 16], &'a str, &'a str, Option<&'a str>, &'a [u8]);
    type Dead<'a> = (
        u64,
        [u8; 16],
        &'a str,
        &'a str,
        Option<&'a str>,
        &'a [u8],
        u32,
        Option<u16>,
        &'a str,
        &'a str,
        u64,
        u64,
    );
    let write = Database::create(path).unwrap().begin_write().unwrap();
    let meta = TableDefinition::<&str, u64>::new("meta");
    write.open_table(meta).unwrap().insert("format", 1).unwrap();
    write.open_table(TableDefinition::<u64, Event<'_>>::new("events")).unwrap();
    write.open_table(TableDefinition::<u64, (u32, u64)>::new("spent")).unwrap();
    write.open_table(TableDefinition::<&str, (u64, Option<&str>)>::new("ids")).unwrap();
    write.open_table(TableDefinition::<u64, Dead<'_>>::new("dead")).unwrap();
    write.open_table(TableDefinition::<[u8; 16], u64>::new("calls")).unwrap();
    write.open_table(ENDED).unwrap().insert((at, call.to_bytes()), ("hangup", 7)).unwrap();
    write.commit().unwrap();
}

#[tokio::test]
async fn an_older_callhook_and_this_one_read_each_others_ends() {
    let journal = Journal::new();
    let ([old, new], at) = ([CallId::random(), CallId::random()], unix_millis());
    make_older(&journal.path(), old, at);
    let receivers = Receivers::main();
    let open = || {
        callhook::journal::Journal::in_file(&journal.path(), &receivers, 1).map_err(drop).unwrap()
    };
    let (opened, recovered) = open();
    let known = EndedCall { call: old, reason: "hangup".into(), duration_ms: 7, at, next: None };
    assert_eq!(recovered.ended, std::slice::from_ref(&known));
    let next = Destination::new("people", "100").ok();
    let ended =
        EndedCall { call: new, reason: "transfer".into(), duration_ms: 8, at: at + 1, next };
    assert!(opened.call_ended(ended.clone()).kept().await);
    drop(opened);
    let (opened, recovered) = open();
    assert_eq!(recovered.ended, [known, ended]);
    drop(opened);
    let older = Database::open(journal.path()).unwrap();
    let read = older.begin_read().unwrap();
    let table = read.open_table(ENDED).unwrap();
    let row = table.get((at + 1, new.to_bytes())).unwrap().map(|row| row.value().1);
    assert_eq!((row, table.iter().unwrap().count()), (Some(8), 2));
}
