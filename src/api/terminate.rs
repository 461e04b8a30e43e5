//! `POST /users/{uid}/terminate_connections` (P-HTTP-6, P-HTTP-10). The body is not used: SDKs send `{}` or none.

use super::refusal::Refusal;
use crate::limits;

/// Checks the id of the path (P-LIM-6). An id that nobody could sign in with terminates no connections.
///
/// # Errors
/// 400 that names the limit.
pub fn check_user_id(user_id: &str) -> Result<(), Refusal> {
    if let Some(character) = user_id.chars().find(|character| character.is_control()) {
        let message = format!("The user id must not contain the control character {character:?}.");
        return Err(Refusal::bad_request(message));
    }
    let bytes_max = limits::USER_ID_BYTES_MAX;
    if !(1..=bytes_max).contains(&user_id.len()) {
        return Err(Refusal::bad_request(format!("A user id must have 1 to {bytes_max} bytes.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-LIM-6: ids of 127 and 128 bytes are accepted; 129 bytes and control characters are 400.
    #[test]
    fn user_ids_have_a_limit() {
        for good in ["1", "a b", &"u".repeat(127), &"u".repeat(128)] {
            assert_eq!(check_user_id(good), Ok(()), "{good}");
        }
        for bad in ["", "a\nb", &"u".repeat(129)] {
            assert_eq!(check_user_id(bad).map_err(|refusal| refusal.status), Err(400), "{bad:?}");
        }
    }
}
