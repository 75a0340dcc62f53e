//! Output: what commands print.
//!
//! Invariant: where the reader has seen enough, as with `| head`, the command ends quietly: the write that fails ends
//! the process with 0.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::exit;

/// To stdout, as it is.
pub fn print(text: impl Display) {
    let mut out = io::stdout().lock();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            complain(format_args!("callhook: cannot write to the standard output: {error}"));
            exit(1);
        }
        exit(0);
    }
}

/// The same, with a line end.
pub fn print_line(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// A line to stderr; if nobody is there, nobody can be told.
pub fn complain(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}
