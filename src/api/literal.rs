//! Parses the JSON of a request body as untrusted input: the text is checked before any parser reads it, values are
//! kept as raw text, and strings and `data` are read from that (P-HTTP-12, threats T10 and T11).
//!
//! Invariant: a literal that is copied into a frame is valid JSON and decodes to valid Unicode, so no publisher can
//! break the frame of a subscriber.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::wire::json;

/// The body as text. The readers that follow keep values as raw text, so nothing recurses, however deeply they nest
/// (threat T10).
///
/// # Errors
/// 400 for a body that is not UTF-8.
pub(super) fn decode_body(body: &[u8]) -> Result<&str, Refusal> {
    let text = simdutf8::basic::from_utf8(body).map_err(|_| Refusal::bad_request("The body must be valid UTF-8."))?;
    Ok(json::without_mark(text))
}

/// Reads an object. Known members that occur twice are errors, unknown ones are ignored (P-SDK-21).
///
/// # Errors
/// 400 with the position of the first error.
pub(super) fn decode_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    // The derived readers of structs would also accept an array.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Refusal::bad_request("Expected a JSON object."));
    }
    // The text of the error contains only our own names and a position, nothing of the input.
    serde_json::from_str(text).map_err(|error| Refusal::bad_request(format!("Invalid JSON: {error}.")))
}

/// Passes on the elements of an array one by one; the first refusal stops it, so no list grows beyond a limit.
///
/// # Errors
/// That refusal, or 400 naming `member` when the value is not an array.
pub(super) fn for_each_element<'a>(
    raw: &'a RawValue,
    member: &str,
    visit: impl FnMut(&'a RawValue) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if !raw.get().starts_with('[') {
        return Err(Refusal::bad_request(format!("The member {member} must be an array.")));
    }
    let mut refusal = None;
    let elements = Elements { visit, refusal: &mut refusal };
    let outcome = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(elements);
    match (refusal, outcome) {
        (Some(refusal), _) => Err(refusal),
        (None, Err(error)) => Err(Refusal::bad_request(format!("Invalid JSON: {error}."))),
        (None, Ok(())) => Ok(()),
    }
}

struct Elements<'r, F> {
    visit: F,
    refusal: &'r mut Option<Refusal>,
}

impl<'a, F: FnMut(&'a RawValue) -> Result<(), Refusal>> Visitor<'a> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            if let Err(refusal) = (self.visit)(element) {
                *self.refusal = Some(refusal);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Reads a string member.
///
/// # Errors
/// 400 naming `member` when the value is not a string.
pub(super) fn decode_string<'a>(raw: &'a RawValue, member: &str) -> Result<Cow<'a, str>, Refusal> {
    let not_a_string = || Refusal::bad_request(format!("The member {member} must be a string."));
    json::decode_string(raw.get()).ok_or_else(not_a_string)
}

/// `data` as a JSON string literal, quotes included: a string as sent, an object or array as the string of its raw text
/// (P-HTTP-12). A string that was cut inside a surrogate pair is re-encoded, with U+FFFD for the half (P-IN-6).
///
/// # Errors
/// 400 for other types, 413 when the decoded string is longer than `bytes_max` (P-LIM-3).
pub(super) fn decode_data_literal(raw: &RawValue, bytes_max: usize) -> Result<Cow<'_, str>, Refusal> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let literal = match decoded_bytes(text) {
                Some(bytes) if bytes <= bytes_max => Some(Cow::Borrowed(text)),
                Some(_) => None,
                None => {
                    let decoded = decode_string(raw, "data")?;
                    (decoded.len() <= bytes_max).then(|| Cow::Owned(encode_string(&decoded)))
                }
            };
            literal.ok_or_else(|| Refusal::data_too_large(bytes_max))
        }
        Some(b'{' | b'[') if text.len() > bytes_max => Err(Refusal::data_too_large(bytes_max)),
        Some(b'{' | b'[') => Ok(Cow::Owned(encode_string(text))),
        _ => Err(Refusal::bad_request("The member data must be a string, an object or an array.")),
    }
}

/// Encodes text as a JSON string literal, quotes included.
pub(super) fn encode_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string always has a JSON form")
}

/// Length in bytes of the string that a literal encodes; `None` when it encodes half a surrogate pair.
///
/// The literal has passed a JSON parser: quotes, escapes and hex digits are valid. Only escapes are examined, so the
/// usual literal costs one search for a byte.
fn decoded_bytes(literal: &str) -> Option<usize> {
    let mut rest = literal.as_bytes().get(1..literal.len() - 1)?;
    let mut bytes = 0;
    while let Some(plain) = memchr::memchr(b'\\', rest) {
        bytes += plain;
        let escape = rest.get(plain + 1..)?;
        let (decoded, taken) = match escape.first()? {
            b'u' => decoded_unicode_escape(escape)?,
            _ => (1, 1),
        };
        bytes += decoded;
        rest = escape.get(taken..)?;
    }
    Some(bytes + rest.len())
}

/// Bytes that `uXXXX` or `uXXXX\uXXXX` decode to and consume; `None` for half a surrogate pair or missing digits.
pub(super) fn decoded_unicode_escape(escape: &[u8]) -> Option<(usize, usize)> {
    let unit = code_unit(escape)?;
    match unit {
        0xD800..=0xDBFF => {
            let second = escape.get(5..)?.strip_prefix(b"\\")?;
            let paired = matches!(code_unit(second)?, 0xDC00..=0xDFFF);
            paired.then_some((4, 11))
        }
        0xDC00..=0xDFFF => None,
        _ => Some((char::from_u32(unit)?.len_utf8(), 5)),
    }
}

/// The UTF-16 code unit of `uXXXX`.
fn code_unit(escape: &[u8]) -> Option<u32> {
    let digits = escape.strip_prefix(b"u")?.get(..4)?;
    // The standard parser would accept a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).expect("valid JSON")
    }

    /// P-HTTP-12: a string literal is copied byte for byte, whatever its escapes.
    #[test]
    fn string_literals_are_copied() {
        for literal in
            [r#""""#, r#""plain""#, r#""\u0041\/\n\"\\""#, r#""\ud83d\ude00""#, "\"\u{1f600}\u{2028}\"", r#""\u0000""#]
        {
            let copied = decode_data_literal(raw(literal), 100).expect("valid");
            assert!(matches!(copied, Cow::Borrowed(text) if text == literal), "{literal}");
        }
    }

    /// P-HTTP-12: objects and arrays become the string of their raw text, whitespace kept.
    #[test]
    fn objects_become_strings_of_their_text() {
        for json in [r#"{ "a" : "b\n" ,"c":1e309}"#, "[]", "[1,  [true]]", "{\n}"] {
            let literal = decode_data_literal(raw(json), 100).expect("valid");
            assert_eq!(serde_json::from_str::<String>(&literal).expect("a literal"), json);
        }
    }

    /// P-HTTP-12: numbers, booleans and null are not valid data.
    #[test]
    fn other_types_are_refused() {
        for json in ["1", "-1e309", "true", "false", "null"] {
            let refusal = decode_data_literal(raw(json), 100).expect_err("no data");
            assert_eq!((refusal.status, refusal.message.contains("data must be")), (400, true), "{json}");
        }
    }

    /// P-LIM-3: the limit counts decoded bytes, for objects those of the raw text; data at the limit is accepted, one
    /// byte more is 413.
    #[test]
    fn limit_counts_decoded_bytes() {
        let rows = [
            (r#""abcd""#, 4),
            (r#""\u0041\u00e9""#, 3),
            (r#""\ud83d\ude00\n""#, 5),
            ("\"\u{20ac}\\u20ac\"", 6),
            (r#"{"a":"\n"}"#, 10),
        ];
        for (json, bytes) in rows {
            assert!(decode_data_literal(raw(json), bytes).is_ok(), "{json}");
            let refusal = decode_data_literal(raw(json), bytes - 1).expect_err("one too many");
            assert_eq!(refusal, Refusal::data_too_large(bytes - 1), "{json}");
        }
    }

    /// P-IN-6, P-LIM-3: half of a surrogate pair becomes U+FFFD wherever it occurs, in data and in other strings; the
    /// limit counts its three bytes.
    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        for (literal, text) in [
            (r#""\ud800""#, "\u{fffd}"),
            (r#""\udc00""#, "\u{fffd}"),
            (r#""\ud800x""#, "\u{fffd}x"),
            (r#""\ud800\n""#, "\u{fffd}\n"),
            (r#""\ud800\ud800""#, "\u{fffd}\u{fffd}"),
            (r#""\udc00\ud800""#, "\u{fffd}\u{fffd}"),
            (r#""a\uDBFF\u0041\ud83d\ude00""#, "a\u{fffd}A\u{1f600}"),
        ] {
            let written = decode_data_literal(raw(literal), text.len()).expect("valid");
            assert_eq!(serde_json::from_str::<String>(&written).expect("a literal"), text, "{literal}");
            assert_eq!(decode_string(raw(literal), "name").expect("valid"), text, "{literal}");
            let refusal = decode_data_literal(raw(literal), text.len() - 1).expect_err("one too many");
            assert_eq!(refusal, Refusal::data_too_large(text.len() - 1), "{literal}");
        }
        let object = r#"{"t":"abc\ud83d"}"#;
        let written = decode_data_literal(raw(object), 100).expect("valid");
        assert_eq!(serde_json::from_str::<String>(&written).expect("a literal"), object);
    }

    /// Strings without escapes are borrowed, others decoded; for other types the refusal names the member.
    #[test]
    fn strings_are_lent_or_decoded() {
        assert!(matches!(decode_string(raw(r#""abc""#), "name"), Ok(Cow::Borrowed("abc"))));
        assert_eq!(decode_string(raw(r#""a\u0062c""#), "name").expect("valid"), "abc");
        for json in ["1", "[]", "{}", "true"] {
            assert!(decode_string(raw(json), "name").expect_err("no string").message.contains("name"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// P-LIM-3, P-HTTP-12: length and verdict agree with what serde_json decodes, for any mix of escapes.
        #[test]
        fn length_agrees_with_serde_json(parts in proptest::collection::vec(
            proptest::sample::select(vec!["a", "\u{e9}", "\u{1f600}", "\\n", "\\\\", "\\\"", "\\/", "\\u0000", "\\u00e9", "\\u20AC", "\\ud83d", "\\ude00", "u", "d"]),
            0..12,
        )) {
            let literal = format!("\"{}\"", parts.concat());
            let expected = serde_json::from_str::<String>(&literal).ok().map(|text| text.len());
            prop_assert_eq!(decoded_bytes(&literal), expected);
        }
    }
}
