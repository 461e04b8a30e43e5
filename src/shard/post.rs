//! Mail out and in: the two classes, the credit, and the dispatch to who handles it.

use super::mail::{Body, ChannelKey};
use super::{Mail, Output, Shard, ShardIndex};
use crate::app::AppSerial;
use crate::limits;

/// Credit is given back in portions of at least this, so that little of it is ever under way.
const CREDIT_PORTION_BYTES: usize = limits::EVENT_MAIL_BYTES_MAX / 8;

impl Shard {
    /// Sends control mail; mail to itself is handled before the input is done, after what was sent before.
    pub(super) fn send(&mut self, to: ShardIndex, body: Body) {
        debug_assert_eq!(body.cost(), 0, "event mail needs credit");
        self.send_unpaid(to, body);
    }

    /// Sends event mail if there is credit for it; gives it back otherwise. It uses the part of the app with this serial, or
    /// that of what concerns no app (`NONE`).
    pub(super) fn send_paid(&mut self, to: ShardIndex, app: u32, body: Body) -> Result<(), Body> {
        if to != self.config.index && !self.credit[usize::from(to)].pay(app, body.cost()) {
            return Err(body);
        }
        self.send_unpaid(to, body);
        Ok(())
    }

    /// True when mail of this cost may be sent for the app now.
    pub(super) fn can_pay(&self, app: AppSerial, to: ShardIndex, cost: usize) -> bool {
        to == self.config.index
            || self.credit[usize::from(to)].covers(app.0, cost.min(limits::EVENT_MAIL_BYTES_MAX / 2))
    }

    fn send_unpaid(&mut self, to: ShardIndex, body: Body) {
        if to == self.config.index {
            self.own_mail.push_back(body);
        } else {
            self.outputs.push_back(Output::Mail { to, mail: Mail(body) });
        }
    }

    pub(super) fn handle_own_mail(&mut self) {
        while let Some(body) = self.own_mail.pop_front() {
            self.dispatch(self.config.index, body);
        }
    }

    pub(super) fn handle_mail(&mut self, from: ShardIndex, body: Body) {
        self.credit_owed[usize::from(from)] += body.cost();
        self.dispatch(from, body);
        self.return_credit(from);
    }

    /// Gives credit back once a portion has come together and the shard has memory for more.
    fn return_credit(&mut self, to: ShardIndex) {
        let owed = self.credit_owed[usize::from(to)];
        if owed >= CREDIT_PORTION_BYTES && !self.is_out_of_memory() {
            self.credit_owed[usize::from(to)] = 0;
            self.send(to, Body::Credit { bytes: owed });
        }
    }

    /// Gives back what was kept while the shard was out of memory.
    pub(super) fn return_all_credit(&mut self) {
        for to in 0..self.config.shards {
            self.return_credit(to);
        }
    }

    /// True when frames and joined buffers fill the shard's bound: no credit is given back until there is memory for more.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.frames.held_bytes() > limits::SHARD_SEND_BYTES_MAX
    }

    /// The shard that orders a channel's events.
    pub(super) fn owner_of(&self, channel: &ChannelKey) -> ShardIndex {
        self.owner_of_hash(channel.hash)
    }

    /// The shard that owns what has this hash: a channel, or a user.
    pub(super) fn owner_of_hash(&self, hash: u64) -> ShardIndex {
        (hash >> 32).checked_rem(u64::from(self.config.shards)).expect("there is at least one shard") as ShardIndex
    }

    /// The shard that counts an app's connections.
    pub(super) fn counter_of(&self, app: AppSerial) -> ShardIndex {
        (app.0 % u32::from(self.config.shards)) as ShardIndex
    }

    pub(super) fn dispatch(&mut self, from: ShardIndex, body: Body) {
        match body {
            Body::Subscribers { ref channel, count: 1.., .. } | Body::Join { ref channel, .. }
                if self.must_recall(channel.hash) =>
            {
                self.hold_until_heard(channel.hash, from, body);
            }
            Body::Subscribers { ref channel, count: 1.., .. } | Body::Join { ref channel, .. }
                if self.must_open(channel) =>
            {
                let channel = channel.clone();
                self.hold_join(&channel, from, body);
            }
            Body::Subscribers { channel, count, joiners } => self.own_subscribers(from, channel, count, joiners),
            Body::Unrecorded { channel, channels_max } => self.handle_unrecorded(&channel, channels_max),
            Body::Recorded { channel, cached } => self.handle_recorded(&channel, cached),
            Body::Join { channel, connection, ticket, user_id, user_info, members_max } => {
                let joiner = super::Anywhere { shard: from, connection };
                self.own_join(joiner, channel, ticket, user_id, user_info, members_max);
            }
            Body::Joined { channel, joiners, succeeded, cached } => {
                self.handle_joined(&channel, joiners, succeeded, cached);
            }
            Body::JoinRefused { channel, ticket, full } => self.handle_join_refused(&channel, ticket, full),
            Body::Leave { channel, user_id } => self.own_leave(from, &channel, &user_id),
            Body::Publish { request, counts, items } => self.own_publish(from, request, counts, items),
            Body::Accepted { request, counts, unheard } => self.handle_accepted_publish(request, counts, &unheard),
            Body::Heard { hash } => self.handle_heard(from, hash),
            Body::HeardNoted { hash } => self.own_heard_noted(hash),
            Body::Ask { request, question } => self.handle_question(from, request, question),
            Body::Reply { request, reply } => self.handle_reply(from, request, reply),
            Body::Deliver { channel, frame, exclude, accepted_us, cost: _ } => {
                self.deliver(&channel, frame, exclude, accepted_us);
            }
            Body::Gap { channel } => self.handle_gap(from, channel),
            Body::GapClosed { channel } => self.own_gap_closed(from, &channel),
            Body::Admit { app, connection, connections_max } => {
                self.count_admission(from, app, connection, connections_max);
            }
            Body::Admitted { app, connection, admitted } => self.handle_admitted(app, connection, admitted),
            Body::Departed { app } => self.count_departure(app),
            Body::Allow { request, app, costs, channels } => self.count_request(from, app, request, costs, &channels),
            Body::Allowed { request, window, lease } => self.handle_allowed(request, window, lease),
            Body::Denied { request, shortage } => self.handle_denied(request, &shortage),
            Body::Recall { app } => self.handle_recall(from, app),
            Body::Return { app, window, permits, recalled } => self.count_return(app, window, permits, recalled),
            Body::OpenChannel { channel, channels_max } => self.count_opening(from, channel, channels_max),
            Body::ChannelOpened { channel, admitted, channels_max } => {
                self.handle_channel_opened(&channel, admitted, channels_max);
            }
            Body::ChannelOpen { app, hash } => self.count_open(app, hash),
            Body::CloseChannel { app, hash } => self.count_closing(app, hash),
            Body::ChannelsFull { app, full } => self.handle_channels_full(app, full),
            Body::ShareFull { app, full } => self.handle_share_full(from, app, full),
            Body::Failed { client } => {
                self.failures.count(self.now, client);
            }
            Body::UserReport { user, report } => self.own_user_report(from, user, report),
            Body::UserRecorded { user, online } => self.handle_user_recorded(&user, online),
            Body::UserState { user, online } => self.handle_user_state(from, user, online),
            Body::UserTold { user } => self.own_user_told(from, &user),
            Body::Changed { request, changed } => self.handle_changed(request, changed),
            Body::Credit { bytes } => self.credit[usize::from(from)].give_back(bytes),
            Body::Measure { request } => self.handle_measure(from, request),
            Body::Measured { request, snapshot } => self.handle_measured(request, *snapshot),
        }
    }
}
