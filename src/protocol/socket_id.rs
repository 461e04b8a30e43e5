//! Socket ids: two decimal integers that identify shard, slot and generation of a connection (P-CONN-10, P-SDK-23).
//!
//! The 64 bits (shard, slot, generation) pass through a keyed permutation, so that ids are unguessable, unique over
//! restarts and need no map: a process that holds the boot secret reads the connection from the id.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// A socket id, `\d+\.\d+`. Those of connections are at most 21 bytes long and their first number is at least 1.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketId {
    /// The first number.
    pub high: u64,
    /// The second number.
    pub low: u64,
}

impl SocketId {
    /// Parses `^\d+\.\d+$`; `None` for anything else, for numbers above 64 bits, and for leading zeros, so that an id
    /// has only one text: it is signed and compared as text.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('.')?;
        Some(Self { high: parse_number(high)?, low: parse_number(low)? })
    }

    /// The id as text.
    pub fn to_text(self) -> String {
        let (mut high, mut low) = (itoa::Buffer::new(), itoa::Buffer::new());
        [high.format(self.high), ".", low.format(self.low)].concat()
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

fn parse_number(digits: &str) -> Option<u64> {
    let is_canonical = digits == "0" || !digits.starts_with('0');
    // The standard parser would accept a sign.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_canonical && is_plain { digits.parse().ok() } else { None }
}

/// The keyed permutation of one process: four Feistel rounds of SipHash-2-4 over halves of 32 bits, which nobody
/// without the key can distinguish from a random permutation (Luby and Rackoff).
#[derive(Clone)]
pub struct SocketIdCipher {
    keyed: SipHasher24,
}

impl fmt::Debug for SocketIdCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketIdCipher([secret])")
    }
}

impl SocketIdCipher {
    /// A cipher with the process's boot secret.
    pub fn new(boot_secret: [u8; 16]) -> Self {
        Self { keyed: SipHasher24::new_with_key(&boot_secret) }
    }

    /// Seals 64 bits into an id whose first number is at least 1.
    pub fn seal(&self, plain: u64) -> SocketId {
        let (left, right) =
            ROUNDS.iter().fold(halves(plain), |(left, right), round| (right, left ^ self.round(*round, right)));
        SocketId { high: u64::from(left) + 1, low: u64::from(right) }
    }

    /// Reads the 64 bits back; `None` when the id is outside the range of `seal`.
    pub fn open(&self, id: SocketId) -> Option<u64> {
        let sealed = (u32::try_from(id.high.checked_sub(1)?).ok()?, u32::try_from(id.low).ok()?);
        let (left, right) =
            ROUNDS.iter().rev().fold(sealed, |(left, right), round| (right ^ self.round(*round, left), left));
        Some(u64::from(left) << 32 | u64::from(right))
    }

    /// The round function. The hashed input begins with a word of its own, since the boot secret also keys other
    /// things.
    fn round(&self, round: u8, half: u32) -> u32 {
        let [a, b, c, d] = half.to_le_bytes();
        let mut hasher = self.keyed;
        hasher.write(&[b's', b'i', b'd', round, a, b, c, d]);
        hasher.finish() as u32
    }
}

fn halves(bits: u64) -> (u32, u32) {
    ((bits >> 32) as u32, bits as u32)
}

const ROUNDS: [u8; 4] = [0, 1, 2, 3];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// P-CONN-10: `open` undoes `seal`, the first number is at least 1, and the text parses back.
        #[test]
        fn open_undoes_seal(secret: [u8; 16], plain: u64) {
            let cipher = SocketIdCipher::new(secret);
            let id = cipher.seal(plain);
            prop_assert_eq!(cipher.open(id), Some(plain));
            prop_assert!(id.high >= 1);
            prop_assert!(id.to_text().len() <= 21);
            prop_assert_eq!(id.to_text(), id.to_string());
            prop_assert_eq!(SocketId::parse(&id.to_text()), Some(id));
        }

        /// P-CONN-10: `seal` undoes `open` over the whole range, so every id in it names exactly one connection.
        #[test]
        fn seal_undoes_open(secret: [u8; 16], high in 1..=1_u64 << 32, low: u32) {
            let cipher = SocketIdCipher::new(secret);
            let id = SocketId { high, low: u64::from(low) };
            let plain = cipher.open(id).expect("in range");
            prop_assert_eq!(cipher.seal(plain), id);
        }
    }

    /// P-SDK-23, P-HTTP-13: exactly `^\d+\.\d+$` in canonical form up to 64 bits.
    #[test]
    fn parse_takes_canonical_ids_alone() {
        for text in ["1.1", "0.0", "0.7", "4294967296.4294967295", "18446744073709551615.18446744073709551615"] {
            assert_eq!(SocketId::parse(text).expect(text).to_text(), text);
        }
        for text in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "1.1.",
            "1.1.1",
            "+1.1",
            "-1.1",
            "1.+1",
            " 1.1",
            "1.1 ",
            "1.1\n",
            "01.1",
            "1.00",
            "a.b",
            "١.١",
            "18446744073709551616.1",
            "1:1",
            "1,1",
            "1e3.1",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text:?}");
        }
    }

    /// P-CONN-10, R-SSE-5: ids outside the range of `seal` open to nothing, those of streams (0.x) among them.
    #[test]
    fn ids_out_of_range_do_not_open() {
        let cipher = SocketIdCipher::new([7; 16]);
        for (high, low) in [(0, 7), (1 << 32 | 1, 0), (1, 1 << 32), (u64::MAX, u64::MAX)] {
            assert_eq!(cipher.open(SocketId { high, low }), None);
        }
    }

    /// T31: a million ids of neighbouring connections do not collide, and every bit of theirs is set in half of them.
    #[test]
    fn a_million_ids_are_distinct_and_uniform() {
        const IDS: u64 = 1_000_000;
        let cipher = SocketIdCipher::new(*b"0123456789abcdef");
        let mut seen = HashSet::with_capacity(IDS as usize);
        let mut ones = [0_u64; 64];
        for plain in 0..IDS {
            let id = cipher.seal(plain);
            assert!(seen.insert((id.high, id.low)), "collision at {plain}");
            let bits = (id.high - 1) << 32 | id.low;
            for (bit, count) in ones.iter_mut().enumerate() {
                *count += bits >> bit & 1;
            }
        }
        // Six standard deviations of a fair coin thrown a million times are 3,000.
        for (bit, count) in ones.iter().enumerate() {
            assert!(count.abs_diff(IDS / 2) < 3_000, "bit {bit} is set in {count}");
        }
    }

    /// T31: another boot secret gives other ids, so an id of an earlier run names a connection of this one only by
    /// chance.
    #[test]
    fn ids_depend_on_the_secret() {
        let (one, other) = (SocketIdCipher::new([1; 16]), SocketIdCipher::new([2; 16]));
        assert!((0..100).all(|plain| one.seal(plain) != other.seal(plain)));
    }
}
