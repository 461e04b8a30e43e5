//! The order in which connections are sent to.

use std::collections::VecDeque;

use crate::connection::Flags;
use crate::index::{ChannelIndex, Slot};
use crate::limits;

/// Slots with unsent bytes and no send in flight, in the order in which they became so, each at most once per queue.
///
/// A turn sends to a bounded number of them (U17), so the queues decide who waits for whom. An answer is sent in the
/// turn in which it was created and does not wait for a fan-out to be sent (P-HTTP-14). An event of a small channel
/// does not wait for those of large ones, and large channels take turns. A slot that waits in a later queue is also put
/// into an earlier one when there is something for it there: it is sent everything that it has, in order, and its later
/// entry is void. No slot waits forever: each queue has a part of every turn. Within a turn events go first, since a
/// client that publishes one after the other leaves more of them to be joined.
#[derive(Default)]
pub(super) struct SendQueue {
    /// An answer, a reply or a pong, for one connection.
    answers: VecDeque<Slot>,
    /// Events of channels with up to `limits::SMALL_FAN_OUT_MAX` subscribers.
    events: VecDeque<Slot>,
    /// Events of larger channels, one queue for each channel that has any, by its index.
    bulk: VecDeque<(ChannelIndex, VecDeque<Slot>)>,
    /// An emptied queue, kept so that the next large fan-out needs no allocation.
    spare: VecDeque<Slot>,
    /// Slots in all queues of `bulk`.
    bulk_slots: usize,
    /// Slots that the first queue of `bulk` may give before the next one's turn comes.
    bulk_left: u32,
    /// Slots that `bulk` may give in this turn.
    bulk_sends_left: u32,
}

/// One queue of [`SendQueue`], and the flag of the slots that are in it.
pub(super) struct Queue<'a> {
    slots: &'a mut VecDeque<Slot>,
    mark: Flags,
    /// With any of these flags a slot is in this queue or an earlier one.
    queued: Flags,
}

const EARLIER: Flags = Flags::ANSWER_QUEUED.union(Flags::EVENT_QUEUED);

impl Queue<'_> {
    #[inline]
    pub(super) fn push(&mut self, slot: Slot, flags: &mut Flags) {
        if !flags.intersects(self.queued) {
            flags.insert(self.mark);
            self.slots.push_back(slot);
        }
    }
}

impl SendQueue {
    pub(super) fn push_answer(&mut self, slot: Slot, flags: &mut Flags) {
        if flags.raise(Flags::ANSWER_QUEUED) {
            self.answers.push_back(slot);
        }
    }

    /// Queues the rest of the bytes for one connection.
    pub(super) fn push_rest(&mut self, slot: Slot, flags: &mut Flags) {
        self.events().push(slot, flags);
    }

    fn events(&mut self) -> Queue<'_> {
        Queue { slots: &mut self.events, mark: Flags::EVENT_QUEUED, queued: EARLIER }
    }

    /// The queue for an event of a channel with this many subscribers.
    pub(super) fn queue_of(&mut self, channel: ChannelIndex, subscribers: u32) -> Queue<'_> {
        if subscribers <= limits::SMALL_FAN_OUT_MAX {
            return self.events();
        }
        let at = self.bulk.iter().position(|(known, _)| *known == channel).unwrap_or_else(|| {
            self.bulk.push_back((channel, std::mem::take(&mut self.spare)));
            self.bulk.len() - 1
        });
        let slots = &mut self.bulk[at].1;
        self.bulk_slots -= slots.len();
        Queue { slots, mark: Flags::BULK_QUEUED, queued: EARLIER.union(Flags::BULK_QUEUED) }
    }

    /// Counts the slots put into the queue of a channel.
    pub(super) fn count_bulk(&mut self, channel: ChannelIndex) {
        if let Some(at) = self.bulk.iter().position(|(known, _)| *known == channel) {
            self.bulk_slots += self.bulk[at].1.len();
            if self.bulk[at].1.is_empty() {
                self.keep_spare(at);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.events.is_empty() && self.bulk.is_empty()
    }

    pub(super) fn new() -> Self {
        Self { bulk_sends_left: limits::LARGE_SENDS_PER_TURN, ..Self::default() }
    }

    /// Another turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.bulk_sends_left = limits::LARGE_SENDS_PER_TURN;
    }

    /// Takes the next slot while the turn has this many sends left, and the flag of the queue that it was in; `None`
    /// when only large channels have slots and they have used their part. The last sends are reserved for answers, at
    /// most half of the turn, and those before them for large channels, at most an eighth.
    pub(super) fn take(&mut self, sends_left: u32) -> Option<(Slot, Flags)> {
        let turn = limits::SENDS_PER_TURN as usize;
        let for_answers = self.answers.len().min(turn / 2);
        let for_bulk = self.bulk_slots.min(turn / 8).min(self.bulk_sends_left as usize);
        let sends_left = sends_left as usize;
        if sends_left > for_answers + for_bulk
            && let Some(slot) = self.events.pop_front()
        {
            return Some((slot, Flags::EVENT_QUEUED));
        }
        if sends_left > for_answers
            && let Some(slot) = self.take_bulk()
        {
            return Some((slot, Flags::BULK_QUEUED));
        }
        let answer = self.answers.pop_front().map(|slot| (slot, Flags::ANSWER_QUEUED));
        answer.or_else(|| self.events.pop_front().map(|slot| (slot, Flags::EVENT_QUEUED)))
    }

    fn take_bulk(&mut self) -> Option<Slot> {
        if self.bulk_sends_left == 0 {
            return None;
        }
        if self.bulk_left == 0 && !self.bulk.is_empty() {
            self.bulk.rotate_left(1);
        }
        if self.bulk_left == 0 {
            self.bulk_left = limits::FAN_OUT_CHUNK;
        }
        let (_, slots) = self.bulk.front_mut()?;
        let slot = slots.pop_front()?;
        self.bulk_slots -= 1;
        self.bulk_left -= 1;
        self.bulk_sends_left -= 1;
        if slots.is_empty() {
            self.keep_spare(0);
            self.bulk_left = limits::FAN_OUT_CHUNK;
        }
        Some(slot)
    }

    /// Removes an empty queue, and keeps it for the next large fan-out.
    fn keep_spare(&mut self, at: usize) {
        if let Some((_, slots)) = self.bulk.remove(at) {
            self.spare = slots;
        }
    }

    /// Capacity for this many slots.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let bulk: usize = self.bulk.iter().map(|(_, slots)| slots.capacity()).sum();
        self.answers.capacity() + self.events.capacity() + self.spare.capacity() + bulk
    }
}
