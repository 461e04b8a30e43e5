//! `GET /channels/{c}/history` (R-HIST-5).

use super::events::check_channel;
use super::refusal::Refusal;
use crate::channel::name::{Modifiers, NameRules};
use crate::limits::HISTORY_ANSWER_EVENTS_MAX;
use crate::protocol::event_id::EventId;
use crate::protocol::server_event::{self, MissedEvents, encode_comma, encode_json_string};
use crate::wire::query::Query;

/// The part of a history to return.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HistoryQuery {
    /// Events to return at most.
    pub limit: usize,
    /// Where to continue: `None` begins with the oldest event, `Some(None)` is no readable position (R-HIST-4).
    pub after: Option<Option<EventId>>,
}

/// Checks the channel of the path and decodes the query. `after` is never refused (R-HIST-4).
///
/// # Errors
/// 400 for an invalid name, a `no-history-` channel, and a `limit` that is not a number from 1 to 100.
pub fn decode_channel_history(channel: &str, query: Query<'_>, names: NameRules) -> Result<HistoryQuery, Refusal> {
    check_channel(channel, names)?;
    if Modifiers::of(channel).no_history {
        return Err(Refusal::bad_request("Channels with no-history- in their name have no history."));
    }
    let limit = match query.value("limit")? {
        None => HISTORY_ANSWER_EVENTS_MAX,
        Some(text) => {
            let limit = text.parse().ok().filter(|limit| (1..=HISTORY_ANSWER_EVENTS_MAX).contains(limit));
            limit.ok_or_else(|| {
                Refusal::bad_request(format!("limit takes a number from 1 to {HISTORY_ANSWER_EVENTS_MAX}."))
            })?
        }
    };
    let after = query.value("after")?.filter(|after| !after.is_empty());
    Ok(HistoryQuery { limit, after: after.map(|after| EventId::decode(&after)) })
}

/// Appends an event with its id; its name and data are those in the text of its frame.
pub(super) fn encode_kept_event(out: &mut Vec<u8>, id: EventId, text: &[u8], channel: &str, with_channel: bool) {
    let (event, data) = server_event::split_channel_event(text, channel).expect("it was encoded by this server");
    out.extend_from_slice(br#"{"id":""#);
    id.encode(out);
    out.push(b'"');
    if with_channel {
        out.extend_from_slice(br#","channel":"#);
        encode_json_string(out, channel);
    }
    out.extend_from_slice(br#","event":"#);
    out.extend_from_slice(event);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data);
    out.push(b'}');
}

/// Appends the answer: the texts of the events as they were sent, with their ids; the position to continue from, if the
/// channel has a history.
pub fn encode_history<'a>(
    out: &mut Vec<u8>,
    channel: &str,
    events: impl Iterator<Item = (EventId, &'a [u8])>,
    gap: Option<&MissedEvents>,
    position: Option<EventId>,
) {
    out.extend_from_slice(br#"{"events":["#);
    for (at, (id, text)) in events.enumerate() {
        encode_comma(out, at);
        encode_kept_event(out, id, text, channel, false);
    }
    out.extend_from_slice(br#"],"gap":"#);
    match gap {
        Some(gap) => server_event::encode_missed_events(out, gap),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","position":"#);
    server_event::encode_position(out, position);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: EventId = EventId { epoch: 7, group: 3, sequence: 1 };

    fn decode(channel: &str, query: &str) -> Result<HistoryQuery, u16> {
        let decoded = decode_channel_history(channel, Query::new(Some(query)), NameRules::Default);
        decoded.map_err(|refusal| refusal.status)
    }

    /// R-HIST-4, R-HIST-5: a bad limit or channel is 400, a bad position never is.
    #[test]
    fn queries() {
        let whole = HistoryQuery { limit: 100, after: None };
        assert_eq!(decode("a", ""), Ok(whole));
        assert_eq!(decode("a", "after="), Ok(whole));
        assert_eq!(
            decode("private-a", &format!("limit=1&after={}", ID.to_text())),
            Ok(HistoryQuery { limit: 1, after: Some(Some(ID)) })
        );
        for after in ["evt_", "17", "null", "%00", &ID.to_text()[..20]] {
            assert_eq!(decode("a", &format!("after={after}")), Ok(HistoryQuery { after: Some(None), ..whole }));
        }
        for query in ["limit=0", "limit=101", "limit=-1", "limit=", "limit=x", "limit=1.5"] {
            assert_eq!(decode("a", query), Err(400), "{query}");
        }
        for channel in ["no-history-a", "private-no-history-cache-a", "a b", ""] {
            assert_eq!(decode(channel, ""), Err(400), "{channel}");
        }
        let refusal = decode_channel_history("a", Query::new(Some("limit=101")), NameRules::Default).expect_err("400");
        assert!(refusal.message.contains("limit") && refusal.message.contains("100"), "{}", refusal.message);
    }

    /// R-HIST-5: names and data come back as they were published, whatever characters they have.
    #[test]
    fn answers() {
        let mut texts = Vec::new();
        for (name, data) in [("a", "plain"), ("say \"x\"\\", "{\"event\":\"y\"}"), ("\u{e9}\u{1}", "")] {
            let mut text = Vec::new();
            let literal = json!(data).to_string();
            server_event::encode_channel_event(&mut text, name, "private-\"c", &literal, None);
            texts.push((name, data, text));
        }
        let events = texts.iter().map(|(_, _, text)| (ID, &**text));
        let mut out = Vec::new();
        let gap = MissedEvents { after: None, resumes_at: Some(ID), reason: "epoch" };
        encode_history(&mut out, "private-\"c", events, Some(&gap), Some(ID));
        let id = ID.to_text();
        let events: Vec<Value> =
            texts.iter().map(|(name, data, _)| json!({"id": id, "event": name, "data": data})).collect();
        let gap = json!({"after": null, "resumes_at": id, "reason": "epoch"});
        assert_eq!(
            serde_json::from_slice::<Value>(&out).expect("JSON"),
            json!({"events": events, "gap": gap, "position": id})
        );
        let mut out = Vec::new();
        encode_history(&mut out, "c", std::iter::empty(), None, None);
        assert_eq!(out, br#"{"events":[],"gap":null,"position":null}"#);
    }
}
