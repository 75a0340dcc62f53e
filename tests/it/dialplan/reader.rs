//! Runs the lines of `config/extensions.conf` as Asterisk does, one caller at a time, against whoever answers
//! its queries and takes its calls.
//!
//! What it knows is what that file uses, and it panics on everything else. Each behaves as it was seen to in
//! Asterisk 22.10.1:
//! - **A line's arguments** are substituted once, as a whole, and only then taken apart by the application. What
//!   came out of a substitution is not looked at again: `${…}` in a value stays text.
//! - **`${name}`, `${name(arguments)}`**: the braces are matched before anything inside is substituted, so a
//!   value cannot close them. The substituted text is cut off at 4095 bytes; arguments end at its last `)`, or
//!   with it. A `:` outside parentheses begins `offset:length`, also one that came from a value.
//! - **`$[a = b]`** is `1` or `0`; a lone value is itself.
//! - **`CURL(url[,body])`** is the body of any answer, whatever the status; of one that broke off, what came
//!   until then; else empty. Blanks at its end are cut off. Each `CURLOPT(httpheader)` adds one for all that
//!   follow, `CURLOPT(httptimeout)` replaces the one before.
//! - **`FILTER(set,text)`** leaves the characters of the set. `\` takes the next one as it is, a comma too; `-`
//!   between two is a range. The text is all after the first bare comma.
//! - **`REGEX("expression" text)`** is `1` or `0`; POSIX's extended expressions. Nothing, and an error in the
//!   log, where a text that was cut off left no closing quote.
//! - **`DIALPLAN_EXISTS(context,extension,priority)`** is `1` or `0`; minuses in an extension do not count.
//!   With a context alone it asks only for that, with nothing it is an error.
//! - **`LEN`, `CALLERID(num)`**, and `SHELL` of one command, `uuidgen`.
//! - **`GotoIf(condition?place[:place])`** goes on to the next line where no place is left. A place is a label or
//!   `context,extension,priority`; one that does not exist ends the call.
//! - **`Dial`** with `g` goes on to the next line at the end of the call.

use std::collections::HashMap;
use std::ops::Range;

use crate::support::event::new_uuid;

/// The longest text between `${` and `}` after substitution, in bytes.
pub const LONGEST: usize = 4095;

/// One line: `exten => …` or `same => …`.
#[derive(Clone, Debug)]
pub struct Line {
    pub context: String,
    pub extension: String,
    pub label: Option<String>,
    pub application: String,
    pub arguments: String,
    /// It is there for an operator to switch on.
    pub commented_out: bool,
}

pub struct Dialplan {
    pub lines: Vec<Line>,
}

/// A caller as Asterisk knows him.
#[derive(Clone, Debug)]
pub struct Caller {
    pub number: String,
    pub dialled: String,
    pub channel: String,
}

/// What `CURL` asks.
#[derive(Clone, Debug)]
pub struct Query {
    pub url: String,
    pub body: Option<String>,
    /// `Name: value`
    pub headers: Vec<String>,
    /// How long the answer may take, in seconds.
    pub timeout: u64,
}

/// Who is outside of Asterisk.
pub trait Outside {
    /// The body of the answer, or as much of it as came.
    fn answer(&mut self, query: &Query) -> String;
    /// Returns, with `DIALSTATUS`, when the called side has ended the call.
    fn dial(&mut self, arguments: &str) -> &'static str;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// At `Hangup()`.
    HungUp,
    /// At a place outside of the extension that the caller dialled.
    Led(String),
    /// Without a line to go on with, or by an error: Asterisk ends the call.
    Lost(String),
}

#[derive(Debug)]
pub struct Run {
    pub end: End,
    /// Each application with its arguments, as they were after substitution.
    pub steps: Vec<(String, String)>,
    pub variables: HashMap<String, String>,
}

impl Run {
    /// Whether the application was run.
    pub fn used(&self, application: &str) -> bool {
        self.steps.iter().any(|(used, _)| used == application)
    }
}

impl Dialplan {
    pub fn read(text: &str) -> Dialplan {
        let (mut context, mut extension) = (String::new(), String::new());
        let mut lines = Vec::new();
        for text in text.lines().map(str::trim) {
            let commented_out = text.starts_with(";same =>") || text.starts_with(";exten =>");
            let text = if commented_out { &text[1..] } else { code(text) };
            if let Some(name) = text.strip_prefix('[') {
                name.strip_suffix(']').expect("a context's name ends").clone_into(&mut context);
                continue;
            }
            let Some((kind, rest)) = text.split_once("=>") else {
                assert!(text.is_empty(), "a line of an unknown kind: {text}");
                continue;
            };
            let rest = match kind.trim() {
                "same" => rest,
                "exten" => {
                    let (name, rest) = rest.split_once(',').expect("an extension and a priority");
                    name.trim().clone_into(&mut extension);
                    rest
                }
                _ => panic!("a line of an unknown kind: {text}"),
            };
            let (priority, call) = rest.split_once(',').expect("a priority and an application");
            let (application, arguments) = call.split_once('(').expect("an application");
            let end = arguments.rfind(')').expect("the arguments end");
            let label = priority.split_once('(').map(|(_, label)| label.trim_end_matches(')'));
            lines.push(Line {
                context: context.clone(),
                extension: extension.clone(),
                label: label.map(str::to_owned),
                application: application.trim().to_owned(),
                arguments: arguments[..end].replace(r"\;", ";"),
                commented_out,
            });
        }
        Dialplan { lines }
    }

    /// Runs the extension that this one of the context matches, from its first line on.
    pub fn run(&self, context: &str, caller: Caller, outside: &mut impl Outside) -> Run {
        let pattern = self.extension(context, &caller.dialled).expect("somebody dialled it");
        let lines = self.of(context, pattern).collect();
        let variables = HashMap::from([
            ("EXTEN".to_owned(), caller.dialled.clone()),
            ("UNIQUEID".to_owned(), "1700000000.7".to_owned()),
            ("CHANNEL".to_owned(), caller.channel.clone()),
        ]);
        let headers = Vec::new();
        let channel =
            Channel { plan: self, lines, caller, outside, headers, timeout: 180, variables };
        channel.run()
    }

    /// Whether this is a place: `context,extension,priority`.
    pub fn exists(&self, place: &str) -> bool {
        match place.split(',').collect::<Vec<_>>()[..] {
            [] | [""] => panic!("DIALPLAN_EXISTS() requires an argument"),
            [context] | [context, ""] => self.lines.iter().any(|line| line.context == context),
            [context, extension] => self.extension(context, extension).is_some(),
            [context, extension, priority, ..] => {
                let lines = self.extension(context, extension).map(|name| self.of(context, name));
                let priority = priority.parse().unwrap_or(0);
                lines.is_some_and(|lines| (1..=lines.count()).contains(&priority))
            }
        }
    }

    /// The lines that are in force.
    fn of<'a>(&'a self, context: &str, extension: &str) -> impl Iterator<Item = &'a Line> {
        let here = move |line: &&Line| line.context == context && line.extension == extension;
        self.lines.iter().filter(|line| !line.commented_out).filter(here)
    }

    /// The extension of the context that this number matches.
    fn extension(&self, context: &str, number: &str) -> Option<&str> {
        let mut lines = self.lines.iter().filter(|line| !line.commented_out);
        let fits = |line: &&Line| line.context == context && matches(&line.extension, number);
        lines.find(fits).map(|line| line.extension.as_str())
    }
}

/// The line without its comment.
fn code(line: &str) -> &str {
    let bare = |at: &usize| *at == 0 || !line[..*at].ends_with('\\');
    let comment = line.match_indices(';').map(|(at, _)| at).find(bare);
    line[..comment.unwrap_or(line.len())].trim_end()
}

/// Whether a number is of this extension: itself, or, of patterns, `_[…]!` alone.
fn matches(extension: &str, number: &str) -> bool {
    let number = number.replace('-', "");
    let Some(pattern) = extension.strip_prefix("_[") else {
        assert!(!extension.starts_with('_'), "a pattern of an unknown kind: {extension}");
        return !number.is_empty() && number == extension.replace('-', "");
    };
    let first = pattern.strip_suffix("]!").expect("a pattern of the known kind");
    number.chars().next().is_some_and(|char| characters(first).contains(&char))
        || number == extension
}

/// The characters of a set: with ranges, and with `\` before one that is meant as it is.
pub fn characters(set: &str) -> Vec<char> {
    let mut all = Vec::new();
    let mut rest = set.chars().peekable();
    let take = |rest: &mut std::iter::Peekable<std::str::Chars>| match rest.next() {
        Some('\\') => rest.next(),
        other => other,
    };
    while let Some(first) = take(&mut rest) {
        if rest.next_if_eq(&'-').is_some() {
            all.extend(first..=take(&mut rest).unwrap_or(first));
        } else {
            all.push(first);
        }
    }
    all
}

/// The set and the text of `FILTER`'s arguments.
pub fn set_and_text(arguments: &str) -> (&str, &str) {
    let bare = |at: &usize| !arguments[..*at].ends_with('\\');
    let comma =
        arguments.match_indices(',').map(|(at, _)| at).find(bare).expect("a set and a text");
    (&arguments[..comma], &arguments[comma + 1..])
}

/// Where what began ends, by the brackets.
pub fn closing(text: &str, open: char, close: char) -> usize {
    let mut depth = 1;
    for (at, char) in text.char_indices() {
        depth += i32::from(char == open) - i32::from(char == close);
        if depth == 0 {
            return at;
        }
    }
    panic!("no {close} in {text}")
}

/// A call in Asterisk.
struct Channel<'a, O> {
    plan: &'a Dialplan,
    /// Those of the extension, by priority.
    lines: Vec<&'a Line>,
    caller: Caller,
    outside: &'a mut O,
    variables: HashMap<String, String>,
    headers: Vec<String>,
    timeout: u64,
}

impl<O: Outside> Channel<'_, O> {
    fn run(mut self) -> Run {
        let mut steps = Vec::new();
        let mut next = 0;
        let end = loop {
            let Some(&line) = self.lines.get(next) else { break End::Lost("no more lines".into()) };
            let arguments = self.substituted(&line.arguments);
            steps.push((line.application.clone(), arguments.clone()));
            next += 1;
            match line.application.as_str() {
                "Answer" | "Log" | "Playtones" | "Wait" => {}
                "Set" => self.set(&arguments),
                "Dial" => {
                    let status = self.outside.dial(&arguments);
                    self.variables.insert("DIALSTATUS".into(), status.into());
                    if !arguments.contains("AudioSocket/") && status == "ANSWER" {
                        break End::Led(arguments);
                    }
                }
                "GotoIf" => match self.place(&arguments) {
                    None => {}
                    Some(Ok(line)) => next = line,
                    Some(Err(end)) => break end,
                },
                "Hangup" => break End::HungUp,
                unknown => panic!("an unknown application: {unknown}"),
            }
        };
        Run { end, steps, variables: self.variables }
    }

    fn set(&mut self, arguments: &str) {
        let (name, value) = arguments.split_once('=').expect("a name and a value");
        match name {
            "CURLOPT(httpheader)" => self.headers.push(value.to_owned()),
            "CURLOPT(httptimeout)" => self.timeout = value.parse().expect("whole seconds"),
            "CURLOPT(conntimeout)" => {}
            _ if name.contains('(') => panic!("an unknown function: {name}"),
            _ => {
                self.variables.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Where `GotoIf` goes, if anywhere: the line's number, or the end of the run.
    fn place(&self, arguments: &str) -> Option<Result<usize, End>> {
        let (condition, places) = arguments.split_once('?').expect("a condition and a place");
        let (yes, no) = places.split_once(':').unwrap_or((places, ""));
        let holds = !matches!(condition, "" | "0");
        let place = if holds { yes } else { no };
        if place.is_empty() {
            return None;
        }
        let labelled = |line: &&Line| line.label.as_deref() == Some(place);
        if let Some(line) = self.lines.iter().position(labelled) {
            return Some(Ok(line));
        }
        let whole = place.split(',').count() == 3 && self.plan.exists(place);
        let end = if whole { End::Led } else { End::Lost };
        Some(Err(end(place.to_owned())))
    }

    fn substituted(&mut self, text: &str) -> String {
        let (mut done, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('$') {
            done += &rest[..at];
            let inside = rest.get(at + 2..).unwrap_or_default();
            let (end, value) = if rest[at..].starts_with("${") {
                let end = closing(inside, '{', '}');
                let name = self.substituted(&inside[..end]);
                (end, self.value(&name[..name.floor_char_boundary(LONGEST)]))
            } else if rest[at..].starts_with("$[") {
                let end = closing(inside, '[', ']');
                let expression = self.substituted(&inside[..end]);
                (end, value_of(&expression))
            } else {
                done.push('$');
                rest = &rest[at + 1..];
                continue;
            };
            done += &value;
            rest = &inside[end + 1..];
        }
        done + rest
    }

    /// The value of what is between `${` and `}`.
    fn value(&mut self, text: &str) -> String {
        let (name, part) = match colon(text) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let value = match name.split_once('(') {
            Some((function, arguments)) => {
                let end = arguments.rfind(')').unwrap_or(arguments.len());
                self.function(function, &arguments[..end])
            }
            None => self.variables.get(name).cloned().unwrap_or_default(),
        };
        part.map_or(value.clone(), |part| value[range(part, value.len())].to_owned())
    }

    fn function(&mut self, name: &str, arguments: &str) -> String {
        let flag = |holds: bool| if holds { "1" } else { "0" }.to_owned();
        match name {
            "CALLERID" => {
                assert_eq!(arguments, "num");
                self.caller.number.clone()
            }
            "CURL" => self.curl(arguments),
            "DIALPLAN_EXISTS" => flag(self.plan.exists(arguments)),
            "FILTER" => {
                let (set, text) = set_and_text(arguments);
                let allowed = characters(set);
                text.chars().filter(|char| allowed.contains(char)).collect()
            }
            "LEN" => arguments.len().to_string(),
            "REGEX" => {
                let parts: Vec<_> = arguments.splitn(3, '"').collect();
                let [_, expression, text] = parts[..] else { return String::new() };
                let expression = regex_lite::Regex::new(expression).expect("an expression");
                flag(expression.is_match(text.strip_prefix([' ', '\t']).unwrap_or(text)))
            }
            "SHELL" => {
                assert_eq!(arguments, r"uuidgen | tr -d '\n'", "no other command");
                new_uuid()
            }
            unknown => panic!("an unknown function: {unknown}({arguments})"),
        }
    }

    fn curl(&mut self, arguments: &str) -> String {
        let (url, body) = match arguments.split_once(',') {
            Some((url, body)) => (url, Some(body.to_owned())),
            None => (arguments, None),
        };
        let query = Query {
            url: url.to_owned(),
            body,
            headers: self.headers.clone(),
            timeout: self.timeout,
        };
        let answer = self.outside.answer(&query);
        answer
            .split('\0')
            .next()
            .unwrap_or_default()
            .trim_end_matches(|char| char <= ' ')
            .to_owned()
    }
}

/// The first `:` outside of parentheses.
fn colon(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, char)| {
        depth += i32::from(char == '(') - i32::from(char == ')');
        (char == ':' && depth == 0).then_some(at)
    })
}

/// What `offset:length` means for a text of this many bytes, which are ASCII.
fn range(part: &str, size: usize) -> Range<usize> {
    let number = |text: &str| {
        let digits = text.trim_start();
        let end = digits
            .char_indices()
            .find(|(at, char)| !(char.is_ascii_digit() || *at == 0 && matches!(char, '-' | '+')));
        digits[..end.map_or(digits.len(), |(at, _)| at)].parse::<i64>().ok()
    };
    let size = i64::try_from(size).expect("a short text");
    let (offset, length) = part.split_once(':').unwrap_or((part, ""));
    let Some(offset) = number(offset) else { return 0..usize::try_from(size).expect("positive") };
    let start = if offset < 0 { (size + offset).max(0) } else { offset.min(size) };
    let end = match number(length) {
        Some(length) if length < 0 => (size + length).max(start),
        Some(length) => (start + length).min(size),
        None => size,
    };
    let place = |at: i64| usize::try_from(at).expect("inside of the text");
    place(start)..place(end)
}

/// The value of what is between `$[` and `]`.
fn value_of(expression: &str) -> String {
    let Some((left, right)) = expression.split_once(" = ") else {
        return expression.trim().to_owned();
    };
    assert!(!left.trim().is_empty(), "a syntax error: {expression}");
    if left.trim() == right.trim() { "1" } else { "0" }.to_owned()
}
