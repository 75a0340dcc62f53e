//! Dead letters: what was given up is kept, shown, sent again in order, or deleted; through the admin
//! port and through `callhook dead`, with the journal in a file and in memory alike. Those of several receivers are in
//! `dead/receivers.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::support::receiver::{Receiver, Reply};
use crate::support::service::{Service, run};
use serde_json::{Value, json};
use uuid::Uuid;

const TOKEN: (&str, &str) = ("ADMIN_TOKEN", "open-sesame");

/// A receiver that refuses everything until it is told otherwise.
pub struct Moody {
    pub receiver: Receiver,
    status: Arc<AtomicU16>,
}

impl Moody {
    pub async fn start() -> Self {
        let status = Arc::new(AtomicU16::new(422));
        let mood = Arc::clone(&status);
        let receiver = Receiver::start(move |_| match mood.load(Ordering::SeqCst) {
            200 => Reply::ok(),
            429 => Reply::status(429).header("Retry-After", "60"),
            status => Reply::status(status),
        })
        .await;
        Self { receiver, status }
    }

    pub fn cheer_up(&self) {
        self.status.store(200, Ordering::SeqCst);
    }

    /// Asks for a pause from now on.
    pub fn be_busy(&self) {
        self.status.store(429, Ordering::SeqCst);
    }
}

/// A service with its admin port, and a client for it.
pub struct Admin {
    pub service: Service,
}

impl Admin {
    pub async fn start(receiver: &Receiver, vars: &[(&str, &str)]) -> Self {
        let vars = [&[("WEBHOOK_URL", receiver.url.as_str()), TOKEN], vars].concat();
        Self { service: Service::start(&vars).await }
    }

    pub async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", TOKEN.1);
        let answer = self.service.ask_admin(method, path, &[("authorization", &bearer)]).await;
        (answer.status, answer.json())
    }

    pub async fn post(&self, call: Uuid, kind: &str, id: &str) {
        let body = json!({"uuid": call.to_string(), "type": kind, "payload": {"of": id}});
        let answer =
            self.service.post_with("/events", &[("idempotency-key", id)], body.to_string()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Waits until the event was given up.
    pub async fn dies(&self, id: &str) {
        let dead = |line: &Value| line["message"] == "webhook delivery failed" && line["id"] == id;
        self.service.log_line(dead).await;
    }

    pub async fn ids(&self, query: &str) -> Vec<String> {
        let (status, page) = self.ask("GET", &format!("/api/dead{query}")).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    /// `callhook dead` with these arguments.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let port = self.service.admin().await.port().to_string();
        run(&[&["dead"], arguments].concat(), &[("ADMIN_PORT", &port), TOKEN]).await
    }
}

#[tokio::test]
async fn a_dead_letter_tells_what_was_sent_and_why_it_was_given_up() {
    let moody = Moody::start().await;
    let admin = Admin::start(&moody.receiver, &[]).await;
    let call = Uuid::new_v4();
    admin.post(call, "dtmf_digit", "first").await;
    admin.dies("first").await;
    let (status, page) = admin.ask("GET", "/api/dead").await;
    assert_eq!((status, &page["next"]), (200, &Value::Null));
    let item = &page["items"][0];
    assert_eq!(item["id"], "first");
    assert_eq!(item["receiver"], "main");
    assert_eq!(item["uuid"], call.to_string());
    assert_eq!(item["type"], "dtmf_digit");
    assert_eq!(item["payload"], json!({"of": "first"}));
    assert_eq!(item["attempts"], 1);
    assert_eq!(item["status"], 422);
    assert_eq!(item["code"], "ERR_BAD_REQUEST");
    assert_eq!(item["error"], "Request failed with status code 422");
    let sent = moody.receiver.seen(1).await;
    assert_eq!(item["timestamp"], sent[0].body["timestamp"]);
    for time in ["first_at", "last_at"] {
        let text = item[time].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{time}: {text}");
    }
    let fields: Vec<&String> = item.as_object().unwrap().keys().collect();
    let expected = [
        "id",
        "receiver",
        "uuid",
        "type",
        "timestamp",
        "payload",
        "attempts",
        "status",
        "code",
        "error",
        "answer",
        "first_at",
        "last_at",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn dead_letters_are_filtered_and_paged_oldest_first() {
    let moody = Moody::start().await;
    let admin = Admin::start(&moody.receiver, &[]).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    for (call, kind, id) in [
        (one, "call_started", "a"),
        (two, "call_started", "b"),
        (one, "dtmf_digit", "c"),
        (one, "call_ended", "d"),
    ] {
        admin.post(call, kind, id).await;
        admin.dies(id).await;
    }
    assert_eq!(admin.ids("").await, ["a", "b", "c", "d"]);
    assert_eq!(admin.ids(&format!("?call={one}")).await, ["a", "c", "d"]);
    assert_eq!(admin.ids("?type=call_started").await, ["a", "b"]);
    assert_eq!(admin.ids("?since=2999-01-01T00:00:00Z").await, Vec::<String>::new());
    let (_, first) = admin.ask("GET", "/api/dead?limit=3").await;
    let cursor = first["next"].as_u64().unwrap();
    assert_eq!(admin.ids(&format!("?limit=3&cursor={cursor}")).await, ["d"]);
    for (query, named) in [
        ("call=x", "call"),
        ("type=", "type"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("kind=x", "kind"),
        ("status=bad", "status"),
        ("receiver=crm", "there are main"),
    ] {
        let (status, body) = admin.ask("GET", &format!("/api/dead?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert!(body["error"].as_str().unwrap().contains(named), "{query}: {body}");
    }
}

#[tokio::test]
async fn a_replay_sends_them_in_order_with_their_ids_numbers_and_bytes() {
    for journal in ["none", "file.redb"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(journal);
        let path = if journal == "none" { "none" } else { path.to_str().unwrap() };
        let moody = Moody::start().await;
        let admin = Admin::start(&moody.receiver, &[("JOURNAL_PATH", path)]).await;
        let call = Uuid::new_v4();
        for id in ["a", "b", "c"] {
            admin.post(call, "dtmf_digit", id).await;
            admin.dies(id).await;
        }
        let before = moody.receiver.seen(3).await;
        moody.cheer_up();
        assert_eq!(
            admin.ask("POST", "/api/dead/b/replay").await,
            (200, json!({"replayed": 1, "left": 0}))
        );
        assert_eq!(
            admin.ask("POST", "/api/dead/replay").await,
            (200, json!({"replayed": 2, "left": 0}))
        );
        let seen = moody.receiver.seen(6).await;
        let order: Vec<_> =
            seen[3..].iter().map(|seen| seen.header("webhook-id").unwrap()).collect();
        assert_eq!(order, ["b", "a", "c"]);
        for (again, first) in
            [(&seen[3], &before[1]), (&seen[4], &before[0]), (&seen[5], &before[2])]
        {
            assert_eq!(again.raw, first.raw);
            for header in ["x-avr-webhook-sequence", "x-avr-webhook-attempt"] {
                assert_eq!(again.header(header), first.header(header), "{header}");
            }
        }
        assert_eq!(admin.ids("").await, Vec::<String>::new(), "{journal}");
        let (status, body) = admin.ask("POST", "/api/dead/b/replay").await;
        assert_eq!(status, 404, "{body}");
    }
}

#[tokio::test]
async fn what_fails_again_is_a_dead_letter_again_and_is_not_replayed_twice() {
    let moody = Moody::start().await;
    let admin = Admin::start(&moody.receiver, &[]).await;
    for id in ["a", "b"] {
        admin.post(Uuid::new_v4(), "dtmf_digit", id).await;
        admin.dies(id).await;
    }
    assert_eq!(admin.ask("POST", "/api/dead/replay").await.1["replayed"], 2);
    moody.receiver.seen(4).await;
    // The receiver has answered; the journal has it a moment later.
    let both = async { while admin.ids("").await.len() < 2 {} };
    tokio::time::timeout(Duration::from_secs(15), both).await.unwrap();
    assert_eq!(moody.receiver.so_far().len(), 4);
}

#[tokio::test]
async fn dead_letters_survive_a_restart_and_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let vars = [("JOURNAL_PATH", path.to_str().unwrap())];
    let moody = Moody::start().await;
    let mut admin = Admin::start(&moody.receiver, &vars).await;
    for id in ["a", "b"] {
        admin.post(Uuid::new_v4(), "dtmf_digit", id).await;
        admin.dies(id).await;
    }
    admin.service.terminate();
    assert_eq!(admin.service.wait().await, 0);
    let admin = Admin::start(&moody.receiver, &vars).await;
    assert_eq!(admin.ids("").await, ["a", "b"]);
    assert_eq!(
        admin.ask("DELETE", "/api/dead/a").await,
        (200, json!({"deleted": 1, "waiting": 0}))
    );
    assert_eq!(admin.ids("").await, ["b"]);
    assert_eq!(admin.ask("DELETE", "/api/dead/a").await.0, 404);
}

#[tokio::test]
async fn without_a_receiver_a_replayed_event_waits_for_a_start_with_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let path = ("JOURNAL_PATH", path.to_str().unwrap());
    let moody = Moody::start().await;
    let mut admin = Admin::start(&moody.receiver, &[path]).await;
    admin.post(Uuid::new_v4(), "dtmf_digit", "a").await;
    admin.dies("a").await;
    admin.service.terminate();
    assert_eq!(admin.service.wait().await, 0);
    let mut admin = Admin::start(&moody.receiver, &[path, ("WEBHOOK_URL", "none")]).await;
    assert_eq!(admin.ask("POST", "/api/dead/a/replay").await.1["replayed"], 1);
    admin.service.terminate();
    assert_eq!(admin.service.wait().await, 0);
    moody.cheer_up();
    let _admin = Admin::start(&moody.receiver, &[path]).await;
    assert_eq!(moody.receiver.seen(2).await[1].header("webhook-id"), Some("a"));
}

#[tokio::test]
async fn dead_limit_keeps_the_newest() {
    let moody = Moody::start().await;
    let admin = Admin::start(&moody.receiver, &[("DEAD_LIMIT", "2")]).await;
    for id in ["a", "b", "c"] {
        admin.post(Uuid::new_v4(), "dtmf_digit", id).await;
        admin.dies(id).await;
    }
    assert_eq!(admin.ids("").await, ["b", "c"]);
    let dropped = |line: &Value| line["dropped"] == 1 && line["limit"] == 2;
    assert_eq!(admin.service.log_line(dropped).await["level"], "warn");
}

#[tokio::test]
async fn the_admin_port_asks_for_its_token() {
    let moody = Moody::start().await;
    let admin = Admin::start(&moody.receiver, &[]).await;
    for token in [None, Some("wrong"), Some("")] {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", &**bearer)).collect();
        let answer = admin.service.ask_admin("GET", "/api/dead", &headers).await;
        assert_eq!(answer.status, 401, "{token:?}");
    }
}

#[tokio::test]
async fn the_command_lists_replays_and_purges() {
    let moody = Moody::start().await;
    let admin = Admin::start(&moody.receiver, &[]).await;
    let (code, out, _) = admin.command(&["list"]).await;
    assert_eq!((code, out.as_str()), (0, "no dead letters\n"));
    let call = Uuid::new_v4();
    for id in ["a", "b", "c"] {
        admin.post(call, "dtmf_digit", id).await;
        admin.dies(id).await;
    }
    let (_, table, _) = admin.command(&["list", "--call", &call.to_string()]).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("ERR_BAD_REQUEST Request failed with status code 422"), "{table}");
    let (_, lines, _) = admin.command(&["list", "--json"]).await;
    let ids: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let (code, _, err) = admin.command(&["replay", "nonsense"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("404") && err.contains("nonsense"), "{err}");
    let (code, out, _) = admin.command(&["purge", "--older-than", "1h"]).await;
    assert_eq!((code, out.as_str()), (0, "0 deleted\n"));
    moody.cheer_up();
    let (code, _, err) = admin.command(&["replay", "a"]).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, _) = admin.command(&["purge", "--older-than", "0s"]).await;
    assert_eq!((code, out.as_str()), (0, "2 deleted\n"));
    assert_eq!(admin.ids("").await, Vec::<String>::new());
    for wrong in [&["replay"][..], &["replay", "--all", "x"], &["purge"], &["list", "--since"]] {
        assert_eq!(admin.command(wrong).await.0, 64, "{wrong:?}");
    }
}
