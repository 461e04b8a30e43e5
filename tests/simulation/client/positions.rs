//! Event ids, positions and cursors from the client's side (R-HIST-2, R-HIST-3), written for these tests alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The epoch, group and sequence of an id.
pub(crate) fn decode_id(id: &str) -> (u64, u16, u64) {
    let text = id.strip_prefix("evt_").unwrap_or_else(|| panic!("{id} is no event id (R-HIST-2)"));
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_else(|error| panic!("{error} in {id} (R-HIST-2)"));
    let (epoch, rest) = bytes.split_first_chunk::<8>().expect("an epoch");
    let (group, sequence) = rest.split_first_chunk::<2>().expect("a group");
    let group = u16::from_be_bytes(*group);
    assert!(group < 256, "R-HIST-2: {id}");
    (u64::from_be_bytes(*epoch), group, u64::from_be_bytes(sequence.try_into().expect("a sequence")))
}

/// The hashes of the channels of a cursor and their sequences, in its order.
pub(crate) fn decode_cursor(cursor: &str) -> Vec<(u32, u64)> {
    let text = cursor.strip_prefix("cur_").unwrap_or_else(|| panic!("{cursor} is no cursor (R-HIST-3)"));
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_else(|error| panic!("{error} in {cursor} (R-HIST-3)"));
    let width = usize::from(bytes[0]);
    let bits: Vec<bool> = bytes[9..].iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 == 1)).collect();
    let number = |bits: &[bool]| bits.iter().fold(0_u64, |number, bit| number << 1 | u64::from(*bit));
    let entries = bits.chunks_exact(32 + width);
    assert!(entries.remainder().len() < 8 && number(entries.remainder()) == 0, "the end of {cursor}");
    entries.map(|entry| (number(&entry[..32]) as u32, number(&entry[32..]))).collect()
}

/// The same id or cursor, of another epoch.
pub(crate) fn of_other_epoch(text: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(&text[4..]).expect("it was read");
    // A cursor begins with the width of its sequences.
    bytes[1] ^= 1;
    format!("{}{}", &text[..4], URL_SAFE_NO_PAD.encode(bytes))
}

/// The same id, far ahead of every event.
pub(crate) fn far_ahead(id: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(&id[4..]).expect("it was read");
    bytes[10] = 0xff;
    format!("evt_{}", URL_SAFE_NO_PAD.encode(bytes))
}
