//! The settings from outside: layers, faults, masking, and the commands that show or check them.

mod further;
mod receiver;

use std::path::PathBuf;

use crate::support::receiver::{Receiver, Reply, free_port};
use crate::support::service::{Service, run};
use serde_json::Value;
use tempfile::TempDir;

/// Variable, a value that is none of its own, and words that say what is accepted.
const FAULTS: &[(&str, &str, &[&str])] = &[
    ("WEBHOOK_URL", "ftp://receiver.test/", &["http"]),
    ("WEBHOOK_TIMEOUT", "3s", &[]),
    ("WEBHOOK_RETRY", "-1", &[]),
    ("WEBHOOK_BACKOFF", "0.5", &[]),
    ("WEBHOOK_CONCURRENCY", "many", &[]),
    ("WEBHOOK_BREAKER", "never", &[]),
    ("ROUTING_TIMEOUT", "5_000", &[]),
    ("STS_URL", "http://sts.test", &["ws"]),
    ("HTTP_PORT", "70000", &["65535"]),
    ("PORT", "audio", &["65535"]),
    ("ADMIN_PORT", "-2", &["65535"]),
    ("AUDIO_CODEC", "opus", &["auto", "slin", "ulaw", "alaw"]),
    ("CALL_IDLE_TIMEOUT", "1e3x", &[]),
    ("CALL_ENDED_DETAILS", "maybe", &["true", "false"]),
    ("AUDIOSOCKET_UNANNOUNCED", "yes", &["accept", "refuse"]),
    ("CALL_LIMIT", "10001", &["0", "10000"]),
    ("CALL_MAX_DURATION", "1h", &["0", "86400000"]),
    ("TRANSFER_TO", "people", &["context/exten", "people/100"]),
    ("ROUTE_TO", "*/100", &["context/exten", "people/100"]),
    ("INSPECTOR_CALLS", "20001", &["0", "20000"]),
    ("QUEUE_LIMIT", "lots", &[]),
    ("DRAIN_TIMEOUT", "ten", &[]),
    ("LOG_FORMAT", "xml", &["text", "json"]),
    ("LOG_LEVEL", "loud", &["error", "warn", "info", "debug"]),
];

/// Settings that hold a secret, each with one that is easy to find in a text.
const SECRETS: [(&str, &str); 6] = [
    ("WEBHOOK_SECRET", "hush-webhook"),
    ("WEBHOOK_HEADERS", r#"{"X-Api-Key":"hush-headers"}"#),
    ("HTTP_SECRET", "hush-front"),
    ("AGENT_SECRET", "hush-agent"),
    ("ADMIN_TOKEN", "hush-admin"),
    ("WEBHOOK_SIGNING_KEY", "whsec_aHVzaC1zaWduaW5nLWtleS1odXNoLXNpZ25pbmc="),
];

/// The commands that the service and its workbench have by now.
const COMMANDS: [&str; 5] = ["serve", "health", "config", "demo", "receive"];

/// A settings file, and the directory that it lives and goes with.
fn settings_file(toml: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("settings.toml");
    std::fs::write(&path, toml).expect("a settings file");
    (directory, path)
}

/// What `callhook config` prints with these variables.
async fn config(vars: &[(&str, &str)]) -> String {
    let (code, stdout, stderr) = run(&["config"], vars).await;
    assert_eq!(code, 0, "{stderr}");
    stdout
}

/// The line of a listing that is about this variable; a settings file has it in lower case.
fn line_of<'a>(listing: &'a str, variable: &str) -> &'a str {
    let line_with = |name: &str| listing.lines().find(|line| words(line).any(|word| word == name));
    let line = line_with(variable).or_else(|| line_with(&variable.to_lowercase()));
    line.unwrap_or_else(|| panic!("no line about {variable} in:\n{listing}"))
}

/// The names and numbers in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
}

fn assert_hidden(text: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is shown in:\n{text}");
    }
}

#[tokio::test]
async fn all_faults_are_reported_at_once_with_variable_value_and_what_is_accepted() {
    let vars: Vec<_> = FAULTS.iter().map(|(variable, value, _)| (*variable, *value)).collect();
    let (code, _, stderr) = run(&["serve"], &vars).await;
    assert_eq!(code, 64, "{stderr}");
    for (variable, value, accepted) in FAULTS {
        let line = line_of(&stderr, variable);
        assert!(line.contains(value), "{variable}: no {value} in {line:?}");
        for word in *accepted {
            assert!(line.contains(word), "{variable}: no {word} in {line:?}");
        }
        let said = line.replace(variable, "").replace(value, "");
        let said = said.chars().filter(|char| char.is_alphabetic()).count();
        assert!(said > 10, "{variable}: nothing about what is accepted in {line:?}");
    }
}

#[tokio::test]
async fn each_fault_alone_stops_the_start() {
    for (variable, value, _) in &FAULTS[1..] {
        let (code, _, stderr) =
            run(&["serve"], &[("WEBHOOK_URL", "none"), (variable, value)]).await;
        assert_eq!(code, 64, "{variable}={value}: {stderr}");
        line_of(&stderr, variable);
    }
}

#[tokio::test]
async fn a_first_delay_above_the_longest_is_a_fault_that_names_both_settings() {
    let vars = |first: &'static str, longest: &'static str| {
        let delays = [("WEBHOOK_BACKOFF", first), ("WEBHOOK_BACKOFF_MAX", longest)];
        [("WEBHOOK_URL", "none")].into_iter().chain(delays).collect::<Vec<_>>()
    };
    let (code, _, stderr) = run(&["serve"], &vars("60001", "60000")).await;
    assert_eq!(code, 64, "{stderr}");
    let line = line_of(&stderr, "WEBHOOK_BACKOFF");
    for word in ["WEBHOOK_BACKOFF=60001", "WEBHOOK_BACKOFF_MAX=60000", "at most"] {
        assert!(line.contains(word), "no {word} in {line:?}");
    }
    // The ceiling that nobody set counts, too.
    let (code, _, stderr) = run(&["config"], &vars("30001", "")).await;
    assert_eq!(code, 64, "{stderr}");
    assert!(line_of(&stderr, "WEBHOOK_BACKOFF").contains("WEBHOOK_BACKOFF_MAX=30000"), "{stderr}");
    config(&vars("60000", "60000")).await;
    // Where one of the two is wrong in itself, that is all there is to say.
    let (_, _, stderr) = run(&["config"], &vars("1000", "soon")).await;
    assert!(stderr.contains("1 setting is wrong"), "{stderr}");
}

#[tokio::test]
async fn a_webhook_url_is_required() {
    for value in [None, Some(""), Some("undefined"), Some("null")] {
        let vars: Vec<_> = value.map(|value| ("WEBHOOK_URL", value)).into_iter().collect();
        for args in [&["serve"][..], &[]] {
            let (code, _, stderr) = run(args, &vars).await;
            assert_eq!(code, 64, "{args:?} with {value:?}: {stderr}");
            line_of(&stderr, "WEBHOOK_URL");
        }
    }
}

#[tokio::test]
async fn empty_undefined_and_null_count_as_unset() {
    let plain = config(&[("WEBHOOK_URL", "none")]).await;
    for unset in ["", "undefined", "null"] {
        let vars: Vec<_> = FAULTS[1..].iter().map(|(variable, ..)| (*variable, unset)).collect();
        let vars = [vars, vec![("WEBHOOK_URL", "none"), ("AGENT_ID", unset), ("STS_URL", unset)]];
        assert_eq!(config(&vars.concat()).await, plain, "with {unset:?}");
    }
}

#[tokio::test]
async fn an_undefined_secret_or_agent_is_not_sent() {
    let receiver = Receiver::content().await;
    let vars = [
        ("WEBHOOK_URL", receiver.url.as_str()),
        ("WEBHOOK_SECRET", "undefined"),
        ("AGENT_ID", "null"),
        ("HTTP_SECRET", ""),
    ];
    let service = Service::start(&vars).await;
    let event =
        r#"{"uuid":"00000000-0000-4000-8000-000000000001","type":"call_started","payload":{}}"#;
    service.relay(event).await;
    let seen = &receiver.seen(1).await[0];
    assert_eq!(seen.header("x-avr-webhook-secret"), None);
    assert_eq!(seen.header("x-avr-agent-id"), None);
}

#[tokio::test]
async fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let toml =
        "webhook_url = \"none\"\nagent_id = \"from-disk\"\nwebhook_retry = 7\nqueue_limit = 77\n";
    let (_directory, path) = settings_file(toml);
    let path = path.to_str().expect("a path of plain text");
    let listing = config(&[("CALLHOOK_CONFIG", path), ("QUEUE_LIMIT", "99")]).await;
    let table = [
        ("AGENT_ID", "from-disk", "settings.toml"),
        ("WEBHOOK_RETRY", "7", "settings.toml"),
        ("QUEUE_LIMIT", "99", "env"),
        ("WEBHOOK_TIMEOUT", "3000", "default"),
    ];
    for (variable, value, source) in table {
        let line = line_of(&listing, variable);
        assert!(line.contains(value), "{variable} is {value} in {line:?}");
        assert!(line.contains(source), "{variable} comes from {source} in {line:?}");
    }
}

#[tokio::test]
async fn the_file_alone_is_enough_to_start() {
    let receiver = Receiver::content().await;
    let toml = format!("webhook_url = \"{}\"\nagent_id = \"from-disk\"\n", receiver.url);
    let (_directory, path) = settings_file(&toml);
    let path = path.to_str().expect("a path of plain text");
    let service = Service::start(&[("CALLHOOK_CONFIG", path)]).await;
    let event =
        r#"{"uuid":"00000000-0000-4000-8000-000000000001","type":"call_started","payload":{}}"#;
    service.relay(event).await;
    assert_eq!(receiver.seen(1).await[0].header("x-avr-agent-id"), Some("from-disk"));
}

#[tokio::test]
async fn a_fault_in_the_file_is_reported_like_any_other() {
    let (_directory, path) = settings_file("webhook_retry = \"often\"\nlog_format = \"xml\"\n");
    let path = path.to_str().expect("a path of plain text");
    let (code, _, stderr) = run(&["serve"], &[("CALLHOOK_CONFIG", path)]).await;
    assert_eq!(code, 64, "{stderr}");
    assert!(line_of(&stderr, "WEBHOOK_RETRY").contains("often"), "{stderr}");
    assert!(line_of(&stderr, "LOG_FORMAT").contains("xml"), "{stderr}");
    line_of(&stderr, "WEBHOOK_URL");
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_toml_is_a_fault_naming_it() {
    let (directory, broken) = settings_file("webhook_url = none = \"\n");
    let missing = directory.path().join("absent.toml");
    for path in [broken, missing] {
        let path = path.to_str().expect("a path of plain text");
        let vars = [("CALLHOOK_CONFIG", path), ("WEBHOOK_URL", "none")];
        let (code, _, stderr) = run(&["serve"], &vars).await;
        assert_eq!(code, 64, "{stderr}");
        assert!(stderr.contains(path), "no {path} in {stderr}");
    }
}

#[tokio::test]
async fn an_unknown_webhook_variable_gets_a_warning_with_the_nearest_name() {
    let table = [
        ("WEBHOOK_RETRIES", "WEBHOOK_RETRY"),
        ("WEBHOOK_TIMOUT", "WEBHOOK_TIMEOUT"),
        ("WEBHOOK_SECRTE", "WEBHOOK_SECRET"),
        ("WEBHOOK_BACKOF", "WEBHOOK_BACKOFF"),
    ];
    let mut vars = vec![("WEBHOOK_URL", "none")];
    vars.extend(table.map(|(typo, _)| (typo, "hunter2")));
    let mut service = Service::start(&vars).await;
    for (typo, meant) in table {
        let line = service.log_line(|line| line.to_string().contains(typo)).await;
        let level = line["level"].as_str().unwrap_or_default().to_lowercase();
        assert_eq!(level, "warn", "{line}");
        let text = line.to_string();
        assert!(words(&text).any(|word| word == meant), "{typo} is near {meant}: {line}");
    }
    service.terminate();
    service.wait().await;
    assert_hidden(&service.whole_log().await, &["hunter2"]);
}

#[tokio::test]
async fn an_unknown_key_in_the_file_is_named_with_the_nearest_and_spoils_no_other_key() {
    let toml = "webhook_url = \"none\"\nwebhook_secrte = \"hunter2\"\nlog_format = \"xml\"\n";
    let (_directory, path) = settings_file(toml);
    let path = path.to_str().expect("a path of plain text");
    let (code, _, stderr) = run(&["serve"], &[("CALLHOOK_CONFIG", path)]).await;
    assert_eq!(code, 64, "{stderr}");
    let line = line_of(&stderr, "WEBHOOK_SECRTE");
    assert!(words(line).any(|word| word.eq_ignore_ascii_case("webhook_secret")), "{line}");
    line_of(&stderr, "LOG_FORMAT");
    assert!(!stderr.contains("WEBHOOK_URL"), "what is set is not missing: {stderr}");
    assert_hidden(&stderr, &["hunter2"]);
}

#[tokio::test]
async fn a_misspelt_variable_is_named_beside_the_fault_that_it_causes() {
    let vars = [("WEBHOOK_ULR", "http://receiver.test/events")];
    let (code, _, stderr) = run(&["serve"], &vars).await;
    assert_eq!(code, 64, "{stderr}");
    line_of(&stderr, "WEBHOOK_URL");
    line_of(&stderr, "WEBHOOK_ULR");
}

#[tokio::test]
async fn config_masks_secrets_and_the_user_part_of_a_url() {
    let mut vars = SECRETS.to_vec();
    vars.push(("WEBHOOK_URL", "https://alice:wonderland@receiver.test/events"));
    vars.push(("STS_URL", "ws://bob:builder@sts.test:6030/"));
    let listing = config(&vars).await;
    assert_hidden(&listing, &SECRETS.map(|(_, secret)| secret));
    assert_hidden(&listing, &["alice", "wonderland", "bob", "builder", "hush", "aHVzaC"]);
    for (variable, _) in SECRETS {
        let set = line_of(&listing, variable).to_owned();
        let plain = config(&[("WEBHOOK_URL", "none")]).await;
        assert_ne!(set, line_of(&plain, variable), "one sees that {variable} is set");
    }
    assert!(line_of(&listing, "WEBHOOK_URL").contains("receiver.test/events"), "{listing}");
}

#[tokio::test]
async fn errors_hide_secrets_and_the_user_part_of_a_url() {
    let mut vars = SECRETS.to_vec();
    vars.retain(|(variable, _)| *variable != "WEBHOOK_SIGNING_KEY");
    vars.push(("WEBHOOK_SIGNING_KEY", "whsec_not*base64*at*all"));
    vars.push(("WEBHOOK_URL", "ftp://alice:wonderland@receiver.test/events"));
    vars.push(("STS_URL", "http://bob:builder@sts.test:6030/"));
    let (code, stdout, stderr) = run(&["serve"], &vars).await;
    assert_eq!(code, 64, "{stderr}");
    for variable in ["WEBHOOK_SIGNING_KEY", "WEBHOOK_URL", "STS_URL"] {
        line_of(&stderr, variable);
    }
    let hidden = ["alice", "wonderland", "bob", "builder", "hush", "not*base64*at*all"];
    assert_hidden(&(stdout + &stderr), &hidden);
}

#[tokio::test]
async fn a_url_that_does_not_parse_hides_its_user_part_too() {
    for url in [
        "http://alice:wonderland@receiver.test:99999/",
        "http//alice:wonderland@x",
        "http://alice:wonderland@",
    ] {
        let (code, _, stderr) = run(&["serve"], &[("WEBHOOK_URL", url)]).await;
        assert_eq!(code, 64, "{url}: {stderr}");
        assert_hidden(&stderr, &["alice", "wonderland"]);
    }
}

#[tokio::test]
async fn logs_hide_secrets_and_the_user_part_of_a_url() {
    let receiver = Receiver::start(|seen| match seen.body["payload"]["to"].as_str() {
        Some("1") => Reply::route("ws://carol:rabbit@elsewhere.test/"),
        Some("2") => Reply::route("http://carol:rabbit@sts.test/"),
        _ => Reply::status(422),
    });
    let receiver = receiver.await;
    let url = receiver.url.replace("http://", "http://alice:wonderland@");
    for format in ["json", "text"] {
        let mut vars = SECRETS.to_vec();
        vars.extend([
            ("WEBHOOK_URL", url.as_str()),
            ("STS_URL", "ws://bob:builder@sts.test:6030/"),
        ]);
        vars.extend([
            ("STS_ALLOWED_HOSTS", "sts.test"),
            ("LOG_LEVEL", "debug"),
            ("LOG_FORMAT", format),
        ]);
        let mut service = Service::start(&vars).await;
        let secret = [("X-AVR-WEBHOOK-SECRET", "hush-front")];
        for to in ["1", "2", "3"] {
            let body = format!(
                r#"{{"uuid":"00000000-0000-4000-8000-00000000000{to}","payload":{{"to":"{to}"}}}}"#
            );
            assert_eq!(service.post_with("/call", &secret, body).await.status, 200);
        }
        let wrong = [("Authorization", "Bearer hush-wrong")];
        assert_eq!(service.post_with("/call", &wrong, "{}").await.status, 401);
        service.terminate();
        assert_eq!(service.wait().await, 0);
        let log = service.whole_log().await;
        assert!(
            log.contains(&receiver.port().to_string()),
            "the failure names the receiver:\n{log}"
        );
        assert_hidden(
            &log,
            &["alice", "wonderland", "bob", "builder", "carol", "rabbit", "hush", "aHVzaC"],
        );
    }
}

#[tokio::test]
async fn an_open_admin_host_needs_a_token() {
    for open in ["0.0.0.0", "::", "192.0.2.1"] {
        let vars = [("WEBHOOK_URL", "none"), ("ADMIN_HOST", open)];
        let (code, _, stderr) = run(&["serve"], &vars).await;
        assert_eq!(code, 64, "{open}: {stderr}");
        line_of(&stderr, "ADMIN_TOKEN");
        config(&[vars.as_slice(), &[("ADMIN_TOKEN", "hush")]].concat()).await;
    }
    for loopback in ["127.0.0.1", "127.0.0.53", "::1"] {
        config(&[("WEBHOOK_URL", "none"), ("ADMIN_HOST", loopback)]).await;
    }
}

#[tokio::test]
async fn a_port_in_use_exits_69_naming_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let vars = [
        ("WEBHOOK_URL", "none"),
        ("JOURNAL_PATH", "none"),
        ("HTTP_HOST", "127.0.0.1"),
        ("HTTP_PORT", port.as_str()),
        ("PORT", "0"),
        ("ADMIN_PORT", "0"),
    ];
    let (code, _, stderr) = run(&["serve"], &vars).await;
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains(&port), "no {port} in {stderr}");
}

#[tokio::test]
async fn health_exits_0_where_a_service_runs_and_1_where_none_does() {
    let service = Service::start(&[("WEBHOOK_URL", "none")]).await;
    let (running, free) = (service.addr.port().to_string(), free_port().to_string());
    let table = [
        (running.as_str(), Some("127.0.0.1"), 0),
        (&running, Some("0.0.0.0"), 0), // what the service binds to is not where one can ask
        (&running, None, 0),
        (&free, Some("127.0.0.1"), 1),
    ];
    for (port, host, expected) in table {
        let mut vars = vec![("WEBHOOK_URL", "none"), ("HTTP_PORT", port)];
        vars.extend(host.map(|host| ("HTTP_HOST", host)));
        let (code, _, stderr) = run(&["health"], &vars).await;
        assert_eq!(code, expected, "port {port}, host {host:?}: {stderr}");
    }
}

#[tokio::test]
async fn health_needs_no_webhook_url() {
    let service = Service::start(&[("WEBHOOK_URL", "none")]).await;
    let port = service.addr.port().to_string();
    let (code, _, stderr) = run(&["health"], &[("HTTP_PORT", &port)]).await;
    assert_eq!(code, 0, "{stderr}");
}

#[tokio::test]
async fn the_help_of_each_command_shows_an_example() {
    for command in COMMANDS {
        let (code, stdout, _) = run(&[command, "--help"], &[]).await;
        assert_eq!(code, 0, "{command}");
        let example = stdout.to_lowercase().find("example").map(|at| &stdout[at..]);
        let example = example.unwrap_or_else(|| panic!("no example for {command}:\n{stdout}"));
        assert!(example.contains("callhook"), "{command}: {example}");
    }
}

#[tokio::test]
async fn the_help_of_the_program_names_its_commands() {
    let (code, stdout, _) = run(&["--help"], &[]).await;
    assert_eq!(code, 0);
    for command in COMMANDS {
        assert!(stdout.contains(command), "no {command} in:\n{stdout}");
    }
}

#[tokio::test]
async fn a_usage_error_exits_64() {
    for args in [
        &["--no-such-option"][..],
        &["frobnicate"],
        &["serve", "--no-such-option"],
        &["health", "extra"],
    ] {
        let (code, _, stderr) = run(args, &[("WEBHOOK_URL", "none")]).await;
        assert_eq!(code, 64, "{args:?}: {stderr}");
        assert!(!stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn json_logs_are_one_object_a_line() {
    let mut service = Service::start(&[("WEBHOOK_URL", "none"), ("LOG_LEVEL", "debug")]).await;
    service.post("/call", r#"{"uuid":"00000000-0000-4000-8000-000000000001"}"#).await;
    service.post("/call", "{").await;
    service.terminate();
    service.wait().await;
    for line in service.whole_log().await.lines() {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(object["level"].is_string() && object["message"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn text_is_the_format_unless_another_is_asked_for() {
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("LOG_FORMAT", "")]).await;
    let log = service.text_log("AVR HTTP Server listening on port").await;
    assert!(log.lines().all(|line| !line.starts_with('{')), "{log}");
    assert!(log.contains(&service.addr.port().to_string()), "{log}");
}

/// What `callhook config` warns of with these variables.
async fn warnings(vars: &[(&str, &str)]) -> Vec<String> {
    let listing = config(&[&[("WEBHOOK_URL", "none")], vars].concat()).await;
    listing.lines().filter(|line| line.starts_with("# ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_name_that_is_nearly_a_setting_is_warned_of_with_the_right_one() {
    let with_sts = |name| [("STS_URL", "ws://sts"), (name, "1")];
    for (typo, right) in [
        ("HTTP_PROT", "HTTP_PORT"),
        ("STS_URLS", "STS_URL"),
        ("HTTP_SECERT", "HTTP_SECRET"),
        ("HTTP_SECERT_FILE", "HTTP_SECRET_FILE"),
        ("WEBHOKO_URL", "WEBHOOK_URL"),
        ("ADMIN_TOKENS", "ADMIN_TOKEN"),
        ("CALL_IDEL_TIMEOUT", "CALL_IDLE_TIMEOUT"),
        ("CALL_DRAIN_TIMOUT", "CALL_DRAIN_TIMEOUT"),
        ("JOURNAL_PAHT", "JOURNAL_PATH"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ] {
        let warnings = warnings(&with_sts(typo)).await;
        assert_eq!(warnings.len(), 1, "{typo}: {warnings:?}");
        let words: Vec<&str> = words(&warnings[0]).collect();
        assert!(words.contains(&typo) && words.contains(&right), "{typo}: {warnings:?}");
    }
    // The log of the service says it, too.
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("HTTP_SECERT", "hush")]).await;
    let line = service.log_line(|line| line["message"].to_string().contains("HTTP_SECRET")).await;
    assert_eq!(line["level"], "warn");
    assert!(!line.to_string().contains("hush"), "{line}");
}

#[tokio::test]
async fn names_of_avrs_own_set_ups_and_of_others_are_no_typos() {
    for name in [
        "AMI_URL",
        "AMI_HOST",
        "AMI_PORT",
        "AMI_USERNAME",
        "AMI_PASSWORD",
        "ARI_URL",
        "AGENT_NAME",
        "INTERRUPT_LISTENING",
        "SYSTEM_MESSAGE",
        "WEBHOOK_FORWARD_URL",
        "CORE_DEFAULT_IMAGE",
        "PROVIDER_NAME",
        "OPENAI_API_KEY",
        "OPENAI_MODEL",
        "DATABASE_URL",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "HOST",
        "PATH",
        "HOME",
        "HOSTNAME",
        "SMTP_HOST",
        "SMTP_PORT",
        "NODE_ENV",
        "RUST_LOG",
        "LOG_FILE",
        "ADMIN_EMAIL",
        "JWT_SECRET",
        "ALLOWED_CONTEXTS",
        "TZ",
        "VAD_MODE",
        "CLIENT_ID",
        "TENANT",
    ] {
        let vars = [("STS_URL", "ws://sts"), (name, "1")];
        assert_eq!(warnings(&vars).await, [""; 0], "{name}");
    }
}

#[tokio::test]
async fn what_callhook_does_not_do_is_warned_of_at_the_start() {
    for name in ["ASR_URL", "LLM_URL", "TTS_URL", "AMBIENT_NOISE_FILE", "AMBIENT_NOISE_LEVEL"] {
        let warnings = warnings(&[("STS_URL", "ws://sts"), (name, "http://x")]).await;
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert!(warnings[0].contains(name) && warnings[0].contains("does no"), "{warnings:?}");
    }
    let none = warnings(&[]).await;
    assert_eq!(none.len(), 1, "{none:?}");
    assert!(none[0].contains("STS_URL") && none[0].contains("silence"), "{none:?}");
    let unset =
        warnings(&[("STS_URL", "ws://sts"), ("TTS_URL", ""), ("LLM_URL", "undefined")]).await;
    assert_eq!(unset, [""; 0]);
    let service = Service::start(&[("WEBHOOK_URL", "none"), ("ASR_URL", "http://asr:6010")]).await;
    for name in ["ASR_URL", "STS_URL"] {
        let line = service.log_line(|line| line["message"].to_string().contains(name)).await;
        assert_eq!(line["level"], "warn", "{line}");
    }
}
