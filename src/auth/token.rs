//! App tokens: `rly_` and 40 base62 characters (R-TOKEN rules). Only the SHA-256 is ever stored.

/// SHA-256 of the whole token (R-TOKEN-2).
pub fn token_hash(_token: &str) -> [u8; 32] {
    todo!()
}

/// True for `rly_` followed by exactly 40 base62 characters (R-TOKEN-1).
pub fn is_well_formed(_token: &str) -> bool {
    todo!()
}
