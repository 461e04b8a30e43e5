//! A WebSocket as a browser opens it, with the few frames that the doctor needs (RFC 6455).

use std::io;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use super::connection::{Connection, Connector};
use super::http::{Answer, Ask, AskError, encode, read_head};
use super::target::Target;
use crate::auth::handshake::accept_value;
use crate::wire::websocket::Opcode;

/// Time for the answer to an upgrade.
const UPGRADE_TIME: Duration = Duration::from_secs(10);
/// Longest frame that is read: Relay's events are shorter.
const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    connection: Connection,
    bytes: Vec<u8>,
    /// The answer to the upgrade.
    pub(super) answer: Answer,
    /// When bytes last went over it, in either direction.
    pub(super) last_byte: Instant,
}

/// One thing that arrived.
#[derive(Debug, PartialEq)]
pub(super) enum Arrived {
    /// A message.
    Json(Value),
    /// A ping or pong, answered where needed.
    Control,
    /// A Close frame.
    Close(u16, String),
    /// The connection ended without one.
    Ended(String),
    /// Nothing, until the deadline.
    Nothing,
}

/// Why a WebSocket did not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// No answer.
    Ask(AskError),
    /// Another answer than 101.
    Refused(Box<Answer>),
    /// 101 by something that is not a WebSocket server.
    Broken(&'static str),
}

impl Socket {
    /// Opens a WebSocket at a path with its query.
    pub(super) fn open(
        connector: &Connector,
        target: &Target,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Self, OpenError> {
        let nonce = nonce();
        let mut headers = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", &nonce),
        ];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        let ask = Ask { method: "GET", path, headers: &headers, body: b"" };
        let mut connection = connector.connect(target).map_err(|error| OpenError::Ask(AskError::Connect(error)))?;
        let deadline = Instant::now() + UPGRADE_TIME;
        let written = connection.write(&encode(target, &ask, "Upgrade"), deadline);
        written.map_err(|error| OpenError::Ask(AskError::Closed(error.to_string())))?;
        let (mut answer, rest) = read_head(&mut connection, deadline).map_err(OpenError::Ask)?;
        if answer.status != 101 {
            answer.body = rest;
            collect_body(&mut connection, &mut answer);
            return Err(OpenError::Refused(Box::new(answer)));
        }
        if answer.header("sec-websocket-accept") != Some(accept_value(nonce.as_bytes()).as_str()) {
            return Err(OpenError::Broken("Sec-WebSocket-Accept does not belong to the key that was sent"));
        }
        Ok(Self { connection, bytes: rest, answer, last_byte: Instant::now() })
    }

    /// The next thing that arrives before the deadline. Pings are answered.
    pub(super) fn next(&mut self, deadline: Instant) -> Arrived {
        loop {
            match take_frame(&mut self.bytes) {
                Ok(Some((opcode, payload))) => return self.handle(opcode, &payload, deadline),
                Ok(None) => {}
                Err(what) => return Arrived::Ended(what.to_owned()),
            }
            let mut part = [0; 16 * 1024];
            match self.connection.read(&mut part, deadline) {
                Ok(0) => return Arrived::Ended("the connection ended without a Close frame".to_owned()),
                Ok(read) => {
                    self.last_byte = Instant::now();
                    self.bytes.extend_from_slice(&part[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Arrived::Nothing,
                Err(error) => return Arrived::Ended(error.to_string()),
            }
        }
    }

    /// The next message before the deadline; control frames are skipped.
    pub(super) fn next_message(&mut self, deadline: Instant) -> Arrived {
        loop {
            let arrived = self.next(deadline);
            if arrived != Arrived::Control {
                return arrived;
            }
        }
    }

    /// Sends a message. A connection that ended is noticed by the next read.
    pub(super) fn send(&mut self, message: &Value) {
        self.send_frame(Opcode::Text, message.to_string().as_bytes());
    }

    fn handle(&mut self, opcode: u8, payload: &[u8], deadline: Instant) -> Arrived {
        if opcode == Opcode::Ping as u8 {
            self.send_frame(Opcode::Pong, payload);
            return Arrived::Control;
        }
        if opcode == Opcode::Close as u8 {
            let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
            let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
            return Arrived::Close(code, reason);
        }
        if opcode != Opcode::Text as u8 {
            return Arrived::Control;
        }
        match serde_json::from_slice(payload) {
            Ok(json) => Arrived::Json(json),
            // Not ours; wait for the next one.
            Err(_) => self.next(deadline),
        }
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let deadline = Instant::now() + UPGRADE_TIME;
        self.last_byte = Instant::now();
        // An error is the end of the connection, which the next read reports with its reason.
        let _ = self.connection.write(&encode_frame(opcode, payload, random()), deadline);
    }
}

/// What there is of a refusal's body, for its text: a second is enough.
fn collect_body(connection: &mut Connection, answer: &mut Answer) {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut part = [0; 4096];
    let expected = answer.header("content-length").and_then(|length| length.trim().parse::<usize>().ok());
    while answer.body.len() < expected.unwrap_or(usize::MAX).min(part.len()) {
        match connection.read(&mut part, deadline) {
            Ok(read @ 1..) => answer.body.extend_from_slice(&part[..read]),
            Ok(0) | Err(_) => return,
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// 16 random bytes in base64: 21 digits, then two bits of one that are zero, then padding.
fn nonce() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text: String = random::<21>().map(|byte| char::from(DIGITS[usize::from(byte % 64)])).iter().collect();
    text.push_str("A==");
    text
}

/// A frame of a client, masked.
fn encode_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![FINAL | opcode as u8];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(MASKED | length as u8),
        Ok(length) => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(MASKED | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Takes the first frame of a server, unmasked; `None` while it is incomplete.
fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, &'static str> {
    let &[first, second, ..] = &bytes[..] else { return Ok(None) };
    if second & MASKED != 0 || first & 0x70 != 0 || first & FINAL == 0 {
        return Err("bytes that are no frame of a WebSocket server: a hop in between changes the connection");
    }
    let (header, length) = match (second, bytes.get(2..4), bytes.get(2..10)) {
        (126, Some(length), _) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
        (127, _, Some(length)) => (10, u64::from_be_bytes(length.try_into().expect("8 bytes"))),
        (126 | 127, ..) => return Ok(None),
        (short, ..) => (2, u64::from(short)),
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or("a frame of more than 2 MiB")?;
    if bytes.len() < header + length {
        return Ok(None);
    }
    let rest = bytes.split_off(header + length);
    let payload = std::mem::replace(bytes, rest).split_off(header);
    Ok(Some((first & 0x0f, payload)))
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};
    use tungstenite::protocol::{Message, Role, WebSocket};

    use super::*;

    /// R-DIAG-2: an independent server reads the frames of every length class.
    #[test]
    fn frames_are_read_by_another_decoder() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let text = "y".repeat(length);
            let bytes = encode_frame(Opcode::Text, text.as_bytes(), random());
            let mut socket = WebSocket::from_raw_socket(io::Cursor::new(bytes), Role::Server, None);
            assert_eq!(socket.read().expect("a frame"), Message::text(text), "{length}");
        }
    }

    /// R-DIAG-2: frames of an independent server are taken whole, however they are cut; others are named.
    #[test]
    fn frames_of_another_encoder_are_taken() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            Frame::message(payload.clone(), OpCode::Data(Data::Text), true).format(&mut bytes).expect("a vector");
            for cut in [0, 1, 2, 9, bytes.len() - 1].into_iter().filter(|cut| *cut < bytes.len()) {
                assert_eq!(take_frame(&mut bytes[..cut].to_vec()), Ok(None), "{length} cut at {cut}");
            }
            bytes.extend_from_slice(b"next");
            assert_eq!(take_frame(&mut bytes), Ok(Some((1, payload))));
            assert_eq!(bytes, b"next");
        }
        for bytes in [&b"HTTP/1.1"[..], &[0x81, 0x80, 0, 0, 0, 0], &[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]] {
            assert!(take_frame(&mut bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    /// A nonce is what the server's own check accepts.
    #[test]
    fn nonces_are_base64_of_16_bytes() {
        let nonces = [nonce(), nonce()];
        assert_ne!(nonces[0], nonces[1]);
        for nonce in nonces {
            assert!(nonce.len() == 24 && nonce.ends_with("A==") && !nonce[..22].contains('='), "{nonce}");
        }
    }
}
