//! `WEBHOOK_HEADERS`: they arrive as they are, and nobody else sees their values.

use serde_json::Value;
use tempfile::TempDir;

use crate::files::renewed;
use crate::support::event::{bare, new_uuid};
use crate::support::flawed::parrot;
use crate::support::receiver::Receiver;
use crate::support::service::{run, serve};

const HEADERS: &str = r#"{"Authorization":"Bearer hush\"1","X-Tenant":"hush-2","x-empty":""}"#;

#[tokio::test]
async fn further_headers_arrive_beside_callhooks_own() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[("WEBHOOK_HEADERS", HEADERS)]).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    let seen = &receiver.seen(1).await[0];
    assert_eq!(seen.header("authorization"), Some("Bearer hush\"1"));
    assert_eq!((seen.header("x-tenant"), seen.header("x-empty")), (Some("hush-2"), Some("")));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-avr-webhook-attempt"), Some("1"));
}

#[tokio::test]
async fn their_values_are_in_no_listing_page_log_or_quote() {
    let receiver = Receiver::start(parrot).await;
    let vars = [("WEBHOOK_HEADERS", HEADERS), ("LOG_LEVEL", "trace")];
    let mut service = serve(&receiver.url, &vars).await;
    let uuid = new_uuid();
    service.relay(bare(&uuid, "call_started")).await;
    service.log_line(|line| line["message"] == "webhook delivery failed").await;
    let call = service.ask_admin("GET", &format!("/api/calls/{uuid}"), &[]).await.body;
    let dead = service.ask_admin("GET", "/api/dead", &[]).await.body;
    let shown: Value = serde_json::from_str(&call).unwrap();
    let headers = shown["timeline"][0]["headers"].to_string();
    for name in ["authorization", "x-tenant", "x-empty"] {
        assert!(headers.contains(name), "{headers}");
    }
    assert!(dead.contains("***"), "the parrot repeats them: {dead}");
    let vars = [&vars[..], &[("WEBHOOK_URL", &receiver.url)]].concat();
    let (_, listing, _) = run(&["config"], &vars).await;
    assert!(listing.contains("WEBHOOK_HEADERS=***"), "{listing}");
    service.terminate();
    service.wait().await;
    for text in [call, dead, listing, service.whole_log().await] {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn they_may_be_a_table_or_a_text_in_toml_and_stand_in_a_file_that_sighup_reads_anew() {
    let receiver = Receiver::content().await;
    let directory = TempDir::new().expect("a temporary directory");
    let put = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path of plain text").to_owned()
    };
    for toml in [
        r#"webhook_headers = { Authorization = "Bearer hush", "x-b" = "b" }"#,
        "webhook_headers = '{\"Authorization\":\"Bearer hush\",\"x-b\":\"b\"}'",
        "[webhook_headers]\nAuthorization = \"Bearer hush\"\nx-b = \"b\"",
    ] {
        let path = put("settings.toml", toml);
        let service = serve(&receiver.url, &[("CALLHOOK_CONFIG", &path)]).await;
        let uuid = new_uuid();
        service.relay(bare(&uuid, "call_started")).await;
        let ours = |seen: &[_]| {
            seen.last()
                .filter(|seen: &&crate::support::receiver::Seen| seen.uuid() == uuid)
                .cloned()
        };
        let seen = receiver.until("the event", ours).await;
        assert_eq!(
            (seen.header("authorization"), seen.header("x-b")),
            (Some("Bearer hush"), Some("b"))
        );
    }
    let path = put("headers", "{\"X-Key\":\"hush-old\"}\n");
    let service = serve(&receiver.url, &[("WEBHOOK_HEADERS_FILE", &path)]).await;
    put("headers", "{\"X-Key\":\"hush-new\"}");
    assert_eq!(renewed(&service, 1).await, "WEBHOOK_HEADERS");
    put("headers", "{\"Host\":\"hush-bad\"}");
    assert_eq!(renewed(&service, 2).await, "");
    service.relay(bare(&new_uuid(), "call_started")).await;
    assert_eq!(receiver.seen(4).await[3].header("x-key"), Some("hush-new"));
    let log = serde_json::to_string(&service.log_so_far()).unwrap();
    assert!(log.contains("Host is not accepted") && !log.contains("hush"), "{log}");
}
