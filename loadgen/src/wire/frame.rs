//! WebSocket frames of a client: masked ones out, unmasked ones in (RFC 6455, section 5).

/// The first frame in a buffer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Decoded<'a> {
    /// The frame is incomplete.
    Partial,
    /// One whole message or control frame, `consumed` bytes with its header.
    Frame { opcode: u8, payload: &'a [u8], consumed: usize },
    /// The server violated the protocol.
    Invalid(&'static str),
}

/// Decodes the first frame of `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Decoded<'_> {
    let &[first, second, ..] = bytes else {
        return Decoded::Partial;
    };
    if second & MASKED != 0 {
        return Decoded::Invalid("masked frame from the server");
    }
    if first & FINAL == 0 || first & 0x70 != 0 {
        return Decoded::Invalid("fragmented or extended frame, which was not negotiated");
    }
    let (header, length) = match second {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Decoded::Partial,
        },
        127 => match bytes.get(2..10).and_then(|length| <[u8; 8]>::try_from(length).ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX)),
            None => return Decoded::Partial,
        },
        short => (2, usize::from(short)),
    };
    if length > MESSAGE_BYTES_MAX {
        return Decoded::Invalid("frame of more than 16 MiB");
    }
    match bytes.get(header..header + length) {
        Some(payload) => Decoded::Frame { opcode: first & 15, payload, consumed: header + length },
        None => Decoded::Partial,
    }
}

/// Appends a masked frame.
pub(crate) fn encode(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(FINAL | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(MASKED | u8::try_from(length).expect("at most 125")),
        length => match u16::try_from(length) {
            Ok(length) => {
                out.push(MASKED | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(MASKED | 127);
                out.extend_from_slice(&u64::try_from(length).expect("usize fits").to_be_bytes());
            }
        },
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    };

    /// Goal: a server's frames of every length class are read, and a cut one is partial. Method: tungstenite encodes.
    #[test]
    fn frames_of_another_encoder_are_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            Frame::message(payload.clone(), OpCode::Data(Data::Text), true).format(&mut bytes).expect("a vector");
            let whole = bytes.len();
            bytes.extend_from_slice(b"next");
            assert_eq!(decode(&bytes), Decoded::Frame { opcode: TEXT, payload: &payload, consumed: whole });
            for cut in [0, 1, 2, 3, 9, whole - 1] {
                if cut < whole {
                    assert_eq!(decode(&bytes[..cut]), Decoded::Partial, "{length} cut at {cut}");
                }
            }
        }
    }

    /// Goal: masked, fragmented and huge frames are refused.
    #[test]
    fn bad_frames_are_refused() {
        for bytes in [&[0x81, 0x80, 1, 2, 3, 4][..], &[0x01, 0], &[0xc1, 0], &[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]] {
            assert!(matches!(decode(bytes), Decoded::Invalid(_)), "{bytes:?}");
        }
    }

    /// Goal: what is sent is understood. Method: tungstenite's server side reads it.
    #[test]
    fn frames_are_understood_by_another_decoder() {
        use tungstenite::protocol::{Message, Role, WebSocket};
        for length in [0, 125, 126, 65_536] {
            let text = "y".repeat(length);
            let mut bytes = Vec::new();
            encode(TEXT, text.as_bytes(), [1, 2, 3, 4], &mut bytes);
            let mut socket = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Server, None);
            assert_eq!(socket.read().expect("a frame"), Message::text(text));
        }
    }
}
