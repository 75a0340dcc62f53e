//! The register of calls: which were announced, what `POST /call` said of them, and which are live.
//!
//! Owns which announcement is a repeat, and that a call is bridged once at a time. A cache: it
//! survives nothing; a call that is forgotten is routed again, or goes to `STS_URL`.
//!
//! Limits: an announcement is kept for [`KEPT`], since the caller may hang up before AudioSocket
//! follows; at most [`MOST`] are kept, with at most [`MOST_BYTES`] of payloads, the oldest forgotten
//! first. The other 250 bytes of each, and the receiver's STS URL, of at most 4 KiB, twice, come on top.
//! LiveCall calls are as many as AudioSocket takes connections.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{CallId, Payload};
use crate::expiring::Expiring;
use crate::queue::slot::Slot;
use crate::routing::{self, Route, StsUrl};

/// How long an announced call is remembered.
pub const KEPT: Duration = Duration::from_secs(10 * 60);

/// The most announced calls that are remembered.
pub const MOST: usize = 100_000;

/// The most bytes of payloads that are remembered: ten times what 100,000 dialplans usually send.
pub const MOST_BYTES: usize = 256 * 1024 * 1024;

/// All calls that are known of.
#[derive(Debug, Default)]
pub struct Calls {
    register: Mutex<Register>,
}

#[derive(Debug)]
struct Register {
    announced: Expiring<CallId, Announced>,
    /// Of the payloads in `announced`.
    bytes: usize,
    live: HashSet<CallId>,
}

#[derive(Debug)]
struct Announced {
    announcement: Announcement,
    /// Whether the queue took its event.
    taken: bool,
}

/// What `POST /call` said of a call, and where its decision is found.
#[derive(Clone, Debug)]
pub struct Announcement {
    payload: Payload,
    slot: Slot,
}

impl Announcement {
    /// Where the call goes, once that is decided: the very answer that `POST /call` gave.
    pub async fn route(&self, fallback: Option<&StsUrl>) -> Route {
        routing::route(self.slot.wait().await.as_deref(), fallback, &self.payload)
    }

    /// Where the call goes if the receiver's choice cannot be reached.
    pub fn without_decision(&self, fallback: Option<&StsUrl>) -> Route {
        routing::route(None, fallback, &self.payload)
    }
}

/// A call is being bridged already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this call is live on another connection")]
pub struct AlreadyLive;

/// A live call's place in the register; it ends with it.
#[derive(Debug)]
pub struct LiveCall {
    calls: Arc<Calls>,
    call: CallId,
}

impl Drop for LiveCall {
    fn drop(&mut self) {
        self.calls.lock().live.remove(&self.call);
    }
}

impl Calls {
    /// The slot of this announcement: that of the first one where it repeats it, else what `open`
    /// makes. Requests that arrive together cannot both open one.
    ///
    /// # Errors
    /// That of `open`; the call is remembered without a decision then, and its repeat is none.
    pub fn slot_of<E>(
        &self,
        call: CallId,
        payload: &Payload,
        now: Instant,
        open: impl FnOnce() -> Result<Slot, E>,
    ) -> Result<Slot, E> {
        let mut register = self.lock();
        let known = register.announced.get(&call, now).filter(|announced| announced.taken);
        let known = known.map(|announced| &announced.announcement);
        if let Some(known) = known.filter(|known| known.payload.as_str() == payload.as_str()) {
            return Ok(known.slot.clone());
        }
        let opened = open();
        let slot = opened.as_ref().map_or_else(|_| Slot::without_decision(), Slot::clone);
        let announcement = Announcement { payload: payload.clone(), slot };
        register.remember(call, Announced { announcement, taken: opened.is_ok() }, now);
        opened
    }

    /// Takes a call as live, until the guard goes; returns what was announced of it.
    ///
    /// # Errors
    /// [`AlreadyLive`].
    pub fn begin(
        self: &Arc<Self>,
        call: CallId,
        now: Instant,
    ) -> Result<(LiveCall, Option<Announcement>), AlreadyLive> {
        let mut register = self.lock();
        if !register.live.insert(call) {
            return Err(AlreadyLive);
        }
        let announced = register.announced.get(&call, now);
        let announcement = announced.map(|announced| announced.announcement.clone());
        Ok((LiveCall { calls: Arc::clone(self), call }, announcement))
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.register.lock().expect("nothing panics while it holds this lock")
    }
}

impl Default for Register {
    fn default() -> Self {
        Self { announced: Expiring::new(KEPT, MOST), bytes: 0, live: HashSet::new() }
    }
}

impl Register {
    fn remember(&mut self, call: CallId, announced: Announced, now: Instant) {
        if let Some(replaced) = self.announced.remove(&call) {
            self.bytes -= replaced.bytes();
        }
        while self.bytes + announced.bytes() > MOST_BYTES
            && let Some((_, oldest)) = self.announced.pop_oldest()
        {
            self.bytes -= oldest.bytes();
        }
        self.bytes += announced.bytes();
        let bytes = &mut self.bytes;
        self.announced.insert(call, announced, now, |_, ended| *bytes -= ended.bytes());
    }
}

impl Announced {
    fn bytes(&self) -> usize {
        self.announcement.payload.as_str().len()
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
        for _ in 0..MOST {
            assert!(opens(&calls, CallId::random(), "{}", now));
        }
        assert!(opens(&calls, first, "{}", now));
    }

    #[tokio::test]
    async fn the_oldest_payloads_are_forgotten_beyond_the_limit_of_bytes() {
        let calls = Calls::default();
        let now = Instant::now();
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(MOST_BYTES / 4));
        let (first, last) = (CallId::random(), CallId::random());
        assert!(opens(&calls, first, &payload, now));
        assert!(opens(&calls, CallId::random(), &payload, now));
        assert!(opens(&calls, last, &payload, now));
        assert!(!opens(&calls, first, &payload, now), "three are within the limit");
        assert!(opens(&calls, CallId::random(), &payload, now));
        assert!(opens(&calls, first, &payload, now), "it had to go for the fourth");
        assert!(!opens(&calls, last, &payload, now));
    }

    #[tokio::test]
    async fn a_call_is_live_once_and_again_after_its_end() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        let (live, announcement) = calls.begin(call, now).unwrap();
        assert!(announcement.is_none());
        assert_eq!(calls.begin(call, now).err(), Some(AlreadyLive));
        assert!(calls.begin(CallId::random(), now).is_ok());
        drop(live);
        assert!(calls.begin(call, now).is_ok());
    }

    #[tokio::test]
    async fn a_call_goes_where_its_announcement_was_answered_to_for_ten_minutes() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        assert!(opens(&calls, call, r#"{"from":"7"}"#, now));
        let fallback = "ws://sts".parse().ok();
        let (live, announcement) = calls.begin(call, now + KEPT).unwrap();
        let route = announcement.unwrap().route(fallback.as_ref()).await;
        assert_eq!(route.sts_url.as_deref(), Some("ws://sts/?from=7"));
        drop(live);
        let (_live, announcement) = calls.begin(call, now + KEPT + Duration::from_secs(1)).unwrap();
        assert!(announcement.is_none());
    }

    #[tokio::test]
    async fn an_announcement_that_fails_is_tried_again_and_goes_to_the_fallback() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        let payload = serde_json::from_str(r#"{"from":"7"}"#).unwrap();
        let payload = Payload::from_json(payload).unwrap();
        let refused = calls.slot_of(call, &payload, now, || Err("full"));
        assert_eq!(refused.err(), Some("full"));
        let (_live, announcement) = calls.begin(call, now).unwrap();
        let route = announcement.unwrap().route("ws://sts".parse().ok().as_ref()).await;
        assert_eq!(route.sts_url.as_deref(), Some("ws://sts/?from=7"));
        assert!(opens(&calls, call, r#"{"from":"7"}"#, now));
    }
}
