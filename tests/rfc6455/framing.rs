//! Reserved bits and opcodes, masks, the encoding of lengths, and pings (RFC 6455 sections 5.2, 5.3, 5.5).

use super::ask::{Answer, PUSHER_PING, Question, ask_all, on_both};
use crate::common::http;
use crate::common::wire::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame};

/// A frame with a chosen mask.
fn masked(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut bytes = vec![first, 0x80 | payload.len() as u8];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// P-CONN-7, threat T9: every combination of the reserved bits is refused on every kind of frame, also behind a good
/// message and inside a fragmented one.
#[test]
fn reserved_bits() {
    let mut questions = Vec::new();
    for bits in 1..8_u8 {
        let rsv = bits << 4;
        for (name, first, payload) in [
            ("text", FIN | TEXT, PUSHER_PING.as_bytes()),
            ("first fragment", TEXT, b"{".as_slice()),
            ("binary", FIN | BINARY, b"x"),
            ("ping", FIN | PING, b""),
            ("pong", FIN | PONG, b"x"),
            ("close", FIN | CLOSE, &[3, 232]),
        ] {
            questions.push(Question::refused(format!("RSV {bits} on {name}"), frame(first | rsv, payload), 1002));
        }
        let inside = [frame(TEXT, b"{"), frame(FIN | rsv | CONTINUATION, b"}")].concat();
        questions.push(Question::refused(format!("RSV {bits} on a continuation"), inside, 1002));
        let behind = [frame(FIN | TEXT, PUSHER_PING.as_bytes()), frame(FIN | rsv | PING, b"x")].concat();
        questions.push(Question::new(
            format!("RSV {bits} behind a message"),
            behind,
            &[Answer::PusherPong, Answer::Close(1002)],
        ));
    }
    ask_all("main", &questions);
}

/// P-CONN-7: reserved opcodes are refused, with and without a payload, behind a good message, inside a fragmented one,
/// and as fragments.
#[test]
fn reserved_opcodes() {
    let mut questions = Vec::new();
    for opcode in (3..=7).chain(11..=15) {
        let name = format!("opcode {opcode}");
        questions.push(Question::refused(name.clone(), frame(FIN | opcode, b""), 1002));
        questions.push(Question::refused(format!("{name} with a payload"), frame(FIN | opcode, b"payload"), 1002));
        questions.push(Question::refused(format!("{name} as a fragment"), frame(opcode, b"payload"), 1002));
        let inside = [frame(TEXT, b"{"), frame(FIN | opcode, b"")].concat();
        questions.push(Question::refused(format!("{name} inside a message"), inside, 1002));
        let behind = [frame(FIN | TEXT, PUSHER_PING.as_bytes()), frame(FIN | opcode, b"")].concat();
        let answers = [Answer::PusherPong, Answer::Close(1002)];
        questions.push(Question::new(format!("{name} behind a message"), behind, &answers));
    }
    ask_all("main", &questions);
}

/// P-CONN-7: any mask is undone, and a frame without one is refused (RFC 6455 section 5.1).
#[test]
fn masks() {
    let mut questions = Vec::new();
    for mask in [[0; 4], [0xFF; 4], [1, 2, 3, 4], *b"{\"ev", [0, 0, 0, 0x80]] {
        let bytes = masked(FIN | TEXT, mask, PUSHER_PING.as_bytes());
        questions.push(Question::new(format!("mask {mask:?}"), bytes, &[Answer::PusherPong]));
        let parts = [masked(TEXT, mask, b"{\"event\":"), masked(FIN | CONTINUATION, [9; 4], b"\"pusher:ping\"}")];
        questions.push(Question::new(format!("masks {mask:?} and 9"), parts.concat(), &[Answer::PusherPong]));
    }
    for (name, first, payload) in
        [("text", FIN | TEXT, PUSHER_PING.as_bytes()), ("ping", FIN | PING, b"x"), ("close", FIN | CLOSE, &[3, 232])]
    {
        let bytes = [&[first, payload.len() as u8], payload].concat();
        questions.push(Question::refused(format!("{name} without a mask"), bytes, 1002));
    }
    ask_all("main", &questions);
}

/// P-CONN-7: a length is encoded in the fewest bytes possible, and its top bit is 0 (RFC 6455 section 5.2).
#[test]
fn lengths_have_one_encoding() {
    let mask = [0; 4];
    let short = |length: u16| [&[FIN | TEXT, 0x80 | 126], &length.to_be_bytes()[..], &mask].concat();
    let long = |length: u64| [&[FIN | TEXT, 0x80 | 127], &length.to_be_bytes()[..], &mask].concat();
    let mut questions = Vec::new();
    for length in [0, 1, 23, 125] {
        questions.push(Question::refused(format!("{length} in two bytes"), short(length), 1002));
    }
    for length in [0, 23, 125, 126, 65_535, 1 << 63, (1 << 63) + 23, u64::MAX] {
        questions.push(Question::refused(format!("{length} in eight bytes"), long(length), 1002));
    }
    for opcode in [PING, PONG, CLOSE] {
        let two = [&[FIN | opcode, 0x80 | 126, 0, 126][..], &mask, &[b'x'; 126]].concat();
        let eight = [&[FIN | opcode, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &mask, &[b'x'; 65_536]].concat();
        questions.push(Question::refused(format!("opcode {opcode} of 126 bytes"), two, 1002));
        questions.push(Question::refused(format!("opcode {opcode} of 65,536 bytes"), eight, 1002));
    }
    ask_all("main", &questions);
}

/// P-SDK-12, RFC 6455 sections 5.5.2 and 5.5.3: a ping is answered with its payload, consecutive pings in their order,
/// and an unsolicited pong is not answered.
#[test]
fn pings_and_pongs() {
    let mut questions = Vec::new();
    for payload in [&b""[..], b"Hello, world!", &[0, 0xFF, 0xFE, 0xFD, 0], &[0xFE; 125]] {
        let answer = Answer::Pong(payload.to_vec());
        questions.push(Question::new(format!("a ping with {payload:?}"), frame(FIN | PING, payload), &[answer]));
    }
    let payloads: Vec<Vec<u8>> = (0..10).map(|number| format!("ping {number}").into_bytes()).collect();
    let row = payloads.iter().flat_map(|payload| frame(FIN | PING, payload)).collect();
    let answers: Vec<Answer> = payloads.into_iter().map(Answer::Pong).collect();
    questions.push(Question::new("ten pings", row, &answers));
    for payload in [&b""[..], b"unasked", &[0xFF; 125]] {
        questions.push(Question::new(format!("a pong with {payload:?}"), frame(FIN | PONG, payload), &[]));
        let both = [frame(FIN | PONG, payload), frame(FIN | PING, b"and a ping")].concat();
        questions.push(Question::new("a pong before a ping", both, &[Answer::Pong(b"and a ping".to_vec())]));
    }
    for (name, first) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        questions.push(Question::refused(format!("a {name} in fragments"), frame(first, b""), 1002));
        let both = [frame(first, b"a"), frame(FIN | CONTINUATION, b"b")].concat();
        questions.push(Question::refused(format!("a whole {name} in fragments"), both, 1002));
    }
    ask_all("main", &questions);
}

/// P-CONN-7: binary messages are refused with 1003, of any size and in fragments.
#[test]
fn binary_messages() {
    let mut questions = Vec::new();
    for size in [0, 1, 125, 126, 127, 128, 20_000] {
        questions.push(Question::refused(format!("{size} bytes"), frame(FIN | BINARY, &vec![0xFE; size]), 1003));
    }
    let parts = [frame(BINARY, b"a"), frame(CONTINUATION, b""), frame(FIN | CONTINUATION, b"\xFF")].concat();
    questions.push(Question::refused("in fragments", parts, 1003));
    ask_all("main", &questions);
}

/// P-CONN-7, threat T9: compression is declined, whatever is offered, and so the bit of a compressed message is
/// refused.
#[test]
fn compression_is_declined() {
    on_both(|server| {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover, x-webkit-deflate-frame",
        ] {
            let target = format!("/app/{}?protocol=7", server.app().key);
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Extensions: {offer}\r\n\r\n"
            );
            let mut connection = http::HttpConnection::open(server.address);
            connection.write(request.as_bytes()).unwrap();
            let response = connection.try_read_head().unwrap();
            assert_eq!(response.status, 101, "{offer}");
            assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(response.header("sec-websocket-extensions"), None, "{offer}");
        }
    });
}
