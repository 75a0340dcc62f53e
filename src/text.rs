//! Text: wording that every part shares, for people who read a terminal or a log.

use std::iter::successors;

/// The text without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.replace(disturbs_terminal, "\u{fffd}")
}

/// Whether a terminal would obey it: control characters, and the marks that turn the direction of
/// writing around.
pub fn disturbs_terminal(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// The beginning of a text; where that is not all, with the length of the whole.
pub fn excerpt(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// The name that differs least from a misspelt one; `None` only where there are no names.
pub fn nearest<'n>(misspelt: &str, names: &'n [impl AsRef<str>]) -> Option<&'n str> {
    let likeness = |name: &&str| strsim::jaro_winkler(misspelt, name);
    names.iter().map(AsRef::as_ref).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The reason at the bottom of an error, which reqwest's own text leaves out.
pub fn innermost(error: &dyn std::error::Error) -> String {
    successors(Some(error), |error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["WEBHOOK_RETRY", "WEBHOOK_TIMEOUT", "WEBHOOK_URL"];
        assert_eq!(nearest("WEBHOOK_RETRIES", &names), Some("WEBHOOK_RETRY"));
        assert_eq!(nearest("WEBHOOK_TIMOUT", &names), Some("WEBHOOK_TIMEOUT"));
        assert_eq!(nearest("WEBHOOKURL", &names), Some("WEBHOOK_URL"));
        assert_eq!(nearest("WEBHOOKURL", &[""; 0]), None);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let long = "é".repeat(601);
        let cut = excerpt(&long, 600);
        assert!(cut.starts_with(&"é".repeat(600)) && cut.ends_with("… (1202 bytes)"));
        assert_eq!(excerpt(&"é".repeat(600), 600), "é".repeat(600));
    }
}
