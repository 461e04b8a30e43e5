//! `POST /events` (P-HTTP-1, P-HTTP-12 to 14).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::literal::{decode_body, decode_data_literal, decode_object, decode_string, for_each_element};
use super::refusal::Refusal;
use crate::app::AppSettings;
use crate::channel::name::{ChannelName, NameError, NameRules, NameSource};
use crate::limits::{CHANNEL_NAME_BYTES_MAX, CHANNELS_PER_EVENT_MAX, EVENT_NAME_BYTES_MAX, QUOTED_BYTES_MAX};
use crate::protocol::socket_id::SocketId;

/// Which counts the answer shall tell (`info`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Info {
    /// `user_count`, on presence channels only (P-HTTP-11).
    pub user_count: bool,
    /// `subscription_count`.
    pub subscription_count: bool,
}

impl Info {
    /// True when nothing was asked for.
    pub fn is_empty(self) -> bool {
        !self.user_count && !self.subscription_count
    }
}

/// One event for one or several channels, checked whole.
#[derive(Debug)]
pub struct PublishEvent<'a> {
    /// Event name.
    pub name: Cow<'a, str>,
    /// `data` as a JSON string literal, quotes included, ready to stand in a frame.
    pub data_literal: Cow<'a, str>,
    /// The channels, each once, in the order of the request.
    pub channels: Vec<Cow<'a, str>>,
    /// The connection that does not get it.
    pub exclude: Option<SocketId>,
    /// Counts asked for; `None` when the request has no `info` member.
    pub info: Option<Info>,
}

/// A whole request to publish.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The events in order; exactly one for `/events`.
    pub events: Vec<PublishEvent<'a>>,
    /// Whether the answer has the shape of `/batch_events`.
    pub batch: bool,
}

/// Rules that a body is checked against.
#[derive(Clone, Copy, Debug)]
pub struct PublishRules<'a> {
    /// The app's settings.
    pub settings: &'a AppSettings,
    /// Which channel names are allowed.
    pub names: NameRules,
}

/// Decodes and checks the body of `POST /events`, whole (P-HTTP-14).
///
/// # Errors
/// 400 or 413 with the limit or the expectation.
pub fn decode_events<'a>(body: &'a [u8], rules: &PublishRules<'_>) -> Result<Publish<'a>, Refusal> {
    let fields: EventFields<'a> = decode_object(decode_body(body)?)?;
    let channels = match (fields.channel, fields.channels) {
        (Some(channel), None) => vec![decode_channel(channel, "channel", rules)?],
        (None, Some(channels)) => decode_channels(channels, rules)?,
        (Some(_), Some(_)) => {
            return Err(Refusal::bad_request("Give either the member channel or the member channels, not both."));
        }
        (None, None) => {
            return Err(Refusal::bad_request("The member channels is missing: an array of channel names."));
        }
    };
    let event = decode_event(&fields, channels, rules)?;
    Ok(Publish { events: vec![event], batch: false })
}

/// The members of one event as raw JSON. `null` reads as absent; other members are ignored (P-SDK-21).
#[derive(Deserialize)]
pub(super) struct EventFields<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) channel: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) channels: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) socket_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) info: Option<&'a RawValue>,
}

/// Checks everything of an event but its channels, which the two endpoints read differently.
pub(super) fn decode_event<'a>(
    fields: &EventFields<'a>,
    channels: Vec<Cow<'a, str>>,
    rules: &PublishRules<'_>,
) -> Result<PublishEvent<'a>, Refusal> {
    let name = fields.name.ok_or_else(|| Refusal::bad_request("The member name is missing: the event's name."))?;
    let name = decode_event_name(name)?;
    let data = fields
        .data
        .ok_or_else(|| Refusal::bad_request("The member data is missing: a string, an object or an array."))?;
    Ok(PublishEvent {
        name,
        data_literal: decode_data_literal(data, rules.settings.max_event_data_bytes as usize)?,
        channels,
        exclude: fields.socket_id.map(decode_socket_id).transpose()?.flatten(),
        info: fields.info.map(decode_info).transpose()?,
    })
}

/// P-LIM-1, P-LIM-2, P-HTTP-13.
fn decode_event_name(raw: &RawValue) -> Result<Cow<'_, str>, Refusal> {
    let name = decode_string(raw, "name")?;
    if name.is_empty() || name.len() > EVENT_NAME_BYTES_MAX {
        return Err(Refusal::bad_request(format!("An event name has 1 to {EVENT_NAME_BYTES_MAX} bytes.")));
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::bad_request("An event name has no control characters."));
    }
    if RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Refusal::bad_request("Event names that start with pusher: or pusher_internal: are reserved."));
    }
    Ok(name)
}

/// P-CHAN-2.
pub(super) fn decode_channel<'a>(
    raw: &'a RawValue,
    member: &str,
    rules: &PublishRules<'_>,
) -> Result<Cow<'a, str>, Refusal> {
    let name = decode_string(raw, member)?;
    match ChannelName::parse(&name, rules.names, NameSource::Http) {
        Ok(_) => Ok(name),
        Err(NameError::TooLong(bytes_max)) => {
            Err(Refusal::bad_request(format!("A channel name has at most {bytes_max} bytes.")))
        }
        Err(NameError::Invalid) => Err(invalid_channel(&name, rules.names)),
    }
}

fn invalid_channel(name: &str, rules: NameRules) -> Refusal {
    let allowed = match rules {
        NameRules::Default => "letters, digits and - _ = @ , . ; : #, of which # may only begin #server-to-user-<id>",
        NameRules::Strict => "letters, digits and - _ = @ , . ;",
        NameRules::Permissive => "anything but whitespace and control characters",
    };
    let quoted = &name[..name.floor_char_boundary(QUOTED_BYTES_MAX)];
    // Escaped, so that the one-line answer stays one line.
    Refusal::bad_request(format!(
        "The channel name \"{}\" is invalid: it must have 1 to {CHANNEL_NAME_BYTES_MAX} bytes of {allowed}.",
        quoted.escape_debug()
    ))
}

/// P-LIM-4: each name once, in the order of the request.
fn decode_channels<'a>(raw: &'a RawValue, rules: &PublishRules<'_>) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let mut channels: Vec<Cow<'a, str>> = Vec::new();
    // Indices of `channels` in the order of their names: a body full of duplicates costs no scan for each of them.
    let mut by_name = SmallVec::<[usize; 16]>::new();
    for_each_element(raw, "channels", |element| {
        let name = decode_channel(element, "channels", rules)?;
        let place = by_name.binary_search_by(|index| channels.get(*index).cmp(&Some(&name)));
        let Err(place) = place else {
            return Ok(());
        };
        if channels.len() == CHANNELS_PER_EVENT_MAX {
            return Err(Refusal::bad_request(format!("One event goes to at most {CHANNELS_PER_EVENT_MAX} channels.")));
        }
        by_name.insert(place, channels.len());
        channels.push(name);
        Ok(())
    })?;
    if channels.is_empty() {
        return Err(Refusal::bad_request("The member channels is empty: name at least one channel."));
    }
    Ok(channels)
}

/// P-HTTP-13: malformed is an error, an id that no connection can have excludes nobody.
fn decode_socket_id(raw: &RawValue) -> Result<Option<SocketId>, Refusal> {
    let text = decode_string(raw, "socket_id")?;
    let id = SocketId::parse(&text);
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if id.is_some() || text.split_once('.').is_some_and(|(high, low)| is_digits(high) && is_digits(low)) {
        Ok(id)
    } else {
        Err(Refusal::bad_request("The member socket_id must be two numbers joined by a dot, such as 123.456."))
    }
}

/// P-SDK-21, P-HTTP-11: a comma list in one string; unknown names are ignored.
fn decode_info(raw: &RawValue) -> Result<Info, Refusal> {
    let mut info = Info::default();
    for attribute in decode_string(raw, "info")?.split(',') {
        match attribute.trim() {
            "user_count" => info.user_count = true,
            "subscription_count" => info.subscription_count = true,
            _ => {}
        }
    }
    Ok(info)
}

/// Names that only the server itself may give its events (P-LIM-2).
const RESERVED_PREFIXES: [&str; 2] = ["pusher:", "pusher_internal:"];
