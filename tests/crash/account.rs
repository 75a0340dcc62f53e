//! What has to hold when all is over, for the notes of the callers and of a receiver, and its dead letters.
//!
//! Requests are looked at in the order in which they were sent: by life, then by arrival, as within a
//! life one call has one request at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::book::Arrival;
use crate::callers::{Call, Post};
use crate::letters::Letter;

/// One thing that should not be: which claim, and what about it.
type Fault = (&'static str, String);

/// A call with something wrong in it.
pub struct Broken {
    uuid: String,
    faults: Vec<Fault>,
    requests: Vec<String>,
}

#[derive(Default)]
pub struct Account {
    pub acknowledged: usize,
    /// Events that were answered with 200, acknowledged or not.
    pub delivered: usize,
    /// Further answers of 200 to the same event.
    pub duplicates: usize,
    /// Dead letters that were never sent.
    pub without_room: usize,
    pub broken: Vec<Broken>,
}

impl Account {
    /// How often each claim is broken, and all that is known of one call for each.
    pub fn explain(&self, logs: &[String]) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut examples: BTreeMap<&str, &Broken> = BTreeMap::new();
        for broken in &self.broken {
            for (claim, _) in &broken.faults {
                *counts.entry(claim).or_default() += 1;
                examples.entry(claim).or_insert(broken);
            }
        }
        let told: BTreeMap<&str, &Broken> =
            examples.values().map(|broken| (broken.uuid.as_str(), *broken)).collect();
        let mut text = format!("{} calls with faults: {counts:#?}\n", self.broken.len());
        for (uuid, Broken { faults, requests, .. }) in told {
            text += &format!("\ncall {uuid}\n");
            for (claim, what) in faults {
                text += &format!("  not {claim}: {what}\n");
            }
            text += &requests.join("\n");
            for (life, log) in logs.iter().enumerate() {
                for line in log.lines().filter(|line| line.contains(uuid)) {
                    text += &format!("\n  log of life {life}: {line}");
                }
            }
            text.push('\n');
        }
        text
    }
}

pub fn of(calls: &[Call], arrivals: &[Arrival], letters: &[Letter]) -> Account {
    let mut of_call: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for arrival in arrivals {
        of_call.entry(&arrival.call).or_default().push(arrival);
    }
    let mut dead: HashMap<&str, Vec<&Letter>> = HashMap::new();
    for letter in letters {
        dead.entry(&letter.call).or_default().push(letter);
    }
    let mut account = Account::default();
    for call in calls {
        let dead = dead.remove(call.uuid.as_str()).unwrap_or_default();
        let mut arrivals = of_call.remove(call.uuid.as_str()).unwrap_or_default();
        arrivals.sort_by_key(|arrival| arrival.life); // stable, so by arrival within a life
        forget_unpromised(call, &mut arrivals);
        let (delivered, duplicates, mut faults) = delivered(&arrivals);
        account.acknowledged += call.acknowledged().count();
        account.delivered += delivered.len();
        account.duplicates += duplicates;
        let unsent: BTreeSet<usize> = unsent(&dead).collect();
        account.without_room += unsent.len();
        faults.extend(promised(call, &delivered, &dead));
        faults.extend(call.posts.iter().filter_map(|post| whole(post, &arrivals, &unsent)));
        faults.extend(in_order(&arrivals, &unsent));
        faults.extend(unchanged(&arrivals));
        if !faults.is_empty() {
            let requests = arrivals.iter().map(|arrival| line(arrival)).collect();
            account.broken.push(Broken { uuid: call.uuid.clone(), faults, requests });
        }
    }
    let nobodys = of_call.keys().map(|uuid| Broken {
        uuid: (*uuid).to_owned(),
        faults: vec![("from a caller", "an event of a call that nobody made".to_owned())],
        requests: Vec::new(),
    });
    account.broken.extend(nobodys);
    account
}

/// A crash before the promise may come after the delivery. The caller then posts the event again, as a
/// new one under the same id; only what came of that is held to account.
fn forget_unpromised(call: &Call, arrivals: &mut Vec<&Arrival>) {
    let repeated = call.posts.iter().filter(|post| post.tries > 1);
    let repeated: HashSet<&str> =
        repeated.flat_map(|post| post.ids.iter().flatten()).map(String::as_str).collect();
    let mut last: HashMap<&str, usize> = HashMap::new();
    for arrival in arrivals.iter() {
        last.insert(&arrival.id, arrival.life);
    }
    arrivals.retain(|arrival| {
        !repeated.contains(arrival.id.as_str()) || last[arrival.id.as_str()] == arrival.life
    });
}

/// The events that were delivered, how many times more, and what is wrong with that: within a life no
/// event is delivered twice, and a crash lets at most one of a call be delivered again.
fn delivered<'a>(arrivals: &[&'a Arrival]) -> (HashMap<&'a str, usize>, usize, Vec<Fault>) {
    let mut lives: HashMap<&str, usize> = HashMap::new();
    let mut again: HashMap<usize, Vec<&str>> = HashMap::new();
    let mut numbers = HashMap::new();
    let mut faults = Vec::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.delivered()) {
        numbers.insert(arrival.id.as_str(), arrival.n);
        match lives.insert(&arrival.id, arrival.life) {
            None => {}
            Some(life) if life == arrival.life => {
                let text = format!("event {} twice in life {life}", arrival.n);
                faults.push(("delivered once without a crash", text));
            }
            Some(_) => again.entry(arrival.life).or_default().push(&arrival.id),
        }
    }
    for (life, ids) in again.iter().filter(|(_, ids)| ids.len() > 1) {
        let text = format!("{} events again in life {life}: {ids:?}", ids.len());
        faults.push(("one duplicate a crash", text));
    }
    (numbers, again.values().map(Vec::len).sum(), faults)
}

/// The numbers of those that found no room.
fn unsent(dead: &[&Letter]) -> impl Iterator<Item = usize> {
    dead.iter().filter(|letter| letter.code == "ERR_QUEUE_FULL").map(|letter| letter.n)
}

/// Every acknowledged event is delivered, or a dead letter, under its id.
fn promised(call: &Call, delivered: &HashMap<&str, usize>, dead: &[&Letter]) -> Vec<Fault> {
    let tries = |n: usize| {
        let post = call.posts.iter().find(|post| post.numbers.contains(&n));
        post.map_or(0, |post| post.tries)
    };
    let broken = call.acknowledged().filter_map(|(id, n)| match delivered.get(id) {
        None if dead.iter().any(|letter| letter.id == id && letter.n == n) => None,
        None => Some(("delivered", format!("event {n}, {id}, posted {} times", tries(n)))),
        Some(other) if *other != n => Some(("its own id", format!("event {n}, {id}: {other}"))),
        Some(_) => None,
    });
    broken.collect()
}

/// An array that was acknowledged arrives as a whole. Of another one a part may have been delivered
/// before the crash.
fn whole(post: &Post, arrivals: &[&Arrival], unsent: &BTreeSet<usize>) -> Option<Fault> {
    post.ids.as_ref()?;
    let came = arrivals.iter().map(|arrival| arrival.n).chain(unsent.iter().copied());
    let came: HashSet<usize> = came.filter(|n| post.numbers.contains(n)).collect();
    (!came.is_empty() && came.len() < post.numbers.len())
        .then(|| ("a whole array", format!("of {:?} came only {came:?}", post.numbers)))
}

/// Events come in the order they were accepted, an event again only if it was the last that was sent;
/// and they are numbered without a gap but for those without room at most, from 1 anew only where a crash lies between.
fn in_order(arrivals: &[&Arrival], unsent: &BTreeSet<usize>) -> Vec<Fault> {
    let mut known: HashSet<&str> = HashSet::new();
    let mut latest: Option<&Arrival> = None; // of those that came for the first time
    let mut before: Option<&Arrival> = None;
    let mut faults = Vec::new();
    for after in arrivals {
        let first = known.insert(&after.id);
        if let Some(before) = before.filter(|before| before.id != after.id) {
            let what = |now: u64, then: u64| format!("{now} after {then}, event {}", after.n);
            // After a crash the number of one without room is given again, if none waits behind it.
            let gap = unsent.iter().filter(|n| (before.n + 1..after.n).contains(n)).count() as u64;
            let next = before.sequence + 1..=before.sequence + 1 + gap;
            let anew = before.life < after.life && after.sequence <= 1 + gap;
            if !first {
                faults.push(("again only the last", what(after.n as u64, before.n as u64)));
            } else if !next.contains(&after.sequence) && !anew {
                faults.push(("in sequence", what(after.sequence, before.sequence)));
            }
        }
        if first {
            if let Some(latest) = latest.filter(|latest| after.n <= latest.n) {
                faults.push(("in order", format!("event {} after event {}", after.n, latest.n)));
            }
            latest = Some(after);
        }
        before = Some(after);
    }
    faults
}

/// An id has one body and one sequence number for ever, and within a life its attempts count up.
fn unchanged(arrivals: &[&Arrival]) -> Vec<Fault> {
    let mut last: HashMap<&str, &Arrival> = HashMap::new();
    let mut faults = Vec::new();
    for arrival in arrivals {
        let Some(before) = last.insert(&arrival.id, arrival) else { continue };
        if before.body != arrival.body {
            let text = format!("{}: {} {}", arrival.id, before.body, arrival.body);
            faults.push(("one body", text));
        }
        if before.sequence != arrival.sequence {
            let text = format!("event {}: {} and {}", arrival.n, before.sequence, arrival.sequence);
            faults.push(("one sequence number", text));
        }
        // While the receiver counts as down, a 503 spends no attempt.
        let spent = before.attempt + 1 == arrival.attempt;
        let probe = before.status == 503 && before.attempt == arrival.attempt;
        if before.life == arrival.life && !spent && !probe {
            let text = format!("attempt {} after {}", arrival.attempt, before.attempt);
            faults.push(("attempts counted", format!("event {}: {text}", arrival.n)));
        }
    }
    faults
}

fn line(arrival: &Arrival) -> String {
    let Arrival { life, id, n, sequence, attempt, status, .. } = arrival;
    let status = if *status != 200 || arrival.delivered() { *status } else { 0 };
    format!("  life {life}: event {n}, sequence {sequence}, attempt {attempt} -> {status}, {id}")
}
