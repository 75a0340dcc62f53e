//! The receiver's answer: as much of its body as matters, and why there is not more.
//!
//! Limits: [`MAX_ANSWER`] bytes of a body are kept, and [`MAX_QUOTE`] of them are quoted.

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use crate::text::{escaped, innermost};
use crate::wire::connections::WireAnswer;

/// In bytes; an `sts_url` needs a few hundred.
pub const MAX_ANSWER: usize = 64 * 1024;

/// In bytes: an error with the beginning of its stack trace.
const MAX_QUOTE: usize = 1024;

pub(super) struct AnswerBody {
    bytes: Bytes,
    /// Why these are not all, or cannot be read.
    flaw: Option<String>,
}

impl AnswerBody {
    /// Reads up to the limit or the deadline. Reading to the end keeps the connection usable.
    pub(super) async fn read(answer: &mut WireAnswer, deadline: Instant) -> Self {
        let headers = &answer.head.headers;
        // Such a body ends with its connection, which some servers leave open.
        let is_endless = !has_length(headers);
        let encoding = encoding(headers);
        let mut bytes = BytesMut::new();
        let flaw = loop {
            match timeout_at(deadline, answer.piece()).await {
                // Nearly every answer is a single piece.
                Ok(Ok(Some(piece))) if bytes.is_empty() => bytes = piece.into(),
                Ok(Ok(Some(piece))) => bytes.extend_from_slice(&piece),
                Ok(Ok(None)) => break None,
                Ok(Err(error)) => break Some(format!("it broke off: {}", innermost(&error))),
                Err(_late) if is_endless => {
                    break Some("it has no length, and did not end in time".to_owned());
                }
                Err(_late) => break Some("it did not end in time".to_owned()),
            }
            if bytes.len() > MAX_ANSWER {
                break Some(format!("it is longer than {MAX_ANSWER} bytes"));
            }
            if is_endless && is_object(&bytes) {
                break None;
            }
        };
        match encoding {
            Some(encoding) if !bytes.is_empty() => {
                let flaw =
                    format!("it is encoded as {encoding:?}, though no encoding was asked for");
                Self { bytes: Bytes::new(), flaw: Some(flaw) }
            }
            Some(_) | None => Self { bytes: bytes.freeze(), flaw },
        }
    }

    /// What may hold a decision: the whole of it, or what is a whole JSON object though more was to come; else
    /// why there is none.
    pub(super) fn whole(self) -> Result<Bytes, String> {
        match self.flaw {
            Some(flaw) if self.bytes.len() > MAX_ANSWER || !is_object(&self.bytes) => Err(flaw),
            Some(_) | None => Ok(self.bytes),
        }
    }

    /// The beginning, for people who look into a failure, without these texts.
    pub(super) fn quote(&self, secrets: &[String]) -> Option<Box<str>> {
        if self.bytes.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let masked = secrets.iter().fold(text, |text, secret| text.replace(secret, "***"));
        let end = (0..=MAX_QUOTE.min(masked.len())).rev().find(|end| masked.is_char_boundary(*end));
        Some(escaped(&masked[..end.unwrap_or_default()]).into())
    }
}

fn has_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}

fn encoding(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_ENCODING)?;
    let name = String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    (!name.is_empty() && !name.eq_ignore_ascii_case("identity")).then_some(name)
}

fn is_object(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    text.starts_with(b"{")
        && text.ends_with(b"}")
        && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_short_harmless_and_holds_no_secret() {
        let quote = |text: &str| {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            AnswerBody { bytes, flaw: None }.quote(&["s3cret".to_owned()])
        };
        assert_eq!(quote(""), None);
        assert_eq!(quote("a\r\n\u{1b}[2Jb").as_deref(), Some(r"a\r\n\u{1b}[2Jb"));
        assert_eq!(quote("x s3cret y").as_deref(), Some("x *** y"));
        let long = quote(&format!("{}s3cret", "é".repeat(511))).unwrap();
        assert_eq!(*long, format!("{}**", "é".repeat(511)), "masked before it is cut");
        assert_eq!(quote(&format!("x{}", "é".repeat(600))).unwrap().len(), 1023);
    }
}
