//! Repeats without a key: AVR Core sends a body again, byte for byte, where the answer takes longer than it waits.
//!
//! Owns which body is such a repeat, and so one event. No two events of a call have the same time to the millisecond,
//! type and payload, but a body that says so little else, or no time at all, may well be sent twice and mean it: those
//! are never repeats.
//!
//! Limits: a body is known for [`KEPT`], as a digest; of all, at most [`MOST`] events are, since an array's receipt is as long
//! as the array, and the oldest are forgotten first.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::expiring::Expiring;
use crate::queue::{Receipt, Refused};

/// AVR Core waits for 3 s unless told otherwise, and tries again at once.
pub const KEPT: Duration = Duration::from_secs(60);

/// Of some 200 bytes each. At ten thousand a second, far beyond what AVR Cores send, repeats are known for 10 s.
pub const MOST: usize = 100_000;

type BodyDigest = [u8; 32];

pub struct Repeats(Mutex<Taken>);

struct Taken {
    bodies: Expiring<BodyDigest, Receipt>,
    events: usize,
}

impl Default for Repeats {
    fn default() -> Self {
        Self(Mutex::new(Taken { bodies: Expiring::new(KEPT, MOST), events: 0 }))
    }
}

impl Repeats {
    /// The receipt for this body, if it was taken lately or is being taken, else what `take` gives. `take` runs under the
    /// lock, so that of simultaneous requests one takes the events.
    ///
    /// # Errors
    /// Those of `take`, which are not remembered.
    pub fn receipt_of(
        &self,
        body: &[u8],
        now: Instant,
        take: impl FnOnce() -> Result<Receipt, Refused>,
    ) -> Result<Receipt, Refused> {
        let digest = Sha256::digest(body).into();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(again) = taken.bodies.get(&digest, now).and_then(Receipt::again) {
            return Ok(again);
        }
        let receipt = take()?;
        taken.remember(digest, receipt.clone(), now);
        Ok(receipt)
    }
}

impl Taken {
    fn remember(&mut self, digest: BodyDigest, receipt: Receipt, now: Instant) {
        if let Some(replaced) = self.bodies.remove(&digest) {
            self.events -= replaced.events();
        }
        while self.events + receipt.events() > MOST
            && let Some((_, oldest)) = self.bodies.pop_oldest()
        {
            self.events -= oldest.events();
        }
        self.events += receipt.events();
        let events = &mut self.events;
        self.bodies.insert(digest, receipt, now, |_, expired| *events -= expired.events());
    }
}
