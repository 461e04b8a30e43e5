//! The key that a refused request or subscription names, and the secrets that may have signed it.
//!
//! Invariant: a [`NamedKey`] contains public keys only, whatever was sent in their place (threats T27, T55).

use std::ops::ControlFlow;

use base64::Engine;
use ring::hmac;

use super::cause::Cause;
use super::given::BASE64;
use super::search::{Search, Step};
use crate::app::{App, AppKey, Directory};
use crate::limits::EXPLAIN_OTHER_APPS_HMACS_MAX;

/// What the key of a credential is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NamedKey {
    /// An active key of the app.
    Active(Box<str>),
    /// That key with quotes around it.
    Quoted(Box<str>),
    /// That key with white space around it.
    Padded(Box<str>),
    /// The secret of that key.
    Secret(Box<str>),
    /// The key of another app, with the id of the app.
    OtherApp(Box<str>, Box<str>),
    /// No app has it.
    Unknown,
    /// There is none.
    Missing,
}

impl NamedKey {
    /// Finds out what the text in the place of a key is. Secrets are compared in constant time.
    pub fn resolve(directory: &Directory, app: &App, text: &str) -> Self {
        let active = |key: &str| app.active_key(key.as_bytes()).map(|(_, pair)| pair.key.clone());
        if let Some(key) = active(text) {
            return Self::Active(key);
        }
        let unpadded = text.trim();
        if let Some(key) = active(unpadded) {
            return Self::Padded(key);
        }
        let bare = text.trim_matches(|c: char| c.is_whitespace() || is_quote(c));
        if let Some(key) = active(bare) {
            return Self::Quoted(key);
        }
        let candidates = [text, unpadded, bare];
        let is_secret = |pair: &&AppKey| candidates.iter().any(|text| pair.secret.matches(text.as_bytes()));
        if let Some(pair) = app.keys.iter().find(is_secret) {
            return Self::Secret(pair.key.clone());
        }
        match directory.app_by_key(bare) {
            Some(other) => Self::OtherApp(bare.into(), other.id.clone()),
            None if text.is_empty() => Self::Missing,
            None => Self::Unknown,
        }
    }

    /// The key of this app that was meant, if it is known.
    pub(super) fn meant(&self) -> Option<&str> {
        match self {
            Self::Active(key) | Self::Quoted(key) | Self::Padded(key) | Self::Secret(key) => Some(key),
            Self::OtherApp(..) | Self::Unknown | Self::Missing => None,
        }
    }

    /// The cause that it is by itself, whatever was signed.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Active(_) => None,
            Self::Quoted(_) => Some(Cause::QuotedKey),
            Self::Padded(_) => Some(Cause::PaddedKey),
            Self::Secret(_) => Some(Cause::SwappedKeyAndSecret),
            Self::OtherApp(..) => Some(Cause::OtherAppKey),
            Self::Unknown | Self::Missing => Some(Cause::UnknownKey),
        }
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// The pairs of an app: first the one that was meant, then the newest.
pub(super) fn pairs<'a>(app: &'a App, named: &NamedKey) -> Vec<&'a AppKey> {
    let mut pairs: Vec<&AppKey> = app.keys.iter().rev().collect();
    pairs.sort_by_key(|pair| named.meant() != Some(&*pair.key));
    pairs
}

/// Attempts with what mistakes make of a secret.
pub(super) fn attempt_changed_secrets(search: &mut Search, app: &App, pairs: &[&AppKey], text: &[u8]) -> Step {
    for word in ["", "undefined", "null", "None", "nil", "false", "secret", "YOUR_APP_SECRET", "your-app-secret"] {
        attempt_with(search, Cause::EmptySecret, word.as_bytes(), text)?;
    }
    for pair in pairs.iter().take(CHANGED_PAIRS_MAX) {
        let secret = pair.secret.expose();
        for (cause, changed) in changed(secret) {
            if changed != secret.as_bytes() {
                attempt_with(search, cause, &changed, text)?;
            }
        }
        attempt_with(search, Cause::SignedWithKey, pair.key.as_bytes(), text)?;
    }
    attempt_with(search, Cause::SignedWithKey, app.id.as_bytes(), text)
}

/// Pairs whose secrets are changed: the one that is named and the newest other one, so that HMACs remain for the rest.
const CHANGED_PAIRS_MAX: usize = 2;

fn attempt_with(search: &mut Search, cause: Cause, secret: &[u8], text: &[u8]) -> Step {
    search.attempt(cause, "", &hmac::Key::new(hmac::HMAC_SHA256, secret), text)
}

/// A secret as env files, editors and conversions change it.
fn changed(secret: &str) -> Vec<(Cause, Vec<u8>)> {
    let around = |before: &str, after: &str| [before, secret, after].concat().into_bytes();
    let mut changed: Vec<(Cause, Vec<u8>)> = Vec::new();
    for (before, after) in [
        ("", "\n"),
        ("", "\r\n"),
        ("", " "),
        (" ", ""),
        ("", "\r"),
        ("", "\t"),
        (" ", " "),
        ("", "\0"),
        ("\u{feff}", ""),
    ] {
        changed.push((Cause::PaddedSecret, around(before, after)));
    }
    changed.push((Cause::PaddedSecret, secret.trim().as_bytes().to_vec()));
    for (before, after) in [
        ("\"", "\""),
        ("'", "'"),
        ("", "\""),
        ("\"", ""),
        ("", "'"),
        ("'", ""),
        ("`", "`"),
        ("\"", "\"\n"),
        ("'", "'\n"),
    ] {
        changed.push((Cause::QuotedSecret, around(before, after)));
    }
    changed.push((Cause::QuotedSecret, secret.trim_matches(is_quote).as_bytes().to_vec()));
    changed.extend(const_hex::decode(secret).ok().map(|bytes| (Cause::EncodedSecret, bytes)));
    changed.extend(BASE64.decode(secret).ok().map(|bytes| (Cause::EncodedSecret, bytes)));
    let encoded = [const_hex::encode(secret), BASE64.encode(secret), secret.to_lowercase(), secret.to_uppercase()];
    changed.extend(encoded.map(|text| (Cause::EncodedSecret, text.into_bytes())));
    let utf16 = |bytes: fn(u16) -> [u8; 2]| secret.encode_utf16().flat_map(bytes).collect();
    changed.push((Cause::EncodedSecret, utf16(u16::to_le_bytes)));
    changed
}

/// Attempts with other functions and encodings under this secret.
pub(super) fn attempt_other_functions(search: &mut Search, pair: &AppKey, text: &[u8]) -> Step {
    let secret = pair.secret.expose().as_bytes();
    for (about, algorithm) in [
        ("HMAC-SHA1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        ("HMAC-SHA384", hmac::HMAC_SHA384),
        ("HMAC-SHA512", hmac::HMAC_SHA512),
    ] {
        search.attempt(Cause::WrongHash, about, &hmac::Key::new(algorithm, secret), text)?;
    }
    for (about, bytes) in [
        ("SHA-256 without a secret", text.to_vec()),
        ("SHA-256 of secret and text", [secret, text].concat()),
        ("SHA-256 of text and secret", [text, secret].concat()),
    ] {
        search.attempt_digest(Cause::WrongHash, about, &bytes, text)?;
    }
    // The arguments of the HMAC were swapped.
    let swapped = hmac::Key::new(hmac::HMAC_SHA256, text);
    search.attempt(Cause::WrongHash, "the text as the secret", &swapped, secret)?;
    let Ok(text) = std::str::from_utf8(text) else { return ControlFlow::Continue(()) };
    let utf16_secret =
        |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { pair.secret.expose().encode_utf16().flat_map(bytes).collect() };
    for (about, encoded) in encodings(text) {
        search.attempt(Cause::WrongEncoding, about, &pair.hmac, &encoded)?;
        if about == UTF_16 {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &utf16_secret(u16::to_le_bytes));
            search.attempt(Cause::WrongEncoding, about, &key, &encoded)?;
        }
    }
    ControlFlow::Continue(())
}

const UTF_16: &str = "UTF-16, little-endian";

/// A text in the encodings that are taken for UTF-8.
fn encodings(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&'static str, Vec<u8>)> = Vec::new();
    if !text.is_ascii() {
        let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        all.extend(latin.map(|bytes| ("Latin-1", bytes)));
        let replaced = text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect();
        all.push(("ASCII", replaced));
        let twice: String = text.bytes().map(char::from).collect();
        all.push(("UTF-8 twice", twice.into_bytes()));
    }
    let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
    all.push(("UTF-16, little-endian, with a byte order mark", [&b"\xff\xfe"[..], &little].concat()));
    all.push(("UTF-16, big-endian, with a byte order mark", [&b"\xfe\xff"[..], &big].concat()));
    all.push((UTF_16, little));
    all.push(("UTF-16, big-endian", big));
    all.push(("UTF-8 with a byte order mark", ["\u{feff}", text].concat().into_bytes()));
    all
}

/// Attempts with the secrets of other apps, the newest first, up to a bound (threat T54).
pub(super) fn attempt_other_apps<'a>(
    search: &mut Search,
    directory: &'a Directory,
    app: &App,
    text: &[u8],
    signer: &mut Option<&'a App>,
) -> Step {
    let hmacs_max = search.hmacs + EXPLAIN_OTHER_APPS_HMACS_MAX;
    for other in directory.apps().rev().filter(|other| other.serial != app.serial) {
        if search.hmacs + other.keys.len() > hmacs_max {
            search.is_cut = true;
            break;
        }
        *signer = Some(other);
        for pair in other.keys.iter().rev() {
            search.attempt(Cause::SecretOfOtherApp, "", &pair.hmac, text)?;
        }
    }
    *signer = None;
    ControlFlow::Continue(())
}
