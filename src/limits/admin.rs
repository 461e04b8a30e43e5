//! Limits of the admin API and of commands that use it.

/// Connections of the admin API at once; further ones wait in the kernel (R-ADMIN-22).
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Requests of the admin API in flight; beyond it 503.
pub const ADMIN_REQUESTS_MAX: usize = 16;
/// Threads that use the store for them.
pub const ADMIN_STORE_THREADS: usize = 2;
/// Longest body of a request to the admin API.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest body of a request that asks for an explanation: it has the body of the refused request, of which an encoder may
/// escape every character.
pub const ADMIN_EXPLAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest head of such a request.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of such a request.
pub const ADMIN_HEADERS_MAX: usize = 64;
/// Time for a head, and for a body, in ms. An idle connection is closed after it, too.
pub const ADMIN_READ_MS: u64 = 5_000;
/// Time that a request waits for a shard, in ms.
pub const ADMIN_REPLAY_MS: u64 = 5_000;
/// A connection of the admin API ends after this, with the answer that it is sending, in ms.
pub const ADMIN_CONNECTION_MS: u64 = 60_000;
/// Time for that last answer, in ms.
pub const ADMIN_LAST_ANSWER_MS: u64 = 10_000;
/// Failed credentials of one address in a minute before 429 (R-ADMIN-11).
pub const ADMIN_FAILURES_PER_MINUTE: u32 = 10;
/// Items of one page of a list, unless the request names another number.
pub const ADMIN_PAGE_ITEMS: usize = 100;
/// Largest number of items that a request may name (R-ADMIN-15).
pub const ADMIN_PAGE_ITEMS_MAX: usize = 1_000;
/// Longest cursor.
pub const ADMIN_CURSOR_BYTES_MAX: usize = 64;
/// Longest `Idempotency-Key` (R-ADMIN-17).
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Names in `admin_hosts`.
pub const ADMIN_HOSTS_MAX: usize = 100;

/// Longest answer of a remote server to a command.
pub const REMOTE_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time for one request of a command to a remote server, in ms.
pub const REMOTE_REQUEST_MS: u64 = 30_000;
