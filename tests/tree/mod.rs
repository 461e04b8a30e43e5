//! The project's own files as text, for the tests that check how it is written (`tidy`, `coverage`).
//!
//! Rust is read here only as far as those tests need it: comments and literals can be blanked, test code can be cut,
//! items and paths can be found. Every reader keeps line numbers, so that a finding can name its place.

#![allow(dead_code, reason = "each test crate uses its own part of this module")]

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the project.
pub(crate) struct Source {
    /// From the root of the project, with `/`.
    pub(crate) path: String,
    /// Its whole text.
    pub(crate) text: String,
}

impl Source {
    /// A source that never was a file, for tests of the checks themselves.
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Its text with comments and literals blanked.
    pub(crate) fn code(&self) -> String {
        blank_comments_and_literals(&self.text)
    }

    /// Its code without test items; empty for a file that is itself a test module.
    pub(crate) fn shipped_code(&self) -> String {
        if is_test_path(&self.path) { String::new() } else { blank_test_items(&self.code()) }
    }

    /// First and last line of each stretch of test code.
    pub(crate) fn test_lines(&self) -> Vec<(usize, usize)> {
        if is_test_path(&self.path) {
            return vec![(1, self.text.lines().count())];
        }
        let code = self.code();
        let lines = |(start, end)| (line_of(&code, start), line_of(&code, end));
        test_items(&code).into_iter().map(lines).collect()
    }
}

/// Root of the project.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose name ends in one of the endings, in the order of their paths.
pub(crate) fn sources(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the project's folders are readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                // Installed packages are not the project's own.
                if !(name.starts_with('.') || name == "node_modules" || name == "target") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(read(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The one file at this path from the root; empty where there is none.
pub(crate) fn source(path: &str) -> Source {
    Source { path: path.into(), text: fs::read_to_string(root().join(path)).unwrap_or_default() }
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root()).expect("it was found below the root");
    Source { path: path.to_string_lossy().replace('\\', "/"), text }
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Line number of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Replaces comments and the insides of literals by spaces; line breaks stay.
pub(crate) fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut blanked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = match rest {
            [b'/', b'/', ..] => at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => end_of_block_comment(bytes, at),
            [b'"', ..] => end_of_string(bytes, at + 1),
            [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => {
                match end_of_raw_string(bytes, at) {
                    Some(end) => end,
                    None => {
                        at += 1;
                        continue;
                    }
                }
            }
            [b'\'', ..] => match end_of_char(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut blanked[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(blanked).expect("only whole characters were replaced, by ASCII")
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let opening = start + bytes[start..].iter().position(|&b| b == b'r')? + 1;
    let hashes = bytes[opening..].iter().take_while(|&&b| b == b'#').count();
    if bytes.get(opening + hashes) != Some(&b'"') {
        return None; // A raw identifier such as `r#type`.
    }
    let closing = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let inside = opening + hashes + 1;
    let length = bytes[inside..].windows(closing.len()).position(|window| window == closing)?;
    Some(inside + length + closing.len())
}

/// `None` where the quote opens a lifetime.
fn end_of_char(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start + 1) == Some(&b'\\') {
        let length = bytes.get(start + 3..)?.iter().position(|&b| b == b'\'')?;
        return Some(start + 3 + length + 1);
    }
    let first = *bytes.get(start + 1)?;
    let width = match first {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + width + 2)
}

/// Blanks every item under `#[cfg(test)]` in blanked code; line breaks stay.
fn blank_test_items(code: &str) -> String {
    let mut blanked = code.as_bytes().to_vec();
    for (start, end) in test_items(code) {
        for byte in &mut blanked[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(blanked).expect("only whole characters were replaced, by ASCII")
}

/// Start and end of every item under `#[cfg(test)]` in blanked code.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        from = end_of_item(code.as_bytes(), start);
        items.push((start, from));
    }
    items
}

/// End of the item or signature that starts here: behind its block, or behind its semicolon.
fn end_of_item(code: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// A function found in code.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// First line, of `fn`.
    pub(crate) first_line: usize,
    /// Last line, of the closing brace.
    pub(crate) last_line: usize,
}

/// All functions with a body in blanked code, in order.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, word) in words(code) {
        if word != "fn" {
            continue;
        }
        let name: String =
            code[start + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = end_of_item(code.as_bytes(), start);
        // A function pointer has no name, a declaration no body.
        if name.is_empty() || code.as_bytes()[end - 1] != b'}' {
            continue;
        }
        found.push(Function { name, first_line: line_of(code, start), last_line: line_of(code, end) });
    }
    found
}

/// All words (identifiers, keywords, numbers) of blanked code with their places.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !is_word(bytes[at]) {
            at += 1;
        }
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        (start < at).then(|| (start, &code[start..at]))
    })
}

/// All paths (`a::b::c`) of blanked code with their lines; groups (`a::{b, c}`) are written out.
pub(crate) fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if is_word(code.as_bytes()[at]) {
            at = read_path(code, at, "", &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path, or one member of a group, and returns the place behind it.
fn read_path(code: &str, start: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let bytes = code.as_bytes();
    let mut path = prefix.to_owned();
    let mut at = start;
    loop {
        let word = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        path.push_str(&code[word..at]);
        if !code[at..].starts_with("::") {
            break;
        }
        match bytes.get(at + 2) {
            Some(&next) if is_word(next) => at += 2,
            Some(b'{') => return read_group(code, at + 3, &format!("{path}::"), found),
            _ => break,
        }
        path.push_str("::");
    }
    if path.contains("::") {
        found.push((line_of(code, start), path));
    }
    at.max(start + 1)
}

fn read_group(code: &str, start: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let bytes = code.as_bytes();
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'}' => return at + 1,
            byte if is_word(byte) => at = read_path(code, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

/// All rule ids (`P-CONN-3`) of a text with their lines.
pub(crate) fn rule_ids(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(['P', 'R']) {
            if at > 0 && (is_word(line.as_bytes()[at - 1]) || line.as_bytes()[at - 1] == b'-') {
                continue;
            }
            let Some(tail) = line[at + 1..].strip_prefix('-') else {
                continue;
            };
            let family = tail.bytes().take_while(u8::is_ascii_uppercase).count();
            let Some(digits) = tail[family..].strip_prefix('-') else {
                continue;
            };
            let width = digits.bytes().take_while(u8::is_ascii_digit).count();
            if family > 0 && width > 0 {
                found.push((number + 1, line[at..at + 2 + family + 1 + width].to_owned()));
            }
        }
    }
    found
}

/// The rules that the specification defines, in its order: rows (`| P-IN-1 |`) and headings (`### P-CONN-1 `).
pub(crate) fn defined_rules(documents: &[Source]) -> Vec<String> {
    let mut defined = Vec::new();
    for document in documents {
        for line in document.text.lines() {
            let Some(start) = line.strip_prefix("| ").or_else(|| line.strip_prefix("### ")) else {
                continue;
            };
            let first = start.split_whitespace().next().unwrap_or_default();
            if rule_ids(first).first().is_some_and(|(_, id)| id == first) {
                defined.push(first.to_owned());
            }
        }
    }
    defined
}

/// The documents that define rules.
pub(crate) fn specification() -> Vec<Source> {
    vec![source("docs/protocol/pusher.md"), source("docs/protocol/relay.md")]
}
