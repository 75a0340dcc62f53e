//! Secrets in files of their own: `NAME_FILE`, and SIGHUP, which reads them anew.

use std::path::PathBuf;

use crate::support::event::{bare, new_uuid};
use crate::support::receiver::{Receiver, nobody};
use crate::support::service::{Service, run};
use serde_json::Value;
use tempfile::TempDir;

const RENEWED: &str = "secrets and certificates are read anew";

struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the file, and returns its path.
    fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name).to_str().expect("a path of plain text").to_owned()
    }
}

/// Sends SIGHUP; returns the names of what changed, once it did.
pub async fn renewed(service: &Service, time: usize) -> String {
    service.signal("HUP");
    // Each look begins with the first line.
    let lines = || {
        let log = service.log_so_far();
        log.into_iter().filter(|line| line["message"] == RENEWED).nth(time - 1)
    };
    let line = loop {
        if let Some(line) = lines() {
            break line;
        }
        service.log_line(|line| line["message"] == RENEWED).await;
        assert_eq!(service.get("/health").await.status, 200);
    };
    line["changed"].as_str().expect("names").to_owned()
}

async fn status_with(service: &Service, secret: &str) -> u16 {
    let event = bare(&new_uuid(), "call_started").to_string();
    service.post_with("/events", &[("X-AVR-WEBHOOK-SECRET", secret)], event).await.status
}

async fn admin_with(service: &Service, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    service.ask_admin("GET", "/metrics", &[("Authorization", &bearer)]).await.status
}

#[tokio::test]
async fn secrets_come_from_files_several_lines_of_a_port_are_each_accepted_and_line_ends_are_cut() {
    let receiver = Receiver::content().await;
    let files = Files::new();
    let url = files.put("url", &format!("{}?key=hush-url\r\n", receiver.url));
    let webhook = files.put("webhook", "hush-webhook\n\n");
    let front = files.put("front", "\nhush-one\r\n\nhush-two\n");
    let admin = files.put("admin", "hush-admin");
    let vars = [
        ("WEBHOOK_URL_FILE", url.as_str()),
        ("WEBHOOK_SECRET_FILE", &webhook),
        ("HTTP_SECRET_FILE", &front),
        ("ADMIN_TOKEN_FILE", &admin),
    ];
    let service = Service::start(&vars).await;
    assert_eq!(status_with(&service, "hush-one").await, 202);
    assert_eq!(status_with(&service, "hush-two").await, 202);
    assert_eq!(status_with(&service, "").await, 401);
    assert_eq!(status_with(&service, "hush-one\thush-two").await, 401);
    assert_eq!(
        (admin_with(&service, "hush-admin").await, admin_with(&service, "").await),
        (200, 401)
    );
    let seen = &receiver.seen(2).await[0];
    assert_eq!(seen.header("x-avr-webhook-secret"), Some("hush-webhook"));
    let (code, listing, _) = run(&["config"], &vars).await;
    assert_eq!(code, 0);
    let host = receiver.url.strip_suffix("/events").expect("its path");
    assert!(listing.contains(&format!("WEBHOOK_URL={host} ")), "scheme and host:\n{listing}");
    assert!(listing.contains(&front), "where it came from:\n{listing}");
    let log: Vec<Value> = service.log_so_far();
    let log = serde_json::to_string(&log).unwrap();
    for text in [listing, log] {
        assert!(!text.contains("hush") && !text.contains(&receiver.url), "{text}");
    }
}

#[tokio::test]
async fn a_file_beside_the_variable_an_empty_one_and_a_missing_one_are_faults() {
    let files = Files::new();
    let (good, empty) = (files.put("good", "hush\n"), files.put("empty", "\r\n\n"));
    let missing = files.path("missing").to_str().unwrap().to_owned();
    for (name, value) in [
        ("WEBHOOK_URL", "http://h/"),
        ("WEBHOOK_SECRET", "hush"),
        ("WEBHOOK_SIGNING_KEY", "whsec_aHVzaC1zaWduaW5nLWtleQ=="),
        ("WEBHOOK_HEADERS", r#"{"X-A":"hush"}"#),
        ("WEBHOOK_PROXY", "http://joe:hush@h:3128"),
        ("HTTP_SECRET", "hush"),
        ("ADMIN_TOKEN", "hush"),
    ] {
        let file = format!("{name}_FILE");
        let others = [("WEBHOOK_URL", "none")];
        let others = others.iter().filter(|(other, _)| *other != name).copied();
        for path in [&good, &empty, &missing] {
            let mut vars: Vec<_> = others.clone().chain([(file.as_str(), path.as_str())]).collect();
            if *path == good {
                vars.push((name, value));
            }
            let (code, _, said) = run(&["serve"], &vars).await;
            assert_eq!(code, 64, "{vars:?}: {said}");
            assert!(said.contains(&file) && said.contains(path), "{vars:?}: {said}");
            assert!(!said.contains("hush"), "{said}");
            assert!(said.contains("1 setting"), "{said}");
        }
    }
    let key = files.put("key", "whsec_hush%\n");
    let vars = [("WEBHOOK_URL", "none"), ("WEBHOOK_SIGNING_KEY_FILE", key.as_str())];
    let (code, _, said) = run(&["serve"], &vars).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("WEBHOOK_SIGNING_KEY") && !said.contains("hush"), "{said}");
}

#[tokio::test]
async fn a_settings_file_may_name_files_too() {
    let files = Files::new();
    let front = files.put("front", "hush\n");
    let toml = format!("webhook_url = \"none\"\nhttp_secret_file = \"{front}\"\n");
    let toml = files.put("settings.toml", &toml);
    let service = Service::start(&[("CALLHOOK_CONFIG", &toml)]).await;
    assert_eq!((status_with(&service, "hush").await, status_with(&service, "").await), (202, 401));
}

#[tokio::test]
async fn sighup_reads_secrets_anew_says_which_changed_and_keeps_what_it_cannot_read() {
    let receiver = Receiver::content().await;
    let files = Files::new();
    let (front, admin) = (files.put("front", "hush-old\n"), files.put("admin", "hush-old\n"));
    let (webhook, key) = (files.put("webhook", "hush-old\n"), files.put("key", "whsec_aHVzaA==\n"));
    let vars = [
        ("WEBHOOK_URL", receiver.url.as_str()),
        ("WEBHOOK_SECRET_FILE", &webhook),
        ("WEBHOOK_SIGNING_KEY_FILE", &key),
        ("HTTP_SECRET_FILE", &front),
        ("ADMIN_TOKEN_FILE", &admin),
    ];
    let service = Service::start(&vars).await;
    assert_eq!(status_with(&service, "hush-old").await, 202);
    files.put("front", "hush-new\nhush-old\n");
    files.put("admin", "hush-new\n");
    files.put("webhook", "hush-new\n");
    files.put("key", "no key\n");
    assert_eq!(renewed(&service, 1).await, "ADMIN_TOKEN, HTTP_SECRET, WEBHOOK_SECRET");
    let warned = service.log_line(|line| line["message"].to_string().contains("old value stays"));
    let warned = warned.await;
    assert_eq!(warned["level"], "warn");
    assert!(warned["message"].to_string().contains("WEBHOOK_SIGNING_KEY"), "{warned}");
    assert_eq!(status_with(&service, "hush-new").await, 202);
    assert_eq!(status_with(&service, "hush-old").await, 202);
    let admin = (admin_with(&service, "hush-new").await, admin_with(&service, "hush-old").await);
    assert_eq!(admin, (200, 401));
    let seen = receiver.seen(3).await;
    let secrets: Vec<_> = seen.iter().map(|seen| seen.header("x-avr-webhook-secret")).collect();
    assert_eq!(secrets, [Some("hush-old"), Some("hush-new"), Some("hush-new")]);
    assert!(seen[2].header("webhook-signature").is_some(), "the old key signs");
    // An emptied file is bad, too: it would open the front.
    files.put("front", "");
    assert_eq!(renewed(&service, 2).await, "");
    assert_eq!(
        (status_with(&service, "").await, status_with(&service, "hush-new").await),
        (401, 202)
    );
    let log = serde_json::to_string(&service.log_so_far()).unwrap();
    assert!(!log.contains("hush"), "{log}");
}

#[tokio::test]
async fn a_failure_after_a_renewal_names_the_url_that_is_used_then() {
    let receiver = Receiver::content().await;
    let (files, (_, nobody)) = (Files::new(), nobody());
    let url = files.put("url", &receiver.url);
    let service = Service::start(&[("WEBHOOK_URL_FILE", &*url)]).await;
    files.put("url", &nobody);
    assert_eq!(renewed(&service, 1).await, "WEBHOOK_URL");
    service.relay(bare(&new_uuid(), "call_started")).await;
    let failed = service.log_line(|line| line["code"] == "ECONNREFUSED").await;
    let host = nobody.strip_suffix("/events").expect("its path");
    assert_eq!(failed["url"], host);
    let state = service.ask_admin("GET", "/api/state", &[]).await.json();
    assert_eq!(state["receivers"][0]["url"], host);
}
