//! Every bound of Relay, its unit in its name. Comments mark the defaults that an operator or an app may change.
//!
//! A bound is defined in this module and nowhere else; what happens at it is described beside the code that checks it and in a
//! test.

mod admin;
mod auth;
mod history;
mod streams;

pub use admin::*;
pub use auth::*;
pub use history::*;
pub use streams::*;

/// Bytes that JSON takes at most to write one byte of text: a control character is `\u0001`. Of other text, two bytes
/// of Cyrillic, Greek, Arabic or Hebrew become six, and an emoji of four becomes twelve.
pub const ESCAPED_BYTES_MAX: usize = 6;
/// Bytes of a message besides its data: the names of members, an event, a channel and a signature, escaped (P-IN-5).
pub const MESSAGE_BESIDE_BYTES_MAX: usize = 4 * 1024;
/// Longest inbound WebSocket message by default (P-IN-5).
pub const MESSAGE_BYTES_MAX: usize = message_bytes_max(EVENT_DATA_BYTES_MAX as u32, CHANNEL_DATA_BYTES_MAX as u32);
/// Longest decoded `data` of one event by default (P-LIM-3).
pub const EVENT_DATA_BYTES_MAX: usize = 10_240;
/// Largest value an app may set for its event data limit.
pub const EVENT_DATA_BYTES_SETTING_MAX: usize = 1024 * 1024;
/// Longest event name (P-LIM-1).
pub const EVENT_NAME_BYTES_MAX: usize = 200;
/// Longest channel name (P-CHAN-2).
pub const CHANNEL_NAME_BYTES_MAX: usize = 200;
/// Misleading channel names that a shard remembers to have warned of (R-CHAN-3).
pub const MISLEADING_NAMES_MAX: usize = 256;
/// A shard warns of one more at most once in this time, in ms.
pub const MISLEADING_NAMES_INTERVAL_MS: u64 = 1_000;
/// Longest channel name on WebSockets under `channel_names = strict` (P-CHAN-2).
pub const CHANNEL_NAME_STRICT_BYTES_MAX: usize = 164;
/// Channels of one `/events` request by default (P-LIM-4).
pub const CHANNELS_PER_EVENT_MAX: usize = 100;
/// Largest value an app may set for it: with the longest data, one such request is as much as a shard may hold.
pub const CHANNELS_PER_EVENT_SETTING_MAX: usize = 250;
/// Events of one `/batch_events` request by default (P-LIM-5).
pub const BATCH_EVENTS_MAX: usize = 10;
/// Largest value an app may set for it.
pub const BATCH_EVENTS_SETTING_MAX: usize = 1_000;
/// Longest user id (P-LIM-6).
pub const USER_ID_BYTES_MAX: usize = 128;
/// Users of a watchlist that are watched (P-LIM-8).
pub const WATCHLIST_USERS_MAX: usize = 100;
/// Bytes that the users known to one shard, and who watches them, may cost before watchlists are cut (P-WATCH-1).
pub const WATCH_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The cost of one watch in these bytes: a slot in the list of the watched and a place in the list of the watcher.
pub const WATCH_BYTES: usize = 32;
/// The cost of one known user in these bytes, with its longest id, here and with its owner.
pub const USER_BYTES: usize = 512;
/// Signins of one connection that may await the owner of the user; a further one fails (P-USER-3).
pub const SIGNINS_WAITING_MAX: u8 = 8;
/// Users in one presence channel by default (P-LIM-7).
pub const PRESENCE_MEMBERS_MAX: usize = 100;
/// Longest `channel_data` by default (P-LIM-7).
pub const CHANNEL_DATA_BYTES_MAX: usize = 10_240;
/// Largest value an app may set for it.
pub const CHANNEL_DATA_BYTES_SETTING_MAX: usize = 64 * 1024;
/// Channels that one connection may subscribe by default (P-LIM-12).
pub const CHANNELS_PER_CONNECTION_MAX: usize = 1_000;
/// Largest value an app may set for it: a subscribe looks at all channels of its connection.
pub const CHANNELS_PER_CONNECTION_SETTING_MAX: usize = 10_000;
/// Text of the members of one presence channel, in bytes, beyond which no new member may join: settings allow 100,000
/// members of 64 KiB each (P-LIM-7).
pub const ROSTER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes of member changes that a presence channel reports in one piece; the rest follows in further ones.
pub const ROSTER_CHANGES_BYTES_MAX: usize = 32 * 1024;
/// Unsent bytes of large rosters beyond which joining clients wait, so that they share the next one.
pub const ROSTER_BYTES_UNSENT_MAX: usize = 64 * 1024 * 1024;
/// How long they wait at most, in ms.
pub const ROSTER_WAIT_MS_MAX: u64 = 1_000;
/// Client events per second and connection by default, also the burst (P-LIM-9).
pub const CLIENT_EVENTS_PER_SECOND: u32 = 10;
/// Largest value an app may set for it, except for 0, which means no limit.
pub const CLIENT_EVENTS_PER_SECOND_SETTING_MAX: u32 = 1_000;
/// Malformed or unknown messages in a minute after which a connection is closed with 4009, by default (P-IN-3).
pub const INVALID_MESSAGES_MAX: u8 = 100;
/// That minute, in tenths of a second.
pub const INVALID_MESSAGES_TENTHS: u32 = 600;
/// Fragments that a message may have whatever its length (threat T8).
pub const FRAGMENTS_MIN: usize = 64;
/// Beyond them, one more fragment for each of these bytes that a message may have: 1,088 fragments under the default
/// limit, yet 4 MiB in fragments of 64 bytes (Autobahn 9.3.1, 9.4.1) if 4 MiB are allowed (threat T8).
pub const FRAGMENT_BYTES_MEAN_MIN: usize = 64;
/// Longest reason in a Close frame (P-CLOSE-3; RFC 6455 section 5.5 less the two code bytes).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Input of a peer quoted in an error message is cut to this (P-FAIL-1).
pub const QUOTED_BYTES_MAX: usize = 200;

/// Subscribers up to which `subscription_count` is sent on each change (P-COUNT-1).
pub const COUNT_AT_ONCE_MAX: u32 = 100;
/// Above that, at most once in this time, in ms (P-COUNT-1).
pub const COUNT_INTERVAL_MS: u64 = 5_000;

/// How long the event of a cache channel is kept by default, in s (P-LIM-10).
pub const CACHE_TTL_S: u32 = 1_800;
/// Longest time that an operator may set for it, in s: a week.
pub const CACHE_TTL_SETTING_S_MAX: u32 = 7 * 24 * 3_600;
/// Cached events of one app by default, in bytes; each shard manages an equal part (threat T28).
pub const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The cost of a cached event in these bytes, beyond its frame and the name of its channel.
pub const CACHED_EVENT_BYTES: usize = 320;

/// `channel_vacated` and `member_removed` webhooks wait this long for a return, in ms (P-HOOK-8).
pub const WEBHOOK_DEPARTURE_MS: u64 = 3_000;
/// Departures that may wait in this way on one shard. One app may have three times as many as are free (P-STAT-9);
/// beyond that its oldest is sent early.
pub const WEBHOOK_DEPARTURES_MAX: usize = 64 * 1024;
/// A `cache_miss` webhook is sent at most once in this time for a channel with subscribers, in ms (P-CACHE-2).
pub const WEBHOOK_MISS_INTERVAL_MS: u64 = 1_000;

/// Changes of the store that the callers of one shard may have in flight; beyond it 503.
pub const STORE_CHANGES_PER_SHARD_MAX: usize = 64;

/// Webhook endpoints of one app.
pub const WEBHOOKS_PER_APP_MAX: usize = 20;
/// Tokens of one app, the records of revoked and expired ones included: the oldest of these make room for new ones.
pub const TOKENS_PER_APP_MAX: usize = 1_000;
/// Scopes that one request may name for a token, repeated ones included.
pub const TOKEN_SCOPES_MAX: usize = 32;
/// Admin tokens, the records of revoked and expired ones included: the oldest of these make room for new ones.
pub const ADMIN_TOKENS_MAX: usize = 1_000;
/// `last_used_at` of an admin token is written at most once per this, in ms.
pub const ADMIN_TOKEN_USE_WRITE_MS: u64 = 60_000;
/// Users with a password.
pub const USERS_MAX: usize = 100;
/// Longest name of a user.
pub const USER_NAME_BYTES_MAX: usize = 64;
/// Shortest password, in characters.
pub const PASSWORD_CHARACTERS_MIN: usize = 12;
/// Longest password: the cost of hashing depends on it.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Memory that hashing a password takes, in KiB (threat T48).
pub const PASSWORD_HASH_KIB: u32 = 19 * 1_024;
/// Passes over that memory.
pub const PASSWORD_HASH_PASSES: u32 = 2;
/// Entries of the audit log about settings (threat T50).
pub const AUDIT_ENTRIES_MAX: u64 = 10_000;
/// Its entries about credentials and roles, which have a part of their own.
pub const AUDIT_CREDENTIAL_ENTRIES_MAX: u64 = 10_000;
/// Its entries about changes that apps make with their own credentials.
pub const AUDIT_APP_ENTRIES_MAX: u64 = 10_000;
/// Entries of the audit log that the server writes to its log when it notices them; of more it logs the number.
pub const AUDIT_LINES_MAX: usize = 100;
/// How long an `Idempotency-Key` is remembered, in ms (threat T44).
pub const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Keys that are remembered for one credential; beyond it the oldest is forgotten.
pub const IDEMPOTENCY_KEYS_PER_CREDENTIAL_MAX: usize = 1_000;
/// Keys that are remembered for all credentials together.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;
/// Events for webhooks that may wait to be recorded; beyond it they are dropped and counted.
pub const WEBHOOK_INTAKE_EVENTS: usize = 64 * 1024;
/// The same in bytes.
pub const WEBHOOK_INTAKE_BYTES: usize = 32 * 1024 * 1024;
/// Events of one request (P-HOOK-6).
pub const WEBHOOK_BATCH_EVENTS_MAX: usize = 100;
/// Bytes of events in one request; a single event may be larger.
pub const WEBHOOK_BATCH_BYTES_MAX: usize = 256 * 1024;
/// How long a request waits for further events, in ms (P-HOOK-6).
pub const WEBHOOK_BATCH_MS: u64 = 50;
/// Deliveries of one app that may wait by default; beyond it events are dropped and counted.
pub const WEBHOOK_DELIVERIES_PER_APP_MAX: u32 = 100_000;
/// Their bodies, in bytes.
pub const WEBHOOK_BYTES_PER_APP_MAX: u64 = 64 * 1024 * 1024;
/// Deliveries of all apps that may wait.
pub const WEBHOOK_DELIVERIES_MAX: u32 = 400_000;
/// Their bodies, in bytes: with LMDB's own needs this fits into its map.
pub const WEBHOOK_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The cost of a delivery in these bytes, beyond its body.
pub const WEBHOOK_DELIVERY_BYTES: u64 = 128;
/// Deliveries that were given up and are listed.
pub const WEBHOOK_FAILED_MAX: u64 = 1_000;
/// Endpoints that are contacted at the same time, by default.
pub const WEBHOOK_THREADS: u16 = 8;
/// An endpoint that takes this long to answer counts as slow, in ms; slow ones share half of the threads.
pub const WEBHOOK_SLOW_MS: u64 = 1_000;
/// An endpoint must answer within this, in ms (P-HOOK-7, R-HOOK-4).
pub const WEBHOOK_ANSWER_MS: u64 = 10_000;
/// Time before a delivery is tried again, in ms; the further ones are multiples of it (P-HOOK-7, R-HOOK-4).
pub const WEBHOOK_RETRY_MS: u64 = 1_000;
/// A delivery in Pusher's format is given up this long after it was created, in ms (P-HOOK-7).
pub const WEBHOOK_PUSHER_WINDOW_MS: u64 = 300_000;
/// One in Relay's format that was never sent, because earlier ones failed, is given up after this, in ms.
pub const WEBHOOK_RELAY_WINDOW_MS: u64 = 420_000;
/// Completed deliveries are written at most once per this while there are no new ones, in ms.
pub const WEBHOOK_COMMIT_MS: u64 = 100;
/// A queue that cannot be written is tried again after this, in ms.
pub const WEBHOOK_COMMIT_AGAIN_MS: u64 = 1_000;
/// At the end of the process, requests in flight are awaited for this long, in ms; then they are repeated after the
/// start.
pub const WEBHOOK_STOP_MS: u64 = 1_000;
/// Bytes of an endpoint's answer that are kept.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 200;
/// Longest URL of a webhook endpoint or an authorizer.
pub const OUTGOING_URL_BYTES_MAX: usize = 2 * 1024;

/// Deepest nesting of JSON that any parser is given (threat T10).
pub const JSON_DEPTH_MAX: usize = 32;

/// Bytes that one request may publish: the data of its events as JSON writes it, once for each channel (P-LIM-11).
pub const PUBLISHED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// HTTP request body, if the settings of an app need no more (P-LIM-11).
pub const HTTP_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body that the settings of an app can lead to: it fits into the app's part of the memory for incomplete
/// requests.
pub const HTTP_BODY_BYTES_SETTING_MAX: usize = 24 * 1024 * 1024;
/// Bytes of an event besides its data and its channels: its name, a socket id and the names of members, escaped.
pub const EVENT_BESIDE_BYTES_MAX: usize = 2 * 1024;
/// Time that each further MiB of a body adds to that of its request, once the credential was verified, in ms (threat
/// T14).
pub const REQUEST_MS_PER_MIB: u64 = 1_000;
/// HTTP request target's query (P-LIM-11).
pub const HTTP_QUERY_BYTES_MAX: usize = 8 * 1024;
/// HTTP request head: request line and headers (P-LIM-11).
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// HTTP request headers (P-LIM-11).
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes that one shard holds for unauthenticated connections: incomplete input (heads, and requests after one that is
/// not answered), and unsent answers. Beyond it the oldest are answered 503, or reset if they do not read (threat T14).
pub const STRANGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same for messages of WebSockets. Beyond it the oldest are closed with 4100 (threat T14).
pub const SOCKET_INPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The same for the WebSockets of one app.
pub const SOCKET_INPUT_BYTES_PER_APP_MAX: usize = 16 * 1024 * 1024;
/// The same for requests with a valid credential. Beyond it a request is answered 503 (threat T14).
pub const CALLER_INPUT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The same for the requests of one app.
pub const CALLER_INPUT_BYTES_PER_APP_MAX: usize = 32 * 1024 * 1024;
/// Unsent answers of one HTTP connection beyond which no further request of it is started (P-CLOSE-5).
pub const HTTP_OUTBOX_BYTES_SOFT: usize = 32 * 1024;
/// Trusted proxies that are followed in `X-Forwarded-For`, from the nearest one (threat T26).
pub const FORWARDED_HOPS_MAX: usize = 32;
/// Bytes of `Forwarded` that are read: 32 parties with 128 bytes each. A longer one is unreadable (threat T26).
pub const FORWARDED_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a path after the app's id or before its key: three times the longest names, escaped, and more. Beyond it
/// 404.
pub const ENDPOINT_PATH_BYTES_MAX: usize = 2 * 1024;
/// Bytes of a header that lists options, such as `Connection`, that are searched for options.
pub const HTTP_OPTIONS_BYTES_MAX: usize = 1024;
/// Header of the PROXY protocol, its TLVs included.
pub const PROXY_HEADER_BYTES_MAX: usize = 2 * 1024;
/// Pipelined requests of one connection whose answers are pending; beyond it reading pauses.
pub const HTTP_PIPELINE_MAX: usize = 64;

/// Subprotocols of a WebSocket handshake among which the server looks for one of its own (P-CONN-6).
pub const SUBPROTOCOLS_MAX: usize = 32;

/// `activity_timeout` sent to clients, in seconds (P-LIVE-3): with the ping of the server and the step of the sweep,
/// bytes flow within 50 s, before nginx and the balancers of AWS (60 s) and Heroku (55 s) end a silent connection.
pub const ACTIVITY_TIMEOUT_S: u32 = 40;
/// Longest `activity_timeout` that an operator or an app may set, in seconds.
pub const ACTIVITY_TIMEOUT_SETTING_S_MAX: u32 = 3_600;
/// Silence beyond `activity_timeout` before the server pings, in ms (P-LIVE-4).
pub const PING_AFTER_MS: u64 = 5_000;
/// Silence beyond that ping before Close 4201, in ms (P-LIVE-4).
pub const PONG_WITHIN_MS: u64 = 30_000;
/// A connection must be authorized within this if its app requires it, by default, in s (P-AUTHZ-1).
pub const AUTHORIZATION_TIMEOUT_S: u32 = 30;
/// From accept (or the first byte of a further request) to a complete request or upgrade, in ms (threat T14).
pub const REQUEST_WITHIN_MS: u64 = 5_000;
/// Idle HTTP connections are closed after this by default, in s: longer than the balancers and proxies that keep theirs
/// for 60 s, so that those end a connection first (P-HTTP-20).
pub const HTTP_KEEP_ALIVE_S: u32 = 75;
/// Shortest time that an operator may set for it, in s.
pub const HTTP_KEEP_ALIVE_SETTING_S_MIN: u32 = 5;
/// Longest time that an operator may set for it, in s.
pub const HTTP_KEEP_ALIVE_SETTING_S_MAX: u32 = 3_600;
/// A fragmented message must be complete within this, in ms (threat T8).
pub const MESSAGE_WITHIN_MS: u64 = 30_000;
/// How long a refused connection may linger so that the peer reads the answer, in ms (P-HTTP-16).
pub const LINGER_MS: u64 = 2_000;
/// How long a peer may take to answer our Close frame, in ms.
pub const CLOSE_WITHIN_MS: u64 = 2_000;
/// A slow reader is reset this long after it was notified, in ms (P-CLOSE-5).
pub const SLOW_RESET_MS: u64 = 1_000;
/// Time between two turns of a shard that counts against its peers, in ms; the part of a late turn beyond it does not
/// count (P-LIVE-6).
pub const SERVED_STEP_MS_MAX: u64 = 200;
/// Drain is spread over this, in ms (P-CLOSE-1).
pub const DRAIN_MS: u64 = 10_000;

/// One send covers at most this, so that its completion shows progress.
pub const SEND_BYTES_MAX: usize = 64 * 1024;
/// Sends of one turn; further pending ones follow in the next, so that a large fan-out delays nobody else (U17).
pub const SENDS_PER_TURN: u32 = 1_024;
/// Subscribers of a channel up to which its events are sent before those of larger channels.
pub const SMALL_FAN_OUT_MAX: u32 = 4 * SENDS_PER_TURN;
/// Subscribers of a channel for which an event is queued at once; for a larger channel, this many in each turn (U17).
pub const FAN_OUT_STEP: u32 = 16 * 1024;
/// Fan-outs of a shard that are queued for only a part of their subscribers. One more finishes the oldest.
pub const FAN_OUTS_UNFINISHED_MAX: usize = 64;
/// Sends of one turn to subscribers of larger channels: the turn, for which everybody else waits, ends after a few
/// milliseconds.
pub const LARGE_SENDS_PER_TURN: u32 = 256;
/// Sends of one larger channel before the turn of another.
pub const FAN_OUT_CHUNK: u32 = 64;
/// Zero-copy sends that a loop starts before it has judged whether they are worth it.
pub const ZERO_COPY_TRIAL_SENDS: u32 = 16;
/// Zero-copy sends after which a loop judges again.
pub const ZERO_COPY_WINDOW_SENDS: u32 = 1_024;
/// Unsent bytes of an HTTP connection beyond which it is not read from.
pub const OUTBOX_BYTES_SOFT: usize = 256 * 1024;
/// Unsent bytes beyond which the next reply to a WebSocket (a pong, the answer to a subscription, an error) ends
/// reading from it, also in the middle of the input (P-CLOSE-5): the replies that a peer causes cost at most this much
/// and one reply.
pub const REPLY_BYTES_MAX: usize = 32 * 1024;
/// Unsent bytes of one connection beyond which it is closed, if the settings of its app need no more (P-CLOSE-5).
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
/// Typical bytes of an event's frame besides its data: 45 bytes, and names of 200 bytes together.
pub const FRAME_BESIDE_BYTES: usize = 245;
/// A connection with unsent bytes that makes no progress for this long is closed, in ms (P-CLOSE-5).
pub const STALL_MS: u64 = 10_000;
/// Time in which the sweep visits every connection once, in ms.
pub const SWEEP_MS: u64 = 5_000;
/// The same in tenths of a second.
pub const SWEEP_TENTHS: u32 = (SWEEP_MS / 100) as u32;
/// Frames and joined buffers of one shard, in bytes, which its apps share (P-STAT-8, P-STAT-9).
pub const SHARD_SEND_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes that apps that hold no more than their minimum may use when all of that is held.
pub const SHARD_SEND_BYTES_RESERVE: usize = 64 * 1024 * 1024;
/// Up to this an app is not refused because of what others hold.
pub const APP_SEND_BYTES_MIN: usize = 1024 * 1024;
/// An app may hold this many times the free bytes, so three quarters if it is alone; then its readers that are behind
/// are closed (P-STAT-9).
pub const APP_SHARE_OF_FREE: usize = 3;
/// It may publish until it holds this many times the free bytes: two thirds if it is alone (P-STAT-9).
pub const APP_PUBLISH_SHARE_OF_FREE: usize = 2;
/// On a server with several apps, one may hold this many times as many connections of a shard as are free: nine tenths
/// if it is alone. Connections that are not WebSockets share as one app (P-CLOSE-2).
pub const APP_SLOTS_OF_FREE: u32 = 9;
/// Connections that are not WebSockets may always hold the reserved slots of a shard, and at least this many.
pub const HTTP_SLOTS_MIN: u32 = 16;
/// A reader of an app that is over its share may be behind by its part of that share, but always by this many bytes.
pub const READER_BYTES_MIN: usize = 2 * 1024;
/// How often a shard checks whether an app that was full may publish again, in ms.
pub const FULL_APPS_INTERVAL_MS: u64 = 100;

/// Shards of one process.
pub const SHARDS_MAX: usize = 256;
/// Event mail in flight between one pair of shards, in bytes (each mail costs its frames plus `MAIL_COST_BYTES`).
pub const EVENT_MAIL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The cost of one mail beyond its frames, in bytes.
pub const MAIL_COST_BYTES: usize = 256;
/// Unoccupied channels of which a shard, as their owner, has notified other shards; beyond it the oldest is called
/// back.
pub const UNOCCUPIED_CHANNELS_MAX: usize = 4 * 1024;
/// Channels of other shards that a shard knows to be unoccupied; publishes to further ones go to their owners.
pub const UNOCCUPIED_KNOWN_MAX: usize = 16 * 1024;
/// Slots of one shard's mailbox. Mails that do not fit wait with their sender, in order.
pub const MAILBOX_SLOTS: usize = 16 * 1024;

/// Places of its channel table that a shard examines for one page of a list of channels, and for all pages that it
/// makes in one millisecond.
pub const LIST_PAGE_CHANNELS: usize = 2 * 1024;
/// Bytes of lists that one shard gathers, or has gathered and not sent yet; beyond it 503 (P-STAT-8).
pub const GATHERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same for one app.
pub const GATHERED_BYTES_PER_APP_MAX: usize = 48 * 1024 * 1024;
/// Channels of one publish that asks for counts, beyond which its answer counts as large: requests after it wait for
/// it.
pub const SMALL_ANSWER_CHANNELS_MAX: u32 = 16;

/// Permits of one kind that a shard holds for one app to use without asking (R-LIM-3, R-LIM-4), at most.
pub const LEASED_PERMITS_MAX: u32 = 256;

/// Failed credentials of one address in a minute before 429, by default (threat T6).
pub const AUTH_FAILURES_PER_MINUTE: u32 = 100;
/// Largest value an operator may set for it.
pub const AUTH_FAILURES_PER_MINUTE_SETTING_MAX: u32 = 10_000;
/// Addresses whose failures one shard remembers.
pub const AUTH_FAILURE_ADDRESSES_MAX: usize = 16 * 1024;

/// Names of clients that metrics distinguish (P-CONN-4).
pub const CLIENT_NAMES_MAX: usize = 16;
/// Longest such name.
pub const CLIENT_NAME_BYTES_MAX: usize = 32;
/// Pages of figures that one shard builds at the same time; beyond it 503.
pub const SCRAPES_MAX: usize = 16;
/// Apps that a page of metrics distinguishes; further ones are combined as `other`.
pub const METRICS_APPS_MAX: usize = 1_000;
/// Log lines about refusals of one kind and reason that one shard writes at once, and gains per minute.
pub const REFUSAL_LINES_MAX: u32 = 20;
/// Characters of text chosen by a peer in one log line.
pub const LOGGED_CHARACTERS_MAX: usize = 200;
/// Log lines that may wait until somebody reads standard error; further ones are dropped and counted (R-PROC-1).
pub const LOG_LINES_WAITING_MAX: usize = 4 * 1024;
/// The same in bytes.
pub const LOG_BYTES_WAITING_MAX: usize = 4 * 1024 * 1024;
/// Longest log line; a longer one is cut.
pub const LOG_LINE_BYTES_MAX: usize = 64 * 1024;
/// How long the end of the process waits for the last log lines, in ms.
pub const LOG_FLUSH_MS: u64 = 1_000;
/// A shard that runs no turn for this long ends the process, in s, by default (R-PROC-3).
pub const WATCHDOG_S: u32 = 60;
/// Largest value that an operator may set for it; 0 is never.
pub const WATCHDOG_SETTING_S_MAX: u32 = 3_600;
/// Memory in use, in percent of what the process may use, above which `/accept-traffic` answers 503.
pub const ACCEPT_TRAFFIC_MEMORY_PERCENT: u64 = 85;
/// Connection slots or descriptors in use, in percent, above which `/accept-traffic` answers 503.
pub const ACCEPT_TRAFFIC_SLOTS_PERCENT: u64 = 95;

/// Seconds that `auth_timestamp` may be off (P-SIGN-1).
pub const SIGNATURE_WINDOW_S: u64 = 600;
/// Query parameters of one signed request; all of them are read and sorted once (P-SIGN-4).
pub const SIGNED_PARAMETERS_MAX: usize = 256;
/// Query parameters up to which all candidates of P-SIGN-5 are tried; SDKs send about ten.
pub const CANDIDATE_PARAMETERS_MAX: usize = 20;
/// Bytes of path and query up to which that is done; SDKs send about 300.
pub const CANDIDATE_BYTES_MAX: usize = 768;
/// Bytes of a signed query that must be decoded before it is read: one with escapes, arrays or upper-case names.
pub const DECODED_QUERY_BYTES_MAX: usize = 2 * 1024;
/// Parameters of such a query.
pub const DECODED_PARAMETERS_MAX: usize = 64;

/// HMACs of one call of `explain`; then the search is cut (R-EXPLAIN-4, threat T54).
pub const EXPLAIN_HMACS_MAX: usize = 512;
/// Bytes that they cover.
pub const EXPLAIN_HMAC_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Of these HMACs, those under the secrets of other apps.
pub const EXPLAIN_OTHER_APPS_HMACS_MAX: usize = 192;
/// Digests of bodies of one call of `explain`.
pub const EXPLAIN_DIGESTS_MAX: usize = 8;
/// Bytes that they cover.
pub const EXPLAIN_DIGEST_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of JSON that one call of `explain` writes in the forms of other encoders.
pub const EXPLAIN_FORM_BYTES_MAX: usize = 1024 * 1024;
/// Longest JSON text whose forms are tried.
pub const EXPLAIN_JSON_BYTES_MAX: usize = 64 * 1024;
/// How deep that text may nest.
pub const EXPLAIN_JSON_DEPTH_MAX: usize = 32;
/// Longest body that `explain` takes: that of any request under the default settings (P-LIM-11).
pub const EXPLAIN_BODY_BYTES_MAX: usize = HTTP_BODY_BYTES_MAX;
/// Longest field of a question to `explain`, except for its body: the largest `channel_data` that an app may allow.
pub const EXPLAIN_FIELD_BYTES_MAX: usize = CHANNEL_DATA_BYTES_SETTING_MAX;
/// Refusals that an admin credential may have explained in a minute (R-EXPLAIN-7).
pub const EXPLAIN_CALLS_PER_MINUTE: u64 = 60;
/// Bytes of the text to be signed that are kept of a refusal (R-EXPLAIN-6, threat T55).
pub const REFUSAL_TEXT_BYTES_MAX: usize = 4 * 1024;
/// How long a refusal is kept, in ms.
pub const REFUSAL_KEPT_MS: u64 = 10 * 60 * 1_000;
/// Bytes of refusals that are kept for one app; beyond it its oldest are dropped.
pub const REFUSAL_BYTES_PER_APP_MAX: usize = 1024 * 1024;
/// The same for all apps; beyond it the oldest of the app with most are dropped.
pub const REFUSAL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest app id; generated ones are 9 digits (P-SDK-22).
pub const APP_ID_BYTES_MAX: usize = 64;
/// Longest app key; generated ones are 20 hex digits (P-SDK-22).
pub const APP_KEY_BYTES_MAX: usize = 128;
/// Longest app secret; generated ones are 40 base62 characters.
pub const APP_SECRET_BYTES_MAX: usize = 256;
/// Longest name of an app, a token or an admin token.
pub const NAME_BYTES_MAX: usize = 100;
/// Active key pairs of one app.
pub const APP_KEYS_MAX: usize = 8;
/// Origins that an app may list.
pub const ALLOWED_ORIGINS_MAX: usize = 100;
/// Largest value an app may set for its presence members.
pub const PRESENCE_MEMBERS_SETTING_MAX: usize = 100_000;
/// LMDB's map: the most that the store can hold. Sparse, never resized.
pub const STORE_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Reader slots of the store, shared by all processes that have it open.
pub const STORE_READERS_MAX: u32 = 1_024;
/// How often the store writer looks for changes in the store, in ms.
pub const STORE_POLL_MS: u64 = 250;
/// `last_used_at` is written with at most one commit per this, in ms.
pub const TOKEN_USES_COMMIT_MS: u64 = 30_000;
/// `last_used_at` of one token is written at most once per this, in ms (R-TOKEN-4).
pub const TOKEN_USE_WRITE_MS: u64 = 60_000;
/// Token uses that may wait for the store writer; further ones are dropped, a later use of the token makes up for it.
pub const TOKEN_USES_WAITING_MAX: usize = 16 * 1024;

/// Messages of the day are written with at most one commit per this, in ms (R-LIM-3).
pub const MESSAGES_COMMIT_MS: u64 = 30_000;
/// Figures of messages that may wait for the store writer; further ones are dropped, a later one of the app makes up
/// for it.
pub const MESSAGES_WAITING_MAX: usize = 4 * 1024;
/// Longest configuration of another server that `relay migrate` reads, in bytes.
pub const MIGRATION_FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A drain that takes this much longer than allowed is cut off, in ms.
pub const DRAIN_OVERTIME_MS: u64 = 5_000;

/// Events that a driver feeds before it drains outputs and flushes.
pub const EVENTS_PER_TURN: usize = 512;
/// Bytes that one connection may bring in per turn; the rest waits its turn after the others.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Connections accepted per listener and turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Mails taken per turn, so that a flood of mail does not starve the sockets.
pub const MAIL_PER_TURN: usize = 4 * 1024;
/// After the kernel refused a descriptor or memory, accepting pauses for this, in ms (threat T15).
pub const ACCEPT_REST_MS: u64 = 100;
/// A shard logs that accepting pauses at most once in this time, in ms.
pub const ACCEPT_REST_LOG_MS: u64 = 10_000;
/// How long a loop may sleep while mail waits for space, in ms: the receiver does not announce that it made space.
pub const MAIL_RETRY_MS: u64 = 1;
/// Descriptors kept for LMDB, logs, wakes, outgoing HTTP and whatever an operator attaches (threat T15).
pub const DESCRIPTORS_RESERVED: u64 = 128;
/// Connection slots of a shard that are reserved, at most: to refuse WebSockets with 4100, and for complete requests
/// (P-CLOSE-2).
pub const REFUSAL_SLOTS_MAX: u32 = 128;
/// At capacity a connection must have sent a complete request within this, in ms (P-CLOSE-2, threat T15).
pub const SILENT_AT_CAPACITY_MS: u64 = 1_000;
/// While most of the reserved slots are in use, it has at least this long, in ms: data that comes with the handshake is
/// there.
pub const SILENT_GRACE_MS: u64 = 10;

const _: () = assert!(MESSAGE_BYTES_MAX == 65_536, "P-IN-5 names this figure");
const _: () = assert!(
    ESCAPED_BYTES_MAX * (CHANNEL_NAME_BYTES_MAX + EVENT_NAME_BYTES_MAX + APP_KEY_BYTES_MAX + 65) + 256
        <= MESSAGE_BESIDE_BYTES_MAX,
    "the longest names and a signature fit beside the data"
);
const _: () = assert!(ESCAPED_BYTES_MAX * (EVENT_NAME_BYTES_MAX + 41) + 256 <= EVENT_BESIDE_BYTES_MAX);
const _: () = assert!(
    message_bytes_max(EVENT_DATA_BYTES_SETTING_MAX as u32, 0) * 2 <= SOCKET_INPUT_BYTES_PER_APP_MAX,
    "two of the longest messages of an app may arrive at the same time"
);
const _: () = assert!(HTTP_BODY_BYTES_SETTING_MAX + HTTP_HEAD_BYTES_MAX <= CALLER_INPUT_BYTES_PER_APP_MAX);
const _: () = assert!(ESCAPED_BYTES_MAX * EVENT_DATA_BYTES_SETTING_MAX <= HTTP_BODY_BYTES_SETTING_MAX);
const _: () = assert!(OUTBOX_BYTES_SOFT < OUTBOX_BYTES_MAX);
const _: () = assert!(SEND_BYTES_MAX <= OUTBOX_BYTES_SOFT);
const _: () = assert!(REPLY_BYTES_MAX < OUTBOX_BYTES_MAX);
const _: () = assert!(APP_PUBLISH_SHARE_OF_FREE < APP_SHARE_OF_FREE);
const _: () = assert!(APP_SEND_BYTES_MIN < SHARD_SEND_BYTES_RESERVE && READER_BYTES_MIN < REPLY_BYTES_MAX);
const _: () = assert!(
    HTTP_BODY_BYTES_SETTING_MAX <= PUBLISHED_BYTES_MAX
        && ESCAPED_BYTES_MAX * EVENT_DATA_BYTES_MAX * CHANNELS_PER_EVENT_MAX <= PUBLISHED_BYTES_MAX,
    "the largest body of events with one channel each, and the largest event of the defaults, are published"
);
const _: () = assert!(
    PUBLISHED_BYTES_MAX * (APP_PUBLISH_SHARE_OF_FREE + 1) <= SHARD_SEND_BYTES_MAX * APP_PUBLISH_SHARE_OF_FREE,
    "an app alone has room for it"
);
const _: () = assert!(
    outbox_bytes_max(EVENT_DATA_BYTES_MAX as u32, CHANNELS_PER_EVENT_MAX as u32, BATCH_EVENTS_MAX as u32)
        == OUTBOX_BYTES_MAX
);
const _: () = assert!(
    REPLAY_EVENTS_MAX <= BATCH_EVENTS_SETTING_MAX
        && mail_cost(PUBLISHED_BYTES_MAX, PUBLISHED_BYTES_MAX) + BATCH_EVENTS_SETTING_MAX * MAIL_COST_BYTES
            <= EVENT_MAIL_BYTES_MAX / 4,
    "the events of one request are mail for which a shard has credit"
);

/// Longest inbound WebSocket message of an app (P-IN-5): its longest data as JSON writes it at worst, and the bytes
/// besides it.
/// Data is that of a client event, or `channel_data`.
pub const fn message_bytes_max(event_data_bytes_max: u32, channel_data_bytes_max: u32) -> usize {
    let longest =
        if event_data_bytes_max > channel_data_bytes_max { event_data_bytes_max } else { channel_data_bytes_max };
    ESCAPED_BYTES_MAX * longest as usize + MESSAGE_BESIDE_BYTES_MAX
}

/// Unsent bytes beyond which a connection of an app is closed (P-CLOSE-5): the data that one request may publish on the
/// channels of one connection is no reason to close it, so the bound follows the longest body and the largest event
/// that the settings allow.
pub const fn outbox_bytes_max(event_data_bytes_max: u32, channels_per_event_max: u32, batch_events_max: u32) -> usize {
    let body = body_bytes_max(event_data_bytes_max, channels_per_event_max, batch_events_max);
    let event = (event_data_bytes_max as usize + FRAME_BESIDE_BYTES) * channels_per_event_max as usize;
    let most = if body > event { body } else { event };
    clamped(most, OUTBOX_BYTES_MAX, PUBLISHED_BYTES_MAX)
}

/// The credit that the mail of one event costs (P-STAT-9), besides the highest cost of one mail: less where the
/// outboxes of the app hold more, so that the events of one request find credit whatever its settings are.
pub const fn mail_cost(frame_bytes: usize, outbox_bytes_max: usize) -> usize {
    if outbox_bytes_max == OUTBOX_BYTES_MAX {
        return frame_bytes + MAIL_COST_BYTES;
    }
    (frame_bytes as u64 * OUTBOX_BYTES_MAX as u64 / outbox_bytes_max as u64) as usize + MAIL_COST_BYTES
}

/// Longest body of a request to an app (P-LIM-11): the longest batch and the longest event that its settings allow, as
/// JSON writes them at worst, from the usual bound to the most that a shard can hold.
pub const fn body_bytes_max(event_data_bytes_max: u32, channels_per_event_max: u32, batch_events_max: u32) -> usize {
    let data = ESCAPED_BYTES_MAX * event_data_bytes_max as usize + EVENT_BESIDE_BYTES_MAX;
    let channel = ESCAPED_BYTES_MAX * CHANNEL_NAME_BYTES_MAX + 256;
    let event = data + channel * channels_per_event_max as usize;
    let batch = (data + channel) * batch_events_max as usize;
    let longest = if event > batch { event } else { batch };
    clamped(longest, HTTP_BODY_BYTES_MAX, HTTP_BODY_BYTES_SETTING_MAX)
}

/// `Ord::clamp` is not `const`.
const fn clamped(bytes: usize, least: usize, most: usize) -> usize {
    if bytes < least {
        least
    } else if bytes > most {
        most
    } else {
        bytes
    }
}
