//! What a client says (section 3 of the Pusher protocol).

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::server_event::encode_json_string;
use crate::limits::JSON_DEPTH_MAX;
use crate::wire::json::check_text_depth;

/// A message of a client, lent from its text where no escape stands in the way.
#[derive(Debug, Eq, PartialEq)]
pub enum ClientMessage<'a> {
    /// `pusher:subscribe`. `channel` is `None` when absent or no string (P-FAIL-5).
    Subscribe {
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
        /// `auth`; absent, null, `""` and anything but a string are all `None` (P-FAIL-3).
        auth: Option<Cow<'a, str>>,
        /// `channel_data` as the exact string received; absent, null and anything but a string are `None`.
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
///
/// # Errors
/// [`InvalidMessage`], also for a lone surrogate in a string that is read, and for a member that is read and stands
/// twice: parsers differ on which one counts (threat T10).
pub fn decode_client_message(text: &str) -> Result<ClientMessage<'_>, InvalidMessage> {
    let envelope: Envelope<'_> = parse_object(text)?;
    let event = decode_member(envelope.event)?.ok_or(InvalidMessage)?;
    match &*event {
        "pusher:subscribe" => {
            let SubscriptionData { channel, auth, channel_data } = decode_subscription_data(envelope.data)?;
            let auth = auth.filter(|auth| !auth.is_empty());
            Ok(ClientMessage::Subscribe { channel, auth, channel_data })
        }
        "pusher:unsubscribe" => {
            let SubscriptionData { channel, .. } = decode_subscription_data(envelope.data)?;
            Ok(ClientMessage::Unsubscribe { channel })
        }
        "pusher:ping" => Ok(ClientMessage::Ping),
        "pusher:pong" => Ok(ClientMessage::Pong),
        name if name.starts_with("client-") => {
            let channel = decode_member(envelope.channel)?;
            let (data, data_bytes) = decode_client_data(envelope.data)?;
            Ok(ClientMessage::ClientEvent { event, channel, data, data_bytes })
        }
        _ => Ok(ClientMessage::Unknown),
    }
}

/// The members of a message that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope<'a> {
    #[serde(borrow, deserialize_with = "present")]
    event: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// The members of the `data` of `pusher:subscribe` and `pusher:unsubscribe` that are read, as JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SubscriptionMembers<'a> {
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    auth: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channel_data: Option<&'a RawValue>,
}

/// The same, as text.
#[derive(Default)]
struct SubscriptionData<'a> {
    channel: Option<Cow<'a, str>>,
    auth: Option<Cow<'a, str>>,
    channel_data: Option<Cow<'a, str>>,
}

impl<'a> SubscriptionData<'a> {
    fn decode(text: &'a str) -> Result<Self, InvalidMessage> {
        let members: SubscriptionMembers<'a> = parse_object(text)?;
        Ok(Self {
            channel: decode_member(members.channel)?,
            auth: decode_member(members.auth)?,
            channel_data: decode_member(members.channel_data)?,
        })
    }

    fn into_owned(self) -> SubscriptionData<'static> {
        let own = |text: Option<Cow<'a, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        SubscriptionData { channel: own(self.channel), auth: own(self.auth), channel_data: own(self.channel_data) }
    }
}

/// Keeps `null` apart from an absent member, which serde alone would not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Parses text that must be one object, after its depth was checked. (Serde would take an array for a struct, too.)
fn parse_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, InvalidMessage> {
    check_text_depth(text, JSON_DEPTH_MAX).map_err(|_| InvalidMessage)?;
    if !is_object(text) {
        return Err(InvalidMessage);
    }
    serde_json::from_str(text).map_err(|_| InvalidMessage)
}

fn is_object(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{')
}

/// Reads the `data` of a `pusher:` event: an object, or a string that holds one (P-IN-2). Anything else is as if it
/// were empty: the message then lacks what it needs, and the answer is the one for that (P-FAIL-5).
fn decode_subscription_data(data: Option<&RawValue>) -> Result<SubscriptionData<'_>, InvalidMessage> {
    let Some(data) = data else {
        return Ok(SubscriptionData::default());
    };
    if is_object(data.get()) {
        return SubscriptionData::decode(data.get());
    }
    match decode_string(data)? {
        Some(text) if is_object(&text) => Ok(SubscriptionData::decode(&text)?.into_owned()),
        Some(_) | None => Ok(SubscriptionData::default()),
    }
}

/// The text of a member; `None` when it is absent or no string.
fn decode_member(member: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, InvalidMessage> {
    member.map_or(Ok(None), decode_string)
}

/// The text of a JSON string; `None` for any other JSON.
fn decode_string(json: &RawValue) -> Result<Option<Cow<'_, str>>, InvalidMessage> {
    let Some(inner) = json.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(None);
    };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    // Fails on lone surrogates, which the raw value let pass.
    serde_json::from_str(json.get()).map(|text: String| Some(Cow::Owned(text))).map_err(|_| InvalidMessage)
}

/// The `data` of a client event as a string literal, and the length of what it decodes to (P-CEV-3).
fn decode_client_data(data: Option<&RawValue>) -> Result<(Cow<'_, str>, usize), InvalidMessage> {
    let Some(data) = data else {
        return Ok((Cow::Borrowed(r#""{}""#), "{}".len()));
    };
    if let Some(text) = decode_string(data)? {
        return Ok((Cow::Borrowed(data.get()), text.len()));
    }
    let raw = data.get();
    let mut literal = Vec::with_capacity(raw.len() + raw.len() / 8 + 2);
    encode_json_string(&mut literal, raw);
    let literal = String::from_utf8(literal).expect("a literal of a string is UTF-8");
    Ok((Cow::Owned(literal), raw.len()))
}
