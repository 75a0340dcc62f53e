//! Breaker: is it of use to ask the receiver where a call goes?

/// Opens after `limit` consecutive `call_initiated` failed, or were answered later than a caller waits, so that
/// callers do not wait for a decision. One that is answered in time closes it.
#[derive(Debug)]
pub struct RoutingBreaker {
    limit: u32,
    failed: u32,
}

impl RoutingBreaker {
    /// `limit` 0 = never open.
    pub fn new(limit: u32) -> Self {
        Self { limit, failed: 0 }
    }

    /// What failed so far says nothing of the receiver any more.
    pub fn forget(&mut self) {
        self.failed = 0;
    }

    pub fn is_open(&self) -> bool {
        self.limit > 0 && self.failed >= self.limit
    }

    /// A `call_initiated` was answered in time. Returns whether this closed the breaker.
    pub fn note_success(&mut self) -> bool {
        let was_open = self.is_open();
        self.failed = 0;
        was_open
    }

    /// A `call_initiated` failed for the first time, or was answered too late; its retries do not count. Returns whether this opened the
    /// breaker.
    pub fn note_failure(&mut self) -> bool {
        let was_open = self.is_open();
        self.failed = self.failed.saturating_add(1);
        self.is_open() && !was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_breaker_opens_after_errors_in_a_row_and_closes_with_one_success() {
        let mut routing = RoutingBreaker::new(2);
        routing.note_failure();
        routing.note_success();
        routing.note_failure();
        assert!(!routing.is_open());
        routing.note_failure();
        assert!(routing.is_open());
        routing.note_success();
        assert!(!routing.is_open());
    }
}
