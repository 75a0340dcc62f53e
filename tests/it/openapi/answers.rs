//! Each documented answer, as the binary gives it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::join;
use uuid::Uuid;

use super::Running;
use super::document::Document;
use crate::support::receiver::{Receiver, Reply, closed_gate, nobody};
use crate::support::service::{Answer, IGNORING_SIGXFSZ, Service, Wire, request, request_to};
use crate::support::stage::Stage;

/// A request of a test: method, documented path, path with its query, body, status.
type Step = (&'static str, &'static str, String, String, u16);

fn event(kind: &str) -> Value {
    json!({"uuid": Uuid::new_v4().to_string(), "type": kind, "payload": {}})
}

fn call() -> Value {
    json!({"uuid": Uuid::new_v4().to_string(), "payload": {"from": "2000"}})
}

fn step(
    method: &'static str,
    path: &'static str,
    full: &str,
    body: &(impl ToString + ?Sized),
    status: u16,
) -> Step {
    (method, path, full.to_owned(), body.to_string(), status)
}

/// Makes each request, and compares its answer with the document.
async fn walk(document: &Document, running: &Running, headers: &[(&str, &str)], steps: &[Step]) {
    for (method, path, full, body, status) in steps {
        let answer = running.ask(method, full, headers, body).await;
        assert_eq!(answer.status, *status, "{method} {full}: {answer:?}");
        document.check(method, path, &answer);
    }
}

#[tokio::test]
async fn every_documented_answer_is_given_and_is_as_documented() {
    let document = Document::read();
    join!(
        what_goes_well(&document),
        what_is_refused_for_a_secret(&document),
        what_is_refused_to_other_pages(&document),
        what_is_streamed(&document),
        what_comes_too_slowly(&document),
        what_finds_no_room(&document),
        what_finds_no_disk(&document),
        what_is_kept_for_a_receiver_that_is_gone(&document),
    );
    // By itself: the others are as many as one thread gets through within their times.
    what_agents_ask(&document).await;
    assert_eq!(document.unseen(), Vec::<String>::new(), "documented, and never answered");
}

async fn what_goes_well(document: &Document) {
    let receiver =
        Receiver::start(|seen| match (seen.kind(), seen.body["payload"]["from"].as_str()) {
            ("call_initiated", Some("2000")) => Reply::route("wss://vip.test/agent"),
            ("call_ended", _) => Reply::status(422),
            _ => Reply::ok(),
        })
        .await;
    let running = Running::start(&[("WEBHOOK_URL", &receiver.url)]).await;
    let decided = call();
    let bare = json!({"uuid": Uuid::new_v4().simple().to_string().to_uppercase()});
    let many = json!([event("dtmf_digit"), event("error")]);
    let unrouted = event("call_initiated");
    let routed = json!({"uuid": Uuid::new_v4().to_string(), "type": "call_initiated", "payload": {"from": "2000"}});
    let known = format!("/api/calls/{}", decided["uuid"].as_str().unwrap());
    let standing = known.replace("/api/calls", "/call");
    let unknown = format!("/api/calls/{}", Uuid::new_v4());
    let steps = [
        step("POST", "/call", "/call", &decided, 200),
        step("POST", "/call", "/call", &bare, 200),
        step("GET", "/call/{uuid}", &standing, "", 200),
        step("GET", "/call/{uuid}", "/call/7f9c1f3e-0d6c-4c7e-9f43-0b6f6a0f3d21", "", 404),
        step("GET", "/call/{uuid}/next", &format!("{standing}/next"), "", 200),
        step("GET", "/call/{uuid}/next", "/call/x/next", "", 404),
        step("POST", "/call", "/call", r#"{"uuid":"x"}"#, 400),
        step("POST", "/call", "/call", &" ".repeat(70_000), 413),
        step("POST", "/events", "/events", &routed, 200),
        step("POST", "/events", "/events", &unrouted, 200),
        step("POST", "/events", "/events", &event("dtmf_digit"), 202),
        step("POST", "/events", "/events", &event("error"), 202),
        step("POST", "/events", "/events", &many, 202),
        step("POST", "/events", "/events", &json!([]), 202),
        step("POST", "/events", "/events", "{}", 400),
        step("POST", "/events", "/events", &" ".repeat(9_000_000), 413),
        step("GET", "/health", "/health", "", 200),
        step("GET", "/ready", "/ready", "", 200),
        step("GET", "/", "/", "", 200),
        step("GET", "/metrics", "/metrics", "", 200),
        step("GET", "/api/state", "/api/state", "", 200),
        step("GET", "/api/calls", "/api/calls", "", 200),
        step("GET", "/api/calls", "/api/calls?state=over", "", 400),
        step("GET", "/api/calls/{uuid}", &known, "", 200),
        step("GET", "/api/calls/{uuid}", &unknown, "", 404),
        step("GET", "/api/calls/{uuid}", "/api/calls/x", "", 400),
        step("GET", "/api/dead", "/api/dead", "", 200),
        step("GET", "/api/dead", "/api/dead?limit=0", "", 400),
        step("POST", "/api/dead/replay", "/api/dead/replay?since=soon", "", 400),
        step("DELETE", "/api/dead", "/api/dead?before=soon", "", 400),
        step("POST", "/api/dead/{id}/replay", "/api/dead/none/replay", "", 404),
        step("POST", "/api/dead/{id}/replay", "/api/dead/none/replay?receiver=crm", "", 400),
        step("DELETE", "/api/dead", "/api/dead", "", 400),
        step("DELETE", "/api/dead/{id}", "/api/dead/none?receiver=crm", "", 400),
        step("DELETE", "/api/dead/{id}", "/api/dead/none", "", 404),
    ];
    walk(document, &running, &[], &steps).await;
    let keyed = [("Idempotency-Key", "booking-4711")];
    let steps = [
        step("POST", "/events", "/events", &event("dtmf_digit"), 202),
        step("POST", "/events", "/events", &event("dtmf_digit"), 422),
    ];
    walk(document, &running, &keyed, &steps).await;
    let via = receiver.so_far()[0].header("x-callhook-via").expect("a way").to_owned();
    let steps = [
        step("POST", "/call", "/call", &call(), 508),
        step("POST", "/events", "/events", &event("dtmf_digit"), 508),
    ];
    walk(document, &running, &[("X-Callhook-Via", &via)], &steps).await;
    dead_letters(document, &running).await;
}

/// What the front answers to the requests of agents.
async fn what_agents_ask(document: &Document) {
    let vars = [("TRANSFER_TO", "people/100"), ("AUDIO_CODEC", "slin")];
    let stage = Stage::set(&vars).await;
    let call = stage.call().await;
    // So long it lives at least.
    call.session.audio(&[1; 20 * 16_000]).await;
    call.ear.at_least(1).await;
    let uuid = json!({"uuid": call.uuid}).to_string();
    let elsewhere = json!({"uuid": call.uuid, "exten": "999"}).to_string();
    let running = Running { service: stage.service };
    let hang_up = "/api/calls/{uuid}/hangup";
    let of_call = |uuid: &str| hang_up.replace("{uuid}", uuid);
    let unknown = json!({"uuid": Uuid::new_v4().to_string(), "exten": "100"}).to_string();
    let mut steps = vec![
        step("POST", "/variables", "/variables", &uuid, 200),
        step("POST", "/transfer", "/transfer", &elsewhere, 200),
        step("POST", "/hangup", "/hangup", &uuid, 200),
        step("POST", "/originate", "/originate", "{}", 501),
        step("POST", "/setvar", "/setvar", "{}", 501),
        step("POST", hang_up, &of_call(&call.uuid), "", 200),
        step("POST", hang_up, &of_call(&Uuid::new_v4().to_string()), "", 404),
        step("POST", hang_up, &of_call("x"), "", 400),
    ];
    for path in ["/hangup", "/transfer", "/variables"] {
        steps.push(step("POST", path, path, "{}", 400));
        steps.push(step("POST", path, path, &unknown, 404));
        steps.push(step("POST", path, path, &" ".repeat(70_000), 413));
    }
    walk(document, &running, &[], &steps).await;
    let of_admin = of_call(&call.uuid);
    for (path, full, body) in [
        ("/variables", "/variables", uuid.as_str()),
        ("/transfer", "/transfer", &elsewhere),
        ("/hangup", "/hangup", &uuid),
        (hang_up, &of_admin, ""),
    ] {
        let mut answer = running.ask("POST", full, &[], body).await;
        for _ in 0..100 {
            if answer.status == 429 {
                break;
            }
            answer = running.ask("POST", full, &[], body).await;
        }
        assert_eq!(answer.status, 429, "{full}: {answer:?}");
        document.check("POST", path, &answer);
    }
}

/// What is done with dead letters: two of them, as each replay makes a new one.
async fn dead_letters(document: &Document, running: &Running) {
    die(running, "one").await;
    let list = "/api/dead?receiver=main&type=call_ended&since=2020-01-01T00:00:00Z&limit=1";
    let steps = [
        step("GET", "/api/dead", list, "", 200),
        step("POST", "/api/dead/{id}/replay", "/api/dead/one/replay", "", 200),
    ];
    walk(document, running, &[], &steps).await;
    die(running, "two").await;
    let steps = [
        step("DELETE", "/api/dead/{id}", "/api/dead/two", "", 200),
        step("POST", "/api/dead/replay", "/api/dead/replay?type=call_ended", "", 200),
        step(
            "DELETE",
            "/api/dead",
            "/api/dead?receiver=main&code=ERR_BAD_REQUEST&status=422&before=2999-01-01T00:00:00Z",
            "",
            200,
        ),
    ];
    walk(document, running, &[], &steps).await;
}

/// Makes a dead letter with this id.
async fn die(running: &Running, id: &str) {
    let headers = [("Idempotency-Key", id)];
    let answer = running.ask("POST", "/events", &headers, &event("call_ended").to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let dead = |line: &Value| line["message"] == "webhook delivery failed" && line["id"] == id;
    running.service.log_line(dead).await;
}

/// A request for each route of the front that agents use, all of which get this status.
fn agent_routes(status: u16) -> [Step; 5] {
    ["/hangup", "/transfer", "/variables", "/originate", "/setvar"]
        .map(|path| step("POST", path, path, "{}", status))
}

/// A request for each route of the admin port but its page, all of which get this status.
fn admin_routes(status: u16) -> [Step; 11] {
    [
        step("GET", "/metrics", "/metrics", "", status),
        step("GET", "/api/state", "/api/state", "", status),
        step("GET", "/api/stream", "/api/stream", "", status),
        step("GET", "/api/calls", "/api/calls", "", status),
        step("GET", "/api/calls/{uuid}", "/api/calls/x", "", status),
        step("POST", "/api/calls/{uuid}/hangup", "/api/calls/x/hangup", "", status),
        step("GET", "/api/dead", "/api/dead", "", status),
        step("DELETE", "/api/dead", "/api/dead", "", status),
        step("POST", "/api/dead/replay", "/api/dead/replay", "", status),
        step("POST", "/api/dead/{id}/replay", "/api/dead/x/replay", "", status),
        step("DELETE", "/api/dead/{id}", "/api/dead/x", "", status),
    ]
}

async fn what_is_refused_for_a_secret(document: &Document) {
    let vars = [("WEBHOOK_URL", "none"), ("HTTP_SECRET", "sesame"), ("ADMIN_TOKEN", "sesame")];
    let running = Running::start(&vars).await;
    let other = [("Authorization", "Bearer other")];
    let steps = [
        step("POST", "/call", "/call", &call(), 401),
        step("GET", "/call/{uuid}", "/call/x", "", 401),
        step("GET", "/call/{uuid}/next", "/call/x/next", "", 401),
        step("POST", "/events", "/events", &event("dtmf_digit"), 401),
    ];
    walk(document, &running, &other, &steps).await;
    walk(document, &running, &other, &admin_routes(401)).await;
    walk(document, &running, &other, &agent_routes(401)).await;
    let fine = [
        step("POST", "/call", "/call", &call(), 200),
        step("GET", "/api/dead", "/api/dead", "", 200),
    ];
    walk(document, &running, &[("Authorization", "Bearer sesame")], &fine).await;
    let fine = [step("POST", "/call", "/call", &call(), 200)];
    walk(document, &running, &[("X-AVR-WEBHOOK-SECRET", "sesame")], &fine).await;
}

async fn what_is_refused_to_other_pages(document: &Document) {
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    let page = [("Origin", "https://evil.test")];
    walk(document, &running, &page, &admin_routes(403)).await;
    walk(document, &running, &page, &agent_routes(403)).await;
    let front = [
        step("POST", "/call", "/call", &call(), 403),
        step("GET", "/call/{uuid}", "/call/x", "", 403),
        step("GET", "/call/{uuid}/next", "/call/x/next", "", 403),
        step("POST", "/events", "/events", &event("dtmf_digit"), 403),
        step("GET", "/health", "/health", "", 403),
        step("GET", "/ready", "/ready", "", 403),
    ];
    walk(document, &running, &page, &front).await;
    let mut wire = running.admin().await;
    wire.send(request("GET", "/", &[], "")).await;
    let answer = wire.answer().await.expect("an answer to another host's name");
    assert_eq!(answer.status, 403);
    document.check("GET", "/", &answer);
}

/// The most that watch at a time.
const WATCHERS: usize = 16;

async fn what_is_streamed(document: &Document) {
    let receiver = Receiver::content().await;
    let mut running = Running::start(&[("WEBHOOK_URL", &receiver.url)]).await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        watching.push(watch(&running).await);
    }
    walk(document, &running, &[], &[step("GET", "/api/stream", "/api/stream", "", 503)]).await;
    // What happened before it was noticed that somebody watches is told as one reload.
    while !watching[0].so_far().contains("event: reload") {
        assert!(watching[0].more().await, "it is told to load what happened before");
    }
    let steps = [step("POST", "/events", "/events", &event("dtmf_digit"), 202)];
    walk(document, &running, &[], &steps).await;
    receiver.seen(1).await;
    let told = |wire: &mut Wire| wire.so_far().contains("event: calls");
    let first = &mut watching[0];
    while !told(first) {
        assert!(first.more().await, "it is told of the call");
    }
    running.service.terminate();
    let answer = first.answer().await.expect("the stream ends with callhook");
    assert_eq!(running.service.wait().await, 0);
    document.check("GET", "/api/stream", &answer);
    check_stream(document, &answer);
}

/// Somebody who watches, and was told something.
async fn watch(running: &Running) -> Wire {
    let mut wire = running.admin().await;
    wire.send(request_to("localhost", "GET", "/api/stream", &[], "")).await;
    while !wire.so_far().contains("event: state") {
        assert!(wire.more().await, "it is told how things stand");
    }
    wire
}

/// Each event of the stream is as documented.
fn check_stream(document: &Document, answer: &Answer) {
    for event in answer.body.trim_end().split("\n\n") {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        match name.strip_prefix("event: ").unwrap() {
            "state" => document.validate(name, "#/components/schemas/Standing", &data),
            "calls" => {
                for call in data["items"].as_array().unwrap() {
                    document.validate(name, "#/components/schemas/CallSummary", call);
                }
            }
            other => assert_eq!((other, data), ("reload", json!({}))),
        }
    }
}

async fn what_comes_too_slowly(document: &Document) {
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    let half = |path| {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: callhook.test\r\nContent-Length: 100\r\n\r\n{{");
        let running = &running;
        async move {
            let mut wire = running.service.wire().await;
            wire.send(head).await;
            let answer = wire.answer().await.expect("an answer before the close");
            assert_eq!(answer.status, 408, "{answer:?}");
            document.check("POST", path, &answer);
        }
    };
    join!(half("/call"), half("/events"), half("/hangup"), half("/transfer"), half("/variables"));
}

async fn what_finds_no_room(document: &Document) {
    let gate = closed_gate();
    let opened = Arc::clone(&gate);
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_ended" => Reply::status(422),
        _ => Reply::ok().when(&opened),
    })
    .await;
    let vars =
        [("WEBHOOK_URL", &*receiver.url), ("QUEUE_LIMIT", "1"), ("STS_URL", "ws://sts.test")];
    let mut running = Running::start(&vars).await;
    die(&running, "one").await;
    let steps = [
        step("POST", "/events", "/events", &event("dtmf_digit"), 202),
        step("POST", "/events", "/events", &event("dtmf_digit"), 503),
        step("POST", "/call", "/call", &call(), 200),
        step("POST", "/api/dead/{id}/replay", "/api/dead/one/replay", "", 503),
        step("POST", "/api/dead/replay", "/api/dead/replay", "", 200),
    ];
    // The first is answered at once, as there is no journal to wait for.
    walk(document, &running, &[], &steps).await;
    let (mut wire, mut other) = (running.service.wire().await, running.service.wire().await);
    running.service.terminate();
    running.service.log_line(|line| line["message"] == "stopping").await;
    running.service.drains().await;
    let call = call().to_string();
    for (wire, method, path, body) in
        [(&mut wire, "GET", "/ready", ""), (&mut other, "POST", "/call", call.as_str())]
    {
        wire.send(request(method, path, &[], body)).await;
        let answer = wire.answer().await.expect("the front answers while it drains");
        assert_eq!(answer.status, 503);
        document.check(method, path, &answer);
    }
    gate.add_permits(9);
    assert_eq!(running.service.wait().await, 0);
}

async fn what_is_kept_for_a_receiver_that_is_gone(document: &Document) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let refusing = Receiver::start(|_| Reply::status(422)).await;
    let vars = [("WEBHOOK_URL", refusing.url.as_str()), ("JOURNAL_PATH", path.to_str().unwrap())];
    let with_copy = [&vars[..], &[("RECEIVER_CRM_URL", &refusing.url)]].concat();
    let mut running = Running::start(&with_copy).await;
    die(&running, "one").await;
    let dead =
        |line: &Value| line["message"] == "webhook delivery failed" && line["receiver"] == "crm";
    running.service.log_line(dead).await;
    let steps = [
        step("GET", "/api/state", "/api/state", "", 200),
        step("GET", "/api/dead", "/api/dead?receiver=crm", "", 200),
    ];
    walk(document, &running, &[], &steps).await;
    running.service.terminate();
    assert_eq!(running.service.wait().await, 0);
    let running = Running::start(&vars).await;
    let steps = [
        step("GET", "/api/state", "/api/state", "", 200),
        step("POST", "/api/dead/{id}/replay", "/api/dead/one/replay?receiver=crm", "", 409),
        step("POST", "/api/dead/replay", "/api/dead/replay?receiver=crm", "", 409),
    ];
    walk(document, &running, &[], &steps).await;
}

async fn what_finds_no_disk(document: &Document) {
    let (_, url) = nobody();
    let vars = [("WEBHOOK_URL", &*url), ("WEBHOOK_BREAKER", "1"), ("JOURNAL_PATH", "journal.redb")];
    let running = Running { service: Service::start_under(&IGNORING_SIGXFSZ, &vars).await };
    walk(document, &running, &[], &[step("POST", "/events", "/events", &event("dtmf_digit"), 202)])
        .await;
    running
        .service
        .log_line(|line| {
            line["message"].as_str().is_some_and(|m| m.starts_with("receiver is down"))
        })
        .await;
    running.service.limit_files(Some(0));
    let steps = [
        step("POST", "/events", "/events", &event("dtmf_digit"), 503),
        step("GET", "/api/dead", "/api/dead", "", 503),
        step("DELETE", "/api/dead", "/api/dead?receiver=main", "", 503),
        step("POST", "/api/dead/replay", "/api/dead/replay", "", 503),
        step("POST", "/api/dead/{id}/replay", "/api/dead/x/replay", "", 503),
        step("DELETE", "/api/dead/{id}", "/api/dead/x", "", 503),
    ];
    walk(document, &running, &[], &steps).await;
}
