//! The files around the metrics: README explains exactly those there are, and alerts and dashboard ask for
//! no other metric, label or value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::Watched;
use super::exposition::Exposition;

/// What an expression may name beside metrics.
const FUNCTIONS: [&str; 9] =
    ["absent", "and", "changes", "histogram_quantile", "increase", "max", "min", "rate", "sum"];

/// What is followed by a list of labels.
const GROUPINGS: [&str; 3] = ["by", "on", "group_left"];

/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "le"];

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn exposed() -> Exposition {
    Watched::start(&[("WEBHOOK_URL", "none")]).await.metrics().await
}

/// The rows of the tables in README's section on metrics, in their cells, by the first header.
fn tables() -> BTreeMap<String, Vec<Vec<String>>> {
    let readme = file("README.md");
    let (_, section) =
        readme.split_once("\n## Metrics\n").expect("README has a section on metrics");
    let section = section.split("\n## ").next().expect("a text has a first part");
    let mut tables: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let mut current = None;
    for line in section.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            current = None;
            continue;
        };
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        match &current {
            None => current = Some(cells[0].clone()),
            Some(_) if cells[0] == "---" => {}
            Some(table) => tables.entry(table.clone()).or_default().push(cells),
        }
    }
    tables
}

/// The words in back quotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[tokio::test]
async fn readme_explains_every_metric_and_no_other() {
    let exposed = exposed().await;
    let actual: BTreeMap<String, (String, Vec<&str>, String)> = exposed
        .families
        .iter()
        .map(|(name, family)| {
            let row = (family.kind.clone(), family.labels(), family.help.clone());
            (family.shown_name(name), row)
        })
        .collect();
    let tables = tables();
    let told: BTreeMap<String, (String, Vec<&str>, String)> = tables["metric"]
        .iter()
        .map(|row| {
            let [name, kind, labels, help] = &row[..] else { panic!("four cells in {row:?}") };
            let mut labels = quoted(labels);
            labels.sort_unstable();
            (quoted(name)[0].to_owned(), (kind.clone(), labels, help.replace('`', "")))
        })
        .collect();
    for (name, row) in &actual {
        assert_eq!(told.get(name), Some(row), "README on {name}");
    }
    let gone: Vec<&String> = told.keys().filter(|name| !actual.contains_key(*name)).collect();
    assert!(gone.is_empty(), "README explains what there is not: {gone:?}");
}

#[tokio::test]
async fn readme_lists_every_value_of_every_label_and_no_other() {
    let exposed = exposed().await;
    let mut actual = BTreeSet::new();
    for family in exposed.families.values() {
        for label in family.labels().into_iter().filter(|label| *label != "version") {
            let values: BTreeSet<&str> = family.values(label).into_iter().collect();
            actual.insert((label, values));
        }
    }
    let tables = tables();
    let told: BTreeSet<(&str, BTreeSet<&str>)> = tables["label"]
        .iter()
        .map(|row| (quoted(&row[0])[0], quoted(&row[2]).into_iter().collect()))
        .collect();
    assert_eq!(told, actual);
}

#[tokio::test]
async fn alerts_use_only_what_is_exposed_and_say_what_to_do() {
    let exposed = exposed().await;
    let rules: Value = serde_saphyr::from_str(&file("config/prometheus-alerts.yml")).unwrap();
    let mut names = BTreeSet::new();
    let groups = rules["groups"].as_array().unwrap();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        check(name, rule["expr"].as_str().unwrap(), &exposed);
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        for text in ["summary", "description"] {
            let text = rule["annotations"][text].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{name} says what is wrong and what to do: {text:?}");
        }
    }
    for needed in [
        "CallhookReceiverDown",
        "CallhookDeadLettersGrow",
        "CallhookQueueFills",
        "CallhookOldestEventWaits",
        "CallhookJournalFailing",
        "CallhookRoutingBroken",
        "CallhookPlayoutLate",
        "CallhookSpeechServerUnreachable",
    ] {
        assert!(names.contains(needed), "{needed} is missing");
    }
}

#[tokio::test]
async fn the_dashboard_shows_every_metric_and_uses_no_other() {
    let exposed = exposed().await;
    let dashboard: Value = serde_json::from_str(&file("config/grafana-dashboard.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource", "it asks which Prometheus to use");
    let names: Vec<&str> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "receiver"]);
    for variable in &variables[1..] {
        check_variable(variable, &exposed);
    }
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{} has its own id", panel["title"]);
        let repeat = panel.get("repeat").and_then(Value::as_str);
        assert!(repeat.is_none_or(|name| names.contains(&name)), "{}", panel["title"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            let expression = target["expr"].as_str().unwrap();
            shown.extend(check(panel["title"].as_str().unwrap(), expression, &exposed));
        }
    }
    let missing: Vec<&String> =
        exposed.families.keys().filter(|family| !shown.contains(*family)).collect();
    assert!(missing.is_empty(), "nobody sees {missing:?}");
}

/// Panics unless the variable of the dashboard takes the values of a label that its metric has.
fn check_variable(variable: &Value, exposed: &Exposition) {
    let (name, definition) = (&variable["name"], variable["definition"].as_str().unwrap());
    assert_eq!(variable["query"]["query"], definition, "{name}");
    let call = definition.strip_prefix("label_values(").and_then(|call| call.strip_suffix(')'));
    let (metric, label) = call.and_then(|call| call.rsplit_once(", ")).expect("two arguments");
    assert_eq!(name, label);
    let families = check(label, metric, exposed);
    let is_labelled = |family: &String| exposed.families[family].labels().contains(&label);
    assert!(ADDED.contains(&label) || families.iter().all(is_labelled), "{definition}");
}

/// Panics unless the expression uses only what is exposed; returns the families it uses.
fn check(place: &str, expression: &str, exposed: &Exposition) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    let mut family = None;
    for part in parts(expression) {
        match part {
            Part::Word(word) if FUNCTIONS.contains(&word) || ADDED.contains(&word) => {}
            Part::Word(word) => {
                let found = exposed
                    .families
                    .iter()
                    .find(|(_, family)| family.samples.iter().any(|sample| sample.name == word));
                let (name, found) =
                    found.unwrap_or_else(|| panic!("{place}: {word} is not exposed: {expression}"));
                families.insert(name.clone());
                family = Some(found);
            }
            Part::Label(label) => {
                let known = ADDED.contains(&label)
                    || exposed.families.values().any(|family| family.labels().contains(&label));
                assert!(known, "{place}: no metric has the label {label}: {expression}");
            }
            Part::Matcher(label, _) if ADDED.contains(&label) => {}
            Part::Matcher(label, values) => {
                let known = family.expect("a matcher follows a metric").values(label);
                assert!(!known.is_empty(), "{place}: no label {label} there: {expression}");
                // A variable of the dashboard takes its values from the label of its name.
                let is_known = |value| known.contains(&value) || value == format!("${label}");
                for value in values.split('|') {
                    assert!(is_known(value), "{place}: {label}={value} is not exposed");
                }
            }
        }
    }
    assert!(!families.is_empty(), "{place} uses no metric: {expression}");
    families
}

/// What an expression names.
#[derive(Debug)]
enum Part<'a> {
    /// A metric, a function or an operator.
    Word(&'a str),
    /// A label that is grouped by.
    Label(&'a str),
    /// A label, and the values it is compared with.
    Matcher(&'a str, &'a str),
}

/// Takes an expression apart; ranges and numbers are left out.
fn parts(expression: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() {
            let (word, after) = split_word(rest);
            rest = after;
            if GROUPINGS.contains(&word) {
                let (labels, after) = enclosed(rest.trim_start(), '(', ')');
                rest = after;
                parts.extend(
                    labels.split(',').map(str::trim).filter(|l| !l.is_empty()).map(Part::Label),
                );
            } else {
                parts.push(Part::Word(word));
            }
        } else if first == '{' {
            let (matchers, after) = enclosed(rest, '{', '}');
            rest = after;
            parts.extend(matchers.split(',').map(matcher));
        } else if first == '[' {
            rest = enclosed(rest, '[', ']').1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    parts
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    text.split_at(end.unwrap_or(text.len()))
}

fn enclosed(text: &str, open: char, close: char) -> (&str, &str) {
    let inner = text.strip_prefix(open).unwrap_or_else(|| panic!("{open} in front of {text}"));
    inner.split_once(close).unwrap_or_else(|| panic!("{close} in {text}"))
}

fn matcher(text: &str) -> Part<'_> {
    let (label, rest) = split_word(text.trim());
    let value = rest.trim_start_matches(['=', '!', '~']);
    Part::Matcher(label, value.trim_matches('"'))
}

#[test]
fn an_expression_is_taken_apart_to_the_last_name() {
    let expression = r#"sum by (le, type) (rate(a_total{x="1|2",y!="3"}[5m])) / 2.5 > on () b"#;
    let shown: Vec<String> = parts(expression).iter().map(|part| format!("{part:?}")).collect();
    let expected = [
        r#"Word("sum")"#,
        r#"Label("le")"#,
        r#"Label("type")"#,
        r#"Word("rate")"#,
        r#"Word("a_total")"#,
        r#"Matcher("x", "1|2")"#,
        r#"Matcher("y", "3")"#,
        r#"Word("b")"#,
    ];
    assert_eq!(shown, expected);
}
