//! The connections of a shard: their state, their output, and how they open and close.
//!
//! A closing connection leaves its channels and its user, which this part does not know. So it is put on the list of
//! [`Connections::take_retired`], and a connection whose input can be read again on that of
//! [`Connections::take_unsettled`]; the shard empties both before it handles anything else. Between these two points a
//! closed connection is still a subscriber, but it is sent nothing more.

mod answers;
mod authorization;
mod capacity;
mod client_event_rate;
mod deadlines;
#[cfg(feature = "conformance")]
pub(super) mod echo;
mod fan_out;
mod handshake;
mod input;
mod lifecycle;
mod list_memory;
mod memory_share;
mod past_events;
#[cfg(test)]
mod probe;
mod reading;
mod refusals;
mod send_queue;
mod streams;
mod subscriptions;
mod sweep;

pub(super) use answers::{JSON, Response, TEXT, encode_refusal};
pub(super) use deadlines::{Due, extra_request_ms};
pub(super) use fan_out::Delivery;
pub(super) use handshake::After;
pub(super) use streams::{AskedChannel, Grant, GrantedBy, Opening, OpeningChannel, ended_early};

use std::collections::VecDeque;

use super::context::Context;
use super::io::{Flush, Output};
use crate::app::AppSerial;
use crate::connection::encoding::Encoding;
use crate::connection::http::Http;
use crate::connection::input::InputMemory;
use crate::connection::outbox::{FrameId, FrameKind, Frames};
use crate::connection::share::Use;
use crate::connection::table::Table;
use crate::connection::{Cold, ConnectionKey, Flags, NONE, Phase};
use crate::index::Slot;
use crate::limits;
use crate::protocol::server_event;
use bytes::Bytes;
use capacity::Capacity;
use fan_out::FanOuts;
use list_memory::ListMemory;
use memory_share::FullApps;
use past_events::PastEvents;
use send_queue::SendQueue;
use streams::Streams;

/// All connections of a shard.
pub(super) struct Connections {
    table: Table,
    /// Memory of incomplete input.
    input: InputMemory,
    /// Memory of lists that are being gathered or not sent yet.
    lists: ListMemory,
    frames: Frames,
    send_queue: SendQueue,
    fan_outs: FanOuts,
    past_events: PastEvents,
    /// Sends that this turn may still start.
    sends_left: u32,
    /// The answer to every `pusher:ping`, encoded once.
    pong: FrameId,
    /// The comment that idle streams are sent, encoded once.
    heartbeat: FrameId,
    streams: Streams,
    capacity: Capacity,
    full_apps: FullApps,
    /// Closed connections that are still subscribed or signed in.
    retired: VecDeque<Slot>,
    /// Connections that something was sent or answered to.
    unsettled: VecDeque<ConnectionKey>,
}

impl Connections {
    pub(super) fn new(context: &mut Context) -> Self {
        let mut frames = Frames::default();
        let pong = context.text_frame(server_event::encode_pong);
        let slots = context.config.slots as usize;
        Self {
            table: Table::with_capacity(slots),
            input: InputMemory::default(),
            lists: ListMemory::default(),
            pong: frames.hold(pong, NONE, FrameKind::Reply),
            heartbeat: Self::hold_heartbeat(&mut frames),
            streams: Streams::default(),
            frames,
            send_queue: SendQueue::new(),
            fan_outs: FanOuts::default(),
            past_events: PastEvents::default(),
            sends_left: limits::SENDS_PER_TURN,
            capacity: Capacity::default(),
            full_apps: FullApps::default(),
            retired: VecDeque::new(),
            unsettled: VecDeque::new(),
        }
    }

    /// The next send (see [`super::Shard::poll_flush`]).
    pub(super) fn poll_flush(&mut self) -> Option<Flush<'_>> {
        let slot = self.next_to_flush()?;
        let line = &mut self.table.hot[slot];
        let connection = ConnectionKey { slot: slot.0, generation: line.generation };
        let bytes = self.frames.lend(&mut line.outbox, line.app).expect("only slots with unsent bytes are next");
        Some(Flush { connection, bytes })
    }

    /// The bytes of a send in flight (see [`super::Shard::lent`]).
    pub(super) fn lent(&self, connection: ConnectionKey) -> &[u8] {
        if !self.is_live(connection) {
            return &[];
        }
        self.frames.lent(&self.table.hot[connection.slot()].outbox)
    }

    /// A closed connection that is still subscribed or signed in.
    #[inline]
    pub(super) fn take_retired(&mut self) -> Option<Slot> {
        self.retired.pop_front()
    }

    /// A connection that may continue: its input may be read again, or it may end.
    pub(super) fn take_unsettled(&mut self) -> Option<ConnectionKey> {
        self.unsettled.pop_front()
    }

    /// Whether these lists have entries for the shard.
    pub(super) fn has_followups(&self) -> bool {
        !self.retired.is_empty() || !self.unsettled.is_empty()
    }

    /// Whether a send could start now.
    pub(super) fn has_sends(&self) -> bool {
        self.sends_left > 0 && !self.send_queue.is_empty()
    }

    /// Whether another turn is due at once, for sends and fan-outs beyond the limit of this turn.
    pub(super) fn has_more_turns(&self) -> bool {
        self.sends_left == 0 || !self.fan_outs.is_empty()
    }

    /// All slots used so far are below this.
    pub(super) fn slots(&self) -> u32 {
        self.table.slots()
    }

    /// True when the key is that of the connection now in the slot.
    pub(super) fn is_live(&self, connection: ConnectionKey) -> bool {
        self.table.is_live(connection)
    }

    /// True when it is the open socket of a client of the app.
    pub(super) fn is_open_on(&self, connection: ConnectionKey, app: AppSerial) -> bool {
        let line = || &self.table.hot[connection.slot()];
        self.is_live(connection) && line().phase == Phase::Open && line().app == app.0
    }

    /// True when a request of the connection can still be answered.
    pub(super) fn is_awaiting_answers(&self, connection: ConnectionKey) -> bool {
        self.is_live(connection) && self.table.hot[connection.slot()].phase == Phase::Http
    }

    pub(super) fn key(&self, slot: Slot) -> ConnectionKey {
        self.table.key(slot)
    }

    pub(super) fn phase(&self, slot: Slot) -> Phase {
        self.table.hot[slot].phase
    }

    pub(super) fn has(&self, slot: Slot, flag: Flags) -> bool {
        self.table.hot[slot].flags.contains(flag)
    }

    pub(super) fn set(&mut self, slot: Slot, flag: Flags) {
        self.table.hot[slot].flags.insert(flag);
    }

    pub(super) fn clear(&mut self, slot: Slot, flag: Flags) {
        self.table.hot[slot].flags.remove(flag);
    }

    /// Serial of the connection's app, or `NONE`.
    pub(super) fn app(&self, slot: Slot) -> u32 {
        self.table.hot[slot].app
    }

    /// The connection's app, if it has one.
    pub(super) fn app_serial(&self, slot: Slot) -> Option<AppSerial> {
        let app = self.table.hot[slot].app;
        (app != NONE).then_some(AppSerial(app))
    }

    /// The encoding in which the connection is sent events.
    pub(super) fn encoding(&self, slot: Slot) -> Encoding {
        self.table.hot[slot].outbox.encoding()
    }

    pub(super) fn unsent_bytes(&self, slot: Slot) -> usize {
        self.table.hot[slot].outbox.unsent_bytes()
    }

    pub(super) fn cold(&self, slot: Slot) -> Option<&Cold> {
        self.table.cold(slot)
    }

    pub(super) fn cold_mut(&mut self, slot: Slot) -> Option<&mut Cold> {
        self.table.cold_mut(slot)
    }

    /// The cold part, created if there is none.
    pub(super) fn cold_or_default(&mut self, slot: Slot) -> &mut Cold {
        self.table.cold_or_default(slot)
    }

    pub(super) fn drop_cold_if_empty(&mut self, slot: Slot) {
        self.table.drop_cold_if_empty(slot);
    }

    /// The HTTP part, if the connection speaks HTTP.
    pub(super) fn http_of(&self, slot: Slot) -> Option<&Http> {
        self.cold(slot)?.http.as_deref()
    }

    /// The HTTP part of an HTTP connection.
    pub(super) fn http(&mut self, slot: Slot) -> &mut Http {
        self.table.http(slot)
    }

    /// Queues a text frame to one connection.
    pub(super) fn send_text(&mut self, context: &mut Context, slot: Slot, encode: impl FnOnce(&mut Vec<u8>)) {
        let frame = context.text_frame(encode);
        self.send(context, slot, frame, FrameKind::Reply);
    }

    /// P-OUT-11.
    pub(super) fn send_error(&mut self, context: &mut Context, slot: Slot, code: Option<u16>, message: &str) {
        self.send_text(context, slot, |out| server_event::encode_error(out, code, message));
    }

    /// The answer to `pusher:ping`.
    pub(super) fn send_pong(&mut self, context: &mut Context, slot: Slot) {
        self.send_held(context, slot, self.pong);
    }

    /// Queues bytes to one connection. One that has too much unsent and caused it itself is not read from for a while;
    /// one that is over the hard bound, or behind while its app is over its share, is closed (P-CLOSE-5, P-STAT-9).
    pub(super) fn send(&mut self, context: &mut Context, slot: Slot, bytes: Bytes, kind: FrameKind) {
        if bytes.is_empty() {
            return;
        }
        let frame = self.frames.hold(bytes, self.table.hot[slot].app, kind);
        self.send_held(context, slot, frame);
        self.frames.release(frame);
    }

    /// Holds a text frame for several connections of an app; release it with [`Connections::release`].
    pub(super) fn hold(&mut self, frame: Bytes, app: u32) -> FrameId {
        self.frames.hold(frame, app, FrameKind::Reply)
    }

    pub(super) fn release(&mut self, frame: FrameId) {
        self.frames.release(frame);
    }

    /// Queues a held frame to one connection.
    pub(super) fn send_held(&mut self, context: &mut Context, slot: Slot, frame: FrameId) {
        self.catch_up(context, slot);
        let bytes_max = self.outbox_bytes_max(context, self.table.hot[slot].app);
        let line = &mut self.table.hot[slot];
        // An answer of several frames may have reached the hard bound with an earlier one.
        if line.flags.contains(Flags::CLOSE_QUEUED) {
            return;
        }
        if self.frames.is_over_bound(&line.outbox, bytes_max) && line.phase == Phase::Open {
            self.close_slow(context, slot);
            return;
        }
        let frame_bytes = self.frames.frame_bytes(frame);
        if self.frames.kind(frame) != FrameKind::Control && line.app != NONE {
            context.metrics.app_counters.of(AppSerial(line.app)).messages_sent += 1;
        }
        self.frames.retain(frame, 1);
        self.frames.push(&mut line.outbox, frame, frame_bytes);
        if !line.outbox.is_lent() {
            self.send_queue.push_answer(slot, &mut line.flags);
        }
        if line.outbox.unsent_bytes() > unread_from(line.phase) {
            self.pause(context, slot);
        }
    }

    /// Limit of unsent bytes of an app's connection, beyond which it is closed (P-CLOSE-5). Over the app's share its
    /// readers may have an equal part of the bytes that it holds (P-STAT-9): so those are closed that are further
    /// behind than the others.
    fn outbox_bytes_max(&mut self, context: &mut Context, app: u32) -> usize {
        let bytes_max = context.outbox_bytes_of_settings(app);
        match self.frames.shares().used(app) {
            Use::Within => bytes_max,
            Use::Full => {
                self.note_full(context, app);
                bytes_max
            }
            Use::Over => {
                self.note_full(context, app);
                let metrics = &mut context.metrics;
                let connections = if app == NONE {
                    metrics.stats.connections
                } else {
                    metrics.app_counters.of(AppSerial(app)).connected
                };
                let part = self.frames.shares().of(app) / connections.max(1) as usize;
                part.clamp(limits::READER_BYTES_MIN, bytes_max)
            }
        }
    }

    /// Stops reading from a connection that has too much unsent.
    pub(super) fn pause(&mut self, context: &mut Context, slot: Slot) {
        let connection = self.key(slot);
        if self.table.hot[slot].flags.raise(Flags::PAUSED) {
            context.outputs.push_back(Output::Pause { connection });
        }
    }

    pub(super) fn resume_reading(&mut self, context: &mut Context, slot: Slot) {
        let connection = self.key(slot);
        let flags = &mut self.table.hot[slot].flags;
        if flags.contains(Flags::PAUSED) {
            flags.remove(Flags::PAUSED);
            context.outputs.push_back(Output::Resume { connection });
        }
    }

    /// Starts another turn of sends.
    pub(super) fn begin_sends(&mut self) {
        self.sends_left = limits::SENDS_PER_TURN;
        self.send_queue.begin_turn();
    }

    /// The next slot with unsent bytes; ends the turn when there is none.
    fn next_to_flush(&mut self) -> Option<Slot> {
        while !self.send_queue.is_empty() {
            if self.sends_left == 0 {
                return None;
            }
            let Some((slot, mark)) = self.send_queue.take(self.sends_left) else {
                self.sends_left = 0;
                return None;
            };
            let line = &mut self.table.hot[slot];
            line.flags.remove(mark);
            if line.outbox.is_unattempted() && line.phase != Phase::Ended {
                self.sends_left -= 1;
                return Some(slot);
            }
        }
        self.begin_sends();
        self.frames.end_turn();
        None
    }

    /// When the events were accepted whose last send the kernel accepted since the last call, in µs.
    pub(super) fn take_written(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.frames.take_written()
    }

    /// Frames held, and bytes of these and of joined buffers. The two that are always held do not count.
    pub(super) fn frames_held(&self) -> (u64, u64) {
        let always = self.frames.frame_bytes(self.pong) + self.frames.frame_bytes(self.heartbeat);
        (self.frames.held() as u64 - 2, (self.frames.held_bytes() - always) as u64)
    }

    /// True when frames and joined buffers fill the shard's bound: no credit is returned until there is memory for
    /// more.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.frames.held_bytes() > limits::SHARD_SEND_BYTES_MAX
    }

    /// Memory of lists that are being gathered or not sent yet.
    pub(super) fn lists(&mut self) -> &mut ListMemory {
        &mut self.lists
    }
}

/// Limit of unsent bytes of a connection, beyond which Relay stops reading from it.
pub(super) fn unread_from(phase: Phase) -> usize {
    match phase {
        Phase::Open => limits::REPLY_BYTES_MAX,
        // A closing connection is read for the peer's Close, however far behind that is.
        Phase::Closing => usize::MAX,
        Phase::Http | Phase::Admitting | Phase::Lingering | Phase::Free | Phase::Ended => limits::OUTBOX_BYTES_SOFT,
    }
}
