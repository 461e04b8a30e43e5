//! Query signatures: every accepted request was signed in one of the readings that the rules name, and requests signed
//! by SDKs are accepted (P-SIGN-1 to P-SIGN-5, threat T4).

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use relay::app::{App, AppKey, AppSerial, AppSettings};
use relay::auth::signature::{Signed, SignedBody, is_signed, verify_signature};
use relay::moment::Moment;
use sha2::{Digest, Sha256};

use crate::input::Input;

const KEY: &str = "a-key";
const SECRET: &str = "a-secret";
const NOW_S: u64 = 1_800_000_000;
/// A query with several readings must be accepted if it has at most this many parameters beside the reserved ones.
const PARAMETERS_OF_SDKS: usize = 8;

/// How a client may have read its own query before it signed it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    decodes: bool,
    plus_is_space: bool,
    collapses: bool,
}

/// P-SIGN-1 to P-SIGN-5, P-SDK-20, R-BASE-2, threat T4.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let method = *input.pick(&["GET", "POST", "post", "DELETE"]);
    let path = *input.pick(&["/apps/3/events", "/apps/3/channels/a%20b", "/api/v1/apps/3/events", "/x/apps/3/events"]);
    let prefix = *input.pick(&["", "/x", "/api"]);
    let reading =
        Reading { decodes: input.below(4) > 0, plus_is_space: input.below(4) == 0, collapses: input.below(2) == 0 };
    let (form, edit_at, edit) = (input.byte(), input.word(), input.byte());
    let body = input.line();
    let Ok(own) = std::str::from_utf8(input.rest()) else { return };
    let query = signed_query(method, path, own, body, reading, form);
    let is_plain_request = form & 0xF0 == 0 && prefix.is_empty();
    judge(method, path, prefix, &query, body, is_plain_request);
    // One byte of it is changed on the way.
    let mut text = query.into_bytes();
    let at = usize::from(edit_at) % text.len().max(1);
    if let Some(byte) = text.get_mut(at) {
        *byte = edit;
    }
    if let Ok(query) = std::str::from_utf8(&text) {
        judge(method, path, prefix, query, body, false);
    }
    judge(method, path, prefix, own, body, false);
}

/// The query that a client sends: its own parameters, the reserved ones, and the signature of a reading of both. `form`
/// omits something or encodes it differently.
fn signed_query(method: &str, path: &str, own: &str, body: &[u8], reading: Reading, form: u8) -> String {
    let timestamp = match form & 0x30 {
        0x10 => NOW_S - 600,
        0x20 => NOW_S + 601,
        0x30 => 1,
        _ => NOW_S,
    };
    let version = if form & 0xC0 == 0x80 { "1.1" } else { "1.0" };
    let mut query = format!("auth_key={KEY}&auth_timestamp={timestamp}&auth_version={version}");
    if !body.is_empty() && form & 0xC0 != 0x40 {
        query += &format!("&body_md5={}", hex::encode(Md5::digest(body)));
    }
    if !own.is_empty() {
        query = if form & 1 == 0 { format!("{query}&{own}") } else { format!("{own}&{query}") };
    }
    let signature = sign(method, path.as_bytes(), &pairs(&query), reading);
    if form & 2 == 0 {
        format!("{query}&auth_signature={signature}")
    } else {
        format!("auth_signature={signature}&{query}")
    }
}

/// Verifies with the server and with the reference. `must_pass` demands acceptance of everything that the reference
/// accepts; otherwise the server may refuse more (bounds on queries with several readings), never less.
fn judge(method: &str, path: &str, prefix: &str, query: &str, body: &[u8], must_pass: bool) {
    let app = App {
        serial: AppSerial(1),
        id: "3".into(),
        name: "".into(),
        enabled: true,
        keys: vec![AppKey::new("older", "older-secret"), AppKey::new(KEY, SECRET)],
        encryption_master_key: None,
        settings: AppSettings::default(),
        webhooks: Default::default(),
    };
    let signed = |body| Signed { method, path, query, body };
    let now = Moment { monotonic_ms: 5, unix_ms: NOW_S * 1_000 };
    let verdict = verify_signature(&app, &signed(SignedBody::Whole(body)), prefix, now);
    let accepted = reference(method, path, prefix, query, body);
    if let Err(refusal) = &verdict {
        let text = refusal.to_string();
        assert!(!text.contains(SECRET), "threat T27: {text}");
        let is_of_sdks = pairs(query).len() <= 5 + PARAMETERS_OF_SDKS;
        assert!(!(accepted && must_pass && is_of_sdks), "{query} is signed, but: {text}");
    } else {
        assert!(accepted, "{method} {path}?{query} with {} passes and was never signed", body.escape_ascii());
        assert_eq!(verdict, Ok(1), "the key that signed is named");
        assert!(is_signed(query), "what passes as signed is taken for signed (R-AUTH-4)");
        let awaited = if body.is_empty() { SignedBody::AwaitedOrEmpty } else { SignedBody::Awaited };
        assert_eq!(
            verify_signature(&app, &signed(awaited), prefix, now),
            verdict,
            "it passes before its body is there"
        );
    }
}

/// Whether a holder of the secret signed this request, in any reading.
fn reference(method: &str, path: &str, prefix: &str, query: &str, body: &[u8]) -> bool {
    let all = pairs(query);
    let reserved = |wanted: &str| -> Vec<Vec<u8>> {
        all.iter()
            .filter(|(name, _)| {
                let name = decode(name, false).to_ascii_lowercase();
                name == wanted.as_bytes() || base(&name).is_some_and(|base| base == wanted.as_bytes())
            })
            .map(|(name, value)| {
                let is_array = base(&decode(name, false).to_ascii_lowercase()).is_some();
                if is_array { b"(array)".to_vec() } else { decode(value, false) }
            })
            .collect()
    };
    let [key] = &reserved("auth_key")[..] else { return false };
    let [timestamp] = &reserved("auth_timestamp")[..] else { return false };
    let [version] = &reserved("auth_version")[..] else { return false };
    let [signature] = &reserved("auth_signature")[..] else { return false };
    let timestamp = std::str::from_utf8(timestamp).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let is_fresh =
        timestamp.and_then(|text| text.parse::<u64>().ok()).is_some_and(|given| given.abs_diff(NOW_S) <= 600);
    let is_bound = match &reserved("body_md5")[..] {
        [] => body.is_empty(),
        [digest] => digest.eq_ignore_ascii_case(hex::encode(Md5::digest(body)).as_bytes()),
        _ => false,
    };
    if key != KEY.as_bytes() || version != b"1.0" || !is_fresh || !is_bound {
        return false;
    }
    let covered: Vec<_> =
        all.iter().copied().filter(|(name, _)| decode(name, false).to_ascii_lowercase() != b"auth_signature").collect();
    let unprefixed = |path: &'_ str, prefix: &str| {
        path.strip_prefix(prefix).filter(|rest| rest.starts_with('/')).unwrap_or(path).to_owned()
    };
    let without = unprefixed(path, prefix);
    let paths = [
        path.as_bytes().to_vec(),
        decode(path.as_bytes(), false),
        unprefixed(&without, "/api/v1").into_bytes(),
        without.into_bytes(),
    ];
    paths.iter().any(|path| {
        [(false, false), (true, false), (true, true)].into_iter().any(|(decodes, plus_is_space)| {
            [false, true].into_iter().any(|collapses| {
                sign(method, path, &covered, Reading { decodes, plus_is_space, collapses }).as_bytes() == signature
            })
        })
    })
}

type Pair<'a> = (&'a [u8], &'a [u8]);

fn pairs(query: &str) -> Vec<Pair<'_>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, ""))).map(|(a, b)| (a.as_bytes(), b.as_bytes())).collect()
}

fn sign(method: &str, path: &[u8], pairs: &[Pair<'_>], reading: Reading) -> String {
    let read = |text: &[u8]| if reading.decodes { decode(text, reading.plus_is_space) } else { text.to_vec() };
    let mut read_pairs: Vec<(Vec<u8>, Vec<u8>, bool)> = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (read(name).to_ascii_lowercase(), read(value));
        match base(&name).filter(|_| reading.collapses) {
            None => read_pairs.push((name, value, false)),
            Some(base) => match read_pairs.iter_mut().find(|(known, _, is_array)| *is_array && known == base) {
                Some((_, values, _)) => values.extend([b",", &value[..]].concat()),
                None => read_pairs.push((base.to_vec(), value, true)),
            },
        }
    }
    read_pairs.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let joined: Vec<Vec<u8>> = read_pairs.iter().map(|(name, value, _)| [&name[..], b"=", value].concat()).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is a key");
    mac.update(method.to_ascii_uppercase().as_bytes());
    mac.update(b"\n");
    mac.update(path);
    mac.update(b"\n");
    mac.update(&joined.join(&b"&"[..]));
    hex::encode(mac.finalize().into_bytes())
}

/// A separate implementation of percent-decoding.
fn decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    out
}

/// The name before `[]` or `[123]`, in brackets or their escapes.
fn base(name: &[u8]) -> Option<&[u8]> {
    let strip =
        |text: &'_ [u8], forms: [&[u8]; 3]| forms.iter().find_map(|form| text.strip_suffix(*form).map(<[u8]>::len));
    let inner = &name[..strip(name, [b"]", b"%5d", b"%5D"])?];
    let digits = inner.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let base = &name[..strip(&inner[..inner.len() - digits], [b"[", b"%5b", b"%5B"])?];
    (!base.is_empty()).then_some(base)
}
