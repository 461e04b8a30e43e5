//! Checks on JSON text before any parser sees it, and reading of its strings.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// The text nests deeper than allowed, or is not UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooDeep;

/// Rejects text whose `[` and `{` nest deeper than `depth_max`, in one pass that recognizes strings and escapes (threat
/// T10), and bytes that are not UTF-8 (threat T11).
///
/// Does not check whether the text is JSON: if it is not, the parser that runs afterwards reports it.
///
/// # Errors
/// [`TooDeep`] for either.
pub fn check_depth(json: &[u8], depth_max: usize) -> Result<(), TooDeep> {
    let text = simdutf8::basic::from_utf8(json).map_err(|_| TooDeep)?;
    check_text_depth(text, depth_max)
}

/// Like [`check_depth`], for text that is known to be UTF-8.
///
/// # Errors
/// [`TooDeep`] when the text nests deeper than `depth_max`.
pub fn check_text_depth(json: &str, depth_max: usize) -> Result<(), TooDeep> {
    // Text with no more brackets than that cannot nest deeper, wherever they are. This holds for nearly all text.
    if memchr::memchr2_iter(b'[', b'{', json.as_bytes()).take(depth_max + 1).count() <= depth_max {
        return Ok(());
    }
    let mut depth = 0_usize;
    let mut rest = json.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = after_string(rest),
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Err(TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The text after the closing quote of a string; empty when there is none.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        // An escape is skipped with the byte that it escapes.
        let skipped = if rest[at] == b'\\' { 2 } else { 1 };
        let after = rest.get(at + skipped..).unwrap_or_default();
        if skipped == 1 {
            return after;
        }
        rest = after;
    }
    &[]
}

/// The text without the byte order mark that some editors and encoders put in front of it (RFC 8259 section 8.1).
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// True for text that is one JSON object, with or without white space around it. Values are skipped, not built: nothing
/// recurses, however deep they nest (threat T10).
pub fn is_json_object(text: &str) -> bool {
    starts_object(text) && serde_json::from_str::<&RawValue>(without_mark(text)).is_ok()
}

/// True for text that can be nothing but an object, if it is JSON at all.
pub fn starts_object(text: &str) -> bool {
    without_mark(text).trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{')
}

/// The string that a literal encodes, borrowed if it has no escape; `None` if the text is not a string literal.
///
/// An escape may encode half of a surrogate pair: JavaScript writes text that was cut inside a character this way. It
/// is read as U+FFFD, as every encoder of UTF-8 writes it (P-IN-6).
pub fn decode_string(literal: &str) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        // A raw value has no quote or control character here; a literal from elsewhere may.
        let is_plain = inner.bytes().all(|byte| byte >= b' ' && byte != b'"');
        return is_plain.then_some(Cow::Borrowed(inner));
    }
    serde_json::from_str(literal).ok().map(|Text(text)| text)
}

/// A string in JSON text, read like [`decode_string`].
#[derive(Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, which serde_json returns unchecked: only then is half of a pair not an error.
        deserializer.deserialize_bytes(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => self.visit_bytes(bytes),
        }
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let mut bytes = bytes.to_vec();
        if simdutf8::basic::from_utf8(&bytes).is_err() {
            replace_halves(&mut bytes);
        }
        String::from_utf8(bytes).map(Cow::Owned).map_err(|_| E::custom("no UTF-8"))
    }
}

/// Replaces each half of a surrogate pair, which serde_json writes as the three bytes ED A0..BF 80..BF, with U+FFFD.
fn replace_halves(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(0xed, rest)) {
        at += found;
        if let Some(half @ [_, 0xa0..=0xbf, _]) = bytes.get_mut(at..at + 3) {
            half.copy_from_slice("\u{fffd}".as_bytes());
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-IN-6: half a pair is read as U+FFFD, one for each; complete pairs and everything else are read as serde_json
    /// reads them.
    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        for (literal, text) in [
            (r#""abc""#, "abc"),
            ("\"\u{fffd}\u{d7ff}\u{e000}\"", "\u{fffd}\u{d7ff}\u{e000}"),
            (r#""\ud7ff\ue000\/""#, "\u{d7ff}\u{e000}/"),
            (r#""abc\ud83d""#, "abc\u{fffd}"),
            (r#""\udf38x""#, "\u{fffd}x"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\ud83d\u0041\n\ud83dé""#, "\u{fffd}A\n\u{fffd}é"),
            (r#""\uDBFF\\udc00""#, "\u{fffd}\\udc00"),
        ] {
            assert_eq!(decode_string(literal).as_deref(), Some(text), "{literal}");
        }
        assert!(matches!(decode_string("\"abc\""), Some(Cow::Borrowed("abc"))));
        for literal in [
            "",
            "\"",
            "abc",
            "1",
            "null",
            "{}",
            "\"a",
            "a\"",
            "\"a\"b\"",
            "\"\n\"",
            r#""\""#,
            r#""\x""#,
            r#""\u12""#,
            "'a'",
        ] {
            assert_eq!(decode_string(literal), None, "{literal}");
        }
    }

    /// T10: to a parser of raw values, a million levels are like any other text.
    #[test]
    fn objects_are_told_from_all_else() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        for text in ["{}", " {\"a\":1}\r\n\t", r#"{"a":"\ud800","a":1e999}"#, &nested(1_000_000)] {
            assert!(is_json_object(text), "{text:.40}");
        }
        for text in
            ["", "b", "[]", "7", "null", "\"{}\"", "{", "{}}", "{}{}", "{a:1}", "\u{a0}{}", &nested(1_000_000)[1..]]
        {
            assert!(!is_json_object(text), "{text:.40}");
        }
    }

    /// T10: the bound is exact, and brackets in strings and after escapes do not count.
    #[test]
    fn depth_is_counted_outside_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_depth(format!("[{}]", nested(2).repeat(100)).as_bytes(), 3), Ok(()));
        assert_eq!(check_depth(format!("[{}]", nested(2).repeat(100)).as_bytes(), 2), Err(TooDeep));
        assert_eq!(check_depth(nested(32).as_bytes(), 32), Ok(()));
        assert_eq!(check_depth(nested(33).as_bytes(), 32), Err(TooDeep));
        assert_eq!(check_depth(br#"{"a":"[[[\"[[[","b":"\\"}"#, 1), Ok(()));
        assert_eq!(check_depth(br#"{"a":"\\","b":[1]}"#, 1), Err(TooDeep));
        assert_eq!(check_depth(b"]]]][", 1), Ok(()));
        assert_eq!(check_depth(b"\"[[[[\\", 0), Ok(()));
        assert_eq!(check_depth(&b"[".repeat(1_000_000), 32), Err(TooDeep));
    }

    /// T11: text that is not UTF-8 reaches no parser.
    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(check_depth(b"{\"a\":\"\xff\"}", 32), Err(TooDeep));
        assert_eq!(check_depth("{\"a\":\"\u{e9}\"}".as_bytes(), 32), Ok(()));
    }
}
