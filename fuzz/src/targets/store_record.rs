//! Records of the store: a record that can be read is written back unchanged, one that cannot be read gives an error,
//! and neither reveals a secret.

use relay::store::fuzzing::{
    read_app, read_delivery, read_messages, read_token, write_app, write_delivery, write_token,
};

use crate::input::Input;

/// R-TOKEN-2, R-TOKEN-6, R-LIM-3, threat T27.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => check_app(input.rest()),
        1 => check_token(input.rest()),
        2 => {
            let key = key(&mut input, 8);
            check_delivery(&key, input.rest());
        }
        _ => {
            let key = [b"messages/", &key(&mut input, 4)[..]].concat();
            check_messages(&key, input.rest());
            check_messages(b"messages/", input.rest());
        }
    }
}

/// A key of the usual length, or one byte shorter.
fn key(input: &mut Input<'_>, bytes: usize) -> Vec<u8> {
    let length = if input.below(8) == 0 { bytes - 1 } else { bytes };
    (0..length).map(|_| input.byte()).collect()
}

fn check_app(bytes: &[u8]) {
    let Ok((record, app)) = read_app(bytes) else { return };
    let written = write_app(&record);
    let (again, same) = read_app(&written).expect("what was written reads");
    assert_eq!(again, record);
    assert_eq!(write_app(&again), written, "writing is stable");
    assert_eq!(format!("{same:?}"), format!("{app:?}"));
    assert_eq!((app.serial.0, &*app.id, app.enabled), (record.serial, record.id.as_str(), record.enabled));
    assert_eq!(app.keys.len(), record.keys.len());
    let shown = format!("{record:?} {app:?}");
    for pair in &record.keys {
        let stands_elsewhere = written.windows(pair.secret.len().max(1)).filter(|text| *text == pair.secret.as_bytes());
        // A long secret that is in the record once is in none of the texts.
        if pair.secret.len() >= 12 && stands_elsewhere.count() == 1 {
            assert!(!shown.contains(&pair.secret), "threat T27: {shown}");
        }
    }
}

fn check_token(bytes: &[u8]) {
    let Ok((record, token)) = read_token(bytes) else { return };
    let written = write_token(&record);
    let (again, _) = read_token(&written).expect("what was written reads");
    assert_eq!(again, record);
    assert_eq!(write_token(&again), written);
    assert_eq!(hex::decode(record.hash.trim_start_matches("0x")).expect("hex"), token.hash);
    assert_eq!(token.revoked, record.revoked_at_ms.is_some());
    assert_eq!(token.is_valid(u64::MAX), !token.revoked && record.expires_at_ms.is_none());
}

fn check_delivery(key: &[u8], value: &[u8]) {
    let Ok((delivery, body)) = read_delivery(key, value) else { return };
    assert_eq!(delivery.number.to_be_bytes(), key);
    assert_eq!(delivery.body_bytes as usize, body.len());
    assert_eq!(write_delivery(&delivery, &body), value, "a delivery has one text");
}

fn check_messages(key: &[u8], value: &[u8]) {
    let Some((app, used)) = read_messages(key, value) else { return };
    assert!(key.ends_with(&app.to_be_bytes()));
    assert_eq!([&used.day.to_be_bytes()[..], &used.messages.to_be_bytes()].concat(), value);
}
