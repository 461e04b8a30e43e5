//! WebSocket frames from the client's side (RFC 6455), written for these tests alone: masks and encodes client
//! messages, decodes and checks server messages.

/// Opcodes of RFC 6455 section 5.2.
pub(crate) const CONTINUATION: u8 = 0;
/// UTF-8 text.
pub(crate) const TEXT: u8 = 1;
/// Bytes.
pub(crate) const BINARY: u8 = 2;
/// Close handshake.
pub(crate) const CLOSE: u8 = 8;
/// Ping.
pub(crate) const PING: u8 = 9;
/// Pong.
pub(crate) const PONG: u8 = 10;

/// One masked client frame; `first` is the complete first byte, so that invalid ones can be made too.
pub(crate) fn encode_raw(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// One complete masked client frame.
pub(crate) fn encode(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    encode_raw(0x80 | opcode, payload, mask)
}

/// A frame of the server.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct ServerFrame {
    /// Its opcode.
    pub(crate) opcode: u8,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
}

/// Decodes the server's stream, however it is split.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Adds bytes that were read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes of an incomplete frame.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next complete frame. Panics where the server violates RFC 6455.
    pub(crate) fn next(&mut self) -> Option<ServerFrame> {
        let [first, second, rest @ ..] = self.buffer.as_slice() else { return None };
        assert_eq!(first & 0x70, 0, "reserved bits without an extension (RFC 6455 section 5.2)");
        assert_ne!(first & 0x80, 0, "the server never fragments");
        assert_eq!(second & 0x80, 0, "a server frame is not masked (RFC 6455 section 5.1)");
        let opcode = first & 0x0f;
        assert!([TEXT, CLOSE, PING, PONG].contains(&opcode), "opcode {opcode} of the server");
        let (header, length) = match second & 0x7f {
            126 => {
                let length = u16::from_be_bytes(rest.get(..2)?.try_into().expect("two bytes"));
                assert!(length > 125, "length not in its shortest form (RFC 6455 section 5.2)");
                (4, usize::from(length))
            }
            127 => {
                let length = u64::from_be_bytes(rest.get(..8)?.try_into().expect("eight bytes"));
                assert!(length > 65_535, "length not in its shortest form (RFC 6455 section 5.2)");
                (10, length as usize)
            }
            short => (2, usize::from(short)),
        };
        assert!(opcode < 8 || length <= 125, "a control frame of {length} bytes (RFC 6455 section 5.5)");
        let payload = self.buffer.get(header..header + length)?.to_vec();
        self.buffer.drain(..header + length);
        Some(ServerFrame { opcode, payload })
    }
}
