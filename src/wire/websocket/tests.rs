//! The codec against hand-written frames, against a naive model, and against tungstenite.

use std::io::Cursor;

use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocket};

use super::*;
use crate::limits::MESSAGE_BYTES_MAX;

/// A client frame, built by hand from RFC 6455 section 5.2.
fn client_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A message without its borrow.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

fn own(message: Message<'_>) -> Owned {
    match message {
        Message::Text(text) => Owned::Text(text.into()),
        Message::Binary(bytes) => Owned::Binary(bytes.into()),
        Message::Ping(bytes) => Owned::Ping(bytes.into()),
        Message::Pong(bytes) => Owned::Pong(bytes.into()),
        Message::Close(code, reason) => Owned::Close(code, reason.into()),
    }
}

/// The messages before the error, if any, and the error.
type Outcome = (Vec<Owned>, Option<WebSocketError>);

/// Feeds one piece as a connection would: repeatedly while some of it is left.
fn feed(decoder: &mut Decoder, piece: &[u8], limit: usize, messages: &mut Vec<Owned>) -> Result<(), WebSocketError> {
    let mut piece = piece.to_vec();
    let mut rest = &mut piece[..];
    while !rest.is_empty() {
        let available = rest.len();
        let decoded = decoder.decode(rest, limit)?;
        assert!(decoded.message.is_some() || decoded.consumed == available, "all is consumed where no message came");
        messages.extend(decoded.message.map(own));
        let consumed = decoded.consumed;
        rest = &mut rest[consumed..];
    }
    Ok(())
}

fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Outcome {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in pieces {
        if let Err(error) = feed(&mut decoder, piece, limit, &mut messages) {
            return (messages, Some(error));
        }
    }
    (messages, None)
}

fn decode_all(bytes: &[u8]) -> Outcome {
    decode_pieces([bytes], MESSAGE_BYTES_MAX)
}

fn decode_bytewise(bytes: &[u8], limit: usize) -> Outcome {
    decode_pieces(bytes.chunks(1), limit)
}

/// How many bytes it takes until the error occurs, fed one by one.
fn bytes_until_error(bytes: &[u8]) -> Option<(usize, WebSocketError)> {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        if let Err(error) = feed(&mut decoder, &[*byte], MESSAGE_BYTES_MAX, &mut messages) {
            return Some((index + 1, error));
        }
    }
    None
}

/// P-CONN-7: the masked and the fragmented "Hello" of RFC 6455 section 5.7.
#[test]
fn rfc_examples() {
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode_all(&masked), (vec![Owned::Text("Hello".into())], None));
    let mut fragments = client_frame(0x01, [1, 2, 3, 4], b"Hel");
    fragments.extend(client_frame(0x89, [9, 9, 9, 9], b"between"));
    fragments.extend(client_frame(0x80, [5, 6, 7, 8], b"lo"));
    let expected = vec![Owned::Ping(b"between".to_vec()), Owned::Text("Hello".into())];
    assert_eq!(decode_all(&fragments), (expected.clone(), None));
    assert_eq!(decode_bytewise(&fragments, MESSAGE_BYTES_MAX), (expected, None));
}

/// P-CONN-7, T11: every rule of RFC 6455 sections 5 and 7 and the byte at which its violation is reported, fed one by
/// one.
#[test]
fn breaches_are_told_at_their_byte() {
    let in_message = |frame: &[u8]| [&client_frame(0x01, MASK, b"a")[..], frame].concat();
    let close = |payload: &[u8]| client_frame(0x88, MASK, payload);
    let text = |payload: &[u8]| client_frame(0x81, MASK, payload);
    let cases: [(&str, Vec<u8>, usize, u16); 27] = [
        ("RSV1", client_frame(0xc1, MASK, b"a"), 1, 1002),
        ("RSV2", client_frame(0xa1, MASK, b"a"), 1, 1002),
        ("RSV3", client_frame(0x91, MASK, b"a"), 1, 1002),
        ("opcode 3", client_frame(0x83, MASK, b"a"), 1, 1002),
        ("opcode 7", client_frame(0x87, MASK, b"a"), 1, 1002),
        ("opcode 11", client_frame(0x8b, MASK, b"a"), 1, 1002),
        ("opcode 15", client_frame(0x8f, MASK, b"a"), 1, 1002),
        ("unmasked", vec![0x81, 0x01, b'a'], 2, 1002),
        ("continuation of nothing", client_frame(0x80, MASK, b"a"), 1, 1002),
        ("text inside a text", in_message(&client_frame(0x81, MASK, b"a")), 8, 1002),
        ("binary inside a text", in_message(&client_frame(0x02, MASK, b"a")), 8, 1002),
        ("fragmented ping", client_frame(0x09, MASK, b"a"), 1, 1002),
        ("ping of 126 bytes", client_frame(0x89, MASK, &[0; 126]), 2, 1002),
        ("close of 126 bytes", client_frame(0x88, MASK, &[0; 126]), 2, 1002),
        ("16-bit length for 125", vec![0x82, 0xfe, 0, 125], 4, 1002),
        ("64-bit length for 65535", vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 10, 1002),
        ("64-bit length with its top bit", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 10, 1002),
        ("declared too long by one", vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1], 10, 1009),
        ("declared too long in 64 bits", vec![0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255], 10, 1009),
        ("close of one byte", close(&[3]), 7, 1002),
        ("close code 1005", close(&1005_u16.to_be_bytes()), 8, 1002),
        ("close reason", close(b"\x03\xe8\xff"), 9, 1007),
        ("text", text(b"ab\xff\xff"), 9, 1007),
        ("surrogate in text", text(b"a\xed\xa0\x80b"), 9, 1007),
        ("above U+10FFFF", text(b"\xf4\x90\x80\x80"), 8, 1007),
        ("incomplete character at the end", text(b"a\xc3"), 8, 1007),
        ("bad character over a border", in_message(&client_frame(0x00, MASK, b"\xc3\x28")), 15, 1007),
    ];
    for (name, bytes, at, code) in cases {
        let (told, error) = bytes_until_error(&bytes).expect(name);
        assert_eq!((told, error.close_code()), (at, code), "{name}: {error:?}");
        assert_eq!(decode_all(&bytes).1, Some(error), "{name}, whole");
    }
}

/// P-CONN-7: which codes a peer may close with (RFC 6455 section 7.4).
#[test]
fn close_codes() {
    let accepted = |code: u16| decode_all(&client_frame(0x88, MASK, &code.to_be_bytes())).1.is_none();
    let codes: Vec<u16> = (0..=u16::MAX).filter(|code| accepted(*code)).collect();
    let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
    assert_eq!(codes, expected);
    assert_eq!(decode_all(&client_frame(0x88, MASK, b"")), (vec![Owned::Close(None, String::new())], None));
    let reason = "é".repeat(61);
    let close = client_frame(0x88, MASK, &[&4001_u16.to_be_bytes()[..], reason.as_bytes()].concat());
    assert_eq!(decode_all(&close), (vec![Owned::Close(Some(4001), reason)], None));
}

/// P-IN-5: the limit is exact, for one frame and across fragments, and detected from the declared length.
#[test]
fn the_limit_is_exact_over_fragments() {
    let payload = vec![b'a'; MESSAGE_BYTES_MAX];
    assert_eq!(decode_all(&client_frame(0x81, MASK, &payload)).1, None);
    let (first, second) = payload.split_at(20_000);
    let fragments = [client_frame(0x01, MASK, first), client_frame(0x80, MASK, second)].concat();
    assert_eq!(decode_all(&fragments).0.len(), 1);
    let header_of_one_more = &client_frame(0x80, MASK, &vec![b'a'; second.len() + 1])[..4];
    let fragments = [&client_frame(0x01, MASK, first)[..], header_of_one_more].concat();
    assert_eq!(decode_all(&fragments), (vec![], Some(WebSocketError::TooBig)));
    // Control frames do not count towards the message between whose fragments they appear.
    let ping = client_frame(0x89, MASK, &[0; 125]);
    let fragments = [client_frame(0x01, MASK, first), ping, client_frame(0x80, MASK, second)].concat();
    assert_eq!(decode_all(&fragments).1, None);
}

/// P-IN-5, T7: the memory held never exceeds twice the received bytes, whatever length is declared.
#[test]
fn memory_follows_arrived_bytes() {
    let frame = client_frame(0x82, MASK, &[7; 1 << 20]);
    let mut decoder = Decoder::default();
    for (index, chunk) in frame.chunks(1_000).enumerate() {
        let mut chunk = chunk.to_vec();
        decoder.decode(&mut chunk, 1 << 20).expect("no breach");
        let held_bytes = decoder.held_bytes().expect("a partial frame");
        assert!(held_bytes <= 2 * 1_000 * (index + 1), "{held_bytes} after {index}");
    }
    decoder.release();
    assert_eq!(decoder.held_bytes(), None);
}

/// T8: a million empty fragments, and fragments of one byte, are detected long before they end; the default limit
/// allows 1,088 fragments.
#[test]
fn endless_fragments_are_refused() {
    for payload in [&b""[..], b"a"] {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        feed(&mut decoder, &client_frame(0x01, MASK, payload), MESSAGE_BYTES_MAX, &mut messages)
            .expect("a first fragment");
        let fragment = client_frame(0x00, MASK, payload);
        let refused = (2..=1_000_000).find_map(|count| {
            feed(&mut decoder, &fragment, MESSAGE_BYTES_MAX, &mut messages).err().map(|error| (count, error))
        });
        assert_eq!(refused, Some((1089, WebSocketError::TooManyFragments)));
        assert!(messages.is_empty());
    }
}

/// T8: the fragments of Autobahn 9.3.1 and 9.4.1 (4 MiB in pieces of 64 bytes) pass where the limit is 16 MiB.
#[test]
fn small_fragments_pass_under_a_large_limit() {
    let count = (4 << 20) / 64;
    let fragments: Vec<u8> = (0..count)
        .flat_map(|index| {
            let first = if index == 0 { 0x01 } else { 0x00 } | if index == count - 1 { 0x80 } else { 0x00 };
            client_frame(first, MASK, &[b'*'; 64])
        })
        .collect();
    assert_eq!(decode_pieces([&fragments[..]], 16 << 20), (vec![Owned::Text("*".repeat(4 << 20))], None));
}

/// A message that is complete in the input borrows from it, and leaves nothing behind (design: zero-copy receive); also
/// if its header arrived in parts.
#[test]
fn whole_messages_are_lent_from_the_input() {
    for already in 0..=8 {
        let mut bytes = client_frame(0x82, MASK, &[9; 1_000]);
        let mut decoder = Decoder::default();
        let (head, rest) = bytes.split_at_mut(already);
        assert!(decoder.decode(head, MESSAGE_BYTES_MAX).expect("no breach").message.is_none());
        let range = rest.as_ptr_range();
        let decoded = decoder.decode(rest, MESSAGE_BYTES_MAX).expect("no breach");
        let Some(Message::Binary(payload)) = decoded.message else { panic!("no message after {already}") };
        assert_eq!(payload, [9; 1_000]);
        assert!(range.contains(&payload.as_ptr()), "copied after {already} bytes");
        assert_eq!(decoder.held_bytes(), None);
    }
}

/// A decoder is idle exactly between messages; a control frame between fragments does not make it idle.
#[test]
fn idle_between_messages_alone() {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let mut is_idle_after = |piece: &[u8]| {
        feed(&mut decoder, piece, MESSAGE_BYTES_MAX, &mut messages).expect("no breach");
        decoder.is_idle()
    };
    assert!(is_idle_after(&client_frame(0x81, MASK, b"a")));
    assert!(!is_idle_after(&[0x81]));
    assert!(!is_idle_after(&[0x81, 1, 2, 3, 4]));
    assert!(is_idle_after(b"a"));
    assert!(!is_idle_after(&client_frame(0x01, MASK, b"a")));
    let ping = client_frame(0x89, MASK, b"ping");
    assert!(!is_idle_after(&ping[..8]));
    assert!(!is_idle_after(&ping[8..]));
    assert!(is_idle_after(&client_frame(0x80, MASK, b"")));
    assert_eq!(messages.len(), 4);
}

/// P-CLOSE-3: reasons are cut to 123 bytes at a character boundary; tungstenite can read the frame.
#[test]
fn close_reasons_are_cut() {
    for (reason, kept) in
        [("é".repeat(70), "é".repeat(61)), ("a".repeat(123), "a".repeat(123)), (String::new(), String::new())]
    {
        let mut bytes = Vec::new();
        encode_close(&mut bytes, 4100, &reason);
        let mut reader = WebSocket::from_raw_socket(Cursor::new(bytes), Role::Client, None);
        let Ok(tungstenite::Message::Close(Some(frame))) = reader.read() else { panic!("no close frame") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4100, kept.as_str()));
    }
}

/// One message and how it is sent over the wire.
#[derive(Clone, Debug)]
struct Sent {
    message: Owned,
    /// Where a data message is cut into fragments, as fractions of its length.
    cuts: Vec<f64>,
    /// A ping after each fragment.
    pings: bool,
    mask: [u8; 4],
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let code = prop_oneof![1000..=1003_u16, 1007..=1014_u16, 3000..=4999_u16];
    let message = prop_oneof![
        4 => "\\PC{0,80}".prop_map(Owned::Text),
        1 => "[a-zé€😀]{0,300}".prop_map(Owned::Text),
        2 => bytes(400).prop_map(Owned::Binary),
        1 => bytes(126).prop_map(Owned::Ping),
        1 => bytes(126).prop_map(Owned::Pong),
        1 => (code, "[ -~é]{0,60}").prop_map(|(code, reason)| Owned::Close(Some(code), reason)),
    ];
    (message, prop::collection::vec(0.0..=1.0, 0..5), any::<bool>(), any::<[u8; 4]>())
        .prop_map(|(message, cuts, pings, mask)| Sent { message, cuts, pings, mask })
}

/// Encodes a message for the wire, and the messages expected from decoding it.
fn encode_sent(sent: &Sent, wire: &mut Vec<u8>, expected: &mut Vec<Owned>) {
    let (opcode, payload) = match &sent.message {
        Owned::Text(text) => (1, text.clone().into_bytes()),
        Owned::Binary(bytes) => (2, bytes.clone()),
        Owned::Ping(bytes) => (9, bytes.clone()),
        Owned::Pong(bytes) => (10, bytes.clone()),
        Owned::Close(code, reason) => {
            (8, [&code.expect("always one here").to_be_bytes()[..], reason.as_bytes()].concat())
        }
    };
    if opcode >= 8 {
        wire.extend(client_frame(0x80 | opcode, sent.mask, &payload));
        expected.push(sent.message.clone());
        return;
    }
    let mut cuts: Vec<usize> = sent.cuts.iter().map(|cut| (cut * payload.len() as f64) as usize).collect();
    cuts.extend([0, payload.len()]);
    cuts.sort_unstable();
    for (index, pair) in cuts.windows(2).enumerate() {
        let is_last = index == cuts.len() - 2;
        let first = if index == 0 { opcode } else { 0 } | if is_last { 0x80 } else { 0 };
        wire.extend(client_frame(first, sent.mask, &payload[pair[0]..pair[1]]));
        if sent.pings && !is_last {
            wire.extend(client_frame(0x89, sent.mask, &[index as u8]));
            expected.push(Owned::Ping(vec![index as u8]));
        }
    }
    expected.push(sent.message.clone());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// P-CONN-7: random messages, fragmented at random, arrive as sent: in one piece, split in two anywhere, and in
    /// random pieces.
    #[test]
    fn messages_arrive_as_sent_however_split(sent in prop::collection::vec(sent(), 1..6), piece in 1..40_usize) {
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for sent in &sent {
            encode_sent(sent, &mut wire, &mut expected);
        }
        let expected = (expected, None);
        prop_assert_eq!(&decode_all(&wire), &expected);
        prop_assert_eq!(&decode_pieces(wire.chunks(piece), MESSAGE_BYTES_MAX), &expected);
        for at in 0..wire.len() {
            let (first, second) = wire.split_at(at);
            prop_assert_eq!(&decode_pieces([first, second], MESSAGE_BYTES_MAX), &expected, "split at {}", at);
        }
    }

    /// P-CONN-7, T7, T8, T11: a stream corrupted at one byte gives the same messages and the same error in one piece,
    /// in several pieces and bytewise.
    #[test]
    fn spoilt_streams_fail_alike_however_split(
        sent in prop::collection::vec(sent(), 1..6),
        at in any::<prop::sample::Index>(),
        spoilt: u8,
        limit in 0..600_usize,
        piece in 1..40_usize,
    ) {
        let mut wire = Vec::new();
        for sent in &sent {
            encode_sent(sent, &mut wire, &mut Vec::new());
        }
        let at = at.index(wire.len());
        wire[at] = spoilt;
        let whole = decode_pieces([&wire[..]], limit);
        prop_assert_eq!(&decode_pieces(wire.chunks(piece), limit), &whole);
        prop_assert_eq!(&decode_bytewise(&wire, limit), &whole);
    }

    /// P-CONN-7, T11: random bytes as fragmented text pass exactly when the standard library accepts them as UTF-8, and
    /// fail at the byte after which nothing could make them UTF-8.
    #[test]
    fn text_is_utf8_over_fragment_borders(
        payload in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xc3), Just(0xa9), Just(0xf0), Just(0x9f), Just(0xe2), b'a'..=b'z'], 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(payload.len() + 1);
        let (first, second) = payload.split_at(cut);
        let wire = [client_frame(0x01, MASK, first), client_frame(0x80, MASK, second)].concat();
        let is_hopeless = |end: &usize| std::str::from_utf8(&payload[..*end]).is_err_and(|error| error.error_len().is_some());
        // Bytes before the cut come after one header of 6 bytes, the others and the end after two.
        let expected = match (0..=payload.len()).find(is_hopeless) {
            Some(end) => Some(end + if end <= cut { 6 } else { 12 }),
            None => std::str::from_utf8(&payload).is_err().then_some(wire.len()),
        };
        let expected = expected.map(|at| (at, WebSocketError::InvalidUtf8));
        prop_assert_eq!(bytes_until_error(&wire), expected);
    }

    /// P-CONN-7: messages written by tungstenite's client are read as intended.
    #[test]
    fn reads_what_tungstenite_writes(messages in prop::collection::vec(sent(), 1..5)) {
        let mut writer = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, None);
        let mut expected = Vec::new();
        for sent in messages {
            let message = match sent.message.clone() {
                Owned::Text(text) => tungstenite::Message::Text(text.into()),
                Owned::Binary(bytes) => tungstenite::Message::Binary(bytes.into()),
                Owned::Ping(bytes) => tungstenite::Message::Ping(bytes.into()),
                Owned::Pong(bytes) => tungstenite::Message::Pong(bytes.into()),
                // It sends nothing after a Close.
                Owned::Close(..) => continue,
            };
            writer.send(message).expect("a vector takes all");
            expected.push(sent.message);
        }
        let wire = writer.get_ref().get_ref();
        prop_assert_eq!(&decode_all(wire), &(expected, None));
    }

    /// P-CONN-7: tungstenite's client can read the encoder's output, at every size of length field.
    #[test]
    fn tungstenite_reads_what_is_written(length in prop_oneof![0..300_usize, 65_500..65_600_usize], is_text: bool) {
        let mut wire = Vec::new();
        let payload = vec![b'x'; length];
        encode_frame(&mut wire, if is_text { Opcode::Text } else { Opcode::Binary }, &payload);
        encode_frame(&mut wire, Opcode::Ping, b"beat");
        let mut reader = WebSocket::from_raw_socket(Cursor::new(wire), Role::Client, None);
        let message = reader.read().expect("a frame");
        prop_assert_eq!(message.is_text(), is_text);
        prop_assert_eq!(message.into_data(), payload);
        prop_assert_eq!(reader.read().expect("a ping"), tungstenite::Message::Ping(b"beat"[..].into()));
    }
}
