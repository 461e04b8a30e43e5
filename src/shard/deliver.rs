//! Fan-out within a shard: one frame into the outboxes of a channel's local subscribers, and frames to one connection.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use super::mail::{Anywhere, ChannelKey};
use super::{Output, Shard};
use crate::app::AppSerial;
use crate::connection::outbox::FrameId;
use crate::connection::share::Use;
use crate::connection::{Flags, NONE, Phase};
use crate::limits;
use crate::wire::websocket::{self, Opcode};

/// One text frame around what `encode` appends.
pub(super) fn text_frame(scratch: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    scratch.clear();
    encode(scratch);
    let mut frame = Vec::new();
    websocket::encode_frame(&mut frame, Opcode::Text, scratch);
    Bytes::from(frame)
}

/// Slots that owe bytes and have no send under way, each once, in the order in which they became so. An answer leaves in
/// the turn in which it was made and does not wait for a large fan-out to be sent (P-HTTP-14); nor does a fan-out wait
/// while answers keep coming. Within a turn events go first: who publishes one after the other gives more of them to join.
#[derive(Default)]
pub(super) struct Dirty {
    /// They owe something to one connection: an answer, a reply, a pong.
    answers: VecDeque<u32>,
    /// They owe what all subscribers of a channel get.
    events: VecDeque<u32>,
}

impl Dirty {
    pub(super) fn push_answer(&mut self, slot: u32) {
        self.answers.push_back(slot);
    }

    pub(super) fn push_event(&mut self, slot: u32) {
        self.events.push_back(slot);
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.events.is_empty()
    }

    /// The next one while the turn has so many sends left: the last of them are kept for answers, half at most.
    fn take(&mut self, sends_left: u32) -> Option<u32> {
        let kept = self.answers.len().min(limits::SENDS_PER_TURN as usize / 2);
        if sends_left as usize <= kept {
            return self.answers.pop_front();
        }
        self.events.pop_front().or_else(|| self.answers.pop_front())
    }

    /// Room for so many slots.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.answers.capacity() + self.events.capacity()
    }
}

impl Shard {
    /// Queues one event to all local subscribers of its channel but `exclude`.
    ///
    /// Per subscriber: its hot line and one entry of the dirty list; no allocation, no atomic, no copy.
    pub(super) fn deliver(&mut self, channel: &ChannelKey, frame: Bytes, exclude: Option<Anywhere>, accepted_us: u64) {
        let Some(index) = self.find_channel(channel) else { return };
        let excluded = exclude.filter(|exclude| exclude.shard == self.config.index).map(|exclude| exclude.connection);
        let frame_bytes = frame.len();
        let frame = self.frames.hold(frame, channel.app.0);
        let bytes_max = self.outbox_bytes_max(channel.app.0);
        let mut queued = 0;
        let mut too_slow: SmallVec<[u32; 8]> = SmallVec::new();
        let (hot, frames, dirty) = (&mut self.hot, &mut self.frames, &mut self.dirty);
        self.channels[index as usize].subscribers.for_each(|slot| {
            let line = &mut hot[slot as usize];
            if excluded.is_some_and(|excluded| excluded.slot == slot && excluded.generation == line.generation) {
                return;
            }
            if frames.is_over_bound(&line.outbox, bytes_max) {
                too_slow.push(slot);
                return;
            }
            frames.push(&mut line.outbox, frame, frame_bytes);
            queued += 1;
            if !line.outbox.is_lent() && line.flags.raise(Flags::DIRTY) {
                dirty.push_event(slot);
            }
        });
        self.frames.retain(frame, queued);
        if accepted_us > 0 && queued > 0 {
            self.frames.stamp(frame, accepted_us);
        }
        self.frames.release(frame);
        self.stats.deliveries += u64::from(queued);
        self.apps.of(channel.app).messages_sent += u64::from(queued);
        for slot in too_slow {
            self.close_slow(slot);
        }
    }

    /// Queues a text frame to one connection.
    pub(super) fn send_text(&mut self, slot: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        let frame = text_frame(&mut self.scratch, encode);
        self.queue(slot, frame);
    }

    /// Queues bytes to one connection. One that owes too much and is the cause of it itself is not read from for a
    /// while; one that is over the hard bound, or behind while its app is over its share, is closed (P-CLOSE-5, P-STAT-9).
    pub(super) fn queue(&mut self, slot: u32, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let frame = self.frames.hold(bytes, self.hot[slot as usize].app);
        self.queue_shared(slot, frame);
        self.frames.release(frame);
    }

    /// Queues a held frame to one connection.
    pub(super) fn queue_shared(&mut self, slot: u32, frame: FrameId) {
        let bytes_max = self.outbox_bytes_max(self.hot[slot as usize].app);
        let line = &mut self.hot[slot as usize];
        // An answer of several frames may have met the hard bound with an earlier one.
        if line.flags.contains(Flags::CLOSE_QUEUED) {
            return;
        }
        if self.frames.is_over_bound(&line.outbox, bytes_max) && line.phase == Phase::Open {
            self.close_slow(slot);
            return;
        }
        let frame_bytes = self.frames.frame_bytes(frame);
        // Close, ping and pong are no messages, nor is anything of HTTP.
        if self.frames.first_byte(frame) == Some(websocket::TEXT_FRAME) && line.app != NONE {
            self.apps.of(AppSerial(line.app)).messages_sent += 1;
        }
        self.frames.retain(frame, 1);
        self.frames.push(&mut line.outbox, frame, frame_bytes);
        if !line.outbox.is_lent() && line.flags.raise(Flags::DIRTY) {
            self.dirty.push_answer(slot);
        }
        if line.outbox.unsent_bytes() > unread_from(line.phase) {
            self.pause(slot);
        }
    }

    /// What a connection of an app may owe before it is closed (P-CLOSE-5). Where the app is over its share, its readers may
    /// owe an equal part of what it holds (P-STAT-9): so those go that are further behind than the others.
    pub(super) fn outbox_bytes_max(&mut self, app: u32) -> usize {
        match self.frames.shares().used(app) {
            Use::Within => limits::OUTBOX_BYTES_MAX,
            Use::Full => {
                self.note_full(app);
                limits::OUTBOX_BYTES_MAX
            }
            Use::Over => {
                self.note_full(app);
                let connections =
                    if app == NONE { self.stats.connections } else { self.apps.of(AppSerial(app)).connected };
                let part = self.frames.shares().of(app) / connections.max(1) as usize;
                part.clamp(limits::READER_BYTES_MIN, limits::OUTBOX_BYTES_MAX)
            }
        }
    }

    /// Stops reading from a connection that is owed too much.
    pub(super) fn pause(&mut self, slot: u32) {
        let connection = self.key(slot);
        if self.hot[slot as usize].flags.raise(Flags::PAUSED) {
            self.outputs.push_back(Output::Pause { connection });
        }
    }

    /// The next slot that owes bytes; ends the turn when there is none.
    pub(super) fn next_to_flush(&mut self) -> Option<u32> {
        while !self.dirty.is_empty() {
            if self.sends_left == 0 {
                return None;
            }
            let slot = self.dirty.take(self.sends_left).expect("it is not empty");
            let line = &mut self.hot[slot as usize];
            if !line.flags.contains(Flags::DIRTY) {
                continue;
            }
            line.flags.remove(Flags::DIRTY);
            if line.outbox.unsent_bytes() > 0 && !line.outbox.is_lent() && line.phase != Phase::Ended {
                self.sends_left -= 1;
                return Some(slot);
            }
        }
        self.sends_left = limits::SENDS_PER_TURN;
        self.frames.end_turn();
        None
    }
}

/// What a connection may owe before it is not read from any more.
pub(super) fn unread_from(phase: Phase) -> usize {
    match phase {
        Phase::Open => limits::REPLY_BYTES_MAX,
        // A closing connection is read for the peer's Close, however far that is behind.
        Phase::Closing => usize::MAX,
        Phase::Http | Phase::Admitting | Phase::Lingering | Phase::Free | Phase::Ended => limits::OUTBOX_BYTES_SOFT,
    }
}
