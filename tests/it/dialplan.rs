//! `config/extensions.conf`, run line by line (`dialplan/reader.rs`): a caller is led to where callhook says, to
//! people if no agent served him, and nobody's words are taken for a part of the dialplan. Once against answers
//! of any kind, once against callhook itself.

mod reader;

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use callhook::bridge::life::EndReason;
use callhook::label::Label as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::reader::{Caller, Dialplan, End, LONGEST, Line, Outside, Query, Run};
use self::reader::{characters, closing, set_and_text};
use crate::support::asterisk::Asterisk;
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::{Wire, request};
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Session, Sts};
use crate::support::tools::Tools;

const TEXT: &str = include_str!("../../config/extensions.conf");
static PLAN: LazyLock<Dialplan> = LazyLock::new(|| Dialplan::read(TEXT));

/// Where its example leads callers to.
const PEOPLE: &str = "people,100,1";
/// How every reason ends a call that names no place to go to: with the caller served, or not. Those of
/// `EndReason`, and those for which a call never began.
const REASONS: [(&str, bool); 14] = [
    ("hangup", true),
    ("agent_hangup", true),
    ("sts_closed", true),
    ("idle", true),
    ("max_duration", true),
    // To a place that is not in the dialplan.
    ("transfer", false),
    ("sts_failed", false),
    ("sts_lost", false),
    ("protocol_error", false),
    ("limit", false),
    ("not_announced", false),
    ("shutdown", false),
    ("restart", false),
    ("of_tomorrow", false),
];
/// What nobody may smuggle in: `[`, `$`, quotes and the like.
const MEANINGFUL: &str = "\"'\\$(){}[]?:|&<> \n\r\t";

/// Who answers with whatever the test says, and takes every call.
#[derive(Clone, Default)]
struct Script {
    announced: String,
    /// To the first `next`, and to the second.
    next: [String; 2],
    standing: String,
    asked: Vec<Query>,
    dialled: Vec<String>,
}

impl Outside for Script {
    fn answer(&mut self, query: &Query) -> String {
        self.asked.push(query.clone());
        let path = query.url.strip_prefix("http://callhook:6001").expect("callhook's address");
        match path {
            "/call" => self.announced.clone(),
            path if path.ends_with("/next") => self.next[self.dialled.len().min(1)].clone(),
            _ => self.standing.clone(),
        }
    }

    fn dial(&mut self, arguments: &str) -> &'static str {
        self.dialled.push(arguments.to_owned());
        "ANSWER"
    }
}

impl Script {
    /// callhook, whose call ended for this reason.
    fn ended(reason: &str) -> Script {
        Script {
            announced: json!({ "sts_url": "ws://sts:6030/?from=2000", "override": false })
                .to_string(),
            standing: json!({ "state": "ended", "reason": reason, "duration_ms": 73210 })
                .to_string(),
            ..Script::default()
        }
    }

    fn run(&mut self) -> Run {
        PLAN.run("avr", caller(), self)
    }
}

fn caller() -> Caller {
    let channel = "PJSIP/2000-00000013".to_owned();
    Caller { number: "2000".to_owned(), dialled: "100".to_owned(), channel }
}

fn led_to_people() -> End {
    End::Led(PEOPLE.to_owned())
}

/// Every `${name}` and `${name(…)}` in the text, with the names that it stands in, the outermost first.
fn names(text: &str, outer: &[&str], all: &mut Vec<Vec<String>>) {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let inside = &rest[at + 2..];
        let end = closing(inside, '{', '}');
        let inner = &inside[..end];
        let name = inner.split(['(', ':']).next().unwrap_or_default();
        let path = [outer, &[name]].concat();
        all.push(path.iter().map(|name| (*name).to_owned()).collect());
        names(inner, &path, all);
        rest = &inside[end + 1..];
    }
}

fn names_of(line: &Line) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    names(&line.arguments, &[], &mut all);
    all
}

/// The sets of characters that the line's `FILTER`s leave.
fn sets_of(line: &Line) -> Vec<&str> {
    let begun = line.arguments.match_indices("FILTER(");
    begun.map(|(at, name)| set_and_text(&line.arguments[at + name.len()..]).0).collect()
}

#[test]
fn what_others_say_stands_inside_filter_alone_in_lines_that_are_switched_off_too() {
    let own = ["DIALPLAN_EXISTS", "DIALSTATUS", "FILTER", "LEN", "REGEX", "SHELL", "UUID"];
    let foreign = ["CALLERID", "CHANNEL", "CURL", "EXTEN", "UNIQUEID"];
    assert!(PLAN.lines.iter().any(|line| line.commented_out), "they are read");
    for line in &PLAN.lines {
        for path in names_of(line) {
            let [outer @ .., name] = &path[..] else { unreachable!("a path has a name") };
            if foreign.contains(&name.as_str()) {
                assert_eq!(outer.last().map(String::as_str), Some("FILTER"), "{line:?}");
            } else {
                assert!(own.contains(&name.as_str()) || name.starts_with("CALL_"), "{line:?}");
            }
        }
        for set in sets_of(line) {
            let left = characters(set);
            assert!(MEANINGFUL.chars().all(|char| !left.contains(&char)), "{line:?}");
        }
    }
}

#[test]
fn every_variable_with_a_value_of_others_is_set_once_filtered() {
    let used: BTreeSet<_> = PLAN.lines.iter().flat_map(names_of).flatten().collect();
    for name in used.iter().filter(|name| name.starts_with("CALL_")) {
        let set = format!("{name}=");
        let mut lines = PLAN.lines.iter().filter(|line| line.arguments.starts_with(&set));
        assert!(lines.any(|line| line.application == "Set"), "{name} has a value");
    }
}

#[test]
fn a_call_that_went_as_it_should_is_over() {
    let mut callhook = Script::ended("sts_closed");
    let run = callhook.run();
    assert_eq!(run.end, End::HungUp);
    let uuid = &run.variables["UUID"];
    assert_eq!(callhook.dialled, [format!("AudioSocket/callhook:5001/{uuid}/c(slin),,g")]);
    let asked: Vec<_> = callhook.asked.iter().map(|query| query.url.as_str()).collect();
    let of_call = format!("http://callhook:6001/call/{uuid}");
    let next = format!("{of_call}/next");
    assert_eq!(asked, ["http://callhook:6001/call", &next, &next, &of_call]);
    let body: Value = serde_json::from_str(callhook.asked[0].body.as_ref().unwrap()).unwrap();
    let payload = json!({
        "from": "2000", "to": "100", "uniqueid": "1700000000.7", "channel": "PJSIP/2000-00000013",
    });
    assert_eq!(body, json!({ "uuid": uuid, "payload": payload }));
}

#[test]
fn the_caller_never_waits_long_for_an_answer() {
    let mut callhook = Script::ended("sts_closed");
    callhook.run();
    let limits: Vec<_> = callhook.asked.iter().map(|query| query.timeout).collect();
    assert_eq!(
        limits,
        [7, 2, 2, 2],
        "above ROUTING_TIMEOUT, then above the second that it may take"
    );
    let connect = |line: &&Line| line.arguments == "CURLOPT(conntimeout)=2";
    assert_eq!(PLAN.lines.iter().filter(connect).count(), 1);
}

#[test]
fn a_caller_whom_the_receiver_sends_to_people_gets_there_before_any_agent() {
    let mut callhook =
        Script { next: [PEOPLE.into(), String::new()], ..Script::ended("sts_closed") };
    callhook.announced = json!({ "sts_url": null, "override": true }).to_string();
    assert_eq!(callhook.run().end, led_to_people());
    assert!(callhook.dialled.is_empty(), "no agent");
    assert_eq!(callhook.asked.len(), 2);
}

#[test]
fn a_transferred_caller_is_led_there() {
    for (reason, _) in REASONS {
        let next = [String::new(), PEOPLE.to_owned()];
        let mut callhook = Script { next, ..Script::ended(reason) };
        assert_eq!(callhook.run().end, led_to_people(), "{reason}");
        assert_eq!(callhook.asked.len(), 3, "the place is enough");
    }
}

#[test]
fn the_reason_says_whether_a_caller_still_needs_a_person() {
    for reason in EndReason::all() {
        assert!(REASONS.iter().any(|(known, _)| *known == reason.name()), "{reason:?}");
    }
    for (reason, served) in REASONS {
        let run = Script::ended(reason).run();
        let end = if served { End::HungUp } else { led_to_people() };
        assert_eq!(run.end, end, "{reason}");
        assert_eq!(run.used("Log"), !served, "an operator is told: {reason}");
    }
}

#[test]
fn a_place_that_the_dialplan_does_not_have_is_a_warning_and_the_call_goes_on() {
    let absent =
        ["demo,100,1", "people,101,1", "people,h,1", "people,i,1", "People,100,1", "x,y,1"];
    for place in absent {
        for next in [[place, ""], ["", place]] {
            let next = next.map(str::to_owned);
            let run = Script { next, ..Script::ended("transfer") }.run();
            assert_eq!(run.end, led_to_people(), "{place}");
            let (_, warning) = run.steps.iter().find(|(name, _)| name == "Log").expect("a warning");
            assert!(warning.contains(&format!("cannot go to {place}")), "{warning}");
        }
    }
}

/// What is no destination though it looks like one.
fn no_places() -> Vec<String> {
    let long = "x".repeat(5000);
    [
        "",
        " ",
        "\n",
        ",",
        ",,",
        ",,1",
        "people",
        "people,",
        "people,,",
        "people,,1",
        "people,100",
        "people,100,",
        "people,10",
        "people,100,2",
        "people,100,11",
        "people,100,1,1",
        "people,100,s",
        "people,100,+1",
        "people,100,-1",
        "people,100,1x",
        "100",
        "1",
        "agent",
        "done",
        "n",
        "s,1",
        "people,100,1\npeople,100,1",
        "people,100,1)}${SHELL(touch /tmp/x)}",
        "${EXTEN}",
        "people,${EXTEN},1",
        "$[1 + 1]",
        "\"",
        "\\",
        "people\\,100\\,1\\",
        "'",
        ")",
        "}",
        "]",
        "))):0:1",
        "people,100,1):0:10",
        "?done",
        "people,100,1?done:agent",
        "people&people,100,1:done",
        "<html><head><title>404 Not Found</title></head>\n<body>people,100,1</body></html>",
        r#"{"error":"a wrong secret"}"#,
        "Dial(PJSIP/0900@trunk)",
        &long,
        "people,100,1\0",
        "ｐｅｏｐｌｅ,100,1",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([format!("people,{long},1"), format!("{long},100,1"), format!("people,100,1{long}")])
    .collect()
}

/// Whether each value that a step was given is made of the file's own text and harmless characters.
fn assert_inert(run: &Run) {
    for (application, arguments) in run.steps.iter().filter(|(name, _)| name != "Set") {
        let harmful = |char: char| "\"'\\$[]{}\n\r\t;".contains(char);
        let regular = application == "GotoIf" || !arguments.contains(harmful);
        assert!(regular, "{application}({arguments})");
    }
    for (name, value) in run.variables.iter().filter(|(name, _)| name.starts_with("CALL_")) {
        assert!(!value.contains('$') && value.len() <= LONGEST, "{name} = {value}");
    }
}

#[test]
fn no_other_text_leads_anywhere_and_every_caller_ends_with_people() {
    for text in no_places() {
        for at in [0, 1] {
            let mut callhook = Script::ended("sts_failed");
            callhook.next[at].clone_from(&text);
            let run = callhook.run();
            assert_inert(&run);
            // What FILTER leaves of these is the example's place, to which it could as well have said so.
            assert_eq!(run.end, led_to_people(), "{text}");
            let warned =
                run.steps.iter().any(|(_, arguments)| arguments.contains("no agent for call"));
            let named = text.replace(|char: char| !char.is_ascii_alphanumeric() && char != ',', "");
            assert!(warned || named == PEOPLE, "by its reason, not by the text: {text}");
        }
    }
}

#[test]
fn whatever_fails_between_asterisk_and_callhook_leaves_the_caller_with_people() {
    let failures = [
        "",
        r#"{"error":"X-AVR-WEBHOOK-SECRET is missing or wrong"}"#,
        r#"{"error":"no call \"f00\" is known"}"#,
        r#"{"error":"callhook is stopping and takes no new calls"}"#,
        "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n",
        "404 page not found",
        r#"{"state":"live","reason":null,"duration_ms":null}"#,
        r#"{"state":"announced","reason":null,"duration_ms":null}"#,
        r#"{"state":"ended","reason":"sts_clo"#,
        r#"{"state":"ended","reason":"hangup"#,
    ];
    for failure in failures {
        let all = Script {
            announced: failure.to_owned(),
            next: [failure.to_owned(), failure.to_owned()],
            standing: failure.to_owned(),
            ..Script::default()
        };
        let run = all.clone().run();
        assert_eq!(run.end, led_to_people(), "{failure}");
        let later = Script { announced: Script::ended("").announced, ..all };
        assert_eq!(later.clone().run().end, led_to_people(), "after the announcement: {failure}");
    }
}

#[test]
fn a_callhook_that_does_not_answer_is_not_asked_again() {
    let mut nobody = Script::default();
    assert_eq!(nobody.run().end, led_to_people());
    assert_eq!((nobody.asked.len(), nobody.dialled.len()), (1, 0));
}

#[test]
fn without_people_the_caller_hears_a_tone_and_then_the_call_ends() {
    let alone = Dialplan::read(&TEXT[..TEXT.find("\n[people]").expect("the context")]);
    let run = alone.run("avr", caller(), &mut Script::default());
    assert_eq!(run.end, End::HungUp);
    assert!(run.used("Playtones") && run.used("Wait"));
}

/// People whose phone does not answer.
struct Nobody;

impl Outside for Nobody {
    fn answer(&mut self, query: &Query) -> String {
        panic!("nobody has to ask: {query:?}")
    }

    fn dial(&mut self, _arguments: &str) -> &'static str {
        "NOANSWER"
    }
}

#[test]
fn people_who_do_not_answer_leave_the_caller_with_a_tone() {
    let run = PLAN.run("people", caller(), &mut Nobody);
    assert_eq!(run.end, End::HungUp);
    assert!(run.used("Playtones") && run.used("Wait"));
}

#[test]
fn a_callers_own_number_cannot_break_the_announcement() {
    let hostile = [r#"1","to":"666"#, r"\", "2000)", "${EXTEN}", "a\tb", "1]},{", "$[1+1]"];
    for text in hostile {
        let mut callhook = Script::ended("sts_closed");
        let channel = format!("Local/{text}@avr-1;2");
        let caller = Caller { number: text.to_owned(), dialled: format!("1{text}"), channel };
        assert_inert(&PLAN.run("avr", caller, &mut callhook));
        let body = callhook.asked[0].body.as_ref().unwrap();
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(body["payload"].as_object().unwrap().len(), 4);
    }
}

/// Pieces of what a dialplan gives a meaning to, in any order, with other text between.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = [
        "people",
        "100",
        ",",
        ",1",
        "1",
        "avr",
        "done",
        "agent",
        "${",
        "}",
        "$[",
        "]",
        "(",
        ")",
        "\"",
        "\\",
        ":",
        "?",
        "&",
        "=",
        "\n",
        "\0",
        "SHELL(touch x)",
        "${SHELL(touch x)}",
        "${EXTEN}",
        "reason",
        "ended",
        "stateended",
        "hangup",
        "duration",
        "state",
        "-",
        "+",
        "#",
        "*",
        "_",
        "[0-9+*#]",
        "!",
        " ",
        "é",
    ];
    let piece = prop_oneof![4 => prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_but_a_place_of_the_dialplan_ever_comes_of_hostile_answers(
        announced in hostile(), first in hostile(), second in hostile(), standing in hostile(),
    ) {
        let mut callhook = Script { announced, next: [first, second], standing, ..Script::default() };
        let run = callhook.run();
        assert_inert(&run);
        match &run.end {
            End::HungUp => {}
            End::Led(place) => prop_assert!(PLAN.exists(place) && place.ends_with(",1"), "{place}"),
            End::Lost(why) => prop_assert!(false, "the call was lost: {why}"),
        }
        let uuid = &run.variables["UUID"];
        for dialled in &callhook.dialled {
            prop_assert_eq!(dialled, &format!("AudioSocket/callhook:5001/{uuid}/c(slin),,g"));
        }
        for query in &callhook.asked {
            prop_assert!(query.url.starts_with("http://callhook:6001/call"), "{}", query.url);
        }
    }
}

/// The real callhook: its front, and its AudioSocket with an agent that says how the call goes.
struct Real<F> {
    front: std::net::SocketAddr,
    audiosocket: std::net::SocketAddr,
    handle: Handle,
    /// What happens in the call, until it has ended.
    during: F,
    /// The status of each answer; none where nobody answered.
    statuses: Vec<Option<u16>>,
}

impl<F: AsyncFnMut(Asterisk, &str)> Outside for Real<F> {
    fn answer(&mut self, query: &Query) -> String {
        let path = query.url.strip_prefix("http://callhook:6001").expect("callhook's address");
        let method = if query.body.is_some() { "POST" } else { "GET" };
        let headers: Vec<_> =
            query.headers.iter().filter_map(|line| line.split_once(": ")).collect();
        let bytes = request(method, path, &headers, query.body.as_deref().unwrap_or_default());
        let asked = async {
            let mut wire = Wire::try_open(self.front).await.ok()?;
            wire.send(bytes).await;
            timeout(Duration::from_secs(query.timeout), wire.answer()).await.ok()?
        };
        let answer = self.handle.block_on(asked);
        self.statuses.push(answer.as_ref().map(|answer| answer.status));
        answer.map(|answer| answer.body).unwrap_or_default()
    }

    fn dial(&mut self, arguments: &str) -> &'static str {
        let called =
            arguments.strip_prefix("AudioSocket/callhook:5001/").expect("callhook's address");
        let uuid = called.split('/').next().expect("a uuid");
        let handle = self.handle.clone();
        handle.block_on(async {
            let Ok(mut asterisk) = Asterisk::try_connect(self.audiosocket).await else {
                return "CHANUNAVAIL";
            };
            asterisk.uuid(uuid).await;
            let ear = asterisk.ear();
            (self.during)(asterisk, uuid).await;
            ear.closed().await;
            "ANSWER"
        })
    }
}

/// Runs the dialplan with this callhook; each call goes as `during` says.
async fn run_with(
    stage: Stage,
    text: &str,
    during: impl AsyncFnMut(&Stage, Asterisk, &str) + Send + 'static,
) -> (Run, Vec<Option<u16>>) {
    let plan = Dialplan::read(text);
    let (front, audiosocket) = (stage.service.addr, stage.service.audiosocket().await);
    let handle = Handle::current();
    let run = move || {
        let mut during = during;
        let during = async |asterisk: Asterisk, uuid: &str| during(&stage, asterisk, uuid).await;
        let mut real = Real { front, audiosocket, handle, during, statuses: Vec::new() };
        let run = plan.run("avr", caller(), &mut real);
        (run, real.statuses)
    };
    spawn_blocking(run).await.expect("the run ends")
}

/// Waits until the agent has the call and has spoken.
async fn agent_of(stage: &Stage, uuid: &str) -> Session {
    let session = stage.sts.session_of(uuid).await;
    session.audio(&[1; 320]).await;
    session
}

#[tokio::test]
async fn a_caller_whose_agent_was_done_is_not_sent_to_people_by_callhook() {
    let stage = Stage::set(&[]).await;
    let (run, statuses) = run_with(stage, TEXT, async |stage, asterisk, uuid| {
        agent_of(stage, uuid).await.close().await;
        asterisk.ear().closed().await;
    })
    .await;
    assert_eq!(run.end, End::HungUp, "{:?}", run.steps);
    assert_eq!((statuses[0], statuses[3]), (Some(200), Some(200)));
}

#[tokio::test]
async fn a_caller_whose_agent_broke_off_is_with_people() {
    let stage = Stage::set(&[]).await;
    let (run, _) = run_with(stage, TEXT, async |stage, asterisk, uuid| {
        agent_of(stage, uuid).await.vanish().await;
        asterisk.ear().closed().await;
    })
    .await;
    assert_eq!(run.end, led_to_people());
    assert!(run.variables["CALL_END"].contains("sts_lost"), "{:?}", run.variables);
}

#[tokio::test]
async fn a_caller_whose_agent_cannot_be_reached_is_with_people() {
    let stage = Stage::with(Sts::start(Manner::Refuses).await, &[]).await;
    let (run, _) = run_with(stage, TEXT, async |_, asterisk, _| {
        asterisk.ear().closed().await;
    })
    .await;
    assert_eq!(run.end, led_to_people());
    assert!(run.variables["CALL_END"].contains("sts_failed"), "{:?}", run.variables);
}

#[tokio::test]
async fn a_caller_of_a_callhook_that_is_not_there_is_with_people() {
    let mut stage = Stage::set(&[]).await;
    stage.close().await;
    let (run, statuses) =
        run_with(stage, TEXT, async |_, _, _| panic!("nobody takes the call")).await;
    assert_eq!((run.end, statuses), (led_to_people(), vec![None]));
}

#[tokio::test]
async fn a_caller_is_with_people_if_callhook_dies_in_the_call() {
    let stage = Stage::set(&[]).await;
    let (run, statuses) = run_with(stage, TEXT, async |stage, asterisk, uuid| {
        agent_of(stage, uuid).await;
        stage.service.signal("KILL");
        asterisk.ear().closed().await;
    })
    .await;
    assert_eq!(run.end, led_to_people());
    assert_eq!(statuses[2..], [None, None]);
}

#[tokio::test]
async fn a_caller_whom_the_agent_transfers_is_led_there_after_its_goodbye() {
    let stage = Stage::set(&[("TRANSFER_TO", "people/100")]).await;
    let (run, statuses) = run_with(stage, TEXT, async |stage, asterisk, uuid| {
        let session = agent_of(stage, uuid).await;
        Tools::of(&stage.service).transferred(uuid, "100").await;
        session.audio(&[1; 320]).await;
        asterisk.ear().hung_up().await;
    })
    .await;
    assert_eq!(run.end, led_to_people());
    assert_eq!(statuses, [Some(200); 3], "nobody asks why the call ended");
}

#[tokio::test]
async fn a_call_that_its_agent_ends_is_over() {
    let stage = Stage::set(&[]).await;
    let (run, _) = run_with(stage, TEXT, async |stage, asterisk, uuid| {
        agent_of(stage, uuid).await;
        Tools::of(&stage.service).hung_up(uuid).await;
        asterisk.ear().hung_up().await;
    })
    .await;
    assert_eq!(run.end, End::HungUp, "{:?}", run.steps);
    assert!(run.variables["CALL_END"].contains("agent_hangup"), "{:?}", run.variables);
}

#[tokio::test]
async fn a_caller_whom_the_receiver_wants_with_people_never_reaches_an_agent() {
    let people = json!({ "next": { "context": "people", "exten": "100" } }).to_string();
    let receiver = Receiver::start(move |_| Reply::status(200).body(people.clone())).await;
    let sts = Sts::start(Manner::Usual).await;
    let stage = Stage::of(receiver, sts, &[("ROUTE_TO", "people/100")]).await;
    let (run, statuses) =
        run_with(stage, TEXT, async |_, _, _| panic!("nobody dials an agent")).await;
    assert_eq!((run.end, statuses), (led_to_people(), vec![Some(200); 2]));
}

/// The line that an operator switches on, with the secret.
const SECRET_LINE: &str =
    ";same => n,Set(CURLOPT(httpheader)=X-AVR-WEBHOOK-SECRET: the-same-secret)";

#[tokio::test]
async fn with_http_secret_one_line_is_enough_for_every_query() {
    assert_eq!(TEXT.matches(SECRET_LINE).count(), 1);
    for (text, known) in
        [(TEXT.replace(SECRET_LINE, &SECRET_LINE[1..]), true), (TEXT.to_owned(), false)]
    {
        let stage = Stage::set(&[("HTTP_SECRET", "the-same-secret")]).await;
        let (run, statuses) = run_with(stage, &text, async |stage, asterisk, uuid| {
            agent_of(stage, uuid).await.close().await;
            asterisk.ear().closed().await;
        })
        .await;
        let status = Some(if known { 200 } else { 401 });
        assert_eq!((statuses[0], statuses[3]), (status, status));
        assert_eq!(run.end, if known { End::HungUp } else { led_to_people() });
    }
}
