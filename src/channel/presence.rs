//! The user that joins a presence channel: `channel_data` as the client sends it (P-PRES-1).

use serde_json::value::RawValue;

use super::user::id_text;
use crate::limits;
use crate::wire::json::{starts_object, without_mark};

/// The joining user, from `channel_data`.
#[derive(Debug, Eq, PartialEq)]
pub struct ChannelData {
    /// `user_id` as a string; a number is formatted as JavaScript formats it (P-SDK-9).
    pub user_id: String,
    /// `user_info` as raw JSON text; absent and null are `None` (P-PRES-4).
    pub user_info: Option<String>,
}

/// Why `channel_data` was refused (P-PRES-1, P-LIM-6, P-LIM-7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelDataError {
    /// More bytes than allowed.
    TooLong,
    /// Not a JSON object.
    NoObject,
    /// No `user_id`, or one that is neither string nor number.
    NoUserId,
    /// Above `USER_ID_BYTES_MAX`, or empty.
    UserIdTooLong,
    /// The id contains this control character.
    UserIdCharacter(char),
}

#[derive(serde::Deserialize)]
struct RawChannelData<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

/// Decodes `channel_data` of at most `bytes_max` bytes.
pub fn decode_channel_data(text: &str, bytes_max: usize) -> Result<ChannelData, ChannelDataError> {
    if text.len() > bytes_max {
        return Err(ChannelDataError::TooLong);
    }
    if !starts_object(text) {
        return Err(ChannelDataError::NoObject);
    }
    let raw: RawChannelData<'_> = serde_json::from_str(without_mark(text)).map_err(|_| ChannelDataError::NoObject)?;
    let user_id =
        raw.user_id.and_then(|user_id| id_text(user_id.get())).ok_or(ChannelDataError::NoUserId)?.into_owned();
    if user_id.is_empty() || user_id.len() > limits::USER_ID_BYTES_MAX {
        return Err(ChannelDataError::UserIdTooLong);
    }
    if let Some(character) = user_id.chars().find(|character| character.is_control()) {
        return Err(ChannelDataError::UserIdCharacter(character));
    }
    let user_info = raw.user_info.map(RawValue::get).filter(|info| *info != "null").map(str::to_owned);
    Ok(ChannelData { user_id, user_info })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<ChannelData, ChannelDataError> {
        decode_channel_data(text, limits::CHANNEL_DATA_BYTES_MAX)
    }

    /// P-PRES-1, P-SDK-9: a number becomes the id that JavaScript formats, `user_info` is kept as raw text.
    #[test]
    fn identity_is_a_string() {
        let decoded = decode(r#"{"user_info":{"n":1.0},"user_id":669}"#);
        assert_eq!(decoded, Ok(ChannelData { user_id: "669".to_owned(), user_info: Some(r#"{"n":1.0}"#.to_owned()) }));
        for (number, user_id) in
            [("7.0", "7"), ("1e2", "100"), ("-0", "0"), ("12345678901234567890", "12345678901234567000")]
        {
            let decoded = decode(&format!(r#"{{"user_id":{number}}}"#));
            assert_eq!(decoded.map(|member| member.user_id), Ok(user_id.to_owned()), "{number}");
        }
        let decoded = decode(r#"{"user_id":"a\u00e9","user_info":null}"#);
        assert_eq!(decoded, Ok(ChannelData { user_id: "aé".to_owned(), user_info: None }));
    }

    /// P-IN-6, threat T10: the server does not judge `user_info`, however deeply it nests and wherever its text was
    /// cut.
    #[test]
    fn user_info_is_opaque() {
        let deep = format!(r#"{{"user_id":1,"user_info":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(decode(&deep).map(|member| member.user_info.map(|info| info.len())), Ok(Some(10_000)));
        let cut = decode(r#"{"user_id":"a\ud83d","user_info":{"name":"b\ud83d"}}"#).expect("a member");
        assert_eq!((&*cut.user_id, cut.user_info.as_deref()), ("a\u{fffd}", Some(r#"{"name":"b\ud83d"}"#)));
    }

    /// P-PRES-1, P-LIM-6, P-LIM-7: each violation has its own answer, at the limit and one beyond.
    #[test]
    fn refuses_what_names_nobody() {
        let refused = |text: &str| decode(text).expect_err("refused");
        assert_eq!(refused(""), ChannelDataError::NoObject);
        assert_eq!(refused("[1]"), ChannelDataError::NoObject);
        assert_eq!(refused("{}"), ChannelDataError::NoUserId);
        assert_eq!(refused(r#"{"user_id":true}"#), ChannelDataError::NoUserId);
        assert_eq!(refused(r#"{"user_id":""}"#), ChannelDataError::UserIdTooLong);
        assert_eq!(refused(r#"{"user_id":"a\nb"}"#), ChannelDataError::UserIdCharacter('\n'));
        let with_id = |bytes: usize| format!(r#"{{"user_id":"{}"}}"#, "x".repeat(bytes));
        assert!(decode(&with_id(128)).is_ok());
        assert_eq!(refused(&with_id(129)), ChannelDataError::UserIdTooLong);
        let with_info = |bytes: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(bytes - 28));
        assert_eq!(with_info(10_240).len(), 10_240);
        assert!(decode(&with_info(10_240)).is_ok());
        assert_eq!(refused(&with_info(10_241)), ChannelDataError::TooLong);
    }
}
