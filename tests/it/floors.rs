//! The layering: each module knows only those on floors below its own, as the table in src/lib.rs has
//! them, and no two files stand in a circle, inside a module neither.
//!
//! An arrow is a `use`, another path that begins with `crate`, `super` or `self`, or a `mod name;`.
//! Unit tests are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A file of src: its path below src, and the names of its module from the root on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    path: String,
    module: Vec<String>,
}

impl Source {
    /// The module at the top that the file belongs to.
    fn room(&self) -> &str {
        &self.module[0]
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(src().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file but lib.rs, by its path.
fn sources() -> Vec<Source> {
    let (mut directories, mut sources) = (vec![src()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("src can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(src()).expect("it is below src");
                let module = path.with_extension("");
                let names = module.iter().map(|name| name.to_string_lossy().into_owned());
                let (path, module) = (path.display().to_string(), names.collect());
                sources.push(Source { path, module });
            }
        }
    }
    sources.retain(|source| source.path != "lib.rs");
    sources.sort();
    sources
}

/// The floor of each module, from the table in src/lib.rs.
fn floors() -> BTreeMap<String, u32> {
    let table = text("lib.rs");
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! |"));
    let floors = rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let floor = cells.next()?.parse().ok()?;
        let room = cells.next()?.trim_matches(['[', '`', ']']);
        Some((room.to_owned(), floor))
    });
    floors.collect()
}

/// Names, and signs one by one but for `::`; without comments, literals and unit tests.
fn tokens(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let (mut tokens, mut rest) = (Vec::new(), code);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphabetic() || first == '_' {
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            let length = rest.find(end).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the text or character that the code begins with, if it does.
fn literal(code: &str) -> Option<usize> {
    let raw =
        code.strip_prefix('r').map(|rest| (rest, rest.len() - rest.trim_start_matches('#').len()));
    if let Some((rest, marks)) = raw
        && rest[marks..].starts_with('"')
    {
        let end = format!("\"{}", "#".repeat(marks));
        let body = 1 + marks + 1;
        return Some(body + code[body..].find(&end)? + end.len());
    }
    let quote = code.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            // A lifetime has no end.
            _ if quote == '\'' && at > 1 && !code[1..].starts_with('\\') => return Some(1),
            _ => {}
        }
    }
    None
}

/// The paths in a file that begin at one of the crate's own modules, from the root on.
fn paths(source: &Source, code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "use" => at = tree(&tokens, at + 1, &[], &mut found),
            "mod" if tokens.get(at + 2).is_some_and(|sign| sign == ";") => {
                found.push(vec!["self".to_owned(), tokens[at + 1].clone()]);
                at += 3;
            }
            "crate" | "super" | "self" if tokens.get(at + 1).is_some_and(|sign| sign == "::") => {
                at = tree(&tokens, at, &[], &mut found);
            }
            _ => at += 1,
        }
    }
    found.into_iter().filter_map(|path| absolute(source, &path)).collect()
}

/// Reads a path, or a tree of them, from a place on; returns the place after it.
fn tree(
    tokens: &[String],
    mut at: usize,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        let token = tokens.get(at).map(String::as_str).unwrap_or_default();
        if token == "{" {
            at += 1;
            while tokens[at] != "}" {
                at = if tokens[at] == "," { at + 1 } else { tree(tokens, at, &path, found) };
            }
            return at + 1;
        }
        let is_name = token.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if is_name {
            path.push(token.to_owned());
        }
        at += usize::from(is_name || token == "*");
        if tokens.get(at).is_some_and(|sign| sign == "::") {
            at += 1;
            continue;
        }
        if tokens.get(at).is_some_and(|name| name == "as") {
            at += 2;
        }
        found.push(path);
        return at;
    }
}

fn absolute(source: &Source, path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut module = match first.as_str() {
        "crate" => Vec::new(),
        // The program's own file stands outside of the library.
        "callhook" if source.room() == "main" => Vec::new(),
        "self" => source.module.clone(),
        "super" => source.module[..source.module.len() - 1].to_vec(),
        _ => return None,
    };
    for name in rest {
        if name == "super" {
            module.pop();
        } else {
            module.push(name.clone());
        }
    }
    Some(module)
}

/// Which file takes from which.
fn arrows() -> BTreeSet<(Source, Source)> {
    let sources = sources();
    let file_of = |path: &[String]| {
        let whole = (1..=path.len()).rev().map(|length| &path[..length]);
        let mut files =
            whole.filter_map(|module| sources.iter().find(|file| file.module == module));
        files.next().cloned()
    };
    let arrows = sources.iter().flat_map(|source| {
        let paths = paths(source, &text(&source.path));
        let files: Vec<_> = paths.iter().filter_map(|path| file_of(path)).collect();
        files.into_iter().map(|file| (source.clone(), file))
    });
    arrows.filter(|(from, to)| from != to).collect()
}

#[test]
fn every_module_has_a_floor() {
    let rooms: BTreeSet<String> = sources().iter().map(|source| source.room().to_owned()).collect();
    let floors: BTreeSet<String> = floors().into_keys().collect();
    assert_eq!(floors, rooms, "left: the table in src/lib.rs, right: src");
}

#[test]
fn no_arrow_runs_up_or_along_a_floor() {
    let floors = floors();
    let wrong: Vec<String> = arrows()
        .iter()
        .filter(|(from, to)| from.room() != to.room())
        .filter(|(from, to)| floors[from.room()] <= floors[to.room()])
        .map(|(from, to)| {
            let (below, above) = (floors[from.room()], floors[to.room()]);
            format!("{} (floor {below}) -> {} (floor {above})", from.path, to.path)
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "a module imports from floors below its own alone:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_files_stand_in_a_circle() {
    let arrows = arrows();
    let mut reached: BTreeSet<(&str, &str)> =
        arrows.iter().map(|(from, to)| (from.path.as_str(), to.path.as_str())).collect();
    let sources = sources();
    for via in &sources {
        let into: Vec<_> = reached.iter().filter(|(_, to)| *to == via.path).copied().collect();
        let out: Vec<_> = reached.iter().filter(|(from, _)| *from == via.path).copied().collect();
        reached
            .extend(into.iter().flat_map(|(from, _)| out.iter().map(move |(_, to)| (*from, *to))));
    }
    let wrong: Vec<String> = arrows
        .iter()
        .filter(|(from, to)| reached.contains(&(to.path.as_str(), from.path.as_str())))
        .map(|(from, to)| format!("{} -> {}", from.path, to.path))
        .collect();
    assert!(wrong.is_empty(), "arrows of circles:\n{}", wrong.join("\n"));
}

#[test]
fn arrows_are_seen_in_every_form() {
    let source = Source { path: "a/b.rs".to_owned(), module: vec!["a".to_owned(), "b".to_owned()] };
    let code = r#"
        // use crate::comment::X;
        pub use crate::{one::{A, B as C}, two::*};
        use super::{self, three};
        use std::io::{self, Read as _};
        mod four;
        fn f<'a>(x: &'a crate::five::X) -> char { super::super::six(); "crate::seven"; 'c' }
        #[cfg(test)]
mod tests { use crate::eight; }
    "#;
    let code = code.replace("        #[cfg", "#[cfg");
    let paths: Vec<String> = paths(&source, &code).iter().map(|path| path.join("::")).collect();
    let seen = ["one::A", "one::B", "two", "a::self", "a::three", "a::b::four", "five::X", "six"];
    assert_eq!(paths, seen);
}
