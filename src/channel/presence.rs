//! Who joins a presence channel: `channel_data` as the client sends it (P-PRES-1).

use serde_json::value::RawValue;

use crate::limits;
use crate::wire::json::check_depth;

/// Who joins, from `channel_data`.
#[derive(Debug, Eq, PartialEq)]
pub struct ChannelData {
    /// `user_id` as a string; a number keeps its spelling (P-SDK-9).
    pub user_id: String,
    /// `user_info` as raw JSON text; absent and null are `None` (P-PRES-4).
    pub user_info: Option<String>,
}

/// Why `channel_data` was refused (P-PRES-1, P-LIM-6, P-LIM-7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelDataError {
    /// More than `CHANNEL_DATA_BYTES_MAX`.
    TooLong,
    /// No JSON object.
    NoObject,
    /// No `user_id`, or neither string nor number.
    NoUserId,
    /// Above `USER_ID_BYTES_MAX`, empty, or with control characters.
    UserIdTooLong,
}

#[derive(serde::Deserialize)]
struct RawChannelData<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

/// Decodes `channel_data`.
pub fn decode_channel_data(text: &str) -> Result<ChannelData, ChannelDataError> {
    if text.len() > limits::CHANNEL_DATA_BYTES_MAX {
        return Err(ChannelDataError::TooLong);
    }
    check_depth(text.as_bytes(), limits::JSON_DEPTH_MAX).map_err(|_| ChannelDataError::NoObject)?;
    if !text.trim_start().starts_with('{') {
        return Err(ChannelDataError::NoObject);
    }
    let raw: RawChannelData<'_> = serde_json::from_str(text).map_err(|_| ChannelDataError::NoObject)?;
    let user_id = raw.user_id.ok_or(ChannelDataError::NoUserId)?.get();
    let user_id = match user_id.as_bytes().first() {
        Some(b'"') => serde_json::from_str(user_id).map_err(|_| ChannelDataError::NoUserId)?,
        Some(b'-' | b'0'..=b'9') => user_id.to_owned(),
        _ => return Err(ChannelDataError::NoUserId),
    };
    if user_id.is_empty() || user_id.len() > limits::USER_ID_BYTES_MAX || user_id.chars().any(char::is_control) {
        return Err(ChannelDataError::UserIdTooLong);
    }
    let user_info = raw.user_info.map(RawValue::get).filter(|info| *info != "null").map(str::to_owned);
    Ok(ChannelData { user_id, user_info })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-PRES-1, P-SDK-9: a number is an identity by its spelling, `user_info` is kept as raw text.
    #[test]
    fn identity_is_a_string() {
        let decoded = decode_channel_data(r#"{"user_info":{"n":1.0},"user_id":669}"#);
        assert_eq!(decoded, Ok(ChannelData { user_id: "669".to_owned(), user_info: Some(r#"{"n":1.0}"#.to_owned()) }));
        let decoded = decode_channel_data(r#"{"user_id":"a\u00e9","user_info":null}"#);
        assert_eq!(decoded, Ok(ChannelData { user_id: "aé".to_owned(), user_info: None }));
    }

    /// P-PRES-1, P-LIM-6, P-LIM-7: each breach has its own answer, at the limit and one beyond.
    #[test]
    fn refuses_what_names_nobody() {
        let refused = |text: &str| decode_channel_data(text).expect_err("refused");
        assert_eq!(refused(""), ChannelDataError::NoObject);
        assert_eq!(refused("[1]"), ChannelDataError::NoObject);
        assert_eq!(refused("{}"), ChannelDataError::NoUserId);
        assert_eq!(refused(r#"{"user_id":true}"#), ChannelDataError::NoUserId);
        assert_eq!(refused(r#"{"user_id":""}"#), ChannelDataError::UserIdTooLong);
        assert_eq!(refused(r#"{"user_id":"a\nb"}"#), ChannelDataError::UserIdTooLong);
        let with_id = |bytes: usize| format!(r#"{{"user_id":"{}"}}"#, "x".repeat(bytes));
        assert!(decode_channel_data(&with_id(128)).is_ok());
        assert_eq!(refused(&with_id(129)), ChannelDataError::UserIdTooLong);
        let deep = format!(r#"{{"user_id":1,"user_info":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(refused(&deep), ChannelDataError::NoObject);
        let with_info = |bytes: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(bytes - 28));
        assert_eq!(with_info(10_240).len(), 10_240);
        assert!(decode_channel_data(&with_info(10_240)).is_ok());
        assert_eq!(refused(&with_info(10_241)), ChannelDataError::TooLong);
    }
}
