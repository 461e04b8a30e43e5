//! Streams of server-sent events (R-SSE rules): connections of the same table as WebSockets, with another encoding.
//!
//! A stream of one channel is sent frames that it shares with all others; the line `id:` of each is the id of the event.
//! The line of a stream of several channels is a cursor, which is made for it alone. What an open stream needs beyond its
//! hot line is 16 bytes: until when it may read, by which credential, and the positions of its channels if it has several.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::quality::FixedState;
use slab::Slab;

use super::Connections;
use super::answers::encode_refusal_alone;
use crate::api::refusal::Refusal;
use crate::app::AppSerial;
use crate::channel::history::{Gap, Part};
use crate::channel::name::ChannelKind;
use crate::connection::encoding::Encoding;
use crate::connection::outbox::{FrameId, FrameKind, Frames};
use crate::connection::{ConnectionKey, Flags, Hot, NONE, Phase};
use crate::index::{ChannelIndex, Slot};
use crate::limits;
use crate::protocol::cursor::Cursor;
use crate::protocol::dialect::Dialect;
use crate::protocol::event_id::EventId;
use crate::protocol::server_event::MissedEvents;
use crate::protocol::server_sent;
use crate::shard::context::Context;
use crate::shard::deadlines::DeadlineKind;
use crate::shard::keyed_slab::{Keyed, KeyedSlab};
use crate::shard::mail::ChannelKey;
use crate::wire::websocket;

/// The streams of a shard.
#[derive(Default)]
pub(in crate::shard) struct Streams {
    /// Those that wait for their app's counter or for the owners of their channels.
    opening: HashMap<Slot, Box<Opening>, FixedState>,
    /// Those that their app's counter has admitted, opening or open; the hot line has the index.
    admitted: Slab<Stream>,
    /// What permits them.
    credentials: KeyedSlab<usize, Credential>,
}

/// What a stream needs beyond its hot line.
struct Stream {
    /// In seconds since 1970; `NONE` without an end.
    ends_at: u32,
    /// Index of its credential.
    credential: u32,
    /// The channels of a stream of several, in the order of the request, once it is open.
    places: Option<Box<Places>>,
}

const _: () = assert!(size_of::<Stream>() == 16, "what an idle stream costs");

/// How long a stream may read.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Grant {
    /// In ms since 1970; `u64::MAX` without an end.
    pub(in crate::shard) ends_at_ms: u64,
    pub(in crate::shard) credential: GrantedBy,
}

/// The credential of a stream, which ends with it (R-TOKEN-7).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::shard) enum GrantedBy {
    /// Keyed hash of a public key, while it is active.
    Key(u64),
    /// Hash of a token, while it is valid.
    Token([u8; 32]),
}

/// A credential of streams of an app.
struct Credential {
    app: AppSerial,
    by: GrantedBy,
    /// How many streams it permits.
    streams: u32,
    /// The version of the directory by which it was checked last, and the result.
    checked: Option<(u64, bool)>,
}

impl Keyed for Credential {
    fn hash(&self) -> u64 {
        self.by.hash()
    }
}

impl GrantedBy {
    /// Both are hashes already, and cannot be chosen by a client.
    fn hash(&self) -> u64 {
        match self {
            Self::Key(hash) => *hash,
            Self::Token(hash) => u64::from_le_bytes(*hash.first_chunk().expect("it has 32 bytes")),
        }
    }
}

impl Credential {
    /// Whether it still permits what it permitted.
    fn is_valid(&mut self, context: &Context) -> bool {
        let version = context.directory.version();
        match self.checked {
            Some((checked, valid)) if checked == version => valid,
            _ => {
                let valid = is_valid(context, self.app, &self.by);
                self.checked = Some((version, valid));
                valid
            }
        }
    }
}

/// The channels of a stream of several.
struct Places(Box<[Place]>);

/// A channel of a stream of several.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Place {
    pub(in crate::shard) channel: ChannelIndex,
    /// Its hash in cursors.
    pub(in crate::shard) hash: u32,
    /// The last sequence that was sent to the stream; `None` without history.
    pub(in crate::shard) sequence: Option<u64>,
}

/// A stream whose channels have yet to record it.
#[derive(Debug)]
pub(in crate::shard) struct Opening {
    pub(in crate::shard) grant: Grant,
    pub(in crate::shard) dialect: Dialect,
    /// The place of the answer, until the app's counter has admitted the connection.
    pub(in crate::shard) ticket: u32,
    /// Header lines of the answer.
    pub(in crate::shard) headers: Box<str>,
    /// The id that the client chose, as text.
    pub(in crate::shard) socket_id: Option<Box<str>>,
    pub(in crate::shard) channels: Vec<OpeningChannel>,
    /// Channels that have yet to record it.
    pub(in crate::shard) awaited: usize,
    /// The client named a position.
    pub(in crate::shard) continues: bool,
    /// The client wants the position of each channel.
    pub(in crate::shard) positions: bool,
}

/// A channel that a stream or poll asks for.
#[derive(Clone, Debug)]
pub(in crate::shard) struct AskedChannel {
    pub(in crate::shard) key: ChannelKey,
    pub(in crate::shard) kind: ChannelKind,
    /// The position that the client named, if it named one; a gap if that is not known.
    pub(in crate::shard) after: Option<Result<EventId, Gap>>,
}

/// A channel of a stream that is opening.
#[derive(Debug)]
pub(in crate::shard) struct OpeningChannel {
    pub(in crate::shard) asked: AskedChannel,
    /// Known once the shard has asked the owner.
    pub(in crate::shard) index: Option<ChannelIndex>,
    /// Where it continues; `None` without history.
    pub(in crate::shard) start: Option<u64>,
    pub(in crate::shard) gap: Option<MissedEvents>,
    /// The last event of the channel when the owner recorded the stream.
    pub(in crate::shard) seen: u64,
    /// The first missed events, if there are any.
    pub(in crate::shard) missed: Option<Part>,
    /// The frame of the last event of a cache channel, or that there is none, unless the history has it.
    pub(in crate::shard) cached: Option<Bytes>,
}

impl OpeningChannel {
    /// One that nothing is known about yet.
    pub(in crate::shard) fn new(asked: AskedChannel) -> Self {
        Self { asked, index: None, start: None, gap: None, seen: 0, missed: None, cached: None }
    }
}

impl Streams {
    /// Adds a stream that its app's counter has admitted. Returns its index.
    fn admit(&mut self, app: AppSerial, grant: &Grant) -> u32 {
        let is = |known: &Credential| known.app == app && known.by == grant.credential;
        let found = self.credentials.find(grant.credential.hash(), is);
        let credential = found.unwrap_or_else(|| {
            self.credentials.insert(Credential { app, by: grant.credential.clone(), streams: 0, checked: None })
        });
        self.credentials[credential].streams += 1;
        let ends_at = u32::try_from(grant.ends_at_ms / 1_000).unwrap_or(NONE);
        self.admitted.insert(Stream { ends_at, credential: credential as u32, places: None }) as u32
    }

    /// Removes a stream that has ended.
    fn remove(&mut self, index: u32) {
        let credential = self.admitted.remove(index as usize).credential as usize;
        self.credentials[credential].streams -= 1;
        if self.credentials[credential].streams == 0 {
            self.credentials.remove(credential);
        }
    }

    /// A stream is open, refused or gone.
    fn take_opening(&mut self, slot: Slot) -> Option<Box<Opening>> {
        let opening = self.opening.remove(&slot)?;
        if self.opening.is_empty() {
            // The memory of a rush of clients does not stay.
            self.opening.shrink_to(OPENING_KEPT);
        }
        Some(opening)
    }

    /// The line `id:` of a stream of several channels, after an event of one of them.
    pub(super) fn advance(&mut self, line: &Hot, channel: ChannelIndex, id: EventId) -> Option<Bytes> {
        let Places(places) = self.admitted.get_mut(line.due_or_stream as usize)?.places.as_deref_mut()?;
        places.iter_mut().find(|place| place.channel == channel)?.sequence = Some(id.sequence);
        id_line(places, id.epoch)
    }
}

/// Entries of the table of opening streams that stay when it is empty.
const OPENING_KEPT: usize = 64;

/// The line `id:` of a stream of one channel.
fn line_of(id: EventId) -> Bytes {
    let mut line = Vec::new();
    server_sent::encode_id_line(&mut line, |out| id.encode(out));
    line.into()
}

/// That of a stream of several.
fn id_line(places: &[Place], epoch: u64) -> Option<Bytes> {
    let positions = places.iter().filter_map(|place| Some((place.hash, place.sequence?)));
    positions.clone().next()?;
    let mut line = Vec::new();
    server_sent::encode_id_line(&mut line, |out| Cursor::encode(out, epoch, positions));
    Some(line.into())
}

impl Connections {
    /// Whether the connection is a stream, open or opening.
    pub(in crate::shard) fn is_stream(&self, slot: Slot) -> bool {
        self.table.hot[slot].outbox.encoding().is_stream()
    }

    /// Whether an HTTP connection waits for a stream or a poll.
    pub(super) fn is_reading(&self, slot: Slot) -> bool {
        self.streams.opening.contains_key(&slot) || self.http_of(slot).is_some_and(|http| http.polls)
    }

    /// Adds a stream that waits for its app's counter.
    pub(in crate::shard) fn add_stream(&mut self, slot: Slot, opening: Opening) {
        self.streams.opening.insert(slot, Box::new(opening));
    }

    /// Whether there are streams, opening or open, or anything that was kept for them.
    pub(in crate::shard) fn has_streams(&self) -> bool {
        let Streams { opening, admitted, credentials } = &self.streams;
        !opening.is_empty() || !admitted.is_empty() || credentials.len() > 0
    }

    /// A poll counts as a connection of its app while it is held (R-POLL-2).
    pub(in crate::shard) fn count_poll(&mut self, slot: Slot) {
        self.table.hot[slot].flags.insert(Flags::COUNTED);
    }

    /// A poll is answered, or its client is gone.
    pub(in crate::shard) fn end_poll(&mut self, context: &mut Context, connection: ConnectionKey, app: AppSerial) {
        if !self.is_live(connection) {
            return;
        }
        let slot = connection.slot();
        if let Some(http) = self.cold_mut(slot).and_then(|cold| cold.http.as_mut()) {
            http.polls = false;
        }
        let flags = &mut self.table.hot[slot].flags;
        if flags.contains(Flags::COUNTED) {
            flags.remove(Flags::COUNTED);
            context.send_departure(app);
        }
    }

    /// Whether the credential of a stream that was admitted is still valid. The directory may have changed since the request
    /// was checked.
    pub(in crate::shard) fn is_still_granted(&self, context: &Context, slot: Slot, app: AppSerial) -> bool {
        self.streams.opening.get(&slot).is_some_and(|opening| {
            let Grant { ends_at_ms, credential } = &opening.grant;
            context.now.unix_ms < *ends_at_ms && is_valid(context, app, credential)
        })
    }

    /// A stream was not admitted, or the connection ends.
    pub(in crate::shard) fn forget_stream(&mut self, slot: Slot) {
        self.streams.take_opening(slot);
        let line = &mut self.table.hot[slot];
        if line.outbox.encoding().is_stream() && line.due_or_stream != NONE {
            self.streams.remove(std::mem::replace(&mut line.due_or_stream, NONE));
        }
    }

    /// A stream that is opening.
    pub(in crate::shard) fn opening_mut(&mut self, slot: Slot) -> Option<&mut Opening> {
        self.streams.opening.get_mut(&slot).map(|opening| &mut **opening)
    }

    /// The counter has admitted a stream: the connection is its own from now on, and speaks HTTP no more.
    pub(in crate::shard) fn become_stream(&mut self, context: &mut Context, slot: Slot, app: AppSerial) {
        let Some(opening) = self.streams.opening.get(&slot) else { return };
        let is_of_one = opening.channels.len() == 1;
        let grant = opening.grant.clone();
        self.release_input(slot);
        let line = &mut self.table.hot[slot];
        line.app = app.0;
        line.phase = Phase::Open;
        line.flags.remove(Flags::LAST_ANSWER);
        line.flags.insert(Flags::COUNTED);
        line.due_or_stream = self.streams.admit(app, &grant);
        line.outbox.set_encoding(if is_of_one { Encoding::Stream } else { Encoding::StreamOfSeveral });
        self.cold_or_default(slot).http = None;
        self.drop_cold_if_empty(slot);
        context.metrics.count_opened(app, true);
        self.resume_reading(context, slot);
    }

    /// All channels have recorded a stream: sends the head of the answer, `connected` and the gaps. Returns what the
    /// stream waited for.
    pub(in crate::shard) fn begin_stream(&mut self, context: &mut Context, slot: Slot) -> Option<Box<Opening>> {
        let order = context.config.order;
        let app = AppSerial(self.table.hot[slot].app);
        let socket_id = context.socket_id(self.key(slot));
        let opening = self.streams.take_opening(slot)?;
        let epoch = order.event_id(app, 0, 0).epoch;
        let id_line = if let [only] = &*opening.channels {
            only.start.map(|start| line_of(context.event_id(&only.asked.key, start)))
        } else {
            let places = opening.channels.iter().filter_map(|channel| {
                let hash = order.cursor_hash(channel.asked.key.hash);
                Some(Place { channel: channel.index?, hash, sequence: channel.start })
            });
            let places: Box<[Place]> = places.collect();
            let line = id_line(&places, epoch);
            self.streams.admitted[self.table.hot[slot].due_or_stream as usize].places = Some(Box::new(Places(places)));
            line
        };
        let gaps =
            || opening.channels.iter().filter_map(|channel| Some((&*channel.asked.key.name, channel.gap.as_ref()?)));
        let has_gap = gaps().next().is_some();
        context.metrics.count_response(200);
        context.metrics.counted.resumes += u64::from(opening.continues);
        context.metrics.counted.resume_gaps += gaps().count() as u64;
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(HEAD);
        text.extend_from_slice(opening.headers.as_bytes());
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(server_sent::RETRY);
        // A client that loses the connection before it reads the gap continues from its old position, and receives the
        // gap again.
        if !has_gap {
            text.extend_from_slice(id_line.as_deref().unwrap_or_default());
        }
        let socket_id = opening.socket_id.as_deref().map_or_else(|| socket_id.to_text(), str::to_owned);
        let names = opening.channels.iter().map(|channel| &*channel.asked.key.name);
        let positions = opening.channels.iter().map(|channel| {
            let key = &channel.asked.key;
            (&*key.name, channel.start.map(|start| context.event_id(key, start)))
        });
        let positions = opening.positions.then_some(positions);
        server_sent::encode_connected(&mut text, &socket_id, names, opening.continues && !has_gap, positions);
        if has_gap {
            text.extend_from_slice(id_line.as_deref().unwrap_or_default());
            server_sent::encode_gap(&mut text, gaps());
        }
        self.send(context, slot, text.into(), FrameKind::Reply);
        Some(opening)
    }

    /// A gap on one channel of an open stream, which continues at a later position.
    pub(in crate::shard) fn send_stream_gap(
        &mut self,
        context: &mut Context,
        slot: Slot,
        channel: (&ChannelKey, ChannelIndex),
        gap: &MissedEvents,
    ) {
        self.catch_up(context, slot);
        let mut text = Vec::new();
        if let Some(start) = gap.resumes_at {
            let line = self.stream_id_line(slot, channel.1, start);
            text.extend_from_slice(line.as_deref().unwrap_or_default());
        }
        server_sent::encode_gap(&mut text, std::iter::once((&*channel.0.name, gap)));
        self.send(context, slot, text.into(), FrameKind::Reply);
    }

    /// The line `id:` for a position of a channel, which the stream has reached.
    fn stream_id_line(&mut self, slot: Slot, channel: ChannelIndex, id: EventId) -> Option<Bytes> {
        match self.encoding(slot) {
            Encoding::Stream => Some(line_of(id)),
            Encoding::Plain | Encoding::WithId | Encoding::StreamOfSeveral => {
                self.streams.advance(&self.table.hot[slot], channel, id)
            }
        }
    }

    /// Queues an event without an id, made of its frame.
    pub(in crate::shard) fn send_to_stream(&mut self, context: &mut Context, slot: Slot, frame: &[u8]) {
        let mut text = Vec::new();
        if server_sent::encode_event(&mut text, websocket::payload(frame), None) {
            self.send(context, slot, text.into(), FrameKind::Event);
        }
    }

    /// Queues the line `id:` of a stream of several channels before an event of one of them.
    pub(super) fn send_cursor(&mut self, context: &mut Context, slot: Slot, channel: ChannelIndex, id: EventId) {
        // Events that precede this one have cursors without it.
        self.catch_up(context, slot);
        if let Some(line) = self.streams.advance(&self.table.hot[slot], channel, id) {
            self.send(context, slot, line, FrameKind::Control);
        }
    }

    /// A stream that is opening is refused: its answer is the refusal, and the last one of the connection.
    pub(in crate::shard) fn refuse_stream(&mut self, context: &mut Context, slot: Slot, refusal: &Refusal) {
        let Some(opening) = self.streams.take_opening(slot) else { return };
        let refusal = refusal.clone().with_headers(&opening.headers);
        context.metrics.count_response(refusal.status);
        let answer = encode_refusal_alone(opening.dialect, &refusal);
        self.send(context, slot, answer, FrameKind::Control);
        self.finish_stream(context, slot);
    }

    /// Ends a stream after what was sent so far. Its client connects again; the answer to that says why if it is refused.
    pub(in crate::shard) fn end_stream(&mut self, context: &mut Context, slot: Slot) {
        if self.opening_mut(slot).is_some() {
            return self.refuse_stream(context, slot, &ended_early());
        }
        self.catch_up(context, slot);
        self.finish_stream(context, slot);
    }

    fn finish_stream(&mut self, context: &mut Context, slot: Slot) {
        if self.table.hot[slot].phase != Phase::Open {
            return;
        }
        self.retire(context, slot);
        // It is closed as an answered request is.
        let line = &mut self.table.hot[slot];
        line.phase = Phase::Closing;
        line.flags.insert(Flags::LAST_ANSWER);
        let connection = self.key(slot);
        self.await_deadline(context, DeadlineKind::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
        self.follow_up(connection);
    }

    /// The sweep visits a stream (R-SSE-10, R-TOKEN-7).
    pub(super) fn visit_stream(&mut self, context: &mut Context, slot: Slot) {
        let now = context.tenths();
        let Some(stream) = self.streams.admitted.get(self.table.hot[slot].due_or_stream as usize) else { return };
        let is_over = stream.ends_at != NONE && context.now.unix_ms / 1_000 >= u64::from(stream.ends_at);
        if is_over || !self.streams.credentials[stream.credential as usize].is_valid(context) {
            return self.end_stream(context, slot);
        }
        if self.streams.opening.contains_key(&slot) {
            return;
        }
        // Streams that were opened at once are not sent comments at once.
        let jitter = slot.0.wrapping_mul(0x9e37_79b9) % limits::HEARTBEAT_JITTER_TENTHS;
        if now.saturating_sub(self.table.last_activity[slot]) >= limits::HEARTBEAT_TENTHS + jitter {
            self.table.last_activity[slot] = now;
            self.send_held(context, slot, self.heartbeat);
        }
    }

    /// The comment that idle streams are sent, encoded once.
    pub(super) fn hold_heartbeat(frames: &mut Frames) -> FrameId {
        frames.hold(Bytes::from_static(server_sent::HEARTBEAT), NONE, FrameKind::Control)
    }
}

/// The answer to a request for a stream that ends before it begins; the next one says why if it is refused.
pub(in crate::shard) fn ended_early() -> Refusal {
    Refusal::unavailable("The stream ended while it was being opened: try again.", 1)
}

/// Whether a credential permits the streams of an app.
fn is_valid(context: &Context, app: AppSerial, credential: &GrantedBy) -> bool {
    let Some(app) = context.app(app.0).filter(|app| app.enabled) else { return false };
    match credential {
        GrantedBy::Key(hash) => app.keys.iter().any(|pair| context.keyed_hash(app.serial, &pair.key) == *hash),
        GrantedBy::Token(hash) => context.directory.valid_token(hash, app.serial, context.now.unix_ms).is_some(),
    }
}

/// The head of a stream's answer, without the lines that depend on the request. The answer ends with its connection.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nX-Accel-Buffering: no\r\n";
