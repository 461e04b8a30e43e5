//! Channel names, socket ids and origins, each compared with a second implementation of its rule.

use relay::app::origin::{is_origin_pattern, origin_allowed};
use relay::channel::name::{ChannelKind, ChannelName, NameError, NameRules, NameSource};
use relay::protocol::socket_id::{SocketId, SocketIdCipher};

use crate::input::Input;

/// P-CHAN-1, P-CHAN-2, P-CONN-8, P-CONN-10, P-SDK-23, threat T21.
pub fn check(bytes: &[u8]) {
    check_cipher(bytes);
    let mut input = Input::new(bytes);
    let length = usize::from(input.byte());
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    check_channel(text);
    check_channel(&format!("presence-{}", text.repeat(length % 30)));
    check_socket_id(text);
    check_origin(text);
}

fn check_channel(text: &str) {
    for rules in [NameRules::Default, NameRules::Strict, NameRules::Permissive] {
        for source in [NameSource::WebSocket, NameSource::Http] {
            let longest = if (rules, source) == (NameRules::Strict, NameSource::WebSocket) { 164 } else { 200 };
            let own = text.strip_prefix("#server-to-user-");
            let allowed = |letter: char| match rules {
                NameRules::Default => letter.is_ascii_alphanumeric() || "-_=@,.;:#".contains(letter),
                NameRules::Strict => letter.is_ascii_alphanumeric() || "-_=@,.;".contains(letter),
                NameRules::Permissive => !letter.is_whitespace() && !letter.is_control(),
            };
            let begins = own.is_some() || rules != NameRules::Default || !text.starts_with('#');
            let checked = own.unwrap_or(text);
            let is_protected = text.starts_with("private-") || text.starts_with("presence-");
            let is_plain = !(is_protected && text.contains(":{"));
            let is_good = !checked.is_empty() && begins && is_plain && checked.chars().all(allowed);
            match ChannelName::parse(text, rules, source) {
                Err(NameError::TooLong(bytes)) => assert!(text.len() > longest && bytes == longest, "{text:?}"),
                Err(NameError::Invalid) => assert!(text.len() <= longest && !is_good, "{text:?} {rules:?}"),
                Ok(name) => {
                    assert!(text.len() <= longest && is_good, "{text:?} {rules:?}");
                    assert_eq!(name.as_str(), text);
                    let wanted = match text {
                        _ if own.is_some() => ChannelKind::ServerToUser,
                        _ if text.starts_with("private-encrypted-") => ChannelKind::PrivateEncrypted,
                        _ if text.starts_with("private-") => ChannelKind::Private,
                        _ if text.starts_with("presence-") => ChannelKind::Presence,
                        _ => ChannelKind::Public,
                    };
                    assert_eq!(name.kind(), wanted, "{text:?}");
                }
            }
        }
    }
}

/// An id has exactly one text.
fn check_socket_id(text: &str) {
    let wanted = text.split_once('.').and_then(|(high, low)| {
        let number = |part: &str| part.parse::<u64>().ok().filter(|number| number.to_string() == part);
        Some(SocketId { high: number(high)?, low: number(low)? })
    });
    assert_eq!(SocketId::parse(text), wanted, "{text:?}");
    if let Some(id) = wanted {
        assert_eq!(id.to_text(), text);
    }
}

/// The cipher is a permutation, and ids of connections begin at 1.
fn check_cipher(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut secret = [0; 16];
    secret.fill_with(|| input.byte());
    let mut plain = [0; 8];
    plain.fill_with(|| input.byte());
    let (cipher, plain) = (SocketIdCipher::new(secret), u64::from_be_bytes(plain));
    let id = cipher.seal(plain);
    assert!(id.high >= 1 && id.to_text().len() <= 21, "{id}");
    assert_eq!(cipher.open(id), Some(plain));
    assert_ne!(cipher.open(SocketId { low: id.low ^ 1, ..id }), Some(plain));
    assert_eq!(cipher.open(SocketId { high: 0, ..id }), None);
}

/// A pattern and an origin, on two lines: an accepted origin has the host of the pattern, or one below it.
fn check_origin(text: &str) {
    let (pattern, origin) = text.split_once('\n').unwrap_or((text, "https://example.com"));
    let host = |text: &str| text.split_once("://").map_or(text, |(_, rest)| rest).to_ascii_lowercase();
    if !is_origin_pattern(pattern) {
        return;
    }
    assert!(!pattern.contains(['/', ' ', '\r', '\n', '@']), "{pattern:?} names no host");
    let allowed = origin_allowed(&[pattern.into()], origin.as_bytes());
    let (authority, pattern) = (host(origin), pattern.to_ascii_lowercase());
    let without_port = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => &authority,
    };
    let fits = |candidate: &str| match pattern.strip_prefix('*') {
        Some("") => true,
        Some(below) => candidate.len() > below.len() && candidate.ends_with(below),
        None => candidate == pattern,
    };
    assert_eq!(allowed, fits(&authority) || fits(without_port), "{origin:?} for {pattern:?}");
    assert!(origin_allowed(&[], origin.as_bytes()));
}
