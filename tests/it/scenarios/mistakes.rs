//! What is wrong with a file is told with its place, and every limit is kept.

use callhook::workbench::scenario::read::MAX_MISTAKES;
use callhook::workbench::scenario::script::{MAX_EVENTS, MAX_STEPS, MAX_TIMES};
use callhook::workbench::scenario::text::{MAX_ENTRIES, MAX_NAME, MAX_TEXT};
use callhook::workbench::scenario::time::MAX_TIME;
use callhook::workbench::scenario::{LoadError, MAX_FILE, Scenario};

use super::{script, talk};

/// The mistakes in a file, each as `line:column: text`.
fn mistakes(source: &str) -> Vec<String> {
    let mistakes = Scenario::parse("x.toml", source).expect_err("a mistake");
    let shown = mistakes.iter().map(ToString::to_string);
    shown.map(|shown| shown.strip_prefix("x.toml:").expect("the file's name").to_owned()).collect()
}

/// The one mistake in a file.
fn mistake(source: &str) -> String {
    let mut mistakes = mistakes(source);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes.remove(0)
}

#[test]
fn a_mistake_is_told_with_its_file_line_and_column() {
    let found = Scenario::parse("dir/mine.toml", &talk(r#"{ agemt = "Hi" }"#)).unwrap_err();
    assert_eq!((found[0].file.as_str(), found[0].line, found[0].column), ("dir/mine.toml", 4, 3));
    let shown = found[0].to_string();
    assert!(
        shown.starts_with("dir/mine.toml:4:3: a step has no `agemt`; did you mean `agent`?"),
        "{shown}"
    );
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let told = mistake(&talk(r#"{ user = "Zoë Nguyễn", takse = 3 }"#));
    assert!(told.starts_with("4:24: "), "{told}");
}

#[test]
fn all_mistakes_are_told_at_once_and_in_the_files_order() {
    let told = mistakes(
        "sed = 1\n[lists]\ncall = [\"x\"]\n[[script]]\nwieght = 2\nsteps = [\n{ started = {} },\n{ user = 5 },\n{ pause = -1 },\n]",
    );
    let starts = ["1:1:", "3:1:", "5:1:", "8:10:", "9:11:"];
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{start} {told}");
    }
    assert_eq!(told.len(), starts.len(), "{told:#?}");
}

#[test]
fn a_mistake_is_not_told_again_at_every_step_after_it() {
    let told = mistakes(&script(
        "{ strated = {} },\n{ agent = \"a\" },\n{ barge_in = 1 },\n{ user = \"b\" },\n{ hang_up = \"idle\" }",
    ));
    let [misspelt, missing] = told.as_slice() else { panic!("{told:#?}") };
    assert!(misspelt.starts_with("3:3: a step has no `strated`"), "{misspelt}");
    assert!(missing.starts_with("4:1: agent cannot come here"), "{missing}");
}

/// Each kind of mistake in steps, its place and a part of what is said.
const WRONG_STEPS: [(&str, &str, &str); 29] = [
    (r#"{ agent = "Hi", user = "Ho" }"#, "4:1:", "one thing: not both agent and user"),
    ("{ after = 5 }", "4:1:", "a step is one of initiated,"),
    ("5", "4:1:", "a step: expected a table, found 5"),
    ("{ user = 5 }", "4:10:", "user: invalid type: integer `5`, expected a string"),
    (r#"{ user = "a {{ b" }"#, "4:13:", "{{ without }}"),
    (r#"{ user = "a {{caler}}" }"#, "4:13:", "did you mean {{caller}}?"),
    (r#"{ user = "x", every = 5 }"#, "4:15:", "`every` does not go with user"),
    (r#"{ user = "x", steps = [] }"#, "4:15:", "`steps` does not go with user"),
    ("{ pause = -1 }", "4:11:", "integer `-1`, expected a whole number from 0 to 3600000"),
    ("{ pause = 1.5 }", "4:11:", "expected milliseconds, or one of { uniform"),
    ("{ pause = \"2s\" }", "4:11:", "found \"2s\""),
    ("{ pause = { unifrom = [1, 2] } }", "4:13:", "did you mean `uniform`?"),
    ("{ pause = { uniform = [2, 1] } }", "4:23:", "2 is more than 1"),
    ("{ pause = { uniform = [2] } }", "4:23:", "invalid length 1, expected an array of length 2"),
    ("{ pause = { normal = 7 } }", "4:22:", "integer `7`, expected an array of length 2"),
    ("{ pause = { exponential = [7] } }", "4:27:", "sequence, expected a whole number"),
    ("{ pause = { } }", "4:11:", "pause: expected milliseconds"),
    ("{ pause = { exponential = 1, normal = [1, 2] } }", "4:11:", "pause: expected milliseconds"),
    (r#"{ dtmf = "12x" }"#, "4:10:", "expected keys out of 0123456789*#ABCD"),
    (r#"{ dtmf = "" }"#, "4:10:", "expected keys"),
    (r#"{ dtmf = "{{call}}" }"#, "4:10:", "expected keys"),
    ("{ barge_in = 5 }", "4:1:", "barge_in follows the agent's words"),
    ("{ started = {} }", "4:1:", "the call is started already"),
    ("{ initiated = {} }", "4:1:", "initiated is a call's first step"),
    (r#"{ event = "a b" }"#, "4:11:", "expected an event type"),
    (r#"{ event = "x", payload = {}, json = "{}" }"#, "4:37:", "use one"),
    (r#"{ event = "x", json = "{" }"#, "4:23:", "json: EOF while parsing"),
    (r#"{ event = "x", json = "[]" }"#, "4:23:", "expected a JSON object"),
    ("{ event = \"x\", payload = { a = inf } }", "4:32:", "one that JSON can hold"),
];

#[test]
fn every_kind_of_mistake_in_a_step_has_its_place_and_its_word() {
    for (step, place, part) in WRONG_STEPS {
        let told = mistake(&talk(step));
        assert!(told.starts_with(place) && told.contains(part), "{step}\n  {told}");
    }
}

#[test]
fn every_kind_of_mistake_in_a_repeat_has_its_place_and_its_word() {
    for (step, place, part) in [
        ("{ repeat = 2 }", "4:1:", "repeat needs steps"),
        ("{ repeat = 1001, steps = [] }", "4:12:", "from 0 to 1000"),
        ("{ repeat = { uniform = [5, 4] }, steps = [] }", "4:28:", "from 5 to 1000"),
        ("{ repeat = { normal = [5, 4] }, steps = [] }", "4:14:", "did you mean `uniform`"),
        ("{ repeat = 2, steps = [{ lost = true }] }", "4:23:", "a call cannot end in repeat"),
        (
            "{ repeat = 2, steps = [{ repeat = 2, steps = [] }] }",
            "4:24:",
            "repeat cannot be nested",
        ),
        ("{ repeat = 2, steps = [{ barge_in = 2 }] }", "4:24:", "barge_in follows"),
        (r#"{ repeat = 2, after = 1, steps = [{ usr = "a" }] }"#, "4:37:", "did you mean `user`?"),
    ] {
        let told = mistakes(&talk(step)).remove(0);
        assert!(told.starts_with(place) && told.contains(part), "{step}\n  {told}");
    }
}

#[test]
fn every_kind_of_mistake_around_the_steps_has_its_place_and_its_word() {
    let lost = "[[script]]\nsteps = [{ lost = true }]\n";
    for (source, place, part) in [
        (String::new(), "1:1:", "needs at least one [[script]]"),
        ("x = [1,".to_owned(), "1:8:", "unclosed array"),
        ("[[script]\n".to_owned(), "1:", ""),
        ("a = 1\na = 2\n".to_owned(), "2:1:", "duplicate key"),
        ("script = 5\n".to_owned(), "1:10:", "script: expected a list, found 5"),
        ("[[script]]\n".to_owned(), "1:1:", "a script needs steps"),
        ("[[script]]\nsteps = 5".to_owned(), "2:9:", "steps: expected a list, found 5"),
        ("[[script]]\nsteps = []".to_owned(), "2:9:", "the last step of a script says how it ends"),
        (
            format!("seed = -1\n{lost}"),
            "1:8:",
            "seed: invalid value: integer `-1`, expected a whole number",
        ),
        (format!("seed = \"x\"\n{lost}"), "1:8:", "string \"x\", expected a whole number"),
        (format!("description = 5\n{lost}"), "1:15:", "description: invalid type: integer `5`"),
        (format!("call_ended_details = 1\n{lost}"), "1:22:", "integer `1`, expected a boolean"),
        (format!("lists = 5\n{lost}"), "1:9:", "lists: expected a table, found 5"),
        (format!("[lists]\nn = [\"x\"]\n{lost}"), "2:1:", "`n` is taken"),
        (format!("[lists]\n\"a b\" = [\"x\"]\n{lost}"), "2:1:", "letters, digits and _"),
        (format!("[lists]\na = []\n{lost}"), "2:5:", "a has 0 entries"),
        (
            format!("[lists]\na = [1]\n{lost}"),
            "2:6:",
            "a: invalid type: integer `1`, expected a string",
        ),
        (
            format!("{lost}weight = -1\n"),
            "3:10:",
            "weight: invalid value: integer `-1`, expected a whole number",
        ),
        (format!("{lost}weight = 0\n"), "1:1:", "no script has a weight above 0"),
        (format!("{lost}name = \"\"\n"), "3:8:", "name is empty"),
        (
            script("{ initiated = {} }, { user = \"x\" }, { lost = true }"),
            "3:21:",
            "{ started = {} } comes first",
        ),
        (script("{ lost = true }, { started = {} }"), "3:18:", "nothing follows the end of a call"),
        (script("{ started = {} }, { abandoned = true }"), "3:19:", "after that it is lost = true"),
        (script("{ lost = false }"), "3:10:", "lost = true, or no lost at all"),
        (script("{ started = 1 }, { lost = true }"), "3:13:", "a payload: expected a table"),
        (
            script("{ started = {} }, { hang_up = \"tired\" }"),
            "3:31:",
            "expected one of hangup, agent_hangup, transfer, sts_closed",
        ),
        (script("{ started = {} }, { hang_up = [] }"), "3:31:", "expected at least one reason"),
    ] {
        let told = mistakes(&source).remove(0);
        assert!(told.starts_with(place) && told.contains(part), "{source}\n  {told}");
    }
}

#[test]
fn what_a_file_writes_is_told_without_what_a_terminal_obeys() {
    let told = mistake(&talk("{ \"us\\u001ber\" = 1, pause = 1 }"));
    assert!(!told.contains('\u{1b}') && told.contains("us\u{fffd}er"), "{told:?}");
}

/// A limit: a file just inside it is taken, one just outside is refused with this word.
fn limit(inside: &str, outside: &str, word: &str) {
    if let Err(told) = Scenario::parse("inside", inside) {
        panic!("{word}: {told:?}");
    }
    let told = mistakes(outside);
    assert!(told.iter().any(|told| told.contains(word)), "{word}: {told:#?}");
}

#[test]
fn every_limit_is_kept() {
    let padded = |length: usize| {
        let file = talk("{ pause = 1 }");
        let padding = "#".repeat(length - file.len());
        file + &padding
    };
    limit(&padded(MAX_FILE), &padded(MAX_FILE + 1), "16777216 bytes");
    let text = |length: usize| talk(&format!("{{ user = \"{}\" }}", "x".repeat(length)));
    limit(&text(MAX_TEXT), &text(MAX_TEXT + 1), "at most 32768 are taken");
    let time = |millis: u32| talk(&format!("{{ pause = {millis} }}"));
    limit(&time(MAX_TIME), &time(MAX_TIME + 1), "from 0 to 3600000");
    let steps = |count: usize| talk(&vec!["{ pause = 1 }"; count - 2].join(","));
    limit(&steps(MAX_STEPS), &steps(MAX_STEPS + 1), "20001 steps");
    let name = |length: usize| {
        talk("{ pause = 1 }").replace("steps", &format!("name = \"{}\"\nsteps", "x".repeat(length)))
    };
    limit(&name(MAX_NAME), &name(MAX_NAME + 1), "at most 64 are taken");
    let entries = |count: usize| {
        format!("[lists]\na = [{}]\n{}", vec!["\"x\""; count].join(","), talk("{ pause = 1 }"))
    };
    limit(&entries(MAX_ENTRIES), &entries(MAX_ENTRIES + 1), "has 10001 entries");
    let lists = |count: usize| {
        let lists: String = (0..count).map(|n| format!("l{n} = [\"x\"]\n")).collect();
        format!("[lists]\n{lists}{}", talk("{ pause = 1 }"))
    };
    limit(&lists(100), &lists(101), "101 lists");
}

#[test]
fn the_events_of_a_call_are_counted_at_their_most() {
    // With call_started and call_ended, ten keys a thousand times less two come to the limit.
    let most = |keys: usize| {
        let (rounds, rest) = (keys / 1000, keys % 1000);
        let rest = if rest > 0 {
            format!(", {{ dtmf = \"{}\" }}", "1".repeat(rest))
        } else {
            String::new()
        };
        let dtmf = "1".repeat(rounds);
        let times = format!("{{ uniform = [0, {MAX_TIMES}] }}");
        talk(&format!("{{ repeat = {times}, steps = [{{ dtmf = \"{dtmf}\" }}] }}{rest}"))
    };
    limit(&most(MAX_EVENTS - 2), &most(MAX_EVENTS - 1), "can come to 10001 events");
}

#[test]
fn a_file_full_of_mistakes_tells_the_first_of_them() {
    let told = mistakes(&talk(&vec!["{ usr = 1 }"; 100].join(",\n")));
    assert_eq!(told.len(), MAX_MISTAKES);
}

#[test]
fn what_is_no_scenario_at_all_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin.toml");
    std::fs::write(&path, b"a = 1\nb = \"\xe9\"\n").unwrap();
    let LoadError::Wrong(told) = Scenario::load(path.to_str().unwrap()).unwrap_err() else {
        panic!("a place in the file")
    };
    assert_eq!((told[0].line, told[0].column), (2, 6), "{told:?}");
    let missing = Scenario::load("bookng").unwrap_err().to_string();
    assert!(missing.contains("did you mean booking?"), "{missing}");
    let long = dir.path().join("long.toml");
    std::fs::File::create(&long).unwrap().set_len(MAX_FILE as u64 + 1).unwrap();
    let error = Scenario::load(long.to_str().unwrap()).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge(_)), "{error}");
}
