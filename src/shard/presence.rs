//! Joining and leaving presence channels (P-PRES rules): the joiner's side. The roster is its owner's.

use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::mail::{Body, ChannelKey, Full, Ticket};
use super::subscribe::Waiting;
use crate::app::App;
use crate::channel::name::ChannelKind;
use crate::channel::presence::{ChannelData, ChannelDataError, decode_channel_data};
use crate::limits;

impl Shard {
    /// A verified presence subscribe: `channel_data` says who joins (P-PRES-1).
    pub(super) fn join_presence(&mut self, slot: u32, app: &App, channel: ChannelKey, channel_data: Option<&str>) {
        let bytes_max = app.settings.max_channel_data_bytes;
        let member = match (channel_data, self.user_of(slot)) {
            // Whoever is signed in joins as that user (P-USER-5).
            (None, Some((id, user_info))) => {
                ChannelData { user_id: id.to_owned(), user_info: user_info.map(str::to_owned) }
            }
            (channel_data, _) => match decode_channel_data(channel_data.unwrap_or_default(), bytes_max as usize) {
                Ok(member) => member,
                Err(error) => return self.refuse_member(slot, &channel.name, error, bytes_max),
            },
        };
        let index = self.channel_index(&channel, ChannelKind::Presence);
        self.join_ticket = self.join_ticket.wrapping_add(1);
        let (connection, ticket) = (self.key(slot), self.join_ticket);
        let user_id: Arc<str> = member.user_id.into();
        self.add_subscription(slot, index);
        self.cold_mut(slot).members.push((index, user_id.clone()));
        let entry = &mut self.channels[index as usize];
        entry.waiting.push_back(Waiting { connection, ticket });
        let join = Body::Join {
            channel,
            connection,
            ticket,
            user_id,
            user_info: member.user_info.map(Into::into),
            members_max: app.settings.max_presence_members,
        };
        let owner = entry.owner;
        self.send(owner, join);
    }

    /// The owner's answer to joins: all of them are told by the same frame.
    pub(super) fn handle_joined(
        &mut self,
        channel: &ChannelKey,
        joiners: Vec<Ticket>,
        succeeded: Bytes,
        cached: Option<Bytes>,
    ) {
        let app = channel.app.0;
        let succeeded = self.frames.hold(succeeded, app);
        let after = self.frame_after_join(&channel.name, cached).map(|frame| self.frames.hold(frame, app));
        let mut joined = Vec::with_capacity(joiners.len());
        // All are subscribers before the first is told: to tell one may close it, and then the others must count.
        for Ticket { number, user_id } in joiners {
            match self.take_waiting(channel, number) {
                Some((index, waiting)) => {
                    self.channels[index as usize].subscribers.insert(waiting.connection.slot);
                    self.fan_outs.pass_over(index, waiting.connection.slot);
                    self.stats.subscriptions += 1;
                    joined.push(waiting.connection.slot);
                }
                // The connection went or changed its mind while the join was under way.
                None => {
                    let owner = self.owner_of(channel);
                    self.send(owner, Body::Leave { channel: channel.clone(), user_id });
                }
            }
        }
        for slot in joined {
            self.queue_shared(slot, succeeded);
            if let Some(after) = after {
                self.queue_shared(slot, after);
            }
            self.authorize_connection(slot);
        }
        self.frames.release(succeeded);
        if let Some(after) = after {
            self.frames.release(after);
        }
    }

    /// The channel is full, or the app has all its channels (P-LIM-7, R-LIM-5).
    pub(super) fn handle_join_refused(&mut self, channel: &ChannelKey, ticket: u32, full: Full) {
        let Some((index, waiting)) = self.take_waiting(channel, ticket) else { return };
        let slot = waiting.connection.slot;
        self.remove_member(slot, index);
        self.remove_subscription(slot, index);
        self.forget_channel_if_unused(index);
        let reason = full.reason(&channel.name);
        self.refuse_subscription(slot, &channel.name, None, "LimitReached", &reason, 4100);
    }

    /// Takes the join with this ticket out of those that wait; `None` when it does not wait any more.
    fn take_waiting(&mut self, channel: &ChannelKey, ticket: u32) -> Option<(u32, Waiting)> {
        let index = self.find_channel(channel)?;
        let waiting = &mut self.channels[index as usize].waiting;
        // Answers come in the order of the joins, but for refusals: it is the first or near it.
        let at = waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        waiting.remove(at).map(|waiting| (index, waiting))
    }

    /// The presence side of a leave. A join that is still under way is undone when its answer comes.
    pub(super) fn leave_presence(&mut self, slot: u32, index: u32, was_subscribed: bool) {
        let user_id = self.remove_member(slot, index);
        if was_subscribed {
            let entry = &self.channels[index as usize];
            let (owner, channel) = (entry.owner, entry.key.clone());
            self.send(owner, Body::Leave { channel, user_id });
        }
    }

    /// The user as which a connection is a member of a channel.
    pub(super) fn member_id(&self, slot: u32, index: u32) -> Option<Arc<str>> {
        let members = &self.cold(slot)?.members;
        members.iter().find(|(channel, _)| *channel == index).map(|(_, user_id)| user_id.clone())
    }

    fn remove_member(&mut self, slot: u32, index: u32) -> Arc<str> {
        let members = &mut self.cold_mut(slot).members;
        let at = members.iter().rposition(|(channel, _)| *channel == index);
        let (_, user_id) = members.swap_remove(at.expect("whoever joins a presence channel has a user id"));
        self.drop_cold_if_empty(slot);
        user_id
    }

    fn refuse_member(&mut self, slot: u32, channel: &str, error: ChannelDataError, bytes_max: u32) {
        let (code, kind, status) = match error {
            ChannelDataError::TooLong | ChannelDataError::UserIdTooLong | ChannelDataError::UserIdCharacter(_) => {
                (None, "LimitReached", 4301)
            }
            ChannelDataError::NoObject | ChannelDataError::NoUserId => (Some(4009), "AuthError", 401),
        };
        let reason = match error {
            ChannelDataError::TooLong => {
                format!("channel_data is longer than {bytes_max} bytes (max_channel_data_bytes)")
            }
            ChannelDataError::UserIdTooLong => {
                format!("user_id must have 1 to {} bytes and no control characters", limits::USER_ID_BYTES_MAX)
            }
            ChannelDataError::UserIdCharacter(character) => {
                format!("user_id has the control character {character:?}, which ids may not have")
            }
            ChannelDataError::NoObject => "channel_data must be a string that holds a JSON object".to_owned(),
            ChannelDataError::NoUserId => "channel_data must have a user_id: a string or a number".to_owned(),
        };
        self.refuse_subscription(slot, channel, code, kind, &reason, status);
    }
}
