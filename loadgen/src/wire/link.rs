//! The payload of an event of a chain: its [`Stamp`], and a hash over the stamps of all events of its channel so far. A
//! reader that has the event before computes the hash and compares, so that it notices an event that is missing, doubled,
//! in another place or of another channel, whatever the numbers say.
//!
//! `<stamp>UU.HHHHHHHHHHHHHHHH.` and filler up to the payload's size.

use sha2::{Digest, Sha256};

use super::stamp::{STAMP_BYTES, Stamp, append_filler, append_hex, read_hex};

/// Length without filler.
pub(crate) const LINK_BYTES: usize = STAMP_BYTES + 3 + 17;

/// An event of a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Link {
    pub(crate) stamp: Stamp,
    /// How many of the events directly before were not answered, so that nobody knows whether they were published.
    pub(crate) uncertain: u8,
    /// [`Link::hash`] of the event before and this one.
    pub(crate) chain: u64,
}

impl Link {
    /// The hash up to an event, made of the hash up to the one before it, which is 0 for the first.
    pub(crate) fn hash(before: u64, stamp: &Stamp) -> u64 {
        let mut mark = Vec::with_capacity(STAMP_BYTES);
        stamp.write(0, &mut mark);
        let digest = Sha256::new().chain_update(before.to_be_bytes()).chain_update(&mark).finalize();
        u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"))
    }

    /// Appends the payload, `payload_bytes` long, or [`LINK_BYTES`] if that is more.
    pub(crate) fn write(&self, payload_bytes: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        self.stamp.write(0, out);
        append_hex(self.uncertain.into(), 2, out);
        append_hex(self.chain, 16, out);
        append_filler(begin, payload_bytes, out);
    }

    /// Reads a payload of this size; `None` if it is not exactly what [`Link::write`] writes.
    pub(crate) fn read(payload: &[u8], payload_bytes: usize) -> Option<Self> {
        let stamp = Stamp::read(payload)?;
        let mut rest = payload.get(STAMP_BYTES..)?;
        let uncertain = u8::try_from(read_hex(&mut rest, 2)?).ok()?;
        let link = Self { stamp, uncertain, chain: read_hex(&mut rest, 16)? };
        let mut whole = Vec::with_capacity(payload.len());
        link.write(payload_bytes, &mut whole);
        (whole == payload).then_some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp { run: 7, publisher: 1, sequence, intended_ns: 9, channel: 3 }
    }

    /// Goal: what is written is read back, and a change of any byte is noticed.
    #[test]
    fn a_payload_is_read_back() {
        let link = Link { stamp: stamp(5), uncertain: 255, chain: u64::MAX - 1 };
        for size in [0, LINK_BYTES, 300] {
            let mut payload = Vec::new();
            link.write(size, &mut payload);
            assert_eq!((payload.len(), Link::read(&payload, size)), (size.max(LINK_BYTES), Some(link)));
            for at in 0..payload.len() {
                let mut damaged = payload.clone();
                damaged[at] = b'!';
                assert_eq!(Link::read(&damaged, size), None, "byte {at}");
                assert_eq!(Link::read(&payload[..at], size), None, "cut at {at}");
            }
        }
    }

    /// Goal: the hash depends on all events before and on their order. Method: SHA-256 of the text, as other tools compute it.
    #[test]
    fn the_hash_covers_the_history() {
        let chain = |sequences: &[u32]| sequences.iter().fold(0, |before, at| Link::hash(before, &stamp(*at)));
        // printf '\0\0\0\0\0\0\0\0lg1.00000007.00000001.00000000.0000000000000009.000003.' | sha256sum
        assert_eq!(format!("{:016x}", chain(&[0])), "205adbcc83ca66bd");
        let all = [chain(&[0, 1, 2]), chain(&[0, 2]), chain(&[0, 1, 1, 2]), chain(&[1, 0, 2])];
        assert!((1..4).all(|at| !all[..at].contains(&all[at])), "{all:?}");
    }
}
