//! Channel names and what their prefix says (P-CHAN-1, P-CHAN-2, R-CHAN-3).

/// Which characters and lengths are allowed (`channel_names`, P-CHAN-2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NameRules {
    /// 1 to 200 bytes of `[-A-Za-z0-9_=@,.;:#]`.
    #[default]
    Default,
    /// No `:` or `#`; 164 bytes on WebSockets, 200 over HTTP.
    Strict,
    /// 1 to 200 bytes of anything but whitespace and control characters.
    Permissive,
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
    /// Longer than the limit, which it carries.
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
    /// Checks a name.
    pub fn parse(
        _text: &'a str,
        _rules: NameRules,
        _source: NameSource,
    ) -> Result<Self, NameError> {
        todo!()
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
