//! `GET /channels/{c}/users` (P-HTTP-5).

use super::events::check_channel;
use super::refusal::Refusal;
use crate::channel::name::{ChannelKind, NameRules};
use crate::protocol::server_event::encode_json_string;
use crate::wire::query::Query;

/// The fields returned for each user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UserFields {
    /// The id.
    Id,
    /// The id, and `user_info` or null (`with_user_info=1`).
    IdAndInfo,
}

/// Checks the channel of the path and decodes the query.
///
/// # Errors
/// 400 for an invalid name and for a channel without users: only presence channels have users.
pub fn decode_channel_users(channel: &str, query: Query<'_>, names: NameRules) -> Result<UserFields, Refusal> {
    if check_channel(channel, names)?.kind() != ChannelKind::Presence {
        return Err(Refusal::bad_request("Only presence channels have users."));
    }
    Ok(match query.value("with_user_info")?.as_deref() {
        Some("1" | "true") => UserFields::IdAndInfo,
        Some(_) | None => UserFields::Id,
    })
}

/// The answer being built: `{"users":[...]}`.
#[derive(Debug)]
pub struct UserList {
    body: Vec<u8>,
}

impl Default for UserList {
    fn default() -> Self {
        Self { body: BEFORE.to_vec() }
    }
}

impl UserList {
    /// Adds the output of [`encode_users`].
    pub fn push(&mut self, users: &[u8]) {
        if self.body.len() > BEFORE.len() && !users.is_empty() {
            self.body.push(b',');
        }
        self.body.extend_from_slice(users);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The complete body.
    pub fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(b"]}");
        self.body
    }
}

const BEFORE: &[u8] = br#"{"users":["#;

/// Appends users, separated by commas from each other and from those already in `out`. A user is an id and `user_info`
/// as raw JSON text.
pub fn encode_users<'a>(
    out: &mut Vec<u8>,
    fields: UserFields,
    users: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) {
    for (user_id, user_info) in users {
        out.extend_from_slice(if out.is_empty() { br#"{"id":"# } else { br#",{"id":"# });
        encode_json_string(out, user_id);
        if fields == UserFields::IdAndInfo {
            out.extend_from_slice(br#","user_info":"#);
            out.extend_from_slice(user_info.unwrap_or("null").as_bytes());
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(fields: UserFields, users: &[(&str, Option<&str>)]) -> String {
        // In two pieces, since a long list arrives in pieces.
        let (first, second) = users.split_at(users.len() / 2);
        let mut list = UserList::default();
        for piece in [first, second] {
            let mut text = Vec::new();
            encode_users(&mut text, fields, piece.iter().copied());
            list.push(&text);
        }
        String::from_utf8(list.finish()).expect("UTF-8")
    }

    /// P-HTTP-5: ids in order, `user_info` on request, an empty list for an empty channel.
    #[test]
    fn users_are_listed() {
        let users = [("1", Some(r#"{"n":1.0}"#)), ("a\"b", None)];
        assert_eq!(encoded(UserFields::Id, &users), r#"{"users":[{"id":"1"},{"id":"a\"b"}]}"#);
        assert_eq!(
            encoded(UserFields::IdAndInfo, &users),
            r#"{"users":[{"id":"1","user_info":{"n":1.0}},{"id":"a\"b","user_info":null}]}"#
        );
        assert_eq!(encoded(UserFields::Id, &[]), r#"{"users":[]}"#);
    }

    /// P-HTTP-5: channels of other types than presence are 400, as is an invalid name.
    #[test]
    fn only_presence_channels_have_users() {
        let decode = |channel, query| decode_channel_users(channel, Query::new(Some(query)), NameRules::Default);
        for channel in ["a", "private-a", "private-encrypted-a", "cache-presence-a", "#server-to-user-1", "presence a"]
        {
            assert_eq!(decode(channel, "").map_err(|refusal| refusal.status), Err(400), "{channel}");
        }
        assert_eq!(decode("presence-a", ""), Ok(UserFields::Id));
        assert_eq!(decode("presence-cache-a", "with_user_info=0"), Ok(UserFields::Id));
        assert_eq!(decode("presence-a", "with_user_info=1"), Ok(UserFields::IdAndInfo));
    }
}
