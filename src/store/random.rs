//! Ids, keys, secrets and tokens from the system's random source, without bias.

use ring::rand::{SecureRandom, SystemRandom};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Random bytes.
///
/// # Panics
/// If the kernel provides none. This ends the process: nothing secure can be generated without them.
fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the kernel's random source does not fail once it is seeded");
}

/// `length` characters, each one of `alphabet` with equal probability: bytes beyond the last full multiple of the
/// alphabet's size are discarded.
fn characters(alphabet: &[u8], length: usize) -> String {
    let limit = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        fill(&mut bytes);
        let usable = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < limit);
        text.extend(usable.map(|byte| char::from(alphabet[byte % alphabet.len()])).take(length - text.len()));
    }
    text
}

/// A new app id: 9 digits, the first not 0 (P-SDK-22: some SDKs require digits).
pub(super) fn app_id() -> String {
    characters(b"123456789", 1) + &characters(b"0123456789", 8)
}

/// A new app key: 20 hex digits (P-SDK-22).
pub(super) fn app_key() -> String {
    characters(b"0123456789abcdef", 20)
}

/// A new app secret: 40 base62 characters, 238 bits.
pub(super) fn app_secret() -> String {
    characters(BASE62, 40)
}

/// A new master key of encrypted channels: 32 bytes.
pub(super) fn master_key() -> [u8; 32] {
    let mut key = [0; 32];
    fill(&mut key);
    key
}

/// A new token: `rly_` and 40 base62 characters (R-TOKEN-1).
pub(super) fn token() -> String {
    String::from("rly_") + &characters(BASE62, 40)
}

/// A new public id of a token: `tok_` and 16 base62 characters.
pub(super) fn token_id() -> String {
    String::from("tok_") + &characters(BASE62, 16)
}

/// A new admin token: `rly_adm_` and 40 base62 characters (R-ADMIN-2).
pub(super) fn admin_token() -> String {
    String::from("rly_adm_") + &characters(BASE62, 40)
}

/// A new public id of an admin token: `adm_` and 16 base62 characters.
pub(super) fn admin_token_id() -> String {
    String::from("adm_") + &characters(BASE62, 16)
}

/// A new salt of a password.
pub(super) fn salt() -> [u8; 16] {
    let mut salt = [0; 16];
    fill(&mut salt);
    salt
}

/// A new public id of a webhook endpoint: `wh_` and 16 base62 characters.
pub(super) fn webhook_id() -> String {
    String::from("wh_") + &characters(BASE62, 16)
}

/// A new secret of a webhook endpoint: `whs_` and 40 base62 characters, 238 bits.
pub(super) fn webhook_secret() -> String {
    String::from("whs_") + &characters(BASE62, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-SDK-22, R-TOKEN-1: formats of the generated values.
    #[test]
    fn shapes() {
        for _ in 0..100 {
            let id = app_id();
            assert!(id.len() == 9 && !id.starts_with('0') && id.bytes().all(|byte| byte.is_ascii_digit()));
            let key = app_key();
            assert!(key.len() == 20 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
            let token = token();
            let tail = token.strip_prefix("rly_").expect("prefix");
            assert!(tail.len() == 40 && tail.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert_eq!(app_secret().len(), 40);
            assert!(token_id().starts_with("tok_"));
        }
    }

    /// R-TOKEN-1: every base62 character is as likely as any other: with 62,000 draws each comes 1,000 times on
    /// average; 200 off is more than 6 standard deviations (a modulo of 256 would favour the first eight by 25 %).
    #[test]
    fn base62_has_no_bias() {
        let mut counts = [0_u32; 128];
        characters(BASE62, 62_000).bytes().for_each(|byte| counts[usize::from(byte)] += 1);
        for character in BASE62 {
            let count = counts[usize::from(*character)];
            assert!((800..=1_200).contains(&count), "{} came {count} times", char::from(*character));
        }
    }
}
