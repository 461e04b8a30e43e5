//! Frames that no honest client sends (RFC 6455; threats T7, T8, T9, T11).

use std::io::Write;

use super::unharmed::{socket_target, unharmed_by};
use crate::common::server::TestServer;
use crate::common::wire::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, RawSocket, TEXT, frame, header};

const MIB: u64 = 1 << 20;

fn open(server: &TestServer) -> RawSocket {
    RawSocket::established(server.address, &socket_target(server))
}

/// Sends `bytes` on a fresh socket, which must then be closed with this code.
#[track_caller]
fn closes_with(server: &TestServer, what: &str, bytes: &[u8], code: u16) {
    let mut socket = open(server);
    let _ = socket.write(bytes);
    let found = socket.expect_close();
    assert_eq!(found, code, "{what}");
}

/// P-CONN-7, P-SDK-13, RFC 6455 sections 5.2 to 5.5: a violation of the framing closes with 1002.
#[test]
fn broken_framing_closes_with_1002() {
    unharmed_by(24 * MIB, |server| {
        let text = br#"{"event":"pusher:ping"}"#;
        let unmasked = [&[FIN | TEXT, 23][..], text].concat();
        // 5 bytes in the two- and the eight-byte length, 200 bytes in the eight-byte one.
        let padded = [&[FIN | TEXT, 0x80 | 126, 0, 5, 0, 0, 0, 0][..], b"hello"].concat();
        let padded_more = [&[FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0][..], &[b'x'; 200]].concat();
        let negative = [FIN | TEXT, 0x80 | 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        let both = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("no mask", unmasked),
            ("a length in two bytes that fits one", padded),
            ("a length in eight bytes that fits two", padded_more),
            ("a length with its top bit set", negative.to_vec()),
            ("RSV1 (threat T9)", frame(FIN | RSV1 | TEXT, text)),
            ("RSV2", frame(FIN | 0x20 | TEXT, text)),
            ("RSV3", frame(FIN | 0x10 | TEXT, text)),
            ("RSV1 on a ping", frame(FIN | RSV1 | PING, b"")),
            ("opcode 3", frame(FIN | 0x3, text)),
            ("opcode 7", frame(FIN | 0x7, text)),
            ("opcode 11", frame(FIN | 0xB, b"")),
            ("opcode 15", frame(FIN | 0xF, b"")),
            ("a ping in fragments", frame(PING, b"x")),
            ("a close in fragments", frame(CLOSE, b"")),
            ("a ping of 126 bytes", frame(FIN | PING, &[0; 126])),
            ("a close of 126 bytes", frame(FIN | CLOSE, &[b'x'; 126])),
            ("a continuation of nothing", frame(FIN | CONTINUATION, b"x")),
            ("a continuation of nothing, not the last", frame(CONTINUATION, b"x")),
            ("a message inside a message", both(frame(TEXT, b"{"), frame(FIN | TEXT, b"}"))),
            ("a binary one inside a message", both(frame(TEXT, b"{"), frame(FIN | BINARY, b"}"))),
            ("a close of one byte", frame(FIN | CLOSE, &[3])),
            ("close code 0", frame(FIN | CLOSE, &0_u16.to_be_bytes())),
            ("close code 999", frame(FIN | CLOSE, &999_u16.to_be_bytes())),
            ("close code 1004", frame(FIN | CLOSE, &1004_u16.to_be_bytes())),
            ("close code 1005", frame(FIN | CLOSE, &1005_u16.to_be_bytes())),
            ("close code 1006", frame(FIN | CLOSE, &1006_u16.to_be_bytes())),
            ("close code 1016", frame(FIN | CLOSE, &1016_u16.to_be_bytes())),
            ("close code 2999", frame(FIN | CLOSE, &2999_u16.to_be_bytes())),
            ("close code 5000", frame(FIN | CLOSE, &5000_u16.to_be_bytes())),
        ];
        for (what, bytes) in &cases {
            closes_with(server, what, bytes, 1002);
        }
    });
}

/// P-CONN-7: binary messages close with 1003: in one frame, in fragments, empty.
#[test]
fn binary_closes_with_1003() {
    unharmed_by(24 * MIB, |server| {
        let fragments = [frame(BINARY, b"x"), frame(FIN, b"y")].concat();
        for bytes in [frame(FIN | BINARY, b"x"), frame(FIN | BINARY, b""), fragments] {
            closes_with(server, "binary", &bytes, 1003);
        }
    });
}

/// RFC 6455 section 8.1, threat T11: bad UTF-8 closes with 1007: overlong, surrogate, beyond the last plane, cut; in a message, over
/// fragments, and in a close reason. A character split over fragments is fine.
#[test]
fn bad_utf8_closes_with_1007() {
    unharmed_by(24 * MIB, |server| {
        let bad: [&[u8]; 8] = [
            b"\xFF",
            b"\xC0\x80",
            b"\xE0\x80\xAF",
            b"\xED\xA0\x80",
            b"\xF4\x90\x80\x80",
            b"\x80",
            b"{\"event\":\"pusher:ping\",\"x\":\"\xE2\x82\"}",
            b"\xF0\x9F\xA6",
        ];
        for text in bad {
            closes_with(server, &format!("{text:?}"), &frame(FIN | TEXT, text), 1007);
            let (first, second) = text.split_at(text.len() / 2);
            let parts = [frame(TEXT, first), frame(FIN, second)].concat();
            closes_with(server, &format!("{text:?} in fragments"), &parts, 1007);
        }
        closes_with(
            server,
            "a close reason",
            &frame(FIN | CLOSE, &[&1000_u16.to_be_bytes()[..], b"\xFF"].concat()),
            1007,
        );
        let mut socket = open(server);
        let text = "{\"event\":\"pusher:ping\",\"x\":\"\u{1f980}\"}".as_bytes();
        for (index, byte) in text.iter().enumerate() {
            let first = if index == 0 { TEXT } else { CONTINUATION };
            let last = if index + 1 == text.len() { FIN } else { 0 };
            socket.write(&frame(last | first, &[*byte])).unwrap();
        }
        assert_eq!(socket.read().unwrap().payload, br#"{"event":"pusher:pong","data":"{}"}"#);
    });
}

/// P-IN-5, threat T7: a declared length beyond the limit closes with 1009 before a byte of payload arrives, and costs
/// no memory; so does the sum of fragments.
#[test]
fn declared_lengths_close_with_1009() {
    unharmed_by(24 * MIB, |server| {
        for length in [65_537, 1 << 20, 1 << 31, 1 << 32, (1 << 62) + 1, (1 << 63) - 1] {
            closes_with(server, &length.to_string(), &header(FIN | TEXT, length), 1009);
            closes_with(server, &length.to_string(), &header(TEXT, length), 1009);
        }
        let sum = [frame(TEXT, &[b' '; 20_000]), header(FIN, 45_537)].concat();
        closes_with(server, "the sum of two fragments", &sum, 1009);
        let sum = [frame(TEXT, &[b' '; 20_000]), header(FIN, (1 << 63) - 1)].concat();
        closes_with(server, "a sum beyond 63 bits", &sum, 1009);
    });
}

/// Threat T8: a million empty fragments, and one-byte fragments without end, are cut off; memory stays flat and the
/// close is 1008 or 1009.
#[test]
fn fragment_bombs_are_cut_off() {
    unharmed_by(32 * MIB, |server| {
        for piece in [frame(CONTINUATION, b""), frame(CONTINUATION, b"x")] {
            let mut socket = open(server);
            socket.write(&frame(TEXT, b"{")).unwrap();
            let block = piece.repeat(1_000);
            // A write fails once the server has closed and reset; that is the point.
            let written = (0..1_000).take_while(|_| socket.write(&block).is_ok()).count();
            let closed = loop {
                match socket.read() {
                    Ok(frame) => {
                        if let Some(code) = frame.close_code() {
                            break Some(code);
                        }
                    }
                    // A reset may overtake the Close frame, since bytes were still in flight.
                    Err(error) => {
                        assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock), "still open after {written}");
                        break None;
                    }
                }
            };
            assert!(closed.is_none_or(|code| matches!(code, 1008 | 1009)), "{closed:?}");
        }
    });
}

/// RFC 6455 section 5.5: control frames between fragments are answered, even in floods, in order and without memory
/// growth.
#[test]
fn floods_of_control_frames_are_answered() {
    unharmed_by(32 * MIB, |server| {
        let mut socket = open(server);
        socket.write(&frame(TEXT, b"{\"event\":")).unwrap();
        for round in 0..100_u8 {
            let block: Vec<u8> = (0..100_u8).flat_map(|index| frame(FIN | PING, &[round, index])).collect();
            socket.write(&block).unwrap();
            socket.write(&frame(FIN | PONG, b"unasked")).unwrap();
            for index in 0..100_u8 {
                let pong = socket.read().unwrap();
                assert_eq!((pong.first, pong.payload), (FIN | PONG, vec![round, index]));
            }
        }
        socket.write(&frame(FIN, b"\"pusher:ping\"}")).unwrap();
        assert_eq!(socket.read().unwrap().payload, br#"{"event":"pusher:pong","data":"{}"}"#);
    });
}

/// Close handshake: the code is echoed once, nothing follows it, and later input is ignored; an empty close is answered
/// by an empty one or 1000.
#[test]
fn close_handshake() {
    unharmed_by(24 * MIB, |server| {
        for code in [1000_u16, 1001, 1002, 1003, 1007, 1011, 3000, 4999] {
            let mut socket = open(server);
            let mut bytes = frame(FIN | CLOSE, &[&code.to_be_bytes()[..], "bye é".as_bytes()].concat());
            bytes.extend(frame(FIN | TEXT, br#"{"event":"pusher:ping"}"#));
            socket.write(&bytes).unwrap();
            let answer = socket.read().unwrap();
            assert_eq!(answer.close_code(), Some(code), "{answer:?}");
            socket.expect_end();
        }
        let mut socket = open(server);
        socket.write(&frame(FIN | CLOSE, b"")).unwrap();
        assert!(matches!(socket.read().unwrap().close_code(), Some(1000 | 1005)));
        socket.expect_end();
    });
}

/// Input split at every byte gives the same result: a handshake and two messages, byte by byte.
#[test]
fn bytes_one_by_one() {
    unharmed_by(24 * MIB, |server| {
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
        let mut bytes = crate::common::wire::upgrade_request(&socket_target(server)).into_bytes();
        bytes.extend(frame(FIN | TEXT, br#"{"event":"pusher:subscribe","data":{"channel":"split"}}"#));
        bytes.extend(frame(FIN | TEXT, br#"{"event":"pusher:ping"}"#));
        for byte in &bytes {
            stream.write_all(std::slice::from_ref(byte)).unwrap();
        }
        let mut socket = RawSocket::from_stream(stream);
        socket.read_head();
        assert!(socket.read().unwrap().payload.starts_with(b"{\"event\":\"pusher:connection_established\""));
        // The channel may belong to another shard, so the pong may come first.
        let mut answers = [socket.read().unwrap().payload, socket.read().unwrap().payload];
        answers.sort();
        assert_eq!(answers[0], br#"{"event":"pusher:pong","data":"{}"}"#);
        assert!(answers[1].starts_with(b"{\"event\":\"pusher_internal:subscription_succeeded\""));
    });
}

/// Threat T13 and hazard U9: 2,000 sockets that are reset at once leave no connection behind.
#[test]
fn mass_resets_leave_nothing() {
    unharmed_by(48 * MIB, |server| {
        let app = server.app();
        for _ in 0..4 {
            let sockets: Vec<RawSocket> = (0..500).map(|_| open(server)).collect();
            for socket in &sockets {
                rustix::net::sockopt::set_socket_linger(socket.stream(), Some(std::time::Duration::ZERO)).unwrap();
            }
            for mut socket in sockets {
                let _ = socket.write(&frame(FIN | TEXT, br#"{"event":"pusher:subscribe","data":{"channel":"reset"}}"#));
            }
        }
        server.await_subscriptions(app, "reset", 0);
    });
}
