//! Further receivers, `RECEIVER_NAME_…` and `[receivers.name]`: what makes one, what it has of the main one, and
//! what is none.

use std::path::PathBuf;

use super::{assert_hidden, config, line_of, settings_file, warnings};
use crate::files::renewed;
use crate::support::service::{Service, run};
use crate::support::tls::client_file;
use tempfile::TempDir;

const MAIN: (&str, &str) = ("WEBHOOK_URL", "https://main.test/events");
const CRM: (&str, &str) = ("RECEIVER_CRM_URL", "https://crm.test/calls");

/// What `serve` says of these variables beside the main receiver's URL, which are wrong in so many ways.
async fn faults(count: usize, vars: &[(&str, &str)]) -> String {
    let (code, _, stderr) = run(&["serve"], &[&[MAIN], vars].concat()).await;
    assert_eq!(code, 64, "{vars:?}: {stderr}");
    let first = match count {
        1 => "1 setting is wrong".to_owned(),
        many => format!("{many} settings are wrong"),
    };
    assert!(stderr.contains(&first), "{vars:?}: {stderr}");
    assert_hidden(&stderr, &["hush"]);
    stderr
}

async fn faults_of_file(count: usize, toml: &str) -> String {
    let (_directory, path) = settings_file(toml);
    faults(count, &[("CALLHOOK_CONFIG", path.to_str().expect("a path of plain text"))]).await
}

#[tokio::test]
async fn a_receiver_needs_a_url() {
    for value in [None, Some(""), Some("undefined")] {
        let mut vars = vec![("RECEIVER_CRM_SECRET", "hush")];
        vars.extend(value.map(|value| ("RECEIVER_CRM_URL", value)));
        let said = faults(1, &vars).await;
        assert!(
            said.contains("RECEIVER_CRM_URL is not set: expected the receiver's http"),
            "{said}"
        );
    }
    for url in ["none", "ftp://joe:hush@crm.test/"] {
        let said = faults(1, &[("RECEIVER_CRM_URL", url)]).await;
        assert!(said.contains("to have no receiver crm, leave all of its settings out"), "{said}");
    }
    let said = faults_of_file(1, "[receivers.crm]\n").await;
    assert!(said.contains("RECEIVER_CRM_URL is not set"), "{said}");
    config(&[MAIN, ("RECEIVER_CRM_URL", ""), ("RECEIVER_CRM_SECRET", "null")]).await;
    // The main one may be none beside others.
    config(&[("WEBHOOK_URL", "none"), CRM]).await;
}

#[tokio::test]
async fn a_name_is_of_capitals_and_digits_in_variables_and_small_in_toml() {
    let long = format!("RECEIVER_{}_URL", "A".repeat(21));
    for (variable, told) in [
        ("RECEIVER_crm_URL", "expected the name in upper case, as CRM"),
        ("RECEIVER_crm_SECRET_FILE", "expected the name in upper case, as CRM"),
        ("RECEIVER_MY_CRM_URL", r#""MY_CRM" cannot be a receiver"#),
        ("RECEIVER_MY-CRM_URL", "letters and digits"),
        ("RECEIVER_MAIN_URL", "the main receiver is set by WEBHOOK_URL"),
        (&long, "1 to 20"),
    ] {
        let said = faults(1, &[CRM, (variable, "https://hush.test/")]).await;
        assert!(said.contains(&format!("{variable}: ")) && said.contains(told), "{said}");
    }
    for (table, told) in [
        ("receivers.CRM", "expected the name in lower case, as crm"),
        ("receivers.my_crm", "cannot be a receiver"),
        ("receivers.main", "the main receiver is set by WEBHOOK_URL"),
    ] {
        let toml =
            format!("[receivers.crm]\nurl = \"https://h/\"\n[{table}]\nurl = \"https://hush/\"");
        let said = faults_of_file(1, &toml).await;
        assert!(said.contains(&format!("[{table}] in ")) && said.contains(told), "{said}");
        assert!(said.contains("settings.toml"), "{said}");
    }
}

#[tokio::test]
async fn eight_are_taken_beside_the_main_one_and_nine_are_not() {
    let names: Vec<String> = (1..=9).map(|n| format!("RECEIVER_R{n}_URL")).collect();
    let vars: Vec<_> = names.iter().map(|name| (name.as_str(), "https://h/")).collect();
    config(&[&[MAIN], &vars[..8]].concat()).await;
    let said = faults(1, &vars).await;
    assert!(said.contains("9 receivers (r1, r2, ") && said.contains("at most 8"), "{said}");
    // Wherever they are named.
    let (_directory, path) = settings_file("[receivers.crm]\nurl = \"https://h/\"\n");
    let vars = [&vars[..8], &[("CALLHOOK_CONFIG", path.to_str().unwrap())]].concat();
    faults(1, &vars).await;
}

#[tokio::test]
async fn each_of_its_settings_is_checked_as_the_main_ones_and_all_faults_are_told_at_once() {
    let (missing, key) = (client_file("missing.pem"), client_file("client.key"));
    let vars = [
        ("RECEIVER_CRM_URL", "https://joe:hush@crm.test"),
        ("RECEIVER_CRM_SECRET", "hüsh"),
        ("RECEIVER_CRM_SIGNING_KEY", "hush"),
        ("RECEIVER_CRM_EVENTS", ","),
        ("RECEIVER_CRM_TIMEOUT", "3s"),
        ("RECEIVER_CRM_RETRY", "often"),
        ("RECEIVER_CRM_HEADERS", r#"{"Host":"hush"}"#),
        ("RECEIVER_CRM_CLIENT_CERT", &missing),
        ("RECEIVER_CRM_CLIENT_KEY", &key),
        ("RECEIVER_CRM_PROXY", "socks5://joe:hush@proxy"),
        ("RECEIVER_B_URL", "ftp://h/"),
        ("WEBHOOK_RETRY", "-1"),
    ];
    let said = faults(vars.len() - 2, &vars).await;
    for (variable, _) in &vars[1..8] {
        line_of(&said, variable);
    }
    for variable in ["RECEIVER_CRM_PROXY", "RECEIVER_B_URL", "WEBHOOK_RETRY"] {
        line_of(&said, variable);
    }
    assert_hidden(&said, &["joe", "hüsh"]);
    let alone = [CRM, ("RECEIVER_CRM_CLIENT_KEY", key.as_str())];
    let said = faults(1, &alone).await;
    assert!(said.contains("RECEIVER_CRM_CLIENT_CERT is not set"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_with_the_main_ones_value_is_told_once() {
    faults(1, &[CRM, ("RECEIVER_B_URL", "https://h/"), ("WEBHOOK_TIMEOUT", "3s")]).await;
}

#[tokio::test]
async fn events_timeout_and_retry_are_the_main_ones_where_unset_and_nothing_else_is() {
    let vars = [
        MAIN,
        ("WEBHOOK_SECRET", "hush-main"),
        ("WEBHOOK_SIGNING_KEY", "whsec_aHVzaA=="),
        ("WEBHOOK_HEADERS", r#"{"X-A":"hush-main"}"#),
        ("WEBHOOK_PROXY", "http://joe:hush@proxy.test:3128"),
        ("WEBHOOK_RETRY", "7"),
        ("WEBHOOK_EVENTS", "call_ended"),
        CRM,
        ("RECEIVER_CRM_EVENTS", "*"),
    ];
    let listing = config(&vars).await;
    for (variable, row) in [
        ("RECEIVER_CRM_URL", "RECEIVER_CRM_URL=https://crm.test/calls # environment"),
        ("RECEIVER_CRM_EVENTS", "RECEIVER_CRM_EVENTS=* # environment"),
        ("RECEIVER_CRM_RETRY", "RECEIVER_CRM_RETRY=7 # as WEBHOOK_RETRY (environment)"),
        ("RECEIVER_CRM_TIMEOUT", "RECEIVER_CRM_TIMEOUT=3000 # as WEBHOOK_TIMEOUT (default)"),
        ("RECEIVER_CRM_SECRET", "RECEIVER_CRM_SECRET= # not set"),
        ("RECEIVER_CRM_SIGNING_KEY", "RECEIVER_CRM_SIGNING_KEY= # not set"),
        ("RECEIVER_CRM_HEADERS", "RECEIVER_CRM_HEADERS= # not set"),
        ("RECEIVER_CRM_CLIENT_CERT", "RECEIVER_CRM_CLIENT_CERT= # not set"),
        ("RECEIVER_CRM_PROXY", "RECEIVER_CRM_PROXY= # not set"),
    ] {
        let line = line_of(&listing, variable);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.join(" "), row);
    }
    assert_hidden(&listing, &["hush", "joe"]);
}

#[tokio::test]
async fn the_environment_wins_over_the_table_key_by_key_and_secrets_are_masked() {
    let toml = r#"
        [receivers.crm]
        url = "https://joe:hush@crm.test/calls?key=1"
        secret = "hush-toml"
        events = ["call_started", "call_ended"]
        timeout = 1000
        headers = { X-A = "hush" }
        [receivers.b]
        url_file = "URL"
        "#;
    let directory = TempDir::new().expect("a temporary directory");
    let url = directory.path().join("url");
    std::fs::write(&url, "https://joe:hush@b.test/hush\n").unwrap();
    let (_directory, path) = settings_file(&toml.replace("URL", url.to_str().unwrap()));
    let path = path.to_str().unwrap();
    let vars = [
        MAIN,
        ("CALLHOOK_CONFIG", path),
        ("RECEIVER_CRM_TIMEOUT", "2000"),
        ("RECEIVER_CRM_SECRET", "hush-environment"),
    ];
    let listing = config(&vars).await;
    for (variable, value, source) in [
        ("RECEIVER_CRM_URL", "https://***@crm.test/calls?key=1", path),
        ("RECEIVER_CRM_SECRET", "***", "environment"),
        ("RECEIVER_CRM_TIMEOUT", "2000", "environment"),
        ("RECEIVER_CRM_EVENTS", "call_started,call_ended", path),
        ("RECEIVER_CRM_HEADERS", "***", path),
        ("RECEIVER_B_URL", "https://b.test", url.to_str().unwrap()),
    ] {
        let line = line_of(&listing, variable);
        assert!(
            line.starts_with(&format!("{variable}={value} ")) && line.contains(source),
            "{line}"
        );
    }
    assert_hidden(&listing, &["hush", "joe"]);
}

#[tokio::test]
async fn what_is_no_table_or_no_key_of_one_is_named_and_spoils_nothing_else() {
    for (toml, told) in [
        ("receivers = \"hush\"", "receivers in "),
        ("[receivers]\ncrm = \"hush\"", "[receivers.crm] in "),
        ("receiver_crm_url = \"https://hush/\"", "expected a table [receivers.NAME]"),
        ("RECEIVER_CRM_URL = \"https://hush/\"", "expected a table [receivers.NAME]"),
        ("[receivers.crm]\nurl = \"https://h/\"\nsecert = \"hush\"", "did you mean secret?"),
        ("[receivers.crm]\nurl = \"https://h/\"\nURL = \"hush\"", "URL in [receivers.crm]"),
        ("[receivers.crm]\nurl = \"https://h/\"\nbackoff = 3", "backoff in [receivers.crm]"),
        ("[receivers.crm]\nurl = \"https://h/\"\nsecret = { a = \"hush\" }", "found a table"),
    ] {
        let said = faults_of_file(1, toml).await;
        assert!(said.contains(told) && said.contains("settings.toml"), "{toml}: {said}");
    }
}

#[tokio::test]
async fn a_misspelt_name_is_warned_of_with_the_right_one() {
    for (typo, right) in [
        ("RECEIVER_CRM_ULR", "RECEIVER_CRM_URL"),
        ("RECEIVER_CRM_SECERT", "RECEIVER_CRM_SECRET"),
        ("RECEIVER_CRM_SECRET_FLIE", "RECEIVER_CRM_SECRET_FILE"),
        ("RECIEVER_CRM_URL", "RECEIVER_CRM_URL"),
        ("RECEIVERS_CRM_URL", "RECEIVER_CRM_URL"),
    ] {
        let told = warnings(&[("STS_URL", "ws://sts"), (typo, "hush")]).await;
        assert_eq!(told.len(), 1, "{typo}: {told:?}");
        assert!(told[0].contains(&format!("{typo} is not a setting")), "{told:?}");
        assert!(told[0].contains(&format!("did you mean {right}?")), "{told:?}");
        assert_hidden(&told[0], &["hush"]);
    }
    // Of a receiver that there is, whatever is none of its settings.
    let told = warnings(&[("STS_URL", "ws://sts"), CRM, ("RECEIVER_CRM_RETRIES_MAX", "1")]).await;
    assert_eq!(told.len(), 1, "{told:?}");
    for foreign in ["RECEIVER_EMAIL_ADDRESS", "RECEIVER_PORT", "RECEIVER", "RECEIVER_CRM_URL"] {
        let value = if foreign == "RECEIVER_CRM_URL" { "" } else { "1" };
        assert_eq!(
            warnings(&[("STS_URL", "ws://sts"), (foreign, value)]).await,
            [""; 0],
            "{foreign}"
        );
    }
    // Beside the fault that it causes.
    let said = faults(2, &[("RECEIVER_CRM_SECRET", "hush"), ("RECEIVER_CRM_ULR", "hush")]).await;
    line_of(&said, "RECEIVER_CRM_ULR");
    let events = ("RECEIVER_CRM_EVENTS", "call_endd");
    let told = warnings(&[("STS_URL", "ws://sts"), CRM, events]).await;
    assert!(told[0].contains("RECEIVER_CRM_EVENTS lists call_endd"), "{told:?}");
}

/// Files that can be changed.
struct Files(TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name).to_str().expect("a path of plain text").to_owned()
    }
}

#[tokio::test]
async fn sighup_reads_the_files_of_every_receiver_anew_and_says_which_changed() {
    let files = Files(TempDir::new().expect("a temporary directory"));
    let pem = |name: &str| std::fs::read_to_string(client_file(name)).expect("a file");
    let (crm, b) = (files.put("crm", "hush-old\n"), files.put("b", "hush-old\n"));
    let (cert, key) = (files.put("cert", &pem("client.pem")), files.put("key", &pem("client.key")));
    let service = Service::start(&[
        MAIN,
        CRM,
        ("RECEIVER_CRM_SECRET_FILE", &crm),
        ("RECEIVER_CRM_CLIENT_CERT", &cert),
        ("RECEIVER_CRM_CLIENT_KEY", &key),
        ("RECEIVER_B_URL", "https://b.test/"),
        ("RECEIVER_B_HEADERS_FILE", &files.put("headers", "{}")),
        ("RECEIVER_B_SECRET_FILE", &b),
    ])
    .await;
    service.log_line(|line| line["receiver"] == "crm").await;
    files.put("crm", "hush-new\n");
    files.put("cert", &pem("expired.pem"));
    files.put("headers", "{\"Host\":\"hush\"}");
    let changed = renewed(&service, 1).await;
    assert_eq!(changed, "RECEIVER_CRM_CLIENT_CERT, RECEIVER_CRM_SECRET");
    for told in ["RECEIVER_B_HEADERS=***", "RECEIVER_CRM_CLIENT_CERT="] {
        let line = service.log_line(|line| line["message"].to_string().contains(told)).await;
        assert_eq!(line["level"], "warn", "{line}");
    }
    let log = serde_json::to_string(&service.log_so_far()).unwrap();
    assert_hidden(&log, &["hush"]);
}
