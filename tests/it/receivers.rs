//! What README and `config/receivers/` offer for further receivers works: the example of settings, the program that
//! tells Slack (`receivers/slack.rs`), and the n8n workflow (`receivers/n8n.rs`).

mod n8n;
mod slack;

use std::fs;

use serde_json::Value;

use crate::support::asterisk::Asterisk;
use crate::support::receiver::{Receiver, Seen};
use crate::support::service::{Service, run};

/// A file of this project.
fn file(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The settings in the first block of a text that has any, without comments.
fn settings_in(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.into_iter().find(|block| block.contains("RECEIVER_")).expect("settings");
    let lines = block.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.into(), value.into()));
    lines.map(|line| pair(line).unwrap_or_else(|| panic!("a setting in {line:?}"))).collect()
}

fn borrowed(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Those of the text, with this URL in place of its receiver's.
fn pointed_at(text: &str, name: &str, url: &str) -> Vec<(String, String)> {
    let mut settings = settings_in(text);
    let found = settings.iter_mut().find(|(found, _)| found == name).expect("the receiver's URL");
    url.clone_into(&mut found.1);
    settings
}

/// A service with a main receiver of no account, and these settings.
async fn serve_with(main: &Receiver, settings: &[(String, String)]) -> Service {
    let vars = [vec![("WEBHOOK_URL", &*main.url)], borrowed(settings)].concat();
    Service::start(&vars).await
}

/// A caller calls and hangs up.
async fn call(service: &Service) {
    Asterisk::dial(service.audiosocket().await).await.hang_up().await;
}

/// The first event of this type.
async fn first(receiver: &Receiver, kind: &str) -> Seen {
    let found = |seen: &[Seen]| seen.iter().find(|seen| seen.kind() == kind).cloned();
    receiver.until(kind, found).await
}

/// Panics unless a sample has the fields, and the kinds of values, of what was sent.
fn same_shape(sample: &Value, sent: &Value) {
    match (sample, sent) {
        (Value::Object(sample), Value::Object(sent)) => {
            assert!(sample.keys().eq(sent.keys()), "{sample:?} and {sent:?}");
            for (key, value) in sample {
                same_shape(value, &sent[key]);
            }
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_example_in_readme_makes_three_receivers_and_every_setting_is_taken() {
    let readme = file("README.md");
    let (_, section) = readme.split_once("\n## Several receivers\n").expect("a section");
    let settings = settings_in(section);
    let (code, shown, fault) = run(&["config"], &borrowed(&settings)).await;
    assert_eq!(code, 0, "{fault}");
    assert_eq!(fault, "", "nothing is warned of");
    for (name, _) in &settings {
        assert!(shown.contains(name.as_str()), "{name} is in effect: {shown}");
    }
    assert!(!shown.contains("change-me"), "secrets are masked: {shown}");
}
