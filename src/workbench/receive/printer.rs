//! Printer: lines to the standard output, as fast as it takes them.
//!
//! What is there is written in one go, up to [`BATCH`] notices; a terminal that is held up holds up
//! nothing but the printing, and signals are still heard.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncWriteExt as _, Stdout, stdout};
use tokio::sync::mpsc;

use super::line;
use super::server::Notice;

/// The most notices that are written in one go.
const BATCH: usize = 256;

pub struct Printer {
    out: Stdout,
    json: bool,
    /// What is not written yet, also after a write that was cancelled.
    pending: Vec<u8>,
}

impl Printer {
    pub fn new(json: bool) -> Self {
        Self { out: stdout(), json, pending: Vec::new() }
    }

    /// Adds a text, or a JSON object whose field `line` is its name.
    pub fn put(&mut self, name: &str, text: &str, object: &impl Serialize) {
        let line = if self.json {
            let mut value = serde_json::json!({ "line": name });
            let object = serde_json::to_value(object).expect("what is printed serialises");
            let fields = value.as_object_mut().expect("the macro made an object of it");
            fields.extend(object.as_object().cloned().unwrap_or_default());
            line::escaped(&value)
        } else {
            text.trim_end().to_owned()
        };
        self.push(&line);
    }

    /// Writes notices as they come, until there are no more.
    ///
    /// # Errors
    /// Where the output cannot be written to.
    pub async fn follow(&mut self, notices: &mut mpsc::Receiver<Notice>) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.flush().await?;
            if notices.recv_many(&mut batch, BATCH).await == 0 {
                return Ok(());
            }
            batch.drain(..).for_each(|notice| self.add(&notice));
        }
    }

    /// Adds the notices that are there already.
    pub fn catch_up(&mut self, notices: &mut mpsc::Receiver<Notice>) {
        while let Ok(notice) = notices.try_recv() {
            self.add(&notice);
        }
    }

    /// # Errors
    /// Where the output cannot be written to.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let written = self.out.write(&self.pending).await?;
            self.pending.drain(..written);
        }
        self.out.flush().await
    }

    fn add(&mut self, notice: &Notice) {
        let line = if self.json { line::json(notice) } else { line::text(notice) };
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }
}
