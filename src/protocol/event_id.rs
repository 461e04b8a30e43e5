//! Event ids, which are also positions in the history of a channel (R-HIST-2).
//!
//! The channels of an app are divided into 256 groups, and each group numbers its stored events. An id names the epoch
//! of the numbers, the group and the number. An id that a client sends is a hint and may be forged: it selects where
//! reading starts, and grants nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A stored event, or the position after it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct EventId {
    /// The epoch of the app's numbers; ids of other epochs say nothing about these.
    pub epoch: u64,
    /// The group of the channel.
    pub group: u8,
    /// The number of the event in its group, from 1; 0 is the position before all events.
    pub sequence: u64,
}

/// Every id begins with this.
const PREFIX: &str = "evt_";
/// Epoch, group and sequence, in bytes.
const PLAIN_BYTES: usize = 8 + 2 + 8;
/// The same in base64url. 18 bytes fill 24 characters, so each id has only one text.
const TEXT_BYTES: usize = PLAIN_BYTES / 3 * 4;
/// Length of an id.
pub const EVENT_ID_BYTES: usize = PREFIX.len() + TEXT_BYTES;

impl EventId {
    /// Appends the id as text.
    pub fn encode(self, out: &mut Vec<u8>) {
        let mut plain = [0; PLAIN_BYTES];
        plain[..8].copy_from_slice(&self.epoch.to_be_bytes());
        plain[8..10].copy_from_slice(&u16::from(self.group).to_be_bytes());
        plain[10..].copy_from_slice(&self.sequence.to_be_bytes());
        let mut text = [0; TEXT_BYTES];
        let written = URL_SAFE_NO_PAD.encode_slice(plain, &mut text);
        debug_assert_eq!(written, Ok(TEXT_BYTES));
        out.extend_from_slice(PREFIX.as_bytes());
        out.extend_from_slice(&text);
    }

    /// The id as text.
    pub fn to_text(self) -> String {
        let mut text = Vec::with_capacity(EVENT_ID_BYTES);
        self.encode(&mut text);
        String::from_utf8(text).expect("base64url is ASCII")
    }

    /// Reads an id; `None` for everything that [`EventId::encode`] does not write.
    pub fn decode(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX).filter(|text| text.len() == TEXT_BYTES)?;
        let mut plain = [0; PLAIN_BYTES];
        URL_SAFE_NO_PAD.decode_slice(text, &mut plain).ok().filter(|length| *length == PLAIN_BYTES)?;
        let (epoch, rest) = plain.split_first_chunk::<8>()?;
        let (group, sequence) = rest.split_first_chunk::<2>()?;
        Some(Self {
            epoch: u64::from_be_bytes(*epoch),
            group: u8::try_from(u16::from_be_bytes(*group)).ok()?,
            sequence: u64::from_be_bytes(*sequence.first_chunk::<8>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// R-HIST-2: the text of an id, byte for byte.
    #[test]
    fn an_id_as_text() {
        let id = EventId { epoch: 0x0102_0304_0506_0708, group: 0xff, sequence: 1 };
        assert_eq!(id.to_text(), "evt_AQIDBAUGBwgA_wAAAAAAAAAB");
        assert_eq!(EventId::decode("evt_AQIDBAUGBwgA_wAAAAAAAAAB"), Some(id));
    }

    /// R-HIST-4: truncated, longer, padded, in the other alphabet, with a group that does not exist, or no id at all.
    #[test]
    fn other_text_is_no_id() {
        let whole = "evt_AQIDBAUGBwgA_wAAAAAAAAAB";
        for text in [
            "",
            "evt_",
            &whole[..whole.len() - 1],
            &whole[4..],
            &format!("{whole}A"),
            &format!("{whole}="),
            &format!(" {whole}"),
            &whole.replace('_', "/"),
            "EVT_AQIDBAUGBwgA_wAAAAAAAAAB",
            "evt_AQIDBAUGBwgA/wAAAAAAAAAB",
            "evt_AQIDBAUGBwgBAAAAAAAAAAAB",
            "evt_AQIDBAUGBwgA_wAAAAAAAAA\n",
            "evt_\u{e9}QIDBAUGBwgA_wAAAAAAAAB",
            "17",
        ] {
            assert_eq!(EventId::decode(text), None, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// R-HIST-2: every id survives its text, and no text has two readings.
        #[test]
        fn ids_survive_their_text(epoch: u64, group: u8, sequence: u64, text in "evt_[A-Za-z0-9_-]{24}") {
            let id = EventId { epoch, group, sequence };
            prop_assert_eq!(EventId::decode(&id.to_text()), Some(id));
            if let Some(id) = EventId::decode(&text) {
                prop_assert_eq!(id.to_text(), text);
            }
        }
    }
}
