//! The mark in every payload: which run, publisher, sequence, intended send time and channel. It is plain ASCII of a fixed
//! width without a character that JSON escapes, so every server sends it verbatim, at a position that is the
//! same in every frame of a channel.
//!
//! `lg1.RRRRRRRR.PPPPPPPP.SSSSSSSS.TTTTTTTTTTTTTTTT.CCCCCC.` and filler up to the payload's size.

/// Length of the mark.
pub(crate) const STAMP_BYTES: usize = MARKER.len() + 9 + 9 + 9 + 17 + 7;
/// How a mark begins.
pub(crate) const MARKER: &[u8] = b"lg1.";

/// The fields of the mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    /// Distinguishes this run's events from those of another run on the same channel.
    pub(crate) run: u32,
    pub(crate) publisher: u32,
    /// Counts from 0 for each publisher and channel.
    pub(crate) sequence: u32,
    /// The intended send time, in nanoseconds of the monotonic clock.
    pub(crate) intended_ns: u64,
    /// Index of the channel, below 2^24.
    pub(crate) channel: u32,
}

impl Stamp {
    /// Appends the mark and filler, `payload_bytes` in all, or only the mark if that is longer.
    pub(crate) fn write(&self, payload_bytes: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(MARKER);
        let fields = [
            (u64::from(self.run), 8),
            (u64::from(self.publisher), 8),
            (u64::from(self.sequence), 8),
            (self.intended_ns, 16),
            (u64::from(self.channel), 6),
        ];
        for (value, digits) in fields {
            append_hex(value, digits, out);
        }
        append_filler(begin, payload_bytes, out);
    }

    /// Reads the mark that `bytes` begin with.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(..STAMP_BYTES)?.strip_prefix(MARKER)?;
        let mut field = |digits: usize| read_hex(&mut rest, digits);
        Some(Self {
            run: u32::try_from(field(8)?).ok()?,
            publisher: u32::try_from(field(8)?).ok()?,
            sequence: u32::try_from(field(8)?).ok()?,
            intended_ns: field(16)?,
            channel: u32::try_from(field(6)?).ok()?,
        })
    }
}

/// Appends a number of so many digits, and a point.
pub(super) fn append_hex(value: u64, digits: u32, out: &mut Vec<u8>) {
    for digit in (0..digits).rev() {
        let nibble = usize::try_from((value >> (4 * digit)) & 15).expect("four bits");
        out.push(DIGITS[nibble]);
    }
    out.push(b'.');
}

/// Reads what [`append_hex`] writes, and moves behind it.
pub(super) fn read_hex(rest: &mut &[u8], digits: usize) -> Option<u64> {
    let (value, after) = rest.split_at_checked(digits)?;
    *rest = after.strip_prefix(b".")?;
    value.iter().try_fold(0_u64, |sum, byte| Some((sum << 4) | u64::from(digit(*byte)?)))
}

/// Appends text until `out` has `bytes` more than at `begin`.
pub(super) fn append_filler(begin: usize, bytes: usize, out: &mut Vec<u8>) {
    while out.len() - begin < bytes {
        let want = bytes - (out.len() - begin);
        out.extend_from_slice(&FILLER[..want.min(FILLER.len())]);
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const FILLER: &[u8] = b"The quick brown fox jumps over the lazy dog; ";

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written is read back, whatever follows. Method: extremes of each field.
    #[test]
    fn a_stamp_is_read_back() {
        for (run, sequence, intended_ns, channel) in
            [(0, 0, 0, 0), (u32::MAX, u32::MAX, u64::MAX, 0x00ff_ffff), (7, 1, 2, 3)]
        {
            let stamp = Stamp { run, publisher: 9, sequence, intended_ns, channel };
            let mut bytes = Vec::new();
            stamp.write(128, &mut bytes);
            assert_eq!(bytes.len(), 128);
            assert_eq!(Stamp::read(&bytes), Some(stamp));
            assert_eq!(Stamp::read(&bytes[..STAMP_BYTES]), Some(stamp));
            assert_eq!(Stamp::read(&bytes[..STAMP_BYTES - 1]), None);
        }
    }

    /// Goal: damage is noticed. Method: each byte of the mark in turn is replaced by one that is no digit.
    #[test]
    fn a_damaged_stamp_is_refused() {
        let mut bytes = Vec::new();
        Stamp { run: 1, publisher: 2, sequence: 3, intended_ns: 4, channel: 5 }.write(0, &mut bytes);
        assert_eq!(bytes.len(), STAMP_BYTES);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = b'z';
            assert_eq!(Stamp::read(&damaged), None, "byte {at}");
        }
    }

    /// Goal: the mark needs no escape in JSON. Method: serde_json's text of it is the mark in quotes.
    #[test]
    fn a_stamp_is_verbatim_in_json() {
        let mut bytes = Vec::new();
        Stamp { run: 1, publisher: 2, sequence: 3, intended_ns: 4, channel: 5 }.write(300, &mut bytes);
        let text = String::from_utf8(bytes).expect("it is ASCII");
        assert_eq!(serde_json::to_string(&text).expect("a string"), format!("\"{text}\""));
    }
}
