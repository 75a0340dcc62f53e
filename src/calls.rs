//! The register of calls: which ones `POST /call` announced and how they were routed, which are live, and how
//! those that ended did.
//!
//! Owns whether an announcement is a repeat, and that a call is bridged only once at a time. A cache: only the
//! ends survive, in the journal; a call that is forgotten is routed again, or goes to `STS_URL`.
//!
//! Limits: an announcement is kept for [`KEPT`], since AudioSocket may never follow; at most [`MOST`] are
//! kept, with at most [`MOST_BYTES`] of payloads, and the oldest are forgotten first. On top of its payload
//! each takes some 250 bytes and twice the receiver's STS URL, of at most 4 KiB. Live calls are limited by
//! AudioSocket's connections. Ends are kept for [`ENDED_KEPT`], and at most [`MOST`] of them; those of refused
//! calls apart, so that whoever dials again and again pushes out no others.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::event::{CallId, Payload};
use crate::expiring::Expiring;
use crate::journal::{ENDED_KEPT, EndedCall};
use crate::queue::slot::Slot;
use crate::routing::{self, Route, StsUrl};

pub const KEPT: Duration = Duration::from_secs(10 * 60);

/// How long a stop waits for calls that were announced before: Asterisk dials within a second.
pub const AWAITED: Duration = Duration::from_secs(10);

/// Of announced calls, and of ended ones.
pub const MOST: usize = 100_000;

/// Ten times the payloads that [`MOST`] calls usually have.
pub const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Of refused calls.
pub const MOST_REFUSED: usize = 10_000;

/// How long a call that is about to end is waited for.
const ENDING_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Calls {
    register: Mutex<Register>,
    /// A call ended.
    ended: Notify,
    /// A call is not live any more, for a stop that waits for it.
    changed: Notify,
}

/// What is known of a call, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Announced,
    Live,
    /// It is over, or was refused.
    Ended(EndedCall),
}

#[derive(Debug)]
struct Register {
    announced: Expiring<CallId, Announcement>,
    /// Of the payloads in `announced`.
    bytes: usize,
    live: HashMap<CallId, LiveState>,
    ended: Expiring<CallId, EndedCall>,
    refused: Expiring<CallId, EndedCall>,
    /// Those in `announced` that did not begin yet.
    awaited: HashSet<CallId>,
    /// When the stop began.
    stopping: Option<Instant>,
    /// Whether a call was live since then.
    had_calls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LiveState {
    GoingOn,
    /// It will be over soon.
    Ending,
}

/// What `POST /call` said of a call, and the slot of its decision.
#[derive(Clone, Debug)]
pub struct Announcement {
    payload: Payload,
    slot: Slot,
    /// Whether the queue accepted its event; if not, the same announcement is not a repeat.
    accepted: bool,
}

impl Announcement {
    /// The same answer that `POST /call` gave; waits until it is decided.
    pub async fn route(&self, fallback: Option<&StsUrl>) -> Route {
        routing::route(self.slot.wait().await.as_deref(), fallback, &self.payload)
    }

    /// For when the server that the receiver chose cannot be reached.
    pub fn without_decision(&self, fallback: Option<&StsUrl>) -> Route {
        routing::route(None, fallback, &self.payload)
    }

    fn bytes(&self) -> usize {
        self.payload.as_str().len()
    }
}

/// Why a call cannot begin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotBegin {
    #[error("this call is live on another connection")]
    AlreadyLive,
    #[error("callhook is stopping")]
    Stopping,
}

/// Keeps a call live until it is dropped.
#[derive(Debug)]
pub struct LiveGuard {
    calls: Arc<Calls>,
    call: CallId,
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.calls.lock().live.remove(&self.call);
        self.calls.changed.notify_waiters();
    }
}

impl Calls {
    /// The slot of the earlier announcement that this one repeats, else the one that `open` makes. `open` runs
    /// under the lock, so simultaneous requests cannot both open a slot. It says too whether the queue took the event:
    /// if not, the call is remembered all the same, but the next announcement is not taken for a repeat.
    ///
    /// # Errors
    /// Those of `open`; then nothing is remembered.
    pub fn slot_of<E>(
        &self,
        call: CallId,
        payload: &Payload,
        now: Instant,
        open: impl FnOnce() -> Result<(Slot, bool), E>,
    ) -> Result<Slot, E> {
        let mut register = self.lock();
        let known = register.announced.get(&call, now).filter(|known| known.accepted);
        if let Some(known) = known.filter(|known| known.payload.as_str() == payload.as_str()) {
            return Ok(known.slot.clone());
        }
        let (slot, accepted) = open()?;
        let announcement = Announcement { payload: payload.clone(), slot: slot.clone(), accepted };
        register.remember(call, announcement, now);
        Ok(slot)
    }

    /// From now on, calls that were announced before are taken for [`AWAITED`], and no others.
    pub fn stop(&self, now: Instant) {
        let mut register = self.lock();
        register.stopping = Some(now);
        register.had_calls = !register.live.is_empty();
    }

    pub fn is_stopping(&self) -> bool {
        self.lock().stopping.is_some()
    }

    /// Whether a stop found a call live, or took one.
    pub fn had_calls(&self) -> bool {
        self.lock().had_calls
    }

    /// Whether the announcement comes too late: a stop has begun, and it repeats none.
    pub fn refuses(&self, call: CallId, payload: &Payload, now: Instant) -> bool {
        let register = self.lock();
        let is_repeat = || {
            let known = register.announced.get(&call, now);
            known.is_some_and(|known| known.payload.as_str() == payload.as_str())
        };
        register.stopping.is_some() && !is_repeat()
    }

    /// Waits, once a stop has begun, until no call is live or awaited, or until the deadline.
    pub async fn over(&self, deadline: Instant) {
        while Instant::now() < deadline {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let look_at = {
                let register = self.lock();
                let awaited = register.awaited_until();
                match (awaited, register.live.is_empty()) {
                    (None, true) => return,
                    (None, false) => deadline,
                    (Some(until), _) => until.min(deadline),
                }
            };
            // Time that runs out is looked at, too.
            timeout_at(look_at, changed).await.ok();
        }
    }

    /// Marks a call as live until the guard is dropped; returns its announcement, if there was one.
    ///
    /// # Errors
    /// If the call is live already, or comes too late for a stop.
    pub fn begin(
        self: &Arc<Self>,
        call: CallId,
        now: Instant,
    ) -> Result<(LiveGuard, Option<Announcement>), CannotBegin> {
        let mut register = self.lock();
        let too_late = register.stopping.is_some()
            && (register.awaited_until().is_none() || !register.awaited.contains(&call));
        if too_late {
            return Err(CannotBegin::Stopping);
        }
        if register.live.contains_key(&call) {
            return Err(CannotBegin::AlreadyLive);
        }
        register.live.insert(call, LiveState::GoingOn);
        // Those of a connection before.
        register.ended.remove(&call);
        register.refused.remove(&call);
        register.awaited.remove(&call);
        register.had_calls = true;
        let announcement = register.announced.get(&call, now).cloned();
        Ok((LiveGuard { calls: Arc::clone(self), call }, announcement))
    }

    /// The live call will be over soon.
    pub fn is_ending(&self, call: CallId) {
        if let Some(state) = self.lock().live.get_mut(&call) {
            *state = LiveState::Ending;
        }
    }

    /// The call ended, at this time.
    pub fn has_ended(&self, call: EndedCall, at: Instant) {
        self.lock().ended.insert(call.call, call, at, |_, _| {});
        self.ended.notify_waiters();
    }

    /// The call is not taken; that changes nothing of one that is live under this id.
    pub fn refuse(&self, call: EndedCall, at: Instant) {
        let mut register = self.lock();
        if !register.live.contains_key(&call.call) {
            register.refused.insert(call.call, call, at, |_, _| {});
        }
    }

    /// What is known of a call; nothing of one that nobody announced, and that ended long ago or never was.
    pub fn standing(&self, call: CallId, now: Instant) -> Option<Standing> {
        self.lock().standing(call, now).map(|(standing, _)| standing)
    }

    /// What is known of a call; where it is about to end, after its end, or a second at most.
    pub async fn settled_standing(&self, call: CallId) -> Option<Standing> {
        let settles = async {
            loop {
                let ended = self.ended.notified();
                match self.lock().standing(call, Instant::now()) {
                    Some((_, Some(LiveState::Ending))) => {}
                    known => return known.map(|(standing, _)| standing),
                }
                ended.await;
            }
        };
        let settled = timeout(ENDING_TIME, settles).await;
        settled.unwrap_or_else(|_| self.standing(call, Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.register.lock().expect("nothing panics while it holds this lock")
    }
}

impl Default for Register {
    fn default() -> Self {
        Self {
            announced: Expiring::with_room(KEPT, MOST),
            bytes: 0,
            live: HashMap::new(),
            ended: Expiring::new(ENDED_KEPT, MOST),
            refused: Expiring::new(ENDED_KEPT, MOST_REFUSED),
            awaited: HashSet::with_capacity(MOST),
            stopping: None,
            had_calls: false,
        }
    }
}

impl Register {
    /// Until when a stop waits for calls that were announced; `None` where there are none.
    fn awaited_until(&self) -> Option<Instant> {
        let until = self.stopping? + AWAITED;
        (!self.awaited.is_empty() && Instant::now() < until).then_some(until)
    }

    /// The end first: a call has one from its last frame on, and is live until its last event.
    fn standing(&self, call: CallId, now: Instant) -> Option<(Standing, Option<LiveState>)> {
        let ended = self.ended.get(&call, now).or_else(|| self.refused.get(&call, now));
        if let Some(ended) = ended {
            return Some((Standing::Ended(ended.clone()), None));
        }
        if let Some(state) = self.live.get(&call) {
            return Some((Standing::Live, Some(*state)));
        }
        self.announced.get(&call, now).map(|_| (Standing::Announced, None))
    }

    fn remember(&mut self, call: CallId, announced: Announcement, now: Instant) {
        if let Some(replaced) = self.announced.remove(&call) {
            self.bytes -= replaced.bytes();
        }
        while self.bytes + announced.bytes() > MOST_BYTES
            && let Some((call, oldest)) = self.announced.pop_oldest()
        {
            self.bytes -= oldest.bytes();
            self.awaited.remove(&call);
        }
        self.bytes += announced.bytes();
        let (bytes, awaited) = (&mut self.bytes, &mut self.awaited);
        if !self.live.contains_key(&call) {
            awaited.insert(call);
        }
        self.announced.insert(call, announced, now, |call, expired| {
            *bytes -= expired.bytes();
            awaited.remove(&call);
        });
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
            Ok::<_, Infallible>((Slot::without_decision(), true))
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
        assert_eq!(calls.begin(call, now).err(), Some(CannotBegin::AlreadyLive));
        assert!(calls.begin(CallId::random(), now).is_ok());
        drop(live);
        assert!(calls.begin(call, now).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_takes_what_was_announced_for_ten_seconds_and_waits_for_what_is_live() {
        let calls = Arc::new(Calls::default());
        let [live, announced, never, new] = [(); 4].map(|()| CallId::random());
        let begun = Instant::now();
        let (guard, _) = calls.begin(live, begun).unwrap();
        assert!(opens(&calls, announced, "{}", begun));
        assert!(opens(&calls, never, "{}", begun));
        calls.stop(begun);
        assert!(calls.refuses(new, &Payload::empty(), begun));
        assert!(!calls.refuses(announced, &Payload::empty(), begun), "a repeat is answered");
        assert_eq!(calls.begin(new, begun).err(), Some(CannotBegin::Stopping));
        let (second, announcement) = calls.begin(announced, begun).unwrap();
        assert!(announcement.is_some());
        drop((guard, second));
        assert_eq!(calls.begin(announced, begun).err(), Some(CannotBegin::Stopping));
        calls.over(begun + KEPT).await;
        assert_eq!(begun.elapsed().as_secs(), AWAITED.as_secs(), "one call never came");
        assert_eq!(calls.begin(never, begun).err(), Some(CannotBegin::Stopping));
        assert!(calls.had_calls());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_over_with_the_last_call_or_at_its_deadline() {
        let calls = Arc::new(Calls::default());
        let begun = Instant::now();
        let (guard, _) = calls.begin(CallId::random(), begun).unwrap();
        calls.stop(begun);
        let deadline = begun + Duration::from_secs(60);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(guard);
        };
        tokio::join!(calls.over(deadline), ends);
        assert_eq!(begun.elapsed().as_secs(), 20);
        let calls = Arc::new(Calls::default());
        let (_guard, _) = calls.begin(CallId::random(), begun).unwrap();
        calls.stop(begun);
        calls.over(deadline).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
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

    fn end_of(call: CallId, reason: &'static str) -> EndedCall {
        EndedCall { call, reason: reason.into(), duration_ms: 7, at: 1 }
    }

    #[tokio::test]
    async fn a_call_is_announced_then_live_then_ended_and_forgotten_after_ten_minutes() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        assert_eq!(calls.standing(call, now), None);
        opens(&calls, call, "{}", now);
        assert_eq!(calls.standing(call, now), Some(Standing::Announced));
        let (live, _) = calls.begin(call, now).unwrap();
        assert_eq!(calls.standing(call, now), Some(Standing::Live));
        calls.has_ended(end_of(call, "hangup"), now);
        let ended = Some(Standing::Ended(end_of(call, "hangup")));
        assert_eq!(calls.standing(call, now), ended, "while its last events are on their way");
        drop(live);
        assert_eq!(calls.standing(call, now + ENDED_KEPT), ended);
        let later = now + ENDED_KEPT + Duration::from_millis(1);
        assert_eq!(calls.standing(call, later), None);
        let (_live, _) = calls.begin(call, now).unwrap();
        assert_eq!(calls.standing(call, now), Some(Standing::Live), "it is dialled again");
    }

    #[tokio::test]
    async fn a_call_that_is_refused_changes_nothing_of_a_live_one() {
        let calls = Arc::new(Calls::default());
        let (call, other, now) = (CallId::random(), CallId::random(), Instant::now());
        let (_live, _) = calls.begin(call, now).unwrap();
        for refused in [call, other] {
            calls.refuse(end_of(refused, "limit"), now);
        }
        assert_eq!(calls.standing(call, now), Some(Standing::Live));
        assert_eq!(calls.standing(other, now), Some(Standing::Ended(end_of(other, "limit"))));
        let ended = CallId::random();
        calls.has_ended(end_of(ended, "hangup"), now);
        for _ in 0..=MOST_REFUSED {
            calls.refuse(end_of(CallId::random(), "limit"), now);
        }
        assert_eq!(calls.standing(other, now), None, "it was the oldest");
        assert_eq!(calls.standing(ended, now), Some(Standing::Ended(end_of(ended, "hangup"))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_call_that_is_ending_is_waited_for_and_of_no_other() {
        let calls = Arc::new(Calls::default());
        let (call, other, begun) = (CallId::random(), CallId::random(), Instant::now());
        let _live = [call, other].map(|call| calls.begin(call, begun).unwrap());
        assert_eq!(calls.settled_standing(call).await, Some(Standing::Live));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        calls.is_ending(call);
        assert_eq!(calls.settled_standing(call).await, Some(Standing::Live));
        assert!((ENDING_TIME..ENDING_TIME * 2).contains(&begun.elapsed()));
        let ends = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            calls.has_ended(end_of(other, "idle"), Instant::now());
            calls.has_ended(end_of(call, "sts_closed"), Instant::now());
        };
        let (settled, ()) = tokio::join!(calls.settled_standing(call), ends);
        assert_eq!(settled, Some(Standing::Ended(end_of(call, "sts_closed"))));
        assert!(begun.elapsed() < ENDING_TIME * 3 / 2);
    }

    #[tokio::test]
    async fn an_announcement_that_finds_no_room_is_tried_again_and_goes_to_the_fallback() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        let payload = serde_json::from_str(r#"{"from":"7"}"#).unwrap();
        let payload = Payload::from_json(payload).unwrap();
        let full = || Ok::<_, Infallible>((Slot::without_decision(), false));
        assert!(calls.slot_of(call, &payload, now, full).is_ok());
        let (_live, announcement) = calls.begin(call, now).unwrap();
        let route = announcement.unwrap().route("ws://sts".parse().ok().as_ref()).await;
        assert_eq!(route.sts_url.as_deref(), Some("ws://sts/?from=7"));
        assert!(opens(&calls, call, r#"{"from":"7"}"#, now));
    }

    #[tokio::test]
    async fn an_announcement_that_is_refused_is_none() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        let refused = calls.slot_of(call, &Payload::empty(), now, || Err("stopping"));
        assert_eq!(refused.err(), Some("stopping"));
        assert!(calls.begin(call, now).unwrap().1.is_none());
    }
}
