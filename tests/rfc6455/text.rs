//! Text is UTF-8 (RFC 6455 sections 5.6 and 8.1, RFC 3629): valid, invalid, split at every byte, and refused as soon as
//! no continuation can make it valid.

use super::ask::{Answer, Question, ask_all, closes_at_once, is_waited_for, on_both};
use super::fragments::in_fragments;
use crate::common::wire::{CONTINUATION, FIN, TEXT, frame, header};

/// A message that is answered, around some text inside its JSON.
fn message(text: &[u8]) -> Vec<u8> {
    [br#"{"event":"pusher:ping","x":""#, text, br#""}"#].concat()
}

/// The offset of the text in a [`message`].
const TEXT_AT: usize = br#"{"event":"pusher:ping","x":""#.len();

/// First and last characters of every length, both sides of the surrogates, noncharacters, the last character of all,
/// and words in several scripts.
fn valid() -> Vec<String> {
    let characters = [
        '\u{20}',
        '\u{7e}',
        '\u{7f}',
        '\u{80}',
        '\u{7ff}',
        '\u{800}',
        '\u{fff}',
        '\u{1000}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{fdd0}',
        '\u{fffd}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{10000}',
        '\u{1fffe}',
        '\u{fffff}',
        '\u{100000}',
        '\u{10fffe}',
        '\u{10ffff}',
    ];
    let words = ["Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!", "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}"];
    characters.iter().map(char::to_string).chain(words.map(str::to_owned)).collect()
}

/// Byte sequences that are never UTF-8, and how many of their bytes show that.
const INVALID: [(&[u8], usize); 30] = [
    // Continuation bytes on their own.
    (b"\x80", 1),
    (b"\xBF", 1),
    (b"a\x80b", 2),
    // Bytes that never occur in UTF-8.
    (b"\xC0", 1),
    (b"\xC1\xBF", 1),
    (b"\xF5\x80\x80\x80", 1),
    (b"\xF8\x88\x80\x80\x80", 1),
    (b"\xFC\x84\x80\x80\x80\x80", 1),
    (b"\xFE", 1),
    (b"\xFF", 1),
    // Overlong.
    (b"\xC0\xAF", 1),
    (b"\xE0\x80\xAF", 2),
    (b"\xE0\x9F\xBF", 2),
    (b"\xF0\x80\x80\xAF", 2),
    (b"\xF0\x8F\xBF\xBF", 2),
    // Surrogates, one and a pair.
    (b"\xED\xA0\x80", 2),
    (b"\xED\xAD\xBF", 2),
    (b"\xED\xAE\x80", 2),
    (b"\xED\xBF\xBF", 2),
    (b"\xED\xA0\x80\xED\xB0\x80", 2),
    // Beyond the last character.
    (b"\xF4\x90\x80\x80", 2),
    (b"\xF4\xBF\xBF\xBF", 2),
    // Cut short by something else.
    (b"\xC3(", 2),
    (b"\xE2\x82(", 3),
    (b"\xE2(\xA1", 2),
    (b"\xF0\x9F\xA6(", 4),
    (b"\xF0\x9F(\xA1", 3),
    (b"\xF0(\x8C\xBC", 2),
    (b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xED\xA0\x80edited", 9),
    (b"\xE2\x82\xE2\x82\xAC", 3),
];

/// P-CONN-7, threat T11: valid text passes, in one frame and split into fragments at every byte.
#[test]
fn valid_text() {
    let mut questions = Vec::new();
    for text in valid() {
        let bytes = message(text.as_bytes());
        questions.push(Question::new(format!("{text:?}"), frame(FIN | TEXT, &bytes), &[Answer::PusherPong]));
        for at in TEXT_AT..=TEXT_AT + text.len() {
            let (first, second) = bytes.split_at(at);
            let parts = in_fragments(&[first, second]);
            questions.push(Question::new(format!("{text:?} cut at {at}"), parts, &[Answer::PusherPong]));
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        questions.push(Question::new(
            format!("{text:?} in single bytes"),
            in_fragments(&single),
            &[Answer::PusherPong],
        ));
    }
    ask_all("main", &questions);
}

/// P-CONN-7, threat T11: invalid text is refused with 1007, in one frame and split into fragments at every byte.
#[test]
fn invalid_text() {
    let mut questions = Vec::new();
    for (text, _) in INVALID {
        let bytes = message(text);
        questions.push(Question::refused(format!("{text:?}"), frame(FIN | TEXT, &bytes), 1007));
        for at in TEXT_AT..=TEXT_AT + text.len() {
            let (first, second) = bytes.split_at(at);
            questions.push(Question::refused(format!("{text:?} cut at {at}"), in_fragments(&[first, second]), 1007));
        }
    }
    // A complete text does not end inside a character.
    for text in [&b"\xC3"[..], b"\xE2\x82", b"\xF0\x9F\xA6"] {
        let bytes = [b"{", text].concat();
        questions.push(Question::refused(format!("ends with {text:?}"), frame(FIN | TEXT, &bytes), 1007));
        let parts = [frame(TEXT, &bytes), frame(FIN | CONTINUATION, b"")].concat();
        questions.push(Question::refused(format!("ends with {text:?}, empty last fragment"), parts, 1007));
    }
    ask_all("main", &questions);
}

/// RFC 6455 section 8.1, threat T11: the first byte that no character contains is answered at once, in a fragment that
/// nothing follows and in a frame that is still in flight. One byte earlier there is no answer.
#[test]
fn invalid_text_fails_fast() {
    on_both(|server| {
        for (text, shown) in INVALID {
            let start = &message(text)[..TEXT_AT + shown];
            let what = |how: &str| format!("{text:?} {how} on {}", server.driver.word());
            closes_at_once(server, "main", &what("in a fragment"), &frame(TEXT, start), 1007);
            let longer = [start, &[b'x'; 50][..]].concat();
            let mut cut = frame(FIN | TEXT, &longer);
            cut.truncate(cut.len() - 50);
            closes_at_once(server, "main", &what("in a part of a frame"), &cut, 1007);
            // A first half of the frame arrives alone, so that the decoder keeps it.
            let parts = [frame(TEXT, &start[..TEXT_AT]), frame(CONTINUATION, &start[TEXT_AT..])].concat();
            closes_at_once(server, "main", &what("in a second fragment"), &parts, 1007);
        }
        for text in ["\u{e9}", "\u{20ac}", "\u{1f980}"] {
            for at in 1..text.len() {
                let bytes = message(text.as_bytes());
                let (first, second) = bytes.split_at(TEXT_AT + at);
                let what = format!("{at} bytes of {text:?} on {}", server.driver.word());
                is_waited_for(server, "main", &what, &frame(TEXT, first), &frame(FIN | CONTINUATION, second));
            }
        }
    });
}

/// P-CONN-7: text is refused for its bytes and not for a declared length that has not arrived.
#[test]
fn invalid_text_in_a_long_frame() {
    on_both(|server| {
        let mut bytes = header(FIN | TEXT, 20_000);
        // The mask of the header, from its first byte on.
        let mask = bytes[bytes.len() - 4..].to_vec();
        bytes.extend([b'{', b'"', 0xFF].iter().zip(&mask).map(|(byte, mask)| byte ^ mask));
        closes_at_once(server, "main", "3 of 20,000 bytes", &bytes, 1007);
    });
}
