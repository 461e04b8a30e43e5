//! Decodes messages from a stream of bytes.

use super::header::{Frame, HEADER_BYTES_MAX, Header, decode_header};
use super::{Message, Opcode, WebSocketError, lend};

/// The result of one call of [`Decoder::decode`].
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Bytes of the input that were consumed; call again with the rest while there is any.
    pub consumed: usize,
    /// A message, if one became complete. Without one, all of the input was consumed.
    pub message: Option<Message<'a>>,
}

/// Decodes messages from a stream of client bytes. Between complete messages it owns no memory, except for a message
/// that borrows from its buffer: that memory is released by the next call of `decode`, by `release` or by dropping the
/// decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    held: Option<Box<Held>>,
}

/// Stored inline in every connection.
const _: () = assert!(size_of::<Decoder>() == 8);

/// The state that a decoder keeps while a header, a frame or a fragmented message is incomplete.
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
    /// Bytes of the data message known to be complete UTF-8 characters; the rest, at most 3, may become one.
    utf8_bytes: usize,
    /// Fragments of the data message that are complete.
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

/// Where a complete message is, so that it is borrowed only once all changes are done.
enum Whole {
    Input { opcode: Opcode, start: usize },
    BufferedData(DataKind),
    BufferedControl(Opcode),
}

impl Decoder {
    /// Takes input, unmasking in place. A message that is complete in `input` borrows from it without a copy.
    /// `message_bytes_max` bounds the payload of a message over all its fragments.
    ///
    /// # Errors
    /// The first violation; the decoder must not be used after it.
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

    /// Releases the memory of what the last call of `decode` returned. Nothing that is still incomplete is lost.
    pub fn release(&mut self) {
        if let Some(held) = &mut self.held {
            if held.is_spent() {
                self.held = None;
            } else if held.frame.is_none() {
                held.buffer.truncate(held.message_bytes);
            }
        }
    }

    /// Bytes of memory kept for messages; `None` if not even the box is allocated.
    pub fn held_bytes(&self) -> Option<usize> {
        self.held.as_ref().map(|held| held.buffer.capacity())
    }

    /// The current frame: the one in progress, or the next one once its header is complete.
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

    /// Unmasks the received part of the payload. Returns where the message is if this made one complete.
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

    /// A frame is borrowed from the input: its header may have arrived in parts, which need no memory any more.
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
    /// True when its contents were returned and no more input is expected for them.
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
        self.grow(&frame, arrived.len());
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

    /// Makes room for received bytes: doubles the capacity, so that many small fragments cost one copy each on average,
    /// but in the last frame of a message never exceeds its end.
    fn grow(&mut self, frame: &Frame, arrived_bytes: usize) {
        let needed = self.buffer.len() + arrived_bytes;
        if needed > self.buffer.capacity() {
            let is_last = frame.is_final && !frame.opcode.is_control();
            let end = if is_last { needed + frame.payload_bytes - frame.received_bytes } else { usize::MAX };
            let doubled = needed.max(2 * self.buffer.capacity()).min(end);
            self.buffer.reserve_exact(doubled - self.buffer.len());
        }
    }

    /// Fails as soon as the text cannot become UTF-8; at its end also when a character is incomplete (RFC 6455 section
    /// 8.1).
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

/// Applies the masking key, which is rotated so that its first byte applies to the first byte given.
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
