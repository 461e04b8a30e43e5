//! Channel names and the properties that their prefixes define (P-CHAN-1, P-CHAN-2, R-CHAN-3).

use crate::label::labels;
use crate::limits::{CHANNEL_NAME_BYTES_MAX, CHANNEL_NAME_STRICT_BYTES_MAX};

labels! {
    /// Which characters and lengths are allowed (`channel_names`, P-CHAN-2).
    #[derive(Default)]
    pub enum NameRules {
        /// 1 to 200 bytes of `[-A-Za-z0-9_=@,.;:#]`.
        #[default]
        Default => "default",
        /// No `:` or `#`; 164 bytes on WebSockets, 200 over HTTP.
        Strict => "strict",
        /// 1 to 200 bytes of anything but whitespace and control characters; no `:{` in protected channels.
        Permissive => "permissive",
    }
}

impl NameRules {
    /// Whether a character may be in a name, wherever it is.
    pub fn allows(self, character: char) -> bool {
        match self {
            Self::Default => u8::try_from(character).is_ok_and(is_default),
            Self::Strict => u8::try_from(character).is_ok_and(is_default) && !matches!(character, ':' | '#'),
            Self::Permissive => is_visible(character),
        }
    }
}

/// Where a name came from, for `Strict`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameSource {
    /// A WebSocket frame.
    WebSocket,
    /// The HTTP API.
    Http,
}

/// Type of a channel by its anchored prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelKind {
    /// Anyone with the key may subscribe.
    Public,
    /// Needs a signature.
    Private,
    /// Needs a signature; payloads are opaque to the server.
    PrivateEncrypted,
    /// Needs a signature over `channel_data`; has members.
    Presence,
    /// `#server-to-user-<id>` (P-SDK-25).
    ServerToUser,
}

/// Why a name was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameError {
    /// Longer than this limit.
    TooLong(usize),
    /// Empty, or a character that is not allowed.
    Invalid,
}

/// A checked channel name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelName<'a> {
    text: &'a str,
    kind: ChannelKind,
}

impl<'a> ChannelName<'a> {
    /// Checks a name. Lengths are in bytes.
    ///
    /// # Errors
    /// `TooLong` before `Invalid`, since clients receive different errors for the two (P-FAIL-5).
    pub fn parse(text: &'a str, rules: NameRules, source: NameSource) -> Result<Self, NameError> {
        let bytes_max = match (rules, source) {
            (NameRules::Strict, NameSource::WebSocket) => CHANNEL_NAME_STRICT_BYTES_MAX,
            (NameRules::Strict, NameSource::Http) | (NameRules::Default | NameRules::Permissive, _) => {
                CHANNEL_NAME_BYTES_MAX
            }
        };
        if text.len() > bytes_max {
            return Err(NameError::TooLong(bytes_max));
        }
        // The channel of a signed-in user is the one name that may begin with `#`, whatever the rules (P-SDK-25).
        let user_id = text.strip_prefix(SERVER_TO_USER);
        let checked = user_id.unwrap_or(text);
        let is_allowed = match rules {
            NameRules::Default => checked.bytes().all(is_default) && (user_id.is_some() || !text.starts_with('#')),
            NameRules::Strict => checked.bytes().all(|byte| is_default(byte) && !matches!(byte, b':' | b'#')),
            NameRules::Permissive => checked.chars().all(is_visible),
        };
        if checked.is_empty() || !is_allowed {
            return Err(NameError::Invalid);
        }
        let kind = ChannelKind::of(text);
        // The signature for such a name could also be that of a shorter name and its data (P-AUTH-1, P-AUTH-2).
        if rules == NameRules::Permissive && kind.is_protected() && text.contains(":{") {
            return Err(NameError::Invalid);
        }
        Ok(Self { text, kind })
    }

    /// The name.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Its type.
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }
}

impl ChannelKind {
    /// True when a subscription needs a signature.
    pub fn is_protected(self) -> bool {
        match self {
            Self::Private | Self::PrivateEncrypted | Self::Presence => true,
            Self::Public | Self::ServerToUser => false,
        }
    }

    /// The type of a valid name, by the leading prefix alone (P-CHAN-1, R-CHAN-3): `no-history-private-x` is public.
    pub fn of(text: &str) -> Self {
        if text.starts_with(SERVER_TO_USER) {
            Self::ServerToUser
        } else if text.starts_with("private-encrypted-") {
            Self::PrivateEncrypted
        } else if text.starts_with("private-") {
            Self::Private
        } else if text.starts_with("presence-") {
            Self::Presence
        } else {
            Self::Public
        }
    }
}

/// The modifiers in a channel's name (R-CHAN-3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Modifiers {
    /// Its last event is kept for later subscribers (P-CACHE).
    pub cache: bool,
    /// Its events are never stored in the history (R-CHAN-4).
    pub no_history: bool,
}

/// True for a name that looks protected but is public: a modifier before the type (R-CHAN-3), as in
/// `no-history-private-x`.
pub fn is_misleading(channel: &str) -> bool {
    let mut rest = channel;
    while let Some(after) = ["cache-", "no-history-"].iter().find_map(|modifier| rest.strip_prefix(modifier)) {
        rest = after;
    }
    rest.len() < channel.len() && TYPE_PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
}

impl Modifiers {
    /// Each word counts once, in any order, at the front or directly after the prefix of the type.
    pub fn of(channel: &str) -> Self {
        let mut rest = TYPE_PREFIXES.iter().find_map(|prefix| channel.strip_prefix(prefix)).unwrap_or(channel);
        let mut found = Self::default();
        loop {
            if let Some(after) = rest.strip_prefix("cache-").filter(|_| !found.cache) {
                (found.cache, rest) = (true, after);
            } else if let Some(after) = rest.strip_prefix("no-history-").filter(|_| !found.no_history) {
                (found.no_history, rest) = (true, after);
            } else {
                return found;
            }
        }
    }
}

/// The characters of P-CHAN-2.
fn is_default(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_=@,.;:#".contains(&byte)
}

fn is_visible(character: char) -> bool {
    !character.is_whitespace() && !character.is_control()
}

/// Prefixes of typed channels; of two that match, the longer one comes first.
const TYPE_PREFIXES: [&str; 3] = ["private-encrypted-", "private-", "presence-"];
/// Prefix of a signed-in user's channel.
pub const SERVER_TO_USER: &str = "#server-to-user-";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, rules: NameRules) -> Result<ChannelKind, NameError> {
        ChannelName::parse(text, rules, NameSource::WebSocket).map(|name| {
            assert_eq!(name.as_str(), text);
            name.kind()
        })
    }

    /// P-CHAN-1, R-CHAN-3: only the leading prefix determines the type.
    #[test]
    fn the_leading_prefix_gives_the_type() {
        for (text, kind) in [
            ("chat", ChannelKind::Public),
            ("private-x", ChannelKind::Private),
            ("private-encrypted-x", ChannelKind::PrivateEncrypted),
            ("private-encrypted-cache-x", ChannelKind::PrivateEncrypted),
            ("private-encrypted", ChannelKind::Private),
            ("private-cache-encrypted-x", ChannelKind::Private),
            ("private-no-history-cache-x", ChannelKind::Private),
            ("presence-x", ChannelKind::Presence),
            ("presence-cache-x", ChannelKind::Presence),
            ("no-history-private-x", ChannelKind::Public),
            ("cache-presence-x", ChannelKind::Public),
            ("x-cache-y", ChannelKind::Public),
            ("private", ChannelKind::Public),
            ("privatex-", ChannelKind::Public),
            ("Private-x", ChannelKind::Public),
            ("#server-to-user-7", ChannelKind::ServerToUser),
            ("#server-to-user-private-7", ChannelKind::ServerToUser),
            ("x#server-to-user-7", ChannelKind::Public),
        ] {
            assert_eq!(parse(text, NameRules::Default), Ok(kind), "{text}");
        }
    }

    /// P-CHAN-1, R-CHAN-2, R-CHAN-3: modifiers are at the front or after the type, each once, in any order.
    #[test]
    fn modifiers_stand_behind_the_type() {
        for prefix in ["", "private-", "private-encrypted-", "presence-"] {
            for (words, cache, no_history) in [
                ("", false, false),
                ("x", false, false),
                ("cache", false, false),
                ("cachefoo", false, false),
                ("cache-", true, false),
                ("cache-x", true, false),
                ("no-history-x", false, true),
                ("no-history-cache-x", true, true),
                ("cache-no-history-x", true, true),
                ("cache-cache-no-history-x", true, false),
                ("x-cache-y", false, false),
                ("Cache-x", false, false),
            ] {
                let name = format!("{prefix}{words}");
                assert_eq!(Modifiers::of(&name), Modifiers { cache, no_history }, "{name}");
            }
        }
        assert_eq!(Modifiers::of("no-history-private-cache-x"), Modifiers { cache: false, no_history: true });
        assert_eq!(Modifiers::of("private-cache-encrypted-x"), Modifiers { cache: true, no_history: false });
        assert_eq!(Modifiers::of("#server-to-user-cache-1"), Modifiers::default());
    }

    /// P-CHAN-2: every ASCII character, against the set as the rule writes it.
    #[test]
    fn characters_of_the_default_set() {
        const ALLOWED: &str = "-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_=@,.;:#";
        for character in (0..128_u8).map(char::from) {
            let text = format!("a{character}");
            let allowed = ALLOWED.contains(character);
            assert_eq!(parse(&text, NameRules::Default).is_ok(), allowed, "{text:?}");
            assert_eq!(parse(&text, NameRules::Strict).is_ok(), allowed && !":#".contains(character), "{text:?}");
            let visible = !character.is_whitespace() && !character.is_control();
            assert_eq!(parse(&text, NameRules::Permissive).is_ok(), visible, "{text:?}");
        }
        assert_eq!(parse("é", NameRules::Default), Err(NameError::Invalid));
        assert_eq!(parse("é", NameRules::Permissive), Ok(ChannelKind::Public));
        assert_eq!(parse("a\u{2003}b", NameRules::Permissive), Err(NameError::Invalid));
    }

    /// P-CHAN-2, threat T1: no protected channel has `:{` in its name, since its signature could be that of a shorter
    /// name with channel data. Only `permissive` allows the brace elsewhere.
    #[test]
    fn names_cannot_be_taken_for_a_name_and_data() {
        for name in ["private-a:{}", "private-encrypted-a:{", "private-cache-a:{x", "presence-a:{\"user_id\":1}"] {
            assert_eq!(parse(name, NameRules::Permissive), Err(NameError::Invalid), "{name}");
        }
        for name in ["private-a:b", "private-a{:", "private-{a}", "presence-a:b{", "a:{}", "#server-to-user-a:{}"] {
            assert!(parse(name, NameRules::Permissive).is_ok(), "{name}");
        }
    }

    /// P-CHAN-2: a leading `#` only before `server-to-user-<id>`, which needs an id.
    #[test]
    fn a_leading_hash_is_reserved() {
        for rules in [NameRules::Default, NameRules::Strict] {
            assert_eq!(parse("#general", rules), Err(NameError::Invalid));
            assert_eq!(parse("#server-to-user", rules), Err(NameError::Invalid));
            assert_eq!(parse("#server-to-user-a b", rules), Err(NameError::Invalid));
        }
        assert_eq!(parse("#general", NameRules::Permissive), Ok(ChannelKind::Public));
        for rules in [NameRules::Default, NameRules::Strict, NameRules::Permissive] {
            assert_eq!(parse("#server-to-user-", rules), Err(NameError::Invalid));
            assert_eq!(parse("#server-to-user-7", rules), Ok(ChannelKind::ServerToUser));
        }
    }

    /// P-CHAN-2: 1 to 200 bytes, and 164 under `strict` on WebSockets; bytes, not characters.
    #[test]
    fn lengths_are_in_bytes() {
        let of = |length: usize| "a".repeat(length);
        for (rules, source, max) in [
            (NameRules::Default, NameSource::WebSocket, 200),
            (NameRules::Default, NameSource::Http, 200),
            (NameRules::Permissive, NameSource::WebSocket, 200),
            (NameRules::Strict, NameSource::Http, 200),
            (NameRules::Strict, NameSource::WebSocket, 164),
        ] {
            assert_eq!(ChannelName::parse("", rules, source), Err(NameError::Invalid));
            assert!(ChannelName::parse(&of(max), rules, source).is_ok());
            assert_eq!(ChannelName::parse(&of(max + 1), rules, source), Err(NameError::TooLong(max)));
        }
        assert!(parse(&"é".repeat(100), NameRules::Permissive).is_ok());
        assert_eq!(parse(&"é".repeat(101), NameRules::Permissive), Err(NameError::TooLong(200)));
    }

    /// R-CHAN-3: a modifier before the type makes a channel public although its name looks protected.
    #[test]
    fn modifiers_before_the_type_mislead() {
        for name in ["no-history-private-x", "cache-presence-x", "no-history-cache-private-encrypted-x"] {
            assert!(is_misleading(name), "{name}");
        }
        for name in
            ["private-no-history-x", "no-history-x", "cache-x", "x-no-history-private-y", "private-cache-private-x", ""]
        {
            assert!(!is_misleading(name), "{name}");
        }
    }
}
