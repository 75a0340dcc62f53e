//! The line for a shell that sends once more what a check sent.
//!
//! Pure. Secrets are variables in it, which whoever pastes the line sets first: `$SECRET`,
//! `$SIGNING_KEY` and, for the user part of the URL, `$WEBHOOK_USER`. A signature is made anew by
//! the line itself, since an old one is refused. It needs a POSIX shell, curl, and for signatures
//! openssl.

use std::time::Duration;

use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::exchange::{Exchange, Filler, Sending};
use crate::delivery::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use crate::delivery::{ATTEMPT_HEADER, SECRET_HEADER};
use crate::workbench::alteration::{Alteration, OLD};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    /// Twice, as an event and its repeat.
    Twice,
    /// Twice over one connection.
    OnOneConnection,
    /// So often, each one an event of another call; `at_once`, none waits for another.
    Many {
        count: usize,
        at_once: bool,
    },
}

pub struct Target {
    /// Its URL without the user part.
    pub url: String,
    pub signed: bool,
    pub patience: Duration,
}

/// The first number of a loop, of three digits, which stand for the last three of uuid and id.
const FIRST: usize = 100;

pub fn line(exchange: &Exchange, target: &Target, times: Times) -> String {
    let sending = &exchange.sending;
    let id = numbered(&sending.attempt.item.event.id.to_string(), times);
    let body = body(sending, times);
    let mut line = String::new();
    let body = if target.signed && sending.alteration != Some(Alteration::NoSignature) {
        line.push_str(&signing(&id, &body, sending.alteration));
        "\"$BODY\"".to_owned()
    } else {
        body
    };
    line.push_str(&start(&sending.method(), target.patience, times));
    for (name, value) in &exchange.headers {
        line.push(' ');
        line.push_str(&header(name, value, sending, times, &id));
    }
    if sending.method() == Method::POST {
        line.push_str(&format!(" --data-binary {body}"));
    }
    let url = quoted(&target.url);
    line.push_str(&format!(" {url}"));
    match times {
        Times::Once => line,
        Times::OnOneConnection => format!("{line} {url}"),
        Times::Twice => format!("for N in 1 2; do {line}; done"),
        Times::Many { count, at_once } => {
            let last = FIRST + count - 1;
            let (open, close) = if at_once { ("{ ", "; } &") } else { ("", ";") };
            format!("for N in $(seq {FIRST} {last}); do {open}{line}{close} done | sort | uniq -c")
        }
    }
}

fn start(method: &Method, patience: Duration, times: Times) -> String {
    let seconds = patience.as_millis().div_ceil(1000);
    let how = match (times, method) {
        (Times::Many { .. }, _) => "-s -o /dev/null -w '%{http_code}\\n'",
        (Times::OnOneConnection, _) => "-sv",
        // With -X HEAD, curl would wait for a body.
        (Times::Once | Times::Twice, &Method::HEAD) => "-sI",
        (Times::Once | Times::Twice, _) => "-si",
    };
    format!("curl {how} -m {seconds}")
}

fn header(
    name: &HeaderName,
    value: &HeaderValue,
    sending: &Sending,
    times: Times,
    id: &str,
) -> String {
    if *name == AUTHORIZATION {
        return "--user \"$WEBHOOK_USER\"".to_owned();
    }
    let altered = |alteration| sending.alteration == Some(alteration);
    let value = if *name == SECRET_HEADER && !altered(Alteration::WrongSecret) {
        "\"$SECRET\"".to_owned()
    } else if *name == TIMESTAMP_HEADER {
        "\"$TS\"".to_owned()
    } else if *name == SIGNATURE_HEADER && !altered(Alteration::WrongSignature) {
        "\"v1,$SIG\"".to_owned()
    } else if *name == ID_HEADER {
        id.to_owned()
    } else if *name == ATTEMPT_HEADER && times == Times::Twice {
        "\"$N\"".to_owned()
    } else {
        return format!(
            "-H {}",
            quoted(&format!("{name}: {}", value.to_str().unwrap_or_default()))
        );
    };
    format!("-H '{name}: '{value}")
}

/// Sets `BODY`, `TS` and `SIG`, as Standard Webhooks signs.
fn signing(id: &str, body: &str, alteration: Option<Alteration>) -> String {
    let age = if alteration == Some(Alteration::OldSignature) {
        format!("$(( $(date +%s) - {} ))", OLD.as_secs())
    } else {
        "$(date +%s)".to_owned()
    };
    let key = "$(printf %s \"${SIGNING_KEY#whsec_}\" | base64 -d | od -An -v -tx1 | tr -d ' \\n')";
    format!(
        "BODY={body}; TS={age}; SIG=$(printf %s {id}.\"$TS.$BODY\" | \
         openssl dgst -sha256 -mac HMAC -macopt hexkey:{key} -binary | base64); "
    )
}

/// The body as one word of the shell.
fn body(sending: &Sending, times: Times) -> String {
    let body = sending.body();
    if let Some(filler) = sending.filler
        && let Some((before, after)) = body.split_once(&filler.text())
    {
        return format!("{}{}{}", quoted(before), made(filler), quoted(after));
    }
    let uuid = sending.attempt.item.event.call.to_string();
    match body.split_once(&uuid) {
        Some((before, after)) if matches!(times, Times::Many { .. }) => {
            format!("{}{}{}", quoted(before), numbered(&uuid, times), quoted(after))
        }
        Some(_) | None => quoted(body),
    }
}

fn made(filler: Filler) -> String {
    format!("\"$(yes '{}' | tr '\\n' ' ' | head -c {})\"", filler.phrase, filler.length)
}

/// The text; where there are many, its last three characters are the number of the loop.
fn numbered(text: &str, times: Times) -> String {
    match times {
        Times::Many { .. } => format!("{}\"$N\"", quoted(&text[..text.len() - 3])),
        Times::Once | Times::Twice | Times::OnOneConnection => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    let quoted = shlex::try_quote(text);
    quoted.expect("neither URLs, headers nor the bodies of checks hold a NUL").into_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use hyper::header::HeaderMap;

    use super::super::exchange::{Call, Came};
    use super::*;
    use crate::event::EventType;

    fn exchange(sending: Sending) -> Exchange {
        let mut headers = HeaderMap::new();
        headers.insert(SECRET_HEADER, HeaderValue::from_static("hush"));
        headers.insert(ATTEMPT_HEADER, HeaderValue::from_static("1"));
        headers.insert(ID_HEADER, sending.attempt.item.event.id.to_string().parse().unwrap());
        Exchange { sending, headers, came: Came::Silence, took: Duration::ZERO }
    }

    fn target() -> Target {
        let url = "http://h/it's?a=1&b=$(id)".to_owned();
        Target { url, signed: false, patience: Duration::from_millis(3001) }
    }

    /// What curl would be given, by a shell that has its own idea of curl.
    fn arguments(line: &str) -> Vec<String> {
        let script = format!("curl() {{ printf '%s\\0' \"$@\" END; }}; SECRET=s3; {line}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_gives_curl_the_very_request_with_the_secret_from_a_variable() {
        let text = "it's \"so\" \\ $HOME `id` !! \u{2028}é\n";
        let payload = serde_json::json!({ "text": text });
        let sent = exchange(Call::fresh().next_with(EventType::Transcription, &payload));
        let line = line(&sent, &target(), Times::Once);
        assert!(!line.contains("hush"), "{line}");
        let given = arguments(&line);
        let id = format!("webhook-id: {}", sent.sending.attempt.item.event.id);
        for expected in ["x-avr-webhook-secret: s3", &id, sent.sending.body(), &target().url, "4"] {
            assert!(given.iter().any(|given| given == expected), "{expected}: {given:?}");
        }
    }

    #[test]
    fn a_long_text_is_made_by_the_shell_to_the_byte() {
        let filler = Filler { phrase: "A table for two.", length: 20_480 };
        let payload = serde_json::json!({ "text": filler.text() });
        let mut sending = Call::fresh().next_with(EventType::Transcription, &payload);
        sending.filler = Some(filler);
        let sent = exchange(sending);
        let line = line(&sent, &target(), Times::Once);
        assert!(line.len() < 1000, "{line}");
        assert!(arguments(&line).iter().any(|given| given == sent.sending.body()));
    }

    #[test]
    fn many_requests_are_of_as_many_calls_and_have_as_many_ids() {
        let sent = exchange(Call::fresh().next(EventType::CallStarted));
        for at_once in [false, true] {
            let line = line(&sent, &target(), Times::Many { count: 20, at_once });
            let counting = line.replace(" | sort | uniq -c", "; wait");
            let given = arguments(&counting);
            for start in ["webhook-id: ", "{\"uuid\":\""] {
                let mut distinct: Vec<&String> =
                    given.iter().filter(|given| given.starts_with(start)).collect();
                distinct.sort();
                distinct.dedup();
                assert_eq!(distinct.len(), 20, "{line}");
            }
        }
    }

    #[test]
    fn a_repeat_has_the_same_id_and_the_next_attempt() {
        let sent = exchange(Call::fresh().next(EventType::CallInitiated));
        let given = arguments(&line(&sent, &target(), Times::Twice));
        let id = format!("webhook-id: {}", sent.sending.attempt.item.event.id);
        assert_eq!(given.iter().filter(|given| **given == id).count(), 2, "{given:?}");
        for attempt in ["x-avr-webhook-attempt: 1", "x-avr-webhook-attempt: 2"] {
            assert!(given.iter().any(|given| given == attempt), "{attempt}: {given:?}");
        }
    }
}
