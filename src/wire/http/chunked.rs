//! The chunked transfer coding (RFC 9112 section 7.1); every byte is examined once.
//!
//! Chunk extensions and trailers are checked and dropped; together they are bounded like a head. Line ends must be CR
//! LF: a parser that accepts a bare LF here can read a different body from the same bytes.

use super::head::is_token_byte;
use super::{HttpError, RequestLimits};

/// Position of the next byte in the coding.
///
/// ```text
/// Size --;--> Extension --CR--> SizeEnd --LF--> Data --> DataEnd --> DataLineEnd --> Size
///   \-----------CR-------------/     \--LF, size 0--> TrailerStart <--> TrailerName, TrailerValue, TrailerLineEnd
///                                                          \--CR--> End --LF--> done
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Size { size: usize, digits: u8 },
    Extension { size: usize },
    SizeEnd { size: usize },
    Data { missing: usize },
    DataEnd,
    DataLineEnd,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineEnd,
    End,
    Done,
}

/// A chunked body in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkedDecoder {
    state: State,
    /// Bytes of extensions and trailers so far.
    overhead_bytes: usize,
}

impl ChunkedDecoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, overhead_bytes: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes input up to the end of the body and appends its data to `out`, where `body_start` is where the body began.
    /// `discarded` bytes of the body are no longer in `out`. Returns how many bytes of the input were taken.
    ///
    /// # Errors
    /// `BadRequest` for input that violates the coding, `BodyTooLarge` from the size of a chunk, before its data,
    /// `HeadTooLarge` for endless extensions and trailers.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        body_start: usize,
        discarded: usize,
        limits: &RequestLimits,
    ) -> Result<usize, HttpError> {
        let mut taken = 0;
        while let Some(&byte) = input.get(taken) {
            if let State::Data { missing } = self.state {
                let arrived = &input[taken..input.len().min(taken + missing)];
                out.extend_from_slice(arrived);
                taken += arrived.len();
                let missing = missing - arrived.len();
                self.state = if missing == 0 { State::DataEnd } else { State::Data { missing } };
                continue;
            }
            if self.is_done() {
                break;
            }
            taken += 1;
            let room = limits.body_bytes_max.saturating_sub(discarded + out.len() - body_start);
            self.state = next_state(self.state, byte, room, limits)?;
            if matches!(
                self.state,
                State::Extension { .. } | State::TrailerName | State::TrailerValue | State::TrailerLineEnd
            ) {
                self.overhead_bytes += 1;
                if self.overhead_bytes > limits.head_bytes_max {
                    return Err(HttpError::HeadTooLarge);
                }
            }
        }
        Ok(taken)
    }
}

/// The state after one byte of framing. `room` is the number of bytes by which the body may still grow.
fn next_state(state: State, byte: u8, room: usize, limits: &RequestLimits) -> Result<State, HttpError> {
    match (state, byte) {
        (State::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
            if digits == SIZE_DIGITS_MAX {
                return Err(HttpError::BadRequest("a chunk size with too many digits"));
            }
            let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
            let size = size.saturating_mul(16).saturating_add(digit);
            if size > room {
                return Err(HttpError::BodyTooLarge(limits.body_bytes_max));
            }
            Ok(State::Size { size, digits: digits + 1 })
        }
        (State::Size { size, digits: 1.. }, b';') => Ok(State::Extension { size }),
        (State::Size { size, digits: 1.. } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
        (State::Size { .. }, _) => Err(HttpError::BadRequest("a chunk size that is not a number")),
        (State::Extension { size }, byte) if is_text(byte) => Ok(State::Extension { size }),
        (State::SizeEnd { size: 0 }, b'\n') => Ok(State::TrailerStart),
        (State::SizeEnd { size }, b'\n') => Ok(State::Data { missing: size }),
        (State::DataEnd, b'\r') => Ok(State::DataLineEnd),
        (State::DataLineEnd, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
        (State::TrailerStart, b'\r') => Ok(State::End),
        (State::TrailerStart | State::TrailerName, byte) if is_token_byte(byte) => Ok(State::TrailerName),
        (State::TrailerName, b':') => Ok(State::TrailerValue),
        (State::TrailerValue, b'\r') => Ok(State::TrailerLineEnd),
        (State::TrailerValue, byte) if is_text(byte) => Ok(State::TrailerValue),
        (State::TrailerLineEnd, b'\n') => Ok(State::TrailerStart),
        (State::End, b'\n') => Ok(State::Done),
        (State::DataEnd | State::DataLineEnd, _) => Err(HttpError::BadRequest("a chunk longer than its size")),
        (State::Extension { .. } | State::SizeEnd { .. }, _) => {
            Err(HttpError::BadRequest("a malformed chunk extension"))
        }
        (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLineEnd | State::End, _) => {
            Err(HttpError::BadRequest("a malformed trailer"))
        }
        (State::Data { .. } | State::Done, _) => {
            unreachable!("data is taken in bulk, and nothing after the end")
        }
    }
}

/// Characters of header values and extensions: visible ones, space, tab, and those above ASCII.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The number of digits of a 64-bit size; leading zeros count.
const SIZE_DIGITS_MAX: u8 = 16;
