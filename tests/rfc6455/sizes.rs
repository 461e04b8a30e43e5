//! Messages at the boundaries of every length field and of the limit, in both directions (RFC 6455 section 5.2,
//! P-IN-5).

use serde_json::{Value, json};

use super::ask::{Answer, PUSHER_PING, Question, ask_all, on_both};
use super::fragments::in_fragments;
use crate::common::wire::{CONTINUATION, FIN, RawSocket, TEXT, frame, header};

/// Longest message of the app `main` (P-IN-5).
const MAIN_BYTES_MAX: usize = 65_536;
/// Longest message of the app `large`: six times its data limit and 4 KiB.
const LARGE_BYTES_MAX: usize = 6 * 70_000 + 4_096;
/// Sizes around the boundaries of the three encodings of the length.
const SIZES: [usize; 9] = [124, 125, 126, 127, 128, 1_000, 65_534, 65_535, 65_536];

/// A message of exactly this many bytes that is answered.
fn sized(bytes: usize) -> Vec<u8> {
    let mut text = PUSHER_PING.as_bytes().to_vec();
    text.resize(bytes, b' ');
    text
}

/// P-CONN-7, P-IN-3, P-IN-5: a message of every size up to the limit is accepted, in one frame and in fragments; one
/// byte more is refused with 1009.
#[test]
fn sizes_from_clients() {
    let mut questions = vec![Question::new("no bytes", frame(FIN | TEXT, b""), &[Answer::Error])];
    for size in SIZES.into_iter().chain([LARGE_BYTES_MAX - 1, LARGE_BYTES_MAX]) {
        let text = sized(size);
        let name = |how: &str| format!("{size} bytes {how}");
        questions.push(Question::new(name("in one frame"), frame(FIN | TEXT, &text), &[Answer::PusherPong]));
        for piece in [1_300, 200, size.div_ceil(2)] {
            let pieces: Vec<&[u8]> = text.chunks(piece).collect();
            questions.push(Question::new(name("in fragments"), in_fragments(&pieces), &[Answer::PusherPong]));
        }
    }
    let text = sized(LARGE_BYTES_MAX + 1);
    questions.push(Question::refused("one byte too many", frame(FIN | TEXT, &text), 1009));
    let (first, second) = text.split_at(LARGE_BYTES_MAX);
    questions.push(Question::refused("one byte too many in fragments", in_fragments(&[first, second]), 1009));
    ask_all("large", &questions);
}

/// P-IN-5: the limit is the app's, and is checked against the length that a frame declares.
#[test]
fn limit_of_an_app() {
    let mut questions =
        vec![Question::new("at the limit", frame(FIN | TEXT, &sized(MAIN_BYTES_MAX)), &[Answer::PusherPong])];
    for length in [MAIN_BYTES_MAX as u64 + 1, 1 << 17, 1 << 31, 1 << 32, (1 << 63) - 1] {
        questions.push(Question::refused(format!("{length} declared"), header(FIN | TEXT, length), 1009));
        let parts = [frame(TEXT, b"{"), header(FIN | CONTINUATION, length)].concat();
        questions.push(Question::refused(format!("{length} declared in a fragment"), parts, 1009));
    }
    ask_all("main", &questions);
}

/// P-CONN-7, P-CEV-3: the server's own frames have the shortest length field at every boundary, no mask and no reserved
/// bit, and one client's message arrives complete at another.
#[test]
fn sizes_from_the_server() {
    on_both(|server| {
        let app = server.named_app("large");
        let channel = "private-sizes";
        let subscribe = |socket: &mut RawSocket, socket_id: &str| {
            let auth = app.sign_private(socket_id, channel);
            let message = json!({"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}});
            socket.write(&frame(FIN | TEXT, message.to_string().as_bytes())).unwrap();
            let answer = socket.read().unwrap();
            assert!(answer.payload.starts_with(b"{\"event\":\"pusher_internal:subscription_succeeded\""), "{answer:?}");
        };
        let target = format!("/app/{}?protocol=7", app.key);
        let established = |socket: &mut RawSocket| {
            let first: Value = serde_json::from_slice(&socket.read().unwrap().payload).unwrap();
            let data: Value = serde_json::from_str(first["data"].as_str().unwrap()).unwrap();
            data["socket_id"].as_str().unwrap().to_owned()
        };
        let mut sockets = [RawSocket::open(server.address, &target), RawSocket::open(server.address, &target)];
        for socket in &mut sockets {
            let socket_id = established(socket);
            subscribe(socket, &socket_id);
        }
        let [sender, receiver] = &mut sockets;
        // Reading a frame checks how its length is encoded.
        let mut pass = |data: &str| {
            let message = json!({"event": "client-size", "channel": channel, "data": data});
            sender.write(&frame(FIN | TEXT, message.to_string().as_bytes())).unwrap();
            let arrived = receiver.read().unwrap();
            let event: Value = serde_json::from_slice(&arrived.payload).unwrap();
            assert_eq!((arrived.first, event["data"].as_str()), (FIN | TEXT, Some(data)));
            arrived.payload.len()
        };
        let around_data = pass("");
        for size in SIZES.into_iter().chain([20_000, 69_000]) {
            assert_eq!(pass(&"d".repeat(size - around_data)), size);
        }
        server.assert_alive();
    });
}
