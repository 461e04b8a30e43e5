//! A bare HTTP server on an epoll loop: the cost of a publish before it is processed.
//!
//! It reads from a socket, finds the end of each request by its blank line and `Content-Length`, and answers each with the
//! same 200, with one send for all requests of a read. It checks neither signature nor syntax, publishes nothing, and
//! shares no code with the server under test. Handshakes are answered only as far as the preflight needs.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use clap::Args;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// A bare HTTP server to compare with: reads requests, verifies nothing, answers 200.
#[derive(Args, Clone, Debug)]
pub(crate) struct HttpEcho {
    /// Address to listen on; port 0 selects a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// A socket and the beginning of an incomplete request.
struct Connection {
    socket: TcpStream,
    held: Vec<u8>,
}

impl HttpEcho {
    /// Serves on this thread until the process is killed.
    pub(crate) fn run(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.listen)?;
        listener.set_nonblocking(true)?;
        println!("listening on {}", listener.local_addr()?);
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut connections = HashMap::new();
        let mut events = Vec::with_capacity(1_024);
        let (mut input, mut answers) = (vec![0; INPUT_BYTES], Vec::new());
        loop {
            events.clear();
            match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                if event.data.u64() == LISTENER {
                    let Ok((socket, _)) = listener.accept() else { continue };
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    let token = socket.as_raw_fd().unsigned_abs().into();
                    epoll::add(&epoll, &socket, EventData::new_u64(token), EventFlags::IN)?;
                    connections.insert(token, Connection { socket, held: Vec::new() });
                } else if let Some(connection) = connections.get_mut(&event.data.u64())
                    && !connection.serve(&mut input, &mut answers)
                {
                    connections.remove(&event.data.u64());
                }
            }
        }
    }
}

impl Connection {
    /// Reads once and answers; false when the connection is over. A peer that leaves its answers unread loses them.
    fn serve(&mut self, input: &mut [u8], answers: &mut Vec<u8>) -> bool {
        let length = match rustix::net::recv(&self.socket, &mut *input, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        answers.clear();
        if self.held.is_empty() {
            let consumed = answer_all(&input[..length], answers);
            self.held.extend_from_slice(&input[consumed..length]);
        } else {
            self.held.extend_from_slice(&input[..length]);
            let consumed = answer_all(&self.held, answers);
            self.held.drain(..consumed);
        }
        if self.held.len() > INPUT_BYTES {
            return false;
        }
        let mut rest = answers.as_slice();
        while !rest.is_empty() {
            match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(_) => return false,
            }
        }
        true
    }
}

/// Appends an answer to each whole request; returns the number of their bytes.
fn answer_all(bytes: &[u8], answers: &mut Vec<u8>) -> usize {
    let mut consumed = 0;
    while let Some(length) = request_bytes(&bytes[consumed..]) {
        let is_handshake = bytes[consumed..].starts_with(b"GET ");
        answers.extend_from_slice(if is_handshake { HANDSHAKE } else { ANSWER });
        consumed += length;
    }
    consumed
}

/// Length of the first request, if it is whole.
fn request_bytes(bytes: &[u8]) -> Option<usize> {
    let head_bytes = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let mut body_bytes = 0;
    let mut lines = bytes.get(..head_bytes)?;
    while let Some(end) = memchr::memchr(b'\n', lines) {
        let line = &lines[..end];
        if line.get(..CONTENT_LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(CONTENT_LENGTH)) {
            let digits = line[CONTENT_LENGTH.len()..].trim_ascii();
            body_bytes = digits.iter().try_fold(0_usize, |value, digit| {
                let digit = usize::from(digit.wrapping_sub(b'0'));
                value.checked_mul(10)?.checked_add(digit)
            })?;
        }
        lines = &lines[end + 1..];
    }
    let length = head_bytes.checked_add(body_bytes)?;
    (bytes.len() >= length).then_some(length)
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
/// What Relay answers to a publish, byte for byte, so that both send alike.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                        Connection: keep-alive\r\n\r\n{}";
/// An upgrade and the first event of the protocol, in one frame.
const HANDSHAKE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\
    \x81\x6d{\"event\":\"pusher:connection_established\",\"data\":\"{\\\"socket_id\\\":\\\"123456.654321\\\",\\\"activity_timeout\\\":120}\"}";
/// Bytes of one read, and what may be held of a request.
const INPUT_BYTES: usize = 512 * 1024;
/// In place of a descriptor.
const LISTENER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::event::{Meaning, read_event};
    use crate::wire::frame::{self, Decoded};
    use crate::wire::upgrade::{Upgrade, read_upgrade};

    /// Requests are counted wherever the input is cut.
    #[test]
    fn every_request_is_answered_once() {
        let one = b"POST /apps/1/events?x=1 HTTP/1.1\r\nHost: h\r\ncontent-LENGTH: 3\r\nX: y\r\n\r\nabc";
        let bytes = one.repeat(3);
        for cut in 0..=bytes.len() {
            let mut answers = Vec::new();
            let consumed = answer_all(&bytes[..cut], &mut answers);
            assert_eq!((consumed, answers.len()), (cut / one.len() * one.len(), cut / one.len() * ANSWER.len()));
        }
    }

    /// The handshake is one that the preflight takes.
    #[test]
    fn handshake_is_understood() {
        let Upgrade::Done(begin) = read_upgrade(HANDSHAKE) else { panic!("no upgrade") };
        let Decoded::Frame { opcode: frame::TEXT, payload, .. } = frame::decode(&HANDSHAKE[begin..]) else {
            panic!("no frame")
        };
        assert!(matches!(read_event(payload), Meaning::Established { socket_id } if socket_id == "123456.654321"));
        assert_eq!(payload.len(), HANDSHAKE.len() - begin - 2);
    }
}
