//! Unsent frames of connections, without copies.
//!
//! A frame is encoded once and held once; an outbox holds frame ids. At flush, connections with the same sequence of
//! unsent frames share one buffer, joined once and cached until the turn ends. Reference counts are plain integers of
//! this shard: the atomic count of [`Bytes`] changes once per frame, not once per subscriber.

use std::collections::VecDeque;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use super::NONE;
use super::encoding::Encoding;
use super::share::Shares;
use crate::limits;

/// A frame held for sending.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameId(u32);

/// Frame ids in the outbox itself; further ones are in a pooled queue.
const FRAMES_INLINE: usize = 3;

/// How many queued frames of an outbox are searched for frames longer than its bound.
const GIANTS_SOUGHT: usize = 64;

/// Distinct sequences cached within a turn.
const SEQUENCES_REMEMBERED_MAX: usize = 8;

/// The unsent frames of one connection: 32 bytes of its hot line.
#[derive(Debug)]
pub struct Outbox {
    /// The oldest queued frames.
    inline: [u32; FRAMES_INLINE],
    /// Index of the queue of further frames, or `NONE`.
    queue: u32,
    /// Bytes not yet accepted by the kernel: the rest of the buffer and all queued frames.
    unsent_bytes: u32,
    /// Index of the buffer being sent, or `NONE`.
    buffer: u32,
    /// Bytes of the buffer that the kernel accepted.
    taken_bytes: u32,
    /// How many of `inline` are in use.
    inline_used: u8,
    /// The rest of the buffer is borrowed by the driver.
    lent: bool,
    /// The encoding in which the connection is sent events.
    encoding: Encoding,
}

impl Outbox {
    /// Nothing pending.
    pub const EMPTY: Self = Self {
        inline: [NONE; FRAMES_INLINE],
        queue: NONE,
        unsent_bytes: 0,
        buffer: NONE,
        taken_bytes: 0,
        inline_used: 0,
        lent: false,
        encoding: Encoding::Plain,
    };

    /// Bytes not yet accepted by the kernel.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes as usize
    }
    /// True when there are bytes that were not offered to the kernel: they wait for the shard, not for the peer.
    pub fn is_unattempted(&self) -> bool {
        self.unsent_bytes > 0 && !self.lent
    }
    /// True while the driver sends from it.
    pub fn is_lent(&self) -> bool {
        self.lent
    }
    /// The encoding in which the connection is sent events.
    #[inline]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }
    /// Chooses the encoding of the connection's events.
    pub fn set_encoding(&mut self, encoding: Encoding) {
        self.encoding = encoding;
    }
}

/// The kind of a frame, for the counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FrameKind {
    /// An event of a channel, to all of its subscribers.
    Event,
    /// Any other text message of the protocol.
    Reply,
    /// A control frame, or bytes of HTTP.
    Control,
}

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    kind: FrameKind,
    references: u32,
    /// Index of its stamp, or `NONE`.
    stamp: u32,
    /// Serial of the app whose share it uses, or `NONE`.
    app: u32,
}

#[derive(Debug)]
struct Buffer {
    bytes: Bytes,
    references: u32,
    /// Serial of the app whose share it uses, or `NONE`.
    app: u32,
    /// Stamps of the frames in it.
    stamps: SmallVec<[u32; 4]>,
}

/// When an event was accepted; removed when neither its frame nor a buffer with it is left to be sent.
#[derive(Debug)]
struct Stamp {
    accepted_us: u64,
    /// Frames and buffers.
    holders: u32,
}

/// A sequence of frames and the buffer with them joined; keeps a reference to each until the turn ends.
#[derive(Debug)]
struct Remembered {
    sequence: SmallVec<[u32; 8]>,
    buffer: u32,
}

/// The frames, buffers and queues of one shard.
#[derive(Debug, Default)]
pub struct Frames {
    frames: Slab<Frame>,
    buffers: Slab<Buffer>,
    queues: Slab<VecDeque<u32>>,
    remembered: Vec<Remembered>,
    /// Bytes held, by app.
    shares: Shares,
    stamps: Slab<Stamp>,
    /// When the events were accepted whose last send was accepted by the kernel since [`Frames::take_written`], in µs.
    written: Vec<u64>,
}

impl Frames {
    /// Holds a frame with one reference, the caller's, which [`Frames::release`] drops. It uses the share of the app
    /// with this serial, or that of connections without an app (`NONE`).
    pub fn hold(&mut self, bytes: Bytes, app: u32, kind: FrameKind) -> FrameId {
        self.shares.add(app, bytes.len());
        FrameId(self.frames.insert(Frame { bytes, kind, references: 1, stamp: NONE, app }) as u32)
    }

    /// Bytes held per app.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Records when the event of a frame was accepted, in µs: once no send of it is left, it counts as written.
    pub fn stamp(&mut self, frame: FrameId, accepted_us: u64) {
        let stamp = self.stamps.insert(Stamp { accepted_us, holders: 1 });
        self.frames[frame.0 as usize].stamp = stamp as u32;
    }

    /// Takes the times, in µs, at which the events were accepted that were written since the last call.
    pub fn take_written(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.written.drain(..)
    }

    /// Gives a frame the stamp of another one with the same event, unless it has one.
    pub fn share_stamp(&mut self, from: FrameId, to: FrameId) {
        let stamp = self.frames[from.0 as usize].stamp;
        let frame = &mut self.frames[to.0 as usize];
        if stamp != NONE && frame.stamp == NONE {
            frame.stamp = stamp;
            self.stamps[stamp as usize].holders += 1;
        }
    }

    /// The bytes of a frame.
    pub fn bytes(&self, frame: FrameId) -> &Bytes {
        &self.frames[frame.0 as usize].bytes
    }

    /// Drops the caller's reference.
    pub fn release(&mut self, frame: FrameId) {
        self.release_frame(frame.0, 1);
    }

    /// Adds the references of `count` outboxes at once.
    pub fn retain(&mut self, frame: FrameId, count: u32) {
        self.frames[frame.0 as usize].references += count;
    }

    /// Length of a frame in bytes.
    pub fn frame_bytes(&self, frame: FrameId) -> usize {
        self.frames[frame.0 as usize].bytes.len()
    }

    /// Its kind.
    pub fn kind(&self, frame: FrameId) -> FrameKind {
        self.frames[frame.0 as usize].kind
    }

    /// Queues a frame whose reference the caller has added with [`Frames::retain`].
    pub fn push(&mut self, outbox: &mut Outbox, frame: FrameId, frame_bytes: usize) {
        outbox.unsent_bytes += frame_bytes as u32;
        let used = usize::from(outbox.inline_used);
        if used < FRAMES_INLINE && outbox.queue == NONE {
            outbox.inline[used] = frame.0;
            outbox.inline_used += 1;
            return;
        }
        if outbox.queue == NONE {
            outbox.queue = self.queues.insert(VecDeque::new()) as u32;
        }
        self.queues[outbox.queue as usize].push_back(frame.0);
    }

    /// Whether an outbox has more than `bytes_max` unsent (P-CLOSE-5). A frame that is longer than the bound by itself,
    /// such as the roster of a large presence channel, does not count; frames queued behind it do.
    #[inline]
    pub fn is_over_bound(&self, outbox: &Outbox, bytes_max: usize) -> bool {
        outbox.unsent_bytes() > bytes_max && self.is_over_bound_without_giants(outbox, bytes_max)
    }

    #[cold]
    fn is_over_bound_without_giants(&self, outbox: &Outbox, bytes_max: usize) -> bool {
        let is_giant = |bytes: &usize| *bytes > limits::OUTBOX_BYTES_MAX;
        let buffer = if outbox.buffer == NONE { 0 } else { self.buffers[outbox.buffer as usize].bytes.len() };
        let sent = if is_giant(&buffer) { buffer - outbox.taken_bytes as usize } else { 0 };
        let inline = outbox.inline.iter().take(usize::from(outbox.inline_used));
        let queue = self.queues.get(outbox.queue as usize).into_iter().flatten().take(GIANTS_SOUGHT);
        let frames = inline.chain(queue).map(|frame| self.frames[*frame as usize].bytes.len());
        let giants = sent + frames.filter(is_giant).sum::<usize>();
        outbox.unsent_bytes() - giants > bytes_max
    }

    /// Lends the next bytes of an outbox whose buffer is not borrowed; `None` when nothing is unsent. A buffer that is
    /// created for it uses the share of the connection's app.
    pub fn lend(&mut self, outbox: &mut Outbox, app: u32) -> Option<&[u8]> {
        debug_assert!(!outbox.lent, "one send per connection at a time");
        if outbox.buffer == NONE {
            self.next_buffer(outbox, app)?;
        }
        outbox.lent = true;
        Some(self.lent(outbox))
    }

    /// The borrowed bytes; empty when nothing is borrowed.
    pub fn lent(&self, outbox: &Outbox) -> &[u8] {
        if !outbox.lent {
            return &[];
        }
        let bytes = &self.buffers[outbox.buffer as usize].bytes;
        let start = outbox.taken_bytes as usize;
        let end = bytes.len().min(start + limits::SEND_BYTES_MAX);
        &bytes[start..end]
    }

    /// The kernel accepted `count` bytes of those borrowed.
    pub fn take_sent(&mut self, outbox: &mut Outbox, count: usize) {
        assert!(outbox.lent && outbox.buffer != NONE, "a driver reports only sends that it took");
        outbox.lent = false;
        outbox.taken_bytes += count as u32;
        outbox.unsent_bytes -= count as u32;
        let length = self.buffers[outbox.buffer as usize].bytes.len();
        assert!(outbox.taken_bytes as usize <= length, "a driver reports at most the bytes that it took");
        if outbox.taken_bytes as usize == length {
            self.release_buffer(outbox.buffer);
            outbox.buffer = NONE;
            outbox.taken_bytes = 0;
        }
    }

    /// Drops everything that the peer has not begun to receive. A buffer that was begun is completed, so that no frame
    /// is cut off.
    pub fn drop_queued(&mut self, outbox: &mut Outbox) {
        while let Some(frame) = self.pop(outbox) {
            outbox.unsent_bytes -= self.frames[frame as usize].bytes.len() as u32;
            self.release_frame(frame, 1);
        }
        if outbox.buffer != NONE && outbox.taken_bytes == 0 && !outbox.lent {
            outbox.unsent_bytes = 0;
            self.release_buffer(outbox.buffer);
            outbox.buffer = NONE;
        }
    }

    /// Drops everything: the connection is gone.
    pub fn clear(&mut self, outbox: &mut Outbox) {
        outbox.lent = false;
        while let Some(frame) = self.pop(outbox) {
            self.release_frame(frame, 1);
        }
        if outbox.buffer != NONE {
            self.release_buffer(outbox.buffer);
        }
        *outbox = Outbox::EMPTY;
    }

    /// Ends the turn: drops the cached sequences.
    pub fn end_turn(&mut self) {
        while let Some(last) = self.remembered.pop() {
            self.forget(last);
        }
    }

    /// Bytes held in frames and buffers.
    pub fn held_bytes(&self) -> usize {
        self.shares.total()
    }

    /// Frames, buffers, queues and stamps held.
    pub fn held(&self) -> usize {
        self.frames.len() + self.buffers.len() + self.queues.len() + self.stamps.len()
    }

    /// Takes frames up to one send's bytes out of the queue and creates or finds their buffer.
    fn next_buffer(&mut self, outbox: &mut Outbox, app: u32) -> Option<()> {
        if outbox.inline_used == 1 && self.reuse_buffer_of(outbox) {
            return Some(());
        }
        let mut sequence: SmallVec<[u32; 8]> = SmallVec::new();
        let mut bytes = 0;
        let mut shared = true;
        while let Some(frame) = self.peek(outbox) {
            let entry = &self.frames[frame as usize];
            if !sequence.is_empty() && bytes + entry.bytes.len() > limits::SEND_BYTES_MAX {
                break;
            }
            bytes += entry.bytes.len();
            shared &= entry.references > 1;
            sequence.push(frame);
            self.pop(outbox);
        }
        if sequence.is_empty() {
            return None;
        }
        if shared && let Some(found) = self.remembered.iter().rev().find(|known| known.sequence == sequence) {
            outbox.buffer = found.buffer;
            self.buffers[found.buffer as usize].references += 1;
            for frame in sequence {
                self.release_frame(frame, 1);
            }
            return Some(());
        }
        let joined = self.join(&sequence, bytes);
        self.shares.add(app, joined.len());
        let stamps = self.hold_stamps(&sequence);
        outbox.buffer = self.buffers.insert(Buffer { bytes: joined, references: 1, app, stamps }) as u32;
        if shared {
            self.remember(sequence, outbox.buffer);
        } else {
            for frame in sequence {
                self.release_frame(frame, 1);
            }
        }
        Some(())
    }

    /// The usual case, once per delivery: the one frame that the outbox has was sent to another connection in this
    /// turn.
    #[inline]
    fn reuse_buffer_of(&mut self, outbox: &mut Outbox) -> bool {
        let frame = outbox.inline[0];
        let known = self.remembered.iter().rev().find(|known| known.sequence.as_slice() == [frame]);
        let Some(&Remembered { buffer, .. }) = known else { return false };
        outbox.inline_used = 0;
        outbox.buffer = buffer;
        self.buffers[buffer as usize].references += 1;
        self.release_frame(frame, 1);
        true
    }

    /// The stamps of these frames, with one more reference each.
    fn hold_stamps(&mut self, sequence: &[u32]) -> SmallVec<[u32; 4]> {
        let stamps: SmallVec<[u32; 4]> =
            sequence.iter().map(|frame| self.frames[*frame as usize].stamp).filter(|stamp| *stamp != NONE).collect();
        for stamp in &stamps {
            self.stamps[*stamp as usize].holders += 1;
        }
        stamps
    }

    fn release_stamp(&mut self, stamp: u32) {
        let entry = &mut self.stamps[stamp as usize];
        entry.holders -= 1;
        if entry.holders == 0 {
            let stamp = self.stamps.remove(stamp as usize);
            self.written.push(stamp.accepted_us);
        }
    }

    fn join(&self, sequence: &[u32], bytes: usize) -> Bytes {
        if let [only] = sequence {
            return self.frames[*only as usize].bytes.clone();
        }
        let mut joined = Vec::with_capacity(bytes);
        for frame in sequence {
            joined.extend_from_slice(&self.frames[*frame as usize].bytes);
        }
        Bytes::from(joined)
    }

    /// Keeps the outbox's frame references and one of the buffer until the turn ends.
    fn remember(&mut self, sequence: SmallVec<[u32; 8]>, buffer: u32) {
        if self.remembered.len() == SEQUENCES_REMEMBERED_MAX {
            let oldest = self.remembered.remove(0);
            self.forget(oldest);
        }
        self.buffers[buffer as usize].references += 1;
        self.remembered.push(Remembered { sequence, buffer });
    }

    fn forget(&mut self, remembered: Remembered) {
        for frame in remembered.sequence {
            self.release_frame(frame, 1);
        }
        self.release_buffer(remembered.buffer);
    }

    fn peek(&self, outbox: &Outbox) -> Option<u32> {
        (outbox.inline_used > 0).then(|| outbox.inline[0])
    }

    /// Takes the oldest queued frame out and moves the next one of the queue up; an empty queue is freed.
    fn pop(&mut self, outbox: &mut Outbox) -> Option<u32> {
        if outbox.inline_used == 0 {
            return None;
        }
        let frame = outbox.inline[0];
        outbox.inline.copy_within(1.., 0);
        outbox.inline_used -= 1;
        if outbox.queue != NONE {
            let queue = &mut self.queues[outbox.queue as usize];
            let next = queue.pop_front().expect("an outbox returns its queue when it is empty");
            outbox.inline[usize::from(outbox.inline_used)] = next;
            outbox.inline_used += 1;
            if queue.is_empty() {
                self.queues.remove(outbox.queue as usize);
                outbox.queue = NONE;
            }
        }
        Some(frame)
    }

    fn release_frame(&mut self, frame: u32, count: u32) {
        let entry = &mut self.frames[frame as usize];
        entry.references -= count;
        if entry.references == 0 {
            self.forget_frame(frame);
        }
    }

    // Separate and not inlined, as is `forget_buffer`: one connection in a thousand takes this path, and the others
    // need not save registers for it.
    #[cold]
    #[inline(never)]
    fn forget_frame(&mut self, frame: u32) {
        let Frame { bytes, stamp, app, .. } = self.frames.remove(frame as usize);
        self.shares.remove(app, bytes.len());
        if stamp != NONE {
            self.release_stamp(stamp);
        }
    }

    fn release_buffer(&mut self, buffer: u32) {
        let entry = &mut self.buffers[buffer as usize];
        entry.references -= 1;
        if entry.references == 0 {
            self.forget_buffer(buffer);
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_buffer(&mut self, buffer: u32) {
        let Buffer { bytes, stamps, app, .. } = self.buffers.remove(buffer as usize);
        self.shares.remove(app, bytes.len());
        for stamp in stamps {
            self.release_stamp(stamp);
        }
    }
}

const _: () = assert!(size_of::<Outbox>() == 32, "half of the hot line");

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(frames: &mut Frames, text: &'static str, accepted_us: u64, outboxes: &mut [&mut Outbox]) {
        let frame = frames.hold(Bytes::from_static(text.as_bytes()), 1, FrameKind::Event);
        for outbox in outboxes.iter_mut() {
            frames.retain(frame, 1);
            frames.push(outbox, frame, text.len());
        }
        frames.stamp(frame, accepted_us);
        frames.release(frame);
    }

    fn written(frames: &mut Frames) -> Vec<u64> {
        frames.take_written().collect()
    }

    /// Goal: an event counts as written when the kernel accepts the last of its sends, not before. Method: two readers
    /// share a joined buffer of two events; one accepts all of it, the other parts of it over several turns.
    #[test]
    fn an_event_is_written_with_its_last_send() {
        let mut frames = Frames::default();
        let (mut fast, mut slow) = (Outbox::EMPTY, Outbox::EMPTY);
        stamped(&mut frames, "first", 10, &mut [&mut fast, &mut slow]);
        stamped(&mut frames, "second", 20, &mut [&mut fast, &mut slow]);
        assert_eq!(frames.lend(&mut fast, 1), Some(&b"firstsecond"[..]));
        assert_eq!(frames.lend(&mut slow, 1), Some(&b"firstsecond"[..]));
        frames.take_sent(&mut fast, 11);
        frames.take_sent(&mut slow, 7);
        frames.end_turn();
        assert!(written(&mut frames).is_empty());
        stamped(&mut frames, "third", 30, &mut [&mut fast]);
        assert_eq!(frames.lend(&mut slow, 1), Some(&b"cond"[..]));
        frames.take_sent(&mut slow, 4);
        assert_eq!(written(&mut frames), [10, 20]);
        assert_eq!(frames.lend(&mut fast, 1), Some(&b"third"[..]));
        frames.take_sent(&mut fast, 5);
        frames.end_turn();
        assert_eq!(written(&mut frames), [30]);
        assert_eq!(frames.held(), 0);
    }

    /// An event is complete, too, when the last connection with it is gone, or lost it as a slow reader.
    #[test]
    fn an_event_ends_with_its_last_reader() {
        let mut frames = Frames::default();
        let (mut gone, mut slow, mut apart) = (Outbox::EMPTY, Outbox::EMPTY, Outbox::EMPTY);
        stamped(&mut frames, "event", 10, &mut [&mut gone, &mut slow, &mut apart]);
        frames.drop_queued(&mut slow);
        assert!(frames.lend(&mut apart, 1).is_some());
        frames.clear(&mut gone);
        frames.end_turn();
        assert!(written(&mut frames).is_empty());
        frames.clear(&mut apart);
        assert_eq!(written(&mut frames), [10]);
        assert_eq!(frames.held(), 0);
    }

    /// Held objects are counted by kind, so that a leak of any one is visible: frames, a buffer, a queue of further
    /// frames, stamps.
    #[test]
    fn whatever_is_held_counts() {
        let mut frames = Frames::default();
        let mut outbox = Outbox::EMPTY;
        stamped(&mut frames, "event", 10, &mut [&mut outbox]);
        assert_eq!(frames.held(), 2, "a frame and its stamp");
        assert!(frames.lend(&mut outbox, 1).is_some());
        frames.end_turn();
        let lent = frames.held();
        assert_eq!(lent, 2, "a buffer, and the stamp that moved to it");
        for count in 1..=FRAMES_INLINE {
            stamped(&mut frames, "more", 0, &mut [&mut outbox]);
            assert_eq!(frames.held(), lent + 2 * count);
        }
        stamped(&mut frames, "more", 0, &mut [&mut outbox]);
        assert_eq!(frames.held(), lent + 2 * FRAMES_INLINE + 3, "and a queue");
        frames.clear(&mut outbox);
        written(&mut frames);
        assert_eq!(frames.held(), 0);
    }

    /// An event in two encodings is written with the last send of either, not with the last of the first.
    #[test]
    fn frames_of_one_event_share_its_stamp() {
        let mut frames = Frames::default();
        let (mut plain, mut other) = (Outbox::EMPTY, Outbox::EMPTY);
        stamped(&mut frames, "event", 10, &mut [&mut plain]);
        let of_plain = FrameId(plain.inline[0]);
        let with_id = frames.hold(Bytes::from_static(b"event with id"), 1, FrameKind::Event);
        frames.share_stamp(of_plain, with_id);
        frames.share_stamp(of_plain, with_id);
        frames.push(&mut other, with_id, 13);
        for (outbox, bytes, done) in [(&mut plain, 5, &[][..]), (&mut other, 13, &[10])] {
            assert!(frames.lend(outbox, 1).is_some());
            frames.take_sent(outbox, bytes);
            frames.end_turn();
            assert_eq!(written(&mut frames), done);
        }
        assert_eq!(frames.held(), 0);
    }
}
