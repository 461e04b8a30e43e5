//! The one answer to a request that is not carried out (section 7.1 of the Pusher protocol, R-ERR-1).

/// Status, sentence and `Retry-After` of a refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// HTTP status, 4xx or 5xx.
    pub status: u16,
    /// One sentence that names the limit or the expectation.
    pub message: String,
    /// Seconds for `Retry-After` (429 and 503).
    pub retry_after_s: Option<u32>,
}
