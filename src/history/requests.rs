//! Requests: what was asked about a call, by whom, and what was answered.
//!
//! Limit: the last [`MOST_REQUESTS`] of a call; a model that goes in circles asks for more.

use std::collections::VecDeque;

/// Per call: the last ones.
pub const MOST_REQUESTS: usize = 20;

/// Estimated size without the destination.
const REQUEST_BYTES: usize = 120;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it came, in Unix milliseconds.
    pub at: u64,
    /// Who asked.
    pub by: &'static str,
    pub asked: &'static str,
    /// Where the caller should go: `context,exten,priority`.
    pub next: Option<Box<str>>,
    pub answer: &'static str,
}

impl RequestRecord {
    fn bytes(&self) -> usize {
        REQUEST_BYTES + self.next.as_ref().map_or(0, |next| next.len())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Oldest first.
    pub kept: VecDeque<RequestRecord>,
    /// Requests that were forgotten.
    pub omitted: u32,
}

impl Requests {
    pub fn keep(&mut self, request: RequestRecord) {
        if self.kept.len() == MOST_REQUESTS {
            self.kept.pop_front();
            self.omitted += 1;
        }
        self.kept.push_back(request);
    }

    /// Estimated.
    pub fn bytes(&self) -> usize {
        self.kept.iter().map(RequestRecord::bytes).sum()
    }
}
