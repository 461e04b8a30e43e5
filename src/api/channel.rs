//! `GET /channels/{c}` (P-HTTP-4) and the deprecated `GET /channels/{c}/stats` (P-HTTP-8).

use super::answer::{Counts, append_counts};
use super::events::check_channel;
use super::info::{Info, InfoRules};
use super::query::Query;
use super::refusal::Refusal;
use crate::channel::name::NameRules;

/// Checks the channel of the path and decodes the query: what to tell of the channel, as far as it applies.
///
/// # Errors
/// 400 for an invalid name (P-CHAN-2) and, where the rules are strict, for what does not apply (P-HTTP-11).
pub fn decode_channel_query(
    channel: &str,
    query: Query<'_>,
    names: NameRules,
    rules: InfoRules,
) -> Result<Info, Refusal> {
    check_channel(channel, names)?;
    Ok(Info::of_query(query)?.check(channel, rules)?.applying_to(channel))
}

/// Appends the answer; `occupied` always stands in it, also when nobody is there.
pub fn encode_channel(out: &mut Vec<u8>, info: Info, counts: Counts) {
    encode_occupied(out, counts);
    let mut members = Vec::new();
    append_counts(&mut members, info, counts);
    if !members.is_empty() {
        out.push(b',');
        out.extend_from_slice(&members);
    }
    out.push(b'}');
}

/// Appends the answer to the deprecated question; it knows no `info`.
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

    fn info(channel: &str, query: &str, rules: InfoRules) -> Result<Info, Refusal> {
        decode_channel_query(channel, Query::new(Some(query)), NameRules::Default, rules)
    }

    fn answer(channel: &str, query: &str, counts: Counts) -> Value {
        let mut out = Vec::new();
        encode_channel(&mut out, info(channel, query, InfoRules::Lenient).expect(query), counts);
        serde_json::from_slice(&out).expect("JSON")
    }

    const SOME: Counts = Counts { user_count: Some(2), subscription_count: Some(3) };
    const NONE: Counts = Counts { user_count: Some(0), subscription_count: Some(0) };

    /// P-HTTP-4, P-HTTP-11: `occupied` always, counts as asked for and as they apply, also of an empty channel.
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

    /// P-CHAN-2, P-HTTP-11: invalid names, and strictly what does not apply, are 400.
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
