//! WebSocket frames and messages (RFC 6455), both directions, without extensions.
//!
//! The [`Decoder`] lends a message that lies whole in the input without a copy and buffers anything else. What it
//! buffers grows with the bytes that arrived, never by what a frame declares; a declared length is held against the
//! limit before the first byte of its payload is kept (threat T7). Errors are told in stream order, as soon as the
//! bytes show them, so that input split anywhere gives the same messages and the same error.

use crate::limits::{CLOSE_REASON_BYTES_MAX, FRAGMENT_BYTES_MEAN_MIN, FRAGMENTS_MIN};

/// Frame types of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// Close handshake.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

impl Opcode {
    /// `None` for the reserved values 3 to 7 and 11 to 15.
    fn decode(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Control frames carry at most 125 bytes and are never fragmented (RFC 6455 section 5.5).
    fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A breach of RFC 6455 or of a limit; each maps to exactly one close code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WebSocketError {
    /// Reserved bit or opcode, unmasked frame, broken fragmentation, bad control frame, bad close payload: 1002.
    Protocol(&'static str),
    /// Text or a close reason that is not UTF-8: 1007.
    InvalidUtf8,
    /// The message is or would become longer than allowed, told from the declared length: 1009.
    TooBig,
    /// More fragments than the message's bytes justify (threat T8): 1009.
    TooManyFragments,
}

impl WebSocketError {
    /// The close code of RFC 6455 section 7.4.1 that answers this error.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooBig | Self::TooManyFragments => 1009,
        }
    }

    /// The reason that goes into the Close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Protocol(reason) => reason,
            Self::InvalidUtf8 => "text that is not UTF-8",
            Self::TooBig => "message too big",
            Self::TooManyFragments => "message in too many fragments",
        }
    }
}

/// One message or control frame from the client.
#[derive(Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// Whole text message.
    Text(&'a str),
    /// Whole binary message.
    Binary(&'a [u8]),
    /// Ping with its payload (at most 125 bytes).
    Ping(&'a [u8]),
    /// Pong with its payload.
    Pong(&'a [u8]),
    /// Close with code (`None` for an empty payload) and reason.
    Close(Option<u16>, &'a str),
}

/// What one call of [`Decoder::decode`] gave.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Bytes of the input that are done with; call again with the rest while there is any.
    pub consumed: usize,
    /// A message, if one became whole. Without one, all of the input was consumed.
    pub message: Option<Message<'a>>,
}

/// Reads messages out of a stream of client bytes. Between whole messages it owns no memory, save that of a message
/// that it lent from its buffer: that is given back by the next call of `decode`, by `release` or by dropping it.
#[derive(Debug, Default)]
pub struct Decoder {
    held: Option<Box<Held>>,
}

/// Lives inline in every connection.
const _: () = assert!(size_of::<Decoder>() == 8);

/// What a decoder keeps while a header, a frame or a fragmented message is incomplete.
///
/// ```text
///            header whole                 payload whole, FIN
/// (no frame) ------------> frame: Some -----------------------> message lent, idle
///     ^                        |
///     +------------------------+  payload whole, no FIN: `fragmented` stays Some
/// ```
#[derive(Debug, Default)]
struct Held {
    /// The data message so far, unmasked, then the payload so far of a control frame that came between its fragments.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that belong to the data message.
    message_bytes: usize,
    /// Bytes of the data message known to be whole UTF-8 characters; the rest, at most 3, may become one.
    utf8_bytes: usize,
    /// Fragments of the data message that are whole.
    fragments: usize,
    /// Type of a data message that has begun and awaits more of its frame or further fragments.
    kind: Option<DataKind>,
    /// The frame whose payload is incomplete.
    frame: Option<Frame>,
    /// Start of a header that is incomplete.
    header: [u8; HEADER_BYTES_MAX],
    /// How many bytes of `header` have arrived.
    header_bytes: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DataKind {
    Text,
    Binary,
}

/// A decoded frame header and how much of its payload has arrived.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    payload_bytes: usize,
    received_bytes: usize,
}

/// Where a whole message lies, so that it is lent only once all changes are done.
enum Whole {
    Input { opcode: Opcode, start: usize },
    BufferedData(DataKind),
    BufferedControl(Opcode),
}

impl Decoder {
    /// Takes input, unmasking in place. A message that lies whole in `input` is lent from it without a copy.
    /// `message_bytes_max` bounds the payload of a message over all its fragments.
    ///
    /// # Errors
    /// The first breach; the decoder must not be used after it.
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Decoded<'a>, WebSocketError> {
        self.release();
        let mut consumed = 0;
        let whole = loop {
            let Some(frame) = self.take_header(input, &mut consumed, message_bytes_max)? else {
                return Ok(Decoded { consumed, message: None });
            };
            if let Some(whole) = self.take_payload(frame, input, &mut consumed)? {
                break whole;
            }
            if consumed == input.len() {
                return Ok(Decoded { consumed, message: None });
            }
        };
        let buffer = self.held.as_ref().map_or(&[][..], |held| &held.buffer);
        let message = match whole {
            Whole::Input { opcode, start } => lend(opcode, &input[start..consumed])?,
            Whole::BufferedData(kind) => lend(kind.opcode(), buffer)?,
            Whole::BufferedControl(opcode) => {
                let message_bytes = self.held.as_ref().map_or(0, |held| held.message_bytes);
                lend(opcode, &buffer[message_bytes..])?
            }
        };
        Ok(Decoded { consumed, message: Some(message) })
    }

    /// True when nothing of a frame or message is held, so that the decoder may be dropped.
    pub fn is_idle(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.is_spent())
    }

    /// Gives back the memory of what the last call of `decode` lent. Nothing that is still incomplete is lost.
    pub fn release(&mut self) {
        if let Some(held) = &mut self.held {
            if held.is_spent() {
                self.held = None;
            } else if held.frame.is_none() {
                held.buffer.truncate(held.message_bytes);
            }
        }
    }

    /// The frame at hand: the one under way, or the next one once its header is whole.
    fn take_header(
        &mut self,
        input: &[u8],
        consumed: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Frame>, WebSocketError> {
        let Some(held) = &mut self.held else {
            let rest = &input[*consumed..];
            return match decode_header(rest, None, message_bytes_max)? {
                Header::Whole(frame, header_bytes) => {
                    *consumed += header_bytes;
                    Ok(Some(frame))
                }
                Header::Partial if rest.is_empty() => Ok(None),
                Header::Partial => {
                    let mut held = Box::<Held>::default();
                    held.header[..rest.len()].copy_from_slice(rest);
                    held.header_bytes = rest.len();
                    self.held = Some(held);
                    *consumed = input.len();
                    Ok(None)
                }
            };
        };
        if let Some(frame) = held.frame {
            return Ok(Some(frame));
        }
        held.take_header(input, consumed, message_bytes_max)
    }

    /// Unmasks what has arrived of the payload. Gives where the message lies if this made one whole.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        consumed: &mut usize,
    ) -> Result<Option<Whole>, WebSocketError> {
        let start = *consumed;
        let missing = frame.payload_bytes - frame.received_bytes;
        let end = start + missing.min(input.len() - start);
        let arrived = &mut input[start..end];
        let mut mask = frame.mask;
        mask.rotate_left(frame.received_bytes % 4);
        unmask(arrived, mask);
        *consumed = end;
        let is_lendable = frame.opcode.is_control() || (frame.is_final && frame.opcode != Opcode::Continuation);
        if is_lendable && frame.received_bytes == 0 && arrived.len() == frame.payload_bytes {
            self.forget_frame(frame.opcode);
            return Ok(Some(Whole::Input { opcode: frame.opcode, start }));
        }
        frame.received_bytes += arrived.len();
        self.held.get_or_insert_default().take_payload(frame, arrived)
    }

    /// A frame is lent from the input: its header may have come in parts, which need no memory any more.
    fn forget_frame(&mut self, opcode: Opcode) {
        if let Some(held) = &mut self.held {
            held.frame = None;
            if !opcode.is_control() || held.is_spent() {
                self.held = None;
            }
        }
    }
}

impl Held {
    /// True when what it holds was lent and is waited for no more.
    fn is_spent(&self) -> bool {
        self.header_bytes == 0 && self.frame.is_none() && self.kind.is_none()
    }

    /// Completes a header from the input.
    fn take_header(
        &mut self,
        input: &[u8],
        consumed: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Frame>, WebSocketError> {
        let rest = &input[*consumed..];
        let known = self.header_bytes;
        let copied = rest.len().min(HEADER_BYTES_MAX - known);
        self.header[known..known + copied].copy_from_slice(&rest[..copied]);
        let fragmented = self.kind.map(|_| (self.message_bytes, self.fragments));
        match decode_header(&self.header[..known + copied], fragmented, message_bytes_max)? {
            Header::Whole(frame, header_bytes) => {
                *consumed += header_bytes - known;
                self.header_bytes = 0;
                Ok(Some(frame))
            }
            Header::Partial => {
                *consumed += copied;
                self.header_bytes += copied;
                Ok(None)
            }
        }
    }

    /// Keeps a part of a payload, already counted in `frame.received_bytes`.
    fn take_payload(&mut self, frame: Frame, arrived: &[u8]) -> Result<Option<Whole>, WebSocketError> {
        let is_whole = frame.received_bytes == frame.payload_bytes;
        self.grow(arrived.len(), frame.payload_bytes - frame.received_bytes);
        self.buffer.extend_from_slice(arrived);
        self.frame = if is_whole { None } else { Some(frame) };
        if frame.opcode.is_control() {
            return Ok(is_whole.then_some(Whole::BufferedControl(frame.opcode)));
        }
        self.fragments += usize::from(is_whole);
        self.message_bytes = self.buffer.len();
        let kind =
            *self.kind.get_or_insert(if frame.opcode == Opcode::Text { DataKind::Text } else { DataKind::Binary });
        let is_end = is_whole && frame.is_final;
        if kind == DataKind::Text {
            self.check_utf8(is_end)?;
        }
        if !is_end {
            return Ok(None);
        }
        self.kind = None;
        Ok(Some(Whole::BufferedData(kind)))
    }

    /// Makes room for bytes that arrived: doubled like any vector, but never beyond what the frame still declares.
    fn grow(&mut self, arrived_bytes: usize, missing_bytes: usize) {
        let needed = self.buffer.len() + arrived_bytes;
        if needed > self.buffer.capacity() {
            let doubled = needed.max(2 * self.buffer.capacity()).min(needed + missing_bytes);
            self.buffer.reserve_exact(doubled - self.buffer.len());
        }
    }

    /// Fails as soon as the text cannot become UTF-8; at its end also when a character is incomplete
    /// (RFC 6455 section 8.1).
    fn check_utf8(&mut self, is_end: bool) -> Result<(), WebSocketError> {
        match simdutf8::compat::from_utf8(&self.buffer[self.utf8_bytes..]) {
            Ok(text) => self.utf8_bytes += text.len(),
            Err(error) if error.error_len().is_some() || is_end => {
                return Err(WebSocketError::InvalidUtf8);
            }
            Err(error) => self.utf8_bytes += error.valid_up_to(),
        }
        Ok(())
    }
}

impl DataKind {
    fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// What the bytes of a header gave.
enum Header {
    /// More bytes are needed; those that are there break no rule.
    Partial,
    /// The header and how long it is.
    Whole(Frame, usize),
}

/// Decodes a frame header (RFC 6455 section 5.2). `fragmented` holds the bytes and fragments of a message under way.
/// Each rule is checked as soon as its bytes are there, in their order.
fn decode_header(
    bytes: &[u8],
    fragmented: Option<(usize, usize)>,
    message_bytes_max: usize,
) -> Result<Header, WebSocketError> {
    let Some(&first) = bytes.first() else {
        return Ok(Header::Partial);
    };
    let (opcode, is_final) = decode_first_byte(first, fragmented.is_some())?;
    if !opcode.is_control() && fragmented.is_some_and(|(_, fragments)| fragments >= fragments_max(message_bytes_max)) {
        return Err(WebSocketError::TooManyFragments);
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(Header::Partial);
    };
    if second & 0x80 == 0 {
        return Err(WebSocketError::Protocol("frames from a client must be masked"));
    }
    let short = second & 0x7f;
    if opcode.is_control() && short > 125 {
        return Err(WebSocketError::Protocol("a control frame carries at most 125 bytes"));
    }
    let Some((payload_bytes, length_end)) = decode_length(bytes, short)? else {
        return Ok(Header::Partial);
    };
    let message_bytes = if opcode.is_control() { 0 } else { fragmented.map_or(0, |(bytes, _)| bytes) };
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| WebSocketError::TooBig)?;
    if !opcode.is_control() && payload_bytes > message_bytes_max.saturating_sub(message_bytes) {
        return Err(WebSocketError::TooBig);
    }
    let Some(mask) = bytes.get(length_end..).and_then(|rest| rest.first_chunk::<4>()) else {
        return Ok(Header::Partial);
    };
    let frame = Frame { opcode, is_final, mask: *mask, payload_bytes, received_bytes: 0 };
    Ok(Header::Whole(frame, length_end + 4))
}

/// FIN, reserved bits, opcode, and whether the opcode may stand here.
fn decode_first_byte(byte: u8, is_fragmented: bool) -> Result<(Opcode, bool), WebSocketError> {
    if byte & 0x70 != 0 {
        return Err(WebSocketError::Protocol("a reserved bit is set, but no extension was negotiated"));
    }
    let is_final = byte & 0x80 != 0;
    let opcode = Opcode::decode(byte & 0x0f).ok_or(WebSocketError::Protocol("reserved opcode"))?;
    match opcode {
        Opcode::Continuation if !is_fragmented => {
            Err(WebSocketError::Protocol("continuation without a message to continue"))
        }
        Opcode::Text | Opcode::Binary if is_fragmented => {
            Err(WebSocketError::Protocol("a new message began inside a fragmented one"))
        }
        Opcode::Close | Opcode::Ping | Opcode::Pong if !is_final => {
            Err(WebSocketError::Protocol("fragmented control frame"))
        }
        Opcode::Continuation | Opcode::Text | Opcode::Binary | Opcode::Close | Opcode::Ping | Opcode::Pong => {
            Ok((opcode, is_final))
        }
    }
}

/// The payload length and where its encoding ends; `None` while bytes of it are missing. The minimal encoding must be
/// used and the top bit of 64 must be 0 (RFC 6455 section 5.2).
fn decode_length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, WebSocketError> {
    let extended = bytes.get(2..).unwrap_or_default();
    let (length, length_end, smallest) = match short {
        0..=125 => (u64::from(short), 2, 0),
        126 => match extended.first_chunk::<2>() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4, 126),
            None => return Ok(None),
        },
        _ => match extended.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length), 10, 1 << 16),
            None => return Ok(None),
        },
    };
    if length < smallest {
        return Err(WebSocketError::Protocol("the payload length is not in its minimal encoding"));
    }
    if length >> 63 != 0 {
        return Err(WebSocketError::Protocol("the payload length has its top bit set"));
    }
    Ok(Some((length, length_end)))
}

/// How many fragments a message may have: in proportion to the bytes it may have, so that empty and tiny fragments
/// cannot go on without end (threat T8).
fn fragments_max(message_bytes_max: usize) -> usize {
    FRAGMENTS_MIN + message_bytes_max / FRAGMENT_BYTES_MEAN_MIN
}

/// Applies the masking key, which is turned so that its first byte belongs to the first byte given.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let pattern = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ pattern).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(pattern.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// A whole payload as the message that its frame type says.
fn lend(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, WebSocketError> {
    match opcode {
        Opcode::Text => Ok(Message::Text(text(payload)?)),
        // A continuation is lent under the type of its message; the type is never lost before.
        Opcode::Binary | Opcode::Continuation => Ok(Message::Binary(payload)),
        Opcode::Ping => Ok(Message::Ping(payload)),
        Opcode::Pong => Ok(Message::Pong(payload)),
        Opcode::Close => decode_close(payload),
    }
}

fn text(payload: &[u8]) -> Result<&str, WebSocketError> {
    simdutf8::basic::from_utf8(payload).map_err(|_| WebSocketError::InvalidUtf8)
}

/// Code and reason of a Close frame (RFC 6455 section 5.5.1).
fn decode_close(payload: &[u8]) -> Result<Message<'_>, WebSocketError> {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => {
            let code = u16::from_be_bytes(*code);
            if !is_close_code(code) {
                return Err(WebSocketError::Protocol("close code that must not be sent"));
            }
            Ok(Message::Close(Some(code), text(reason)?))
        }
        None if payload.is_empty() => Ok(Message::Close(None, "")),
        None => Err(WebSocketError::Protocol("a Close frame of one byte")),
    }
}

/// Codes that an endpoint may send: those of RFC 6455 section 7.4.1 and of IANA's registry up to 1014, without the
/// ones that only stand for what never was on the wire (1004, 1005, 1006), and the ranges for libraries and users.
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends the header of one unmasked, unfragmented server frame.
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    let first = 0x80 | opcode as u8;
    match payload_bytes {
        0..=125 => out.extend_from_slice(&[first, payload_bytes as u8]),
        126..=0xffff => {
            let [high, low] = (payload_bytes as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Appends one whole server frame.
pub fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(SERVER_HEADER_BYTES_MAX + payload.len());
    encode_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a Close frame; the reason is cut to 123 bytes at a character boundary (P-CLOSE-3).
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    encode_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Longest header of a client's frame: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Longest header of a server's frame, which has no mask.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

#[cfg(test)]
mod tests;
