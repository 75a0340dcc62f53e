//! The register of calls: which ones `POST /call` announced and how they were routed, which are live and what is
//! asked of them, and how those that ended did.
//!
//! Owns whether an announcement is a repeat, that a call is bridged only once at a time and as a rule allows it, and the
//! way of a request to a live call ([`asked`]). A cache: only the ends survive, in the journal; a call that is forgotten is
//! routed again, or goes to `STS_URL`.
//!
//! Limits: an announcement is kept for [`KEPT`], since AudioSocket may never follow; at most [`MOST`] are
//! kept, with at most [`MOST_BYTES`] of payloads, and the oldest are forgotten first. On top of its payload
//! each takes some 250 bytes and twice the receiver's STS URL, of at most 4 KiB. Live calls are limited by
//! AudioSocket's connections, or by [`CallRules`]. Ends are kept for [`ENDED_KEPT`], and at most [`MOST`] of them; those
//! of refused calls apart, so that whoever dials again and again pushes out no others. [`MOST_REQUESTS`] a second and
//! call.

pub mod asked;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::asked::Ask;
use self::asked::{Asked, CallRequest, NotTaken, Taken};
use crate::event::{CallId, Payload};
use crate::expiring::Expiring;
use crate::journal::{ENDED_KEPT, EndedCall};
use crate::label::Label;
use crate::queue::slot::Slot;
use crate::routing::destination::Destination;
use crate::routing::{self, Decision, Route, StsUrl};

pub const KEPT: Duration = Duration::from_secs(10 * 60);

/// How long a stop waits for calls that were announced before: Asterisk dials within a second.
pub const AWAITED: Duration = Duration::from_secs(10);

/// Of announced calls, and of ended ones.
pub const MOST: usize = 100_000;

/// Ten times the payloads that [`MOST`] calls usually have.
pub const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Of refused calls.
pub const MOST_REFUSED: usize = 10_000;

/// Requests a second that concern one call; a model that goes in circles is told so.
pub const MOST_REQUESTS: usize = 20;

/// Calls whose requests are counted at a time.
const MOST_ASKED: usize = 10_000;

/// How long a call that is about to end is waited for.
const ENDING_TIME: Duration = Duration::from_secs(1);

/// Which calls are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallRules {
    /// `CALL_LIMIT`: calls that are bridged at a time; `None` = any number.
    pub limit: Option<usize>,
    /// `AUDIOSOCKET_UNANNOUNCED=refuse`: only what `POST /call` announced.
    pub announced_only: bool,
}

#[derive(Debug, Default)]
pub struct Calls {
    rules: CallRules,
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
    live: HashMap<CallId, LiveCall>,
    /// Of those in `live`, the ones that did not end yet.
    bridged: usize,
    /// When requests of a call came, in the last second.
    requests: Expiring<CallId, VecDeque<Instant>>,
    /// Calls that are not live, and whose dialplan has asked where to send their callers.
    knowing_next: Expiring<CallId, ()>,
    /// Calls that ended with a transfer, and whose dialplan has not asked where to since.
    unfetched: HashSet<CallId>,
    ended: Expiring<CallId, EndedCall>,
    refused: Expiring<CallId, EndedCall>,
    /// Those in `announced` that did not begin yet.
    awaited: HashSet<CallId>,
    /// When the stop began.
    stopping: Option<Instant>,
    /// Whether a call was live since then.
    had_calls: bool,
}

#[derive(Debug)]
struct LiveCall {
    phase: LivePhase,
    asked: Arc<Asked>,
    /// That of the announcement, which may be forgotten meanwhile.
    payload: Option<Payload>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LivePhase {
    GoingOn,
    /// It will be over soon.
    Ending,
    /// Its last events are on their way.
    Ended,
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

    /// To whom the receiver sends the caller, who did not reach an agent yet.
    fn people_at_once(&self) -> Option<Destination> {
        match &*self.slot.decision()? {
            Decision::People(people) => Some(people.clone()),
            Decision::Agent { .. } => None,
        }
    }

    /// To whom the receiver sends the caller, whose agent has failed.
    pub fn people_instead(&self) -> Option<Destination> {
        match &*self.slot.decision()? {
            Decision::People(people) => Some(people.clone()),
            Decision::Agent { otherwise, .. } => otherwise.clone(),
        }
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray, thiserror::Error,
)]
#[strum(serialize_all = "snake_case")]
pub enum CannotBegin {
    #[error("this call is live on another connection")]
    AlreadyLive,
    #[error("callhook is stopping")]
    #[strum(serialize = "shutdown")]
    Stopping,
    #[error("as many calls are live as CALL_LIMIT allows")]
    Limit,
    #[error("POST /call did not announce it, and AUDIOSOCKET_UNANNOUNCED is refuse")]
    NotAnnounced,
}

impl CannotBegin {
    /// As in metrics, and to whoever asks for the call.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Label for CannotBegin {
    fn all() -> Vec<Self> {
        <Self as strum::VariantArray>::VARIANTS.to_vec()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.name())]
    }
}

/// Keeps a call live until it is dropped.
#[derive(Debug)]
pub struct LiveGuard {
    calls: Arc<Calls>,
    call: CallId,
    pub asked: Arc<Asked>,
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        // Also where the call broke off.
        self.asked.news().close();
        let mut register = self.calls.lock();
        register.end(self.call);
        register.live.remove(&self.call);
        drop(register);
        self.calls.changed.notify_waiters();
    }
}

impl Calls {
    pub fn under(rules: CallRules) -> Self {
        Self { rules, ..Self::default() }
    }

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
    /// If the call is live already, comes too late for a stop, or is against the rules.
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
        let announcement = register.announced.get(&call, now).cloned();
        if self.rules.announced_only && announcement.is_none() {
            return Err(CannotBegin::NotAnnounced);
        }
        if self.rules.limit.is_some_and(|limit| register.bridged >= limit) {
            return Err(CannotBegin::Limit);
        }
        // Those of a connection before.
        register.ended.remove(&call);
        register.refused.remove(&call);
        register.unfetched.remove(&call);
        register.awaited.remove(&call);
        register.had_calls = true;
        let payload = announcement.as_ref().map(|known| known.payload.clone());
        let asked = register.go_live(call, payload, now);
        Ok((LiveGuard { calls: Arc::clone(self), call, asked }, announcement))
    }

    /// The live call will be over soon.
    pub fn is_ending(&self, call: CallId) {
        if let Some(live) = self.lock().live.get_mut(&call)
            && live.phase == LivePhase::GoingOn
        {
            live.phase = LivePhase::Ending;
        }
    }

    /// The call ended, at this time.
    pub fn has_ended(&self, call: EndedCall, at: Instant) {
        let mut register = self.lock();
        register.end(call.call);
        register.ended.insert(call.call, call, at, |_, _| {});
        drop(register);
        self.ended.notify_waiters();
    }

    /// Asks something of a live call.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn ask(&self, call: CallId, request: CallRequest, now: Instant) -> Result<Taken, NotTaken> {
        let asked = {
            let mut register = self.lock();
            let live = register.live.get(&call).ok_or(NotTaken::NotLive)?;
            let asked = Arc::clone(&live.asked);
            register.admit_request(call, now)?;
            asked
        };
        asked.take(request)
    }

    /// What `POST /call` said of a call that is announced or live: nothing of one that nobody announced.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn payload_of(&self, call: CallId, now: Instant) -> Result<Option<Payload>, NotTaken> {
        let mut register = self.lock();
        let payload = match register.standing(call, now) {
            Some((Standing::Live, _)) => {
                register.live.get(&call).and_then(|live| live.payload.clone())
            }
            Some((Standing::Announced, _)) => {
                register.announced.get(&call, now).map(|known| known.payload.clone())
            }
            Some((Standing::Ended(_), _)) | None => return Err(NotTaken::NotLive),
        };
        register.admit_request(call, now)?;
        Ok(payload)
    }

    /// Where a dialplan is to send the caller, if anywhere; that it asked is remembered. Waits as
    /// [`Self::settled_standing`] does; `None` where the call is not known.
    pub async fn next_of(&self, call: CallId) -> Option<Option<Destination>> {
        self.lock().note_next(call, Instant::now());
        let standing = self.settled_standing(call).await?;
        let mut register = self.lock();
        match standing {
            Standing::Announced => {
                let announced = register.announced.get(&call, Instant::now());
                Some(announced.and_then(Announcement::people_at_once))
            }
            Standing::Live => Some(None),
            Standing::Ended(ended) => {
                register.unfetched.remove(&call);
                Some(ended.next)
            }
        }
    }

    /// The call is about to end with a transfer; its dialplan should ask where to.
    pub fn expect_next(&self, call: CallId) {
        self.lock().unfetched.insert(call);
    }

    /// Whether a dialplan that should have asked where to send its caller has not, after so long.
    pub async fn misses_next(&self, call: CallId, wait: Duration) -> bool {
        if !self.lock().unfetched.contains(&call) {
            return false;
        }
        sleep(wait).await;
        self.lock().unfetched.remove(&call)
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
                    Some((_, Some(LivePhase::Ending))) => {}
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
            bridged: 0,
            requests: Expiring::new(Duration::from_secs(1), MOST_ASKED),
            knowing_next: Expiring::with_room(KEPT, MOST),
            unfetched: HashSet::new(),
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

    fn go_live(&mut self, call: CallId, payload: Option<Payload>, now: Instant) -> Arc<Asked> {
        let knows_next = self.knowing_next.get(&call, now).is_some();
        self.knowing_next.remove(&call);
        let asked = Arc::new(Asked::new(knows_next));
        let live = LiveCall { phase: LivePhase::GoingOn, asked: Arc::clone(&asked), payload };
        self.live.insert(call, live);
        self.bridged += 1;
        asked
    }

    /// The live call ended: it makes room for another, though its last events are on their way.
    fn end(&mut self, call: CallId) {
        if let Some(live) = self.live.get_mut(&call)
            && std::mem::replace(&mut live.phase, LivePhase::Ended) != LivePhase::Ended
        {
            self.bridged -= 1;
        }
    }

    /// A dialplan asks where to send its caller. One that nobody announced may ask before it dials, too.
    fn note_next(&mut self, call: CallId, now: Instant) {
        match self.live.get(&call) {
            Some(live) => live.asked.note_next(),
            None => self.knowing_next.insert(call, (), now, |_, ()| {}),
        }
    }

    fn admit_request(&mut self, call: CallId, now: Instant) -> Result<(), NotTaken> {
        let mut lately = self.requests.remove(&call).unwrap_or_default();
        lately.retain(|at| now.saturating_duration_since(*at) < Duration::from_secs(1));
        let admitted = lately.len() < MOST_REQUESTS;
        if admitted {
            lately.push_back(now);
        }
        self.requests.insert(call, lately, now, |_, _| {});
        if admitted { Ok(()) } else { Err(NotTaken::TooMany) }
    }

    /// The end first: a call has one from its last frame on, and is live until its last event.
    fn standing(&self, call: CallId, now: Instant) -> Option<(Standing, Option<LivePhase>)> {
        let ended = self.ended.get(&call, now).or_else(|| self.refused.get(&call, now));
        if let Some(ended) = ended {
            return Some((Standing::Ended(ended.clone()), None));
        }
        if let Some(live) = self.live.get(&call) {
            return Some((Standing::Live, Some(live.phase)));
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
        EndedCall { call, reason: reason.into(), duration_ms: 7, at: 1, next: None }
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

    #[tokio::test]
    async fn calls_beyond_the_limit_are_refused_until_one_has_ended() {
        let calls = Arc::new(Calls::under(CallRules { limit: Some(2), announced_only: false }));
        let ([one, two, third], now) = ([(); 3].map(|()| CallId::random()), Instant::now());
        let (_first, _) = calls.begin(one, now).unwrap();
        let (second, _) = calls.begin(two, now).unwrap();
        assert_eq!(calls.begin(third, now).err(), Some(CannotBegin::Limit));
        assert_eq!(calls.begin(one, now).err(), Some(CannotBegin::AlreadyLive));
        calls.has_ended(end_of(one, "hangup"), now);
        calls.has_ended(end_of(one, "hangup"), now);
        let (third, _) = calls.begin(third, now).expect("its last events take no room");
        assert_eq!(calls.begin(CallId::random(), now).err(), Some(CannotBegin::Limit));
        drop((second, third));
        let _both = [(); 2].map(|()| calls.begin(CallId::random(), now).unwrap());
        assert_eq!(calls.begin(CallId::random(), now).err(), Some(CannotBegin::Limit));
    }

    #[tokio::test]
    async fn only_what_was_announced_is_taken_where_that_is_the_rule() {
        let calls = Arc::new(Calls::under(CallRules { limit: None, announced_only: true }));
        let (call, now) = (CallId::random(), Instant::now());
        assert_eq!(calls.begin(call, now).err(), Some(CannotBegin::NotAnnounced));
        opens(&calls, call, "{}", now);
        assert!(calls.begin(call, now).is_ok());
        let later = now + KEPT + Duration::from_millis(1);
        assert_eq!(calls.begin(call, later).err(), Some(CannotBegin::NotAnnounced));
    }

    fn transfer() -> (CallRequest, Destination) {
        let to = Destination::new("people", "100").unwrap();
        (CallRequest::Transfer(Some(to.clone())), to)
    }

    #[tokio::test]
    async fn a_request_reaches_a_live_call_and_no_other() {
        let calls = Arc::new(Calls::default());
        let (call, now) = (CallId::random(), Instant::now());
        let ask = || calls.ask(call, CallRequest::HangUp, now);
        assert_eq!(ask(), Err(NotTaken::NotLive));
        opens(&calls, call, r#"{"from":"7"}"#, now);
        assert_eq!(ask(), Err(NotTaken::NotLive), "it is announced alone");
        let (live, _) = calls.begin(call, now).unwrap();
        assert_eq!(ask(), Ok(Taken::HangUp));
        assert_eq!(live.asked.news().take(), Some(Ask::HangUp));
        live.asked.news().close();
        assert_eq!(ask(), Err(NotTaken::NotLive));
        drop(live);
        assert_eq!(ask(), Err(NotTaken::NotLive));
    }

    #[tokio::test]
    async fn a_dialplan_may_ask_for_next_before_it_dials_and_while_the_call_lives() {
        let calls = Arc::new(Calls::default());
        let ([before, during, never], now) = ([(); 3].map(|()| CallId::random()), Instant::now());
        let (request, to) = transfer();
        assert_eq!(calls.next_of(before).await, None, "it is not known, and has asked");
        let live = [before, during, never].map(|call| calls.begin(call, now).unwrap());
        assert_eq!(calls.next_of(during).await, Some(None));
        for call in [before, during] {
            assert_eq!(calls.ask(call, request.clone(), now), Ok(Taken::Transfer(to.clone())));
        }
        assert_eq!(calls.ask(never, request, now), Err(NotTaken::NoNext));
        drop(live);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_nobody_asks_for_is_missed() {
        let calls = Arc::new(Calls::default());
        let ([asked, missed, none], now) = ([(); 3].map(|()| CallId::random()), Instant::now());
        let (_, to) = transfer();
        for call in [asked, missed] {
            calls.expect_next(call);
            calls.has_ended(EndedCall { next: Some(to.clone()), ..end_of(call, "transfer") }, now);
        }
        let wait = Duration::from_secs(5);
        for _ in 0..2 {
            assert_eq!(calls.next_of(asked).await, Some(Some(to.clone())), "reading takes nothing");
        }
        assert!(!calls.misses_next(asked, wait).await && !calls.misses_next(none, wait).await);
        assert_eq!(now.elapsed(), Duration::ZERO);
        let asks_late = async {
            sleep(wait / 2).await;
            calls.next_of(missed).await
        };
        let (misses, _) = tokio::join!(calls.misses_next(missed, wait), asks_late);
        assert!(!misses);
        calls.expect_next(missed);
        assert!(calls.misses_next(missed, wait).await);
        assert!(!calls.misses_next(missed, wait).await, "it is told once");
    }

    #[tokio::test]
    async fn twenty_requests_a_second_and_call_are_taken() {
        let calls = Arc::new(Calls::default());
        let ([call, other], now) = ([(); 2].map(|()| CallId::random()), Instant::now());
        let _live = [call, other].map(|call| calls.begin(call, now).unwrap());
        let ms = Duration::from_millis(1);
        for nth in 0..20 {
            assert!(calls.ask(call, CallRequest::HangUp, now + ms * nth * 10).is_ok(), "{nth}");
        }
        let at = |after: u64| now + Duration::from_millis(after);
        assert_eq!(calls.ask(call, CallRequest::HangUp, at(999)), Err(NotTaken::TooMany));
        assert_eq!(calls.payload_of(call, at(999)).err(), Some(NotTaken::TooMany));
        assert!(calls.ask(other, CallRequest::HangUp, at(999)).is_ok());
        assert!(
            calls.ask(call, CallRequest::HangUp, at(1000)).is_ok(),
            "the first is a second ago"
        );
        assert_eq!(calls.ask(call, CallRequest::HangUp, at(1001)), Err(NotTaken::TooMany));
    }

    #[tokio::test]
    async fn what_was_announced_is_known_for_as_long_as_the_call_lives() {
        let calls = Arc::new(Calls::default());
        let ([call, unannounced], now) = ([(); 2].map(|()| CallId::random()), Instant::now());
        assert_eq!(calls.payload_of(call, now).err(), Some(NotTaken::NotLive));
        opens(&calls, call, r#"{"from":"7"}"#, now);
        let text = |payload: Option<Payload>| payload.map(|payload| payload.as_str().to_owned());
        let known = Some(r#"{"from":"7"}"#.to_owned());
        assert_eq!(text(calls.payload_of(call, now).unwrap()), known);
        let live = [call, unannounced].map(|call| calls.begin(call, now).unwrap());
        let later = now + KEPT * 2;
        assert_eq!(text(calls.payload_of(call, later).unwrap()), known);
        assert_eq!(text(calls.payload_of(unannounced, later).unwrap()), None);
        drop(live);
        calls.has_ended(end_of(call, "hangup"), now);
        assert_eq!(calls.payload_of(call, now).err(), Some(NotTaken::NotLive));
    }
}
