//! Figures of one shard, of its driver and of the process.

use std::sync::Arc;

use super::app_figures::AppFigures;
use super::histogram::Histogram;
use crate::app::AppSerial;
use crate::auth::AuthFailure;
use crate::label::{Label, Tally, labels};
use crate::limits;
use crate::protocol::close::CloseKind;

/// State of one shard at one moment, and its oldest counters: for health, tests and metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ShardStats {
    /// Connections accepted and not yet closed.
    pub connections: u64,
    /// Of these, established WebSockets.
    pub websockets: u64,
    /// Streams of server-sent events.
    pub streams: u64,
    /// Local subscriptions.
    pub subscriptions: u64,
    /// Channels with local subscribers.
    pub channels: u64,
    /// Channels that this shard owns state for.
    pub owned_channels: u64,
    /// Events of cache channels kept as owner, and their cost in the budgets of their apps.
    pub cached_events: u64,
    /// In bytes.
    pub cached_bytes: u64,
    /// Events kept in the history as owner, and their cost in the budgets.
    pub history_events: u64,
    /// In bytes, with the records of channels that are kept for their history.
    pub history_bytes: u64,
    /// Users that are signed in or watched here.
    pub users: u64,
    /// Users that this shard owns state for.
    pub owned_users: u64,
    /// Events accepted as owner.
    pub events: u64,
    /// Frames queued to connections.
    pub deliveries: u64,
    /// Connections closed as slow readers (P-CLOSE-5).
    pub slow_closed: u64,
    /// Connections closed because events for them were lost between shards (4200).
    pub gap_closed: u64,
    /// Frames held for sending.
    pub frames: u64,
    /// Bytes of frames and joined buffers held for sending.
    pub send_bytes: u64,
}

labels! {
    /// Where a credential was refused.
    pub enum Surface {
        /// A request of the HTTP API.
        Http => "http",
        /// A subscription to a protected channel.
        Subscribe => "subscribe",
        /// `pusher:signin`.
        Signin => "signin",
    }
}

labels! {
    /// Why a request was answered 503 (P-STAT-8).
    pub enum Overload {
        /// Frames and joined buffers fill the shard's bound.
        Memory => "memory",
        /// No credit for event mail is left with an owner.
        Credit => "credit",
        /// Too many lists of channels or figures are being gathered.
        Gathering => "gathering",
        /// Buffers of incomplete requests and messages fill a bound.
        Input => "input",
        /// Too many requests wait for authorizers.
        Authorizer => "authorizer",
        /// No slot is left for a stream or poll.
        Capacity => "capacity",
        /// The process is shutting down.
        Draining => "draining",
        /// Memory or connections of the process are used up except for a reserve (`/accept-traffic`).
        Headroom => "headroom",
    }
}

labels! {
    /// The `type` of `pusher:subscription_error`.
    pub enum SubscriptionError {
        /// The signature is missing or wrong.
        Auth => "AuthError",
        /// A limit is reached.
        Limit => "LimitReached",
        /// The channel name is invalid.
        Channel => "InvalidChannel",
        /// Events after the position may be missing (R-HIST-10).
        Gap => "HistoryGap",
        /// Any other.
        Other => "other",
    }
}

impl SubscriptionError {
    /// By the `type` that the client receives.
    pub fn of(kind: &str) -> Self {
        Self::ALL.iter().copied().find(|error| error.label() == kind).unwrap_or(Self::Other)
    }
}

labels! {
    /// Codes of RFC 6455 section 7.4.1 that answer a violation of that protocol.
    pub enum ProtocolError {
        /// A frame that violates the protocol.
        Protocol => "1002",
        /// A binary message (P-CONN-7).
        Data => "1003",
        /// Text that is not UTF-8.
        Text => "1007",
        /// A message that took too long, or too many fragments.
        Policy => "1008",
        /// A message above the limit (P-IN-5).
        TooLarge => "1009",
        /// Any other.
        Other => "other",
    }
}

labels! {
    /// Statuses of HTTP answers.
    pub enum Status {
        /// Switching Protocols: a WebSocket, which may still be refused in its own words.
        S101 => "101",
        /// OK.
        S200 => "200",
        /// Accepted.
        S202 => "202",
        /// No Content.
        S204 => "204",
        /// Bad Request.
        S400 => "400",
        /// Unauthorized.
        S401 => "401",
        /// Forbidden.
        S403 => "403",
        /// Not Found.
        S404 => "404",
        /// Method Not Allowed.
        S405 => "405",
        /// Request Timeout.
        S408 => "408",
        /// Content Too Large.
        S413 => "413",
        /// Upgrade Required.
        S426 => "426",
        /// Too Many Requests.
        S429 => "429",
        /// Request Header Fields Too Large.
        S431 => "431",
        /// Service Unavailable.
        S503 => "503",
        /// Any other.
        Other => "other",
    }
}

impl Status {
    /// By its number.
    pub fn of(status: u16) -> Self {
        match status {
            101 => Self::S101,
            200 => Self::S200,
            202 => Self::S202,
            204 => Self::S204,
            400 => Self::S400,
            401 => Self::S401,
            403 => Self::S403,
            404 => Self::S404,
            405 => Self::S405,
            408 => Self::S408,
            413 => Self::S413,
            426 => Self::S426,
            429 => Self::S429,
            431 => Self::S431,
            503 => Self::S503,
            _ => Self::Other,
        }
    }
}

impl ProtocolError {
    /// By the code of the Close frame.
    pub fn of(code: u16) -> Self {
        match code {
            1002 => Self::Protocol,
            1003 => Self::Data,
            1007 => Self::Text,
            1008 => Self::Policy,
            1009 => Self::TooLarge,
            _ => Self::Other,
        }
    }
}

/// Counters of one shard since it started; all of them only increase.
#[derive(Clone, Debug, Default)]
pub struct ShardFigures {
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes read from connections.
    pub received_bytes: u64,
    /// Bytes that the kernel accepted for connections.
    pub sent_bytes: u64,
    /// Credentials refused over HTTP, in subscriptions and in signins.
    pub auth_failures: [Tally<AuthFailure>; 3],
    /// WebSockets that this side closed, including those refused at the handshake.
    pub closes: Tally<CloseKind>,
    /// WebSockets closed for a violation of RFC 6455.
    pub protocol_errors: Tally<ProtocolError>,
    /// Subscriptions refused.
    pub subscription_errors: Tally<SubscriptionError>,
    /// Client events refused.
    pub client_events_refused: u64,
    /// HTTP answers.
    pub responses: Tally<Status>,
    /// Requests answered 503.
    pub overloads: Tally<Overload>,
    /// Times that an event found no credit with a shard that has subscribers; those were then closed (4200).
    pub gaps: u64,
    /// Subscriptions that continued from a position.
    pub resumes: u64,
    /// Times that one could not, or not completely.
    pub resume_gaps: u64,
    /// Log lines about refusals that were held back.
    pub lines_suppressed: u64,
    /// New WebSockets by the client name that they give (P-CONN-4).
    pub clients: ClientNames,
    /// From the acceptance of an event to its last write, see `docs/metrics.md`.
    pub publish_to_last_write: Histogram,
    /// Durations of turns.
    pub turns: Histogram,
}

impl ShardFigures {
    /// Counts a refused credential.
    pub fn auth_failed(&mut self, surface: Surface, failure: AuthFailure) {
        self.auth_failures[surface.index()].count(failure);
    }
}

/// How often each name was given, at most [`limits::CLIENT_NAMES_MAX`] different ones (P-CONN-4).
#[derive(Clone, Debug, Default)]
pub struct ClientNames {
    names: Vec<(Arc<str>, u64)>,
    other: u64,
}

impl ClientNames {
    /// Counts connections by a name; one that is not a plain word, or one too many, counts as `other`.
    pub fn count(&mut self, name: &str, connections: u64) {
        if let Some((_, count)) = self.names.iter_mut().find(|(known, _)| **known == *name) {
            *count += connections;
        } else if self.names.len() < limits::CLIENT_NAMES_MAX && is_plain(name) {
            self.names.push((name.into(), connections));
        } else {
            self.other += connections;
        }
    }

    /// Each name with its count; the last is `other`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().map(|(name, count)| (&**name, *count)).chain([("other", self.other)])
    }

    /// Merges the counts of all shards, with no more names than one shard would have: a name once listed stays listed.
    pub fn merge(&mut self, shards: &[Snapshot]) {
        self.names.iter_mut().for_each(|(_, count)| *count = 0);
        self.other = 0;
        for clients in shards.iter().map(|shard| &shard.figures.clients) {
            clients.names.iter().for_each(|(name, count)| self.count(name, *count));
            self.other += clients.other;
        }
    }
}

/// A word that may be a label; `other` is reserved.
fn is_plain(name: &str) -> bool {
    (1..=limits::CLIENT_NAME_BYTES_MAX).contains(&name.len())
        && name != "other"
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Counters of the loop of one shard; passed to the core at the end of each turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DriverFigures {
    /// System calls to wait for events and to submit.
    pub waits: u64,
    /// Connection slots, including those reserved for refusals.
    pub slots: u64,
    /// Slots in use.
    pub slots_used: u64,
    /// io_uring: rings open.
    pub rings: u64,
    /// io_uring: completion queues that had overflowed (hazard U4).
    pub ring_overflows: u64,
    /// io_uring: receives that found no buffer and were postponed (hazard U6).
    pub receives_starved: u64,
    /// io_uring: zero-copy sends that completed (hazard U12).
    pub zero_copy_sends: u64,
    /// io_uring: of these, those that the kernel copied anyway.
    pub zero_copy_copies: u64,
    /// io_uring: completions of an earlier use of their slot, dropped (hazard U2).
    pub completions_stale: u64,
    /// Times that accepting paused because the kernel lacked a resource (threat T15).
    pub accept_pauses: u64,
    /// Mails to other shards.
    pub mails_sent: u64,
    /// Mails that wait for space in the mailbox of their target.
    pub mails_waiting: u64,
    /// Mails in the shard's own mailbox at the end of the turn.
    pub mailbox_depth: u64,
}

/// Figures of the process, measured on request. 0 is "not known".
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessFigures {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Memory that the process may use, in bytes: of the machine, or of its control group if that is less.
    pub memory_bytes_max: u64,
    /// Memory of the machine that is available to any process, in bytes.
    pub memory_bytes_available: u64,
    /// Descriptors open.
    pub descriptors: u64,
    /// Descriptors that may be open.
    pub descriptors_max: u64,
    /// Processor time used, in ms.
    pub processor_ms: u64,
    /// Log lines that were dropped, since nobody read standard error (R-PROC-1).
    pub log_lines_dropped: u64,
    /// Figures of webhooks.
    pub webhooks: WebhookFigures,
    /// Figures of authorizers.
    pub authorizers: AuthorizerFigures,
}

/// Questions to authorizers (R-AUTHEP-3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AuthorizerFigures {
    /// Waiting.
    pub waiting: u64,
    /// In flight.
    pub in_flight: u64,
    /// Answered with a grant.
    pub granted: u64,
    /// Answered with a refusal.
    pub refused: u64,
    /// Not answered, or not validly.
    pub failed: u64,
    /// Not asked.
    pub busy: u64,
}

/// Webhooks of all apps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WebhookFigures {
    /// Deliveries that wait or are in flight.
    pub waiting: u64,
    /// Requests that were answered 2xx.
    pub delivered: u64,
    /// Requests that were not.
    pub refused: u64,
    /// Deliveries that were given up.
    pub given_up: u64,
    /// Events that were dropped for lack of space.
    pub dropped: u64,
}

/// Everything of one shard at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its index.
    pub shard: u16,
    /// Its state.
    pub stats: ShardStats,
    /// Its counters.
    pub figures: ShardFigures,
    /// Per app, by serial.
    pub apps: Vec<(AppSerial, AppFigures)>,
    /// The counters of its loop.
    pub driver: DriverFigures,
}

/// Properties of the server that are known from its start on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Name of the driver.
    pub driver: &'static str,
    /// Why it was chosen.
    pub driver_reason: String,
    /// The public port: the label `port`, as the peers have it.
    pub port: u16,
    /// When the process began to serve, in unix ms.
    pub started_unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        names.iter().for_each(|name| snapshot.figures.clients.count(name, 1));
        snapshot
    }

    /// P-CONN-4: 16 different names, also over several shards, and `other` from then on; a name that is not a plain
    /// word is `other` from the start.
    #[test]
    fn sixteen_client_names() {
        let names: Vec<String> = (0..20).map(|number| format!("client-{number}")).collect();
        let mut clients = ClientNames::default();
        for name in ["js\" } 1", "", "other", "a\nb"].into_iter().chain(names.iter().map(String::as_str)) {
            clients.count(name, 1);
        }
        clients.count("client-3", 4);
        let told: Vec<_> = clients.iter().collect();
        assert_eq!(told.len(), limits::CLIENT_NAMES_MAX + 1);
        assert_eq!((told[3], told[16]), (("client-3", 5), ("other", 8)));

        let shards = [named(&["a", "b"]), named(&names.iter().map(String::as_str).collect::<Vec<_>>())];
        let mut merged = ClientNames::default();
        for _ in 0..2 {
            merged.merge(&shards);
            let told: Vec<_> = merged.iter().collect();
            assert_eq!((told.len(), told[0], told[16]), (17, ("a", 1), ("other", 6)));
        }
    }

    /// Numbers map to the label with the same text, others to `other`.
    #[test]
    fn numbers_are_labels() {
        for number in 0..=u16::MAX {
            let text = number.to_string();
            let (status, error) = (Status::of(number), ProtocolError::of(number));
            let is_status = Status::ALL.iter().any(|label| label.label() == text);
            let is_error = ProtocolError::ALL.iter().any(|label| label.label() == text);
            assert_eq!(status.label(), if is_status { &*text } else { "other" });
            assert_eq!(error.label(), if is_error { &*text } else { "other" });
        }
        assert_eq!(SubscriptionError::of("AuthError"), SubscriptionError::Auth);
        assert_eq!(SubscriptionError::of("surprise"), SubscriptionError::Other);
    }
}
