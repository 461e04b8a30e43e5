//! Messages in fragments, with control frames between them (RFC 6455 sections 5.4 and 5.5).

use super::ask::{Answer, PUSHER_PING, Question, ask_all};
use crate::common::wire::{BINARY, CONTINUATION, FIN, PING, PONG, TEXT, frame};

/// A text message in the given pieces.
pub(crate) fn in_fragments(pieces: &[&[u8]]) -> Vec<u8> {
    let last = pieces.len() - 1;
    let fragment = |(index, piece): (usize, &&[u8])| {
        let opcode = if index == 0 { TEXT } else { CONTINUATION };
        frame(if index == last { FIN | opcode } else { opcode }, piece)
    };
    pieces.iter().enumerate().flat_map(fragment).collect()
}

/// P-CONN-7: a message may be cut anywhere, also into empty pieces.
#[test]
fn messages_in_fragments() {
    let text = PUSHER_PING.as_bytes();
    let mut questions = Vec::new();
    for at in 0..=text.len() {
        let (first, second) = text.split_at(at);
        let bytes = in_fragments(&[first, second]);
        questions.push(Question::new(format!("two fragments, cut at {at}"), bytes, &[Answer::PusherPong]));
    }
    let single: Vec<&[u8]> = text.chunks(1).collect();
    questions.push(Question::new("a fragment for every byte", in_fragments(&single), &[Answer::PusherPong]));
    let with_empty: Vec<&[u8]> = text.chunks(1).flat_map(|byte| [&[][..], byte]).chain([&[][..]]).collect();
    questions.push(Question::new("empty fragments between", in_fragments(&with_empty), &[Answer::PusherPong]));
    questions.push(Question::new("three empty fragments", in_fragments(&[b"", b"", b""]), &[Answer::Error]));
    ask_all("main", &questions);
}

/// P-SDK-12, RFC 6455 section 5.4: control frames between fragments are answered before the message ends, in order.
#[test]
fn control_frames_between_fragments() {
    let (first, second) = PUSHER_PING.as_bytes().split_at(9);
    let pong = |payload: &[u8]| Answer::Pong(payload.to_vec());
    let between =
        |frames: &[Vec<u8>]| [&[frame(TEXT, first)], frames, &[frame(FIN | CONTINUATION, second)]].concat().concat();
    let mut questions = vec![
        Question::new("a ping", between(&[frame(FIN | PING, b"ping")]), &[pong(b"ping"), Answer::PusherPong]),
        Question::new("a pong", between(&[frame(FIN | PONG, b"pong")]), &[Answer::PusherPong]),
        Question::new(
            "a ping of 125 bytes",
            between(&[frame(FIN | PING, &[b'p'; 125])]),
            &[pong(&[b'p'; 125]), Answer::PusherPong],
        ),
        Question::new(
            "pings among many fragments",
            [
                frame(TEXT, b"{\"event\":"),
                frame(FIN | PING, b"1"),
                frame(CONTINUATION, b"\"pusher"),
                frame(FIN | PING, b"2"),
                frame(FIN | PONG, b""),
                frame(CONTINUATION, b""),
                frame(FIN | PING, b""),
                frame(FIN | CONTINUATION, b":ping\"}"),
            ]
            .concat(),
            &[pong(b"1"), pong(b"2"), pong(b""), Answer::PusherPong],
        ),
    ];
    // Nothing of the message is needed for the answer.
    let unfinished = [frame(TEXT, first), frame(FIN | PING, b"now")].concat();
    questions.push(Question::new("a ping inside a message that does not end", unfinished, &[pong(b"now")]));
    ask_all("main", &questions);
}

/// P-CONN-7: a continuation needs a message to continue, and no message begins inside another (RFC 6455 section 5.4).
#[test]
fn fragments_out_of_order() {
    let whole = || frame(FIN | TEXT, PUSHER_PING.as_bytes());
    let mut questions = Vec::new();
    for (name, first) in [("last", FIN | CONTINUATION), ("middle", CONTINUATION)] {
        questions.push(Question::refused(format!("a {name} fragment of nothing"), frame(first, b"x"), 1002));
        questions.push(Question::refused(format!("an empty {name} fragment of nothing"), frame(first, b""), 1002));
        let behind = [whole(), frame(first, b"x")].concat();
        let answers = [Answer::PusherPong, Answer::Close(1002)];
        questions.push(Question::new(format!("a {name} fragment behind a message"), behind, &answers));
        let parts = in_fragments(&[b"{\"event\":", b"\"pusher:ping\"}"]);
        let behind = [parts, frame(first, b"x")].concat();
        questions.push(Question::new(format!("a {name} fragment behind fragments"), behind, &answers));
    }
    for (name, first) in [("text", FIN | TEXT), ("first of text", TEXT), ("binary", FIN | BINARY)] {
        let inside = [frame(TEXT, b"{"), frame(first, b"}")].concat();
        questions.push(Question::refused(format!("{name} inside a message"), inside, 1002));
        let inside = [frame(TEXT, b"{"), frame(FIN | PING, b"p"), frame(first, b"}")].concat();
        let answers = [Answer::Pong(b"p".to_vec()), Answer::Close(1002)];
        questions.push(Question::new(format!("{name} behind a ping inside a message"), inside, &answers));
    }
    ask_all("main", &questions);
}
