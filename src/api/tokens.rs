//! `GET, POST /tokens` and `DELETE /tokens/{id}` (R-TOKEN-10): an app manages its tokens with its key and secret.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::app::{NewToken, Scope, Scopes};
use crate::label::Label;
use crate::limits;
use crate::rfc3339::parse_rfc3339;
use crate::setting::nearest;
use crate::wire::json::check_depth;

/// The members as they came: each is read on its own, so that an error names it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawToken<'a> {
    #[serde(borrow, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    scopes: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    expires_at: Option<&'a RawValue>,
}

/// `null` is a value: a list of scopes that is null is no list, and must not become full access.
fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Decodes a token to be created for this app. Without `scopes`, or with an empty list, it has full access (R-TOKEN-6);
/// without `expires_at`, or with null, it does not expire.
///
/// # Errors
/// 400 that names the member and the expectation.
pub fn decode_token(app: &str, body: &[u8], unix_ms: u64) -> Result<NewToken, Refusal> {
    check_depth(body, limits::JSON_DEPTH_MAX).map_err(|_| Refusal::bad_request("The body is nested too deeply."))?;
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    // serde reads a struct from a list, too, and an empty one would be a token with full access.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::bad_request("The body must be a JSON object."));
    }
    let raw: RawToken<'_> = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body must be a JSON object: {error}.")))?;
    Ok(NewToken {
        app: app.into(),
        name: raw.name.map_or_else(|| Ok(String::new()), decode_name)?,
        scopes: raw.scopes.map_or_else(|| Ok(Vec::new()), decode_scopes)?,
        expires_at_ms: raw.expires_at.map_or(Ok(None), |text| decode_expiry(text, unix_ms))?,
    })
}

fn decode_name(raw: &RawValue) -> Result<String, Refusal> {
    let max = limits::NAME_BYTES_MAX;
    let name: Option<String> = serde_json::from_str(raw.get()).ok();
    let name = name.filter(|name| name.len() <= max && !name.chars().any(char::is_control));
    let expected = || format!("name must be a string of at most {max} bytes without control characters.");
    name.ok_or_else(|| Refusal::bad_request(expected()))
}

fn decode_scopes(raw: &RawValue) -> Result<Vec<String>, Refusal> {
    let max = limits::TOKEN_SCOPES_MAX;
    let names: Option<Vec<String>> = serde_json::from_str(raw.get()).ok();
    let names = names.filter(|names| names.len() <= max);
    let expected = || format!("scopes must be a list of at most {max} names; known are {}.", Scopes::EVERY);
    let names = names.ok_or_else(|| Refusal::bad_request(expected()))?;
    for (index, name) in names.iter().enumerate() {
        if Scope::of_label(name).is_none() {
            let near = nearest(name, Scope::LABELS.iter().copied());
            let text = format!("scopes[{index}] is no scope{near}; known are {}.", Scopes::EVERY);
            return Err(Refusal::bad_request(text));
        }
    }
    Ok(names)
}

fn decode_expiry(raw: &RawValue, unix_ms: u64) -> Result<Option<u64>, Refusal> {
    if raw.get() == "null" {
        return Ok(None);
    }
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    let end = text.as_deref().and_then(parse_rfc3339);
    let expected = "expires_at must be null or a time in RFC 3339 such as 2027-01-31T00:00:00Z.";
    let end = end.ok_or_else(|| Refusal::bad_request(expected))?;
    if end <= unix_ms {
        return Err(Refusal::bad_request("expires_at is in the past."));
    }
    Ok(Some(end))
}

/// A token as its app sees it: never its hash.
#[derive(Debug, Serialize)]
pub struct ShownToken {
    /// Its public id, `tok_...`.
    pub id: String,
    /// The token itself, once, when it is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Its display name.
    pub name: String,
    /// Its scopes by name; none is full access.
    pub scopes: Vec<String>,
    /// RFC 3339, as all times.
    pub created_at: String,
    /// When it expires.
    pub expires_at: Option<String>,
    /// When it was last used; up to a minute behind.
    pub last_used_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// The credential that created it (R-ADMIN-5).
    pub created_by: Option<String>,
}

/// A token that was just created.
pub fn encode_token(token: &ShownToken) -> Vec<u8> {
    serde_json::to_vec(token).expect("texts and lists of texts are JSON")
}

/// The tokens of an app.
pub fn encode_tokens(tokens: &[ShownToken]) -> Vec<u8> {
    #[derive(Serialize)]
    struct List<'a> {
        tokens: &'a [ShownToken],
    }
    serde_json::to_vec(&List { tokens }).expect("texts and lists of texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn decoded(body: &str) -> Result<NewToken, Refusal> {
        decode_token("7", body.as_bytes(), NOW)
    }

    /// R-TOKEN-10: every member at its limit, and their defaults.
    #[test]
    fn tokens_are_decoded() {
        let new = decoded("{}").expect("defaults");
        assert_eq!((&*new.app, &*new.name, new.scopes.len(), new.expires_at_ms), ("7", "", 0, None));
        let name = "n".repeat(limits::NAME_BYTES_MAX);
        let body = format!(
            r#"{{"name":"{name}","scopes":["events:publish","channels:read"],"expires_at":"2027-01-31T01:00:00+01:00"}}"#
        );
        let new = decoded(&body).expect("all of it");
        assert_eq!((new.name, new.expires_at_ms), (name, Some(1_801_353_600_000)));
        assert_eq!(new.scopes, ["events:publish", "channels:read"]);
        let many = vec!["\"events:batch\""; limits::TOKEN_SCOPES_MAX].join(",");
        assert!(decoded(&format!(r#"{{"scopes":[{many}],"expires_at":null}}"#)).is_ok());
        assert!(decoded(&format!(r#"{{"scopes":[{many},"events:batch"]}}"#)).is_err());
    }

    /// R-TOKEN-10: an error is 400 and names the member; no slip widens what a token may do.
    #[test]
    fn errors_name_the_member() {
        let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(limits::NAME_BYTES_MAX + 1));
        for (body, part) in [
            (&*long, "name must be a string of at most 100 bytes"),
            (r#"{"name":7}"#, "name must be"),
            (r#"{"name":null}"#, "name must be"),
            (r#"{"name":"a\nb"}"#, "name must be"),
            (r#"{"name":"a","name":"b"}"#, "duplicate field `name`"),
            (r#"{"nme":"a"}"#, "unknown field `nme`"),
            (r#"{"scopes":null}"#, "scopes must be a list"),
            (r#"{"scopes":"events:publish"}"#, "scopes must be a list"),
            (r#"{"scopes":{}}"#, "scopes must be a list"),
            (r#"{"scopes":[7]}"#, "scopes must be a list"),
            (r#"{"scopes":["events:publish","events:pubish"]}"#, "scopes[1] is no scope"),
            (r#"{"scopes":[""]}"#, "scopes[0] is no scope"),
            (r#"{"scopes":["Events:Publish"]}"#, "scopes[0] is no scope"),
            (r#"{"expires_at":1801353600}"#, "expires_at must be null or a time"),
            (r#"{"expires_at":"tomorrow"}"#, "expires_at must be null or a time"),
            (r#"{"expires_at":"2027-01-31"}"#, "expires_at must be null or a time"),
            (r#"{"expires_at":"9999-12-31T23:59:59-00:01"}"#, "expires_at must be null or a time"),
            (r#"{"expires_at":"2020-01-01T00:00:00Z"}"#, "expires_at is in the past"),
            ("", "must be a JSON object"),
            ("[]", "must be a JSON object"),
            ("null", "must be a JSON object"),
            (r#"{"name":"a"} x"#, "must be a JSON object"),
        ] {
            let refusal = decoded(body).map(|new| new.name).expect_err(body);
            assert!(refusal.status == 400 && refusal.message.contains(part), "{body}: {}", refusal.message);
        }
        let deep = format!(r#"{{"scopes":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(decoded(&deep).map(|new| new.name).expect_err("deep").status, 400);
    }

    /// R-TOKEN-2, R-TOKEN-5: the token is in the answer to its creation and in no list.
    #[test]
    fn the_token_is_shown_once() {
        let shown = |token: Option<&str>| ShownToken {
            id: "tok_1".into(),
            token: token.map(Into::into),
            name: "ci".into(),
            scopes: Vec::new(),
            created_at: "2027-01-31T00:00:00Z".into(),
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
            created_by: Some("cli uid 0".into()),
        };
        let created = String::from_utf8(encode_token(&shown(Some("rly_x")))).expect("text");
        assert!(created.starts_with(r#"{"id":"tok_1","token":"rly_x","name":"ci","scopes":[],"#), "{created}");
        let list = String::from_utf8(encode_tokens(&[shown(None)])).expect("text");
        assert!(list.starts_with(r#"{"tokens":[{"id":"tok_1","name":"ci","#) && !list.contains(r#""token""#), "{list}");
    }
}
