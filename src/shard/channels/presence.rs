//! Joining and leaving presence channels (P-PRES rules): the joiner's side. The roster belongs to the owner.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Channels, SubscriptionRefusal, Waiting, Welcome, refuse};
use crate::app::App;
use crate::channel::name::ChannelKind;
use crate::channel::presence::{ChannelData, decode_channel_data};
use crate::index::{ChannelIndex, Slot};
use crate::shard::connections::Connections;
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, Join, JoinRefusal, OwnerMessage, Reader, Ticket};

impl Channels {
    /// A verified presence subscribe: `channel_data` identifies the joining user (P-PRES-1).
    pub(super) fn join_presence(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        channel: ChannelKey,
        (channel_data, reader): (Option<&str>, Option<Reader>),
    ) {
        let bytes_max = app.settings.max_channel_data_bytes;
        let member = match (channel_data, connections.signed_in(slot)) {
            // A signed-in connection joins as that user (P-USER-5).
            (None, Some(user)) => {
                ChannelData { user_id: (*user.id).to_owned(), user_info: user.user_info.as_deref().map(str::to_owned) }
            }
            (channel_data, _) => match decode_channel_data(channel_data.unwrap_or_default(), bytes_max as usize) {
                Ok(member) => member,
                Err(error) => {
                    let refusal = SubscriptionRefusal::ChannelData(error, bytes_max);
                    return refuse(context, connections, slot, &channel.name, &refusal, None);
                }
            },
        };
        let index = self.find_or_insert(context, &channel, ChannelKind::Presence);
        let (connection, ticket) = (connections.key(slot), self.next_ticket());
        let user_id: Arc<str> = member.user_id.into();
        connections.add_subscription(slot, index);
        connections.add_member(slot, index, user_id.clone());
        let entry = &mut self.channels[index];
        entry.waiting.push_back(Waiting { connection, ticket, reader: None });
        let join = Join {
            ticket,
            user_id,
            user_info: member.user_info.map(Into::into),
            members_max: app.settings.max_presence_members,
            reader: reader.map(|reader| Box::new(Reader { ticket, ..reader })),
        };
        let owner = entry.owner;
        context.send(owner, OwnerMessage::Join { channel, join });
    }

    /// The number of the next join.
    pub(super) fn next_ticket(&mut self) -> u32 {
        self.join_ticket = self.join_ticket.wrapping_add(1);
        self.join_ticket
    }

    /// Handles the owner's answer to joins: all of them get the same frame.
    pub(super) fn handle_joined(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        joiners: Vec<Ticket>,
        mut frames: Welcome,
    ) {
        let (mut joined, mut left) = (Vec::with_capacity(joiners.len()), HashSet::new());
        if let Some(index) = self.find(channel) {
            self.channels[index].expect_from(frames.position);
        }
        for Ticket { number, user_id } in joiners {
            match self.take_waiting(channel, number) {
                Some((index, waiting)) => {
                    self.channels[index].subscribers.insert(waiting.connection.slot());
                    joined.push(waiting.connection.slot());
                }
                // The connection was closed or unsubscribed while the join was in flight.
                None => {
                    left.insert(number);
                    let channel = channel.clone();
                    context.send(context.owner_of(&channel), OwnerMessage::Leave { channel, user_id });
                }
            }
        }
        context.metrics.stats.subscriptions += joined.len() as u64;
        if !left.is_empty() {
            frames.resumed.retain(|resumed| !left.contains(&resumed.ticket));
        }
        if let Some(index) = self.find(channel) {
            self.send_welcome(context, connections, index, &joined, frames, true);
        }
    }

    /// The owner did not record a join (P-LIM-7, R-LIM-5, R-HIST-10).
    pub(super) fn handle_join_refused(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        channel: &ChannelKey,
        ticket: u32,
        refusal: JoinRefusal,
    ) {
        let Some((index, waiting)) = self.take_waiting(channel, ticket) else { return };
        let slot = waiting.connection.slot();
        if connections.is_stream(slot) {
            connections.remove_subscription(slot, index);
            self.forget_if_unused(index);
            let JoinRefusal::Channels(channels_max) = refusal else { unreachable!("a stream is no member") };
            return Self::refuse_stream(context, connections, slot, channels_max);
        }
        connections.remove_member(slot, index);
        connections.remove_subscription(slot, index);
        self.forget_if_unused(index);
        refuse(context, connections, slot, &channel.name, &SubscriptionRefusal::Join(refusal), None);
    }

    /// Removes the join with this ticket from the waiting list; `None` when it is no longer waiting.
    pub(super) fn take_waiting(&mut self, channel: &ChannelKey, ticket: u32) -> Option<(ChannelIndex, Waiting)> {
        let index = self.find(channel)?;
        let waiting = &mut self.channels[index].waiting;
        // Answers arrive in the order of the joins, except for refusals: it is the first or near it.
        let at = waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        waiting.remove(at).map(|waiting| (index, waiting))
    }

    /// The presence part of a leave. A join that is still in flight is undone when its answer arrives.
    pub(super) fn leave_presence(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        index: ChannelIndex,
        was_subscribed: bool,
    ) {
        let entry = &self.channels[index];
        let (owner, channel) = (entry.owner, entry.key.clone());
        if connections.is_stream(slot) {
            if was_subscribed {
                context.send(owner, OwnerMessage::Unobserve { channel });
            }
            return;
        }
        let user_id = connections.remove_member(slot, index);
        if was_subscribed {
            context.send(owner, OwnerMessage::Leave { channel, user_id });
        }
    }
}
