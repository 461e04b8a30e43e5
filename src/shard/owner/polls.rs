//! Polls that wait for an event of a channel of this shard (R-POLL-2).

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::quality::FixedState;

use super::Owner;
use crate::app::AppSerial;
use crate::channel::history::{Gap, Part};
use crate::index::ShardIndex;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, Continued, HttpMessage, PendingId, PolledChannel, PolledPart};

/// Polls by channel. The hashes of channels are keyed already, so the maps need no secret of their own.
#[derive(Default)]
pub(super) struct HeldPolls {
    by_channel: HashMap<u64, Vec<Waiter>, FixedState>,
    /// The hashes of the channels that each poll waits for.
    by_poll: HashMap<(ShardIndex, PendingId), Vec<u64>, FixedState>,
}

/// A poll that waits for an event of a channel.
struct Waiter {
    channel: ChannelKey,
    from: ShardIndex,
    request: PendingId,
    /// The number of the channel in the poll.
    number: usize,
    /// The position from which it reads.
    start: u64,
}

impl HeldPolls {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.by_channel.is_empty()
    }

    fn remove(&mut self, from: ShardIndex, request: PendingId) {
        for hash in self.by_poll.remove(&(from, request)).unwrap_or_default() {
            if let Some(waiters) = self.by_channel.get_mut(&hash) {
                waiters.retain(|waiter| (waiter.from, waiter.request) != (from, request));
                if waiters.is_empty() {
                    self.by_channel.remove(&hash);
                }
            }
        }
    }

    /// Removes and returns the polls that wait for these channels.
    fn take(&mut self, hash: u64, is: impl Fn(&ChannelKey) -> bool) -> Vec<Waiter> {
        let Some(waiters) = self.by_channel.get_mut(&hash) else { return Vec::new() };
        let taken: Vec<Waiter> = waiters.extract_if(.., |waiter| is(&waiter.channel)).collect();
        if waiters.is_empty() {
            self.by_channel.remove(&hash);
        }
        for waiter in &taken {
            self.remove(waiter.from, waiter.request);
        }
        taken
    }
}

impl Owner {
    /// A poll asks for what channels of this shard have. If they have nothing, it waits here.
    pub(super) fn poll(
        &mut self,
        context: &mut Context,
        (from, request): (ShardIndex, PendingId),
        channels: Vec<PolledChannel>,
        (events_max, bytes_max): (usize, usize),
    ) {
        let mut found = Vec::with_capacity(channels.len());
        for PolledChannel { number, channel, after } in &channels {
            let position = self.position(context, channel);
            // Without a position it starts from now.
            let named = after.map(|after| after.and_then(|id| super::sequence_of(context, channel, id)));
            let from_now = || position.ok_or(Gap::Expired);
            let named = named.unwrap_or_else(from_now);
            let continued = self.read_history(context, channel, named, bytes_max, events_max);
            let start = continued.as_ref().map(|continued| continued.start);
            found.push(PolledPart { number: *number, after: after.and_then(Result::ok), position: start, continued });
        }
        if !found.iter().any(PolledPart::is_new) {
            let mut hashes = Vec::with_capacity(channels.len());
            for (PolledChannel { number, channel, .. }, part) in channels.into_iter().zip(&found) {
                let hash = channel.hash;
                let waiter = Waiter { channel, from, request, number, start: part.position.unwrap_or(0) };
                self.polls.by_channel.entry(hash).or_default().push(waiter);
                hashes.push(hash);
            }
            self.polls.by_poll.insert((from, request), hashes);
        }
        context.send(from, HttpMessage::Polled { request, found, is_first: true });
    }

    /// A poll is answered, or its client is gone.
    pub(super) fn end_poll(&mut self, from: ShardIndex, request: PendingId) {
        self.polls.remove(from, request);
    }

    /// An event was stored: the polls that wait for it are answered with it.
    #[cold]
    pub(super) fn wake_polls(&mut self, context: &mut Context, channel: &ChannelKey, sequence: u64, frame: &Bytes) {
        for Waiter { from, request, number, start, .. } in self.polls.take(channel.hash, |known| known.is(channel)) {
            let part = Part { events: vec![(sequence, frame.clone())], complete: true };
            let continued = Some(Continued { start, gap: None, part });
            let found = vec![PolledPart { number, after: None, position: Some(start), continued }];
            context.send(from, HttpMessage::Polled { request, found, is_first: false });
        }
    }

    /// The history of an app began anew, or ended: its polls have missed events.
    pub(super) fn end_polls_of(&mut self, context: &mut Context, app: AppSerial) {
        let hashes: Vec<u64> = self.polls.by_channel.keys().copied().collect();
        for hash in hashes {
            for Waiter { channel, from, request, number, start } in self.polls.take(hash, |known| known.app == app) {
                let after = Some(context.event_id(&channel, start));
                let continued = self.read_history(context, &channel, Err(Gap::Expired), 0, 0);
                let position = continued.as_ref().map(|continued| continued.start);
                let found = vec![PolledPart { number, after, position, continued }];
                context.send(from, HttpMessage::Polled { request, found, is_first: false });
            }
        }
    }

    /// Polls that wait here.
    pub(in crate::shard) fn polls(&self) -> usize {
        self.polls.by_poll.len()
    }
}
