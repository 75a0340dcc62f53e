//! Watch: do the events of each call arrive as they were promised?
//!
//! Pure: who sent what and how it ended in, remarks and a report out. Knows no HTTP but statuses,
//! and no clock.
//!
//! An event is known by its `webhook-id`, or, where the sender gives none, by its body, if that has
//! a timestamp. A request that repeats one is not a new event.
//!
//! Limits: the last [`CALLS`] calls and [`EVENTS`] events are remembered; one that comes back after
//! that counts as new.

use std::num::NonZeroUsize;

use axum::http::StatusCode;
use lru::LruCache;

pub use super::faults::CALLS;
use super::remark::Remark;
use super::reply::Ending;
use super::report::ReceiveReport;
use super::sequence::Sequence;

/// How many events are remembered to know a repeat: a minute of thousands in a second.
pub const EVENTS: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not 0");

/// A request with an event, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// Hash of the uuid.
    pub call: u64,
    /// Hash of what the event is known by; `None` where a repeat cannot be recognised.
    pub event: Option<u64>,
    /// The call's uuid, to be shown.
    pub uuid: &'a str,
    pub kind: &'a str,
    pub attempt: Option<u32>,
    pub sequence: Option<u64>,
}

#[derive(Debug, Default)]
struct WatchedCall {
    uuid: Box<str>,
    started: bool,
    ended: bool,
    in_flight: u32,
    sequence: Sequence,
}

#[derive(Debug)]
struct WatchedEvent {
    call: u64,
    attempt: Option<u32>,
    progress: EventProgress,
    /// [`Watch::ended`] has returned true for it.
    counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventProgress {
    Open,
    Failed,
    Taken,
}

#[derive(Debug)]
pub struct Watch {
    calls: LruCache<u64, WatchedCall>,
    events: LruCache<u64, WatchedEvent>,
    report: ReceiveReport,
}

impl Default for Watch {
    fn default() -> Self {
        let (calls, events) = (LruCache::new(CALLS), LruCache::new(EVENTS));
        Self { calls, events, report: ReceiveReport::default() }
    }
}

impl Watch {
    /// Takes a request that has arrived: whether its event is new, and what is odd about it.
    pub fn arrived(&mut self, sighting: &Sighting<'_>) -> (bool, Vec<Remark>) {
        let mut remarks = Vec::new();
        let known = sighting.event.and_then(|event| self.events.get_mut(&event));
        let fresh = known.is_none();
        if let Some(known) = known {
            known.came_again(sighting, &mut remarks);
        } else if let Some(event) = sighting.event {
            let Sighting { call, attempt, .. } = *sighting;
            let progress = EventProgress::Open;
            self.events.put(event, WatchedEvent { call, attempt, progress, counted: false });
        }
        self.call(sighting).arrived(sighting, fresh, &mut remarks);
        self.report.requests += 1;
        if fresh {
            self.report.events += 1;
            *self.report.types.of(sighting.kind) += 1;
        } else {
            self.report.repeats += 1;
        }
        for remark in &remarks {
            self.report.count(remark);
        }
        (fresh, remarks)
    }

    /// Takes the end of a request. Returns whether its event got its usual answer for the first
    /// time.
    pub fn ended(&mut self, call: u64, event: Option<u64>, ending: &Ending) -> bool {
        if let Some(call) = self.calls.get_mut(&call) {
            call.in_flight = call.in_flight.saturating_sub(1);
        }
        self.report.end(ending);
        let usual = matches!(ending, Ending::Usual(_));
        let Some(known) = event.and_then(|event| self.events.get_mut(&event)) else {
            return usual;
        };
        if ending.takes() {
            known.progress = EventProgress::Taken;
        } else if known.progress == EventProgress::Open {
            known.progress = EventProgress::Failed;
        }
        let first = usual && !known.counted;
        known.counted |= usual;
        first
    }

    /// Counts a request that is refused with 401.
    pub fn refused(&mut self) {
        self.report.refused += 1;
        self.apart(StatusCode::UNAUTHORIZED);
    }

    /// Counts a request without an event.
    pub fn strayed(&mut self, status: StatusCode) {
        self.report.no_events += 1;
        self.apart(status);
    }

    /// Counts a request that is of no call.
    fn apart(&mut self, status: StatusCode) {
        self.report.requests += 1;
        *self.report.answers.entry(status.as_u16()).or_default() += 1;
    }

    /// What came of it all so far.
    pub fn report(&self) -> ReceiveReport {
        let mut report = self.report.clone();
        // Those that were silent the longest first.
        for (_, call) in self.calls.iter().rev() {
            report.close(call.started, call.ended, &call.uuid);
        }
        report
    }

    fn call(&mut self, sighting: &Sighting<'_>) -> &mut WatchedCall {
        if !self.calls.contains(&sighting.call) {
            self.report.calls += 1;
            let call = WatchedCall { uuid: sighting.uuid.into(), ..WatchedCall::default() };
            if let Some((_, forgotten)) = self.calls.push(sighting.call, call) {
                self.report.forget(forgotten.started, forgotten.ended);
            }
        }
        self.calls.get_mut(&sighting.call).expect("it was there or pushed")
    }
}

impl WatchedEvent {
    fn came_again(&mut self, sighting: &Sighting<'_>, remarks: &mut Vec<Remark>) {
        if self.call != sighting.call {
            remarks.push(Remark::OtherCall);
        }
        match self.progress {
            // After a crash the sender may count its attempts from anywhere.
            EventProgress::Taken => remarks.push(Remark::Duplicate),
            EventProgress::Open => remarks.push(Remark::Overlap),
            EventProgress::Failed => {
                self.progress = EventProgress::Open;
                if let (Some(before), Some(now)) = (self.attempt, sighting.attempt)
                    && before.checked_add(1) != Some(now)
                {
                    remarks.push(Remark::Attempt { before, now });
                }
            }
        }
        self.attempt = sighting.attempt;
    }
}

impl WatchedCall {
    fn arrived(&mut self, sighting: &Sighting<'_>, fresh: bool, remarks: &mut Vec<Remark>) {
        if self.in_flight > 0 {
            remarks.push(Remark::AtOnce);
        }
        self.in_flight += 1;
        if !fresh {
            return;
        }
        if self.ended {
            remarks.push(Remark::AfterCallEnded);
        }
        // A call that is given up before it is answered has a call_initiated and nothing else.
        self.started |= sighting.kind != "call_initiated";
        self.ended |= sighting.kind == "call_ended";
        remarks.extend(sighting.sequence.and_then(|number| self.sequence.take(number)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{NAMED, TYPES};
    use super::*;

    const OK: Ending = Ending::Usual(StatusCode::OK);
    const BUSY: Ending = Ending::Fault(StatusCode::SERVICE_UNAVAILABLE);

    fn sighting(call: u64, event: u64, kind: &str, sequence: u64) -> Sighting<'_> {
        let (event, sequence, attempt) = (Some(event), Some(sequence), Some(1));
        Sighting { call, event, uuid: "a-call", kind, attempt, sequence }
    }

    /// Takes a request that ends so; its remarks.
    fn take(watch: &mut Watch, sighting: &Sighting<'_>, ending: &Ending) -> Vec<Remark> {
        let (_, remarks) = watch.arrived(sighting);
        watch.ended(sighting.call, sighting.event, ending);
        remarks
    }

    #[test]
    fn a_retry_of_what_failed_is_no_duplicate_and_one_of_what_was_taken_is() {
        let mut watch = Watch::default();
        let first = sighting(1, 1, "call_started", 1);
        assert_eq!(take(&mut watch, &first, &BUSY), []);
        let second = Sighting { attempt: Some(2), ..first };
        assert_eq!(take(&mut watch, &second, &Ending::Gone), []);
        let third = Sighting { attempt: Some(3), ..first };
        assert_eq!(take(&mut watch, &third, &OK), []);
        assert_eq!(take(&mut watch, &first, &OK), [Remark::Duplicate]);
        let report = watch.report();
        assert_eq!((report.events, report.repeats, report.duplicates), (1, 3, 1));
        assert_eq!((report.requests, report.gone), (4, 1));
    }

    #[test]
    fn two_requests_of_a_call_at_once_are_remarked_and_those_of_two_calls_are_not() {
        let mut watch = Watch::default();
        let first = sighting(1, 1, "call_started", 1);
        assert_eq!(watch.arrived(&first).1, []);
        assert_eq!(watch.arrived(&sighting(2, 2, "call_started", 1)).1, []);
        let again = Sighting { attempt: Some(2), ..first };
        assert_eq!(watch.arrived(&again).1, [Remark::Overlap, Remark::AtOnce]);
        assert_eq!(watch.arrived(&sighting(1, 3, "dtmf_digit", 2)).1, [Remark::AtOnce]);
        for event in [1, 1, 3] {
            watch.ended(1, Some(event), &OK);
        }
        assert_eq!(watch.arrived(&sighting(1, 4, "call_ended", 3)).1, []);
        assert_eq!(watch.report().at_once, 2);
    }

    #[test]
    fn gaps_are_what_never_came() {
        let mut watch = Watch::default();
        for (event, number, remarks) in [
            (1, 1, vec![]),
            (2, 4, vec![Remark::Gap(2..=3)]),
            (3, 3, vec![Remark::OutOfOrder { after: 4 }]),
            (4, 4, vec![Remark::NumberTwice(4)]),
            (5, 1, vec![Remark::NumbersAnew]),
        ] {
            let sighting = sighting(1, event, "transcription", number);
            assert_eq!(take(&mut watch, &sighting, &OK), remarks, "#{number}");
        }
        let report = watch.report();
        assert_eq!((report.gaps, report.out_of_order), (1, 1));
    }

    #[test]
    fn what_follows_the_end_of_a_call_is_remarked() {
        let mut watch = Watch::default();
        assert_eq!(take(&mut watch, &sighting(1, 1, "call_ended", 1), &OK), []);
        let late = sighting(1, 2, "transcription", 2);
        assert_eq!(take(&mut watch, &late, &OK), [Remark::AfterCallEnded]);
        let other = sighting(2, 1, "call_ended", 1);
        let remarks = take(&mut watch, &other, &OK);
        assert!(remarks.contains(&Remark::OtherCall), "{remarks:?}");
    }

    #[test]
    fn a_call_that_began_and_did_not_end_is_named_and_one_that_was_announced_only_is_not() {
        let mut watch = Watch::default();
        for (call, kinds) in [
            (1, ["call_initiated", "call_started"].as_slice()),
            (2, &["call_initiated"]),
            (3, &["call_started", "call_ended"]),
        ] {
            for (event, kind) in (10 * call..).zip(kinds) {
                take(&mut watch, &sighting(call, event, kind, event % 10 + 1), &OK);
            }
        }
        let report = watch.report();
        assert_eq!((report.calls, report.without_call_ended, report.announced_only), (3, 1, 1));
        assert_eq!(report.unended, ["a-call"]);
    }

    #[test]
    fn an_event_is_counted_as_taken_once() {
        let mut watch = Watch::default();
        let one = sighting(1, 1, "call_started", 1);
        for (ending, first) in [(BUSY, false), (Ending::Closed, false), (OK, true), (OK, false)] {
            watch.arrived(&one);
            assert_eq!(watch.ended(1, Some(1), &ending), first, "{ending:?}");
        }
        assert!(watch.ended(1, None, &OK), "one that cannot be known again counts each time");
    }

    #[test]
    fn memory_is_bounded_and_what_it_forgets_is_told() {
        let mut watch = Watch::default();
        let (calls, events) = (CALLS.get() as u64, EVENTS.get() as u64);
        for call in 0..=calls {
            take(&mut watch, &sighting(call, call, "call_started", 1), &OK);
        }
        let report = watch.report();
        assert_eq!(
            (report.calls, report.without_call_ended, report.forgotten),
            (calls + 1, calls, 1)
        );
        assert_eq!(report.unended.len(), NAMED);
        for event in 0..=events {
            let kind = format!("type{event}");
            take(&mut watch, &sighting(1, calls + 1 + event, &kind, event + 2), &OK);
        }
        assert_eq!((watch.calls.len(), watch.events.len()), (CALLS.get(), EVENTS.get()));
        assert_eq!(watch.report().types.len(), TYPES + 1);
    }
}
