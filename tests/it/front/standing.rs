//! `GET /call/{uuid}`: what a dialplan is told of its call, before it and after it.

use serde_json::{Value, json};

use super::{call_of, uuid};
use crate::support::event::new_uuid;
use crate::support::service::Service;
use crate::support::stage::Stage;

/// What is known of a call.
async fn standing(service: &Service, uuid: &str) -> Value {
    let answer = service.get(&format!("/call/{uuid}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn before_its_end(state: &str) -> Value {
    json!({ "state": state, "reason": null, "duration_ms": null })
}

#[tokio::test]
async fn a_call_is_announced_then_live_then_ended() {
    let stage = Stage::set(&[]).await;
    let uuid = new_uuid();
    let path = format!("/call/{uuid}");
    assert_eq!(stage.service.get(&path).await.status, 404);
    stage.announce(&uuid, json!({ "from": "2000" })).await;
    assert_eq!(standing(&stage.service, &uuid).await, before_its_end("announced"));
    let mut call = stage.call_of(&uuid).await;
    assert_eq!(standing(&stage.service, &uuid.to_uppercase()).await, before_its_end("live"));
    call.asterisk.silence(10).await;
    call.asterisk.hang_up().await;
    let line = stage.end_line(&uuid).await;
    let ended = json!({ "state": "ended", "reason": "hangup", "duration_ms": line["duration_ms"] });
    assert_eq!(standing(&stage.service, &uuid).await, ended);
    assert_eq!(standing(&stage.service, &uuid.replace('-', "")).await, ended);
}

#[tokio::test]
async fn what_is_no_call_is_404_and_says_so() {
    let stage = Stage::set(&[]).await;
    for path in [format!("/call/{}", uuid(1)), "/call/x".to_owned(), "/call/".to_owned()] {
        let answer = stage.service.get(&path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.error().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_call_is_told_only_to_those_who_know_the_secret() {
    let vars = [("WEBHOOK_URL", "none"), ("HTTP_SECRET", "s3cret")];
    let service = Service::start(&vars).await;
    let known = [("X-AVR-WEBHOOK-SECRET", "s3cret")];
    assert_eq!(service.post_with("/call", &known, call_of(1, "{}")).await.status, 200);
    let path = format!("/call/{}", uuid(1));
    assert_eq!(service.get(&path).await.status, 401);
    assert_eq!(service.get("/call/x").await.status, 401, "not even whether it is known");
    let answer = service.ask("GET", &path, &[("Authorization", "Bearer s3cret")], "").await;
    assert_eq!((answer.status, answer.json()), (200, before_its_end("announced")));
}
