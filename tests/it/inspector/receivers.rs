//! Several receivers, as the state and a call's timeline show them.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Admin, is_settled};
use crate::support::receiver::{Receiver, Reply, closed_gate};

/// One field of each.
fn each<'a>(items: &'a Value, field: &str) -> Vec<&'a Value> {
    items.as_array().unwrap().iter().map(|item| &item[field]).collect()
}

#[tokio::test]
async fn each_receiver_has_a_state_of_its_own_the_main_one_first() {
    let main = Receiver::content().await;
    let (gate, crm) = (closed_gate(), Receiver::start(|_| Reply::status(503)).await);
    let held = gate.clone();
    let log = Receiver::start(move |seen| match seen.kind() {
        "call_ended" => Reply::ok().when(&held),
        _ => Reply::status(422),
    })
    .await;
    let vars = [
        ("RECEIVER_CRM_URL", crm.url.as_str()),
        ("RECEIVER_LOG_URL", &log.url),
        ("WEBHOOK_BREAKER", "1"),
        ("WEBHOOK_RETRY", "3"),
    ];
    let admin = Admin::start(&main, &vars).await;
    let call = Uuid::new_v4();
    admin.send(call, "call_started", json!({})).await;
    admin.call(call, |call| call["dead"] == 1 && call["retrying"] == 1).await;
    admin.send(call, "call_ended", json!({})).await;
    log.seen(2).await;
    admin.call(call, |call| call["waiting"] == 3).await;
    let state = admin.get("/api/state").await;
    let receivers = &state["receivers"];
    let names = each(receivers, "name");
    assert_eq!(names[0], "main");
    let at = |name: &str| &receivers[names.iter().position(|known| **known == name).unwrap()];
    let standing = |name: &str| {
        let of = |field: &str| at(name)[field].clone();
        json!([of("url"), of("state"), of("waiting"), of("dead_letters")])
    };
    assert_eq!(standing("main"), json!([main.url, "up", 0, 0]));
    assert_eq!(standing("crm"), json!([crm.url, "down", 2, 0]));
    assert_eq!(standing("log"), json!([log.url, "up", 1, 1]));
    assert_eq!((&at("log")["in_flight"], &at("main")["oldest_ms"]), (&json!(1), &Value::Null));
    assert_eq!((&state["queue"]["waiting"], &state["dead_letters"]), (&json!(3), &json!(1)));
    assert_eq!(state["retired"], json!([]));
    gate.add_permits(1);
}

#[tokio::test]
async fn a_timeline_has_an_item_for_each_event_and_receiver() {
    let main = Receiver::content().await;
    let crm = Receiver::start(|_| Reply::status(422)).await;
    let vars = [("RECEIVER_CRM_URL", crm.url.as_str()), ("RECEIVER_CRM_EVENTS", "call_ended")];
    let admin = Admin::start(&main, &vars).await;
    let call = Uuid::new_v4();
    admin.send(call, "call_started", json!({})).await;
    admin.send(call, "tool_call", json!({})).await;
    admin.send(call, "call_ended", json!({"by": "caller"})).await;
    let seen = admin.call(call, |call| call["dead"] == 1 && is_settled(call)).await;
    assert_eq!(seen["events"], 3, "each event counts once");
    let receivers = &seen["receivers"];
    assert_eq!(each(receivers, "name"), ["main", "crm"]);
    assert_eq!(each(receivers, "url"), [&json!(main.url), &json!(crm.url)]);
    let timeline = &seen["timeline"];
    assert_eq!(
        each(timeline, "receiver"),
        [&json!("main"), &Value::Null, &json!("main"), &json!("crm")]
    );
    assert_eq!(each(timeline, "state"), ["delivered", "dropped", "delivered", "dead"]);
    assert_eq!(
        each(timeline, "sequence"),
        [&json!(1), &Value::Null, &json!(2), &json!(1)],
        "each receiver's own"
    );
    let (of_main, of_crm) = (&timeline[2], &timeline[3]);
    assert_eq!((&of_main["id"], &of_main["payload"]), (&of_crm["id"], &of_crm["payload"]));
    assert_eq!(
        (&of_main["attempts"][0]["status"], &of_crm["attempts"][0]["status"]),
        (&json!(200), &json!(422))
    );
}

#[tokio::test]
async fn a_receiver_that_left_the_settings_is_told_of_while_something_is_kept_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let path = ("JOURNAL_PATH", path.to_str().unwrap());
    let main = Receiver::content().await;
    let crm = Receiver::start(|_| Reply::status(422)).await;
    let call = Uuid::new_v4();
    let mut admin = Admin::start(&main, &[path, ("RECEIVER_CRM_URL", &crm.url)]).await;
    admin.send(call, "call_started", json!({})).await;
    admin.call(call, |call| call["dead"] == 1 && is_settled(call)).await;
    admin.service.terminate();
    assert_eq!(admin.service.wait().await, 0);
    let mut admin = Admin::start(&main, &[path]).await;
    let state = admin.get("/api/state").await;
    assert_eq!(state["retired"], json!([{"name": "crm", "waiting": 0, "dead_letters": 1}]));
    assert_eq!(each(&state["receivers"], "name"), ["main"]);
    let dropped = admin.ask("DELETE", "/api/dead?receiver=crm", &[super::HOST]).await;
    assert_eq!(dropped.json(), json!({"deleted": 1, "waiting": 0}));
    admin.service.terminate();
    assert_eq!(admin.service.wait().await, 0);
    let admin = Admin::start(&main, &[path]).await;
    assert_eq!(admin.get("/api/state").await["retired"], json!([]));
}
