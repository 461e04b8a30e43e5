//! The roster of one presence channel, held by the channel's owner (P-PRES rules).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::value::RawValue;
use siphasher::sip::SipHasher13;

use crate::limits;
use crate::wire::json::check_depth;

/// Members in the order in which they joined.
#[derive(Debug)]
pub struct Roster {
    members: BTreeMap<u64, Member>,
    by_user: HashMap<Arc<str>, u64, SeededHash>,
    next: u64,
    /// The encoded `subscription_succeeded` frame of the present roster, made at most once per change.
    encoded: Option<Bytes>,
}

/// One user, however many connections it has.
#[derive(Debug)]
pub struct Member {
    /// Identity as a string (P-PRES-1).
    pub user_id: Arc<str>,
    /// `user_info` as raw JSON text, that of the first join (P-PRES-3).
    pub user_info: Option<Arc<str>>,
    connections: u32,
}

/// What a join changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Joined {
    /// The user's first connection: tell the others (P-PRES-2).
    First,
    /// A further connection of a member.
    Again,
    /// The channel is full (P-LIM-7); nothing changed.
    Full,
}

/// What a leave changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// The user's last connection: tell the others (P-PRES-2).
    Last,
    /// The user has other connections.
    StillThere,
}

/// Hashes user ids, which peers choose, under the process's secret (threat T12).
#[derive(Clone, Debug)]
struct SeededHash(SipHasher13);

impl std::hash::BuildHasher for SeededHash {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

impl Roster {
    /// Nobody.
    pub fn new(boot_secret: &[u8; 16]) -> Self {
        let hash = SeededHash(SipHasher13::new_with_key(boot_secret));
        Self { members: BTreeMap::new(), by_user: HashMap::with_hasher(hash), next: 0, encoded: None }
    }

    /// Users in it.
    pub fn count(&self) -> u32 {
        self.members.len() as u32
    }

    /// Adds a connection of a user, unless that would make more than `members_max` users.
    pub fn join(&mut self, user_id: &Arc<str>, user_info: Option<&Arc<str>>, members_max: u32) -> Joined {
        if let Some(at) = self.by_user.get(user_id) {
            self.members.get_mut(at).expect("both maps hold the same users").connections += 1;
            return Joined::Again;
        }
        if self.count() >= members_max {
            return Joined::Full;
        }
        let member = Member { user_id: user_id.clone(), user_info: user_info.cloned(), connections: 1 };
        self.members.insert(self.next, member);
        self.by_user.insert(user_id.clone(), self.next);
        self.next += 1;
        self.encoded = None;
        Joined::First
    }

    /// Takes a connection of a member away.
    pub fn leave(&mut self, user_id: &str) -> Left {
        let at = *self.by_user.get(user_id).expect("only who joined leaves");
        let member = self.members.get_mut(&at).expect("both maps hold the same users");
        member.connections -= 1;
        if member.connections > 0 {
            return Left::StillThere;
        }
        self.members.remove(&at);
        self.by_user.remove(user_id);
        self.encoded = None;
        Left::Last
    }

    /// The members in join order.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> + Clone {
        self.members.values()
    }

    /// The encoded roster, made by `encode` when it changed since.
    pub fn encoded(&mut self, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        match &self.encoded {
            Some(bytes) => bytes.clone(),
            None => {
                let bytes = encode(self);
                self.encoded = Some(bytes.clone());
                bytes
            }
        }
    }
}

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
    /// More bytes than allowed.
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

/// Decodes `channel_data` of at most `bytes_max` bytes.
pub fn decode_channel_data(text: &str, bytes_max: usize) -> Result<ChannelData, ChannelDataError> {
    if text.len() > bytes_max {
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

    fn decode(text: &str) -> Result<ChannelData, ChannelDataError> {
        decode_channel_data(text, limits::CHANNEL_DATA_BYTES_MAX)
    }

    /// P-PRES-1, P-SDK-9: a number is an identity by its spelling, `user_info` is kept as raw text.
    #[test]
    fn identity_is_a_string() {
        let decoded = decode(r#"{"user_info":{"n":1.0},"user_id":669}"#);
        assert_eq!(decoded, Ok(ChannelData { user_id: "669".to_owned(), user_info: Some(r#"{"n":1.0}"#.to_owned()) }));
        let decoded = decode(r#"{"user_id":"a\u00e9","user_info":null}"#);
        assert_eq!(decoded, Ok(ChannelData { user_id: "aé".to_owned(), user_info: None }));
    }

    /// P-PRES-1, P-LIM-6, P-LIM-7: each breach has its own answer, at the limit and one beyond.
    #[test]
    fn refuses_what_names_nobody() {
        let refused = |text: &str| decode(text).expect_err("refused");
        assert_eq!(refused(""), ChannelDataError::NoObject);
        assert_eq!(refused("[1]"), ChannelDataError::NoObject);
        assert_eq!(refused("{}"), ChannelDataError::NoUserId);
        assert_eq!(refused(r#"{"user_id":true}"#), ChannelDataError::NoUserId);
        assert_eq!(refused(r#"{"user_id":""}"#), ChannelDataError::UserIdTooLong);
        assert_eq!(refused(r#"{"user_id":"a\nb"}"#), ChannelDataError::UserIdTooLong);
        let with_id = |bytes: usize| format!(r#"{{"user_id":"{}"}}"#, "x".repeat(bytes));
        assert!(decode(&with_id(128)).is_ok());
        assert_eq!(refused(&with_id(129)), ChannelDataError::UserIdTooLong);
        let deep = format!(r#"{{"user_id":1,"user_info":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(refused(&deep), ChannelDataError::NoObject);
        let with_info = |bytes: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(bytes - 28));
        assert_eq!(with_info(10_240).len(), 10_240);
        assert!(decode(&with_info(10_240)).is_ok());
        assert_eq!(refused(&with_info(10_241)), ChannelDataError::TooLong);
    }

    /// P-PRES-2, P-PRES-3, P-LIM-7: one member per user, first info kept, gone with the last connection.
    #[test]
    fn members_are_users() {
        let mut roster = Roster::new(&[7; 16]);
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let (first, second): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        assert_eq!(roster.join(&alice, Some(&first), 1), Joined::First);
        assert_eq!(roster.join(&alice, Some(&second), 1), Joined::Again);
        assert_eq!(roster.join(&bob, None, 1), Joined::Full);
        assert_eq!(roster.members().next().and_then(|member| member.user_info.as_deref()), Some("1"));
        assert_eq!(roster.leave("alice"), Left::StillThere);
        assert_eq!(roster.leave("alice"), Left::Last);
        assert_eq!(roster.count(), 0);
    }
}
