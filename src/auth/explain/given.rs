//! The signature of a refused request, in any of the forms that mistakes give it.
//!
//! Invariant: a [`GivenSignature`] that is kept of a refusal has [`KEPT_BYTES`] of its tag, too few to replay the
//! request (threat T55) and enough to search by: 512 attempts meet 32 bits by chance once in 8 million searches.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// How a signature is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureForm {
    /// 64 lower-case hex digits: the only form that Relay accepts.
    Hex,
    /// 64 hex digits, some of them upper-case.
    UpperHex,
    /// Base64 of the tag, or of its hex digits.
    Base64,
    /// Hex digits or base64 with white space, quotes or a prefix around them.
    Padded,
    /// Hex digits of another number.
    OtherLength,
    /// Nothing of the kind.
    Unreadable,
}

/// A signature as it was sent, decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GivenSignature {
    /// How it is written.
    pub form: SignatureForm,
    tag: Option<Tag>,
}

/// A tag, or the beginning of one.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Tag {
    bytes: [u8; TAG_BYTES_MAX],
    /// Bytes of the tag that are known.
    known: usize,
    /// Bytes that the tag has.
    length: usize,
}

/// No more of a tag is printed than may be kept.
impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.bytes[..self.known.min(KEPT_BYTES)];
        write!(f, "{}.. of {} bytes", const_hex::encode(start), self.length)
    }
}

impl GivenSignature {
    /// Reads a signature in any form.
    pub fn decode(text: &str) -> Self {
        let bare = bare(text);
        let (form, tag) = decode_bare(bare);
        let form = if bare.len() < text.len() && tag.is_some() { SignatureForm::Padded } else { form };
        Self { form, tag }
    }

    /// No signature.
    pub fn none() -> Self {
        Self { form: SignatureForm::Unreadable, tag: None }
    }

    /// What may be kept of it (threat T55).
    #[must_use]
    pub fn kept(mut self) -> Self {
        if let Some(tag) = &mut self.tag {
            tag.bytes[KEPT_BYTES..].fill(0);
            tag.known = tag.known.min(KEPT_BYTES);
        }
        self
    }

    /// Whether there is anything to search for.
    pub fn is_readable(&self) -> bool {
        self.tag.is_some()
    }

    /// Whether its tag has this many bytes.
    pub(super) fn has_length(&self, length: usize) -> bool {
        self.tag.is_some_and(|tag| tag.length == length)
    }

    /// Whether this is its tag, as far as that is known. The time does not depend on the bytes (threat T2).
    pub(super) fn matches(&self, computed: &[u8]) -> bool {
        let Some(tag) = &self.tag else { return false };
        let known = &tag.bytes[..tag.known];
        let difference = computed.iter().zip(known).fold(0, |difference, (a, b)| difference | (a ^ b));
        computed.len() == tag.length && std::hint::black_box(difference) == 0
    }
}

/// Without what env files, templates and habits put around a value.
fn bare(text: &str) -> &str {
    let around = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let inner = text.trim_matches(around);
    let prefixes = ["0x", "sha256=", "sha256:"];
    prefixes.iter().find_map(|prefix| inner.strip_prefix(prefix)).unwrap_or(inner)
}

fn decode_bare(text: &str) -> (SignatureForm, Option<Tag>) {
    if let Some(tag) = decode_hex(text.as_bytes()) {
        let form = match (tag.length, text.bytes().any(|byte| byte.is_ascii_uppercase())) {
            (32, false) => SignatureForm::Hex,
            (32, true) => SignatureForm::UpperHex,
            (..) => SignatureForm::OtherLength,
        };
        return (form, Some(tag));
    }
    match decode_base64(text) {
        Some(tag) => (SignatureForm::Base64, Some(tag)),
        None => (SignatureForm::Unreadable, None),
    }
}

/// The tag of hex digits in any case.
fn decode_hex(digits: &[u8]) -> Option<Tag> {
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let mut bytes = [0; TAG_BYTES_MAX];
    let length = digits.len() / 2;
    if !is_hex || !TAG_LENGTHS.contains(&length) {
        return None;
    }
    const_hex::decode_to_slice(digits, bytes.get_mut(..length)?).ok()?;
    Some(Tag { bytes, known: length, length })
}

/// The tag of base64 in either alphabet, padded or not. In a query a `+` may have become a space.
fn decode_base64(text: &str) -> Option<Tag> {
    if text.len() > BASE64_BYTES_MAX {
        return None;
    }
    let standard: String = text
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            ' ' => '+',
            other => other,
        })
        .collect();
    let decoded = BASE64.decode(standard).ok()?;
    if let Some(tag) = decode_hex(&decoded) {
        return Some(tag);
    }
    let mut bytes = [0; TAG_BYTES_MAX];
    let length = decoded.len();
    if !TAG_LENGTHS.contains(&length) {
        return None;
    }
    bytes.get_mut(..length)?.copy_from_slice(&decoded);
    Some(Tag { bytes, known: length, length })
}

/// The engine that reads base64 with or without its padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of a tag that are kept of a refusal: 8 hex digits.
pub const KEPT_BYTES: usize = 4;
/// Bytes of SHA-1, SHA-256, SHA-384 and SHA-512.
const TAG_LENGTHS: [usize; 4] = [20, 32, 48, TAG_BYTES_MAX];
const TAG_BYTES_MAX: usize = 64;
/// Base64 of the hex digits of the longest tag.
const BASE64_BYTES_MAX: usize = 172;

#[cfg(test)]
mod tests {
    use super::*;

    /// R-EXPLAIN-2: every form of one tag is read as that tag, and named.
    #[test]
    fn every_form_of_a_tag_is_read() {
        let tag: Vec<u8> = (0..32).map(|byte| byte * 7 + 3).collect();
        let hex = hex::encode(&tag);
        let base64 = BASE64.encode(&tag);
        let rows = [
            (hex.clone(), SignatureForm::Hex),
            (hex.to_uppercase(), SignatureForm::UpperHex),
            (format!(" {hex}\n"), SignatureForm::Padded),
            (format!("\"{hex}\""), SignatureForm::Padded),
            (format!("0x{hex}"), SignatureForm::Padded),
            (base64.clone(), SignatureForm::Base64),
            (base64.trim_end_matches('=').to_owned(), SignatureForm::Base64),
            (base64.replace('+', "-").replace('/', "_"), SignatureForm::Base64),
            (base64.replace('+', " "), SignatureForm::Base64),
            (BASE64.encode(&hex), SignatureForm::Base64),
        ];
        for (text, form) in rows {
            let given = GivenSignature::decode(&text);
            assert_eq!(given.form, form, "{text}");
            assert!(given.matches(&tag), "{text}");
            assert!(!given.matches(&tag[..31]) && !given.matches(&[0; 32]), "{text}");
        }
        for text in ["", "beef", "hello", &hex[..63], &"z".repeat(63), &"é".repeat(32), &"A".repeat(4_000)] {
            let given = GivenSignature::decode(text);
            assert_eq!((given.form, given.is_readable()), (SignatureForm::Unreadable, false), "{text}");
            assert!(!given.matches(&tag) && !given.matches(b""));
        }
        assert_eq!(GivenSignature::decode(&"0a".repeat(20)).form, SignatureForm::OtherLength);
    }

    /// T55: of a signature that is kept, eight digits remain; they are still found by, and no other digit is printed.
    #[test]
    fn eight_digits_are_kept() {
        let tag = [0xAB; 32];
        let kept = GivenSignature::decode(&hex::encode(tag)).kept();
        assert!(kept.matches(&tag));
        let mut other = tag;
        other[4..].fill(0);
        assert!(kept.matches(&other), "the rest is not known");
        other[3] ^= 1;
        assert!(!kept.matches(&other) && !kept.matches(&tag[..20]));
        let printed = format!("{kept:?}{:?}", GivenSignature::decode(&hex::encode(tag)));
        assert!(printed.contains("abababab..") && !printed.contains(&"ab".repeat(5)), "{printed}");
        assert_eq!(kept.tag.map(|tag| tag.bytes[KEPT_BYTES..].to_vec()), Some(vec![0; 60]));
    }
}
