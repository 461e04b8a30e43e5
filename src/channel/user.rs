//! The user that a signin claims to be: its `user_data` (P-USER-1, P-LIM-6, P-LIM-8).
//!
//! Invariant: the id of a signed-in user forms the name of a channel, so that any signed-in client can subscribe to
//! `#server-to-user-<id>` (P-USER-4).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::name::{ChannelName, NameRules, NameSource, SERVER_TO_USER};
use crate::limits;
use crate::wire::json::{decode_string, starts_object, without_mark};

/// A user, from `user_data`.
#[derive(Debug, Eq, PartialEq)]
pub struct UserData<'a> {
    /// `user_data` as it was received, except that an id that is a number is written as the string `id`.
    pub text: Cow<'a, str>,
    /// Its id.
    pub id: Cow<'a, str>,
    /// `user_info` as raw JSON text; absent and null are `None`.
    pub user_info: Option<&'a str>,
    /// The users that it watches, as listed; none of them needs ever to sign in.
    pub watchlist: Vec<Cow<'a, str>>,
}

/// Why `user_data` was refused; the message is for the client (P-USER-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UserDataError {
    /// Not a JSON object, or a member that occurs twice (threat T10).
    #[error("user_data must be a string that contains a JSON object")]
    NoObject,
    /// No `id`, an empty one, or one that is neither string nor number.
    #[error("user_data must have an id: a number or a non-empty string")]
    NoId,
    /// More bytes than an id may have.
    #[error("The id in user_data has {0} bytes: it must have 1 to {max} bytes", max = limits::USER_ID_BYTES_MAX)]
    IdTooLong(usize),
    /// A character that channel names may not contain.
    #[error(
        "The id in user_data has the character {0:?}: only the characters of channel names (channel_names) are permitted, \
         because the id is part of #server-to-user-<id>"
    )]
    IdCharacter(char),
    /// `user_info` is not an object.
    #[error("user_info in user_data must be an object")]
    InvalidInfo,
    /// `user_info` is longer than presence channels accept.
    #[error("user_info in user_data is longer than {0} bytes (max_channel_data_bytes)")]
    InfoTooLong(usize),
    /// `watchlist` is not an array of user ids.
    #[error(
        "watchlist in user_data must be an array of user ids: numbers, or strings of 1 to {max} bytes",
        max = limits::USER_ID_BYTES_MAX
    )]
    InvalidWatchlist,
    /// An id in `watchlist` has more bytes than an id may have.
    #[error("An id in the watchlist of user_data has {0} bytes: an id has 1 to {max} bytes", max = limits::USER_ID_BYTES_MAX)]
    WatchedIdTooLong(usize),
    /// An id in `watchlist` has a control character.
    #[error("An id in the watchlist of user_data has the character {0:?}: an id has no control characters")]
    WatchedIdCharacter(char),
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

/// Decodes `user_data`. `names` are the rules for channel names, which the id must satisfy; `info_bytes_max` is the
/// limit of `user_info`, which is that of `channel_data`, since it takes its place (P-USER-5, P-LIM-7).
///
/// # Errors
/// [`UserDataError`]; the socket stays open (P-USER-3).
pub fn decode_user_data(text: &str, names: NameRules, info_bytes_max: usize) -> Result<UserData<'_>, UserDataError> {
    if !starts_object(text) {
        return Err(UserDataError::NoObject);
    }
    let raw: RawUserData<'_> = serde_json::from_str(without_mark(text)).map_err(|_| UserDataError::NoObject)?;
    let raw_id = raw.id.ok_or(UserDataError::NoId)?.get();
    let id = id_text(raw_id).filter(|id| !id.is_empty()).ok_or(UserDataError::NoId)?;
    check_id(&id, names)?;
    let user_info = raw.user_info.map(RawValue::get);
    if user_info.is_some_and(|info| !info.starts_with('{')) {
        return Err(UserDataError::InvalidInfo);
    }
    if user_info.is_some_and(|info| info.len() > info_bytes_max) {
        return Err(UserDataError::InfoTooLong(info_bytes_max));
    }
    let watchlist = raw.watchlist.map_or(Ok(Vec::new()), decode_watchlist)?;
    let text = if raw_id.starts_with('"') { Cow::Borrowed(text) } else { Cow::Owned(with_text_id(text, raw_id, &id)) };
    Ok(UserData { text, id, user_info, watchlist })
}

/// P-LIM-6, P-CHAN-2.
fn check_id(id: &str, names: NameRules) -> Result<(), UserDataError> {
    if id.len() > limits::USER_ID_BYTES_MAX {
        return Err(UserDataError::IdTooLong(id.len()));
    }
    if let Some(character) = id.chars().find(|character| character.is_control() || !names.allows(*character)) {
        return Err(UserDataError::IdCharacter(character));
    }
    let channel = format!("{SERVER_TO_USER}{id}");
    debug_assert!(ChannelName::parse(&channel, names, NameSource::WebSocket).is_ok(), "{channel}");
    Ok(())
}

fn decode_watchlist(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, UserDataError> {
    let users: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| UserDataError::InvalidWatchlist)?;
    users.into_iter().map(|raw| watched_id(raw.get())).collect()
}

/// P-LIM-6: watched ids are not limited to the characters of channel names.
fn watched_id(json: &str) -> Result<Cow<'_, str>, UserDataError> {
    let id = id_text(json).filter(|id| !id.is_empty()).ok_or(UserDataError::InvalidWatchlist)?;
    if id.len() > limits::USER_ID_BYTES_MAX {
        return Err(UserDataError::WatchedIdTooLong(id.len()));
    }
    match id.chars().find(|character| character.is_control()) {
        Some(character) => Err(UserDataError::WatchedIdCharacter(character)),
        None => Ok(id),
    }
}

/// `user_data` with a string in place of the number `raw_id`, which is a part of it: client libraries compare the id
/// with strings, and pusher-js accepts nothing else (P-USER-1).
fn with_text_id(text: &str, raw_id: &str, id: &str) -> String {
    let before = raw_id.as_ptr() as usize - text.as_ptr() as usize;
    let (before, after) = (text.get(..before), text.get(before + raw_id.len()..));
    format!("{}\"{id}\"{}", before.unwrap_or_default(), after.unwrap_or_default())
}

/// The text of an id: of a string, or of a number as JavaScript formats it, so that it is the same for the server and
/// for a client that has parsed it (P-PRES-1, P-USER-1). `None` for all other JSON.
pub(super) fn id_text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => decode_string(json),
        b'-' | b'0'..=b'9' => json.parse().ok().map(|number| Cow::Owned(javascript_number(number))),
        _ => None,
    }
}

/// `String(number)` of ECMAScript (`Number::toString` with radix 10): the shortest digits that read back as the number.
fn javascript_number(number: f64) -> String {
    let magnitude = number.abs();
    if number == 0.0 {
        return "0".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if (1e-6..1e21).contains(&magnitude) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    if magnitude < 1.0 { text } else { text.replace('e', "e+") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<UserData<'_>, UserDataError> {
        decode_user_data(text, NameRules::Default, limits::CHANNEL_DATA_BYTES_MAX)
    }

    /// P-USER-1: the id is required, `user_info` and `watchlist` are optional, anything else is ignored.
    #[test]
    fn members_of_a_user() {
        let user = decode(r#" {"x":1,"watchlist":["a","b"],"user_info":{"n": 1.0},"id":"u\u0031"} "#);
        let watchlist = vec!["a".into(), "b".into()];
        let text = r#" {"x":1,"watchlist":["a","b"],"user_info":{"n": 1.0},"id":"u\u0031"} "#.into();
        assert_eq!(user, Ok(UserData { text, id: "u1".into(), user_info: Some(r#"{"n": 1.0}"#), watchlist }));
        for text in [r#"{"id":"1"}"#, r#"{"id":"1","user_info":null,"watchlist":null}"#, r#"{"id":"1","watchlist":[]}"#]
        {
            let expected = UserData { text: text.into(), id: "1".into(), user_info: None, watchlist: Vec::new() };
            assert_eq!(decode(text), Ok(expected), "{text}");
        }
    }

    /// P-USER-1, P-SDK-9: ids that are numbers become the strings that JavaScript makes of them, and the data that the
    /// client gets back contains that string; the rest is kept byte for byte.
    #[test]
    fn numbers_are_ids() {
        let user = decode(r#"{ "user_info":{"id":7}, "id" : 7 , "watchlist":[8,"9",1.50]}"#).expect("a user");
        assert_eq!((&*user.id, user.watchlist), ("7", vec!["8".into(), "9".into(), "1.5".into()]));
        assert_eq!(user.text, r#"{ "user_info":{"id":7}, "id" : "7" , "watchlist":[8,"9",1.50]}"#);
        for (json, text) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("1", "1"),
            ("-17", "-17"),
            ("1.0", "1"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("12E-1", "1.2"),
            ("9007199254740993", "9007199254740992"),
            ("12345678901234567890", "12345678901234567000"),
            ("123456789012345680000", "123456789012345680000"),
            ("999999999999999900000", "999999999999999900000"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1.5e21", "1.5e+21"),
            ("-1.25e300", "-1.25e+300"),
            ("0.000001", "0.000001"),
            ("0.0000015", "0.0000015"),
            ("0.0000001", "1e-7"),
            ("-1.5e-7", "-1.5e-7"),
            ("5e-324", "5e-324"),
            ("1e-400", "0"),
            ("1e309", "Infinity"),
            ("-1e309", "-Infinity"),
        ] {
            assert_eq!(id_text(json).as_deref(), Some(text), "{json}");
        }
        for json in ["null", "true", "{}", "[]", "[1]"] {
            assert_eq!(id_text(json), None, "{json}");
        }
    }

    /// P-USER-1, P-USER-3: a refusal names the character, or the length.
    #[test]
    fn refusals_name_what_is_wrong() {
        let reason = |text: &str, names| decode_user_data(text, names, 100).expect_err(text).to_string();
        assert!(reason(r#"{"id":"a b"}"#, NameRules::Default).contains("the character ' '"));
        assert!(reason(r#"{"id":"anne+x@é.org"}"#, NameRules::Default).contains("the character '+'"));
        assert!(reason(r#"{"id":"a\u0000"}"#, NameRules::Permissive).contains(r"the character '\0'"));
        assert!(reason(r#"{"id":"a:b"}"#, NameRules::Strict).contains("the character ':'"));
        assert!(reason(r#"{"id":"1e999|"}"#, NameRules::Default).contains("the character '|'"));
        assert!(reason(r#"{"id":1e21}"#, NameRules::Default).contains("the character '+'"));
        let long = format!(r#"{{"id":"{}"}}"#, "u".repeat(129));
        assert!(reason(&long, NameRules::Default).contains("has 129 bytes"));
        let watching = |id: &str| format!(r#"{{"id":"1","watchlist":["2","{id}"]}}"#);
        assert!(
            reason(&watching(r"a\u0007"), NameRules::Permissive)
                .contains(r"watchlist of user_data has the character '\u{7}'")
        );
        assert!(
            reason(&watching(&"u".repeat(129)), NameRules::Default).contains("watchlist of user_data has 129 bytes")
        );
    }

    /// P-USER-1, P-USER-3, threat T10: each violation has its own reason.
    #[test]
    fn refuses_what_names_nobody() {
        for (text, error) in [
            ("", UserDataError::NoObject),
            ("[]", UserDataError::NoObject),
            ("\"1\"", UserDataError::NoObject),
            (r#"["1"]"#, UserDataError::NoObject),
            (r#"{"id":"1""#, UserDataError::NoObject),
            (r#"{"id":"1","id":"1"}"#, UserDataError::NoObject),
            ("{}", UserDataError::NoId),
            (r#"{"id":null}"#, UserDataError::NoId),
            (r#"{"id":true}"#, UserDataError::NoId),
            (r#"{"id":[1]}"#, UserDataError::NoId),
            (r#"{"id":""}"#, UserDataError::NoId),
            (r#"{"id":"a b"}"#, UserDataError::IdCharacter(' ')),
            (r#"{"id":"a\nb"}"#, UserDataError::IdCharacter('\n')),
            (r#"{"id":"é"}"#, UserDataError::IdCharacter('é')),
            (r#"{"id":"1","user_info":"x"}"#, UserDataError::InvalidInfo),
            (r#"{"id":"1","user_info":[]}"#, UserDataError::InvalidInfo),
            (r#"{"id":"1","watchlist":"a"}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":[true]}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":{"a":1}}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":[""]}"#, UserDataError::InvalidWatchlist),
            (r#"{"id":"1","watchlist":["b","a\u0000"]}"#, UserDataError::WatchedIdCharacter('\0')),
        ] {
            assert_eq!(decode(text), Err(error), "{text}");
        }
    }

    /// P-LIM-6, P-LIM-7: ids of 127 and 128 bytes and `user_info` of 10,239 and 10,240 bytes are accepted, one byte
    /// more is not.
    #[test]
    fn size_limits() {
        let id = |bytes: usize| format!(r#"{{"id":"{}"}}"#, "u".repeat(bytes));
        let watched = |bytes: usize| format!(r#"{{"id":"1","watchlist":["{}"]}}"#, "u".repeat(bytes));
        let info = |bytes: usize| format!(r#"{{"id":"1","user_info":{{"x":"{}"}}}}"#, "u".repeat(bytes - 8));
        for good in [id(127), id(128), watched(127), watched(128), info(10_239), info(10_240)] {
            assert!(decode(&good).is_ok(), "{good}");
        }
        assert_eq!(decode(&id(129)), Err(UserDataError::IdTooLong(129)));
        assert_eq!(decode(&watched(129)), Err(UserDataError::WatchedIdTooLong(129)));
        assert_eq!(decode(&info(10_241)), Err(UserDataError::InfoTooLong(10_240)));
    }

    /// P-LIM-6, P-CHAN-2: ids are limited to the characters of channel names, whichever rules an operator chose;
    /// watched ones are not.
    #[test]
    fn ids_obey_the_rules_of_channel_names() {
        for (text, rules, good) in [
            (r#"{"id":"a:b#c@d"}"#, NameRules::Default, true),
            (r#"{"id":"a:b"}"#, NameRules::Strict, false),
            (r#"{"id":"é+ü"}"#, NameRules::Permissive, true),
            (r#"{"id":"a b"}"#, NameRules::Permissive, false),
            (r#"{"id":"a","watchlist":["x y","é+ü"]}"#, NameRules::Strict, true),
        ] {
            assert_eq!(decode_user_data(text, rules, 100).is_ok(), good, "{text}");
        }
    }
}
