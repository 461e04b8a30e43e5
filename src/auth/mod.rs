//! Verification of credentials: subscription signatures, request credentials, tokens, and the handshake digest.
//! The users of `ring`.

pub mod explain;
pub mod failures;
pub mod handshake;
mod reading;
pub mod request;
pub mod sign;
pub mod signature;
pub mod subscription;
pub mod token;

use crate::label::labels;

labels! {
    /// Why a credential was refused, as metrics and logs name it. The set is closed and reveals nothing about the
    /// credential.
    pub enum AuthFailure {
        /// There was none.
        Missing => "missing",
        /// It does not have the form of a credential: a parameter or header is absent, duplicated or malformed.
        Malformed => "malformed",
        /// Its key is not an active key of the app.
        UnknownKey => "unknown_key",
        /// The signature is not that of the key's secret.
        BadSignature => "bad_signature",
        /// The secret is not that of the key.
        BadSecret => "bad_secret",
        /// The token is unknown, expired, revoked or of another app.
        BadToken => "bad_token",
        /// The timestamp is too far from the clock.
        StaleTimestamp => "stale_timestamp",
        /// The body differs from the signed one.
        BodyMismatch => "body_mismatch",
        /// The channel belongs to another user.
        WrongUser => "wrong_user",
    }
}

/// The tag that 64 lower-case hex digits encode; `None` for any other length, case or character (threat T1).
///
/// The hex text comes from the peer and the tag is not secret, so only the comparison needs constant time.
fn decode_signature(hex: &[u8]) -> Option<[u8; 32]> {
    let mut tag = [0; 32];
    // The decoder would skip a leading `0x`, so the length is checked here.
    if hex.len() != 2 * tag.len() || hex.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    const_hex::decode_to_slice(hex, &mut tag).ok()?;
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threat T1: a tag has one spelling; a prefix, another case, another length or a sign is refused.
    #[test]
    fn a_tag_has_one_spelling() {
        let digits = "0a".repeat(32);
        assert_eq!(decode_signature(digits.as_bytes()), Some([0x0A; 32]));
        for other in
            [format!("0x{digits}"), format!("0x{}", &digits[2..]), digits.to_uppercase(), format!("{digits}0a")]
        {
            assert_eq!(decode_signature(other.as_bytes()), None, "{other}");
        }
    }
}
