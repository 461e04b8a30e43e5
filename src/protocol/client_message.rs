//! Messages of clients (section 3 of the Pusher protocol).

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::server_event::encode_json_string;
use crate::wire::json::{self, starts_object};

/// A message of a client, borrowed from its text unless an escape prevents that.
#[derive(Debug, Eq, PartialEq)]
pub enum ClientMessage<'a> {
    /// `pusher:subscribe`. `channel` is `None` when absent or not a string (P-FAIL-5).
    Subscribe {
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
        /// `auth`; absent, null, `""` and anything but a string are all `None` (P-FAIL-3).
        auth: Option<Cow<'a, str>>,
        /// `channel_data` as the exact string received; absent, null and anything but a string are `None`.
        channel_data: Option<Cow<'a, str>>,
        /// `last_event_id`; absent, null and `""` are `None`, anything else but a string is empty text (R-HIST-7).
        last_event_id: Option<Cow<'a, str>>,
        /// `on_gap`, likewise.
        on_gap: Option<Cow<'a, str>>,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
    },
    /// `pusher:ping`.
    Ping,
    /// `pusher:pong`.
    Pong,
    /// `pusher:signin`.
    Signin {
        /// `auth`; absent, null and anything but a string are `None`.
        auth: Option<Cow<'a, str>>,
        /// `user_data` as the exact string received; absent, null and anything but a string are `None`.
        user_data: Option<Cow<'a, str>>,
    },
    /// An event that starts with `client-`.
    ClientEvent {
        /// Event name, unchecked.
        event: Cow<'a, str>,
        /// Channel name, unchecked.
        channel: Option<Cow<'a, str>>,
        /// `data` as a JSON string literal, quotes included, ready to be copied into a frame (P-CEV-3).
        data: Cow<'a, str>,
        /// Length of the decoded `data` string in bytes.
        data_bytes: usize,
    },
    /// Any other event (P-IN-4).
    Unknown,
}

/// Malformed JSON, duplicate members, or no string `event` (P-IN-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidMessage;

/// Decodes one text message. Member order is free, unknown members are ignored (P-IN-1); string `data` of a
/// `pusher:` event that parses to an object is treated as that object (P-IN-2).
///
/// # Errors
/// [`InvalidMessage`], also for a member that is read and occurs twice: parsers differ on which one counts (threat
/// T10). Values are skipped, not built: nothing recurses, however deeply they nest.
pub fn decode_client_message(text: &str) -> Result<ClientMessage<'_>, InvalidMessage> {
    let envelope: Envelope<'_> = parse_object(text)?;
    let event = decode_member(envelope.event).ok_or(InvalidMessage)?;
    match &*event {
        "pusher:subscribe" => {
            let SubscriptionData { channel, auth, channel_data, last_event_id, on_gap } =
                decode_subscription_data(envelope.data)?;
            let auth = auth.filter(|auth| !auth.is_empty());
            Ok(ClientMessage::Subscribe { channel, auth, channel_data, last_event_id, on_gap })
        }
        "pusher:unsubscribe" => {
            let SubscriptionData { channel, .. } = decode_subscription_data(envelope.data)?;
            Ok(ClientMessage::Unsubscribe { channel })
        }
        "pusher:signin" => {
            let SigninData { auth, user_data } = decode_signin_data(envelope.data)?;
            Ok(ClientMessage::Signin { auth, user_data })
        }
        "pusher:ping" => Ok(ClientMessage::Ping),
        "pusher:pong" => Ok(ClientMessage::Pong),
        name if name.starts_with("client-") => {
            let channel = decode_member(envelope.channel);
            let (data, data_bytes) = decode_client_data(envelope.data);
            Ok(ClientMessage::ClientEvent { event, channel, data, data_bytes })
        }
        _ => Ok(ClientMessage::Unknown),
    }
}

/// The members of a message that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope<'a> {
    #[serde(borrow, deserialize_with = "present")]
    event: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// The members of the `data` of `pusher:subscribe` and `pusher:unsubscribe` that are read, as JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SubscriptionMembers<'a> {
    #[serde(borrow, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    auth: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channel_data: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    last_event_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    on_gap: Option<&'a RawValue>,
}

/// The same, as text.
#[derive(Default)]
struct SubscriptionData<'a> {
    channel: Option<Cow<'a, str>>,
    auth: Option<Cow<'a, str>>,
    channel_data: Option<Cow<'a, str>>,
    last_event_id: Option<Cow<'a, str>>,
    on_gap: Option<Cow<'a, str>>,
}

impl<'a> SubscriptionData<'a> {
    fn decode(text: &'a str) -> Result<Self, InvalidMessage> {
        let members: SubscriptionMembers<'a> = parse_object(text)?;
        Ok(Self {
            channel: decode_member(members.channel),
            auth: decode_member(members.auth),
            channel_data: decode_member(members.channel_data),
            last_event_id: decode_option(members.last_event_id),
            on_gap: decode_option(members.on_gap),
        })
    }

    fn into_owned(self) -> SubscriptionData<'static> {
        let own = |text: Option<Cow<'a, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        SubscriptionData {
            channel: own(self.channel),
            auth: own(self.auth),
            channel_data: own(self.channel_data),
            last_event_id: own(self.last_event_id),
            on_gap: own(self.on_gap),
        }
    }
}

/// The members of the `data` of `pusher:signin` that are read, as JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SigninMembers<'a> {
    #[serde(borrow, deserialize_with = "present")]
    auth: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    user_data: Option<&'a RawValue>,
}

/// The same, as text.
#[derive(Default)]
struct SigninData<'a> {
    auth: Option<Cow<'a, str>>,
    user_data: Option<Cow<'a, str>>,
}

impl<'a> SigninData<'a> {
    fn decode(text: &'a str) -> Result<Self, InvalidMessage> {
        let members: SigninMembers<'a> = parse_object(text)?;
        Ok(Self { auth: decode_member(members.auth), user_data: decode_member(members.user_data) })
    }

    fn into_owned(self) -> SigninData<'static> {
        let own = |text: Option<Cow<'a, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        SigninData { auth: own(self.auth), user_data: own(self.user_data) }
    }
}

/// Distinguishes `null` from an absent member, which serde alone would not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Parses text that must be one object. (Serde would accept an array for a struct, too.)
fn parse_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, InvalidMessage> {
    if !starts_object(text) {
        return Err(InvalidMessage);
    }
    serde_json::from_str(json::without_mark(text)).map_err(|_| InvalidMessage)
}

/// Reads the `data` of a `pusher:` event: an object, or a string that contains one (P-IN-2). Anything else is treated
/// as empty: the message then lacks required members, and the answer is the one for that (P-FAIL-5).
fn decode_subscription_data(data: Option<&RawValue>) -> Result<SubscriptionData<'_>, InvalidMessage> {
    match object_text(data) {
        Some(Cow::Borrowed(text)) => SubscriptionData::decode(text),
        Some(Cow::Owned(text)) => Ok(SubscriptionData::decode(&text)?.into_owned()),
        None => Ok(SubscriptionData::default()),
    }
}

/// As [`decode_subscription_data`], for `pusher:signin`.
fn decode_signin_data(data: Option<&RawValue>) -> Result<SigninData<'_>, InvalidMessage> {
    match object_text(data) {
        Some(Cow::Borrowed(text)) => SigninData::decode(text),
        Some(Cow::Owned(text)) => Ok(SigninData::decode(&text)?.into_owned()),
        None => Ok(SigninData::default()),
    }
}

/// The text of an object that is given directly or in a string (P-IN-2).
fn object_text(data: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let data = data?;
    if starts_object(data.get()) {
        return Some(Cow::Borrowed(data.get()));
    }
    decode_member(Some(data)).filter(|text| starts_object(text))
}

/// The text of a member; `None` when it is absent or not a string. Text that was cut inside a character is accepted
/// (P-IN-6).
fn decode_member(member: Option<&RawValue>) -> Option<Cow<'_, str>> {
    json::decode_string(member?.get())
}

/// The text of a member that may be absent; empty if it is not a string, `None` if it is null or the empty string.
fn decode_option(member: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let member = member.filter(|member| !matches!(member.get(), "null" | r#""""#))?;
    Some(decode_member(Some(member)).unwrap_or_default())
}

/// The `data` of a client event as a string literal, and its decoded length (P-CEV-3).
fn decode_client_data(data: Option<&RawValue>) -> (Cow<'_, str>, usize) {
    let Some(data) = data else {
        return (Cow::Borrowed(r#""{}""#), "{}".len());
    };
    let raw = data.get();
    match json::decode_string(raw) {
        // Half of a surrogate pair: subscribers get the replacement that was read, since many parsers refuse the escape
        // (P-IN-6).
        Some(Cow::Owned(text)) if text.contains(char::REPLACEMENT_CHARACTER) => (encode_literal(&text), text.len()),
        Some(text) => (Cow::Borrowed(raw), text.len()),
        None => (encode_literal(raw), raw.len()),
    }
}

fn encode_literal(text: &str) -> Cow<'static, str> {
    let mut literal = Vec::with_capacity(text.len() + text.len() / 8 + 2);
    encode_json_string(&mut literal, text);
    Cow::Owned(String::from_utf8(literal).expect("a literal of a string is UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn subscribe<'a>(
        channel: Option<&'a str>,
        auth: Option<&'a str>,
        channel_data: Option<&'a str>,
    ) -> ClientMessage<'a> {
        let lend = |text: Option<&'a str>| text.map(Cow::Borrowed);
        ClientMessage::Subscribe {
            channel: lend(channel),
            auth: lend(auth),
            channel_data: lend(channel_data),
            last_event_id: None,
            on_gap: None,
        }
    }

    /// Section 3 of the protocol: the frames as the clients named there send them.
    #[test]
    fn frames_of_real_clients() {
        let channel_data = r#"{"user_id":10,"user_info":{"name":"Mr. \u00e9"}}"#;
        let presence = json!({"auth": "k:ab", "channel_data": channel_data, "channel": "presence-c"});
        for (text, expected) in [
            (
                r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"c"}}"#.to_owned(),
                subscribe(Some("c"), None, None),
            ),
            (r#"{"event":"pusher:subscribe","data":{"channel":"c"}}"#.to_owned(), subscribe(Some("c"), None, None)),
            (
                r#"{"event":"pusher:subscribe","data":{"auth":"k:ab","channel":"private-c"}}"#.to_owned(),
                subscribe(Some("private-c"), Some("k:ab"), None),
            ),
            (
                json!({"event": "pusher:subscribe", "data": presence}).to_string(),
                subscribe(Some("presence-c"), Some("k:ab"), Some(channel_data)),
            ),
            (
                r#"{"event":"pusher:unsubscribe","data":{"channel":"c"}}"#.to_owned(),
                ClientMessage::Unsubscribe { channel: Some("c".into()) },
            ),
            (r#"{"event":"pusher:ping","data":{}}"#.to_owned(), ClientMessage::Ping),
            (r#"{"event":"pusher:ping"}"#.to_owned(), ClientMessage::Ping),
            (r#"{"event":"pusher:ping","data":""}"#.to_owned(), ClientMessage::Ping),
            (r#"{"event":"pusher:pong","data":{}}"#.to_owned(), ClientMessage::Pong),
        ] {
            assert_eq!(decode_client_message(&text), Ok(expected), "{text}");
        }
    }

    /// P-FAIL-3, P-FAIL-5: members that are absent, null, empty or of another type.
    #[test]
    fn members_that_are_missing() {
        for (data, expected) in [
            (r#"{"channel":"c","auth":null,"channel_data":null}"#, subscribe(Some("c"), None, None)),
            (r#"{"channel":"c","auth":7,"channel_data":{"user_id":1}}"#, subscribe(Some("c"), None, None)),
            (r#"{"channel":"","channel_data":""}"#, subscribe(Some(""), None, Some(""))),
            (r#"{"channel":7}"#, subscribe(None, None, None)),
            (r#"{"channel":null}"#, subscribe(None, None, None)),
            (r#"{"channel":["c"]}"#, subscribe(None, None, None)),
            ("{}", subscribe(None, None, None)),
            ("null", subscribe(None, None, None)),
            ("[\"c\"]", subscribe(None, None, None)),
            ("7", subscribe(None, None, None)),
            (r#""""#, subscribe(None, None, None)),
            (r#""c""#, subscribe(None, None, None)),
        ] {
            let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            assert_eq!(decode_client_message(&text), Ok(expected), "{text}");
        }
        assert_eq!(decode_client_message(r#"{"event":"pusher:subscribe"}"#), Ok(subscribe(None, None, None)));
    }

    /// P-IN-1: member order is free, unknown members are ignored, whatever they contain (numbers beyond any type too).
    #[test]
    fn order_is_free_and_the_unknown_is_ignored() {
        let text = concat!(
            " {\"x\":[1e309,-0.0,1e-999,{\"event\":\"y\"}], \"x\":2,\n\"data\":{\"q\":99999999999999999999999999,",
            "\"auth\":\"k:a\",\"channel\":\"c\"},\t\"user_id\":\"7\", \"event\" : \"pusher:subscribe\"}\r\n"
        );
        assert_eq!(decode_client_message(text), Ok(subscribe(Some("c"), Some("k:a"), None)));
        let escaped = r#"{"\u0065vent":"pusher\u003asubscribe","data":{"chann\u0065l":"\u0063"}}"#;
        assert_eq!(decode_client_message(escaped), Ok(subscribe(Some("c"), None, None)));
    }

    /// P-IN-2: `data` as a string that contains the object, as some clients send it.
    #[test]
    fn data_may_be_a_string_of_an_object() {
        let data = json!({"channel": "presence-c", "auth": "k:a", "channel_data": r#"{"user_id":"é\"1"}"#}).to_string();
        let text = json!({"event": "pusher:subscribe", "data": format!(" {data}\n")}).to_string();
        let expected = subscribe(Some("presence-c"), Some("k:a"), Some(r#"{"user_id":"é\"1"}"#));
        assert_eq!(decode_client_message(&text), Ok(expected));
        let text = json!({"event": "pusher:unsubscribe", "data": r#"{"channel":"c"}"#}).to_string();
        assert_eq!(decode_client_message(&text), Ok(ClientMessage::Unsubscribe { channel: Some("c".into()) }));
    }

    /// P-IN-6, T10: nesting is not restricted, in the data of a client event, beside it, and in a string that contains
    /// an object; a million levels overflow no stack.
    #[test]
    fn depth_is_free() {
        for depth in [31, 32, 33, 1_000, 1_000_000] {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            let text =
                format!(r#"{{"event":"client-x","channel":"c","y":{open}{close},"data":{{"a":{open}{close}}}}}"#);
            let Ok(ClientMessage::ClientEvent { data, data_bytes, .. }) = decode_client_message(&text) else {
                panic!("no client event at depth {depth}");
            };
            assert_eq!((&*data, data_bytes), (&*format!(r#""{{\"a\":{open}{close}}}""#), 2 * depth + 6));
            let data = format!(r#"{{"channel":"c","x":{open}{close}}}"#);
            for data in [data.clone(), json!(data).to_string()] {
                let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
                assert_eq!(decode_client_message(&text), Ok(subscribe(Some("c"), None, None)), "{depth}");
            }
        }
    }

    /// P-IN-6: half of a surrogate pair reads as U+FFFD wherever text is read; data that has one is re-encoded, and all
    /// other data is passed on as it is.
    #[test]
    fn text_cut_inside_a_character_is_taken() {
        for (data, literal, bytes) in [
            (r#""abc\ud83d""#, "\"abc\u{fffd}\"", 6),
            (r#""\udf38\n""#, "\"\u{fffd}\\n\"", 4),
            (r#""\ud800\u0041""#, "\"\u{fffd}A\"", 4),
            (r#""abc\ud83d\ude00""#, r#""abc\ud83d\ude00""#, 7),
            ("\"abc\u{fffd}\"", "\"abc\u{fffd}\"", 6),
            (r#"{"t":"abc\ud83d"}"#, r#""{\"t\":\"abc\\ud83d\"}""#, 17),
        ] {
            let text = format!(r#"{{"event":"client-x","channel":"c","data":{data}}}"#);
            let expected = ClientMessage::ClientEvent {
                event: "client-x".into(),
                channel: Some("c".into()),
                data: literal.into(),
                data_bytes: bytes,
            };
            assert_eq!(decode_client_message(&text), Ok(expected), "{text}");
        }
        let text = r#"{"event":"pusher:subscribe","data":{"channel":"c\udfff","channel_data":"{\"n\":\"\ud83d\"}"}}"#;
        let expected = subscribe(Some("c\u{fffd}"), None, Some("{\"n\":\"\u{fffd}\"}"));
        assert_eq!(decode_client_message(text), Ok(expected));
        assert_eq!(decode_client_message(r#"{"event":"pusher:ping\ud800"}"#), Ok(ClientMessage::Unknown));
    }

    /// P-IN-3, T10: text that is not JSON, not an object, without a string `event`, or with a known member twice.
    #[test]
    fn invalid_messages() {
        let deep = ["[".repeat(100_000), "{\"a\":".repeat(100_000), format!("{{\"event\":{}", "[".repeat(9_000))];
        let cases = [
            "",
            " ",
            "x",
            "null",
            "7",
            "\"pusher:ping\"",
            "[]",
            "[\"pusher:ping\"]",
            "[\"client-x\",\"c\",1]",
            "{}",
            "{",
            r#"{"event":null}"#,
            r#"{"event":7}"#,
            r#"{"event":["pusher:ping"]}"#,
            r#"{"data":{}}"#,
            r#"{"event":"pusher:ping"}x"#,
            r#"{"event":"pusher:ping"}{}"#,
            r#"{"event":"pusher:ping",}"#,
            r#"{"event":"pusher:ping" "data":{}}"#,
            r#"{'event':'pusher:ping'}"#,
            r#"{"event":"pusher:ping","data":01}"#,
            r#"{"event":"pusher:ping","data":NaN}"#,
            "{\"event\":\"pusher:ping\",\"data\":\"\n\"}",
            r#"{"event":"pusher:ping","data":"\x"}"#,
            r#"{"event":"pusher:ping","event":"pusher:pong"}"#,
            r#"{"event":"pusher:ping","data":{},"data":{}}"#,
            r#"{"event":"pusher:ping","\u0065vent":"pusher:ping"}"#,
            r#"{"event":"client-x","channel":"a","channel":"b"}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel":"b"}}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":"","auth":"k:a"}}"#,
            r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"channel\":\"b\"}"}"#,
            r#"{"event":"pusher:subscribe","data":"{"}"#,
        ];
        for text in cases.into_iter().map(str::to_owned).chain(deep) {
            assert_eq!(decode_client_message(&text), Err(InvalidMessage), "{:.80}", text);
        }
    }

    /// P-IN-4: events that a client may not send.
    #[test]
    fn other_events_are_unknown() {
        for event in [
            "",
            "x",
            "client",
            "Client-x",
            "pusher:signin2",
            "pusher_internal:member_added",
            "pusher:subscription_succeeded",
        ] {
            let text = json!({"event": event, "data": {}}).to_string();
            assert_eq!(decode_client_message(&text), Ok(ClientMessage::Unknown), "{event}");
        }
    }

    /// Section 3 of the protocol, P-IN-2, P-USER-1: a signin as pusher-js sends it, also with its data in a string; a
    /// value that is not a string counts as missing, and a member that occurs twice is invalid.
    #[test]
    fn signins() {
        let signin = |data: &str| {
            let text = format!(r#"{{"event":"pusher:signin","data":{data}}}"#);
            let ClientMessage::Signin { auth, user_data } = decode_client_message(&text)? else {
                panic!("no signin: {text}");
            };
            Ok((auth.map(Cow::into_owned), user_data.map(Cow::into_owned)))
        };
        let whole = Ok((Some("k:ab".to_owned()), Some(r#"{"id":"1"}"#.to_owned())));
        let data = json!({"auth": "k:ab", "user_data": r#"{"id":"1"}"#, "shared_secret": null});
        assert_eq!(signin(&data.to_string()), whole);
        assert_eq!(signin(&json!(data.to_string()).to_string()), whole);
        assert_eq!(signin(r#"{"auth":7,"user_data":{"id":"1"}}"#), Ok((None, None)));
        assert_eq!(signin(r#"{"auth":"","user_data":null}"#), Ok((Some(String::new()), None)));
        for data in ["null", "{}", "[]", "7", r#""x""#] {
            assert_eq!(signin(data), Ok((None, None)), "{data}");
        }
        assert_eq!(signin(r#"{"auth":"a","auth":"b"}"#), Err(InvalidMessage));
        assert_eq!(signin(r#"{"user_data":"a","user_data":"a"}"#), Err(InvalidMessage));
    }

    /// P-CEV-3: a string passes as its own literal, other JSON as the literal of its raw text, absent data as `"{}"`.
    #[test]
    fn data_of_client_events() {
        for (data, literal, data_bytes) in [
            (r#","data":"plain""#, r#""plain""#, 5),
            (r#","data":"\u00e9\/\"\ud83d\ude00""#, r#""\u00e9\/\"\ud83d\ude00""#, 8),
            (r#","data":"""#, r#""""#, 0),
            (r#","data":  {"a": [1,2 ],"é":"\n"} "#, r#""{\"a\": [1,2 ],\"é\":\"\\n\"}""#, 23),
            (r#","data":null"#, r#""null""#, 4),
            (r#","data":1e309"#, r#""1e309""#, 5),
            (r#","data":false"#, r#""false""#, 5),
            ("", r#""{}""#, 2),
        ] {
            let text = format!(r#"{{"event":"client-x","channel":"private-c"{data}}}"#);
            let expected = ClientMessage::ClientEvent {
                event: "client-x".into(),
                channel: Some("private-c".into()),
                data: literal.into(),
                data_bytes,
            };
            assert_eq!(decode_client_message(&text), Ok(expected), "{text}");
        }
        let Ok(ClientMessage::ClientEvent { channel: None, .. }) =
            decode_client_message(r#"{"event":"client-x","channel":7}"#)
        else {
            panic!("no client event without a channel");
        };
    }

    /// Text that needs no decoding is borrowed: no allocation for a client event of plain strings.
    #[test]
    fn plain_text_is_lent() {
        let text = r#"{"event":"client-x","channel":"private-c","data":"with \" an escape"}"#;
        let Ok(ClientMessage::ClientEvent {
            event: Cow::Borrowed(_),
            channel: Some(Cow::Borrowed(_)),
            data: Cow::Borrowed(_),
            ..
        }) = decode_client_message(text)
        else {
            panic!("something was copied");
        };
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// P-CEV-3: whatever the data, its literal decodes to the string itself, or to text that parses to the same
        /// JSON.
        #[test]
        fn client_data_survives(text: String, number: i64, nested: bool) {
            let data = if nested { json!({"t": text, "n": [number]}) } else { Value::from(text) };
            let frame = json!({"event": "client-x", "channel": "private-c", "data": data}).to_string();
            let Ok(ClientMessage::ClientEvent { data: literal, data_bytes, .. }) = decode_client_message(&frame) else {
                return Err(TestCaseError::fail("no client event"));
            };
            let decoded: String = serde_json::from_str(&literal).expect("a literal");
            prop_assert_eq!(decoded.len(), data_bytes);
            let back = if nested { serde_json::from_str(&decoded).expect("JSON") } else { Value::from(decoded) };
            prop_assert_eq!(back, data);
        }

        /// P-IN-3, T10: text that is corrupted at one character never panics; accepted text is JSON for serde_json too.
        #[test]
        fn spoilt_text_does_no_harm(at in any::<prop::sample::Index>(), spoilt in any::<char>()) {
            let text = r#"{"event":"pusher:subscribe","data":{"auth":"k:\u0061","channel":"private-c","channel_data":"{\"user_id\":1}"}}"#;
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            characters[at] = spoilt;
            let text: String = characters.into_iter().collect();
            if decode_client_message(&text).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }

        /// P-IN-3: random text never panics.
        #[test]
        fn random_text_does_no_harm(text in "[{}\\[\\]\",:a-z0-9\\\\ ]{0,60}") {
            if decode_client_message(&text).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }
    }
}
