//! `POST, DELETE /encryption-key`: the master key of an app's encrypted channels (R-AUTHEP-6).

use serde::Deserialize;

use super::refusal::Refusal;
use crate::limits::JSON_DEPTH_MAX;
use crate::wire::json::{check_depth, starts_object};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNewKey {
    #[serde(default)]
    store: bool,
}

/// Decodes whether a new key is to be stored. An empty body is no.
///
/// # Errors
/// 400 that names the expected form.
pub fn decode_new_key(body: &[u8]) -> Result<bool, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(false);
    }
    let refuse = || Refusal::bad_request("The body must be empty or {\"store\":true}.");
    check_depth(body, JSON_DEPTH_MAX).map_err(|_| refuse())?;
    // An array would be read as the values of the members.
    let text = std::str::from_utf8(body).ok().filter(|text| starts_object(text)).ok_or_else(refuse)?;
    let raw: RawNewKey = serde_json::from_str(text).map_err(|_| refuse())?;
    Ok(raw.store)
}

/// The answer with a new key: the only time that it is shown.
pub fn encode_master_key(key: &str, stored: bool) -> Vec<u8> {
    serde_json::json!({ "encryption_master_key": key, "stored": stored }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-AUTHEP-6: a key is stored only if the request says so; anything else is named.
    #[test]
    fn storing_is_explicit() {
        for (body, stored) in
            [("", false), (" ", false), ("{}", false), (r#"{"store":false}"#, false), (r#"{"store":true}"#, true)]
        {
            assert_eq!(decode_new_key(body.as_bytes()), Ok(stored), "{body}");
        }
        for body in ["[]", "[true]", r#"{"store":1}"#, r#"{"stored":true}"#, "x"] {
            let refusal = decode_new_key(body.as_bytes()).expect_err(body);
            assert!(refusal.status == 400 && refusal.message.contains("store"), "{}", refusal.message);
        }
    }
}
