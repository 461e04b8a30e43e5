//! The page `/metrics`: the counters of every shard, in the text format of Prometheus. `docs/metrics.md` lists them for
//! operators; the names, types and labels here and there are the same.

use super::app_figures::AppFigures;
use super::exposition::{Kind, Page};
use super::figures::{
    ClientNames, DriverFigures, Identity, ProcessFigures, ShardFigures, ShardStats, Snapshot, Surface,
};
use crate::app::Directory;
use crate::label::{Label, Tally};
use crate::limits;

/// The data of a page.
pub struct Report<'a> {
    /// The prefix of all names.
    pub prefix: &'a str,
    /// Properties of the server.
    pub identity: &'a Identity,
    /// By shard.
    pub shards: &'a [Snapshot],
    /// Of the process.
    pub process: &'a ProcessFigures,
    /// Names of clients, of all shards.
    pub clients: &'a ClientNames,
    /// The ids of apps.
    pub directory: &'a Directory,
    /// Wall clock, in unix ms.
    pub unix_ms: u64,
}

impl Report<'_> {
    /// The page.
    pub fn encode(&self) -> String {
        let mut page = Page::new(self.prefix);
        self.encode_identity(&mut page);
        self.encode_apps(&mut page);
        self.encode_clients(&mut page);
        self.encode_stats(&mut page);
        self.encode_traffic(&mut page);
        self.encode_refusals(&mut page);
        self.encode_times(&mut page);
        self.encode_drivers(&mut page);
        self.encode_process(&mut page);
        self.encode_webhooks(&mut page);
        self.encode_authorizers(&mut page);
        page.finish()
    }

    /// Apps that any shard has handled, by serial, with their ids; beyond the bound they are combined as one, `other`.
    /// An app that was deleted from the store no longer has an id and is left out.
    pub fn apps(&self) -> Vec<(&str, AppFigures)> {
        let mut all: Vec<_> = self.shards.iter().flat_map(|shard| shard.apps.iter().copied()).collect();
        all.sort_by_key(|(serial, _)| *serial);
        let mut apps: Vec<(&str, AppFigures)> = Vec::new();
        let mut last = None;
        for (serial, figures) in &all {
            let Some(app) = self.directory.app(*serial) else { continue };
            let is_new = last != Some(*serial);
            last = Some(*serial);
            if is_new && apps.len() < limits::METRICS_APPS_MAX {
                apps.push((&app.id, *figures));
            } else if is_new && apps.len() == limits::METRICS_APPS_MAX {
                apps.push(("other", *figures));
            } else if let Some((_, sum)) = apps.last_mut() {
                sum.add(figures);
            }
        }
        apps
    }

    fn encode_identity(&self, page: &mut Page<'_>) {
        page.family(Kind::Gauge, "build_info", "Version of this build as a label; always 1.");
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.family(Kind::Gauge, "driver_info", "I/O driver and the reason for it as labels; always 1.");
        let Identity { driver, driver_reason, .. } = self.identity;
        page.sample(&[("driver", driver), ("reason", driver_reason)], 1);
        page.family(Kind::Gauge, "shards", "Number of shards (threads).");
        page.sample(&[], self.shards.len() as u64);
        page.family(Kind::Gauge, "apps", "Apps in the store.");
        page.sample(&[], self.directory.apps().len() as u64);
        page.standard_family(
            Kind::Gauge,
            "process_start_time_seconds",
            "Start time of the server, in seconds since the Unix epoch.",
        );
        page.seconds(&[], self.identity.started_unix_ms * 1_000);
    }

    fn encode_apps(&self, page: &mut Page<'_>) {
        let apps = self.apps();
        let port = self.identity.port.to_string();
        for (kind, name, help, figure) in APP_FAMILIES {
            page.family(*kind, name, help);
            for (id, figures) in &apps {
                page.sample(&[("app_id", id), ("port", &port)], figure(figures));
            }
        }
    }

    fn encode_clients(&self, page: &mut Page<'_>) {
        page.family(
            Kind::Counter,
            "new_connections_by_client_total",
            "WebSockets opened, by the client's name; after 16 names, other.",
        );
        for (name, count) in self.clients.iter() {
            page.sample(&[("client", name)], count);
        }
    }

    fn encode_stats(&self, page: &mut Page<'_>) {
        for (kind, name, help, figure) in STATS_FAMILIES {
            page.family(*kind, name, help);
            self.per_shard(page, |shard| figure(&shard.stats));
        }
        page.family(
            Kind::Gauge,
            "send_bytes_max",
            "Limit of send_bytes per shard; above it publishes are answered with 503.",
        );
        page.sample(&[], limits::SHARD_SEND_BYTES_MAX as u64);
    }

    fn encode_traffic(&self, page: &mut Page<'_>) {
        for (kind, name, help, figure) in SHARD_FAMILIES {
            page.family(*kind, name, help);
            self.per_shard(page, |shard| figure(&shard.figures));
        }
    }

    fn encode_refusals(&self, page: &mut Page<'_>) {
        page.family(Kind::Counter, "auth_failures_total", "Credentials refused, by surface and reason.");
        for &surface in Surface::ALL {
            for (failure, count) in self.sum(|figures| &figures.auth_failures[surface.index()]).iter() {
                page.sample(&[("surface", surface.label()), ("reason", failure.label())], count);
            }
        }
        page.family(
            Kind::Counter,
            "websocket_closes_total",
            "WebSockets that the server closed or refused at the handshake, by close code and reason.",
        );
        for (kind, count) in self.sum(|figures| &figures.closes).iter() {
            page.sample(&[("code", &kind.code().to_string()), ("reason", kind.label())], count);
        }
        self.tally(page, "websocket_protocol_errors_total", PROTOCOL_ERRORS, "code", |figures| {
            &figures.protocol_errors
        });
        self.tally(page, "subscription_errors_total", "Subscriptions refused, by type.", "type", |figures| {
            &figures.subscription_errors
        });
        self.tally(page, "http_responses_total", "HTTP responses, by status.", "status", |figures| &figures.responses);
        self.tally(page, "http_unavailable_total", "Requests answered with 503, by cause.", "cause", |figures| {
            &figures.overloads
        });
    }

    fn encode_times(&self, page: &mut Page<'_>) {
        page.family(
            Kind::Histogram,
            "publish_to_last_write_seconds",
            "Time from accepting an event to handing its last copy to the kernel, by shard.",
        );
        self.histograms(page, |figures| &figures.publish_to_last_write);
        page.family(
            Kind::Histogram,
            "loop_lag_seconds",
            "Duration of turns of the event loop, the longest time that ready work waits.",
        );
        self.histograms(page, |figures| &figures.turns);
    }

    fn encode_drivers(&self, page: &mut Page<'_>) {
        for (kind, name, help, figure) in DRIVER_FAMILIES {
            page.family(*kind, name, help);
            self.per_shard(page, |shard| figure(&shard.driver));
        }
    }

    fn encode_process(&self, page: &mut Page<'_>) {
        let process = self.process;
        page.family(
            Kind::Gauge,
            "memory_bytes_max",
            "Memory that the process may use: of the machine or its control group.",
        );
        page.sample(&[], process.memory_bytes_max);
        for (kind, name, help, value) in [
            (Kind::Gauge, "process_resident_memory_bytes", "Resident memory of the process.", process.resident_bytes),
            (Kind::Gauge, "process_open_fds", "Number of open file descriptors.", process.descriptors),
            (Kind::Gauge, "process_max_fds", "Limit of open file descriptors.", process.descriptors_max),
        ] {
            page.standard_family(kind, name, help);
            page.sample(&[], value);
        }
        page.family(
            Kind::Counter,
            "log_lines_dropped_total",
            "Log lines dropped because standard error was not read in time.",
        );
        page.sample(&[], process.log_lines_dropped);
        page.standard_family(Kind::Counter, "process_cpu_seconds_total", "CPU time used by the process.");
        page.seconds(&[], process.processor_ms * 1_000);
    }

    fn encode_authorizers(&self, page: &mut Page<'_>) {
        let authorizers = self.process.authorizers;
        page.family(Kind::Gauge, "authorizer_waiting", "Questions to authorizers that wait.");
        page.sample(&[], authorizers.waiting);
        page.family(Kind::Gauge, "authorizer_in_flight", "Requests to authorizers in flight.");
        page.sample(&[], authorizers.in_flight);
        page.family(Kind::Counter, "authorizer_questions_total", "Questions to authorizers, by result.");
        page.sample(&[("result", "granted")], authorizers.granted);
        page.sample(&[("result", "refused")], authorizers.refused);
        page.sample(&[("result", "failed")], authorizers.failed);
        page.sample(&[("result", "busy")], authorizers.busy);
    }

    fn encode_webhooks(&self, page: &mut Page<'_>) {
        let webhooks = self.process.webhooks;
        page.family(Kind::Gauge, "webhook_queue", "Deliveries to webhook endpoints that are waiting or in flight.");
        page.sample(&[], webhooks.waiting);
        page.family(Kind::Counter, "webhook_requests_total", "Requests to webhook endpoints, by result.");
        page.sample(&[("result", "delivered")], webhooks.delivered);
        page.sample(&[("result", "refused")], webhooks.refused);
        page.family(
            Kind::Counter,
            "webhook_deliveries_given_up_total",
            "Webhook deliveries given up after the last retry.",
        );
        page.sample(&[], webhooks.given_up);
        page.family(
            Kind::Counter,
            "webhook_events_dropped_total",
            "Webhook events dropped because the queue was full.",
        );
        page.sample(&[], webhooks.dropped);
    }

    fn per_shard(&self, page: &mut Page<'_>, figure: impl Fn(&Snapshot) -> u64) {
        for shard in self.shards {
            page.sample(&[("shard", &shard.shard.to_string())], figure(shard));
        }
    }

    fn histograms<'s>(
        &'s self,
        page: &mut Page<'_>,
        figure: impl Fn(&'s ShardFigures) -> &'s super::histogram::Histogram,
    ) {
        for shard in self.shards {
            page.histogram(&[("shard", &shard.shard.to_string())], figure(&shard.figures));
        }
    }

    fn tally<'s, L: Label>(
        &'s self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        label: &str,
        tally: impl Fn(&'s ShardFigures) -> &'s Tally<L>,
    ) {
        page.family(Kind::Counter, name, help);
        for (reason, count) in self.sum(tally).iter() {
            page.sample(&[(label, reason.label())], count);
        }
    }

    /// The sum of a tally over all shards.
    pub fn sum<'s, L: Label>(&'s self, tally: impl Fn(&'s ShardFigures) -> &'s Tally<L>) -> Tally<L> {
        let mut sum = Tally::default();
        self.shards.iter().for_each(|shard| sum.add(tally(&shard.figures)));
        sum
    }
}

type Family<F> = (Kind, &'static str, &'static str, fn(&F) -> u64);

const PROTOCOL_ERRORS: &str = "WebSockets closed for a violation of RFC 6455, by close code.";

/// Labels `app_id` and `port`. The first ten are those of soketi and Sockudo; four of them are listed twice, since
/// their names do not end as the names of counters must.
const APP_FAMILIES: &[Family<AppFigures>] = &[
    (Kind::Gauge, "connected", "WebSockets currently open.", |app| app.connected),
    (Kind::Counter, "new_connections_total", "WebSockets opened.", |app| app.connections),
    (Kind::Counter, "new_disconnections_total", "WebSockets closed.", |app| app.disconnections),
    (Kind::Counter, "socket_received_bytes_total", "Bytes read from WebSockets.", |app| app.socket_received_bytes),
    (Kind::Counter, "socket_transmitted_bytes_total", "Bytes of WebSockets accepted by the kernel.", |app| {
        app.socket_sent_bytes
    }),
    (Kind::Counter, "ws_messages_received_total", "Text messages read from WebSockets.", |app| app.messages_received),
    (Kind::Counter, "ws_messages_sent_total", "Text messages queued to WebSockets.", |app| app.messages_sent),
    (Kind::Counter, "http_received_bytes_total", "Bytes of requests to the HTTP API.", |app| app.http_received_bytes),
    (Kind::Counter, "http_transmitted_bytes_total", "Bytes of responses of the HTTP API.", |app| app.http_sent_bytes),
    (Kind::Counter, "http_calls_received_total", "Requests to the HTTP API.", |app| app.http_calls),
    (Kind::Untyped, "socket_received_bytes", "socket_received_bytes_total under soketi's name.", |app| {
        app.socket_received_bytes
    }),
    (Kind::Untyped, "socket_transmitted_bytes", "socket_transmitted_bytes_total under soketi's name.", |app| {
        app.socket_sent_bytes
    }),
    (Kind::Untyped, "http_received_bytes", "http_received_bytes_total under soketi's name.", |app| {
        app.http_received_bytes
    }),
    (Kind::Untyped, "http_transmitted_bytes", "http_transmitted_bytes_total under soketi's name.", |app| {
        app.http_sent_bytes
    }),
    (Kind::Counter, "events_total", "Events accepted over HTTP, one per channel.", |app| app.events),
    (Kind::Counter, "client_events_total", "Client events accepted.", |app| app.client_events),
];

const STATS_FAMILIES: &[Family<ShardStats>] = &[
    (Kind::Gauge, "connections", "Connections open, including HTTP.", |stats| stats.connections),
    (Kind::Gauge, "websockets", "WebSockets open.", |stats| stats.websockets),
    (Kind::Gauge, "streams", "Streams of server-sent events open.", |stats| stats.streams),
    (Kind::Gauge, "subscriptions", "Subscriptions of the shard's connections.", |stats| stats.subscriptions),
    (Kind::Gauge, "channels", "Channels with subscribers on the shard.", |stats| stats.channels),
    (Kind::Gauge, "owned_channels", "Channels whose events the shard orders.", |stats| stats.owned_channels),
    (Kind::Gauge, "users", "Users signed in or watched on the shard.", |stats| stats.users),
    (Kind::Gauge, "owned_users", "Users whose state the shard owns.", |stats| stats.owned_users),
    (Kind::Gauge, "cached_events", "Events kept for cache channels.", |stats| stats.cached_events),
    (Kind::Gauge, "cached_bytes", "Bytes of cached events, as counted against the apps' budgets.", |stats| {
        stats.cached_bytes
    }),
    (Kind::Gauge, "history_events", "Events kept in the histories of channels.", |stats| stats.history_events),
    (Kind::Gauge, "history_bytes", "Bytes of histories, as counted against the budgets of apps and shard.", |stats| {
        stats.history_bytes
    }),
    (Kind::Counter, "owned_events_total", "Events accepted as owner of their channel.", |stats| stats.events),
    (Kind::Counter, "deliveries_total", "Events queued to subscribers.", |stats| stats.deliveries),
    (Kind::Counter, "slow_consumer_closes_total", "Connections closed because they read too slowly.", |stats| {
        stats.slow_closed
    }),
    (
        Kind::Counter,
        "gap_closes_total",
        "Connections closed with 4200 because an event for them was lost between shards.",
        |stats| stats.gap_closed,
    ),
    (Kind::Gauge, "send_frames", "Frames, buffers, queues and stamps held for sending.", |stats| stats.frames),
    (Kind::Gauge, "send_bytes", "Bytes held for sending.", |stats| stats.send_bytes),
];

const SHARD_FAMILIES: &[Family<ShardFigures>] = &[
    (Kind::Counter, "accepted_connections_total", "Connections accepted.", |figures| figures.accepted),
    (Kind::Counter, "received_bytes_total", "Bytes read from all connections.", |figures| figures.received_bytes),
    (Kind::Counter, "transmitted_bytes_total", "Bytes of all connections accepted by the kernel.", |figures| {
        figures.sent_bytes
    }),
    (Kind::Counter, "event_gaps_total", "Events not sent to a shard with subscribers for lack of credit.", |figures| {
        figures.gaps
    }),
    (Kind::Counter, "resumes_total", "Subscriptions that continued from a position.", |figures| figures.resumes),
    (Kind::Counter, "resume_gaps_total", "Resumes for which events may be missing.", |figures| figures.resume_gaps),
    (Kind::Counter, "client_events_refused_total", "Client events refused.", |figures| figures.client_events_refused),
    (Kind::Counter, "log_lines_suppressed_total", "Log lines about refusals that were suppressed.", |figures| {
        figures.lines_suppressed
    }),
];

const DRIVER_FAMILIES: &[Family<DriverFigures>] = &[
    (Kind::Counter, "loop_waits_total", "System calls to wait for events and to submit.", |driver| driver.waits),
    (Kind::Gauge, "slots", "Connection slots.", |driver| driver.slots),
    (Kind::Gauge, "slots_used", "Connection slots in use.", |driver| driver.slots_used),
    (Kind::Gauge, "rings", "io_uring rings open.", |driver| driver.rings),
    (Kind::Counter, "ring_overflows_total", "Overflows of io_uring completion queues.", |driver| driver.ring_overflows),
    (Kind::Counter, "ring_receives_starved_total", "Receives delayed because no buffer was free.", |driver| {
        driver.receives_starved
    }),
    (
        Kind::Counter,
        "ring_completions_stale_total",
        "Completions that belong to an earlier use of their slot.",
        |driver| driver.completions_stale,
    ),
    (Kind::Counter, "zero_copy_sends_total", "Zero-copy sends completed.", |driver| driver.zero_copy_sends),
    (Kind::Counter, "zero_copy_copies_total", "Zero-copy sends that the kernel copied.", |driver| {
        driver.zero_copy_copies
    }),
    (
        Kind::Counter,
        "accept_pauses_total",
        "Pauses in accepting because the kernel lacked descriptors or memory.",
        |driver| driver.accept_pauses,
    ),
    (Kind::Counter, "mails_sent_total", "Mails to other shards.", |driver| driver.mails_sent),
    (Kind::Gauge, "mails_waiting", "Mails waiting for room in the mailbox of their target.", |driver| {
        driver.mails_waiting
    }),
    (Kind::Gauge, "mailbox_depth", "Mails in the shard's own mailbox.", |driver| driver.mailbox_depth),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, AppSerial, AppSettings};
    use crate::metrics::figures::DriverFigures;

    fn app(serial: u32) -> App {
        App {
            serial: AppSerial(serial),
            id: format!("id-{serial}").into(),
            name: "".into(),
            enabled: true,
            keys: Vec::new(),
            encryption_master_key: None,
            settings: AppSettings::default(),
            webhooks: Default::default(),
        }
    }

    fn snapshot(shard: u16, apps: impl Iterator<Item = u32>) -> Snapshot {
        let figures = AppFigures { events: 1, ..AppFigures::default() };
        Snapshot {
            shard,
            apps: apps.map(|serial| (AppSerial(serial), figures)).collect(),
            driver: DriverFigures { waits: 7, ..DriverFigures::default() },
            ..Snapshot::default()
        }
    }

    /// Apps of several shards add up; beyond the bound they are one, `other`; one that was deleted from the store is
    /// left out.
    #[test]
    fn apps_are_bounded() {
        let count = limits::METRICS_APPS_MAX as u32 + 3;
        let directory = Directory::new(1, (1..=count).map(app).collect(), Vec::new());
        let shards = [snapshot(0, 1..=count + 5), snapshot(1, (1..=count).filter(|serial| serial % 2 == 1))];
        let report = Report {
            prefix: "relay_",
            identity: &Identity::default(),
            shards: &shards,
            process: &ProcessFigures::default(),
            clients: &ClientNames::default(),
            directory: &directory,
            unix_ms: 0,
        };
        let apps = report.apps();
        assert_eq!(apps.len(), limits::METRICS_APPS_MAX + 1);
        assert_eq!((apps[0].0, apps[0].1.events, apps[1].1.events), ("id-1", 2, 1));
        let (name, other) = apps[limits::METRICS_APPS_MAX];
        assert_eq!((name, other.events), ("other", 3 + 2));
        let text = report.encode();
        assert!(text.contains("relay_events_total{app_id=\"other\",port=\"0\"} 5\n"));
        assert!(text.contains("relay_loop_waits_total{shard=\"0\"} 7\nrelay_loop_waits_total{shard=\"1\"} 7\n"));
    }
}
