//! Streams: events as a browser reads them, and the positions that clients send.

use relay::protocol::cursor::{CURSOR_BYTES_MAX, Cursor};
use relay::protocol::event_id::EventId;
use relay::protocol::server_event::{encode_channel_event, encode_json_string};
use relay::protocol::server_sent::{encode_event, encode_id_line};
use relay::wire::query::Query;
use serde_json::{Value, json};

use crate::input::Input;

/// R-HIST-3, R-HIST-4, R-SSE-1, R-SSE-8, threat T60.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let id = EventId { epoch: input.word().into(), group: input.byte(), sequence: input.word().into() };
    let id = Some(id).filter(|id| id.group % 2 == 0);
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    check_cursor(text);
    check_list(text);
    // Of the three parts each may have any character.
    let mut parts = text.splitn(3, '\u{1f}');
    let mut part = || parts.next().unwrap_or_default();
    check_event(part(), part(), part(), id);
}

/// A client sees exactly one event, with the same fields.
fn check_event(name: &str, channel: &str, data: &str, id: Option<EventId>) {
    let mut literal = Vec::new();
    encode_json_string(&mut literal, data);
    let literal = String::from_utf8(literal).expect("a literal is text");
    let (mut frame, mut out) = (Vec::new(), b"retry: 3000\n\n".to_vec());
    encode_channel_event(&mut frame, name, channel, &literal, None);
    if let Some(id) = id {
        encode_id_line(&mut out, |out| id.encode(out));
    }
    if !encode_event(&mut out, &frame, id) {
        assert!(name.starts_with("pusher_internal:"), "{name:?}");
        return;
    }
    out.extend_from_slice(b":\n\n");
    let stream = String::from_utf8(out).expect("a stream is text");
    let events = read(&stream);
    let [(line_name, line_id, read_data)] = &events[..] else { panic!("one event: {stream:?}") };
    let mut wanted = json!({"event": name, "channel": channel, "data": data});
    if let Some(id) = id {
        wanted["id"] = json!(id.to_text());
    }
    assert_eq!(serde_json::from_str::<Value>(read_data).expect("JSON"), wanted);
    assert_eq!(*line_id, id.map(EventId::to_text));
    let is_own = ["error", "open", "connected", "gap"].contains(&name);
    let is_plain = !name.is_empty() && !is_own && !name.chars().any(char::is_control);
    assert_eq!(line_name, if is_plain { name } else { "" }, "{name:?}");
}

/// The event stream format of the HTML standard: name, id and data of each event.
fn read(stream: &str) -> Vec<(String, Option<String>, String)> {
    let (mut events, mut name, mut id, mut data) = (Vec::new(), String::new(), None, None::<String>);
    let mut rest = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    while !rest.is_empty() {
        let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.strip_prefix("\r\n").or_else(|| after.get(1..)).unwrap_or_default();
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                if let Some(data) = data.take() {
                    events.push((std::mem::take(&mut name), id.clone(), data));
                }
                name.clear();
            }
            "event" => value.clone_into(&mut name),
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            "data" => match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            _ => {}
        }
    }
    events
}

/// No text has two readings, and every cursor survives its text.
fn check_cursor(text: &str) {
    for text in [text.to_owned(), format!("cur_{text}")] {
        let Some(cursor) = Cursor::decode(&text) else { continue };
        assert!(text.len() <= CURSOR_BYTES_MAX && (1..=100).contains(&cursor.positions.len()));
        let mut written = Vec::new();
        Cursor::encode(&mut written, cursor.epoch, cursor.positions.iter().copied());
        let written = String::from_utf8(written).expect("a cursor is text");
        assert!(written.len() <= text.len(), "the shortest form: {written} of {text}");
        assert_eq!(Cursor::decode(&written).as_ref(), Some(&cursor));
        for (hash, sequence) in &cursor.positions {
            assert!(cursor.position(*hash).is_some_and(|position| position <= *sequence));
        }
    }
    if let Some(id) = EventId::decode(text) {
        assert_eq!(id.to_text(), text);
    }
}

/// A list of names survives being written with its commas escaped.
fn check_list(text: &str) {
    let names: Vec<&str> = text.split('\n').collect();
    let escaped = names.iter().map(|name| name.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>());
    let query = format!("x=1&channels={}&y", escaped.collect::<Vec<_>>().join(","));
    let items = Query::new(Some(&query)).items("channels").expect("it is UTF-8");
    assert_eq!(items, names);
}
