//! The opening handshake of WebSockets (RFC 6455 section 4.2), except for the digest, which `auth` computes.

use super::{Framing, Request, Version};

/// Why an upgrade was refused: 400, or 426 with `Sec-WebSocket-Version: 13` for another version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpgradeError {
    /// A missing or invalid header, by name.
    BadRequest(&'static str),
    /// `Sec-WebSocket-Version` is not 13.
    Version,
}

/// Checks the opening handshake of RFC 6455 section 4.2.1 and returns the client's key.
///
/// # Errors
/// The first requirement that is not met.
pub fn decode_upgrade<'a>(request: &Request<'a>) -> Result<&'a [u8], UpgradeError> {
    let headers = &request.headers;
    if request.method != "GET" || request.version == Version::Http10 {
        return Err(UpgradeError::BadRequest("a WebSocket must be opened with GET and HTTP/1.1"));
    }
    // Decided from the head: whether a chunked body is empty would be known only once it is complete.
    if request.framing != Framing::Length(0) {
        return Err(UpgradeError::BadRequest("a WebSocket must be opened without a body"));
    }
    if !request.asks_for_websocket {
        return Err(UpgradeError::BadRequest("Upgrade must be websocket"));
    }
    if !headers.has_token("connection", "upgrade") {
        return Err(UpgradeError::BadRequest("Connection must be Upgrade"));
    }
    match headers.only("sec-websocket-version") {
        Ok(Some(b"13")) => {}
        Ok(Some(_)) => return Err(UpgradeError::Version),
        Ok(None) | Err(_) => {
            return Err(UpgradeError::BadRequest("Sec-WebSocket-Version must be present once"));
        }
    }
    match headers.only("sec-websocket-key") {
        Ok(Some(key)) if is_nonce(key) => Ok(key),
        Ok(_) | Err(_) => Err(UpgradeError::BadRequest("Sec-WebSocket-Key must be 16 bytes in base64, once")),
    }
}

/// Appends the `101 Switching Protocols` response. `accept` is the 28-byte `Sec-WebSocket-Accept` value (computed by
/// `auth`, the user of `ring`).
pub fn encode_upgrade(out: &mut Vec<u8>, accept: &str, subprotocol: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept.as_bytes());
    if let Some(subprotocol) = subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(subprotocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// True for base64 of 16 bytes: 22 characters and two of padding.
fn is_nonce(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.strip_suffix(b"==").is_some_and(|digits| digits.iter().all(is_base64))
}
