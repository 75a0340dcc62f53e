//! The tests about order, outages, restarts, backlogs and dead letters once more, with three receivers instead of one:
//! the very modules of `tests/it`, through the seam `tests/support/copies.rs`. Nothing that they claim of the main
//! receiver may be otherwise for two copies beside it, one of which is never there.
//!
//! Left in `tests/it` alone, since their claims do not hold of copies: `burst` (its totals are over all receivers; where
//! `WEBHOOK_BREAKER` is 0 a copy that is not there has dead letters), `journal_full` (while the disk fails a copy gets
//! events from memory, and after a crash more than one again), `journal_file` (an old file is put back, and what is lost
//! without one is counted over all receivers), `dead_receivers`, `failure_log`, `metrics` and `inspector` (they count and list what is
//! there). What is about several receivers itself is in `copies`, `webhook::copies` and `settings::further`.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

#[allow(dead_code, reason = "tests/it uses all of it")]
mod support;

#[path = "it"]
mod it {
    #[allow(dead_code, reason = "burst uses all of it")]
    pub mod backlog;
    #[allow(dead_code, reason = "dead_receivers uses all of it")]
    pub mod dead;
    // For `webhook`.
    pub mod files;
    #[allow(dead_code, reason = "journal_file uses all of it")]
    pub mod journal;
    pub mod outage;
    pub mod webhook;
}

use it::files;
