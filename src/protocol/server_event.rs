//! Messages of the server (section 4 of the Pusher protocol), as JSON text appended to a buffer. Key order is `event`,
//! `channel`, `data`, `user_id`.
//!
//! The `data` of every frame but `pusher:error` and `pusher:subscription_error` is a JSON string (P-SDK-3, P-SDK-4,
//! P-SDK-8): where it contains an object, that object's text is built first and then written as a literal.

use super::event_id::{EVENT_ID_BYTES, EventId};
use super::socket_id::SocketId;

/// Appends a JSON string literal, quotes included. Escapes only what RFC 8259 section 7 requires.
pub fn encode_json_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    encode_escaped(out, text.as_bytes());
    out.push(b'"');
}

/// Appends the text between the quotes of a literal.
fn encode_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some((clean, byte)) = split_at_escape(rest) {
        out.extend_from_slice(clean);
        encode_escape(out, byte);
        rest = rest.get(clean.len() + 1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// P-CONN-9.
pub fn encode_connection_established(out: &mut Vec<u8>, socket_id: SocketId, activity_timeout_s: u32) {
    let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#);
    out.extend_from_slice(br#"{"event":"pusher:connection_established","data":"#);
    encode_json_string(out, &data);
    out.push(b'}');
}

/// P-LIVE-2.
pub fn encode_pong(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"event":"pusher:pong","data":"{}"}"#);
}

/// P-OUT-11; `code: None` is null.
pub fn encode_error(out: &mut Vec<u8>, code: Option<u16>, message: &str) {
    out.extend_from_slice(br#"{"event":"pusher:error","data":{"code":"#);
    match code {
        Some(code) => encode_number(out, code),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","message":"#);
    encode_json_string(out, message);
    out.extend_from_slice(b"}}");
}

/// P-OUT-1.
pub fn encode_subscription_succeeded(out: &mut Vec<u8>, channel: &str) {
    encode_channel_event(out, "pusher_internal:subscription_succeeded", channel, r#""{}""#, None);
}

/// P-OUT-8.
pub fn encode_subscription_count(out: &mut Vec<u8>, channel: &str, count: u32) {
    let data = format!(r#"{{"subscription_count":{count}}}"#);
    encode_event_with_object(out, "pusher_internal:subscription_count", channel, data.into_bytes());
}

/// P-OUT-7.
pub fn encode_cache_miss(out: &mut Vec<u8>, channel: &str) {
    encode_channel_event(out, "pusher:cache_miss", channel, r#""{}""#, None);
}

/// The parts of P-OUT-2 before, between and after the members' parts, which [`encode_member_id`] and
/// [`encode_member_entry`] build; the first comma of each is to be left out.
pub struct PresenceSucceeded {
    /// Up to the ids.
    pub head: Vec<u8>,
    /// From the ids to the entries of `hash`.
    pub middle: &'static [u8],
    /// From the entries on.
    pub tail: &'static [u8],
}

impl PresenceSucceeded {
    /// For a channel with this many users.
    pub fn new(channel: &str, count: u32) -> Self {
        let mut head = br#"{"event":"pusher_internal:subscription_succeeded","channel":"#.to_vec();
        encode_json_string(&mut head, channel);
        head.extend_from_slice(br#","data":"{\"presence\":{\"count\":"#);
        encode_number(&mut head, count);
        head.extend_from_slice(br#",\"ids\":["#);
        Self { head, middle: br#"],\"hash\":{"#, tail: br#"}}}"}"# }
    }
}

/// A member's part of `ids` in P-OUT-2, preceded by a comma, as it appears inside the literal: `,\"1\"`.
pub fn encode_member_id(out: &mut Vec<u8>, user_id: &str) {
    let mut literal = Vec::new();
    encode_json_string(&mut literal, user_id);
    out.push(b',');
    encode_escaped(out, &literal);
}

/// A member's part of `hash` in P-OUT-2, likewise: `,\"1\":{}`. Without `user_info` it is null (P-PRES-4).
pub fn encode_member_entry(out: &mut Vec<u8>, user_id: &str, user_info: Option<&str>) {
    encode_member_id(out, user_id);
    out.push(b':');
    encode_escaped(out, user_info.unwrap_or("null").as_bytes());
}

/// P-OUT-3; without `user_info` that member is left out (P-PRES-4).
pub fn encode_member_added(out: &mut Vec<u8>, channel: &str, user_id: &str, user_info: Option<&str>) {
    let mut data = br#"{"user_id":"#.to_vec();
    encode_json_string(&mut data, user_id);
    if let Some(user_info) = user_info {
        data.extend_from_slice(br#","user_info":"#);
        data.extend_from_slice(user_info.as_bytes());
    }
    data.push(b'}');
    encode_event_with_object(out, "pusher_internal:member_added", channel, data);
}

/// P-OUT-4.
pub fn encode_member_removed(out: &mut Vec<u8>, channel: &str, user_id: &str) {
    let mut data = br#"{"user_id":"#.to_vec();
    encode_json_string(&mut data, user_id);
    data.push(b'}');
    encode_event_with_object(out, "pusher_internal:member_removed", channel, data);
}

/// P-OUT-9: `user_data` is returned as it was received.
pub fn encode_signin_success(out: &mut Vec<u8>, user_data: &str) {
    let mut data = br#"{"user_data":"#.to_vec();
    encode_json_string(&mut data, user_data);
    data.push(b'}');
    encode_user_event(out, "pusher:signin_success", data);
}

/// P-OUT-10: the users that are online and those that are not; a side without users is left out (P-WATCH-1).
pub fn encode_watchlist_events<'a>(
    out: &mut Vec<u8>,
    online: impl ExactSizeIterator<Item = &'a str>,
    offline: impl ExactSizeIterator<Item = &'a str>,
) {
    let mut data = br#"{"events":["#.to_vec();
    let both = online.len() > 0 && offline.len() > 0;
    encode_watchlist_side(&mut data, "online", online);
    if both {
        data.push(b',');
    }
    encode_watchlist_side(&mut data, "offline", offline);
    data.extend_from_slice(b"]}");
    encode_user_event(out, "pusher_internal:watchlist_events", data);
}

fn encode_watchlist_side<'a>(data: &mut Vec<u8>, name: &str, users: impl ExactSizeIterator<Item = &'a str>) {
    if users.len() == 0 {
        return;
    }
    data.extend_from_slice(br#"{"name":"#);
    encode_json_string(data, name);
    data.extend_from_slice(br#","user_ids":["#);
    for (index, user_id) in users.enumerate() {
        encode_comma(data, index);
        encode_json_string(data, user_id);
    }
    data.extend_from_slice(b"]}");
}

/// A frame without a channel (P-SDK-10), whose `data` is the text of an object.
fn encode_user_event(out: &mut Vec<u8>, event: &str, object: Vec<u8>) {
    let object = String::from_utf8(object).expect("made of strings alone");
    out.extend_from_slice(br#"{"event":"#);
    encode_json_string(out, event);
    out.extend_from_slice(br#","data":"#);
    encode_json_string(out, &object);
    out.push(b'}');
}

/// P-OUT-5 and P-OUT-6. `data_literal` is a JSON string literal, quotes included, copied as it is.
pub fn encode_channel_event(out: &mut Vec<u8>, event: &str, channel: &str, data_literal: &str, user_id: Option<&str>) {
    out.reserve(MEMBERS_BYTES + event.len() + channel.len() + data_literal.len());
    out.extend_from_slice(br#"{"event":"#);
    encode_json_string(out, event);
    out.extend_from_slice(br#","channel":"#);
    encode_json_string(out, channel);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data_literal.as_bytes());
    if let Some(user_id) = user_id {
        out.extend_from_slice(br#","user_id":"#);
        encode_json_string(out, user_id);
    }
    out.push(b'}');
}

/// R-HIST-6: the text of a channel event, with the id of the event as its last member.
pub fn encode_with_id(out: &mut Vec<u8>, event: &[u8], id: EventId) {
    out.reserve(event.len() + ID_MEMBER.len() + EVENT_ID_BYTES + 1);
    out.extend_from_slice(event.strip_suffix(b"}").expect("an event is an object"));
    out.extend_from_slice(ID_MEMBER);
    id.encode(out);
    out.extend_from_slice(b"\"}");
}

const ID_MEMBER: &[u8] = br#","id":""#;

/// The literals of the event's name and of its data in the text of a channel event that [`encode_channel_event`] wrote
/// for a channel, without `user_id`.
pub fn split_channel_event<'a>(text: &'a [u8], channel: &str) -> Option<(&'a [u8], &'a [u8])> {
    let (event, rest) = split_name(text)?;
    let mut beside = br#","channel":"#.to_vec();
    encode_json_string(&mut beside, channel);
    beside.extend_from_slice(br#","data":"#);
    Some((event, rest.strip_prefix(&*beside)?.strip_suffix(b"}")?))
}

/// The literal of an event's name, which is its first member, and the text behind it.
pub(super) fn split_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(br#"{"event":"#)?;
    let mut escaped = false;
    let end = rest.iter().skip(1).position(|byte| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    })?;
    rest.split_at_checked(end + 2)
}

/// A position as JSON; null without one.
pub fn encode_position(out: &mut Vec<u8>, position: Option<EventId>) {
    match position {
        Some(position) => {
            out.push(b'"');
            position.encode(out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// A range of events that may be missing (R-HIST-10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MissedEvents {
    /// The position that the reader named, if it is readable.
    pub after: Option<EventId>,
    /// Events after this position are complete; `None` without history.
    pub resumes_at: Option<EventId>,
    /// Why.
    pub reason: &'static str,
}

/// R-HIST-10: the object that describes a gap.
pub fn encode_missed_events(out: &mut Vec<u8>, gap: &MissedEvents) {
    out.extend_from_slice(br#"{"after":"#);
    encode_position(out, gap.after);
    out.extend_from_slice(br#","resumes_at":"#);
    encode_position(out, gap.resumes_at);
    out.extend_from_slice(br#","reason":"#);
    encode_json_string(out, gap.reason);
    out.push(b'}');
}

/// R-HIST-10.
pub fn encode_history_gap(out: &mut Vec<u8>, channel: &str, gap: &MissedEvents) {
    let mut data = Vec::new();
    encode_missed_events(&mut data, gap);
    encode_event_with_object(out, "pusher:history_gap", channel, data);
}

/// R-HIST-6: a `subscription_succeeded` of any kind of channel, with the position of the channel as its last member.
pub fn encode_with_position(out: &mut Vec<u8>, succeeded: &[u8], position: EventId) {
    let head = succeeded.strip_suffix(br#"}"}"#).expect("its data is an object in a string");
    out.reserve(succeeded.len() + POSITION_MEMBER.len() + EVENT_ID_BYTES + 8);
    out.extend_from_slice(head);
    if !head.ends_with(b"{") {
        out.push(b',');
    }
    out.extend_from_slice(POSITION_MEMBER);
    position.encode(out);
    out.extend_from_slice(br#"\"}"}"#);
}

const POSITION_MEMBER: &[u8] = br#"\"position\":\""#;

/// P-FAIL-2: the one channel frame whose `data` is an object.
pub fn encode_subscription_error(out: &mut Vec<u8>, channel: &str, kind: &str, error: &str, status: u16) {
    out.extend_from_slice(br#"{"event":"pusher:subscription_error","channel":"#);
    encode_json_string(out, channel);
    out.extend_from_slice(br#","data":{"type":"#);
    encode_json_string(out, kind);
    out.extend_from_slice(br#","error":"#);
    encode_json_string(out, error);
    out.extend_from_slice(br#","status":"#);
    encode_number(out, status);
    out.extend_from_slice(b"}}");
}

/// R-AUTHREQ-1.
pub fn encode_auth_required(out: &mut Vec<u8>, channel: &str, socket_id: SocketId) {
    let mut data = br#"{"channel":"#.to_vec();
    encode_json_string(&mut data, channel);
    data.extend_from_slice(format!(r#","socket_id":"{socket_id}"}}"#).as_bytes());
    encode_event_with_object(out, "auth_required", channel, data);
}

/// A channel frame whose `data` is the text of an object.
fn encode_event_with_object(out: &mut Vec<u8>, event: &str, channel: &str, object: Vec<u8>) {
    let object = String::from_utf8(object).expect("made of strings alone");
    let mut literal = Vec::new();
    encode_json_string(&mut literal, &object);
    let literal = String::from_utf8(literal).expect("a literal of a string is UTF-8");
    encode_channel_event(out, event, channel, &literal, None);
}

fn encode_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a comma before every item of a list but the first one.
pub fn encode_comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// The text before the first byte that must be escaped, and that byte; `None` when there is none.
fn split_at_escape(bytes: &[u8]) -> Option<(&[u8], u8)> {
    // Complete blocks are tested without a branch per byte, which the compiler turns into vector instructions.
    let (blocks, _) = bytes.as_chunks::<32>();
    let clean_blocks =
        blocks.iter().take_while(|block| !block.iter().fold(false, |any, byte| any | needs_escape(*byte))).count();
    let start = clean_blocks * 32;
    let at = start + bytes.get(start..)?.iter().position(|byte| needs_escape(*byte))?;
    Some((bytes.get(..at)?, *bytes.get(at)?))
}

fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn encode_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        b'"' | b'\\' => byte,
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
            out.extend_from_slice(br"\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Space for the members of a channel event without their values, and for their quotes.
const MEMBERS_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const SOCKET_ID: SocketId = SocketId { high: 123, low: 456 };

    fn text(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    /// P-OUT-7, P-OUT-8, P-SDK-7: cache miss and count, as the rules write them.
    #[test]
    fn cache_miss_and_count() {
        let miss = r#"{"event":"pusher:cache_miss","channel":"cache-c","data":"{}"}"#;
        assert_eq!(text(|out| encode_cache_miss(out, "cache-c")), miss);
        let count =
            r#"{"event":"pusher_internal:subscription_count","channel":"c","data":"{\"subscription_count\":7}"}"#;
        assert_eq!(text(|out| encode_subscription_count(out, "c", 7)), count);
    }

    /// P-OUT-9, P-OUT-10, P-SDK-10, P-WATCH-1: frames to a user, as the rules write them; a side without users is left
    /// out.
    #[test]
    fn frames_to_a_user() {
        assert_eq!(
            text(|out| encode_signin_success(out, r#"{"id":"u1"}"#)),
            r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"u1\\\"}\"}"}"#
        );
        let watchlist = |online: &[&'static str], offline: &[&'static str]| {
            text(|out| encode_watchlist_events(out, online.iter().copied(), offline.iter().copied()))
        };
        assert_eq!(
            watchlist(&["a"], &["b"]),
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"a\"]},{\"name\":\"offline\",\"user_ids\":[\"b\"]}]}"}"#
        );
        for (name, frame) in [("online", watchlist(&["a", "\"é"], &[])), ("offline", watchlist(&[], &["a", "\"é"]))] {
            let frame: Value = serde_json::from_str(&frame).expect("JSON");
            let data: Value = serde_json::from_str(frame["data"].as_str().expect("a string")).expect("JSON");
            assert_eq!(data, json!({"events": [{"name": name, "user_ids": ["a", "\"é"]}]}));
        }
    }

    /// P-CONN-9, P-SDK-2, P-SDK-3: the first frame, as the rule writes it.
    #[test]
    fn connection_established() {
        assert_eq!(
            text(|out| encode_connection_established(out, SOCKET_ID, 120)),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}"#
        );
    }

    /// P-LIVE-2: the pong, as the rule writes it.
    #[test]
    fn pong() {
        assert_eq!(text(encode_pong), r#"{"event":"pusher:pong","data":"{}"}"#);
    }

    /// P-OUT-11, P-SDK-4, P-SDK-5, P-IN-3: `data` is an object; its code is a number or null.
    #[test]
    fn errors() {
        assert_eq!(
            text(|out| encode_error(out, Some(4009), "say \"why\"")),
            r#"{"event":"pusher:error","data":{"code":4009,"message":"say \"why\""}}"#
        );
        assert_eq!(
            text(|out| encode_error(out, None, "Invalid JSON")),
            r#"{"event":"pusher:error","data":{"code":null,"message":"Invalid JSON"}}"#
        );
    }

    /// P-OUT-1, P-SDK-6: for a channel that is not a presence channel the data is `"{}"`.
    #[test]
    fn subscription_succeeded() {
        assert_eq!(
            text(|out| encode_subscription_succeeded(out, "c")),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"c","data":"{}"}"#
        );
    }

    /// P-OUT-3, P-OUT-4, P-PRES-4: members come and go; `user_info` is left out if there is none.
    #[test]
    fn members() {
        assert_eq!(
            text(|out| encode_member_added(out, "presence-c", "1", Some(r#"{"a":1}"#))),
            r#"{"event":"pusher_internal:member_added","channel":"presence-c","data":"{\"user_id\":\"1\",\"user_info\":{\"a\":1}}"}"#
        );
        assert_eq!(
            text(|out| encode_member_added(out, "presence-c", "1", None)),
            r#"{"event":"pusher_internal:member_added","channel":"presence-c","data":"{\"user_id\":\"1\"}"}"#
        );
        assert_eq!(
            text(|out| encode_member_removed(out, "presence-c", "1")),
            r#"{"event":"pusher_internal:member_removed","channel":"presence-c","data":"{\"user_id\":\"1\"}"}"#
        );
    }

    /// P-OUT-5, P-OUT-6, P-SDK-7, P-SDK-8: the literal is copied as it is; `user_id` comes last and only if given.
    #[test]
    fn channel_events() {
        let literal = r#""\u00e9\/é""#;
        assert_eq!(
            text(|out| encode_channel_event(out, r"App\Events\Foo", "c", literal, None)),
            r#"{"event":"App\\Events\\Foo","channel":"c","data":"\u00e9\/é"}"#
        );
        assert_eq!(
            text(|out| encode_channel_event(out, "client-x", "presence-c", r#""""#, Some("1"))),
            r#"{"event":"client-x","channel":"presence-c","data":"","user_id":"1"}"#
        );
    }

    /// P-FAIL-2: the refusal of a subscription, `data` an object.
    #[test]
    fn subscription_error() {
        assert_eq!(
            text(|out| encode_subscription_error(out, "private-c", "AuthError", "no", 401)),
            r#"{"event":"pusher:subscription_error","channel":"private-c","data":{"type":"AuthError","error":"no","status":401}}"#
        );
    }

    /// R-AUTHREQ-1: as the rule writes it.
    #[test]
    fn auth_required() {
        assert_eq!(
            text(|out| encode_auth_required(out, "private-x", SOCKET_ID)),
            r#"{"event":"auth_required","channel":"private-x","data":"{\"channel\":\"private-x\",\"socket_id\":\"123.456\"}"}"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// P-SDK-8: a literal is byte for byte what serde_json writes, at every length around the block size.
        #[test]
        fn literals_are_those_of_serde_json(text in "([ -~]{0,70}[\u{0}-\u{1f}\"\\\\\u{7f}é\u{2028}😀]{0,3}){0,3}") {
            let mut out = Vec::new();
            encode_json_string(&mut out, &text);
            prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), serde_json::to_string(&text).expect("a string"));
        }

        /// P-OUT-5, P-OUT-6: whatever names and data contain, a parser reads the frame back.
        #[test]
        fn channel_events_are_read_back(event: String, channel: String, data: String, user_id: Option<String>) {
            let mut literal = Vec::new();
            encode_json_string(&mut literal, &data);
            let literal = String::from_utf8(literal).expect("UTF-8");
            let mut out = Vec::new();
            encode_channel_event(&mut out, &event, &channel, &literal, user_id.as_deref());
            let frame: Value = serde_json::from_slice(&out).expect("JSON");
            let mut expected = json!({"event": event, "channel": channel, "data": data});
            if let Some(user_id) = user_id {
                expected["user_id"] = user_id.into();
            }
            prop_assert_eq!(frame, expected);
        }
    }
}
