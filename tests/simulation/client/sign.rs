//! Signatures as a customer computes them, with `hmac` and `sha2`: independent of the code under test.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Lower-case hex HMAC-SHA256.
pub(crate) fn hmac_hex(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// SHA-256.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Lower-case hex MD5 of a body.
pub(crate) fn md5_hex(body: &[u8]) -> String {
    hex::encode(md5::Md5::digest(body))
}

/// The query of a signed request (P-SIGN-1, P-SIGN-2). `more` has further parameters, which sort after those of the
/// signature.
pub(crate) fn signed_query(
    (method, path, body): (&str, &str, &[u8]),
    more: &str,
    (key, secret): (&str, &str),
    unix_s: u64,
) -> String {
    let mut query = format!("auth_key={key}&auth_timestamp={unix_s}&auth_version=1.0");
    if !body.is_empty() {
        query.push_str(&format!("&body_md5={}", md5_hex(body)));
    }
    if !more.is_empty() {
        query.push_str(&format!("&{more}"));
    }
    let signature = hmac_hex(secret, &format!("{method}\n{path}\n{query}"));
    format!("{query}&auth_signature={signature}")
}
