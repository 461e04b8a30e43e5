//! Limits of the auth endpoint and of requests to authorizers.

/// Channels of one request to an auth endpoint (R-AUTHEP-10).
pub const AUTH_CHANNELS_MAX: usize = 100;
/// Longest body of a request to an auth endpoint without a credential: its channels, percent-encoded.
pub const AUTH_BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest `Access-Control-Request-Headers` that is repeated.
pub const CORS_HEADERS_BYTES_MAX: usize = 512;
/// Requests in flight at the authorizer of one app by default (R-AUTHEP-11), and the most that an app may set.
pub const AUTHORIZER_REQUESTS: u16 = 32;
/// See [`AUTHORIZER_REQUESTS`].
pub const AUTHORIZER_REQUESTS_SETTING_MAX: u16 = 1_000;
/// Requests in flight at the authorizers of all apps. An app has at most as many as are free.
pub const AUTHORIZER_REQUESTS_ALL_MAX: usize = 128;
/// An authorizer must answer within this after the client's request, in ms (R-AUTHEP-3).
pub const AUTHORIZER_ANSWER_MS: u64 = 5_000;
/// Longest answer of an authorizer.
pub const AUTHORIZER_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Failures in a row after which an authorizer is left alone for a while (R-AUTHEP-11).
pub const AUTHORIZER_FAILURES_MAX: u32 = 10;
/// How long, in ms.
pub const AUTHORIZER_PAUSE_MS: u64 = 5_000;
/// Failures of one app's authorizer are logged at most once in this time, in ms.
pub const AUTHORIZER_LOG_MS: u64 = 60_000;
/// Clients of one shard that may wait for an authorizer; one app may have a multiple of the free places (P-STAT-9).
pub const AUTHORIZER_CALLS_PER_SHARD_MAX: usize = 4 * 1024;
/// The same in bytes.
pub const AUTHORIZER_BYTES_PER_SHARD_MAX: usize = 16 * 1024 * 1024;
/// Cookies that may be named in `authorizer_cookies`.
pub const AUTHORIZER_COOKIES_MAX: usize = 32;
/// A socket may have one channel judged per this time by an authorizer, in ms (R-AUTHEP-8).
pub const SOCKET_AUTH_INTERVAL_MS: u64 = 100;
/// Channels that it may have judged at once.
pub const SOCKET_AUTH_BURST: u64 = 200;
