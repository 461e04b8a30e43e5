//! Cursors: the positions of several channels in one text, for streams (R-HIST-3).
//!
//! A cursor has one sequence per channel, since two channels of a group can be at different points. It is opaque to
//! clients, valid more than once, and like an event id a hint and no right: a server that reads one finds in it the
//! channels that the client asked for, and ignores the others.
//!
//! ```text
//! cur_ base64url( width u8, epoch u64, then for each channel 32 bits of its hash and `width` bits of its sequence )
//! ```

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::limits::STREAM_CHANNELS_MAX;

/// The positions of the channels of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// The epoch of the app's numbers.
    pub epoch: u64,
    /// A hash of each channel, and its position.
    pub positions: Vec<(u32, u64)>,
}

/// Every cursor begins with this.
const PREFIX: &str = "cur_";
/// Width and epoch, in bytes.
const HEAD_BYTES: usize = 1 + 8;
/// Bits of a channel's hash.
const HASH_BITS: u32 = 32;
/// Longest cursor, with sequences of 64 bits. With 39 bits, which 500 billion events need, it is 1,200 characters long.
pub const CURSOR_BYTES_MAX: usize =
    PREFIX.len() + ((HEAD_BYTES + STREAM_CHANNELS_MAX * (HASH_BITS as usize + 64).div_ceil(8)) * 4).div_ceil(3);

impl Cursor {
    /// Appends a cursor as text, of at least one channel.
    pub fn encode(out: &mut Vec<u8>, epoch: u64, positions: impl Iterator<Item = (u32, u64)> + Clone) {
        let most = positions.clone().map(|(_, sequence)| sequence).max().unwrap_or(0);
        let width = (u64::BITS - most.leading_zeros()).max(1);
        let mut bits = Bits { bytes: Vec::with_capacity(HEAD_BYTES + 16), rest: 0, filled: 0 };
        bits.bytes.push(width as u8);
        bits.bytes.extend_from_slice(&epoch.to_be_bytes());
        for (hash, sequence) in positions {
            bits.push(hash.into(), HASH_BITS);
            bits.push(sequence, width);
        }
        let bytes = bits.finish();
        out.extend_from_slice(PREFIX.as_bytes());
        let start = out.len();
        out.resize(start + bytes.len() * 4 / 3 + 4, 0);
        let written = URL_SAFE_NO_PAD.encode_slice(&bytes, &mut out[start..]).expect("it was made long enough");
        out.truncate(start + written);
    }

    /// Reads a cursor; `None` for everything that [`Cursor::encode`] does not write.
    pub fn decode(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX).filter(|text| PREFIX.len() + text.len() <= CURSOR_BYTES_MAX)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (width, rest) = bytes.split_first()?;
        let (epoch, mut rest) = rest.split_first_chunk::<8>()?;
        let width = u32::from(*width);
        let each = (HASH_BITS + width) as usize;
        let count = rest.len() * 8 / each;
        let is_count = (1..=STREAM_CHANNELS_MAX).contains(&count);
        if !(1..=u64::BITS).contains(&width) || !is_count || (count * each).div_ceil(8) != rest.len() {
            return None;
        }
        let (mut bits, mut filled) = (0_u128, 0);
        let mut take = |width: u32| {
            while filled < width {
                let (byte, after) = rest.split_first()?;
                (bits, filled, rest) = (bits << 8 | u128::from(*byte), filled + 8, after);
            }
            filled -= width;
            let value = (bits >> filled) as u64;
            bits &= (1 << filled) - 1;
            Some(value)
        };
        let mut positions = Vec::with_capacity(count);
        for _ in 0..count {
            positions.push((take(HASH_BITS)? as u32, take(width)?));
        }
        (bits == 0).then_some(Self { epoch: u64::from_be_bytes(*epoch), positions })
    }

    /// The position of the channel with this hash. Two channels may have one hash: the lower position misses no event
    /// of either (threat T57).
    pub fn position(&self, hash: u32) -> Option<u64> {
        self.positions.iter().filter(|(known, _)| *known == hash).map(|(_, sequence)| *sequence).min()
    }
}

/// Bits from the most significant one on.
struct Bits {
    bytes: Vec<u8>,
    /// The last `filled` bits, fewer than 8.
    rest: u128,
    filled: u32,
}

impl Bits {
    fn push(&mut self, value: u64, width: u32) {
        self.rest = self.rest << width | u128::from(value);
        self.filled += width;
        while self.filled >= 8 {
            self.filled -= 8;
            self.bytes.push((self.rest >> self.filled) as u8);
        }
        self.rest &= (1 << self.filled) - 1;
    }

    /// The bytes, filled up with zeros.
    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.push(0, 8 - self.filled);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(epoch: u64, positions: &[(u32, u64)]) -> String {
        let mut out = Vec::new();
        Cursor::encode(&mut out, epoch, positions.iter().copied());
        String::from_utf8(out).expect("base64url is ASCII")
    }

    /// R-HIST-3: the text of a cursor, byte for byte.
    #[test]
    fn a_cursor_as_text() {
        // Width 3; epoch 1; 0x00000002 and 101 in binary, padded to 40 bits.
        assert_eq!(text(1, &[(2, 5)]), "cur_AwAAAAAAAAABAAAAAqA");
    }

    /// R-HIST-3: 100 channels fit into 1,200 characters while their groups have fewer than 500 billion events.
    #[test]
    fn a_hundred_channels_are_short() {
        let positions: Vec<(u32, u64)> = (0..100).map(|at| (u32::MAX - at, (1 << 39) - 1)).collect();
        assert_eq!(text(u64::MAX, &positions).len(), 1_200);
        let longest: Vec<(u32, u64)> = (0..100).map(|at| (at, u64::MAX)).collect();
        assert_eq!(text(u64::MAX, &longest).len(), CURSOR_BYTES_MAX);
        assert!(Cursor::decode(&text(u64::MAX, &longest)).is_some());
    }

    /// R-HIST-4: truncated, longer, padded, with another width or with bits behind the last channel. One that was cut
    /// between two channels lacks the later ones, which are gaps then.
    #[test]
    fn other_text_is_no_cursor() {
        let whole = text(7, &[(1, 9), (2, 300)]);
        assert!(Cursor::decode(&whole).is_some());
        for length in 0..whole.len() {
            let cut = Cursor::decode(&whole[..length]);
            assert!(cut.is_none_or(|cursor| cursor.positions == [(1, 9)]), "{length}");
        }
        let too_many: Vec<(u32, u64)> = (0..101).map(|at| (at, 1)).collect();
        for other in [
            format!("{whole}A"),
            format!("{whole}AAAA"),
            format!("{whole}="),
            format!(" {whole}"),
            whole.replace("cur_", "evt_"),
            text(1, &too_many),
            "cur_AAAAAAAAAAAB".to_owned(),
            "cur_QQAAAAAAAAAB".to_owned(),
            "cur_AwAAAAAAAAABAAAAAqE".to_owned(),
        ] {
            assert_eq!(Cursor::decode(&other), None, "{other}");
        }
    }

    /// Threat T57: of two channels with one hash both start at the lower position.
    #[test]
    fn one_hash_means_the_lower_position() {
        let cursor = Cursor { epoch: 1, positions: vec![(5, 9), (6, 1), (5, 4)] };
        assert_eq!([cursor.position(5), cursor.position(6), cursor.position(7)], [Some(4), Some(1), None]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// R-HIST-3: every cursor survives its text, and no text has two readings.
        #[test]
        fn cursors_survive_their_text(
            epoch: u64,
            positions in prop::collection::vec((any::<u32>(), 0_u64..u64::MAX), 1..=100),
            shift in 0_u32..64,
            other in "cur_[A-Za-z0-9_-]{12,60}",
        ) {
            let positions: Vec<(u32, u64)> = positions.into_iter().map(|(hash, at)| (hash, at >> shift)).collect();
            let cursor = Cursor::decode(&text(epoch, &positions));
            prop_assert_eq!(cursor, Some(Cursor { epoch, positions }));
            if let Some(cursor) = Cursor::decode(&other) {
                let written = text(cursor.epoch, &cursor.positions);
                prop_assert!(written.len() <= other.len());
                prop_assert_eq!(Cursor::decode(&written), Some(cursor));
            }
        }
    }
}
