//! Verdicts over proofs: subscription signatures, request credentials, tokens, and the handshake digest.
//! The users of `ring`.

pub mod failures;
pub mod handshake;
pub mod request;
pub mod signature;
pub mod subscription;
pub mod token;

/// The tag that 64 lower-case hex digits write; `None` for any other length, case or character (threat T1).
///
/// The hex text comes from the peer and the tag is not secret, so only what is compared with it needs constant time.
fn decode_signature(hex: &[u8]) -> Option<[u8; 32]> {
    if hex.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut tag = [0; 32];
    const_hex::decode_to_slice(hex, &mut tag).ok()?;
    Some(tag)
}
