//! The channels that a connection is subscribed to, and the user signed in on it: the connection's own side of both.

use std::sync::Arc;

use super::Connections;
use crate::connection::{CHANNELS_INLINE, Phase, SignedIn};
use crate::index::{ChannelIndex, Slot};

impl Connections {
    /// True when the connection is subscribed to a channel or is waiting to be.
    pub(in crate::shard) fn is_subscribed(&self, slot: Slot, channel: ChannelIndex) -> bool {
        self.subscriptions(slot).any(|other| other == channel)
    }

    /// The channels that the connection is subscribed to or is waiting for.
    pub(in crate::shard) fn subscriptions(&self, slot: Slot) -> impl Iterator<Item = ChannelIndex> {
        let more = self.cold(slot).map_or(&[][..], |cold| &cold.more_channels);
        self.table.hot[slot].inline_channels().iter().chain(more).copied()
    }

    pub(in crate::shard) fn subscription_count(&self, slot: Slot) -> usize {
        let more = self.cold(slot).map_or(0, |cold| cold.more_channels.len());
        usize::from(self.table.hot[slot].channels_inline) + more
    }

    pub(in crate::shard) fn add_subscription(&mut self, slot: Slot, channel: ChannelIndex) {
        debug_assert_eq!(self.table.hot[slot].phase, Phase::Open);
        let line = &mut self.table.hot[slot];
        let used = usize::from(line.channels_inline);
        if used < CHANNELS_INLINE {
            line.channels[used] = channel;
            line.channels_inline += 1;
        } else {
            self.cold_or_default(slot).more_channels.push(channel);
        }
    }

    /// Removes a channel from the list; false when it is not on it.
    pub(in crate::shard) fn remove_subscription(&mut self, slot: Slot, channel: ChannelIndex) -> bool {
        let line = &mut self.table.hot[slot];
        let used = usize::from(line.channels_inline);
        if let Some(at) = line.inline_channels().iter().position(|&other| other == channel) {
            line.channels[at] = line.channels[used - 1];
            line.channels_inline -= 1;
            return true;
        }
        let Some(cold) = self.cold_mut(slot) else { return false };
        let Some(at) = cold.more_channels.iter().position(|&other| other == channel) else { return false };
        cold.more_channels.swap_remove(at);
        self.drop_cold_if_empty(slot);
        true
    }

    /// Removes the last channel from the list.
    pub(in crate::shard) fn pop_subscription(&mut self, slot: Slot) -> Option<ChannelIndex> {
        let line = &mut self.table.hot[slot];
        if line.channels_inline > 0 {
            line.channels_inline -= 1;
            return Some(line.channels[usize::from(line.channels_inline)]);
        }
        self.cold_mut(slot)?.more_channels.pop()
    }

    /// Sorts channels and memberships into the same order, so that each is found at the end of its list: removing
    /// thousands of them then needs no search through the others (threat T16).
    pub(in crate::shard) fn sort_subscriptions(&mut self, slot: Slot) {
        if let Some(cold) = self.cold_mut(slot).filter(|cold| cold.members.len() > CHANNELS_INLINE) {
            cold.more_channels.sort_unstable();
            cold.members.sort_unstable_by_key(|(channel, _)| *channel);
        }
    }

    /// The connection is a member of a presence channel, or is about to be.
    pub(in crate::shard) fn add_member(&mut self, slot: Slot, channel: ChannelIndex, user_id: Arc<str>) {
        self.cold_or_default(slot).members.push((channel, user_id));
    }

    /// The user id of a connection on a presence channel.
    pub(in crate::shard) fn member_id(&self, slot: Slot, channel: ChannelIndex) -> Option<Arc<str>> {
        let members = &self.cold(slot)?.members;
        members.iter().find(|(other, _)| *other == channel).map(|(_, user_id)| user_id.clone())
    }

    /// Ends a membership; returns its user id.
    pub(in crate::shard) fn remove_member(&mut self, slot: Slot, channel: ChannelIndex) -> Arc<str> {
        let members = &mut self.cold_or_default(slot).members;
        let at = members.iter().rposition(|(other, _)| *other == channel);
        let (_, user_id) = members.swap_remove(at.expect("a connection that joins a presence channel has a user id"));
        self.drop_cold_if_empty(slot);
        user_id
    }

    /// The user signed in on a connection.
    pub(in crate::shard) fn signed_in(&self, slot: Slot) -> Option<&SignedIn> {
        self.cold(slot)?.signed_in.as_deref()
    }

    pub(in crate::shard) fn signed_in_mut(&mut self, slot: Slot) -> Option<&mut SignedIn> {
        self.cold_mut(slot)?.signed_in.as_deref_mut()
    }

    pub(in crate::shard) fn set_signed_in(&mut self, slot: Slot, signed_in: SignedIn) {
        self.cold_or_default(slot).signed_in = Some(Box::new(signed_in));
    }

    pub(in crate::shard) fn take_signed_in(&mut self, slot: Slot) -> Option<Box<SignedIn>> {
        let signed_in = self.cold_mut(slot)?.signed_in.take()?;
        self.drop_cold_if_empty(slot);
        Some(signed_in)
    }
}
