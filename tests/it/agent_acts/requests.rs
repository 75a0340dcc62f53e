//! What is asked about a call, and answered: who may, what is no request, what is refused, and in which words.

use serde_json::{Value, json};

use super::{DETAILS, PEOPLE, announced_call, ended_once, next_of};
use crate::support::event::new_uuid;
use crate::support::service::{Service, level};
use crate::support::stage::Stage;
use crate::support::tools::{Tools, complaint, message};
use tempfile::TempDir;

const ROUTES: [&str; 3] = ["/hangup", "/transfer", "/variables"];

#[tokio::test]
async fn what_is_no_request_is_400_and_says_what_is_wrong() {
    let stage = Stage::set(&[PEOPLE]).await;
    let tools = Tools::of(&stage.service);
    for path in ROUTES {
        for (body, told) in [
            ("", "empty"),
            ("uuid=1", "JSON"),
            ("[]", "object"),
            ("{}", "uuid: missing"),
            (r#"{"uuid":"x"}"#, "uuid: "),
            (r#"{"uuid":7}"#, "uuid: expected a string"),
            (r#"{"uuid":"a","uuid":"b"}"#, "duplicate key"),
        ] {
            let complaint = complaint(&tools.post(path, body).await, 400);
            assert!(complaint.contains(told), "{path} {body}: {complaint}");
        }
        let long = tools.post(path, &" ".repeat(65_537)).await;
        assert!(complaint(&long, 413).contains("65536"), "{path}");
        let body = json!({ "uuid": new_uuid(), "exten": "100" }).to_string();
        assert!(complaint(&tools.post(path, &body).await, 404).contains("no live call"), "{path}");
        let page = [("Origin", "https://evil.test")];
        complaint(&stage.service.post_with(path, &page, body.as_str()).await, 403);
        complaint(&stage.service.get(path).await, 405);
    }
    let no_exten = tools.post("/transfer", &json!({ "uuid": new_uuid() }).to_string()).await;
    assert!(complaint(&no_exten, 400).contains("exten: missing"));
    for path in ["/originate", "/setvar"] {
        assert!(complaint(&tools.post(path, "{}").await, 501).contains("avr-ami"), "{path}");
    }
}

#[tokio::test]
async fn only_what_is_listed_is_dialled_and_the_model_is_told_what_is() {
    let stage =
        Stage::set(&[DETAILS, ("TRANSFER_TO", "people/100,queues/*,people/h,queues/i")]).await;
    for listed in ["queues/*", "people/h", "queues/i"] {
        let warned =
            |line: &Value| line["message"].to_string().contains(&format!("lists {listed}"));
        assert_eq!(level(&stage.service.log_line(warned).await), "warn");
    }
    let tools = Tools::of(&stage.service);
    for (context, exten, priority) in [
        ("people", "101", "1"),
        ("people", "h", "1"),
        ("queues", "h", "1"),
        ("queues", "-i-", "1"),
        ("queues", "i", "1"),
        ("people", "100", "2"),
        ("people", "100", "n+1"),
        ("people", "100,1)", "1"),
        ("people", "${SHELL(id)}", "1"),
        ("people", "100\n", "1"),
        ("queues", "1&SIP/0900", "1"),
        ("queues", "é", "1"),
        ("people,100", "100", "1"),
        ("demo", "100", "1"),
        ("", "100", "1"),
        ("queues", "", "1"),
    ] {
        let call = announced_call(&stage).await;
        let body =
            json!({ "uuid": call.uuid, "exten": exten, "context": context, "priority": priority });
        let answer = tools.post("/transfer", &body.to_string()).await;
        let told = message(&answer, Some("not_allowed"));
        assert!(
            told.contains("extension 100 in context people, any extension in context queues"),
            "{told}"
        );
        assert_eq!(next_of(&stage, &call.uuid).await, (200, String::new()), "{body}");
        call.asterisk.hang_up().await;
        ended_once(&stage, &call.uuid, "hangup").await;
        assert_eq!(next_of(&stage, &call.uuid).await, (200, String::new()), "{body}");
    }
    let refused =
        |line: &Value| line["message"].to_string().contains("TRANSFER_TO does not list it");
    assert_eq!(level(&stage.service.log_line(refused).await), "warn");
    let call = announced_call(&stage).await;
    let body = json!({ "uuid": call.uuid.to_uppercase(), "exten": 77, "context": "queues" });
    message(&tools.post("/transfer", &body.to_string()).await, None);
    call.session.close().await;
    ended_once(&stage, &call.uuid, "transfer").await;
    assert_eq!(next_of(&stage, &call.uuid).await, (200, "queues,77,1".to_owned()));
}

#[tokio::test]
async fn nothing_is_dialled_where_nothing_is_listed_or_the_dialplan_never_asks() {
    let stage = Stage::set(&[]).await;
    let call = announced_call(&stage).await;
    let told =
        message(&Tools::of(&stage.service).transfer(&call.uuid, "100").await, Some("not_allowed"));
    assert!(told.contains("No transfers are allowed"), "{told}");
    let stage = Stage::set(&[PEOPLE]).await;
    let tools = Tools::of(&stage.service);
    let call = stage.call().await;
    message(&tools.transfer(&call.uuid, "999").await, Some("not_allowed"));
    let told = message(&tools.transfer(&call.uuid, "100").await, Some("no_next"));
    assert!(told.contains("config/extensions.conf"), "{told}");
    assert_eq!(next_of(&stage, &call.uuid).await, (200, String::new()), "nobody announced it");
    tools.transferred(&call.uuid, "100").await;
}

#[tokio::test]
async fn the_agents_secret_opens_the_agents_routes_and_no_other() {
    let vars = [("HTTP_SECRET", "front"), ("AGENT_SECRET", "a/b c")];
    let stage = Stage::set(&vars).await;
    let body = json!({ "uuid": new_uuid(), "exten": "100" }).to_string();
    let ask = async |headers: &[(&str, &str)], path: &str| {
        stage.service.post_with(path, headers, body.as_str()).await.status
    };
    for path in ROUTES {
        complaint(&Tools::of(&stage.service).post(path, &body).await, 401);
        for password in ["front", "a/b c", "a%2Fb%20c", "a%2fb c"] {
            let tools = Tools::with(&stage.service, "avr", password);
            complaint(&tools.post(path, &body).await, 404);
        }
        for password in ["", "a/b", "a/b c ", "Front"] {
            let tools = Tools::with(&stage.service, "avr", password);
            complaint(&tools.post(path, &body).await, 401);
        }
        for secret in ["front", "a/b c"] {
            assert_eq!(ask(&[("X-AVR-WEBHOOK-SECRET", secret)], path).await, 404, "{secret}");
            let bearer = format!("Bearer {secret}");
            assert_eq!(ask(&[("Authorization", &bearer)], path).await, 404, "{secret}");
        }
    }
    let warned = |line: &Value| line["message"] == "request refused" && line["route"] == "/hangup";
    assert_eq!(level(&stage.service.log_line(warned).await), "warn");
    assert_eq!(ask(&[("X-AVR-WEBHOOK-SECRET", "a/b c")], "/call").await, 401);
    let tools = Tools::with(&stage.service, "avr", "front");
    assert_eq!(tools.post("/call", &body).await.status, 401, "a password is the agent's way alone");
    let next = format!("/call/{}/next", new_uuid());
    let answer = stage.service.ask("GET", &next, &[("X-AVR-WEBHOOK-SECRET", "a/b c")], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (401, ""));
}

#[tokio::test]
async fn the_agents_secrets_stand_in_a_file_and_are_read_again() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("agent");
    std::fs::write(&path, "one\n\ntwo\n").expect("a file");
    let path = path.to_str().expect("a plain path");
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("AGENT_SECRET_FILE", path)]).await;
    let body = json!({ "uuid": new_uuid() }).to_string();
    let asks = async |password: &str| {
        Tools::with(&service, "avr", password).post("/hangup", &body).await.status
    };
    assert_eq!([asks("one").await, asks("two").await, asks("three").await], [404, 404, 401]);
    std::fs::write(path, "three").expect("a file");
    service.signal("HUP");
    let renewed = |line: &Value| line["changed"] == "AGENT_SECRET";
    service.log_line(renewed).await;
    assert_eq!([asks("one").await, asks("three").await], [401, 404]);
}

#[tokio::test]
async fn what_was_announced_is_told_with_the_uuid() {
    let stage = Stage::set(&[]).await;
    let tools = Tools::of(&stage.service);
    let (uuid, unannounced) = (new_uuid(), stage.call().await);
    stage.announce(&uuid, json!({ "from": "2000", "vip": true })).await;
    let call = stage.call_of(&uuid).await;
    let told = async |uuid: &str| {
        let answer = tools.post("/variables", &json!({ "uuid": uuid }).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    assert_eq!(told(&uuid).await, json!({ "uuid": uuid, "from": "2000", "vip": true }));
    assert_eq!(told(&unannounced.uuid).await, json!({ "uuid": unannounced.uuid }));
    call.asterisk.hang_up().await;
    super::known_end(&stage, &uuid).await;
    complaint(&tools.post("/variables", &json!({ "uuid": uuid }).to_string()).await, 404);
}

#[tokio::test]
async fn an_operator_hangs_up_as_the_agent_does() {
    let stage = Stage::set(&[DETAILS, ("ADMIN_TOKEN", "sesame")]).await;
    let call = stage.call().await;
    let path = format!("/api/calls/{}/hangup", call.uuid);
    assert_eq!(stage.service.ask_admin("POST", &path, &[]).await.status, 401);
    let token = [("Authorization", "Bearer sesame")];
    let unknown = format!("/api/calls/{}/hangup", new_uuid());
    assert_eq!(stage.service.ask_admin("POST", &unknown, &token).await.status, 404);
    let answer = stage.service.ask_admin("POST", &path, &token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let asked =
        |line: &Value| line["message"] == "a call is asked to end" && line["by"] == "inspector";
    stage.service.log_line(asked).await;
    call.session.audio(&super::frames(1, 20)).await;
    call.ear.hung_up().await;
    assert_eq!(super::heard(&call.ear, 1), 20, "the goodbye is heard");
    ended_once(&stage, &call.uuid, "agent_hangup").await;
}
