//! Server-sent events: what streams are sent (R-SSE-7 to R-SSE-10), as text appended to a buffer.
//!
//! Text of clients and publishers never becomes a line of its own (threat T60): data is one line of JSON, and a name
//! that could be mistaken for another line, or for an event of the stream itself, is only in the data.

use super::event_id::EventId;
use super::server_event::{MissedEvents, encode_comma, encode_json_string, encode_missed_events, split_name};
use crate::wire::json::decode_string;

/// A comment, which keeps proxies from ending an idle stream (R-SSE-10).
pub const HEARTBEAT: &[u8] = b":\n\n";

/// How long a client waits before it connects again, and the empty line that ends it, so that it is read at once.
pub const RETRY: &[u8] = b"retry: 3000\n\n";

/// Names that are events of the stream itself, or of `EventSource`.
const RESERVED: [&str; 4] = ["error", "open", "connected", "gap"];

/// Messages that the server sends to subscribers of WebSockets only (R-SSE-4).
const INTERNAL: &[u8] = br#"{"event":"pusher_internal:"#;

/// Appends a line `id:`.
pub fn encode_id_line(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"id: ");
    encode(out);
    out.push(b'\n');
}

/// Appends an event, made of the text of its frame, with its id in the data if it has one. False, and nothing is
/// appended, for a message that streams do not get (R-SSE-8).
pub fn encode_event(out: &mut Vec<u8>, text: &[u8], id: Option<EventId>) -> bool {
    if text.starts_with(INTERNAL) {
        return false;
    }
    let members = text.strip_prefix(b"{").expect("an event is an object");
    out.reserve(members.len() + 128);
    let literal = split_name(text).and_then(|(literal, _)| str::from_utf8(literal).ok());
    if let Some(name) = literal.and_then(decode_string).filter(|name| may_be_named(name)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: {");
    if let Some(id) = id {
        out.extend_from_slice(br#""id":""#);
        id.encode(out);
        out.extend_from_slice(br#"","#);
    }
    append_line(out, members);
    out.extend_from_slice(b"\n\n");
    true
}

/// R-SSE-7: the first event of a stream.
pub fn encode_connected<'a>(
    out: &mut Vec<u8>,
    socket_id: &str,
    channels: impl Iterator<Item = &'a str>,
    resumed: bool,
    positions: Option<impl Iterator<Item = (&'a str, Option<EventId>)>>,
) {
    out.extend_from_slice(b"event: connected\ndata: {\"socket_id\":");
    encode_json_string(out, socket_id);
    out.extend_from_slice(br#","channels":["#);
    for (at, channel) in channels.enumerate() {
        encode_comma(out, at);
        encode_json_string(out, channel);
    }
    out.extend_from_slice(if resumed { b"],\"resumed\":true" } else { b"],\"resumed\":false" });
    if let Some(positions) = positions {
        encode_positions(out, positions);
    }
    out.extend_from_slice(b"}\n\n");
}

/// Appends the member `positions` to an object that has others (R-SSE-12).
pub fn encode_positions<'a>(out: &mut Vec<u8>, positions: impl Iterator<Item = (&'a str, Option<EventId>)>) {
    out.extend_from_slice(br#","positions":{"#);
    for (at, (channel, position)) in positions.enumerate() {
        encode_comma(out, at);
        encode_json_string(out, channel);
        out.push(b':');
        match position {
            Some(position) => encode_json_string(out, &position.to_text()),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

/// R-SSE-9: events of these channels may be missing.
pub fn encode_gap<'a>(out: &mut Vec<u8>, gaps: impl Iterator<Item = (&'a str, &'a MissedEvents)>) {
    out.extend_from_slice(b"event: gap\ndata: {\"channels\":");
    encode_gaps(out, gaps);
    out.extend_from_slice(b"}\n\n");
}

/// Appends a list of gaps as JSON, each with its channel (R-SSE-9, R-POLL-1).
pub fn encode_gaps<'a>(out: &mut Vec<u8>, gaps: impl Iterator<Item = (&'a str, &'a MissedEvents)>) {
    out.push(b'[');
    for (at, (channel, gap)) in gaps.enumerate() {
        encode_comma(out, at);
        out.extend_from_slice(br#"{"channel":"#);
        encode_json_string(out, channel);
        out.push(b',');
        let mut object = Vec::new();
        encode_missed_events(&mut object, gap);
        out.extend_from_slice(object.strip_prefix(b"{").expect("an object"));
    }
    out.push(b']');
}

/// Whether the name of an event may be in a line `event:`.
fn may_be_named(name: &str) -> bool {
    !name.is_empty() && !RESERVED.contains(&name) && !name.chars().any(char::is_control)
}

/// Appends JSON as one line: white space between its members may be a line break, which a space replaces.
fn append_line(out: &mut Vec<u8>, json: &[u8]) {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    if json.iter().any(is_break) {
        out.extend(json.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }));
    } else {
        out.extend_from_slice(json);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::server_event::encode_channel_event;

    const ID: EventId = EventId { epoch: 1, group: 2, sequence: 3 };

    fn event(name: &str, channel: &str, data: &str, id: Option<EventId>) -> String {
        let mut literal = Vec::new();
        encode_json_string(&mut literal, data);
        let (mut text, mut out) = (Vec::new(), Vec::new());
        let literal = String::from_utf8(literal).expect("text");
        encode_channel_event(&mut text, name, channel, &literal, None);
        assert!(encode_event(&mut out, &text, id));
        String::from_utf8(out).expect("text")
    }

    /// What a client reads (the event stream format of the HTML standard): name, id and data of each event.
    fn parse(stream: &str) -> Vec<(String, Option<String>, String)> {
        let (mut events, mut name, mut id, mut data) = (Vec::new(), String::new(), None, Vec::new());
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in lines.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" if line.is_empty() => {
                    if !data.is_empty() {
                        events.push((std::mem::take(&mut name), id.clone(), data.join("\n")));
                    }
                    (name, data) = (String::new(), Vec::new());
                }
                "event" => name = value,
                "id" => id = Some(value),
                "data" => data.push(value),
                _ => {}
            }
        }
        events
    }

    /// R-SSE-8: an event, byte for byte, with and without an id.
    #[test]
    fn an_event_as_text() {
        assert_eq!(
            event("price", "a", "{\"x\":1}", Some(ID)),
            "event: price\ndata: {\"id\":\"evt_AAAAAAAAAAEAAgAAAAAAAAAD\",\"event\":\"price\",\"channel\":\"a\",\
             \"data\":\"{\\\"x\\\":1}\"}\n\n"
        );
        assert_eq!(
            event("client-x", "a", "1", None),
            "event: client-x\ndata: {\"event\":\"client-x\",\"channel\":\"a\",\"data\":\"1\"}\n\n"
        );
    }

    /// R-SSE-4: members, counts and answers are for WebSockets.
    #[test]
    fn internal_messages_are_left_out() {
        let mut out = Vec::new();
        assert!(!encode_event(
            &mut out,
            br#"{"event":"pusher_internal:member_added","channel":"c","data":"{}"}"#,
            None
        ));
        assert_eq!(out, b"");
    }

    /// R-SSE-8, threat T60: names of the stream's own events, and names with a control character, have no line.
    #[test]
    fn some_names_are_only_in_the_data() {
        for name in ["error", "open", "connected", "gap", "a\nb", "a\rb", "a\0b", "\u{85}", ""] {
            let text = event(name, "a", "1", Some(ID));
            assert!(text.starts_with("data: "), "{text:?}");
            let events = parse(&text);
            let data: Value = serde_json::from_str(&events[0].2).expect("JSON");
            assert_eq!((events.len(), &data["event"]), (1, &json!(name)));
        }
        for name in ["errors", " error", "Gap", "message", "a:b", "\u{2028}"] {
            let events = parse(&event(name, "a", "1", None));
            assert_eq!((events.len(), &*events[0].0), (1, name));
        }
    }

    /// Threat T60: JSON with line breaks between its members stays one line.
    #[test]
    fn data_is_one_line() {
        let mut out = Vec::new();
        assert!(encode_event(&mut out, b"{\"event\":\"e\",\"channel\":\"a\",\r\n\"data\":\n\"1\"}", None));
        assert_eq!(out, b"event: e\ndata: {\"event\":\"e\",\"channel\":\"a\",  \"data\": \"1\"}\n\n");
    }

    /// R-SSE-7, R-SSE-9.
    #[test]
    fn events_of_the_stream_itself() {
        let mut out = Vec::new();
        let positions = [("a", Some(ID)), ("b\"", None)];
        encode_connected(&mut out, "0.7", ["a", "b\""].into_iter(), true, Some(positions.into_iter()));
        let text = String::from_utf8(std::mem::take(&mut out)).expect("text");
        assert_eq!(
            text,
            "event: connected\ndata: {\"socket_id\":\"0.7\",\"channels\":[\"a\",\"b\\\"\"],\"resumed\":true,\
             \"positions\":{\"a\":\"evt_AAAAAAAAAAEAAgAAAAAAAAAD\",\"b\\\"\":null}}\n\n",
            "R-SSE-12"
        );
        let none = None::<std::iter::Empty<_>>;
        encode_connected(&mut out, "0.7", ["a", "b\""].into_iter(), false, none);
        let gap = MissedEvents { after: None, resumes_at: Some(ID), reason: "unreadable" };
        encode_gap(&mut out, [("a", &gap)].into_iter());
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "event: connected\ndata: {\"socket_id\":\"0.7\",\"channels\":[\"a\",\"b\\\"\"],\"resumed\":false}\n\n\
             event: gap\ndata: {\"channels\":[{\"channel\":\"a\",\"after\":null,\
             \"resumes_at\":\"evt_AAAAAAAAAAEAAgAAAAAAAAAD\",\"reason\":\"unreadable\"}]}\n\n"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Threat T60: whatever the name, channel and data, a client sees exactly one event with the same fields.
        #[test]
        fn one_event_stays_one(name in "\\PC{0,8}|[\r\n\0: \u{feff}a]{0,8}|error|gap", channel: String, data: String) {
            let events = parse(&event(&name, &channel, &data, Some(ID)));
            prop_assert_eq!(events.len(), 1);
            let read: Value = serde_json::from_str(&events[0].2).expect("JSON");
            prop_assert_eq!(&read, &json!({"id": ID.to_text(), "event": name, "channel": channel, "data": data}));
            prop_assert!(events[0].0.is_empty() || events[0].0 == name);
            prop_assert!(!RESERVED.contains(&&*events[0].0));
        }
    }
}
