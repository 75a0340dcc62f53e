//! Reads an OpenMetrics text, and panics where it is none
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::collections::{BTreeMap, BTreeSet};

/// What is exposed, by the name of the family.
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
}

/// One metric, with all values of its labels.
#[derive(Debug, Default)]
pub struct Family {
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    /// With its suffix.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Exposition {
    pub fn read(text: &str) -> Exposition {
        let body = text.strip_suffix("# EOF\n").expect("the text ends with # EOF");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let [what, name, rest] = splitn(comment);
                if what == "HELP" {
                    assert!(!families.contains_key(name), "{name} is there twice");
                    name.clone_into(&mut current);
                }
                assert_eq!(name, current, "a family's lines stand together: {line}");
                let family = families.entry(name.to_owned()).or_default();
                match what {
                    "HELP" => rest.trim_end_matches('.').clone_into(&mut family.help),
                    "TYPE" => {
                        assert!(family.kind.is_empty(), "{name} has two types");
                        rest.clone_into(&mut family.kind);
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                    other => panic!("{other} in {line}"),
                }
            } else {
                let sample = Sample::read(line);
                let family = families.get_mut(&current).expect("a family begins with its help");
                let suffix = sample.name.strip_prefix(&current);
                let suffix = suffix.unwrap_or_else(|| panic!("{line} is not of {current}"));
                let allowed: &[&str] = match &*family.kind {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "info" => &["_info"],
                    other => panic!("{current} is a {other}"),
                };
                assert!(allowed.contains(&suffix), "{line} in a {}", family.kind);
                family.samples.push(sample);
            }
        }
        for family in families.values() {
            family.check_labels();
        }
        Exposition { families }
    }

    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.values().flat_map(|family| &family.samples)
    }

    /// The value of a sample, written as in the text but with its labels in any order.
    pub fn of(&self, sample: &str) -> f64 {
        let wanted = Sample::read(&format!("{sample} 0"));
        let is = |found: &&Sample| found.name == wanted.name && found.labels == wanted.labels;
        self.samples().find(is).unwrap_or_else(|| panic!("{sample} is not exposed")).value
    }

    /// All samples of a name, together.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// What is not 0, for a failure's text.
    pub fn nonzero(&self) -> String {
        let shown =
            |sample: &Sample| format!("{} {:?} {}", sample.name, sample.labels, sample.value);
        let samples: Vec<String> =
            self.samples().filter(|sample| sample.value != 0.0).map(shown).collect();
        samples.join("\n")
    }
}

impl Family {
    /// Panics unless each sample is there once, and all of one name have the same labels.
    fn check_labels(&self) {
        let mut seen = BTreeSet::new();
        let mut labels: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for Sample { name, labels: pairs, .. } in &self.samples {
            assert!(seen.insert((name, pairs)), "{name} {pairs:?} is there twice");
            let names: Vec<&String> = pairs.keys().collect();
            assert_eq!(labels.entry(name).or_insert_with(|| names.clone()), &names, "{name}");
        }
    }

    /// The names of its labels, without those of its kind.
    pub fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        for name in self.samples.iter().flat_map(|sample| sample.labels.keys()) {
            if name != "le" && !labels.contains(&name.as_str()) {
                labels.push(name);
            }
        }
        labels
    }

    /// The values of a label.
    pub fn values(&self, label: &str) -> Vec<&str> {
        let mut values: Vec<&str> = Vec::new();
        for value in self.samples.iter().filter_map(|sample| sample.labels.get(label)) {
            if !values.contains(&value.as_str()) {
                values.push(value);
            }
        }
        values
    }

    /// The name as it is written in expressions: that of a counter or an info has its suffix.
    pub fn shown_name(&self, name: &str) -> String {
        match &*self.kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        }
    }
}

impl Sample {
    /// `name{label="value",…} 1.5`; values hold neither quotes nor spaces here.
    fn read(line: &str) -> Sample {
        let (place, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a value in {line}"));
        let (name, labels) = match place.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
            None => (place, ""),
        };
        let pairs = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let (label, value) = pair.split_once('=').expect("a label has a value");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (label.to_owned(), value.expect("a value in quotes").to_owned())
        });
        let value = value.parse().unwrap_or_else(|_| panic!("a number in {line}"));
        Sample { name: name.to_owned(), labels: pairs.collect(), value }
    }
}

fn splitn(comment: &str) -> [&str; 3] {
    let parts: Vec<&str> = comment.splitn(3, ' ').collect();
    parts.try_into().unwrap_or_else(|_| panic!("three parts in {comment}"))
}
