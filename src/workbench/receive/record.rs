//! Recorder: keeps the calls that were received, as a scenario that `callhook simulate` plays.
//!
//! Each call becomes a script with its events in the order of their arrival, their payloads byte for
//! byte, and the times between them: by their timestamps, as a fault on order delays what arrives,
//! and by their arrival where a timestamp is missing or goes back. A repeat is not recorded again.
//!
//! Limits: those of a scenario ([`MAX_FILE`], [`MAX_SCRIPTS`], [`MAX_EVENTS`], [`MAX_JSON`]). What is
//! beyond is left out, and counted. The file is written at the end, from memory.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::Received;
use super::report::Recorded;
use crate::event::Payload;
use crate::text::printable;
use crate::workbench::scenario::script::{MAX_EVENTS, MAX_JSON};
use crate::workbench::scenario::{MAX_FILE, MAX_SCRIPTS, Planned, record};

/// What an event takes besides its payload, in memory and in the file, in bytes, about.
const AROUND: usize = 128;

#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
    /// The file was not there before, and has nothing in it yet.
    is_new: bool,
    calls: HashMap<u64, RecordedCall>,
    /// Bytes kept, in memory and so in the file, about.
    size: usize,
    left_out: u64,
}

#[derive(Debug)]
struct RecordedCall {
    /// 0, 1, …
    number: usize,
    uuid: String,
    events: Vec<Planned>,
    /// When the last event happened, and when it arrived.
    last: (Option<DateTime<Utc>>, DateTime<Utc>),
}

/// The body again, with the payload's very text.
#[derive(Deserialize)]
struct PayloadText {
    payload: Option<Box<RawValue>>,
}

impl Recorder {
    /// Opens the file, which stays as it is until there is something to write.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            is_new,
            calls: HashMap::new(),
            size: 0,
            left_out: 0,
        })
    }

    /// Keeps a new event, or counts it as left out.
    pub fn take(&mut self, call: u64, received: &Received) {
        if self.keep(call, received).is_none() {
            self.left_out += 1;
        }
    }

    /// `None` where a scenario cannot hold the event.
    fn keep(&mut self, call: u64, received: &Received) -> Option<()> {
        let kind = received.event.kind.parse().ok()?;
        let body: PayloadText = serde_json::from_slice(&received.body).ok()?;
        let payload = match body.payload {
            Some(payload) => Payload::from_json(payload).ok()?,
            None => Payload::empty(),
        };
        let length = payload.as_str().len();
        let size = self.size + length + AROUND;
        if length > MAX_JSON || size > MAX_FILE {
            return None;
        }
        let call = self.call(call, received)?;
        let at = call.at(received);
        if call.events.len() == MAX_EVENTS {
            return None;
        }
        call.events.push(Planned { at, kind, payload });
        self.size = size;
        Some(())
    }

    fn call(&mut self, call: u64, received: &Received) -> Option<&mut RecordedCall> {
        let number = self.calls.len();
        if number == MAX_SCRIPTS && !self.calls.contains_key(&call) {
            return None;
        }
        Some(self.calls.entry(call).or_insert_with(|| {
            let last = (happened(received), received.time);
            RecordedCall { number, uuid: printable(&received.event.uuid), events: Vec::new(), last }
        }))
    }

    /// Writes the file. Where nothing was recorded, it is left as it was.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self) -> io::Result<Recorded> {
        let (mut calls, mut events) = (0, 0);
        let mut text = head(self.calls.len());
        let mut recorded: Vec<&RecordedCall> = self.calls.values().collect();
        recorded.sort_by_key(|call| call.number);
        for call in recorded {
            let count = call.events.len() as u64;
            match record::script(&call.uuid, &call.events) {
                Some(script) if text.len() + 1 + script.len() <= MAX_FILE => {
                    text.push('\n');
                    text.push_str(&script);
                    (calls, events) = (calls + 1, events + count);
                }
                Some(_) | None => self.left_out += count,
            }
        }
        if calls > 0 {
            self.is_new = false;
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
        } else {
            self.leave()?;
        }
        let file = printable(&self.path.display().to_string());
        Ok(Recorded { file, calls, events, left_out: self.left_out })
    }

    /// Leaves nothing behind that was not there.
    fn leave(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_new) { remove_file(&self.path) } else { Ok(()) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // An empty file does no harm.
        self.leave().ok();
    }
}

impl RecordedCall {
    /// When an event happened, from the beginning of the call.
    fn at(&mut self, received: &Received) -> Duration {
        let now = (happened(received), received.time);
        let last = std::mem::replace(&mut self.last, now);
        let told = now.0.zip(last.0).and_then(|(now, last)| (now - last).to_std().ok());
        let passed = told.or_else(|| (now.1 - last.1).to_std().ok()).unwrap_or_default();
        self.events.last().map_or(Duration::ZERO, |event| event.at + passed)
    }
}

fn happened(received: &Received) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(&received.event.timestamp).ok()?;
    Some(time.to_utc())
}

fn head(calls: usize) -> String {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    format!(
        "# Recorded by callhook receive. Each call is a script, played as often as any other:\n\
         #     callhook simulate URL --scenario FILE --calls N\n\
         description = 'Calls received until {now}: {calls}'\n"
    )
}
