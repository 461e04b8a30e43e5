//! `/stats`: the same figures as JSON, for people and scripts.

use serde_json::{Map, Value, json};

use super::app_figures::AppFigures;
use super::figures::{ShardStats, Snapshot, Surface};
use super::histogram::Histogram;
use super::page::Report;
use crate::label::{Label, Tally};

impl Report<'_> {
    /// The body of `/stats`.
    pub fn encode_stats_json(&self) -> Vec<u8> {
        let apps: Map<String, Value> =
            self.apps().iter().map(|(id, figures)| ((*id).to_owned(), app(figures))).collect();
        let failures: Map<String, Value> = Surface::ALL
            .iter()
            .map(|surface| {
                (surface.label().to_owned(), tally(&self.sum(|figures| &figures.auth_failures[surface.index()])))
            })
            .collect();
        let clients: Map<String, Value> =
            self.clients.iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        let mut write = Histogram::default();
        self.shards.iter().for_each(|shard| write.add(&shard.figures.publish_to_last_write));
        let shards: Vec<Value> = self.shards.iter().map(shard).collect();
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.unix_ms.saturating_sub(self.identity.started_unix_ms) / 1_000,
            "driver": { "name": self.identity.driver, "reason": self.identity.driver_reason },
            "port": self.identity.port,
            "memory": {
                "resident_bytes": self.process.resident_bytes,
                "max_bytes": self.process.memory_bytes_max,
            },
            "descriptors": { "open": self.process.descriptors, "max": self.process.descriptors_max },
            "processor_ms": self.process.processor_ms,
            "publish_to_last_write_us": times(&write),
            "auth_failures": failures,
            "closes": tally(&self.sum(|figures| &figures.closes)),
            "protocol_errors": tally(&self.sum(|figures| &figures.protocol_errors)),
            "subscription_errors": tally(&self.sum(|figures| &figures.subscription_errors)),
            "http_responses": tally(&self.sum(|figures| &figures.responses)),
            "http_unavailable": tally(&self.sum(|figures| &figures.overloads)),
            "clients": clients,
            "shards": shards,
            "apps": apps,
        });
        let mut body = serde_json::to_vec_pretty(&value).expect("a value of strings and numbers is JSON");
        body.push(b'\n');
        body
    }
}

fn app(figures: &AppFigures) -> Value {
    json!({
        "connected": figures.connected,
        "new_connections": figures.connections,
        "new_disconnections": figures.disconnections,
        "socket_received_bytes": figures.socket_received_bytes,
        "socket_transmitted_bytes": figures.socket_sent_bytes,
        "ws_messages_received": figures.messages_received,
        "ws_messages_sent": figures.messages_sent,
        "http_received_bytes": figures.http_received_bytes,
        "http_transmitted_bytes": figures.http_sent_bytes,
        "http_calls_received": figures.http_calls,
        "events": figures.events,
        "client_events": figures.client_events,
    })
}

fn shard(snapshot: &Snapshot) -> Value {
    let Snapshot { stats, figures, driver, .. } = snapshot;
    let ShardStats { connections, websockets, streams, subscriptions, channels, owned_channels, .. } = *stats;
    json!({
        "shard": snapshot.shard,
        "connections": connections,
        "websockets": websockets,
        "streams": streams,
        "subscriptions": subscriptions,
        "channels": channels,
        "owned_channels": owned_channels,
        "users": stats.users,
        "owned_users": stats.owned_users,
        "cached_events": stats.cached_events,
        "cached_bytes": stats.cached_bytes,
        "history_events": stats.history_events,
        "history_bytes": stats.history_bytes,
        "events": stats.events,
        "deliveries": stats.deliveries,
        "slow_consumer_closes": stats.slow_closed,
        "gap_closes": stats.gap_closed,
        "send_frames": stats.frames,
        "send_bytes": stats.send_bytes,
        "accepted_connections": figures.accepted,
        "received_bytes": figures.received_bytes,
        "transmitted_bytes": figures.sent_bytes,
        "event_gaps": figures.gaps,
        "client_events_refused": figures.client_events_refused,
        "log_lines_suppressed": figures.lines_suppressed,
        "loop_lag_us": times(&figures.turns),
        "publish_to_last_write_us": times(&figures.publish_to_last_write),
        "driver": {
            "waits": driver.waits,
            "slots": driver.slots,
            "slots_used": driver.slots_used,
            "rings": driver.rings,
            "ring_overflows": driver.ring_overflows,
            "ring_receives_starved": driver.receives_starved,
            "zero_copy_sends": driver.zero_copy_sends,
            "zero_copy_copies": driver.zero_copy_copies,
            "ring_completions_stale": driver.completions_stale,
            "accept_pauses": driver.accept_pauses,
            "mails_sent": driver.mails_sent,
            "mails_waiting": driver.mails_waiting,
            "mailbox_depth": driver.mailbox_depth,
        },
    })
}

/// Count, mean and upper bounds of quantiles, in µs; null for a quantile above the last bound.
fn times(histogram: &Histogram) -> Value {
    let bound = |per_mille| match histogram.quantile_us(per_mille) {
        u64::MAX => Value::Null,
        us => us.into(),
    };
    json!({
        "count": histogram.count(),
        "mean": histogram.sum_us().checked_div(histogram.count()).unwrap_or(0),
        "p50": bound(500),
        "p95": bound(950),
        "p99": bound(990),
        "p999": bound(999),
    })
}

fn tally<L: Label>(tally: &Tally<L>) -> Value {
    tally.iter().map(|(label, count)| (label.label().to_owned(), Value::from(count))).collect::<Map<_, _>>().into()
}
