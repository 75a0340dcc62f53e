//! The dispatcher without a queue around it, with time as an argument: who goes, when, and what callers are
//! told meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callhook::attempt::{Attempt, Failure, FailureCode};
use callhook::event::{CallId, Event, EventType, Item, Origin, Payload};
use callhook::queue::Limits;
use callhook::queue::dispatcher::{AfterFailure, Dispatcher};
use callhook::queue::slot::Slot;
use callhook::retry::{Delays, RetryPolicy};
use callhook::routing::NoDecision;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);

fn dispatcher() -> Dispatcher {
    let delays = Delays::fixed(Duration::from_millis(500), Duration::from_secs(30));
    let limits = Limits { breaker: 1, timeout: TIMEOUT, ..Limits::default() };
    Dispatcher::new(limits, RetryPolicy::new(0, delays))
}

/// An event at the next place of all.
fn item(call: CallId, kind: EventType, origin: Origin) -> Item {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    let event = Event::now(call, kind, &Payload::empty());
    Item::new(Arc::new(event), PLACES.fetch_add(1, Ordering::Relaxed), origin)
}

fn accept(dispatcher: &mut Dispatcher, call: CallId, now: Instant) {
    dispatcher.accept(&mut item(call, EventType::Transcription, Origin::Relayed), None, now);
}

/// A caller asks, and waits for five seconds at most.
fn ask(dispatcher: &mut Dispatcher, call: CallId, now: Instant) -> Slot {
    let deadline = now + Duration::from_secs(5);
    let slot = Slot::until(deadline);
    if let Some(why) = dispatcher.cannot_decide_by(deadline, call, now) {
        slot.close(why);
    }
    let mut question = item(call, EventType::CallInitiated, Origin::Bridged);
    dispatcher.accept(&mut question, Some(slot.clone()), now);
    slot
}

fn failed(
    dispatcher: &mut Dispatcher,
    sent: &Attempt,
    code: FailureCode,
    now: Instant,
) -> AfterFailure {
    let failure = Failure::unanswered(code, String::new(), TIMEOUT);
    dispatcher.failed(sent, &failure, now, 1).0
}

/// The receiver is down; the event that told of it is given up.
fn down(now: Instant) -> Dispatcher {
    let mut dispatcher = dispatcher();
    let call = CallId::random();
    accept(&mut dispatcher, call, now);
    let sent = dispatcher.next(now).unwrap();
    let after = failed(&mut dispatcher, &sent, FailureCode::ConnectionRefused, now);
    assert!(matches!(after, AfterFailure::GivenUp(_)), "{after:?}");
    dispatcher.settle(call, now);
    dispatcher
}

#[tokio::test]
async fn a_caller_who_asks_when_a_probe_is_due_is_the_probe_and_waits_for_it() {
    let begun = Instant::now();
    let mut dispatcher = down(begun);
    let early = ask(&mut dispatcher, CallId::random(), begun);
    assert_eq!(early.no_decision(), Some(NoDecision::ReceiverDown));
    let morning = begun + MINUTE;
    let call = CallId::random();
    let slot = ask(&mut dispatcher, call, morning);
    assert_eq!(slot.no_decision(), None);
    let probe = dispatcher.next(morning).unwrap();
    assert_eq!((probe.item.event.call, probe.probe), (call, true), "it goes before what waits");
    let late = ask(&mut dispatcher, CallId::random(), morning);
    assert_eq!(late.no_decision(), Some(NoDecision::ReceiverDown), "one probe at a time");
    failed(&mut dispatcher, &probe, FailureCode::ConnectionRefused, morning);
    assert_eq!(slot.no_decision(), Some(NoDecision::ReceiverDown), "nobody is there yet");
}

#[tokio::test]
async fn a_start_with_waiting_events_sends_one_of_them_and_each_question_beside_it() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    for _ in 0..3 {
        accept(&mut dispatcher, CallId::random(), now);
    }
    dispatcher.start(now);
    let first = dispatcher.next(now).unwrap();
    assert!(first.probe);
    assert!(dispatcher.next(now).is_none(), "the others wait for it");
    let slot = ask(&mut dispatcher, CallId::random(), now);
    assert_eq!(slot.no_decision(), None);
    let beside = dispatcher.next(now).unwrap();
    assert!(beside.probe && beside.item.event.kind == EventType::CallInitiated);
    dispatcher.delivered(&beside, Duration::ZERO, now);
    let rest: Vec<_> = std::iter::from_fn(|| dispatcher.next(now)).collect();
    assert_eq!(rest.len(), 2, "an answer lets all go");
}

#[tokio::test]
async fn a_start_without_waiting_events_needs_no_probe() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    dispatcher.start(now);
    accept(&mut dispatcher, CallId::random(), now);
    assert!(!dispatcher.next(now).unwrap().probe);
}

#[tokio::test]
async fn an_event_that_timed_out_as_a_probe_three_times_is_left_aside_for_fifteen_minutes() {
    let begun = Instant::now();
    let mut dispatcher = down(begun);
    let stuck = CallId::random();
    accept(&mut dispatcher, stuck, begun);
    let mut now = begun;
    for nth in 0..3 {
        now += MINUTE;
        let probe = dispatcher.next(now).unwrap();
        let expected = TIMEOUT * 2_u32.pow(nth);
        assert_eq!(probe.timeout, expected, "probe {nth}");
        assert!(matches!(
            failed(&mut dispatcher, &probe, FailureCode::Timeout, now),
            AfterFailure::Unspent
        ));
    }
    now += MINUTE;
    assert!(dispatcher.next(now).is_none());
    let other = CallId::random();
    accept(&mut dispatcher, other, now);
    let probe = dispatcher.next(now).unwrap();
    assert_eq!(probe.item.event.call, other, "a probe stayed due");
    failed(&mut dispatcher, &probe, FailureCode::ConnectionRefused, now);
    let later = now + MINUTE * 15;
    let turns: Vec<CallId> = (0..2)
        .map(|nth| {
            let probe = dispatcher.next(later + MINUTE * nth).unwrap();
            failed(&mut dispatcher, &probe, FailureCode::Timeout, later + MINUTE * nth);
            probe.item.event.call
        })
        .collect();
    assert!(turns.contains(&stuck) && turns.contains(&other), "both have their turn");
}

#[tokio::test]
async fn what_was_left_aside_goes_as_soon_as_the_receiver_is_there() {
    let begun = Instant::now();
    let mut dispatcher = down(begun);
    let stuck = CallId::random();
    accept(&mut dispatcher, stuck, begun);
    let mut now = begun;
    for _ in 0..3 {
        now += MINUTE;
        let probe = dispatcher.next(now).unwrap();
        failed(&mut dispatcher, &probe, FailureCode::Timeout, now);
    }
    let other = CallId::random();
    accept(&mut dispatcher, other, now);
    now += MINUTE;
    let probe = dispatcher.next(now).unwrap();
    dispatcher.delivered(&probe, Duration::ZERO, now);
    dispatcher.settle(other, now);
    let next = dispatcher.next(now).unwrap();
    assert_eq!((next.item.event.call, next.probe), (stuck, false));
}

#[tokio::test]
async fn callers_whose_time_ends_before_a_pause_does_are_told_at_once() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    let call = CallId::random();
    accept(&mut dispatcher, call, now);
    let sent = dispatcher.next(now).unwrap();
    accept(&mut dispatcher, CallId::random(), now);
    let waiting = ask(&mut dispatcher, CallId::random(), now);
    let busy = Failure::of_status(429, Some(MINUTE), Duration::ZERO);
    let (after, _) = dispatcher.failed(&sent, &busy, now, 1);
    assert!(matches!(after, AfterFailure::Unspent));
    assert_eq!(waiting.no_decision(), Some(NoDecision::ReceiverPaused));
    let new = ask(&mut dispatcher, CallId::random(), now);
    assert_eq!(new.no_decision(), Some(NoDecision::ReceiverPaused));
    assert_eq!(dispatcher.wake_at(), Some(now + MINUTE));
    let first = dispatcher.next(now + MINUTE).unwrap();
    assert!(first.probe);
    assert!(dispatcher.next(now + MINUTE).is_none(), "one goes first");
    dispatcher.delivered(&first, Duration::ZERO, now + MINUTE);
    assert!(dispatcher.next(now + MINUTE).is_some());
}

#[tokio::test]
async fn decisions_that_come_too_late_open_the_routing_breaker_as_errors_do() {
    let now = Instant::now();
    let mut dispatcher = dispatcher();
    let call = CallId::random();
    let slot = ask(&mut dispatcher, call, now);
    let sent = dispatcher.next(now).unwrap();
    let late = now + Duration::from_secs(8);
    dispatcher.delivered(&sent, Duration::from_secs(8), late);
    dispatcher.settle(call, late);
    assert!(!slot.is_open(late));
    let next = CallId::random();
    let told = ask(&mut dispatcher, next, late);
    assert_eq!(told.no_decision(), Some(NoDecision::RoutingBroken));
    let sent = dispatcher.next(late).unwrap();
    dispatcher.delivered(&sent, Duration::ZERO, late);
    let works = ask(&mut dispatcher, CallId::random(), late);
    assert_eq!(works.no_decision(), None);
}
