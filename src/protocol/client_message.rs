//! What a client says (section 3 of the Pusher protocol).

use std::borrow::Cow;

/// A message of a client, lent from its text where no escape stands in the way.
#[derive(Debug, Eq, PartialEq)]
pub enum ClientMessage<'a> {
    /// `pusher:subscribe`. `channel` is `None` when absent or no string (P-FAIL-5).
    Subscribe {
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
        /// `auth`; absent, null and `""` are all `None` (P-FAIL-3).
        auth: Option<Cow<'a, str>>,
        /// `channel_data` as the exact string received; absent and null are `None`.
        channel_data: Option<Cow<'a, str>>,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
    },
    /// `pusher:ping`.
    Ping,
    /// `pusher:pong`.
    Pong,
    /// An event that starts with `client-`.
    ClientEvent {
        /// Event name, unchecked.
        event: Cow<'a, str>,
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
        /// `data` as a JSON string literal, quotes included, ready to stand in a frame (P-CEV-3).
        data: Cow<'a, str>,
        /// Length of the decoded `data` string in bytes.
        data_bytes: usize,
    },
    /// Any other event (P-IN-4).
    Unknown,
}

/// Malformed JSON, too deep, duplicate members, or no string `event` (P-IN-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidMessage;

/// Decodes one text message. Member order is free, unknown members are ignored (P-IN-1); string `data` of a
/// `pusher:` event that parses to an object is taken as that object (P-IN-2).
pub fn decode_client_message(_text: &str) -> Result<ClientMessage<'_>, InvalidMessage> {
    todo!()
}
