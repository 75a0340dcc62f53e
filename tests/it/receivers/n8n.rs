//! `config/receivers/n8n-call-ended.json`: it holds together as n8n wants a workflow to, and asks for nothing that
//! callhook does not send.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{call, file, first, pointed_at, same_shape, serve_with};
use crate::support::receiver::{Receiver, Seen};

/// The types of nodes, each with its version; n8n 2.41 has them, with all the parameters that are set.
const KNOWN: [(&str, f64); 6] = [
    ("n8n-nodes-base.stickyNote", 1.0),
    ("n8n-nodes-base.webhook", 2.0),
    ("n8n-nodes-base.removeDuplicates", 2.0),
    ("n8n-nodes-base.if", 2.2),
    ("n8n-nodes-base.httpRequest", 4.2),
    ("n8n-nodes-base.noOp", 1.0),
];

fn workflow() -> Value {
    serde_json::from_str(&file("config/receivers/n8n-call-ended.json")).unwrap()
}

fn nodes(workflow: &Value) -> &Vec<Value> {
    workflow["nodes"].as_array().expect("nodes")
}

fn node<'a>(workflow: &'a Value, kind: &str) -> &'a Value {
    let kind = format!("n8n-nodes-base.{kind}");
    nodes(workflow).iter().find(|node| node["type"] == kind).expect("a node of the type")
}

/// All texts in a value.
fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The path behind each `$json` of an expression: `$json.headers['webhook-id']` has two steps.
fn paths(expression: &str) -> Vec<Vec<&str>> {
    expression.split("$json").skip(1).map(steps).collect()
}

/// Those that a text begins with.
fn steps(text: &str) -> Vec<&str> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"_-.[]'".contains(c));
    let steps = text[..end.unwrap_or(text.len())].split(['.', '[', ']', '\'']);
    steps.filter(|step| !step.is_empty()).collect()
}

/// As n8n's webhook node hands on what it got.
fn handed_on(seen: &Seen) -> Value {
    let headers = seen.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    json!({ "headers": headers.collect::<Map<String, Value>>(), "body": seen.body })
}

#[test]
fn the_workflow_holds_together() {
    let workflow = workflow();
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for node in nodes(&workflow) {
        let kind = (node["type"].as_str().unwrap(), node["typeVersion"].as_f64().unwrap());
        assert!(KNOWN.contains(&kind), "{kind:?}");
        assert!(names.insert(node["name"].as_str().unwrap()), "{node}");
        assert!(ids.insert(node["id"].as_str().unwrap()), "{node}");
        assert!(node["parameters"].is_object(), "{node}");
        let position = node["position"].as_array().unwrap();
        assert!(position.len() == 2 && position.iter().all(Value::is_i64), "{node}");
    }
    let mut reached: BTreeSet<&str> = ["Set up", "callhook"].into();
    for (from, outputs) in workflow["connections"].as_object().unwrap() {
        assert!(names.contains(from.as_str()), "{from}");
        let outputs = outputs["main"].as_array().unwrap();
        for to in outputs.iter().flat_map(|output| output.as_array().unwrap()) {
            assert_eq!((&to["type"], &to["index"]), (&json!("main"), &json!(0)));
            reached.insert(to["node"].as_str().unwrap());
        }
    }
    assert_eq!(reached, names);
    assert_eq!(workflow["connections"]["Went wrong?"]["main"].as_array().unwrap().len(), 2);
}

#[test]
fn what_n8n_gets_is_answered_for_by_its_secret_and_taken_once() {
    let workflow = workflow();
    let webhook = &node(&workflow, "webhook")["parameters"];
    assert_eq!(
        (&webhook["httpMethod"], &webhook["authentication"]),
        (&json!("POST"), &json!("headerAuth"))
    );
    // What comes again after an answer would be dropped as a duplicate.
    assert_eq!(webhook["responseMode"], "onReceived");
    let once = &node(&workflow, "removeDuplicates")["parameters"];
    assert_eq!(once["operation"], "removeItemsSeenInPreviousExecutions");
    assert_eq!(once["dedupeValue"], "={{ $json.headers['webhook-id'] }}");
    let path = format!("/webhook/{}\n", webhook["path"].as_str().unwrap());
    let setting = "RECEIVER_N8N_URL=http://n8n:5678";
    for text in [file("README.md"), file("config/receivers/n8n.md"), note(&workflow)] {
        assert!(text.contains(&format!("{setting}{path}")), "{setting}{path} in {text}");
    }
}

/// What the workflow says of itself.
fn note(workflow: &Value) -> String {
    node(workflow, "stickyNote")["parameters"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_workflow_asks_for_nothing_that_callhook_does_not_send_by_the_settings_in_n8n_md() {
    let (main, n8n) = (Receiver::content().await, Receiver::content().await);
    let settings = pointed_at(&file("config/receivers/n8n.md"), "RECEIVER_N8N_URL", &n8n.url);
    let service = serve_with(&main, &settings).await;
    call(&service).await;
    first(&main, "call_ended").await;
    let seen = n8n.seen(1).await;
    assert_eq!(seen[0].kind(), "call_ended", "the only type that it takes");
    assert_eq!(seen[0].header("x-avr-webhook-secret"), Some("change-me"));
    let (workflow, given) = (workflow(), handed_on(&seen[0]));
    let mut found = Vec::new();
    texts(&workflow["nodes"], &mut found);
    let expressions: Vec<&str> = found.into_iter().filter(|text| text.starts_with('=')).collect();
    assert_eq!(expressions.len(), 4, "{expressions:?}");
    for expression in expressions {
        for path in paths(expression) {
            let value = path.iter().fold(&given, |value, step| &value[step]);
            assert!(!value.is_null(), "{path:?} of {expression} in {given}");
        }
    }
    same_shape(&workflow["pinData"]["callhook"][0]["json"]["body"], &given["body"]);
}

#[test]
fn a_path_has_a_step_for_each_name() {
    let expression = "={{ $json.headers['webhook-id'] + ($json.body.payload.duration_ms / 2) }}";
    let expected = [vec!["headers", "webhook-id"], vec!["body", "payload", "duration_ms"]];
    assert_eq!(paths(expression), expected);
}
