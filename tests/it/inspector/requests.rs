//! What was asked about a call and what was answered, and how long its caller waited for the agent.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Admin, HOST};
use crate::support::receiver::Receiver;
use crate::support::stage::{Call, Stage};
use crate::support::sts::Sts;
use crate::support::tools::{Tools, complaint, message};

const FRAME: usize = 320;

/// A call of which something is asked, by its agent and by an operator.
struct Asked {
    admin: Admin,
    call: Call,
    uuid: Uuid,
    _others: (Receiver, Sts),
}

impl Asked {
    async fn begin(vars: &[(&str, &str)]) -> Self {
        let stage = Stage::set(vars).await;
        let call = stage.call().await;
        let uuid = call.uuid.parse().expect("a uuid");
        let Stage { receiver, sts, service } = stage;
        let address = service.admin().await;
        Self { admin: Admin { service, address }, call, uuid, _others: (receiver, sts) }
    }

    fn tools(&self) -> Tools<'_> {
        Tools::of(&self.admin.service)
    }

    /// What is shown of it, once so many requests are.
    async fn with_requests(&self, count: usize) -> Value {
        let many = |call: &Value| call["requests"].as_array().map(Vec::len) == Some(count);
        self.admin.call(self.uuid, many).await
    }
}

fn body(uuid: &str) -> String {
    json!({ "uuid": uuid }).to_string()
}

#[tokio::test]
async fn what_is_asked_about_a_call_is_shown_with_who_asked_and_the_answer() {
    let asked = Asked::begin(&[("TRANSFER_TO", "people/100")]).await;
    let (tools, uuid) = (asked.tools(), asked.call.uuid.as_str());
    let fresh = asked.admin.call(asked.uuid, |call| call["state"] == "live").await;
    assert_eq!((&fresh["requests"], &fresh["requests_omitted"]), (&json!([]), &json!(0)));
    assert_eq!(tools.post("/variables", &body(uuid)).await.status, 200);
    let wish = json!({ "uuid": uuid, "exten": "9\n9", "priority": 2 }).to_string();
    message(&tools.post("/transfer", &wish).await, Some("not_allowed"));
    message(&tools.transfer(uuid, "100").await, Some("no_next"));
    asked.admin.service.get(&format!("/call/{uuid}/next")).await;
    let path = format!("/api/calls/{uuid}/hangup");
    assert_eq!(asked.admin.ask("POST", &path, &[HOST]).await.status, 200);
    tools.transferred(uuid, "100").await;
    tools.hung_up(uuid).await;
    asked.call.session.close().await;
    asked.admin.call(asked.uuid, |call| call["timeline"][1]["type"] == "call_ended").await;
    complaint(&tools.hang_up(uuid).await, 404);
    let shown = asked.with_requests(7).await;
    let requests = shown["requests"].as_array().expect("a list");
    let told: Vec<_> = requests
        .iter()
        .map(|request| ["by", "asked", "next", "answer"].map(|name| request[name].as_str()))
        .collect();
    let (agent, people) = (Some("agent"), Some("people,100,1"));
    let (hang_up, transfer, taken) = (Some("hang_up"), Some("transfer"), Some("taken"));
    assert_eq!(
        told,
        [
            [agent, Some("variables"), None, taken],
            [agent, transfer, Some("demo,9\u{fffd}9,2"), Some("not_allowed")],
            [agent, transfer, people, Some("no_next")],
            [Some("inspector"), hang_up, None, taken],
            [agent, transfer, people, taken],
            [agent, hang_up, None, taken],
            [agent, hang_up, None, Some("not_live")],
        ]
    );
    let times: Vec<&str> = requests.iter().filter_map(|request| request["at"].as_str()).collect();
    assert!(times.len() == 7 && times.is_sorted(), "{times:?}");
    let ended = shown["timeline"][1]["accepted_at"].as_str().expect("an end");
    assert!(times[5] <= ended && ended <= times[6], "{ended} is between: {times:?}");
}

#[tokio::test]
async fn of_many_requests_the_last_are_shown() {
    let asked = Asked::begin(&[]).await;
    let (tools, mut count) = (asked.tools(), 1);
    while tools.post("/variables", &body(&asked.call.uuid)).await.status != 429 {
        count += 1;
    }
    let shown = asked.with_requests(20).await;
    assert_eq!(shown["requests_omitted"], count - 20);
    assert_eq!(shown["requests"][19]["answer"], "too_many");
}

#[tokio::test]
async fn who_asks_about_calls_that_are_not_known_leaves_no_trace() {
    let admin = Admin::with(&[("WEBHOOK_URL", "none")]).await;
    let body = body(&Uuid::new_v4().to_string());
    complaint(&Tools::of(&admin.service).post("/hangup", &body).await, 404);
    assert_eq!(admin.get("/api/calls").await, json!({"items": [], "next": null}));
}

#[tokio::test]
async fn a_call_tells_how_long_its_caller_waited_for_the_agent() {
    let asked = Asked::begin(&[]).await;
    let Call { session, ear, .. } = &asked.call;
    let live = asked.admin.call(asked.uuid, |call| call["state"] == "live").await;
    let waits = ["first_audio_ms", "last_response_ms", "worst_response_ms"];
    assert!(waits.iter().all(|wait| live[wait].is_null()) && live["responses"] == 0, "{live}");
    session.audio(&[7; FRAME]).await;
    let heard = asked.admin.call(asked.uuid, |call| call["first_audio_ms"].is_u64()).await;
    assert_eq!(heard["responses"], 0, "nobody said anything");
    for count in 1..=2 {
        ear.at_least(count).await;
        ear.silent_for(ear.silences().len() + 1).await;
        session.transcript("user", "a table").await;
        session.audio(&[7; FRAME]).await;
        let shown = asked.admin.call(asked.uuid, |call| call["responses"] == count).await;
        assert_eq!(shown["first_audio_ms"], heard["first_audio_ms"]);
        let wait = |name: &str| shown[name].as_u64().expect("a time");
        assert!(wait("worst_response_ms") >= wait("last_response_ms"), "{shown}");
    }
}
