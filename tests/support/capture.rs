//! A recording of a real Asterisk, from `captures/`: what it sent and when.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::asterisk;

pub struct Capture {
    /// What was read, and how long after the connection came in.
    pub reads: Vec<(Duration, Vec<u8>)>,
    /// When the connection ended.
    pub end: Duration,
    /// The body of the `POST /call` before it.
    pub announcement: String,
}

impl Capture {
    pub fn load(name: &str) -> Capture {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name);
        let text = std::fs::read_to_string(file.with_extension("jsonl")).expect("a recording");
        let (mut reads, mut end) = (Vec::new(), Duration::ZERO);
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            end = Duration::from_secs_f64(line["dt"].as_f64().expect("a time"));
            if line["ev"] == "read" {
                let bytes = line["b64"].as_str().expect("base64 is text");
                reads.push((end, STANDARD.decode(bytes).expect("base64")));
            }
        }
        let request = std::fs::read_to_string(file.with_extension("http")).expect("a request");
        let (_, body) = request.split_once("\r\n\r\n").expect("a head and a body");
        Capture { reads, end, announcement: body.to_owned() }
    }

    pub fn uuid(&self) -> String {
        let body: Value = serde_json::from_str(&self.announcement).expect("a body of JSON");
        body["uuid"].as_str().expect("a uuid is text").to_owned()
    }

    /// The frames that were sent, as kind and payload.
    pub fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        let mut bytes: Vec<u8> = self.reads.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let mut frames = Vec::new();
        while let Some(frame) = asterisk::take_frame(&mut bytes) {
            frames.push(frame);
        }
        assert!(bytes.is_empty(), "a recording ends with a whole frame");
        frames
    }

    /// The payloads of its audio, one after the other.
    pub fn audio(&self) -> Vec<u8> {
        let audio = self.frames().into_iter().filter(|(kind, _)| *kind == asterisk::AUDIO);
        audio.flat_map(|(_, payload)| payload).collect()
    }
}
