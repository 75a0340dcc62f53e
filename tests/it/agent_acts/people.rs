//! A receiver sends callers to people: at once, or if the agent fails.

use serde_json::{Value, json};

use super::{DETAILS, PEOPLE, ended_once, frames, known_end, next_of};
use crate::support::event::new_uuid;
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::level;
use crate::support::stage::{Call, Stage};
use crate::support::sts::{Manner, Sts};

/// Where the receiver sends its caller, beside the agent or alone.
fn answer(sts: Option<&Sts>, next: &Value) -> Reply {
    let mut answer = json!({ "next": next });
    if let Some(sts) = sts {
        answer["sts_url"] = json!(sts.url);
    }
    Reply::status(200).body(answer.to_string())
}

fn people(exten: &str) -> Value {
    json!({ "context": "people", "exten": exten })
}

/// With a receiver that answers each `call_initiated` so.
async fn stage(reply: impl FnOnce(&Sts) -> Reply, vars: &[(&str, &str)]) -> Stage {
    let sts = Sts::start(Manner::Usual).await;
    let reply = reply(&sts);
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => reply.clone(),
        _ => Reply::ok(),
    })
    .await;
    Stage::of(receiver, sts, &[&[DETAILS], vars].concat()).await
}

/// A call to the agent, announced.
async fn call(stage: &Stage) -> Call {
    let uuid = new_uuid();
    let answer = stage.announce(&uuid, json!({})).await.json();
    assert_eq!((&answer["override"], answer.get("next")), (&json!(true), None), "{answer}");
    assert_eq!(next_of(stage, &uuid).await, (200, String::new()), "the agent takes the call");
    stage.call_of(&uuid).await
}

async fn warned(stage: &Stage, message: &str) -> Value {
    let line = stage.service.log_line(|line| line["message"] == message).await;
    assert_eq!(level(&line), "warn", "{line}");
    line
}

#[tokio::test]
async fn a_receiver_sends_a_caller_to_people_before_any_agent() {
    let stage = stage(|_| answer(None, &people("100")), &[PEOPLE]).await;
    let uuid = new_uuid();
    let next = json!({ "context": "people", "exten": "100", "priority": 1 });
    let routed = json!({ "sts_url": null, "override": true, "next": next });
    for _ in 0..2 {
        assert_eq!(stage.announce(&uuid, json!({ "from": "7" })).await.json(), routed);
        assert_eq!(next_of(&stage, &uuid).await, (200, "people,100,1".to_owned()));
    }
    assert_eq!(stage.events(&uuid).len(), 1);
    // A dialplan that does not ask gets STS_URL.
    let call = stage.call_of(&uuid).await;
    let told = "the receiver sends this caller to people, and the dialplan dialled the agent all the same; the call \
                goes to STS_URL";
    assert_eq!(warned(&stage, told).await["next"], "people,100,1");
    assert_eq!(next_of(&stage, &uuid).await, (200, String::new()), "it lives");
    call.session.audio(&frames(1, 5)).await;
    call.ear.at_least(5).await;
    call.asterisk.hang_up().await;
    ended_once(&stage, &uuid, "hangup").await;
    assert_eq!(next_of(&stage, &uuid).await, (200, String::new()));
}

#[tokio::test]
async fn people_beside_an_agent_are_for_callers_whose_agent_fails() {
    let stage = stage(|sts| answer(Some(sts), &people("200")), &[("ROUTE_TO", "people/200")]).await;
    let failed = call(&stage).await;
    failed.session.close().await;
    failed.ear.hung_up().await;
    assert_eq!(next_of(&stage, &failed.uuid).await, (200, "people,200,1".to_owned()));
    ended_once(&stage, &failed.uuid, "sts_failed").await;
    let lost = call(&stage).await;
    lost.session.transcript("agent", "Hello").await;
    stage.event(&lost.uuid, "transcription").await;
    lost.session.vanish().await;
    lost.ear.hung_up().await;
    assert_eq!(next_of(&stage, &lost.uuid).await, (200, "people,200,1".to_owned()));
    ended_once(&stage, &lost.uuid, "sts_lost").await;
    let served = call(&stage).await;
    served.session.transcript("agent", "Hello").await;
    stage.event(&served.uuid, "transcription").await;
    served.session.close().await;
    served.ear.hung_up().await;
    assert_eq!(next_of(&stage, &served.uuid).await, (200, String::new()), "it was served");
    ended_once(&stage, &served.uuid, "sts_closed").await;
}

#[tokio::test]
async fn what_the_receiver_may_not_name_is_ignored_with_a_warning() {
    let route_to = [PEOPLE, ("ROUTE_TO", "people/200")];
    let stage = stage(|sts| answer(Some(sts), &people("100")), &route_to).await;
    let call = call(&stage).await;
    let line = warned(&stage, "next of the receiver is invalid and is ignored").await;
    assert_eq!(line["error"], "people/100 is not among ROUTE_TO");
    call.session.close().await;
    call.ear.hung_up().await;
    assert_eq!(known_end(&stage, &call.uuid).await["reason"], "sts_failed");
    assert_eq!(next_of(&stage, &call.uuid).await, (200, String::new()));
}

#[tokio::test]
async fn a_next_alone_that_is_ignored_leaves_the_call_to_sts_url() {
    let stage =
        stage(|_| answer(None, &json!({ "context": "people", "exten": "h" })), &[PEOPLE]).await;
    let uuid = new_uuid();
    let answer = stage.announce(&uuid, json!({})).await.json();
    assert_eq!((&answer["override"], answer.get("next")), (&json!(false), None), "{answer}");
    assert!(answer["sts_url"].as_str().is_some_and(|url| url.starts_with(&stage.sts.url)));
    let line = warned(&stage, "next of the receiver is invalid and is ignored").await;
    assert!(line["error"].to_string().contains("one letter"), "{line}");
    assert_eq!(next_of(&stage, &uuid).await, (200, String::new()));
}
