//! The document: its operations, its schemas, and whether something is as it says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use jsonschema::{Draft, options};
use serde_json::{Value, json};

use crate::support::service::Answer;

/// The methods that an operation may have.
const METHODS: [&str; 3] = ["get", "post", "delete"];

/// `config/openapi.yaml`, and which of its answers were seen.
pub struct Document {
    root: Value,
    seen: Mutex<BTreeSet<String>>,
}

impl Document {
    pub fn read() -> Document {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/openapi.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let root = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
        Document { root, seen: Mutex::default() }
    }

    /// What is at a place, `#/a/b`, in which `~1` is a slash.
    pub fn at(&self, place: &str) -> &Value {
        let pointer = place.strip_prefix('#').expect("a place in the document");
        let found = self.root.pointer(pointer);
        self.resolved(found.unwrap_or_else(|| panic!("{place} is not in the document")))
    }

    /// The thing itself, where it is a reference to one.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        value["$ref"].as_str().map_or(value, |place| self.at(place))
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.at("#/paths").as_object().unwrap().keys().map(String::as_str)
    }

    /// The methods of a path, in upper case.
    pub fn methods(&self, path: &str) -> Vec<String> {
        let item = &self.root["paths"][path];
        let methods = METHODS.iter().filter(|method| !item[**method].is_null());
        methods.map(|method| method.to_uppercase()).collect()
    }

    /// Every documented answer, as `METHOD path status`.
    pub fn answers(&self) -> BTreeSet<String> {
        let mut answers = BTreeSet::new();
        for path in self.paths() {
            for method in self.methods(path) {
                let operation = &self.root["paths"][path][method.to_lowercase()];
                for status in operation["responses"].as_object().unwrap().keys() {
                    answers.insert(format!("{method} {path} {status}"));
                }
            }
        }
        answers
    }

    /// The documented answers that were not checked yet.
    pub fn unseen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        self.answers().difference(&seen).cloned().collect()
    }

    /// Panics unless the answer is as documented.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let place = format!("{method} {path} {}", answer.status);
        let operation = &self.root["paths"][path][method.to_lowercase()];
        let response = self.resolved(&operation["responses"][answer.status.to_string()]);
        assert!(response.is_object(), "{place} is not documented: {answer:?}");
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.resolved(header);
            match answer.header(name) {
                Some(value) => self.check_text(&format!("{name} of {place}"), header, value),
                None => assert_ne!(header["required"], true, "{place} lacks {name}: {answer:?}"),
            }
        }
        let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap();
        let content = &response["content"][kind];
        assert!(content.is_object(), "{place} is not documented as {kind:?}");
        let body = match kind {
            "application/json" => answer.json(),
            _ => Value::String(answer.body.clone()),
        };
        self.validate_by(&place, &content["schema"], &body);
        self.seen.lock().unwrap().insert(place);
    }

    /// Panics unless the text of a header or a parameter is as its schema says.
    pub fn check_text(&self, place: &str, described: &Value, text: &str) {
        let schema = self.resolved(&described["schema"]);
        let value = match schema["type"].as_str() {
            Some("integer") => {
                json!(text.parse::<i64>().unwrap_or_else(|_| panic!("{place}: {text}")))
            }
            _ => json!(text),
        };
        self.validate_by(place, schema, &value);
    }

    /// Panics unless the value is as the schema at that place says.
    pub fn validate(&self, what: &str, place: &str, value: &Value) {
        self.validate_by(what, self.at(place), value);
    }

    pub fn validate_by(&self, what: &str, schema: &Value, value: &Value) {
        let faults = self.faults(schema, value);
        assert!(faults.is_empty(), "{what}: {faults:#?}\nin {value:#}");
    }

    /// What is wrong with the value.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        assert!(!schema.is_null(), "a schema is missing");
        // References are to the document's root.
        let schema = json!({"allOf": [schema], "components": self.root["components"]});
        let validator =
            options().with_draft(Draft::Draft202012).should_validate_formats(true).build(&schema);
        let validator = validator.unwrap_or_else(|error| panic!("{error} in {schema:#}"));
        let faults = validator.iter_errors(value);
        faults.map(|fault| format!("{fault} at {}", fault.instance_path())).collect()
    }

    /// Checks every example against its schema, and that every body has one; returns how many there are.
    pub fn check_examples(&self) -> usize {
        let mut checked = 0;
        self.walk("#", &self.root, &mut |place, value| {
            let in_content = place.contains("/content/") && !place.contains("/schema/");
            let examples = examples_of(value);
            if in_content && value["schema"].is_object() {
                assert!(!examples.is_empty(), "{place} has no example");
            }
            for example in examples {
                let schema = if value["schema"].is_object() { &value["schema"] } else { value };
                self.validate_by(&format!("the example at {place}"), schema, example);
                checked += 1;
            }
        });
        checked
    }

    /// Everything that is an object, but for what is inside of examples.
    fn walk(&self, place: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
        if let Some(reference) = value["$ref"].as_str() {
            assert!(self.at(reference).is_object(), "{reference} at {place}");
        }
        for (key, inner) in value.as_object().into_iter().flatten() {
            if inner.is_object() && !["example", "examples", "value"].contains(&key.as_str()) {
                let inner_place = format!("{place}/{}", key.replace('/', "~1"));
                visit(&inner_place, inner);
                self.walk(&inner_place, inner, visit);
            }
        }
        for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
            let inner_place = format!("{place}/{index}");
            visit(&inner_place, inner);
            self.walk(&inner_place, inner, visit);
        }
        for inner in value.as_object().into_iter().flat_map(|object| object.values()) {
            if inner.is_array() {
                self.walk(&format!("{place}[]"), inner, visit);
            }
        }
    }
}

/// The examples of a body, a parameter or a schema.
fn examples_of(value: &Value) -> Vec<&Value> {
    let one = value.get("example");
    let many = match &value["examples"] {
        Value::Object(named) => named.values().map(|example| &example["value"]).collect(),
        Value::Array(plain) => plain.iter().collect(),
        _ => Vec::new(),
    };
    one.into_iter().chain(many).collect()
}
