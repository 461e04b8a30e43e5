//! Who a user says to be: the `user_data` of a signin (P-USER-1, P-LIM-6, P-LIM-8).
//!
//! What must hold: the id of a signed-in user makes the name of a channel, so that whoever signs in can subscribe
//! `#server-to-user-<id>` (P-USER-4).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::name::{ChannelName, NameRules, NameSource, SERVER_TO_USER};
use crate::limits;
use crate::wire::json::check_depth;

/// A user, from `user_data`.
#[derive(Debug, Eq, PartialEq)]
pub struct UserData<'a> {
    /// Its id.
    pub id: Cow<'a, str>,
    /// `user_info` as raw JSON text; absent and null are `None`.
    pub user_info: Option<&'a str>,
    /// Whom it watches, as listed; none of them need ever sign in.
    pub watchlist: Vec<Cow<'a, str>>,
}

/// Why `user_data` was refused; the message is for the client (P-USER-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UserDataError {
    /// No JSON object, too deep, or a member that stands twice (threat T10).
    #[error("user_data must be a string that holds a JSON object")]
    NoObject,
    /// No `id`, or no string.
    #[error("user_data must have an id: a string that is not empty")]
    NoId,
    /// Too long, or with a character that channel names may not have.
    #[error(
        "The id in user_data must have 1 to {max} bytes that channel names may have",
        max = limits::USER_ID_BYTES_MAX
    )]
    InvalidId,
    /// `user_info` is no object.
    #[error("user_info in user_data must be an object")]
    InvalidInfo,
    /// `user_info` is longer than presence channels take.
    #[error("user_info in user_data is longer than {max} bytes", max = limits::CHANNEL_DATA_BYTES_MAX)]
    InfoTooLong,
    /// `watchlist` is no array of user ids.
    #[error(
        "watchlist in user_data must be an array of user ids: strings of 1 to {max} bytes without control characters",
        max = limits::USER_ID_BYTES_MAX
    )]
    InvalidWatchlist,
}

#[derive(serde::Deserialize)]
struct RawUserData<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow)]
    watchlist: Option<&'a RawValue>,
}

/// A string, lent where it has no escape.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Decodes `user_data`. `names` are the rules for channel names, which the id must meet.
///
/// # Errors
/// [`UserDataError`]; the socket stays open (P-USER-3).
pub fn decode_user_data(text: &str, names: NameRules) -> Result<UserData<'_>, UserDataError> {
    check_depth(text.as_bytes(), limits::JSON_DEPTH_MAX).map_err(|_| UserDataError::NoObject)?;
    if !text.trim_start().starts_with('{') {
        return Err(UserDataError::NoObject);
    }
    let raw: RawUserData<'_> = serde_json::from_str(text).map_err(|_| UserDataError::NoObject)?;
    let id = raw.id.ok_or(UserDataError::NoId)?;
    let Text(id) = serde_json::from_str(id.get()).map_err(|_| UserDataError::NoId)?;
    if id.is_empty() {
        return Err(UserDataError::NoId);
    }
    let channel = format!("{SERVER_TO_USER}{id}");
    if !is_user_id(&id) || ChannelName::parse(&channel, names, NameSource::WebSocket).is_err() {
        return Err(UserDataError::InvalidId);
    }
    let user_info = raw.user_info.map(RawValue::get);
    if user_info.is_some_and(|info| !info.starts_with('{')) {
        return Err(UserDataError::InvalidInfo);
    }
    if user_info.is_some_and(|info| info.len() > limits::CHANNEL_DATA_BYTES_MAX) {
        return Err(UserDataError::InfoTooLong);
    }
    let watchlist = raw.watchlist.map_or(Ok(Vec::new()), decode_watchlist)?;
    Ok(UserData { id, user_info, watchlist })
}

fn decode_watchlist(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, UserDataError> {
    let users: Vec<Text<'_>> = serde_json::from_str(raw.get()).map_err(|_| UserDataError::InvalidWatchlist)?;
    if !users.iter().all(|Text(user_id)| is_user_id(user_id)) {
        return Err(UserDataError::InvalidWatchlist);
    }
    Ok(users.into_iter().map(|Text(user_id)| user_id).collect())
}

/// P-LIM-6.
pub fn is_user_id(text: &str) -> bool {
    (1..=limits::USER_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<UserData<'_>, UserDataError> {
        decode_user_data(text, NameRules::Default)
    }

    /// P-USER-1: the id is needed, `user_info` and `watchlist` may be there, anything else is ignored.
    #[test]
    fn members_of_a_user() {
        let user = decode(r#" {"x":1,"watchlist":["a","b"],"user_info":{"n": 1.0},"id":"u\u0031"} "#);
        let watchlist = vec!["a".into(), "b".into()];
        assert_eq!(user, Ok(UserData { id: "u1".into(), user_info: Some(r#"{"n": 1.0}"#), watchlist }));
        for text in [r#"{"id":"1"}"#, r#"{"id":"1","user_info":null,"watchlist":null}"#, r#"{"id":"1","watchlist":[]}"#]
        {
            assert_eq!(decode(text), Ok(UserData { id: "1".into(), user_info: None, watchlist: Vec::new() }), "{text}");
        }
    }

    /// P-USER-1, P-USER-3, threat T10: each breach has its own reason.
    #[test]
    fn refuses_what_names_nobody() {
        let deep = format!(r#"{{"id":"1","x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        for (text, error) in [
            ("", UserDataError::NoObject),
            ("[]", UserDataError::NoObject),
            ("\"1\"", UserDataError::NoObject),
            (r#"["1"]"#, UserDataError::NoObject),
            (r#"{"id":"1""#, UserDataError::NoObject),
            (r#"{"id":"1","id":"1"}"#, UserDataError::NoObject),
            (deep.as_str(), UserDataError::NoObject),
            ("{}", UserDataError::NoId),
            (r#"{"id":null}"#, UserDataError::NoId),
            (r#"{"id":1}"#, UserDataError::NoId),
            (r#"{"id":""}"#, UserDataError::NoId),
            (r#"{"id":"a b"}"#, UserDataError::InvalidId),
            (r#"{"id":"a\nb"}"#, UserDataError::InvalidId),
            (r#"{"id":"é"}"#, UserDataError::InvalidId),
            (r#"{"id":"1","user_info":"x"}"#, UserDataError::InvalidInfo),
            (r#"{"id":"1","user_info":[]}"#, UserDataError::InvalidInfo),
            (r#"{"id":"1","watchlist":"a"}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":[1]}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":[""]}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":["a\u0000"]}"#, UserDataError::InvalidWatchlist),
        ] {
            assert_eq!(decode(text), Err(error), "{text}");
        }
    }

    /// P-LIM-6, P-LIM-7: ids of 127 and 128 bytes and `user_info` of 10,239 and 10,240 bytes pass, one byte more does not.
    #[test]
    fn size_limits() {
        let id = |bytes: usize| format!(r#"{{"id":"{}"}}"#, "u".repeat(bytes));
        let watched = |bytes: usize| format!(r#"{{"id":"1","watchlist":["{}"]}}"#, "u".repeat(bytes));
        let info = |bytes: usize| format!(r#"{{"id":"1","user_info":{{"x":"{}"}}}}"#, "u".repeat(bytes - 8));
        for good in [id(127), id(128), watched(127), watched(128), info(10_239), info(10_240)] {
            assert!(decode(&good).is_ok(), "{good}");
        }
        assert_eq!(decode(&id(129)), Err(UserDataError::InvalidId));
        assert_eq!(decode(&watched(129)), Err(UserDataError::InvalidWatchlist));
        assert_eq!(decode(&info(10_241)), Err(UserDataError::InfoTooLong));
    }

    /// P-LIM-6, P-CHAN-2: ids have the characters of channel names, whichever rules an operator chose; watched ones need not.
    #[test]
    fn ids_obey_the_rules_of_channel_names() {
        for (text, rules, good) in [
            (r#"{"id":"a:b#c@d"}"#, NameRules::Default, true),
            (r#"{"id":"a:b"}"#, NameRules::Strict, false),
            (r#"{"id":"é+ü"}"#, NameRules::Permissive, true),
            (r#"{"id":"a b"}"#, NameRules::Permissive, false),
            (r#"{"id":"a","watchlist":["x y","é+ü"]}"#, NameRules::Strict, true),
        ] {
            assert_eq!(decode_user_data(text, rules).is_ok(), good, "{text}");
        }
    }
}
