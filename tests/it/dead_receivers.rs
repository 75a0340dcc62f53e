//! Dead letters of several receivers: each is one receiver's, and is listed, replayed and deleted as such.

use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::dead::{Admin, Moody};
use crate::support::receiver::{Receiver, Reply};
use crate::support::record::LIMIT;

/// A main receiver and a copy named crm, both of which refuse everything until they are told to accept.
struct Two {
    main: Moody,
    crm: Moody,
}

impl Two {
    async fn start() -> Self {
        Self { main: Moody::start().await, crm: Moody::start().await }
    }

    async fn admin(&self, vars: &[(&str, &str)]) -> Admin {
        let crm = [("RECEIVER_CRM_URL", self.crm.receiver.url.as_str())];
        Admin::start(&self.main.receiver, &[&crm, vars].concat()).await
    }
}

impl Admin {
    /// Makes a dead letter of each receiver.
    async fn kill(&self, kind: &str, id: &str) {
        self.post(Uuid::new_v4(), kind, id).await;
        self.dies_at("main", id).await;
        self.dies_at("crm", id).await;
    }

    async fn dies_at(&self, receiver: &str, id: &str) {
        let dead = |line: &Value| {
            line["message"] == "webhook delivery failed"
                && line["id"] == id
                && line["receiver"] == receiver
        };
        self.service.log_line(dead).await;
    }

    /// The dead letters, each as `id at receiver`.
    async fn letters(&self, query: &str) -> Vec<String> {
        let (status, page) = self.ask("GET", &format!("/api/dead{query}")).await;
        assert_eq!(status, 200, "{page}");
        let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| format!("{} at {}", text(item, "id"), text(item, "receiver"))).collect()
    }

    /// Waits until so many events wait for each receiver.
    async fn waits(&self, wanted: [u64; 2]) {
        let looking = async {
            loop {
                let (_, state) = self.ask("GET", "/api/state").await;
                let waiting = |index: usize| state["receivers"][index]["waiting"].as_u64();
                if [waiting(0), waiting(1)] == wanted.map(Some) {
                    return;
                }
            }
        };
        timeout(LIMIT, looking).await.expect("they are settled in time");
    }

    async fn stop(mut self) {
        self.service.terminate();
        assert_eq!(self.service.wait().await, 0);
    }
}

/// The ids that a receiver was sent, in order.
async fn ids_at(receiver: &Receiver, count: usize) -> Vec<String> {
    let seen = receiver.seen(count).await;
    seen.iter().map(|seen| seen.header("webhook-id").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn they_are_filtered_by_receiver_code_and_status() {
    let main = Receiver::start(|seen| match seen.kind() {
        "call_ended" => Reply::status(500),
        _ => Reply::status(422),
    })
    .await;
    let crm = Receiver::start(|_| Reply::status(410)).await;
    let vars = [("RECEIVER_CRM_URL", crm.url.as_str()), ("WEBHOOK_RETRY", "0")];
    let admin = Admin::start(&main, &vars).await;
    admin.kill("call_started", "a").await;
    admin.kill("call_ended", "b").await;
    for (query, found) in [
        ("", &["a at main", "a at crm", "b at main", "b at crm"][..]),
        ("?receiver=crm", &["a at crm", "b at crm"]),
        ("?status=422", &["a at main"]),
        ("?code=ERR_BAD_RESPONSE", &["b at main"]),
        ("?code=ERR_BAD_REQUEST&type=call_started", &["a at main", "a at crm"]),
        ("?receiver=main&status=410", &[]),
    ] {
        assert_eq!(admin.letters(query).await, found, "{query}");
    }
    let (status, body) = admin.ask("GET", "/api/dead?receiver=erp").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("there are main, crm"), "{body}");
}

#[tokio::test]
async fn an_id_means_every_receiver_unless_one_is_named() {
    let two = Two::start().await;
    let admin = two.admin(&[]).await;
    admin.kill("call_started", "a").await;
    admin.kill("call_started", "b").await;
    let gone = |deleted: u32| (200, json!({"deleted": deleted, "waiting": 0}));
    assert_eq!(admin.ask("DELETE", "/api/dead/a?receiver=crm").await, gone(1));
    assert_eq!(admin.ask("DELETE", "/api/dead/a?receiver=crm").await.0, 404);
    assert_eq!(admin.letters("").await, ["a at main", "b at main", "b at crm"]);
    two.main.cheer_up();
    two.crm.cheer_up();
    let again = |replayed: u32| (200, json!({"replayed": replayed, "left": 0}));
    assert_eq!(admin.ask("POST", "/api/dead/b/replay").await, again(2));
    assert_eq!(admin.ask("POST", "/api/dead/a/replay?receiver=main").await, again(1));
    assert_eq!(ids_at(&two.main.receiver, 4).await, ["a", "b", "b", "a"]);
    assert_eq!(ids_at(&two.crm.receiver, 3).await, ["a", "b", "b"]);
    assert_eq!(admin.letters("").await, Vec::<String>::new());
    assert_eq!(admin.ask("POST", "/api/dead/a/replay?kind=x").await.0, 400);
}

#[tokio::test]
async fn all_that_a_filter_admits_is_replayed_or_deleted_and_never_everything_deleted() {
    let two = Two::start().await;
    let admin = two.admin(&[]).await;
    for (kind, id) in [("call_started", "a"), ("call_ended", "b"), ("dtmf_digit", "c")] {
        admin.kill(kind, id).await;
    }
    let (status, body) = admin.ask("DELETE", "/api/dead").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("every dead letter"), "{body}");
    // Whoever asks for a few must not lose all.
    for (method, path) in
        [("DELETE", "/api/dead?code=ERR_BAD_REQUEST&limit=1"), ("POST", "/api/dead/replay?limit=1")]
    {
        let (status, body) = admin.ask(method, path).await;
        assert_eq!(status, 400);
        assert!(body["error"].as_str().unwrap().contains("limit"), "{body}");
    }
    assert_eq!(admin.letters("").await.len(), 6);
    let deleted = admin.ask("DELETE", "/api/dead?type=call_started&status=422").await;
    assert_eq!(deleted, (200, json!({"deleted": 2, "waiting": 0})));
    two.crm.cheer_up();
    let replayed = admin.ask("POST", "/api/dead/replay?receiver=crm&type=dtmf_digit").await;
    assert_eq!(replayed, (200, json!({"replayed": 1, "left": 0})));
    assert_eq!(ids_at(&two.crm.receiver, 4).await, ["a", "b", "c", "c"]);
    assert_eq!(admin.letters("").await, ["b at main", "b at crm", "c at main"]);
    let deleted = admin.ask("DELETE", "/api/dead?receiver=crm").await;
    assert_eq!(deleted, (200, json!({"deleted": 1, "waiting": 0})));
    assert_eq!(admin.letters("").await, ["b at main", "c at main"]);
}

#[tokio::test]
async fn a_letter_of_a_full_copy_stays_and_those_of_others_are_replayed() {
    let two = Two::start().await;
    let admin = two.admin(&[("QUEUE_LIMIT", "1")]).await;
    admin.kill("call_started", "a").await;
    admin.waits([0, 0]).await;
    two.main.cheer_up();
    two.crm.be_busy();
    admin.post(Uuid::new_v4(), "call_ended", "b").await;
    admin.waits([0, 1]).await;
    let (status, done) = admin.ask("POST", "/api/dead/a/replay").await;
    assert_eq!((status, done), (200, json!({"replayed": 1, "left": 1})));
    assert_eq!(admin.letters("").await, ["a at crm"]);
    let (status, body) = admin.ask("POST", "/api/dead/a/replay").await;
    assert_eq!(status, 503, "{body}");
}

#[tokio::test]
async fn the_command_says_which_letters_found_no_room_and_fails() {
    let two = Two::start().await;
    let admin = two.admin(&[("QUEUE_LIMIT", "1")]).await;
    for id in ["a", "b"] {
        admin.kill("call_started", id).await;
        admin.waits([0, 0]).await;
    }
    two.main.cheer_up();
    two.crm.be_busy();
    admin.post(Uuid::new_v4(), "call_ended", "c").await;
    admin.waits([0, 1]).await;
    let (code, out, err) = admin.command(&["replay", "a"]).await;
    assert_eq!((code, out.as_str()), (1, "a: 1 queued again, 1 found no room in the queue\n"));
    assert!(err.contains("no room in the queue: 1"), "{err}");
    admin.waits([0, 1]).await;
    let (code, out, err) = admin.command(&["replay", "--all"]).await;
    assert_eq!((code, out.as_str()), (1, "1 queued again, 2 found no room in the queue\n"));
    assert!(err.contains("no room in the queue: 2"), "{err}");
    assert_eq!(admin.letters("").await, ["a at crm", "b at crm"]);
}

/// A journal that holds dead letters of both receivers, and an event that waits for one which is in no settings any
/// more.
async fn left_behind(two: &Two) -> (tempfile::TempDir, Admin) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let path = [("JOURNAL_PATH", path.to_str().unwrap())];
    let admin = two.admin(&path).await;
    admin.kill("call_started", "a").await;
    admin.kill("dtmf_digit", "b").await;
    two.main.cheer_up();
    two.crm.be_busy();
    admin.post(Uuid::new_v4(), "call_ended", "c").await;
    admin.waits([0, 1]).await;
    admin.stop().await;
    let admin = Admin::start(&two.main.receiver, &path).await;
    (directory, admin)
}

#[tokio::test]
async fn nothing_is_replayed_to_a_receiver_that_left_the_settings() {
    let two = Two::start().await;
    let (_directory, admin) = left_behind(&two).await;
    for path in ["a/replay?receiver=crm", "replay?receiver=crm"] {
        let (status, body) = admin.ask("POST", &format!("/api/dead/{path}")).await;
        assert_eq!(status, 409, "{path}: {body}");
        assert!(
            body["error"].as_str().unwrap().contains("callhook dead purge --receiver crm"),
            "{body}"
        );
    }
    let once = (200, json!({"replayed": 1, "left": 0}));
    assert_eq!(admin.ask("POST", "/api/dead/a/replay").await, once);
    assert_eq!(admin.ask("POST", "/api/dead/a/replay").await.0, 409, "only that one is left");
    assert_eq!(admin.ask("POST", "/api/dead/replay").await, once);
    assert_eq!(ids_at(&two.main.receiver, 5).await[3..], ["a", "b"]);
    assert_eq!(admin.letters("").await, ["a at crm", "b at crm"]);
}

#[tokio::test]
async fn what_is_kept_for_a_receiver_that_left_the_settings_is_told_at_each_start() {
    let two = Two::start().await;
    let (directory, mut admin) = left_behind(&two).await;
    let path = directory.path().join("journal.redb");
    let path = [("JOURNAL_PATH", path.to_str().unwrap())];
    let of_crm = |line: &Value| line["receiver"] == "crm";
    for _ in 0..2 {
        let told = admin.service.log_line(of_crm).await;
        assert_eq!(told["level"], "warn");
        assert_eq!((&told["waiting"], &told["dead"]), (&json!(1), &json!(2)));
        let said = told["message"].as_str().unwrap();
        assert!(said.contains("callhook dead purge --receiver crm"), "{said}");
        admin.stop().await;
        admin = Admin::start(&two.main.receiver, &path).await;
    }
    let (code, _, err) = admin.command(&["purge", "--receiver", "crm"]).await;
    assert_eq!(code, 0, "{err}");
    admin.stop().await;
    let admin = Admin::start(&two.main.receiver, &path).await;
    assert!(!admin.service.log_so_far().iter().any(of_crm), "nothing is kept any more");
}

#[tokio::test]
async fn a_purge_drops_all_that_is_kept_for_a_receiver_that_left_the_settings() {
    let two = Two::start().await;
    let (_directory, admin) = left_behind(&two).await;
    let (_, state) = admin.ask("GET", "/api/state").await;
    let retired = |waiting: u32, letters: u32| json!([{"name": "crm", "waiting": waiting, "dead_letters": letters}]);
    assert_eq!(state["retired"], retired(1, 2));
    assert_eq!((&state["dead_letters"], &state["queue"]["waiting"]), (&json!(4), &json!(0)));
    let (code, out, _) = admin.command(&["list", "--receiver", "crm"]).await;
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");
    let (code, _, err) = admin.command(&["replay", "a", "--receiver", "crm"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("is not in the settings any more"), "{err}");
    let deleted = admin.ask("DELETE", "/api/dead?receiver=crm&type=dtmf_digit").await;
    assert_eq!(deleted, (200, json!({"deleted": 1, "waiting": 0})), "what waits is no dead letter");
    let (code, out, _) = admin.command(&["purge", "--receiver", "crm"]).await;
    assert_eq!((code, out.as_str()), (0, "1 deleted, and 1 that waited\n"));
    // A list waits for what is to be written, the state does not.
    assert_eq!(admin.letters("").await, ["a at main", "b at main"]);
    let (_, state) = admin.ask("GET", "/api/state").await;
    assert_eq!(state["retired"], retired(0, 0));
}

#[tokio::test]
async fn the_command_tells_receivers_apart() {
    let two = Two::start().await;
    let admin = two.admin(&[]).await;
    for id in ["a", "b", "c"] {
        admin.kill("dtmf_digit", id).await;
    }
    let (_, table, _) = admin.command(&["list"]).await;
    let of = |name: &str| {
        table.lines().filter(|line| line.split_whitespace().any(|word| word == name)).count()
    };
    assert_eq!((of("RECEIVER"), of("main"), of("crm")), (1, 3, 3), "{table}");
    two.crm.cheer_up();
    let (code, out, err) = admin.command(&["replay", "b", "--receiver", "crm"]).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "b: 1 queued again, 0 found no room in the queue\n"),
        "{err}"
    );
    let (code, out, err) = admin.command(&["replay", "--all", "--receiver", "crm"]).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "2 queued again, 0 found no room in the queue\n"),
        "{err}"
    );
    let mut ids = ids_at(&two.crm.receiver, 6).await;
    // Of two calls, so in any order.
    ids[4..].sort_unstable();
    assert_eq!(ids, ["a", "b", "c", "b", "a", "c"]);
    let main = ["a at main", "b at main", "c at main"];
    assert_eq!(admin.letters("").await, main);
    let (code, out, err) =
        admin.command(&["purge", "--older-than", "0s", "--receiver", "crm"]).await;
    assert_eq!((code, out.as_str()), (0, "0 deleted\n"), "{err}");
    assert_eq!(admin.letters("").await, main);
    let (code, out, err) =
        admin.command(&["purge", "--older-than", "0s", "--receiver", "main"]).await;
    assert_eq!((code, out.as_str()), (0, "3 deleted\n"), "{err}");
    let (code, _, err) = admin.command(&["list", "--receiver", "erp"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("there are main, crm"), "{err}");
}
