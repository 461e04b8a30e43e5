//! App tokens: `rly_` and 40 base62 characters (R-TOKEN rules). Admin tokens: `rly_adm_` and 40 (R-ADMIN-2). Only the
//! SHA-256 is ever stored.
//!
//! The prefix of one begins that of the other, so the complete form decides before any look-up which one a text is
//! (threat T42). No text has both forms.

use ring::digest;

/// Prefix of every token (R-TOKEN-1).
pub const TOKEN_PREFIX: &str = "rly_";
/// Prefix of every admin token (R-ADMIN-2).
pub const ADMIN_TOKEN_PREFIX: &str = "rly_adm_";
/// Characters of a token after its prefix, 238 bits of randomness.
pub const TOKEN_RANDOM_CHARACTERS: usize = 40;

/// SHA-256 of the complete token (R-TOKEN-2).
pub fn token_hash(token: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// True for `rly_` followed by exactly 40 base62 characters (R-TOKEN-1).
pub fn is_well_formed(token: &str) -> bool {
    token.strip_prefix(TOKEN_PREFIX).is_some_and(is_random_part)
}

/// True for `rly_adm_` followed by exactly 40 base62 characters (R-ADMIN-2).
pub fn is_admin_token(token: &str) -> bool {
    token.strip_prefix(ADMIN_TOKEN_PREFIX).is_some_and(is_random_part)
}

fn is_random_part(text: &str) -> bool {
    text.len() == TOKEN_RANDOM_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
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

    /// Threat T42, R-ADMIN-2: no text is both, whatever its length; the admin form has its own prefix and exactly 40
    /// characters.
    #[test]
    fn admin_tokens_have_a_form_of_their_own() {
        let admin = format!("rly_adm_{}", "a".repeat(40));
        assert!(is_admin_token(&admin) && !is_well_formed(&admin));
        for length in 0..60 {
            for start in ["rly_", "rly_adm_", "rly_adm", "rly_admX"] {
                let text = format!("{start}{}", "a".repeat(length));
                assert!(!(is_admin_token(&text) && is_well_formed(&text)), "{text}");
                assert_eq!(is_admin_token(&text), start == "rly_adm_" && length == 40, "{text}");
                let is_app = start != "rly_adm_" && text.len() == 44;
                assert_eq!(is_well_formed(&text), is_app, "{text}");
            }
        }
    }
}
