//! `WEBHOOK_URL` that leads back to callhook itself: what comes back is refused and told as what it is, and callhooks
//! in a chain are fine.

use serde_json::{Value, json};

use super::{call_of, event, uuid};
use crate::support::receiver::{Receiver, Reply, free_port};
use crate::support::service::{Service, level, serve};

/// The line of the log that says that events go in a circle.
async fn circle_line(service: &Service) -> Value {
    let line = service
        .log_line(|line| line["status"] == 508 && line["error"].to_string().contains("WEBHOOK_URL"))
        .await;
    assert_eq!(level(&line), "error", "{line}");
    assert!(line["message"].as_str().is_some_and(|text| text.contains("came back")), "{line}");
    line
}

#[tokio::test]
async fn an_event_that_comes_back_to_the_callhook_that_sent_it_is_508_and_told() {
    for path in ["/events", "/call"] {
        let port = free_port().to_string();
        let url = format!("http://127.0.0.1:{port}{path}");
        let vars = [("HTTP_PORT", port.as_str()), ("STS_URL", "ws://sts.test")];
        let service = serve(&url, &vars).await;
        let answer = service.post("/call", call_of(1, "{}")).await;
        assert_eq!(answer.json(), json!({ "sts_url": "ws://sts.test/", "override": false }));
        circle_line(&service).await;
        let failed = service.log_line(|line| line["message"] == "webhook delivery failed").await;
        assert_eq!(
            (&failed["uuid"], &failed["status"]),
            (&json!(uuid(1)), &json!(508)),
            "{failed}"
        );
        service.relay(event(2, "call_started")).await;
        let dead =
            |line: &Value| line["message"] == "webhook delivery failed" && line["uuid"] == uuid(2);
        assert_eq!(service.log_line(dead).await["status"], 508);
    }
}

#[tokio::test]
async fn a_circle_through_a_second_callhook_is_found_where_it_closes() {
    let port = free_port().to_string();
    let second = serve(&format!("http://127.0.0.1:{port}/events"), &[]).await;
    let first = serve(&format!("http://{}/events", second.addr), &[("HTTP_PORT", &port)]).await;
    first.relay(event(1, "call_started")).await;
    circle_line(&first).await;
    let failed = second.log_line(|line| line["message"] == "webhook delivery failed").await;
    assert_eq!((&failed["uuid"], &failed["status"]), (&json!(uuid(1)), &json!(508)), "{failed}");
}

#[tokio::test]
async fn two_callhooks_in_a_chain_pass_events_and_decisions_on() {
    let receiver = Receiver::start(|_| Reply::route("ws://sts.test")).await;
    let second = serve(&receiver.url, &[]).await;
    let first = serve(&format!("http://{}/events", second.addr), &[]).await;
    let answer = first.post("/call", call_of(1, "{}")).await;
    assert_eq!(answer.json(), json!({ "sts_url": "ws://sts.test/", "override": true }));
    first.relay(event(1, "call_started")).await;
    let seen = receiver.seen(2).await;
    let ways: Vec<Vec<&str>> = seen
        .iter()
        .map(|seen| seen.header("x-callhook-via").expect("a way").split(", ").collect())
        .collect();
    assert_eq!(ways[0].len(), 2, "{ways:?}");
    assert_ne!(ways[0][0], ways[0][1]);
    assert_eq!(ways[0], ways[1], "one id a process");
}
