//! `POST /events` (P-HTTP-1, P-HTTP-12 to 14).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::info::Info;
use super::literal::{decode_body, decode_data_literal, decode_object, decode_string, for_each_element};
use super::refusal::Refusal;
use super::usual_event::{distinct, read_usual_event};
use crate::app::AppSettings;
use crate::channel::name::{ChannelName, NameError, NameRules, NameSource};
use crate::limits::{CHANNEL_NAME_BYTES_MAX, EVENT_NAME_BYTES_MAX};
use crate::protocol::quote;
use crate::protocol::socket_id::SocketId;

/// One event for one or several channels, completely checked.
#[derive(Debug)]
pub struct PublishEvent<'a> {
    /// Event name.
    pub name: Cow<'a, str>,
    /// `data` as a JSON string literal, quotes included, ready to be copied into a frame.
    pub data_literal: Cow<'a, str>,
    /// The channels, each once, in the order of the request.
    pub channels: Vec<Cow<'a, str>>,
    /// The connection that is excluded from delivery.
    pub exclude: Option<SocketId>,
    /// Requested counts; `None` when the request has no `info` member.
    pub info: Option<Info>,
}

/// A complete request to publish.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The events in order; exactly one for `/events`.
    pub events: Vec<PublishEvent<'a>>,
    /// The endpoint that received it, which determines the answer.
    pub form: PublishForm,
}

/// The ways to publish over HTTP; each has its own answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishForm {
    /// `/events` (P-HTTP-1).
    Events,
    /// `/batch_events` (P-HTTP-2).
    Batch,
    /// `/channels/{c}/events` (P-HTTP-7).
    Channel,
}

/// Rules to check a body against.
#[derive(Clone, Copy, Debug)]
pub struct PublishRules<'a> {
    /// The app's settings.
    pub settings: &'a AppSettings,
    /// Which channel names are allowed.
    pub names: NameRules,
}

/// Decodes and checks the complete body of `POST /events` (P-HTTP-14).
///
/// # Errors
/// 400 or 413 that names the limit or the expected form.
pub fn decode_events<'a>(body: &'a [u8], rules: &PublishRules<'_>) -> Result<Publish<'a>, Refusal> {
    let text = decode_body(body)?;
    let event = match decode_usual_event(text, rules) {
        Some(event) => event,
        None => decode_any_event(text, rules)?,
    };
    Ok(Publish { events: vec![event], form: PublishForm::Events })
}

/// Decodes an event in the form that SDKs send, if it is valid.
fn decode_usual_event<'a>(text: &'a str, rules: &PublishRules<'_>) -> Option<PublishEvent<'a>> {
    let event = read_usual_event(text)?;
    let name = event.name?.decode().filter(|name| check_event_name(name).is_ok())?;
    let data = event.data.filter(|data| data.decoded_bytes <= rules.settings.max_event_data_bytes as usize)?;
    let channels = distinct(&event.channels)?;
    let fits = !channels.is_empty() && channels.len() <= rules.settings.max_channels_per_event as usize;
    if !fits || !channels.iter().all(|channel| check_channel(channel, rules.names).is_ok()) {
        return None;
    }
    let info = event.info.map(Info::parse);
    let exclude = event.socket_id.map(check_socket_id).transpose().ok()?.flatten();
    Some(PublishEvent { name, data_literal: data.text.into(), channels, exclude, info })
}

/// Decodes an event in any form, or explains why it is invalid.
fn decode_any_event<'a>(text: &'a str, rules: &PublishRules<'_>) -> Result<PublishEvent<'a>, Refusal> {
    let fields: EventFields<'a> = decode_object(text)?;
    let channels = match (fields.channel, fields.channels) {
        (Some(channel), None) => vec![decode_channel(channel, "channel", rules)?],
        (None, Some(channels)) => decode_channels(channels, rules)?,
        (Some(_), Some(_)) => {
            return Err(Refusal::bad_request("Give either the member channel or the member channels, not both."));
        }
        (None, None) => {
            return Err(Refusal::bad_request("The member channels is missing: an array of channel names."));
        }
    };
    decode_event(&fields, channels, rules)
}

/// The members of one event as raw JSON. `null` counts as absent; other members are ignored (P-SDK-21).
#[derive(Deserialize)]
pub(super) struct EventFields<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) channel: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) channels: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) socket_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) info: Option<&'a RawValue>,
}

/// Checks everything in an event except its channels, which the two endpoints read differently.
pub(super) fn decode_event<'a>(
    fields: &EventFields<'a>,
    channels: Vec<Cow<'a, str>>,
    rules: &PublishRules<'_>,
) -> Result<PublishEvent<'a>, Refusal> {
    let name = fields.name.ok_or_else(|| Refusal::bad_request("The member name is missing: the event's name."))?;
    let name = decode_event_name(name)?;
    let data = fields
        .data
        .ok_or_else(|| Refusal::bad_request("The member data is missing: a string, an object or an array."))?;
    let info = fields.info.map(|info| Ok::<_, Refusal>(Info::parse(&decode_string(info, "info")?))).transpose()?;
    Ok(PublishEvent {
        name,
        data_literal: decode_data_literal(data, rules.settings.max_event_data_bytes as usize)?,
        channels,
        exclude: fields.socket_id.map(decode_socket_id).transpose()?.flatten(),
        info,
    })
}

fn decode_event_name(raw: &RawValue) -> Result<Cow<'_, str>, Refusal> {
    let name = decode_string(raw, "name")?;
    check_event_name(&name)?;
    Ok(name)
}

/// P-LIM-1, P-LIM-2, P-HTTP-13.
pub(super) fn check_event_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > EVENT_NAME_BYTES_MAX {
        return Err(Refusal::bad_request(format!("The event name must have 1 to {EVENT_NAME_BYTES_MAX} bytes.")));
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::bad_request("The event name must not contain control characters."));
    }
    if RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Refusal::bad_request("Event names that start with pusher: or pusher_internal: are reserved."));
    }
    Ok(())
}

pub(super) fn decode_channel<'a>(
    raw: &'a RawValue,
    member: &str,
    rules: &PublishRules<'_>,
) -> Result<Cow<'a, str>, Refusal> {
    let name = decode_string(raw, member)?;
    check_channel(&name, rules.names)?;
    Ok(name)
}

/// Checks a channel name (P-CHAN-2).
///
/// # Errors
/// 400 that states what is allowed.
pub fn check_channel(name: &str, rules: NameRules) -> Result<ChannelName<'_>, Refusal> {
    ChannelName::parse(name, rules, NameSource::Http).map_err(|error| match error {
        NameError::TooLong(bytes_max) => {
            Refusal::bad_request(format!("The channel name must have at most {bytes_max} bytes."))
        }
        NameError::Invalid => invalid_channel(name, rules),
    })
}

fn invalid_channel(name: &str, rules: NameRules) -> Refusal {
    let allowed = match rules {
        NameRules::Default => "letters, digits and - _ = @ , . ; : # (# only in #server-to-user-<id>)",
        NameRules::Strict => "letters, digits and - _ = @ , . ;",
        NameRules::Permissive => "anything except whitespace and control characters, without :{ in a protected channel",
    };
    // Escaped, so that the one-line answer stays one line.
    Refusal::bad_request(format!(
        "The channel name \"{}\" is invalid: it must have 1 to {CHANNEL_NAME_BYTES_MAX} bytes of {allowed}.",
        quote(name).escape_debug()
    ))
}

/// P-LIM-4: each name once, in the order of the request.
fn decode_channels<'a>(raw: &'a RawValue, rules: &PublishRules<'_>) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let channels_max = rules.settings.max_channels_per_event as usize;
    let mut channels: Vec<Cow<'a, str>> = Vec::new();
    // Indices of `channels` in the order of their names: a body full of duplicates does not cost a scan for each.
    let mut by_name = SmallVec::<[usize; 16]>::new();
    for_each_element(raw, "channels", |element| {
        let name = decode_channel(element, "channels", rules)?;
        let place = by_name.binary_search_by(|index| channels.get(*index).cmp(&Some(&name)));
        let Err(place) = place else {
            return Ok(());
        };
        if channels.len() == channels_max {
            let message =
                format!("An event can be published to at most {channels_max} channels (max_channels_per_event).");
            return Err(Refusal::bad_request(message));
        }
        by_name.insert(place, channels.len());
        channels.push(name);
        Ok(())
    })?;
    if channels.is_empty() {
        return Err(Refusal::bad_request("The member channels is empty: name at least one channel."));
    }
    Ok(channels)
}

fn decode_socket_id(raw: &RawValue) -> Result<Option<SocketId>, Refusal> {
    check_socket_id(&decode_string(raw, "socket_id")?)
}

/// P-HTTP-13: a malformed id is an error, an id that no connection can have excludes nobody.
pub(super) fn check_socket_id(text: &str) -> Result<Option<SocketId>, Refusal> {
    let id = SocketId::parse(text);
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if id.is_some() || text.split_once('.').is_some_and(|(high, low)| is_digits(high) && is_digits(low)) {
        Ok(id)
    } else {
        Err(Refusal::bad_request("The socket_id must be two numbers joined by a dot, such as 123.456."))
    }
}

/// Prefixes of event names that only the server itself may use (P-LIM-2).
const RESERVED_PREFIXES: [&str; 2] = ["pusher:", "pusher_internal:"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_under<'a>(body: &'a str, settings: &AppSettings, names: NameRules) -> Result<Publish<'a>, Refusal> {
        decode_events(body.as_bytes(), &PublishRules { settings, names })
    }

    fn decode(body: &str) -> Result<Publish<'_>, Refusal> {
        decode_under(body, &AppSettings::default(), NameRules::Default)
    }

    fn only_event(body: &str) -> PublishEvent<'_> {
        let publish = decode(body).expect(body);
        assert_eq!(publish.form, PublishForm::Events);
        let [event] = <[PublishEvent<'_>; 1]>::try_from(publish.events).expect("exactly one event");
        event
    }

    /// Asserts that a body is refused with this status and a message that contains `part`.
    fn refused(body: &str, status: u16, part: &str) {
        let refusal = decode(body).expect_err(body);
        assert_eq!((refusal.status, refusal.retry_after_s), (status, None), "{body}");
        assert!(refusal.message.contains(part), "{body}: {}", refusal.message);
        assert!(!refusal.message.contains('\n'), "{body}: {}", refusal.message);
    }

    /// P-HTTP-1, P-SDK-21, R-PUB-1: the complete request as SDKs send it; unknown members are ignored, nothing is
    /// copied.
    #[test]
    fn whole_request() {
        let event = only_event(
            r#" {"info":"subscription_count, user_count,unknown","name":"my-event","data":"{\"a\":1}","x":[{}],"x":1,
                "channels":["a","presence-b"],"socket_id":"123.456","idempotency_key":"k"} "#,
        );
        assert!(matches!(event.name, Cow::Borrowed("my-event")));
        assert!(matches!(event.data_literal, Cow::Borrowed(r#""{\"a\":1}""#)));
        assert!(matches!(event.channels[..], [Cow::Borrowed("a"), Cow::Borrowed("presence-b")]));
        assert_eq!(event.exclude, SocketId::parse("123.456"));
        assert_eq!(event.info, Some(Info { user_count: true, subscription_count: true }));
    }

    /// P-HTTP-13, P-SDK-21: `channel` in place of `channels`; null and absent optional members are the same.
    #[test]
    fn single_channel_and_null_members() {
        for body in [
            r#"{"name":"e","data":{},"channel":"a"}"#,
            r#"{"name":"e","data":{},"channel":"a","channels":null,"socket_id":null,"info":null}"#,
            r#"{"name":"e","data":{},"channels":["a"],"channel":null}"#,
            r#"{"n\u0061me":"e","data":{},"channel":"\u0061"}"#,
        ] {
            let event = only_event(body);
            assert_eq!((&*event.name, &*event.data_literal), ("e", r#""{}""#));
            assert_eq!((event.channels, event.exclude, event.info), (vec![Cow::Borrowed("a")], None, None));
        }
    }

    /// P-HTTP-12: strings are passed on as sent, objects and arrays as their raw text, other types are 400.
    #[test]
    fn data_of_every_type() {
        let body = |data: &str| format!(r#"{{"name":"e","channel":"a","data":{data}}}"#);
        assert_eq!(only_event(&body(r#""\u0041 \/""#)).data_literal, r#""\u0041 \/""#);
        assert_eq!(only_event(&body(r#"{ "a" : [1] }"#)).data_literal, r#""{ \"a\" : [1] }""#);
        assert_eq!(only_event(&body("[]")).data_literal, r#""[]""#);
        for data in ["1", "1e309", "true", "false", "null"] {
            refused(&body(data), 400, "data");
        }
        refused(r#"{"name":"e","channel":"a"}"#, 400, "data is missing");
    }

    /// P-LIM-3, P-STAT-7, R-LIM-2: the app's limit counts decoded bytes; beyond it 413 with the hosted service's
    /// wording.
    #[test]
    fn data_limit_is_the_apps() {
        let body = |data: &str| format!(r#"{{"name":"e","channel":"a","data":"{data}"}}"#);
        assert!(decode(&body(&"x".repeat(10_240))).is_ok());
        assert!(decode(&body(&r"\u00e9".repeat(5_120))).is_ok(), "escapes count decoded");
        let message = "The data content of this event exceeds the allowed maximum (10240 bytes).";
        for data in ["x".repeat(10_241), r"\n".repeat(10_241), r"\u20ac".repeat(3_414)] {
            assert_eq!(decode(&body(&data)).expect_err("too long"), Refusal::too_large(message));
        }
        let settings = AppSettings { max_event_data_bytes: 3, ..AppSettings::default() };
        assert!(decode_under(&body("abc"), &settings, NameRules::Default).is_ok());
        let refusal = decode_under(&body("abcd"), &settings, NameRules::Default).expect_err("too long");
        assert!(refusal.message.contains("(3 bytes)"), "{}", refusal.message);
    }

    /// P-LIM-1, P-LIM-2, P-HTTP-13: event names; those of Laravel and of client events are accepted, reserved ones are
    /// not.
    #[test]
    fn event_names() {
        let body = |name: &str| format!(r#"{{"name":"{name}","channel":"a","data":""}}"#);
        for name in [
            r"App\\Events\\Foo",
            "client-typing",
            "pusher",
            "Pusher:x",
            "x pusher:",
            "\u{20ac}",
            "a b",
            &"n".repeat(200),
        ] {
            assert!(decode(&body(name)).is_ok(), "{name}");
        }
        for name in ["", &"n".repeat(201), &"\u{20ac}".repeat(67)] {
            refused(&body(name), 400, "1 to 200 bytes");
        }
        for name in [r"a\nb", r"\u0000", r"\u007f", "\u{85}"] {
            refused(&body(name), 400, "control characters");
        }
        for name in ["pusher:x", "pusher:", "pusher_internal:member_added", r"push\u0065r:x"] {
            refused(&body(name), 400, "reserved");
        }
        refused(r#"{"channel":"a","data":""}"#, 400, "name is missing");
        refused(r#"{"name":null,"channel":"a","data":""}"#, 400, "name is missing");
        refused(r#"{"name":5,"channel":"a","data":""}"#, 400, "name must be a string");
    }

    fn with_channels(channels: &str) -> String {
        format!(r#"{{"name":"e","data":"","channels":{channels}}}"#)
    }

    fn many_channels(count: usize) -> String {
        let names: Vec<String> = (0..count).map(|number| format!("\"c-{number}\"")).collect();
        names.join(",")
    }

    /// P-LIM-4: 100 channels are accepted, 101 are not; duplicates count once and the order of first mention is kept.
    #[test]
    fn channels_count_once() {
        let body = with_channels(r#"["b","a","\u0062","c","a"]"#);
        assert_eq!(only_event(&body).channels, ["b", "a", "c"]);
        let all = many_channels(100);
        let body = with_channels(&format!("[{all},{all}]"));
        let expected: Vec<String> = (0..100).map(|number| format!("c-{number}")).collect();
        assert_eq!(only_event(&body).channels, expected);
        refused(&with_channels(&format!("[{}]", many_channels(101))), 400, "at most 100 channels");
        let body = with_channels(&format!("[{}\"a\"]", "\"a\",".repeat(200_000)));
        assert_eq!(only_event(&body).channels, ["a"]);
    }

    /// P-HTTP-13: no channel, both members, or a wrong type.
    #[test]
    fn channels_of_the_wrong_shape() {
        refused(r#"{"name":"e","data":""}"#, 400, "channels is missing");
        refused(r#"{"name":"e","data":"","channels":null}"#, 400, "channels is missing");
        refused(r#"{"name":"e","data":"","channel":"a","channels":["b"]}"#, 400, "not both");
        refused(r#"{"name":"e","data":"","channel":"a","channels":[]}"#, 400, "not both");
        refused(&with_channels("[]"), 400, "empty");
        refused(&with_channels("\"a\""), 400, "channels must be an array");
        refused(&with_channels(r#"{"0":"a"}"#), 400, "channels must be an array");
        refused(&with_channels("[1]"), 400, "channels must be a string");
        refused(&with_channels(r#"["a",null]"#), 400, "channels must be a string");
        refused(r#"{"name":"e","data":"","channel":["a"]}"#, 400, "channel must be a string");
    }

    /// P-CHAN-2: names under each rule; the refusal states what is allowed and quotes the name on one line, cut.
    #[test]
    fn channel_names() {
        let quoted = |name: &str| with_channels(&serde_json::to_string(&[name]).expect("JSON"));
        for name in ["private-a", "#server-to-user-1", "a;b,c=@.:_-", &"c".repeat(200)] {
            assert!(decode(&quoted(name)).is_ok(), "{name}");
        }
        refused(&quoted(""), 400, "1 to 200 bytes");
        refused(&quoted(&"c".repeat(201)), 400, "at most 200 bytes");
        refused(&quoted("a b"), 400, "\"a b\" is invalid");
        refused(&quoted("a\r\nX: y"), 400, r"a\r\nX: y");
        refused(&quoted("#a"), 400, "#server-to-user-<id>");
        let settings = AppSettings::default();
        let refusal = decode_under(&quoted("a:b"), &settings, NameRules::Strict).map(|_| ());
        assert!(refusal.expect_err("no colon").message.ends_with("- _ = @ , . ;."));
        let body = quoted("a/b");
        assert!(decode_under(&body, &settings, NameRules::Permissive).is_ok());
        let body = quoted("a b");
        let refusal = decode_under(&body, &settings, NameRules::Permissive).expect_err("whitespace");
        assert!(refusal.message.contains("whitespace"), "{}", refusal.message);
    }

    /// P-HTTP-13, P-SDK-23: a malformed socket_id is 400; one that no connection can have is ignored.
    #[test]
    fn socket_ids() {
        let body = |id: &str| format!(r#"{{"name":"e","data":"","channel":"a","socket_id":{id}}}"#);
        assert_eq!(only_event(&body("\"1.2\"")).exclude, SocketId::parse("1.2"));
        let huge = format!("\"{}.1\"", "9".repeat(30));
        assert_eq!(only_event(&body(&huge)).exclude, None);
        for id in [
            "\"\"",
            "\".\"",
            "\"1\"",
            "\"1.\"",
            "\".1\"",
            "\"1.2.3\"",
            "\"-1.2\"",
            "\"1.2 \"",
            "\"1.2\\n\"",
            "\"a.b\"",
            "\"\u{661}.1\"",
        ] {
            refused(&body(id), 400, "123.456");
        }
        refused(&body("1.2"), 400, "socket_id must be a string");
    }

    /// P-HTTP-11, P-SDK-21: `info` is a comma list; unknown names alone still request an answer with entries.
    #[test]
    fn info_lists() {
        let info = |info: &str| only_event(&format!(r#"{{"name":"e","data":"","channel":"a","info":{info}}}"#)).info;
        assert_eq!(info("\"user_count\""), Some(Info { user_count: true, subscription_count: false }));
        assert_eq!(
            info("\"subscription_count,subscription_count\""),
            Some(Info { user_count: false, subscription_count: true })
        );
        assert_eq!(info("\"cache,User_Count\""), Some(Info::default()));
        assert_eq!(info("\"\""), Some(Info::default()));
        refused(r#"{"name":"e","data":"","channel":"a","info":["user_count"]}"#, 400, "info must be a string");
    }

    /// Threat T10: a known member that occurs twice is 400, also when one of the two is escaped or both are equal.
    #[test]
    fn duplicate_members_are_refused() {
        let body = r#"{"name":"e","data":"d","channel":"a","socket_id":"1.2","info":"cache"}"#;
        assert!(decode(body).is_ok());
        for (member, value) in [
            ("name", "\"e\""),
            ("data", "\"d\""),
            ("channel", "\"a\""),
            ("socket_id", "\"1.2\""),
            ("info", "\"cache\""),
        ] {
            for copy in [
                member.to_owned(),
                format!("{}\\u{:04x}", &member[..member.len() - 1], member.as_bytes()[member.len() - 1]),
            ] {
                let twice = format!(r#"{},"{copy}":{value}}}"#, &body[..body.len() - 1]);
                refused(&twice, 400, &format!("duplicate field `{member}`"));
            }
        }
    }

    /// Threat T10: a body that is not a JSON object, or only looks like one, is 400.
    #[test]
    fn malformed_bodies_are_refused() {
        let good = r#"{"name":"e","data":"d","channel":"a"}"#;
        for body in ["", " ", "null", "1", "\"x\"", "[]", r#"["e","d","a"]"#, "\u{feff}\u{feff}{}"] {
            refused(body, 400, "JSON object");
        }
        for length in 1..good.len() {
            refused(&good[..length], 400, "Invalid JSON");
        }
        for tail in ["}", ",", "x", "{}", "\0"] {
            refused(&format!("{good}{tail}"), 400, "Invalid JSON");
        }
        for body in [
            r#"{name:"e"}"#,
            r#"{'name':"e"}"#,
            r#"{"name":"e",}"#,
            "{\"name\":\"a\nb\"}",
            r#"{"name":"\x"}"#,
            r#"{"data":01}"#,
            r#"{"data":NaN}"#,
            r#"{"a":"\u12"}"#,
            "{1:2}",
        ] {
            refused(body, 400, "Invalid JSON");
        }
    }

    /// P-IN-6, threats T10 and T11: nesting is unlimited within the limit of data and overflows no stack, text that was
    /// cut inside a character is accepted, and bytes that are not UTF-8 are refused before any parser reads them.
    #[test]
    fn bombs_do_no_harm() {
        let nested =
            |depth: usize| format!(r#"{{"name":"e","channel":"a","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        for depth in [31, 32, 33, 5_120] {
            assert!(decode(&nested(depth)).is_ok(), "{depth}");
        }
        for depth in [5_121, 300_000] {
            refused(&nested(depth), 413, "10240 bytes");
        }
        let beside =
            nested(1).replace("data", "x").replace("[]", &format!("{}{}", "[".repeat(500_000), "]".repeat(500_000)));
        assert!(decode(&beside.replace("\"name\"", "\"data\":\"\",\"name\"")).is_ok());
        for bomb in ["[".repeat(1_000_000), r#"{"a":"#.repeat(100_000)] {
            refused(&bomb, 400, "JSON");
        }
        let event = only_event(r#"{"name":"e\udc00","channel":"a","data":"\ud800x"}"#);
        assert_eq!((&*event.name, &*event.data_literal), ("e\u{fffd}", "\"\u{fffd}x\""));
        refused(r#"{"name":"e","channel":"a\ud800","data":""}"#, 400, "channel name");
        for bytes in [&b"{\"data\":\"\xff\"}"[..], b"\xc0\xaf", b"{\"data\":\"\xed\xa0\x80\"}"] {
            let settings = AppSettings::default();
            let rules = PublishRules { settings: &settings, names: NameRules::Default };
            assert_eq!(decode_events(bytes, &rules).expect_err("no UTF-8").message, "The body must be valid UTF-8.");
        }
    }

    /// Names of members; the usual ones occur more often.
    const MEMBERS: [&str; 12] =
        ["name", "data", "channel", "channels", "name", "data", "channels", "socket_id", "info", "x", "", r"n\u0061me"];
    /// Values that are valid for some member, and some that are valid for none.
    const VALUES: [&str; 26] = [
        r#""a""#,
        r#""presence-b""#,
        r##""#server-to-user-1""##,
        r#""""#,
        r#""1.2""#,
        r#""1.x""#,
        r#""user_count, x""#,
        r#""user_count,subscription_count""#,
        r#""pusher:x""#,
        r#""\u0061""#,
        r#""\ud83d\ude00""#,
        r#""\ud83d""#,
        r#""\n\"\\\/""#,
        "\"\u{e9}\u{20ac}\u{1f600}\"",
        "\"a\u{7f}\"",
        "\"a\u{1}\"",
        r#""twelve bytes""#,
        r#""thirteen bytes""#,
        r#"["a"]"#,
        r#"["a","a","b"]"#,
        r#"["a","b","c"]"#,
        r#"["a b"]"#,
        "[]",
        "{}",
        "null",
        "1",
    ];

    /// Bodies as SDKs send them take the fast path; without this test only timing would show that they do not.
    #[test]
    fn usual_events_go_the_short_way() {
        let settings = AppSettings::default();
        let rules = PublishRules { settings: &settings, names: NameRules::Default };
        for (body, usual) in [
            (r#"{"name":"my-event","data":"{\"text\":\"hello w\u00f6rld\"}","channels":["my-channel"]}"#, true),
            (r#"{"name": "my-event", "data": "{\"a\":1}", "channels": ["a", "b"], "socket_id": "123.456"}"#, true),
            (r#"{"data":"x","name":"e","channel":"private-user.1","info":"subscription_count"}"#, true),
            (r#"{"data":"x","name":"App\\Events\\Sent","channel":"a"}"#, true),
            (r#"{"data":{},"name":"e","channel":"a"}"#, false),
        ] {
            assert_eq!(decode_usual_event(body, &rules).is_some(), usual, "{body}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        /// P-HTTP-12, P-HTTP-14: for any name and data the literal decodes to the value that an independent reader of
        /// the same body sees.
        #[test]
        fn literal_agrees_with_serde_json(data in "(?s).{0,60}", escaped in any::<bool>()) {
            let literal = serde_json::to_string(&data).expect("JSON");
            // No escape of a control character contains a z.
            let literal = if escaped { literal.replace('z', r"\u007a") } else { literal };
            let body = format!(r#"{{"name":"e","channel":"a","data":{literal}}}"#);
            let oracle: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let event = only_event(&body);
            let seen: String = serde_json::from_str(&event.data_literal).expect("a literal");
            prop_assert_eq!(Some(seen.as_str()), oracle["data"].as_str());
        }

        /// P-HTTP-12, P-HTTP-13: the full parser reads everything that the fast path reads in the same way, whatever
        /// members and values a body contains, and wherever it is cut off.
        #[test]
        fn the_short_way_agrees_with_the_parser(
            members in proptest::collection::vec((0..MEMBERS.len(), 0..VALUES.len()), 1..7),
            space in proptest::sample::select(vec!["", " ", "\t\r\n"]),
            cut in 0..400_usize,
        ) {
            let members = members.into_iter().map(|(name, value)| (MEMBERS[name], VALUES[value]));
            let members: Vec<String> =
                members.map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}")).collect();
            let body = format!("{space}{{{}}}{space}", members.join(","));
            let settings = AppSettings { max_event_data_bytes: 12, max_channels_per_event: 2, ..AppSettings::default() };
            for text in [body.as_str(), &body[..body.floor_char_boundary(cut.min(body.len()))]] {
                let rules = PublishRules { settings: &settings, names: NameRules::Default };
                let Some(short) = decode_usual_event(text, &rules) else { continue };
                let whole = decode_any_event(text, &rules).expect(text);
                prop_assert_eq!(format!("{short:?}"), format!("{whole:?}"), "{}", text);
            }
        }

        /// Threat T10: no bytes make decoding panic, and every accepted event is valid.
        #[test]
        fn any_body_gets_an_answer(body in r#"[{}\[\]":,\\a-e01 ]{0,40}"#, noise in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&body).map(|_| ());
            let settings = AppSettings::default();
            let rules = PublishRules { settings: &settings, names: NameRules::Default };
            prop_assert!(decode_events(&noise, &rules).is_err());
        }
    }
}
