//! Text: what every part needs to word a message for a terminal or a log.

use std::iter::successors;

/// With U+FFFD in place of each character that [`disturbs_terminal`].
pub fn printable(text: &str) -> String {
    text.replace(disturbs_terminal, "\u{fffd}")
}

/// Control characters, and marks that change the direction of writing: a terminal would act on them.
pub fn disturbs_terminal(c: char) -> bool {
    let is_direction_mark = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_direction_mark
}

/// On one line, each character that [`disturbs_terminal`] written as an escape.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if disturbs_terminal(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// The first characters; if that is not all, followed by the length of the whole text.
pub fn excerpt(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// The name most like a misspelt one; `None` only if there are no names.
pub fn nearest<'n>(misspelt: &str, names: &'n [impl AsRef<str>]) -> Option<&'n str> {
    let likeness = |name: &&str| strsim::jaro_winkler(misspelt, name);
    names.iter().map(AsRef::as_ref).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The name of which this one is a typo: a letter too many, too few, another or two swapped; of a long name, two of
/// these. Short names are too often somebody else's.
pub fn misspelt<'n>(name: &str, names: &'n [impl AsRef<str>]) -> Option<&'n str> {
    let most = match name.len() {
        ..=5 => return None,
        6..=11 => 1,
        12.. => 2,
    };
    let distance = |known: &&str| strsim::osa_distance(name, known);
    names.iter().map(AsRef::as_ref).filter(|known| distance(known) <= most).min_by_key(distance)
}

/// The root cause, which reqwest leaves out of its own text.
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
