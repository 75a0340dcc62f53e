//! The register of announced calls: what `POST /call` said, and where its answer is found.
//!
//! Owns which announcement is a repeat. A cache: it survives nothing, and a call that is forgotten
//! is simply routed again.
//!
//! Limits: an announcement is kept for [`KEPT`], since the caller may hang up before AudioSocket
//! follows; at most [`MOST`] are kept, the oldest forgotten first: 250 bytes each, and the
//!   receiver's STS URL, of at most 4 KiB, twice.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{CallId, Payload};
use crate::queue::slot::Slot;

/// How long an announced call is remembered.
pub const KEPT: Duration = Duration::from_secs(10 * 60);

/// The most announced calls that are remembered.
pub const MOST: usize = 100_000;

/// All announced calls.
#[derive(Debug, Default)]
pub struct Calls {
    register: Mutex<Register>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Register {
    calls: HashMap<CallId, Announced>,
    order: VecDeque<(Instant, CallId)>,
}

#[derive(Debug)]
struct Announced {
    since: Instant,
    payload: u64,
    slot: Slot,
}

impl Calls {
    /// The slot of this announcement: that of the first one where it repeats it, else what `open`
    /// makes. Requests that arrive together cannot both open one.
    ///
    /// # Errors
    /// That of `open`; nothing is remembered then.
    pub fn slot_of<E>(
        &self,
        call: CallId,
        payload: &Payload,
        now: Instant,
        open: impl FnOnce() -> Result<Slot, E>,
    ) -> Result<Slot, E> {
        // The payload itself may be long; its digest tells as well whether it is the same.
        let digest = self.hasher.hash_one(payload.as_str());
        let mut register = self.register.lock().expect("nothing panics while it holds this lock");
        register.forget(now);
        let known = register.calls.get(&call);
        if let Some(known) = known.filter(|known| known.payload == digest) {
            return Ok(known.slot.clone());
        }
        let slot = open()?;
        register.remember(call, digest, slot.clone(), now);
        Ok(slot)
    }
}

impl Register {
    fn remember(&mut self, call: CallId, payload: u64, slot: Slot, since: Instant) {
        self.order.push_back((since, call));
        self.calls.insert(call, Announced { since, payload, slot });
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, call)) = self.order.front().copied() {
            if self.order.len() < MOST && now.duration_since(since) <= KEPT {
                return;
            }
            self.order.pop_front();
            // A call that was announced anew since then has a later entry.
            if self.calls.get(&call).is_some_and(|announced| announced.since == since) {
                self.calls.remove(&call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Whether the announcement opened a new slot.
    fn opens(calls: &Calls, call: CallId, payload: &str, now: Instant) -> bool {
        let payload = Payload::from_json(serde_json::from_str(payload).unwrap()).unwrap();
        let mut opened = false;
        let slot = calls.slot_of(call, &payload, now, || {
            opened = true;
            Ok::<_, Infallible>(Slot::without_decision())
        });
        assert!(slot.is_ok());
        opened
    }

    #[tokio::test]
    async fn the_same_call_and_payload_within_ten_minutes_is_a_repeat() {
        let calls = Calls::default();
        let (call, other) = (CallId::random(), CallId::random());
        let now = Instant::now();
        assert!(opens(&calls, call, r#"{"a":1}"#, now));
        assert!(!opens(&calls, call, r#"{"a":1}"#, now + KEPT));
        assert!(opens(&calls, other, r#"{"a":1}"#, now));
        assert!(opens(&calls, call, r#"{"a":2}"#, now));
        assert!(opens(&calls, call, r#"{"a":2}"#, now + KEPT + Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn the_oldest_calls_are_forgotten_beyond_the_limit() {
        let calls = Calls::default();
        let (first, now) = (CallId::random(), Instant::now());
        assert!(opens(&calls, first, "{}", now));
        for _ in 1..MOST {
            assert!(opens(&calls, CallId::random(), "{}", now));
        }
        assert!(opens(&calls, first, "{}", now));
    }

    #[tokio::test]
    async fn an_announcement_that_fails_is_not_remembered() {
        let calls = Calls::default();
        let (call, now) = (CallId::random(), Instant::now());
        let refused = calls.slot_of(call, &Payload::empty(), now, || Err("full"));
        assert_eq!(refused.err(), Some("full"));
        assert!(opens(&calls, call, "{}", now));
    }
}
