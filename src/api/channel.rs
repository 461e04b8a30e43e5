//! `GET /channels/{c}` (P-HTTP-4) and the deprecated `GET /channels/{c}/stats` (P-HTTP-8).

use super::answer::{Counts, append_counts};
use super::events::check_channel;
use super::info::{Info, InfoRules, attributes};
use super::refusal::Refusal;
use crate::channel::name::{Modifiers, NameRules};
use crate::protocol::event_id::EventId;
use crate::protocol::server_event::encode_position;
use crate::wire::query::Query;

/// The attributes of one channel to return.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChannelInfo {
    /// Counts.
    pub counts: Info,
    /// The cached event, on cache channels only (P-HTTP-11).
    pub cache: bool,
    /// The position of its history (R-HIST-8).
    pub position: bool,
}

/// Checks the channel of the path and decodes the query into the attributes to return, as far as they apply.
///
/// # Errors
/// 400 for an invalid name (P-CHAN-2) and, under strict rules, for attributes that do not apply (P-HTTP-11).
pub fn decode_channel_query(
    channel: &str,
    query: Query<'_>,
    names: NameRules,
    rules: InfoRules,
) -> Result<ChannelInfo, Refusal> {
    check_channel(channel, names)?;
    let lists = query.values("info")?;
    let asks = |name| lists.iter().any(|list| attributes(list).any(|attribute| attribute == name));
    let asks_cache = asks("cache");
    let has_cache = Modifiers::of(channel).cache;
    if asks_cache && !has_cache && rules == InfoRules::Strict {
        return Err(Refusal::bad_request("The attribute cache applies to cache channels only."));
    }
    let counts = Info::of_query(query)?.check(channel, rules)?.applying_to(channel);
    Ok(ChannelInfo { counts, cache: asks_cache && has_cache, position: asks("position") })
}

/// Appends the answer; `occupied` is always included, even for an empty channel. `cached` is the literal of the cached
/// event's `data` and its remaining seconds; without one `cache` is null, as is `position` without history.
pub fn encode_channel(
    out: &mut Vec<u8>,
    info: ChannelInfo,
    counts: Counts,
    cached: Option<(&[u8], u64)>,
    position: Option<EventId>,
) {
    encode_occupied(out, counts);
    if !info.counts.is_empty() {
        out.push(b',');
        append_counts(out, info.counts, counts);
    }
    match cached {
        _ if !info.cache => {}
        None => out.extend_from_slice(br#","cache":null"#),
        Some((literal, ttl_s)) => {
            out.extend_from_slice(br#","cache":{"data":"#);
            out.extend_from_slice(literal);
            out.extend_from_slice(br#","ttl":"#);
            out.extend_from_slice(itoa::Buffer::new().format(ttl_s).as_bytes());
            out.push(b'}');
        }
    }
    if info.position {
        out.extend_from_slice(br#","position":"#);
        encode_position(out, position);
    }
    out.push(b'}');
}

/// Appends the answer to the deprecated request, which does not support `info`.
pub fn encode_channel_stats(out: &mut Vec<u8>, counts: Counts) {
    encode_occupied(out, counts);
    for (member, count) in
        [(&br#","user_count":"#[..], counts.user_count), (br#","connection_count":"#, counts.subscription_count)]
    {
        out.extend_from_slice(member);
        out.extend_from_slice(itoa::Buffer::new().format(count.unwrap_or(0)).as_bytes());
    }
    out.push(b'}');
}

fn encode_occupied(out: &mut Vec<u8>, counts: Counts) {
    out.extend_from_slice(br#"{"occupied":"#);
    out.extend_from_slice(if counts.subscription_count.unwrap_or(0) > 0 { b"true" } else { b"false" });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn info(channel: &str, query: &str, rules: InfoRules) -> Result<ChannelInfo, Refusal> {
        decode_channel_query(channel, Query::new(Some(query)), NameRules::Default, rules)
    }

    fn answer(channel: &str, query: &str, counts: Counts) -> Value {
        with_cached(channel, query, counts, None)
    }

    fn with_cached(channel: &str, query: &str, counts: Counts, cached: Option<(&[u8], u64)>) -> Value {
        let mut out = Vec::new();
        encode_channel(&mut out, info(channel, query, InfoRules::Lenient).expect(query), counts, cached, None);
        serde_json::from_slice(&out).expect("JSON")
    }

    const SOME: Counts = Counts { user_count: Some(2), subscription_count: Some(3) };
    const NONE: Counts = Counts { user_count: Some(0), subscription_count: Some(0) };

    /// P-HTTP-4, P-HTTP-11: `occupied` always, counts as requested and as they apply, also for an empty channel.
    #[test]
    fn attributes_as_asked() {
        assert_eq!(answer("a", "", SOME), json!({"occupied": true}));
        assert_eq!(answer("a", "info=user_count", SOME), json!({"occupied": true}));
        assert_eq!(
            answer("presence-a", "info=user_count,subscription_count", SOME),
            json!({"occupied": true, "user_count": 2, "subscription_count": 3})
        );
        assert_eq!(
            answer("presence-a", "info=subscription_count,user_count", NONE),
            json!({"occupied": false, "user_count": 0, "subscription_count": 0})
        );
    }

    /// P-HTTP-4, P-HTTP-11: the cached data with its remaining seconds, null on a miss, no member for other channels.
    #[test]
    fn cached_data() {
        let cached = Some((&br#""{\"a\":1}""#[..], 60));
        assert_eq!(
            with_cached("private-cache-a", "info=subscription_count,cache", SOME, cached),
            json!({"occupied": true, "subscription_count": 3, "cache": {"data": "{\"a\":1}", "ttl": 60}})
        );
        assert_eq!(answer("cache-a", "info[]=cache", NONE), json!({"occupied": false, "cache": null}));
        assert_eq!(with_cached("cache-a", "", SOME, cached), json!({"occupied": true}));
        assert_eq!(with_cached("x-cache-a", "info=cache", SOME, cached), json!({"occupied": true}));
        assert_eq!(info("a", "info=cache", InfoRules::Strict).map_err(|refusal| refusal.status), Err(400));
        assert!(info("presence-cache-a", "info=cache,user_count", InfoRules::Strict).is_ok());
    }

    /// P-CHAN-2, P-HTTP-11: invalid names and, under strict rules, attributes that do not apply are 400.
    #[test]
    fn refusals() {
        for name in ["a b", "#a", "é", &"n".repeat(201)] {
            assert_eq!(info(name, "", InfoRules::Lenient).map_err(|refusal| refusal.status), Err(400), "{name}");
        }
        assert_eq!(info("a", "info=user_count", InfoRules::Strict).map_err(|refusal| refusal.status), Err(400));
        assert!(info("presence-a", "info=user_count", InfoRules::Strict).is_ok());
    }

    /// P-HTTP-8: three members, always.
    #[test]
    fn deprecated_stats() {
        for (counts, expected) in [
            (SOME, json!({"occupied": true, "user_count": 2, "connection_count": 3})),
            (NONE, json!({"occupied": false, "user_count": 0, "connection_count": 0})),
        ] {
            let mut out = Vec::new();
            encode_channel_stats(&mut out, counts);
            assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), expected);
        }
    }
}
