//! The two bases of the HTTP API, which differ in how errors read (R-ERR-1).

/// Which base a request came in under.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// `/apps/{id}`: errors are text plus a newline (P-STAT-7).
    Pusher,
    /// `/api/v1/apps/{id}`: errors are `{"error":code,"message":text}`.
    Relay,
}

impl Dialect {
    /// Content type and body of an error with this status.
    pub fn error_body(self, _status: u16, _message: &str) -> (&'static str, Vec<u8>) {
        todo!()
    }
}
