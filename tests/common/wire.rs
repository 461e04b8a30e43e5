//! WebSocket bytes written by hand, for frames that no honest client sends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// Continuation.
pub const CONTINUATION: u8 = 0x0;
/// Text.
pub const TEXT: u8 = 0x1;
/// Binary.
pub const BINARY: u8 = 0x2;
/// Close.
pub const CLOSE: u8 = 0x8;
/// Ping.
pub const PING: u8 = 0x9;
/// Pong.
pub const PONG: u8 = 0xA;
/// The FIN bit of the first byte.
pub const FIN: u8 = 0x80;
/// The RSV1 bit of the first byte.
pub const RSV1: u8 = 0x40;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A masked frame with this complete first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of a masked frame that declares this length, with the shortest encoding.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// One frame of the server.
#[derive(Debug, Eq, PartialEq)]
pub struct ServerFrame {
    /// First byte: FIN, RSV bits, opcode.
    pub first: u8,
    /// Payload.
    pub payload: Vec<u8>,
}

impl ServerFrame {
    /// The code of a Close frame.
    pub fn close_code(&self) -> Option<u16> {
        let is_close = self.first == FIN | CLOSE;
        is_close.then(|| self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))
    }
}

/// A WebSocket of which the test writes every byte.
pub struct RawSocket {
    stream: TcpStream,
}

impl RawSocket {
    /// Upgrades at this target and checks 101.
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.write_all(upgrade_request(target).as_bytes()).expect("the request goes out");
        let mut socket = Self { stream };
        socket.read_head();
        socket
    }

    /// A stream that is already upgraded.
    pub fn from_stream(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Upgrades and reads the frame of `connection_established`.
    #[track_caller]
    pub fn established(address: SocketAddr, target: &str) -> Self {
        let mut socket = Self::open(address, target);
        let frame = socket.read().expect("the first frame");
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        assert!(text.contains("pusher:connection_established"), "{text}");
        socket
    }

    /// Reads the response of the handshake, which must be 101.
    #[track_caller]
    pub fn read_head(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a response head");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    }

    /// Sends bytes. Callers may ignore an error: the server may have refused already.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one frame, which must have no mask, no reserved bit and the shortest length (RFC 6455 section 5.2).
    pub fn read(&mut self) -> io::Result<ServerFrame> {
        let mut start = [0; 2];
        self.stream.read_exact(&mut start)?;
        assert_eq!(start[1] & 0x80, 0, "a server's frame is not masked");
        assert_eq!(start[0] & 0x70, 0, "no extension was agreed on");
        let length = match start[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        let fewest = match length {
            0..=125 => length as u8,
            126..=0xFFFF => 126,
            _ => 127,
        };
        assert_eq!(start[1], fewest, "a length of {length} bytes has one encoding");
        let mut payload = vec![0; usize::try_from(length).expect("a length that fits")];
        self.stream.read_exact(&mut payload)?;
        Ok(ServerFrame { first: start[0], payload })
    }

    /// Reads until the Close frame and returns its code; then the connection must end.
    #[track_caller]
    pub fn expect_close(&mut self) -> u16 {
        loop {
            let frame = self.read().unwrap_or_else(|error| panic!("a Close frame was due: {error}"));
            if let Some(code) = frame.close_code() {
                let _ = self.write(&frame_of_close(code));
                self.expect_end();
                return code;
            }
        }
    }

    /// The connection must end without another frame.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.read() {
            Ok(frame) => panic!("a frame after Close: {frame:?}"),
            Err(error) => assert!(
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                "the server keeps the connection open"
            ),
        }
    }

    /// The underlying socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// A Close frame of a client.
pub fn frame_of_close(code: u16) -> Vec<u8> {
    frame(FIN | CLOSE, &code.to_be_bytes())
}

/// A complete upgrade request.
pub fn upgrade_request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}
