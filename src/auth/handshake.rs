//! `Sec-WebSocket-Accept` (RFC 6455 section 4.2.2).

use ring::digest;

/// The 28-byte value that answers a client's `Sec-WebSocket-Key`: base64 of SHA-1 over the key and a fixed id.
///
/// SHA-1 proves nothing here; the handshake requires it so that only a WebSocket server gives this answer.
pub fn accept_value(client_key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(client_key);
    context.update(PROTOCOL_ID);
    encode_base64(context.finish().as_ref())
}

/// Base64 of RFC 4648 section 4, padded. Only for the 20 bytes above; nothing else in the server uses base64.
fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|index| group.get(index).copied().map_or(0, u32::from));
        let bits = a << 16 | b << 8 | c;
        for digit in 0..4 {
            if digit <= group.len() {
                let value = (bits >> (18 - 6 * digit)) & 0x3f;
                text.push(char::from(BASE64_DIGITS[value as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The id that RFC 6455 section 1.3 appends to the client's key.
const PROTOCOL_ID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BASE64_DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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

    /// RFC 4648 section 10: its test vectors, every length of the last group.
    #[test]
    fn base64_vectors_of_the_rfc() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in vectors {
            assert_eq!(encode_base64(bytes.as_bytes()), text);
        }
    }
}
