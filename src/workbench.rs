//! The workbench: the commands for people who write receivers and have no PBX at hand.

pub mod check;
pub mod credentials;
pub mod demo;
pub mod dice;
pub mod receive;
pub mod scenario;
pub mod share;
pub mod simulate;

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
