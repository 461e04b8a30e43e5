//! The project's own files as text, for the tests that check how it is written (`tidy`, `coverage`).
//!
//! Rust is read as tokens, as far as those tests need it: comments and literals can be blanked, test code can be cut,
//! functions and paths can be found. Every reader keeps line numbers, so that a finding can name its place.

#![allow(dead_code, reason = "each test crate uses its own part of this module")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One file of the project.
pub(crate) struct Source {
    /// Path from the root of the project, with `/`.
    pub(crate) path: String,
    /// Its complete text.
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

    /// Each literal outside of tests, with its line. Documentation comments are excluded.
    pub(crate) fn shipped_literals(&self) -> Vec<(usize, String)> {
        if is_test_path(&self.path) {
            return Vec::new();
        }
        let tests = test_items(&self.text);
        let is_test = |at: usize| tests.iter().any(|(start, end)| (*start..*end).contains(&at));
        let mut found = Vec::new();
        tokens(&self.text, parse(&self.text), &mut |level| {
            for token in level {
                if let TokenTree::Literal(literal) = &token.tree
                    && !is_test(token.bytes.start)
                {
                    found.push((line_of(&self.text, token.bytes.start), literal.to_string()));
                }
            }
        });
        found
    }

    /// First and last line of each stretch of test code.
    pub(crate) fn test_lines(&self) -> Vec<(usize, usize)> {
        if is_test_path(&self.path) {
            return vec![(1, self.text.lines().count())];
        }
        let lines = |(start, end)| (line_of(&self.text, start), line_of(&self.text, end));
        test_items(&self.text).into_iter().map(lines).collect()
    }
}

/// Checks that a file is as the code makes it; with `RELAY_UPDATE` it is written first. `command` updates it.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "a test writes a document and reads the environment")]
pub(crate) fn assert_current(path: &str, text: &str, command: &str) {
    if std::env::var_os("RELAY_UPDATE").is_some() {
        fs::write(root().join(path), text).expect("the document is written");
    }
    assert!(source(path).text == text, "{path} is out of date: run `RELAY_UPDATE=1 {command}` and commit it");
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
                // Installed packages are not part of the project.
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

/// The tokens of Rust text, those of groups included, with their byte ranges. Comments and documentation comments are
/// excluded.
struct Token {
    tree: TokenTree,
    bytes: Range<usize>,
}

/// The tokens of one level, and of all levels below it.
fn tokens(text: &str, stream: TokenStream, visit: &mut impl FnMut(&[Token])) {
    let of = |tree: TokenTree| Token { bytes: tree.span().byte_range(), tree };
    let is_comment =
        |token: &Token| text[token.bytes.clone()].starts_with("//") || text[token.bytes.clone()].starts_with("/*");
    let level: Vec<Token> = stream.into_iter().map(of).filter(|token| !is_comment(token)).collect();
    visit(&level);
    for token in level {
        if let TokenTree::Group(group) = token.tree {
            tokens(text, group.stream(), visit);
        }
    }
}

fn parse(text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// Replaces comments and literals by spaces; line breaks stay.
pub(crate) fn blank_comments_and_literals(text: &str) -> String {
    let mut blanked = blank(text, 0..text.len());
    let mut keep = |bytes: Range<usize>| blanked[bytes.clone()].copy_from_slice(&text.as_bytes()[bytes]);
    tokens(text, parse(text), &mut |level| {
        for token in level {
            match &token.tree {
                TokenTree::Literal(_) => {}
                TokenTree::Group(group) => {
                    keep(group.span_open().byte_range());
                    keep(group.span_close().byte_range());
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => keep(token.bytes.clone()),
            }
        }
    });
    String::from_utf8(blanked).expect("only whole tokens were kept")
}

/// The text with these bytes blanked.
fn blank(text: &str, bytes: Range<usize>) -> Vec<u8> {
    let mut blanked = text.as_bytes().to_vec();
    blanked[bytes].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    blanked
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Blanks every item under `#[cfg(test)]` in blanked code; line breaks stay.
fn blank_test_items(code: &str) -> String {
    test_items(code).into_iter().fold(code.to_owned(), |code, (start, end)| {
        String::from_utf8(blank(&code, start..end)).expect("blanked code is ASCII where it is blanked")
    })
}

/// Start and end of every item under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items: Vec<(usize, usize)> = Vec::new();
    tokens(code, parse(code), &mut |level| {
        for (at, pair) in level.windows(2).enumerate() {
            let is_hash = matches!(&pair[0].tree, TokenTree::Punct(punct) if punct.as_char() == '#');
            if is_hash && pair[1].tree.to_string().replace(' ', "") == "[cfg(test)]" {
                items.push((pair[0].bytes.start, end_of_item(&level[at + 2..], code)));
            }
        }
    });
    // An item of another item is cut with it.
    items.sort_unstable();
    items.dedup_by(|inner, outer| inner.1 <= outer.1);
    items
}

/// End of the item or signature that starts here: after its block, or after its semicolon.
fn end_of_item(level: &[Token], code: &str) -> usize {
    let is_end = |token: &&Token| match &token.tree {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    level.iter().find(is_end).map_or(code.len(), |token| token.bytes.end)
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

/// All functions with a body, in order.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    tokens(code, parse(code), &mut |level| {
        for (at, pair) in level.windows(2).enumerate() {
            let (TokenTree::Ident(word), TokenTree::Ident(name)) = (&pair[0].tree, &pair[1].tree) else { continue };
            if word != "fn" {
                continue;
            }
            let end = end_of_item(&level[at + 1..], code);
            // A declaration has no body.
            if code[..end].ends_with('}') {
                let (first_line, last_line) = (line_of(code, pair[0].bytes.start), line_of(code, end));
                found.push(Function { name: name.to_string(), first_line, last_line });
            }
        }
    });
    found.sort_by_key(|function| function.first_line);
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

/// All paths (`a::b::c`) of blanked code with their lines; groups (`a::{b, c}`) are written out. That of a visibility is
/// not among them: it uses nothing.
pub(crate) fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if is_word(code.as_bytes()[at]) {
            let (is_visibility, known) = (code[..at].ends_with("pub(in "), found.len());
            at = read_path(code, at, "", &mut found);
            if is_visibility {
                found.truncate(known);
            }
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path, or one member of a group, and returns the position after it.
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
