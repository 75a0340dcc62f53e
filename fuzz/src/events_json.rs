//! `POST /events`: which events are accepted, and the envelopes that they become.

use callhook::event::{Event, EventId, EventType, MAX_EVENT_TYPE, MAX_TIMESTAMP};
use callhook::http::{HttpError, body, events};

use super::json::{self, Item, Json};

/// Checks one body: an event, or an array of them.
pub fn check(input: &[u8]) {
    let read = json::read(input);
    let text = body::strict_json(input);
    match (&text, &read) {
        (Ok(text), Ok(_)) => assert_eq!(text.as_bytes(), input),
        (Err(fault), Err(_)) => assert_refused(fault),
        (Ok(_), Err(refusal)) => panic!("accepted in spite of {refusal:?}"),
        (Err(fault), Ok(_)) => panic!("refused without a reason: {}", fault.error),
    }
    let Ok(item) = read else {
        return;
    };
    match &item.value {
        Json::Array(items) => items.iter().for_each(check_event),
        _ => check_event(&item),
    }
}

fn check_event(item: &Item<'_>) {
    match (events::read(EventId::make(), item.raw), is_acceptable(item)) {
        (Ok((event, _)), Ok(())) => {
            let kind = item.field("type").and_then(Item::text).expect("it was accepted");
            assert_known(&event.kind, kind);
            let timestamp = item.field("timestamp").and_then(Item::text);
            assert_envelope(&event, item, kind, timestamp);
        }
        (Err(fault), Err(field)) => {
            assert!(fault.contains(field), "{field} is not named: {fault}");
        }
        (Ok(_), Err(field)) => panic!("accepted in spite of its {field}"),
        (Err(fault), Ok(())) => panic!("refused without a reason: {fault}"),
    }
}

/// Whether it is an event; else the first field that is at fault.
fn is_acceptable(item: &Item<'_>) -> Result<(), &'static str> {
    let text = |name| item.field(name).and_then(Item::text);
    let is_type = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_graphic())
            && (1..=MAX_EVENT_TYPE).contains(&text.len())
    };
    if !matches!(item.value, Json::Object(_)) {
        return Err("object");
    }
    if !text("uuid").is_some_and(is_uuid) {
        return Err("uuid");
    }
    if !text("type").is_some_and(is_type) {
        return Err("type");
    }
    if !matches!(item.field("payload").map(|item| &item.value), None | Some(Json::Object(_))) {
        return Err("payload");
    }
    match item.field("timestamp").map(Item::text) {
        None => Ok(()),
        Some(Some(text)) if text.len() <= MAX_TIMESTAMP && is_date_and_time(text) => Ok(()),
        Some(_) => Err("timestamp"),
    }
}

/// Whether it is a date and time as ISO 8601 writes them, in its extended or its basic format.
fn is_date_and_time(text: &str) -> bool {
    let Some((date, rest)) = text.split_once('T') else { return false };
    let (clock, zone) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
    let (clock, fraction) = match clock.split_once(['.', ',']) {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let numbers = |text: &str, between: char, first: usize| -> Option<Vec<u32>> {
        let plain: String = match text.contains(between) {
            true => {
                let parts: Vec<&str> = text.split(between).collect();
                let widths = parts.iter().enumerate();
                let fits = |(n, part): (usize, &&str)| part.len() == if n == 0 { first } else { 2 };
                widths.into_iter().all(fits).then(|| parts.concat())?
            }
            false => text.to_owned(),
        };
        let all_digits = plain.bytes().all(|byte| byte.is_ascii_digit());
        let fits = all_digits && plain.len() >= first && (plain.len() - first).is_multiple_of(2);
        let pairs = fits.then(|| plain.as_bytes()[first..].chunks(2))?;
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        std::iter::once(number(&plain.as_bytes()[..first])).chain(pairs.map(number)).collect()
    };
    let date_is_basic = !date.contains('-');
    let good_date = matches!(numbers(date, '-', 4).as_deref(), Some([year, month, day])
        if (1..=days(*year, *month)).contains(day));
    let good_clock = match numbers(clock, ':', 2).as_deref() {
        Some([hour, minute]) => *hour < 24 && *minute < 60 && fraction.is_none(),
        Some([hour, minute, second]) => *hour < 24 && *minute < 60 && *second <= 60,
        _ => false,
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let good_zone = match zone {
        "" | "Z" => true,
        _ => match numbers(&zone[1..], ':', 2).as_deref() {
            Some([hour]) => *hour < 24,
            Some([hour, minute]) => *hour < 24 && *minute < 60,
            _ => false,
        },
    };
    good_date
        && good_clock
        && good_zone
        && date_is_basic != clock.contains(':')
        && fraction.is_none_or(digits)
}

fn days(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// Whether it is a UUID as Asterisk's dialplan makes them, with or without dashes.
pub fn is_uuid(text: &str) -> bool {
    let dashed = text.len() == 36;
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 if dashed => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    matches!(text.len(), 32 | 36) && text.bytes().enumerate().all(fits)
}

/// A type that callhook knows is never taken for another one.
fn assert_known(kind: &EventType, name: &str) {
    assert_eq!(kind.name(), name);
    let known = EventType::KNOWN.iter().any(|known| known.name() == name);
    assert_eq!(known, !matches!(kind, EventType::Other(_)), "{name}");
    if let Ok(id) = EventId::given(name) {
        assert_eq!(EventId::from_text(&id.to_string()).to_string(), name);
    }
}

/// The envelope is JSON, has exactly its four fields in order, and says what was given.
pub fn assert_envelope(event: &Event, given: &Item<'_>, kind: &str, timestamp: Option<&str>) {
    let envelope = json::read(&event.body).expect("an envelope is JSON");
    let Json::Object(fields) = &envelope.value else { panic!("an envelope is an object") };
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["uuid", "type", "timestamp", "payload"]);
    let text = |name| envelope.field(name).and_then(Item::text).expect("it is a text");

    let uuid = text("uuid");
    assert_eq!(uuid, event.call.to_string());
    assert!(uuid.len() == 36 && is_uuid(uuid), "{uuid}");
    assert!(!uuid.bytes().any(|byte| byte.is_ascii_uppercase()), "{uuid}");
    let given_uuid = given.field("uuid").and_then(Item::text).expect("it was accepted");
    let digits = |text: &str| text.replace('-', "").to_ascii_lowercase();
    assert_eq!(digits(uuid), digits(given_uuid));

    assert_eq!(text("type"), kind);
    match timestamp {
        Some(timestamp) => assert_eq!(text("timestamp"), timestamp),
        None => assert_utc_millis(text("timestamp")),
    }
    let payload = envelope.field("payload").map(|payload| payload.raw);
    assert_eq!(payload, Some(given.field("payload").map_or("{}", |payload| payload.raw)));
}

/// As AVR writes the time: `2026-01-31T12:00:00.000Z`.
fn assert_utc_millis(text: &str) {
    let shape: String =
        text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

/// A refusal of what is not well formed is a 400 that says why, in one line.
pub fn assert_refused(fault: &HttpError) {
    assert_eq!(fault.status.as_u16(), 400, "{}", fault.error);
    assert!(!fault.error.is_empty());
}
