//! The closing handshake (RFC 6455 sections 5.5.1, 7.1 and 7.4).

use super::ask::{Answer, PUSHER_PING, Question, ask_all};
use crate::common::wire::{CLOSE, CONTINUATION, FIN, PING, TEXT, frame};

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// P-CONN-7: a code that may be sent is echoed; any other is refused (RFC 6455 section 7.4 and IANA's registry).
#[test]
fn codes() {
    let mut questions = Vec::new();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        questions.push(Question::new(format!("code {code}"), close(code, b""), &[Answer::Close(code)]));
        questions.push(Question::new(format!("code {code}, reason"), close(code, b"bye"), &[Answer::Close(code)]));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65_535] {
        questions.push(Question::refused(format!("code {code}"), close(code, b""), 1002));
        questions.push(Question::refused(format!("code {code}, reason"), close(code, b"bye"), 1002));
    }
    ask_all("main", &questions);
}

/// P-CONN-7, P-CLOSE-3: a reason of up to 123 bytes is UTF-8; a Close has no payload, or a complete code.
#[test]
fn reasons() {
    let mut questions = vec![
        Question::new("no payload", frame(FIN | CLOSE, b""), &[Answer::EmptyClose]),
        Question::refused("half a code", frame(FIN | CLOSE, &[3]), 1002),
    ];
    for length in [1, 5, 122, 123] {
        let bytes = close(1000, &vec![b'r'; length]);
        questions.push(Question::new(format!("a reason of {length} bytes"), bytes, &[Answer::Close(1000)]));
    }
    for length in [124, 125, 200] {
        questions.push(Question::refused(
            format!("a reason of {length} bytes"),
            close(1000, &vec![b'r'; length]),
            1002,
        ));
    }
    let umlauts = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5} \u{1f980}";
    questions.push(Question::new("a reason of many scripts", close(1000, umlauts.as_bytes()), &[Answer::Close(1000)]));
    for reason in [&b"\xFF"[..], b"\xCE\xBA\xED\xA0\x80", b"\xF4\x90\x80\x80", b"cut \xE2\x82", b"\xC0\x80"] {
        questions.push(Question::refused(format!("a reason of {reason:?}"), close(1000, reason), 1007));
    }
    ask_all("main", &questions);
}

/// P-CONN-7, RFC 6455 section 5.5.1: nothing after a Close is answered, and earlier requests are.
#[test]
fn nothing_follows_a_close() {
    let ping = || frame(FIN | TEXT, PUSHER_PING.as_bytes());
    let answers = [Answer::Close(1000)];
    let behind = |bytes: Vec<u8>| [close(1000, b""), bytes].concat();
    let questions = [
        Question::new("a ping", behind(frame(FIN | PING, b"late")), &answers),
        Question::new("a message", behind(ping()), &answers),
        Question::new("a second close", behind(close(1001, b"again")), &answers),
        Question::new("broken framing", behind(frame(FIN | 0x70 | TEXT, b"x")), &answers),
        Question::new("20,000 bytes", behind(frame(FIN | TEXT, &[b'x'; 20_000])), &answers),
        Question::new(
            "a message before it",
            [ping(), close(1000, b"")].concat(),
            &[Answer::PusherPong, Answer::Close(1000)],
        ),
        Question::new(
            "a ping before it",
            [frame(FIN | PING, b"p"), close(4999, b"")].concat(),
            &[Answer::Pong(b"p".to_vec()), Answer::Close(4999)],
        ),
        Question::new("inside a message", [frame(TEXT, b"{"), close(1000, b"")].concat(), &answers),
        Question::new(
            "inside a message that would go on",
            [frame(TEXT, b"{"), close(1000, b""), frame(FIN | CONTINUATION, b"}")].concat(),
            &answers,
        ),
    ];
    ask_all("main", &questions);
}
