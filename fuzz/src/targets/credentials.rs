//! Hex digests, `auth` strings and tokens: exactly one text is valid, and every other one is not.

use hmac::{Hmac, KeyInit, Mac};
use relay::app::{App, AppKey, AppSerial, AppSettings};
use relay::auth::subscription::{refusal_message, verify_signin, verify_subscription};
use relay::auth::token::{is_well_formed, token_hash};
use sha2::{Digest, Sha256};

use crate::input::Input;

const KEYS: [(&str, &str); 2] = [("key-a", "secret-a"), ("k:e.y", "secret-b")];
const SOCKET_ID: &str = "1234.5678";

/// P-AUTH-1 to P-AUTH-6, R-TOKEN-1, R-TOKEN-2, threats T1 to T3, T27.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (style, edit_at, edit) = (input.byte(), input.byte(), input.byte());
    let (key, secret) = *input.pick(&KEYS);
    let (Ok(channel), Ok(data)) = (std::str::from_utf8(input.line()), std::str::from_utf8(input.line())) else {
        return;
    };
    let data = (style & 1 == 0).then_some(data);
    let app = App {
        serial: AppSerial(1),
        id: "1".into(),
        name: "".into(),
        enabled: true,
        keys: KEYS.iter().map(|(key, secret)| AppKey::new(key, secret)).collect(),
        encryption_master_key: None,
        settings: AppSettings::default(),
        webhooks: Default::default(),
    };
    let text = match data {
        Some(data) => format!("{SOCKET_ID}:{channel}:{data}"),
        None => format!("{SOCKET_ID}:{channel}"),
    };
    let good = format!("{key}:{}", digest(secret, &text));
    let auth = match style >> 1 & 7 {
        0 => good.clone(),
        1 => String::from_utf8_lossy(input.rest()).into_owned(),
        2 => good.to_uppercase(),
        _ => edited(&good, usize::from(edit_at), edit, style >> 4),
    };
    let right = |secret: &str| digest(secret, &text);
    let wanted = KEYS.iter().any(|(key, secret)| auth == format!("{key}:{}", right(secret)));
    let verdict = verify_subscription(&app, SOCKET_ID, channel, data, &auth);
    assert_eq!(verdict.is_ok(), wanted, "{auth:?} for {text:?}");
    if let Err(refusal) = verdict {
        let message = refusal_message(&refusal, SOCKET_ID, channel, data, &auth);
        assert!(message.len() < 1_000, "what is quoted is cut: {message}");
        let told = auth.contains(&right(secret)) || text.contains(&right(secret));
        assert!(!message.contains(&right(secret)) || told, "P-FAIL-6: {message}");
    }
    let user_data = data.unwrap_or_default();
    let signed = digest(secret, &format!("{SOCKET_ID}::user::{user_data}"));
    assert!(verify_signin(&app, SOCKET_ID, user_data, &format!("{key}:{signed}")).is_ok());
    let passes = verify_signin(&app, SOCKET_ID, user_data, &auth).is_ok();
    assert_eq!(
        passes,
        KEYS.iter().any(|(key, secret)| {
            auth == format!("{key}:{}", digest(secret, &format!("{SOCKET_ID}::user::{user_data}")))
        })
    );
    check_token(&auth);
    check_token(&edited(&format!("rly_{}", "aZ09".repeat(10)), usize::from(edit_at), edit, style >> 4));
}

/// R-TOKEN-1, R-TOKEN-2.
fn check_token(text: &str) {
    let letters: Vec<char> = text.chars().collect();
    let is_token = letters.len() == 44
        && letters[..4] == ['r', 'l', 'y', '_']
        && letters[4..].iter().all(|letter| letter.is_ascii_alphanumeric());
    assert_eq!(is_well_formed(text), is_token, "{text:?}");
    assert_eq!(token_hash(text), <[u8; 32]>::from(Sha256::digest(text.as_bytes())));
}

fn digest(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The text with one change.
fn edited(text: &str, at: usize, byte: u8, how: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = at % (bytes.len() + 1);
    match how % 4 {
        0 => bytes.insert(at, byte),
        1 => bytes.truncate(at),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        _ => {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
