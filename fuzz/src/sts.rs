//! Messages of speech-to-speech servers: whatever comes is understood as a plain JSON reader
//! understands it, or passed over.

use callhook::sts::{Said, decode_audio, read};

use super::json;

/// Checks one message, and the same text as base64.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    check_said(text, read(text));
    let mut pcm = vec![0; 3];
    if decode_audio(text, &mut pcm) {
        assert!(pcm.len() <= text.len() * 3 / 4 + 1, "{} bytes", pcm.len());
    }
}

/// What the other reader refuses (a key that stands twice, half a character) may be read in part.
fn check_said(message: &str, said: Said<'_>) {
    let Ok(item) = json::read(message.as_bytes()) else {
        return;
    };
    let field = |name: &str| item.field(name).and_then(json::Item::text);
    let (kind, text) = (field("type"), field("text").filter(|text| !text.is_empty()));
    match said {
        Said::Audio(audio) => {
            assert_eq!((kind, field("audio")), (Some("audio"), Some(&*audio)), "{message}");
        }
        Said::Interruption => assert_eq!(kind, Some("interruption"), "{message}"),
        Said::Transcript { role, text: said } => {
            assert_eq!((kind, text), (Some("transcript"), Some(&*said)), "{message}");
            assert_eq!(field("role").unwrap_or("unknown"), role, "{message}");
        }
        Said::Error { .. } => assert_eq!(kind, Some("error"), "{message}"),
        Said::Other => {
            let understood = match kind {
                Some("interruption" | "error") => true,
                Some("audio") => field("audio").is_some(),
                Some("transcript") => text.is_some(),
                Some(_) | None => false,
            };
            assert!(!understood, "{message}");
        }
    }
}
