//! App tokens: `rly_` and 40 base62 characters (R-TOKEN rules). Only the SHA-256 is ever stored.

use ring::digest;

/// Prefix of every token (R-TOKEN-1).
pub const TOKEN_PREFIX: &str = "rly_";
/// Characters of a token after its prefix, 238 bits of randomness.
pub const TOKEN_RANDOM_CHARACTERS: usize = 40;

/// SHA-256 of the complete token (R-TOKEN-2).
pub fn token_hash(token: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// True for `rly_` followed by exactly 40 base62 characters (R-TOKEN-1).
pub fn is_well_formed(token: &str) -> bool {
    token.strip_prefix(TOKEN_PREFIX).is_some_and(|rest| {
        rest.len() == TOKEN_RANDOM_CHARACTERS && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// R-TOKEN-2: the check value of the specification, and agreement with an independent SHA-256.
    #[test]
    fn hash_is_sha256_of_the_whole_token() {
        let token = format!("rly_{}", "a".repeat(40));
        assert_eq!(hex::encode(token_hash(&token)), "4ef4bc4d614ce58af51aedd5e72efc4a22f98be487749e198538d91170d69ca0");
        for length in 0..130 {
            let text = "rly_Z9".repeat(22)[..length].to_owned();
            assert_eq!(token_hash(&text), <[u8; 32]>::from(Sha256::digest(text.as_bytes())));
        }
    }

    /// R-TOKEN-1: only the prefix and exactly 40 base62 characters are a token.
    #[test]
    fn form_is_the_prefix_and_40_base62_characters() {
        assert!(is_well_formed("rly_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"));
        assert!(is_well_formed(&format!("rly_{}", "0".repeat(40))));
        let breaches = [
            String::new(),
            "rly_".to_owned(),
            format!("rly_{}", "a".repeat(39)),
            format!("rly_{}", "a".repeat(41)),
            format!("RLY_{}", "a".repeat(40)),
            format!("rly-{}", "a".repeat(40)),
            format!("rly_{}-", "a".repeat(39)),
            format!("rly_{}_", "a".repeat(39)),
            format!("rly_{} ", "a".repeat(39)),
            format!(" rly_{}", "a".repeat(40)),
            format!("rly_{}\n", "a".repeat(40)),
            format!("rly_{}", "\u{e9}".repeat(20)),
        ];
        for breach in breaches {
            assert!(!is_well_formed(&breach), "{breach:?}");
        }
    }
}
