//! Scenario files: the shipped ones, the mistakes in others, and what a call of them comes to.

mod mistakes;

use std::collections::BTreeSet;
use std::time::Duration;

use callhook::event::{EventType, Payload};
use callhook::workbench::scenario::script::{MAX_EVENTS, MAX_JSON};
use callhook::workbench::scenario::{Plan, Planned, SHIPPED, Scenario, plan, record};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(source: &str) -> Scenario {
    Scenario::parse("test.toml", source).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// A file with one script of these steps.
fn script(steps: &str) -> String {
    format!("[[script]]\nsteps = [\n{steps}\n]\n")
}

/// A file with one call that is started, goes through these steps and ends.
fn talk(steps: &str) -> String {
    script(&format!("{{ started = {{}} }},\n{steps},\n{{ hang_up = \"hangup\" }},"))
}

/// The plan of one call of this file.
fn plan_of(source: &str) -> Plan {
    plan(&[parse(source)], 1, 1)
}

/// Milliseconds, type and payload of each event.
fn events(plan: &Plan) -> Vec<(u128, String, Value)> {
    let event = |event: &Planned| {
        let payload = serde_json::from_str(event.payload.as_str()).unwrap();
        (event.at.as_millis(), event.kind.to_string(), payload)
    };
    plan.events.iter().map(event).collect()
}

fn kinds(plan: &Plan) -> Vec<&str> {
    plan.events.iter().map(|event| event.kind.name()).collect()
}

#[test]
fn every_shipped_scenario_parses_says_what_it_tells_and_plays() {
    for (name, _) in SHIPPED {
        let scenario = Scenario::load(name).unwrap_or_else(|error| panic!("{error}"));
        assert!(!scenario.description.is_empty(), "{name}");
        assert_eq!(scenario.seed, None, "{name}: each run is another one");
        let scenarios = [scenario];
        let mut scripts = BTreeSet::new();
        for number in 1..=200 {
            let plan = plan(&scenarios, 7, number);
            assert!(!plan.events.is_empty(), "{name}");
            assert!(plan.length < Duration::from_secs(3 * 3600), "{name}: {:?}", plan.length);
            let text = plan.events.iter().map(|event| event.payload.as_str().to_owned());
            assert!(!text.collect::<String>().contains("{{"), "{name}: a variable is left");
            scripts.insert(plan.script);
        }
        assert_eq!(scripts.len(), scenarios[0].scripts.len(), "{name}: every script is played");
    }
}

#[test]
fn the_shipped_scenarios_tell_the_stories_that_they_are_named_for() {
    let plans = |name: &str| -> Vec<Plan> {
        let scenarios = [Scenario::load(name).unwrap()];
        (1..=100).map(|number| plan(&scenarios, 3, number)).collect()
    };
    let all = |name: &str, holds: &dyn Fn(&[&str]) -> bool| {
        plans(name).iter().all(|plan| holds(&kinds(plan)))
    };
    assert!(all("booking", &|kinds| kinds.last() == Some(&"call_ended")));
    assert!(all("ivr", &|kinds| kinds.iter().filter(|kind| **kind == "dtmf_digit").count() > 4));
    assert!(all("impatient", &|kinds| kinds.contains(&"interruption")));
    assert!(all("abandoned", &|kinds| kinds == ["call_initiated"]));
    assert!(all("long", &|kinds| kinds.len() >= 60));
    let lost = plans("lost");
    let ended = lost.iter().filter(|plan| kinds(plan).contains(&"call_ended")).count();
    assert!((5..50).contains(&ended), "most are lost: {ended} of 100 ended");
}

#[test]
fn a_call_is_played_as_its_steps_say() {
    let plan = plan_of(
        r##"
call_ended_details = true
[lists]
guest = ["Ada"]
[[script]]
name = "one"
steps = [
    { initiated = { from = "2000", to = "5001", n = 1, ok = true, list = [1.5, "{{guest}}"] } },
    { after = 500, started = {} },
    { agent = "Good evening", takes = 2000 },
    { barge_in = 700 },
    { user = "Hello, {{guest}} here", takes = 1000 },
    { dtmf = "1#", every = 250 },
    { pause = 4000 },
    { after = 50, event = "error", payload = { message = "x" } },
    { event = "tool", json = '{"b":1.50,"a":"{{guest}}"}' },
    { repeat = 2, steps = [{ agent = "Hi", takes = 10 }] },
    { hang_up = "idle" },
]"##,
    );
    let says = |role: &str, text: &str| json!({"role": role, "text": text});
    let expected = [
        (
            0,
            "call_initiated",
            json!({"from": "2000", "to": "5001", "n": 1, "ok": true, "list": [1.5, "Ada"]}),
        ),
        (500, "call_started", json!({})),
        (500, "transcription", says("agent", "Good evening")),
        (1200, "interruption", json!({})),
        (2200, "transcription", says("user", "Hello, Ada here")),
        (2200, "dtmf_digit", json!({"digit": "1"})),
        (2450, "dtmf_digit", json!({"digit": "#"})),
        (6500, "error", json!({"message": "x"})),
        (6500, "tool", json!({"b": 1.50, "a": "{{guest}}"})),
        (6500, "transcription", says("agent", "Hi")),
        (6510, "transcription", says("agent", "Hi")),
        (6520, "call_ended", json!({"reason": "idle", "duration_ms": 6020})),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(at, kind, payload)| (at, kind.to_owned(), payload)).collect();
    assert_eq!(events(&plan), expected);
    assert_eq!(plan.script, "one");
    assert_eq!(plan.events[0].payload.as_str().find("\"from\""), Some(1), "in the file's order");
    assert_eq!(plan.events[8].payload.as_str(), r#"{"b":1.50,"a":"{{guest}}"}"#, "json as it is");
}

#[test]
fn nobody_breaks_into_words_that_are_over() {
    let plan = plan_of(&talk(r#"{ agent = "Hi", takes = 300 }, { barge_in = 5000 }"#));
    assert_eq!(events(&plan)[2], (300, "interruption".to_owned(), json!({})));
}

#[test]
fn words_take_as_long_as_they_are_unless_the_step_says_otherwise() {
    let plan = plan_of(&talk(r#"{ user = "0123456789" }, { user = "0123456789", takes = 5 }"#));
    let times: Vec<u128> = events(&plan).iter().map(|(at, _, _)| *at).collect();
    assert_eq!(times, [0, 600, 605, 605]);
}

#[test]
fn variables_hold_throughout_a_call_or_are_picked_anew() {
    let source = format!(
        "[lists]\nx = [\"a\", \"b\", \"c\", \"d\"]\n{}",
        talk(
            r#"{ repeat = 50, steps = [{ user = "{{x}} {{ any x }} {{call}} {{n}} {{caller}} {{channel}}" }] }"#
        )
    );
    let scenarios = [parse(&source)];
    let plan = plan(&scenarios, 5, 12);
    let texts: Vec<String> = events(&plan)
        .into_iter()
        .filter_map(|(_, _, payload)| payload["text"].as_str().map(str::to_owned))
        .collect();
    let words = |n: usize| -> BTreeSet<&str> {
        texts.iter().map(|text| text.split(' ').nth(n).unwrap()).collect()
    };
    assert_eq!(words(0).len(), 1, "the same throughout");
    assert_eq!(words(1).len(), 4, "each of them in fifty throws");
    assert_eq!(words(2), BTreeSet::from([plan.call.to_string().as_str()]));
    assert_eq!(words(3), BTreeSet::from(["12"]));
    let caller = *words(4).first().unwrap();
    assert!(caller.starts_with("+441632960"), "{caller}");
    assert_eq!(words(5), BTreeSet::from([format!("PJSIP/{caller}-0000000c").as_str()]));
}

#[test]
fn a_list_named_caller_is_who_calls() {
    let source = format!(
        "[lists]\ncaller = [\"2000\"]\n{}",
        talk(r#"{ user = "{{caller}} {{channel}}" }, { dtmf = "{{caller}}" }"#)
    );
    let plan = plan_of(&source);
    assert_eq!(events(&plan)[1].2["text"], "2000 PJSIP/2000-00000001");
    assert_eq!(kinds(&plan).len(), 7);
}

#[test]
fn weights_say_how_often_a_script_is_played() {
    let one = |name: &str, weight: u32| {
        format!(
            "[[script]]\nname = \"{name}\"\nweight = {weight}\nsteps = [{{ started = {{}} }}, {{ lost = true }}]\n"
        )
    };
    let scenarios = [parse(&(one("often", 3) + &one("rarely", 1) + &one("never", 0)))];
    let played = |name: &str| {
        (1..=1000).filter(|number| plan(&scenarios, 9, *number).script == name).count()
    };
    let [often, rarely, never] = ["often", "rarely", "never"].map(played);
    assert_eq!(never, 0);
    assert!((700..800).contains(&often) && often + rarely == 1000, "{often} and {rarely}");
}

#[test]
fn several_files_are_played_alike_and_a_file_named_twice_twice_as_often() {
    let scenarios = ["abandoned", "lost", "lost"].map(|name| Scenario::load(name).unwrap());
    let plans = (1..=900).map(|number| plan(&scenarios, 4, number));
    let abandoned = plans.filter(|plan| plan.scenario == "abandoned").count();
    assert!((250..350).contains(&abandoned), "{abandoned} of 900");
}

#[test]
fn the_same_seed_gives_the_same_calls_and_another_others() {
    let scenarios = SHIPPED.map(|(name, _)| Scenario::load(name).unwrap());
    let told = |seed| -> String {
        let plans = (1..=50).map(|number| format!("{:?}", plan(&scenarios, seed, number)));
        plans.collect()
    };
    assert_eq!(told(1), told(1));
    assert_ne!(told(1), told(2));
    // A call is what it is, whether the calls before it were played or not.
    let alone = format!("{:?}", plan(&scenarios, 1, 50));
    assert!(told(1).ends_with(&alone));
}

fn time() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..5000_u32).prop_map(|millis| millis.to_string()),
        (0..500_u32, 0..500_u32).prop_map(|(a, b)| format!("{{ uniform = [{a}, {}] }}", a + b)),
        (0..500_u32, 0..500_u32).prop_map(|(a, b)| format!("{{ normal = [{a}, {b}] }}")),
        (0..500_u32).prop_map(|mean| format!("{{ exponential = {mean} }}")),
    ]
}

/// A step that can stand anywhere in a conversation, and how many events it makes.
fn step() -> impl Strategy<Value = (String, usize)> {
    prop_oneof![
        time().prop_map(|time| (format!("{{ pause = {time} }}"), 0)),
        time().prop_map(|time| (format!("{{ agent = \"{{{{any x}}}}\", takes = {time} }}"), 1)),
        (time(), time()).prop_map(|(after, time)| {
            (format!("{{ after = {after}, agent = \"{{{{x}}}} ü\" }}, {{ barge_in = {time} }}"), 2)
        }),
        time().prop_map(|time| (format!("{{ after = {time}, user = \"{{{{caller}}}}\" }}"), 1)),
        ("[0-9*#A-D]{1,9}", time()).prop_map(|(keys, time)| (
            format!("{{ dtmf = \"{keys}\", every = {time} }}"),
            keys.len()
        )),
        time().prop_map(|time| (format!("{{ after = {time}, event = \"tool\" }}"), 1)),
        (0..9_usize)
            .prop_map(|n| (format!("{{ repeat = {n}, steps = [{{ user = \"{{{{n}}}}\" }}] }}"), n)),
    ]
}

/// An event of this type and payload.
fn planned(at: u64, kind: &str, payload: &str) -> Planned {
    let payload = serde_json::value::RawValue::from_string(payload.to_owned()).unwrap();
    let payload = Payload::from_json(payload).unwrap();
    Planned { at: Duration::from_millis(at), kind: kind.parse().unwrap(), payload }
}

#[test]
fn a_call_that_no_scenario_can_hold_is_not_recorded() {
    let payload = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
    let call = |count: usize, length: usize| vec![planned(0, "x", &payload(length)); count];
    for (events, holds) in [
        (call(1, MAX_JSON), true),
        (call(1, MAX_JSON + 1), false),
        (call(MAX_EVENTS, 9), true),
        (call(MAX_EVENTS + 1, 9), false),
        (Vec::new(), false),
    ] {
        let text = record::script("", &events);
        assert_eq!(text.is_some(), holds, "{} events", events.len());
        if let Some(text) = text {
            assert_eq!(plan_of(&text).events.len(), events.len());
        }
    }
}

#[test]
fn a_recorded_call_reads_well() {
    let events = [planned(0, "call_started", "{}"), planned(1500, "x", r#"{"a":"it's"}"#)];
    assert_eq!(
        record::script("one", &events).unwrap(),
        "[[script]]\nname = 'one'\nsteps = [\n    { after = 0, event = 'call_started', json = '{}' },\n    \
         { after = 1500, event = 'x', json = \"{\\\"a\\\":\\\"it's\\\"}\" },\n    { lost = true },\n]\n"
    );
}

proptest! {
    /// A call that was recorded is played again as it was, byte for byte.
    #[test]
    fn a_recorded_call_is_played_as_it_was(
        name in "\\PC{0,80}",
        call in prop::collection::vec((0..=3_600_000_u64, "[!-~]{1,64}", any::<String>()), 1..20),
    ) {
        let mut now = 0;
        let events: Vec<Planned> = call.iter().map(|(after, kind, text)| {
            now += after;
            planned(now, kind, &format!("{{ {} :\n\t1.50 }}", json!(text)))
        }).collect();
        let text = record::script(&name, &events).unwrap();
        let played = plan_of(&text);
        prop_assert_eq!(format!("{:?}", played.events), format!("{events:?}"));
    }

    /// Whatever the steps: as many events as they say, in time's order, begun and ended once, and
    /// the same each time.
    #[test]
    fn a_plan_keeps_its_promises(steps in prop::collection::vec(step(), 1..20), seed: u64, number in 1..1000_u64) {
        let (sources, counts): (Vec<String>, Vec<usize>) = steps.into_iter().unzip();
        let source = format!("[lists]\nx = [\"a\", \"bb\"]\n{}", talk(&sources.join(",\n")));
        let scenarios = [parse(&source)];
        let played = plan(&scenarios, seed, number);
        prop_assert_eq!(played.events.len(), counts.iter().sum::<usize>() + 2);
        prop_assert!(played.events.is_sorted_by_key(|event| event.at));
        prop_assert_eq!(&played.events.first().unwrap().kind, &EventType::CallStarted);
        prop_assert_eq!(&played.events.last().unwrap().kind, &EventType::CallEnded);
        prop_assert!(played.length >= played.events.last().unwrap().at);
        prop_assert_eq!(format!("{played:?}"), format!("{:?}", plan(&scenarios, seed, number)));
    }

    /// Whatever is in a file: a scenario or mistakes with places in it, and never a panic.
    #[test]
    fn any_text_is_a_scenario_or_has_a_place_where_it_is_wrong(
        steps in prop::collection::vec(step(), 1..6), cut in 0..400_usize, insert in "[\\PC]{0,3}",
    ) {
        let steps: Vec<String> = steps.into_iter().map(|(step, _)| step).collect();
        let mut source = talk(&steps.join(",\n"));
        let at = (cut..=source.len()).find(|at| source.is_char_boundary(*at)).unwrap_or(0);
        source.insert_str(at, &insert);
        if let Err(mistakes) = Scenario::parse("x", &source) {
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                let line = source.split('\n').nth(mistake.line - 1);
                prop_assert!(line.is_some_and(|line| mistake.column <= line.chars().count() + 2), "{mistake}");
            }
        }
    }
}
