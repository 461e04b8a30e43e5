//! Limits of an app over all shards: connections, channels, requests per minute, messages per day.
//!
//! One shard, the app's counter, counts them; the others ask it. Apps without such limits cost nothing.

mod channels;
mod connections;
mod permits;
mod rate_limit;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::app::AppSerial;
use crate::auth::failures::AuthFailures;
use crate::connection::NONE;
use crate::index::ShardIndex;
use crate::shard::context::Context;
use crate::shard::mail::QuotaMessage;
use channels::OpenChannels;
use rate_limit::{Lease, RateLimit};

pub(super) use channels::channels_max;
pub(super) use permits::Spent;

/// A shard's state of the limits of apps.
pub(super) struct Quota {
    /// WebSockets per app, for the apps whose counter this shard is.
    connections: BTreeMap<AppSerial, u32>,
    /// Occupied channels of apps that limit them, for the apps whose counter this shard is.
    open_channels: BTreeMap<AppSerial, OpenChannels>,
    /// Apps that have their maximum of channels, as their counters report.
    full_apps: BTreeSet<AppSerial>,
    /// Permits that this shard may spend.
    leases: BTreeMap<AppSerial, Lease>,
    /// Permits granted, for the apps whose counter this shard is.
    rate_limits: BTreeMap<AppSerial, RateLimit>,
    /// Failed credentials by address.
    failures: AuthFailures,
}

impl Quota {
    pub(super) fn new(auth_failures_per_minute: u32) -> Self {
        Self {
            connections: BTreeMap::new(),
            open_channels: BTreeMap::new(),
            full_apps: BTreeSet::new(),
            leases: BTreeMap::new(),
            rate_limits: BTreeMap::new(),
            failures: AuthFailures::new(auth_failures_per_minute),
        }
    }

    /// Handles mail about limits.
    pub(super) fn handle(&mut self, context: &mut Context, from: ShardIndex, message: QuotaMessage) {
        match message {
            QuotaMessage::Admit { app, connection, connections_max } => {
                self.count_admission(context, from, app, connection, connections_max);
            }
            QuotaMessage::Departed { app } => self.count_departure(app),
            QuotaMessage::Allow { request, app, costs, channels } => {
                self.count_request(context, from, app, request, costs, &channels);
            }
            QuotaMessage::Recall { app } => self.handle_recall(context, from, app),
            QuotaMessage::Return { app, window, permits, recalled } => {
                self.count_return(context, app, window, permits, recalled);
            }
            QuotaMessage::OpenChannel { channel, channels_max } => {
                self.count_opening(context, from, channel, channels_max);
            }
            QuotaMessage::ChannelOpen { app, hash } => self.count_open(context, app, hash),
            QuotaMessage::CloseChannel { app, hash } => self.count_closing(context, app, hash),
            QuotaMessage::ChannelsFull { app, full } => self.handle_channels_full(app, full),
            QuotaMessage::AuthFailed { client } => {
                self.failures.count(context.now, client);
            }
        }
    }

    /// Counts a failed credential here and on the other shards. True when the address has too many (threat T6).
    pub(super) fn count_auth_failure(&mut self, context: &mut Context, client: IpAddr) -> bool {
        if self.failures.count(context.now, client) {
            return true;
        }
        // Without credit the other shards are not notified: the limit does not justify filling memory.
        let own = context.config.index;
        for to in (0..context.config.shards).filter(|to| *to != own) {
            let _ = context.send_paid(to, NONE, QuotaMessage::AuthFailed { client });
        }
        false
    }

    /// The store changed: limits may have changed, too.
    pub(super) fn handle_directory(&mut self, context: &mut Context) {
        self.forget_deleted_apps(context);
        self.return_leases(context);
        self.report_which_are_full(context);
    }
}

impl Quota {
    /// True when it counts nothing.
    pub(in crate::shard) fn is_at_rest(&self) -> bool {
        self.connections.is_empty() && self.open_channels.is_empty() && self.full_apps.is_empty()
    }
}
