//! WebSocket frames and messages (RFC 6455), both directions, without extensions.
//!
//! The [`Decoder`] returns a message that is complete in the input without a copy and buffers anything else. The buffer
//! grows with the received bytes, never by the length that a frame declares; a declared length is checked against the
//! limit before the first byte of its payload is kept (threat T7). Errors are returned in stream order, as soon as the
//! bytes show them, so that input split anywhere gives the same messages and the same error.

use crate::limits::CLOSE_REASON_BYTES_MAX;

mod decoder;
mod header;

pub use decoder::{Decoded, Decoder};

/// Frame types of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// Close handshake.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

/// The first byte of a text frame that is a complete message.
pub const TEXT_FRAME: u8 = 0x80 | Opcode::Text as u8;

impl Opcode {
    /// `None` for the reserved values 3 to 7 and 11 to 15.
    fn decode(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Control frames have at most 125 bytes of payload and are never fragmented (RFC 6455 section 5.5).
    fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A violation of RFC 6455 or of a limit; each maps to exactly one close code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WebSocketError {
    /// Reserved bit or opcode, unmasked frame, broken fragmentation, bad control frame, bad close payload: 1002.
    Protocol(&'static str),
    /// Text or a close reason that is not UTF-8: 1007.
    InvalidUtf8,
    /// The message is or would become longer than allowed, detected from the declared length: 1009.
    TooBig,
    /// More fragments than the message's bytes justify (threat T8): 1009.
    TooManyFragments,
}

impl WebSocketError {
    /// The close code of RFC 6455 section 7.4.1 for this error.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooBig | Self::TooManyFragments => 1009,
        }
    }

    /// The reason that goes into the Close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Protocol(reason) => reason,
            Self::InvalidUtf8 => "text that is not UTF-8",
            Self::TooBig => "message too big",
            Self::TooManyFragments => "message in too many fragments",
        }
    }
}

/// One message or control frame from the client.
#[derive(Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// Complete text message.
    Text(&'a str),
    /// Complete binary message.
    Binary(&'a [u8]),
    /// Ping with its payload (at most 125 bytes).
    Ping(&'a [u8]),
    /// Pong with its payload.
    Pong(&'a [u8]),
    /// Close with code (`None` for an empty payload) and reason.
    Close(Option<u16>, &'a str),
}

/// A complete payload as the message that its frame type indicates.
fn lend(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, WebSocketError> {
    match opcode {
        Opcode::Text => Ok(Message::Text(text(payload)?)),
        // A continuation is returned under the type of its message; the type is never lost before.
        Opcode::Binary | Opcode::Continuation => Ok(Message::Binary(payload)),
        Opcode::Ping => Ok(Message::Ping(payload)),
        Opcode::Pong => Ok(Message::Pong(payload)),
        Opcode::Close => decode_close(payload),
    }
}

fn text(payload: &[u8]) -> Result<&str, WebSocketError> {
    simdutf8::basic::from_utf8(payload).map_err(|_| WebSocketError::InvalidUtf8)
}

/// Code and reason of a Close frame (RFC 6455 section 5.5.1).
fn decode_close(payload: &[u8]) -> Result<Message<'_>, WebSocketError> {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => {
            let code = u16::from_be_bytes(*code);
            if !is_close_code(code) {
                return Err(WebSocketError::Protocol("close code that must not be sent"));
            }
            Ok(Message::Close(Some(code), text(reason)?))
        }
        None if payload.is_empty() => Ok(Message::Close(None, "")),
        None => Err(WebSocketError::Protocol("a Close frame of one byte")),
    }
}

/// Codes that an endpoint may send: those of RFC 6455 section 7.4.1 and of IANA's registry up to 1014, except for those
/// that only represent events that were never on the wire (1004, 1005, 1006), and the ranges for libraries and users.
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends the header of one unmasked, unfragmented server frame.
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    let first = 0x80 | opcode as u8;
    match payload_bytes {
        0..=125 => out.extend_from_slice(&[first, payload_bytes as u8]),
        126..=0xffff => {
            let [high, low] = (payload_bytes as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Appends one complete server frame.
pub fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    // The exact size, so that a frame alone in its buffer becomes shared bytes without another allocation.
    out.reserve_exact(header_bytes(payload.len()) + payload.len());
    encode_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a Close frame; the reason is cut to 123 bytes at a character boundary (P-CLOSE-3).
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    encode_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The payload of one complete server frame.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        Some(_) | None => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// Length of a server frame's header, which has no mask.
pub fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

#[cfg(test)]
mod tests;
