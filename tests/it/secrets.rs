//! What must not be read by whoever reads logs and errors: secrets in a settings file that is broken, and
//! the user part of a URL, however oddly it is written, also of one that the receiver sends. The user part
//! of the receiver's URL is for the receiver, as Basic authorization.

use crate::support::event::{bare, new_uuid};
use crate::support::receiver::{Receiver, Reply, closed_gate, free_port};
use crate::support::service::{Service, run, serve};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tempfile::TempDir;

/// The two formats, each at a level that says everything.
const LOGS: [(&str, &str); 4] =
    [("json", "info"), ("text", "info"), ("json", "trace"), ("text", "trace")];
const FALLBACK: &str = "ws://fallback.test:6030";

fn assert_hidden(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} of {what} is shown in:\n{text}");
    }
}

/// Runs `config` and `serve` with settings that are wrong, and returns what both say in both formats.
async fn said_of(vars: &[(&str, &str)]) -> String {
    let mut said = String::new();
    for args in [["config"], ["serve"]] {
        for format in ["text", "json"] {
            let vars = [vars, [("LOG_FORMAT", format)].as_slice()].concat();
            let (code, out, err) = run(&args, &vars).await;
            assert_eq!(code, 64, "{args:?} with {vars:?}: {out}{err}");
            said = said + &out + &err;
        }
    }
    said
}

#[tokio::test]
async fn a_broken_line_of_a_settings_file_is_not_shown() {
    let lines = [
        r#"webhook_secret = "hush"#,
        r"webhook_secret = hush",
        r#"webhook_secret "hush""#,
        r#"webhook_secret = "hush" hush"#,
        r#"webhook_secret = "hush" = "hush""#,
        r"webhook_secret = 'hush",
        r#"webhook_secret = "\hush""#,
        r#"webhook_secret = """hush"#,
        r#"webhook_secret = { hush = "hush" }"#,
        "webhook_secret = \"hush\"\nwebhook_secret = \"hush\"",
        r#"webhook_url = "http://hush:hush"@host/""#,
        r#"webhook_retry = "hush""#,
    ];
    // The last one is a setting that holds no secret, but shows that a value is looked for at all.
    let (plain, broken) = lines.split_last().expect("some lines");
    for line in broken {
        let said = said_of_file(line).await;
        assert_hidden(line, &said, &["hush"]);
        assert!(said.contains("settings.toml"), "which file is broken, in: {said}");
    }
    assert!(said_of_file(plain).await.contains("hush"), "a plain setting's value is shown");
}

async fn said_of_file(line: &str) -> String {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("settings.toml");
    let text = format!("http_port = 0\njournal_path = \"none\"\n{line}\n");
    std::fs::write(&path, text).expect("a settings file");
    said_of(&[("CALLHOOK_CONFIG", path.to_str().expect("a path of plain text"))]).await
}

#[tokio::test]
async fn a_broken_line_is_named_by_its_number() {
    let said = said_of_file("webhook_secret = \"hush").await;
    assert!(said.contains("line 3"), "{said}");
}

#[tokio::test]
async fn the_user_part_of_a_url_that_is_none_is_not_shown() {
    for url in [
        "http://user:pa/ss@host/x",
        "http://user:pa?ss@host/x",
        "http://user:pa#ss@host/x",
        r"http://user:pa\ss@host/x",
        "http://user:pa/ss@ho st/x",
        "http://user:pass@host:99999/x",
        "http://user:pass@/x",
        "http://user:pass@ho st/",
        "http://user:pa@ss@ho st/",
        "//user:pass@host/x",
        "htp://user:pass@host/x",
        r"htp:\\user:pass@host\x",
        "ftp:user:pass@host",
    ] {
        for name in ["WEBHOOK_URL", "STS_URL"] {
            let others = [("WEBHOOK_URL", "none"), ("HTTP_PORT", "0")];
            let others = others.into_iter().filter(|(other, _)| *other != name);
            let vars: Vec<_> = others.chain([(name, url)]).collect();
            let said = said_of(&vars).await;
            assert!(said.contains(name), "{said}");
            assert_hidden(url, &said, &["user", "pass", "pa/", "pa?", "pa#", "pa\\", "pa@", "ss@"]);
        }
    }
}

#[tokio::test]
async fn the_user_parts_in_a_list_of_hosts_are_not_shown() {
    for hosts in [
        "wss://u1:hush@h1,wss://u2:hush@h2",
        "h0,wss://u1:hush@h1,h2",
        "h0,u1:hush@h1",
        "u1:hu/hush@h1, u2:hush@h2:443",
    ] {
        let vars = [("WEBHOOK_URL", "none"), ("STS_ALLOWED_HOSTS", hosts)];
        let said = said_of(&vars).await;
        assert!(said.contains("STS_ALLOWED_HOSTS"), "{said}");
        assert_hidden(hosts, &said, &["u1", "u2", "hush"]);
    }
}

#[tokio::test]
async fn a_comma_in_a_password_does_not_show_its_first_half() {
    let hosts = "wss://u1:hush,hush@h1,h2";
    let said = said_of(&[("WEBHOOK_URL", "none"), ("STS_ALLOWED_HOSTS", hosts)]).await;
    assert_hidden(hosts, &said, &["u1", "hush"]);
}

#[tokio::test]
async fn a_user_name_that_looks_like_a_scheme_is_not_shown() {
    for name in ["WEBHOOK_URL", "STS_URL"] {
        let said = said_of(&[("WEBHOOK_URL", "none"), (name, "joe:hush@host/x")]).await;
        assert_hidden(name, &said, &["joe", "hush"]);
    }
}

/// What an attempt to this receiver meets.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Status(u16),
    Silence,
    Nobody,
}

/// The log of a service whose attempts to `http://USER@…` meet this, from start to end.
async fn log_of_failures(user: &str, fate: Fate, format: &str, level: &str) -> String {
    let gate = closed_gate();
    let reply = match fate {
        Fate::Status(status) => Reply::status(status).header("Location", "/elsewhere"),
        Fate::Silence | Fate::Nobody => Reply::ok().when(&gate),
    };
    let receiver = Receiver::start(move |_| reply.clone()).await;
    let port = if matches!(fate, Fate::Nobody) { free_port() } else { receiver.port() };
    let url = format!("http://{user}@127.0.0.1:{port}/events");
    let mut service = Service::start(&[
        ("WEBHOOK_URL", &url),
        ("WEBHOOK_TIMEOUT", "200"),
        ("WEBHOOK_RETRY", "1"),
        ("WEBHOOK_BACKOFF", "1"),
        ("WEBHOOK_BREAKER", "2"),
        ("DRAIN_TIMEOUT", "500"),
        ("LOG_FORMAT", format),
        ("LOG_LEVEL", level),
    ])
    .await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    service.text_log("webhook delivery failed").await;
    let authorization =
        receiver.so_far().first().map(|seen| seen.header("authorization").map(str::to_owned));
    if let Some(authorization) = authorization {
        assert_eq!(authorization, Some(basic(user)), "{user} is sent as Basic authorization");
    }
    service.terminate();
    assert_eq!(service.wait().await, 0);
    service.whole_log().await
}

/// The header that this user part of a URL becomes.
/// <https://www.rfc-editor.org/rfc/rfc7617#section-2>
fn basic(user: &str) -> String {
    let user = user.replace("%40", "@").replace("%2F", "/");
    let pair = if user.contains(':') { user } else { user + ":" };
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

#[tokio::test]
async fn the_receivers_user_part_is_sent_and_is_in_no_log_of_a_failure() {
    for (format, level) in LOGS {
        for fate in
            [Fate::Status(500), Fate::Status(302), Fate::Status(401), Fate::Silence, Fate::Nobody]
        {
            let log = log_of_failures("joe:hush", fate, format, level).await;
            let hidden = ["joe", "hush", &BASE64_STANDARD.encode("joe:hush")];
            assert_hidden(&format!("{fate:?} at {level}"), &log, &hidden);
            assert!(log.contains("127.0.0.1"), "the receiver is named all the same:\n{log}");
        }
    }
}

#[tokio::test]
async fn an_escaped_user_part_is_sent_as_it_is_meant_and_is_in_no_log() {
    for user in ["joe:hu%40sh", "joe:hu%2Fsh", "joe%40org:hush", "joe"] {
        let log = log_of_failures(user, Fate::Status(500), "text", "trace").await;
        assert_hidden(user, &log, &["joe", "hush", "hu%", "hu@", "hu/sh", &basic(user)[6..]]);
    }
}

#[tokio::test]
async fn a_receiver_without_user_part_gets_no_authorization() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    service.relay(bare(&new_uuid(), "call_started")).await;
    assert_eq!(receiver.seen(1).await[0].header("authorization"), None);
}

/// The log of one call that the receiver routes to this URL, which is refused or comes too late.
async fn log_of_route(sts_url: &'static str, late: bool, format: &str, level: &str) -> String {
    let gate = closed_gate();
    let waits = gate.clone();
    let script = move |_: &_| {
        if late { Reply::route(sts_url).when(&waits) } else { Reply::route(sts_url) }
    };
    let receiver = Receiver::start(script).await;
    let service = serve(
        &receiver.url,
        &[
            ("WEBHOOK_TIMEOUT", "20000"),
            ("STS_URL", FALLBACK),
            ("STS_ALLOWED_HOSTS", "good.test"),
            ("ROUTING_TIMEOUT", if late { "100" } else { "10000" }),
            ("LOG_FORMAT", format),
            ("LOG_LEVEL", level),
        ],
    )
    .await;
    let answer = service.post("/call", bare(&new_uuid(), "call_initiated")).await;
    assert_eq!(answer.json()["override"], false, "{answer:?}");
    gate.add_permits(1);
    service.text_log("is ignored").await;
    service.terminate();
    service.whole_log().await
}

#[tokio::test]
async fn the_user_part_of_a_decision_that_is_not_used_is_in_no_log() {
    let refused = [
        "ftp://joe:hush@good.test/",
        "wss://joe:hush@evil.test/",
        "wss://joe:hu/hush@good.test/",
        "wss://joe:hush@good.test:99999/",
        "//joe:hush@good.test",
    ];
    let decisions = refused.map(|url| (url, false)).into_iter();
    for (url, late) in decisions.chain([("wss://joe:hush@good.test/", true)]) {
        for (format, level) in LOGS {
            let log = log_of_route(url, late, format, level).await;
            assert_hidden(&format!("{url} at {level}"), &log, &["joe", "hush"]);
        }
    }
}

#[tokio::test]
async fn a_decision_whose_user_name_looks_like_a_scheme_is_in_no_log() {
    let log = log_of_route("joe:hush@good.test", false, "json", "info").await;
    assert_hidden("a decision", &log, &["joe", "hush"]);
}

#[tokio::test]
async fn the_query_of_a_decision_that_is_not_used_is_in_no_log_at_info() {
    for (url, late) in [("wss://evil.test/?key=hush", false), ("wss://good.test/?key=hush", true)] {
        for format in ["json", "text"] {
            let log = log_of_route(url, late, format, "info").await;
            assert_hidden(url, &log, &["hush"]);
        }
    }
}

#[tokio::test]
async fn a_user_part_that_the_receiver_routes_to_goes_to_the_caller_unchanged() {
    let url = "wss://joe:hush@good.test/";
    let receiver = Receiver::start(move |_| Reply::route(url)).await;
    let service = serve(&receiver.url, &[("LOG_LEVEL", "trace")]).await;
    let uuid = new_uuid();
    let body = json!({ "uuid": uuid, "payload": {} }).to_string();
    let answer = service.post("/call", body).await.json();
    assert_eq!(answer, json!({ "sts_url": url, "override": true }));
    service.terminate();
    assert_hidden(url, &service.whole_log().await, &["joe", "hush"]);
}
