//! Client frames (RFC 6455): the decoder against a reader that sees the complete stream at once, and the same stream
//! split anywhere.

use relay::limits::{FRAGMENT_BYTES_MEAN_MIN, FRAGMENTS_MIN};
use relay::wire::websocket::{Decoder, Message, Opcode, encode_close, encode_frame};

use crate::input::{Input, cuts};

/// An owned copy of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Event {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// The messages before the first violation, and the close code that answers it.
type Outcome = (Vec<Event>, Option<u16>);

/// P-CONN-7, P-IN-5, threats T7, T8, T9, T11.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let bytes_max = *input.pick(&[0, 1, 125, 126, 300, 24_576, 70_000]);
    let seed = input.word();
    let stream = if input.below(4) == 0 { input.rest().to_vec() } else { frames(input) };
    let wanted = reference(&stream, bytes_max);
    for pieces in cuts(&stream, seed) {
        assert_eq!(decode(&pieces, bytes_max), wanted, "{} pieces, at most {bytes_max} bytes", pieces.len());
    }
    for event in &wanted.0 {
        check_encoder(event);
    }
}

/// Feeds the pieces; also checks what the decoder reports about itself.
fn decode(pieces: &[&[u8]], bytes_max: usize) -> Outcome {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = piece.as_mut_slice();
        while !rest.is_empty() {
            let decoded = match decoder.decode(rest, bytes_max) {
                Ok(decoded) => decoded,
                Err(error) => return (events, Some(error.close_code())),
            };
            let consumed = decoded.consumed;
            match decoded.message {
                Some(Message::Text(text)) => events.push(Event::Text(text.into())),
                Some(Message::Binary(bytes)) => events.push(Event::Binary(bytes.into())),
                Some(Message::Ping(bytes)) => events.push(Event::Ping(bytes.into())),
                Some(Message::Pong(bytes)) => events.push(Event::Pong(bytes.into())),
                Some(Message::Close(code, reason)) => events.push(Event::Close(code, reason.into())),
                None => assert_eq!(consumed, rest.len(), "without a message all is consumed"),
            }
            assert!(consumed > 0, "a call makes progress");
            rest = &mut rest[consumed..];
        }
    }
    (events, None)
}

/// Reads a stream by the letter of RFC 6455, with all of it available.
fn reference(stream: &[u8], bytes_max: usize) -> Outcome {
    let mut events = Vec::new();
    let code = read_frames(stream, bytes_max, &mut events).err();
    (events, code)
}

/// `Err` is the close code of the first violation.
fn read_frames(mut rest: &[u8], bytes_max: usize, events: &mut Vec<Event>) -> Result<(), u16> {
    // Type, bytes and complete fragments of an unfinished message.
    let mut message: Option<(u8, Vec<u8>, usize)> = None;
    while let Some(&first) = rest.first() {
        let (opcode, is_final) = (first & 0xF, first & 0x80 != 0);
        let is_control = opcode >= 8;
        if first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) {
            return Err(1002);
        }
        if (is_control && !is_final) || (!is_control && (opcode == 0) != message.is_some()) {
            return Err(1002);
        }
        let fragments = message.as_ref().map_or(0, |(_, _, fragments)| *fragments);
        if !is_control && fragments >= FRAGMENTS_MIN + bytes_max / FRAGMENT_BYTES_MEAN_MIN {
            return Err(1009);
        }
        let Some(&second) = rest.get(1) else { return Ok(()) };
        if second & 0x80 == 0 || (is_control && second & 0x7F > 125) {
            return Err(1002);
        }
        let long = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(digits) = rest.get(2..2 + long) else { return Ok(()) };
        let length = match long {
            0 => u64::from(second & 0x7F),
            _ => digits.iter().fold(0, |length, digit| length << 8 | u64::from(*digit)),
        };
        if (long == 2 && length < 126) || (long == 8 && (length <= 0xFFFF || length >= 1 << 63)) {
            return Err(1002);
        }
        let before = if is_control { 0 } else { message.as_ref().map_or(0, |(_, bytes, _)| bytes.len()) };
        if !is_control && length > bytes_max.saturating_sub(before) as u64 {
            return Err(1009);
        }
        let length = length as usize;
        let Some(mask) = rest.get(2 + long..6 + long) else { return Ok(()) };
        let arrived = &rest[6 + long..rest.len().min(6 + long + length)];
        let payload: Vec<u8> = arrived.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        let is_whole = payload.len() == length;
        rest = &rest[6 + long + payload.len()..];
        if is_control {
            if is_whole {
                events.push(read_control(opcode, &payload)?);
            }
            continue;
        }
        let (kind, mut data, fragments) = message.take().unwrap_or((opcode, Vec::new(), 0));
        data.extend(payload);
        if kind == 1 {
            check_text(&data, is_whole && is_final)?;
        }
        match (is_whole && is_final, kind) {
            (false, _) => message = Some((kind, data, fragments + 1)),
            (true, 1) => events.push(Event::Text(String::from_utf8(data).map_err(|_| 1007_u16)?)),
            (true, _) => events.push(Event::Binary(data)),
        }
    }
    Ok(())
}

/// Text is refused as soon as no continuation can make it UTF-8 (RFC 6455 section 8.1).
fn check_text(bytes: &[u8], is_end: bool) -> Result<(), u16> {
    match std::str::from_utf8(bytes) {
        Err(error) if is_end || error.error_len().is_some() => Err(1007),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn read_control(opcode: u8, payload: &[u8]) -> Result<Event, u16> {
    match (opcode, payload) {
        (9, _) => Ok(Event::Ping(payload.into())),
        (10, _) => Ok(Event::Pong(payload.into())),
        (_, []) => Ok(Event::Close(None, String::new())),
        (_, [_]) => Err(1002),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(1002);
            }
            Ok(Event::Close(Some(code), String::from_utf8(reason.into()).map_err(|_| 1007_u16)?))
        }
    }
}

/// A message that the server writes reads as that message, once it is masked as a client's frame is.
fn check_encoder(event: &Event) {
    let mut frame = Vec::new();
    match event {
        Event::Text(text) => encode_frame(&mut frame, Opcode::Text, text.as_bytes()),
        Event::Binary(bytes) => encode_frame(&mut frame, Opcode::Binary, bytes),
        Event::Ping(bytes) => encode_frame(&mut frame, Opcode::Ping, bytes),
        Event::Pong(bytes) => encode_frame(&mut frame, Opcode::Pong, bytes),
        Event::Close(Some(code), reason) => encode_close(&mut frame, *code, reason),
        Event::Close(None, _) => return,
    }
    assert_eq!(frame[1] & 0x80, 0, "a server's frame is not masked");
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame[1] |= 0x80;
    frame.splice(header..header, [0; 4]);
    assert_eq!(reference(&frame, usize::MAX), (vec![event.clone()], None));
}

/// A stream of frames derived from an input: most are well-formed, so that the fuzzer gets past the first header.
fn frames(mut input: Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() {
        let first = input.byte();
        let style = input.byte();
        let mask = [style, style.wrapping_mul(3), 0, style ^ 0x5A];
        let payload = match style % 8 {
            0 => vec![b'x'; (usize::from(input.word()) << 1) >> input.below(16)],
            1 => "a\u{e9}\u{20ac}\u{1f980}".repeat(1 + input.below(40)).into_bytes(),
            _ => input.line().to_vec(),
        };
        // Bits of FIN and opcode come from the input; reserved bits and opcodes are rare.
        stream.push(if style & 0xC0 == 0 { first } else { first & 0x8B });
        match (payload.len(), style & 0x38) {
            (length @ 0..=125, 1..) => stream.push(0x80 | length as u8),
            (length @ 0..=0xFFFF, _) => {
                stream.push(0x80 | 126);
                stream.extend((length as u16).to_be_bytes());
            }
            (length, _) => {
                stream.push(0x80 | 127);
                stream.extend((length as u64).to_be_bytes());
            }
        }
        stream.extend(mask);
        stream.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    stream
}
