//! Frame headers (RFC 6455 section 5.2).

use super::{Opcode, WebSocketError};
use crate::limits::{FRAGMENT_BYTES_MEAN_MIN, FRAGMENTS_MIN};

/// A decoded frame header and how much of its payload has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    pub(super) mask: [u8; 4],
    pub(super) payload_bytes: usize,
    pub(super) received_bytes: usize,
}

/// The result of decoding the bytes of a header.
pub(super) enum Header {
    /// More bytes are needed; the bytes so far break no rule.
    Partial,
    /// The header and its length.
    Whole(Frame, usize),
}

/// Decodes a frame header (RFC 6455 section 5.2). `fragmented` holds the bytes and fragments of a message in progress.
/// Each rule is checked as soon as its bytes have arrived, in their order.
pub(super) fn decode_header(
    bytes: &[u8],
    fragmented: Option<(usize, usize)>,
    message_bytes_max: usize,
) -> Result<Header, WebSocketError> {
    let Some(&first) = bytes.first() else {
        return Ok(Header::Partial);
    };
    let (opcode, is_final) = decode_first_byte(first, fragmented.is_some())?;
    if !opcode.is_control() && fragmented.is_some_and(|(_, fragments)| fragments >= fragments_max(message_bytes_max)) {
        return Err(WebSocketError::TooManyFragments);
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(Header::Partial);
    };
    if second & 0x80 == 0 {
        return Err(WebSocketError::Protocol("frames from a client must be masked"));
    }
    let short = second & 0x7f;
    if opcode.is_control() && short > 125 {
        return Err(WebSocketError::Protocol("a control frame must have at most 125 bytes"));
    }
    let Some((payload_bytes, length_end)) = decode_length(bytes, short)? else {
        return Ok(Header::Partial);
    };
    let message_bytes = if opcode.is_control() { 0 } else { fragmented.map_or(0, |(bytes, _)| bytes) };
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| WebSocketError::TooBig)?;
    if !opcode.is_control() && payload_bytes > message_bytes_max.saturating_sub(message_bytes) {
        return Err(WebSocketError::TooBig);
    }
    let Some(mask) = bytes.get(length_end..).and_then(|rest| rest.first_chunk::<4>()) else {
        return Ok(Header::Partial);
    };
    let frame = Frame { opcode, is_final, mask: *mask, payload_bytes, received_bytes: 0 };
    Ok(Header::Whole(frame, length_end + 4))
}

/// FIN, reserved bits, opcode, and whether the opcode is allowed here.
fn decode_first_byte(byte: u8, is_fragmented: bool) -> Result<(Opcode, bool), WebSocketError> {
    if byte & 0x70 != 0 {
        return Err(WebSocketError::Protocol("a reserved bit is set, but no extension was negotiated"));
    }
    let is_final = byte & 0x80 != 0;
    let opcode = Opcode::decode(byte & 0x0f).ok_or(WebSocketError::Protocol("reserved opcode"))?;
    match opcode {
        Opcode::Continuation if !is_fragmented => {
            Err(WebSocketError::Protocol("continuation without a message to continue"))
        }
        Opcode::Text | Opcode::Binary if is_fragmented => {
            Err(WebSocketError::Protocol("a new message began inside a fragmented one"))
        }
        Opcode::Close | Opcode::Ping | Opcode::Pong if !is_final => {
            Err(WebSocketError::Protocol("fragmented control frame"))
        }
        Opcode::Continuation | Opcode::Text | Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong => {
            Ok((opcode, is_final))
        }
    }
}

/// The payload length and where its encoding ends; `None` while bytes of it are missing. The encoding must be minimal
/// and the top bit of 64 must be 0 (RFC 6455 section 5.2).
fn decode_length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, WebSocketError> {
    let extended = bytes.get(2..).unwrap_or_default();
    let (length, length_end, smallest) = match short {
        0..=125 => (u64::from(short), 2, 0),
        126 => match extended.first_chunk::<2>() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4, 126),
            None => return Ok(None),
        },
        _ => match extended.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 10, 1 << 16),
            None => return Ok(None),
        },
    };
    if length < smallest {
        return Err(WebSocketError::Protocol("the payload length is not in its minimal encoding"));
    }
    if length >> 63 != 0 {
        return Err(WebSocketError::Protocol("the payload length has its top bit set"));
    }
    Ok(Some((length, length_end)))
}

/// The maximum number of fragments of a message: in proportion to the bytes it may have, so that empty and tiny
/// fragments cannot continue without end (threat T8).
fn fragments_max(message_bytes_max: usize) -> usize {
    FRAGMENTS_MIN + message_bytes_max / FRAGMENT_BYTES_MEAN_MIN
}

/// Longest header of a client frame: 2 bytes, 8 of length, 4 of mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;
