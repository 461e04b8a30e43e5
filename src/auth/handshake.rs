//! `Sec-WebSocket-Accept` (RFC 6455 section 4.2.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

/// The 28-byte value that answers a client's `Sec-WebSocket-Key`: base64 of SHA-1 over the key and a fixed id.
///
/// SHA-1 proves nothing here; the handshake requires it so that only a WebSocket server gives this answer.
pub fn accept_value(client_key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(client_key);
    context.update(PROTOCOL_ID);
    STANDARD.encode(context.finish())
}

/// The id that RFC 6455 section 1.3 appends to the client's key.
const PROTOCOL_ID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 1.3: the handshake's own example.
    #[test]
    fn accept_value_of_the_rfc() {
        assert_eq!(accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// The accept value agrees with an independent WebSocket implementation for many keys.
    #[test]
    fn accept_value_agrees_with_tungstenite() {
        for number in 0..200_u32 {
            let key = format!("{number:024}");
            let theirs = tungstenite::handshake::derive_accept_key(key.as_bytes());
            assert_eq!(accept_value(key.as_bytes()), theirs);
            assert_eq!(theirs.len(), 28);
        }
    }
}
