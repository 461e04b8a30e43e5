//! `GET /channels` (P-HTTP-3, R-READ-1).

use std::borrow::Cow;

use super::answer::{Counts, encode_counts};
use super::info::{Info, InfoRules};
use super::refusal::Refusal;
use crate::protocol::server_event::encode_json_string;
use crate::wire::query::Query;

/// The channels to list, and the attributes to return for each.
#[derive(Debug, Eq, PartialEq)]
pub struct ChannelsQuery<'a> {
    /// Prefix of the names to list; empty lists all.
    pub prefix: Cow<'a, str>,
    /// The attributes to return for each, as far as they apply.
    pub info: Info,
}

/// Decodes the query.
///
/// # Errors
/// 400 for `user_count` without a prefix of presence channels, under strict rules (P-HTTP-11).
pub fn decode_channels(query: Query<'_>, rules: InfoRules) -> Result<ChannelsQuery<'_>, Refusal> {
    let prefix = query.value("filter_by_prefix")?.unwrap_or_default();
    let info = Info::of_query(query)?.check(&prefix, rules)?;
    Ok(ChannelsQuery { prefix, info })
}

/// The answer being built: `{"channels":{...}}`, an object even if it is empty (P-SDK-17).
#[derive(Debug)]
pub struct ChannelList {
    body: Vec<u8>,
    info: Info,
}

impl ChannelList {
    /// No channel yet.
    pub fn new(info: Info) -> Self {
        Self { body: BEFORE.to_vec(), info }
    }

    /// Adds a channel; each may be added once.
    pub fn push(&mut self, channel: &str, counts: Counts) {
        if self.body.len() > BEFORE.len() {
            self.body.push(b',');
        }
        encode_json_string(&mut self.body, channel);
        self.body.push(b':');
        encode_counts(&mut self.body, self.info.applying_to(channel), counts);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The complete body.
    pub fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(b"}}");
        self.body
    }
}

const BEFORE: &[u8] = br#"{"channels":{"#;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn list(query: &str, channels: &[&str]) -> Value {
        let query = decode_channels(Query::new(Some(query)), InfoRules::Lenient).expect(query);
        let mut list = ChannelList::new(query.info);
        for channel in channels {
            list.push(channel, Counts { user_count: Some(5), subscription_count: Some(7) });
        }
        serde_json::from_slice(&list.finish()).expect("JSON")
    }

    /// P-HTTP-3, R-READ-1, P-HTTP-11: counts as requested and as they apply; names are escaped.
    #[test]
    fn entries_tell_what_was_asked() {
        let names = ["a\"b", "presence-r"];
        assert_eq!(list("", &names), json!({"channels": {"a\"b": {}, "presence-r": {}}}));
        assert_eq!(
            list("info=subscription_count,user_count", &names),
            json!({"channels": {"a\"b": {"subscription_count": 7},
                                "presence-r": {"subscription_count": 7, "user_count": 5}}})
        );
        assert_eq!(list("info=user_count", &["presence-r"]), json!({"channels": {"presence-r": {"user_count": 5}}}));
    }

    /// P-SDK-17: an empty list is an empty object, never an array.
    #[test]
    fn nothing_is_an_object() {
        assert_eq!(ChannelList::new(Info::default()).finish(), br#"{"channels":{}}"#);
    }

    /// P-HTTP-11: under strict rules, `user_count` needs a prefix that only presence channels have.
    #[test]
    fn strict_user_count_needs_a_presence_prefix() {
        let strict = |query| decode_channels(Query::new(Some(query)), InfoRules::Strict);
        let refusal = strict("info=user_count").expect_err("no prefix");
        assert_eq!(refusal.status, 400);
        assert!(strict("info=user_count&filter_by_prefix=pres").is_err());
        assert!(strict("info=subscription_count").is_ok());
        let found = strict("filter_by_prefix=presence-a%3A&info=user_count").expect("a presence prefix");
        assert_eq!((&*found.prefix, found.info.user_count), ("presence-a:", true));
    }
}
