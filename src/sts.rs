//! STS: the speech-to-speech server of one call.
//!
//! Owns the messages that AVR's STS servers understand and send; [`socket`] owns the WebSocket. Leaves to
//! the bridge what follows from what is said.
//!
//! Tolerant in what is read: unknown types, missing fields and invalid JSON are skipped, since the servers
//! differ, and a call is worth more than a message. Strict in what is sent: invalid JSON crashes one of
//! them.

mod socket;

use std::borrow::Cow;

use base64_simd::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::socket::{Close, ConnectError, Connector, Incoming, Socket};
use crate::event::CallId;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// Audio to play: base64 of 16 bit little-endian mono at 8 kHz.
    Audio(Cow<'a, str>),
    /// The caller began to speak.
    Interruption,
    /// Something was said, by `user` or `agent`.
    Transcript { role: String, text: String },
    /// The server, or the provider behind it, failed; it may go on all the same.
    Error { message: String },
    /// Anything else, valid or not.
    Other,
}

/// A message as it is read. Fields are of any type, so that one odd field does not spoil the others.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

pub fn read(message: &str) -> Said<'_> {
    let Ok(message) = serde_json::from_str::<Message<'_>>(message) else {
        return Said::Other;
    };
    let owned = |field: Option<&RawValue>| field.and_then(text).map(Cow::into_owned);
    match &*message.kind {
        "audio" => message.audio.and_then(text).map_or(Said::Other, Said::Audio),
        "interruption" => Said::Interruption,
        "transcript" => match owned(message.text) {
            Some(text) if !text.is_empty() => {
                let role = owned(message.role).unwrap_or_else(|| "unknown".to_owned());
                Said::Transcript { role, text }
            }
            // ElevenLabs' server sends some without a text: nothing was said.
            Some(_) | None => Said::Other,
        },
        "error" => Said::Error {
            message: owned(message.message).unwrap_or_else(|| "it does not say which".to_owned()),
        },
        _ => Said::Other,
    }
}

/// The value of a JSON string, borrowed where it has no escapes; `None` for any other value.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let read = serde_json::from_str(value.get());
    let read = read.or_else(|_| serde_json::from_str(&without_halves(value.get())));
    Some(Cow::Owned(read.expect("a raw JSON string has no fault but halves of characters")))
}

/// The JSON string with U+FFFD for each lone surrogate: JavaScript cuts texts between the two halves of a
/// character, and writes what is left as an escape that stands for no text.
fn without_halves(json: &str) -> String {
    const ESCAPE: usize = r"\uD83C".len();
    let half = |text: &str| -> Option<u16> {
        let code = u16::from_str_radix(text.strip_prefix(r"\u")?.get(..4)?, 16).ok()?;
        (0xd800..=0xdfff).contains(&code).then_some(code)
    };
    let (mut mended, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        let taken = match half(escape) {
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
            Some(0xd800..0xdc00) if matches!(half(&escape[ESCAPE..]), Some(0xdc00..)) => 2 * ESCAPE,
            Some(_) => {
                mended.push('\u{fffd}');
                rest = &escape[ESCAPE..];
                continue;
            }
        };
        mended.push_str(&escape[..taken]);
        rest = &escape[taken..];
    }
    mended + rest
}

/// Decodes base64, with or without padding, into the buffer, replacing what was there; `false` if it is
/// invalid.
pub fn decode_audio(base64: &str, pcm: &mut Vec<u8>) -> bool {
    pcm.clear();
    STANDARD_NO_PAD.decode_append(base64.trim_end_matches('='), pcm).is_ok()
}

/// The first message.
pub fn init(call: CallId) -> String {
    format!(r#"{{"type":"init","uuid":"{call}"}}"#)
}

/// The caller's audio: 16 bit little-endian mono at 8 kHz.
pub fn audio(pcm: &[u8]) -> String {
    const BEFORE: &str = r#"{"type":"audio","audio":""#;
    const AFTER: &str = r#""}"#;
    let mut message = String::with_capacity(BEFORE.len() + pcm.len().div_ceil(3) * 4 + AFTER.len());
    message.push_str(BEFORE);
    STANDARD.encode_append(pcm, &mut message);
    message.push_str(AFTER);
    message
}

/// A key that the caller pressed: one of `0-9*#A-D`.
pub fn digit(digit: char) -> String {
    format!(r#"{{"type":"dtmf_digit","digit":"{digit}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_the_servers_send_is_read() {
        let transcript = |role: &str, text: &str| Said::Transcript {
            role: role.to_owned(),
            text: text.to_owned(),
        };
        for (message, said) in [
            (r#"{"type":"audio","audio":"AAAA"}"#, Said::Audio("AAAA".into())),
            (r#"{"audio":"AA\/\u002b","type":"audio"}"#, Said::Audio("AA/+".into())),
            (r#"{"type":"interruption"}"#, Said::Interruption),
            (
                r#"{"type":"transcript","role":"user","text":"S\u00ec \"a\""}"#,
                transcript("user", "Sì \"a\""),
            ),
            (r#"{"type":"transcript","text":"x","extra":[1]}"#, transcript("unknown", "x")),
            (r#"{"type":"error","message":"quota"}"#, Said::Error { message: "quota".to_owned() }),
            (r#"{"type":"error"}"#, Said::Error { message: "it does not say which".to_owned() }),
        ] {
            assert_eq!(read(message), said, "{message}");
        }
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        for message in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"tool_invocation","name":"x"}"#,
            r#"{"type":"audio"}"#,
            r#"{"type":"audio","audio":7}"#,
            r#"{"type":"audio","audio":null}"#,
            r#"{"type":"transcript","role":"agent"}"#,
            r#"{"type":"transcript","role":"agent","text":""}"#,
            r#"{"type":"transcript","role":"agent","text":null}"#,
        ] {
            assert_eq!(read(message), Said::Other, "{message}");
        }
    }

    #[test]
    fn a_text_that_was_cut_within_a_character_is_read_but_for_that_half() {
        for (written, read_as) in [
            (r"party \ud83c", "party \u{fffd}"),
            (r"\udf89 party", "\u{fffd} party"),
            (r"\ud83c\ud83c\udf89\n\\\ud83c\\ud83c \u00e9", "\u{fffd}🎉\n\\\u{fffd}\\ud83c é"),
            (r"\uD83C\\uDF89", "\u{fffd}\\uDF89"),
        ] {
            let message = format!(r#"{{"type":"transcript","role":"user","text":"{written}"}}"#);
            let said = Said::Transcript { role: "user".to_owned(), text: read_as.to_owned() };
            assert_eq!(read(&message), said, "{written}");
        }
        let said = read(r#"{"type":"error","message":"\udc00","detail":"\ud800","code":1E400}"#);
        assert_eq!(said, Said::Error { message: "\u{fffd}".to_owned() });
    }

    #[test]
    fn an_odd_field_does_not_spoil_the_others() {
        let said = read(r#"{"type":"interruption","audio":{},"role":1,"text":[],"message":false}"#);
        assert_eq!(said, Said::Interruption);
    }

    #[test]
    fn audio_is_decoded_with_and_without_padding() {
        let mut pcm = vec![9; 9];
        for base64 in ["AQI=", "AQI", "AQI=="] {
            assert!(decode_audio(base64, &mut pcm));
            assert_eq!(pcm, [1, 2]);
        }
        assert!(!decode_audio("A", &mut pcm));
        assert!(!decode_audio("no base64!", &mut pcm));
    }

    #[test]
    fn what_is_sent_is_json_as_the_servers_expect_it() {
        let call = CallId::from_bytes([0x1f; 16]);
        assert_eq!(init(call), r#"{"type":"init","uuid":"1f1f1f1f-1f1f-1f1f-1f1f-1f1f1f1f1f1f"}"#);
        assert_eq!(audio(&[1, 2]), r#"{"type":"audio","audio":"AQI="}"#);
        assert_eq!(digit('#'), r##"{"type":"dtmf_digit","digit":"#"}"##);
    }
}
