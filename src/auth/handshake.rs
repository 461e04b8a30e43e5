//! `Sec-WebSocket-Accept` (RFC 6455 section 4.2.2).

/// The 28-byte value that answers a client's `Sec-WebSocket-Key`.
pub fn accept_value(_client_key: &[u8]) -> String {
    todo!()
}
