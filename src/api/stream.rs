//! `GET /sse` and `GET /poll`: which channels a client reads without a WebSocket, from where, and until when (R-SSE-1 to
//! R-SSE-5, R-POLL-1).

use super::channel_history::encode_kept_event;
use super::refusal::Refusal;
use crate::app::App;
use crate::auth::request::{Caller, Credential};
use crate::auth::subscription::{refusal_message, verify_private};
use crate::channel::history::Gap;
use crate::channel::name::{ChannelKind, ChannelName, Modifiers, NameError, NameRules, NameSource};
use crate::limits::{POLL_TIMEOUT_MAX_S, POLL_TIMEOUT_S, STREAM_CHANNELS_MAX, STREAM_ID_EARLY_S, STREAM_ID_LATE_S};
use crate::moment::Moment;
use crate::protocol::cursor::Cursor;
use crate::protocol::event_id::EventId;
use crate::protocol::quote;
use crate::protocol::server_event::{MissedEvents, encode_comma, encode_json_string};
use crate::protocol::server_sent::{encode_gaps, encode_positions};
use crate::protocol::socket_id::SocketId;
use crate::wire::http::Request;
use crate::wire::query::Query;

/// What a stream or a poll reads.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its channels, each once, in the order of the request.
    pub channels: Vec<(Box<str>, ChannelKind)>,
    /// From where.
    pub last_seen: LastSeen,
    /// Channels that continue elsewhere (R-SSE-12).
    pub after: Vec<(String, LastSeen)>,
    /// The client wants the position of each channel.
    pub positions: bool,
    /// The id that the client chose for the stream.
    pub socket_id: Option<StreamId>,
}

/// The last event that a client has seen, as it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LastSeen {
    /// Nothing: it starts from now.
    Nothing,
    /// One event or position.
    Event(EventId),
    /// A position for each channel.
    Cursor(Cursor),
    /// Text that is none of these: a gap (R-HIST-4).
    Unreadable,
}

/// A stream id that a client chose, `0.<unix seconds><6 to 9 digits>` (R-SSE-5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamId {
    /// The id.
    pub id: SocketId,
    /// Its time, in s since 1970.
    pub unix_s: u64,
}

impl LastSeen {
    fn decode(text: &str) -> Self {
        let event = || EventId::decode(text).map(Self::Event);
        event().or_else(|| Cursor::decode(text).map(Self::Cursor)).unwrap_or(Self::Unreadable)
    }

    /// The position after which a channel is read, by the position before its first event and the hash that cursors have of
    /// it. A gap is a position that is not known, with its reason (R-HIST-4).
    pub fn position(&self, first: EventId, hash: u32, is_only_channel: bool) -> Option<Result<EventId, Gap>> {
        match self {
            Self::Nothing => None,
            Self::Event(id) if is_only_channel || id.group == first.group => Some(Ok(*id)),
            Self::Event(_) | Self::Unreadable => Some(Err(Gap::Unreadable)),
            // Another start of the server has other hashes, too: none of its entries can be assigned to a channel.
            Self::Cursor(cursor) if cursor.epoch != first.epoch => Some(Err(Gap::Epoch)),
            Self::Cursor(cursor) => {
                let sequence = cursor.position(hash).ok_or(Gap::Unreadable);
                Some(sequence.map(|sequence| EventId { sequence, ..first }))
            }
        }
    }
}

impl StreamId {
    /// Reads an id; `None` for any other text, also for a socket id of a WebSocket.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0.").filter(|digits| (16..=19).contains(&digits.len()))?;
        let id = SocketId::parse(text)?;
        Some(Self { id, unix_s: digits[..10].parse().ok()? })
    }

    /// Whether its time is so near that it may be signed (R-SSE-5).
    pub fn may_be_signed(self, now: Moment) -> bool {
        self.unix_s.abs_diff(now.unix_s()) <= STREAM_ID_EARLY_S
    }

    /// Whether it is accepted, for a stream that ends at [`StreamId::ends_at_ms`].
    pub fn is_accepted(self, now: Moment) -> bool {
        self.unix_s <= now.unix_s() + STREAM_ID_EARLY_S && now.unix_ms < self.ends_at_ms()
    }

    /// When it expires, in ms since 1970.
    pub fn ends_at_ms(self) -> u64 {
        (self.unix_s + STREAM_ID_LATE_S) * 1_000
    }
}

/// Decodes a request for a stream, and checks that the caller may read its channels.
///
/// # Errors
/// 400 that names the parameter, 401 for a signature or stream id that is missing or not valid, 403 for a channel that
/// no credential of this kind opens.
pub fn decode_stream(
    request: &Request<'_>,
    app: &App,
    caller: &Caller,
    names: NameRules,
    now: Moment,
) -> Result<Reading, Refusal> {
    let query = Query::new(request.query);
    let channels = decode_channels(query, names)?;
    let socket_id = match query.value("socket_id")? {
        None => None,
        Some(text) => Some(StreamId::parse(&text).ok_or_else(|| {
            Refusal::bad_request("socket_id must be 0.<unix seconds><6 to 9 digits>, chosen by the client.")
        })?),
    };
    if let Some(id) = socket_id.filter(|id| !id.is_accepted(now)) {
        return Err(Refusal::unauthorized(if id.unix_s > now.unix_s() {
            "The time in socket_id is more than 10 minutes ahead of the server's."
        } else {
            "The socket_id has expired: it is valid for 24 hours after the time in it."
        }));
    }
    let signatures = query.keyed("auth")?;
    for (name, _) in &signatures {
        if !channels.iter().any(|(channel, _)| **channel == **name) {
            return Err(Refusal::bad_request(format!(
                "auth[{}] is for a channel that is not in channels.",
                quote(name)
            )));
        }
    }
    let after = query.keyed("after")?;
    if let Some((name, _)) = after.iter().find(|(name, _)| !channels.iter().any(|(channel, _)| **channel == **name)) {
        return Err(Refusal::bad_request(format!("after[{}] is for a channel that is not in channels.", quote(name))));
    }
    let after = after.into_iter().map(|(name, text)| {
        let last_seen = if text.is_empty() { LastSeen::Nothing } else { LastSeen::decode(&text) };
        (name, last_seen)
    });
    let is_trusted = !matches!(caller.credential, Credential::PublicKey(_));
    for (name, kind) in &channels {
        let signature = signatures.iter().find(|(channel, _)| **channel == **name).map(|(_, auth)| &**auth);
        check_channel(app, name, *kind, is_trusted, (socket_id, signature))?;
    }
    let is_protected = |(_, kind): &(Box<str>, ChannelKind)| kind.is_protected();
    if app.settings.authorized_connections && !is_trusted && !channels.iter().any(is_protected) {
        return Err(Refusal::forbidden(
            "This app requires authorized connections (authorized_connections): read a private channel, or use a token.",
        ));
    }
    let last_seen = decode_last_seen(request);
    let positions = query.first("positions").is_some_and(|value| value == "true");
    Ok(Reading { channels, last_seen, after: after.collect(), positions, socket_id })
}

/// How long a poll is held, in s (R-POLL-1).
///
/// # Errors
/// 400 for anything but 1 to 55.
pub fn decode_timeout(query: Query<'_>) -> Result<u32, Refusal> {
    let Some(text) = query.value("timeout")? else { return Ok(POLL_TIMEOUT_S) };
    let seconds = text.parse().ok().filter(|seconds| (1..=POLL_TIMEOUT_MAX_S).contains(seconds));
    seconds.ok_or_else(|| {
        Refusal::bad_request(format!("timeout takes a number of seconds from 1 to {POLL_TIMEOUT_MAX_S}."))
    })
}

/// Polls return what the history has, so they need channels with one.
///
/// # Errors
/// 400 that names the channel or the setting.
pub fn check_history(app: &App, reading: &Reading) -> Result<(), Refusal> {
    if app.settings.history_events == 0 {
        return Err(Refusal::bad_request(
            "Polls read the history of channels, and this app keeps none (history_events is 0).",
        ));
    }
    match reading.channels.iter().find(|(name, _)| Modifiers::of(name).no_history) {
        Some((name, _)) => {
            Err(Refusal::bad_request(format!("channels: {name} has no history, which polls need: use /sse.")))
        }
        None => Ok(()),
    }
}

fn decode_channels(query: Query<'_>, names: NameRules) -> Result<Vec<(Box<str>, ChannelKind)>, Refusal> {
    let items = query.items("channels")?;
    if items.len() > STREAM_CHANNELS_MAX {
        return Err(Refusal::bad_request(format!(
            "channels has {} names; a stream or poll has at most {STREAM_CHANNELS_MAX}.",
            items.len()
        )));
    }
    let mut channels: Vec<(Box<str>, ChannelKind)> = Vec::with_capacity(items.len());
    for item in &items {
        let name = ChannelName::parse(item, names, NameSource::Http).map_err(|error| {
            let fault = match error {
                NameError::TooLong(bytes_max) => format!("is longer than {bytes_max} bytes"),
                NameError::Invalid => "is not a valid name".to_owned(),
            };
            Refusal::bad_request(format!("channels: \"{}\" {fault}.", quote(item)))
        })?;
        if !channels.iter().any(|(known, _)| **known == *name.as_str()) {
            channels.push((name.as_str().into(), name.kind()));
        }
    }
    if channels.is_empty() {
        return Err(Refusal::bad_request("The query parameter channels is required: names separated by commas."));
    }
    Ok(channels)
}

/// Whether the caller may read a channel (R-SSE-3, R-SSE-5).
fn check_channel(
    app: &App,
    name: &str,
    kind: ChannelKind,
    is_trusted: bool,
    (socket_id, signature): (Option<StreamId>, Option<&str>),
) -> Result<(), Refusal> {
    match kind {
        ChannelKind::ServerToUser => {
            Err(Refusal::forbidden(format!("channels: {name} is for a user who is signed in on a WebSocket.")))
        }
        ChannelKind::Public => Ok(()),
        ChannelKind::Private | ChannelKind::PrivateEncrypted | ChannelKind::Presence if is_trusted => Ok(()),
        ChannelKind::Presence => Err(Refusal::forbidden(format!(
            "channels: {name} is a presence channel, which a stream reads only with a token, or with key and secret."
        ))),
        ChannelKind::Private | ChannelKind::PrivateEncrypted => {
            let Some(auth) = signature else {
                return Err(Refusal::unauthorized(format!(
                    "channels: {name} is protected: send auth[{name}]=KEY:SIGNATURE and socket_id, or a token with the \
                     scope channels:subscribe."
                )));
            };
            let Some(StreamId { id, .. }) = socket_id else {
                return Err(Refusal::bad_request("auth needs socket_id, which the signatures cover."));
            };
            let id = id.to_text();
            verify_private(app, &id, name, None, auth).map_err(|refusal| {
                Refusal::unauthorized(format!("auth[{name}]: {}", refusal_message(&refusal, &id, name, None, auth)))
            })
        }
    }
}

/// The header wins over the query, because it is newer after an automatic reconnect (R-SSE-1).
fn decode_last_seen(request: &Request<'_>) -> LastSeen {
    if let Some(header) = request.headers.first("Last-Event-ID").filter(|header| !header.is_empty()) {
        return str::from_utf8(header).map_or(LastSeen::Unreadable, LastSeen::decode);
    }
    // Whatever it is, it is not refused: EventSource does not connect again after a 400 (R-HIST-4).
    let mut texts = Query::new(request.query).values("last_event_id").unwrap_or_else(|_| vec!["?".into()]);
    texts.retain(|text| !text.is_empty());
    match &*texts {
        [] => LastSeen::Nothing,
        [text] => LastSeen::decode(text),
        [_, _, ..] => LastSeen::Unreadable,
    }
}

/// An event of the answer to a poll.
#[derive(Clone, Copy, Debug)]
pub struct PolledEvent<'a> {
    /// Its id.
    pub id: EventId,
    /// Its channel.
    pub channel: &'a str,
    /// The text of its frame.
    pub text: &'a [u8],
}

/// The answer with the server's clock (R-SSE-11).
pub fn encode_time(now: Moment) -> Vec<u8> {
    format!(r#"{{"unix_time":{}}}"#, now.unix_s()).into_bytes()
}

/// Appends the answer to a poll (R-POLL-1): events, where the next poll continues, gaps with their channels, and the
/// position of each channel if the client wants them.
pub fn encode_poll<'a>(
    out: &mut Vec<u8>,
    events: impl Iterator<Item = PolledEvent<'a>>,
    last_event_id: Option<&str>,
    gaps: impl Iterator<Item = (&'a str, &'a MissedEvents)>,
    positions: Option<impl Iterator<Item = (&'a str, Option<EventId>)>>,
) {
    out.extend_from_slice(br#"{"events":["#);
    for (at, PolledEvent { id, channel, text }) in events.enumerate() {
        encode_comma(out, at);
        encode_kept_event(out, id, text, channel, true);
    }
    out.extend_from_slice(br#"],"last_event_id":"#);
    match last_event_id {
        Some(text) => encode_json_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","gaps":"#);
    encode_gaps(out, gaps);
    if let Some(positions) = positions {
        encode_positions(out, positions);
    }
    out.push(b'}');
}
