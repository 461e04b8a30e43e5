//! Messages of clients: the decoder returns exactly the contents that a second reader of JSON finds in the text (P-IN-1
//! to P-IN-4, P-IN-6, threat T10).

use relay::protocol::client_message::{ClientMessage, decode_client_message};
use relay::protocol::server_event::encode_json_string;

use crate::json::{Json, Kind};

/// An owned copy of a message.
#[derive(Debug, Eq, PartialEq)]
enum Message {
    /// Channel, auth, channel_data, last_event_id, on_gap.
    Subscribe([Option<String>; 5]),
    Unsubscribe(Option<String>),
    Ping,
    Pong,
    Signin(Option<String>, Option<String>),
    /// Name, channel, the text of `data`.
    ClientEvent(String, Option<String>, String),
    Unknown,
}

/// P-IN-1 to P-IN-4, P-IN-6, P-CEV-3, P-FAIL-3, P-FAIL-5, R-HIST-7, threat T10.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let decoded = decode_client_message(text);
    if Json::is_beyond(text) {
        return;
    }
    assert_eq!(decoded.ok().map(own), reference(text));
    let mut literal = Vec::new();
    encode_json_string(&mut literal, text);
    let literal = String::from_utf8(literal).expect("a literal is UTF-8");
    let Some(Json { kind: Kind::Text { text: read, whole: true }, .. }) = Json::parse(&literal) else {
        panic!("{literal}")
    };
    assert_eq!(read, text, "a string that was encoded reads as before");
}

fn own(message: ClientMessage<'_>) -> Message {
    let own = |text: Option<std::borrow::Cow<'_, str>>| text.map(std::borrow::Cow::into_owned);
    match message {
        ClientMessage::Subscribe { channel, auth, channel_data, last_event_id, on_gap } => {
            Message::Subscribe([channel, auth, channel_data, last_event_id, on_gap].map(own))
        }
        ClientMessage::Unsubscribe { channel } => Message::Unsubscribe(own(channel)),
        ClientMessage::Ping => Message::Ping,
        ClientMessage::Pong => Message::Pong,
        ClientMessage::Signin { auth, user_data } => Message::Signin(own(auth), own(user_data)),
        ClientMessage::ClientEvent { event, channel, data, data_bytes } => {
            let Some(Json { kind: Kind::Text { text, whole: true }, .. }) = Json::parse(&data) else {
                panic!("what goes into a frame is a string: {data}")
            };
            assert_eq!(text.len(), data_bytes);
            Message::ClientEvent(event.into_owned(), own(channel), text)
        }
        ClientMessage::Unknown => Message::Unknown,
    }
}

/// `None` for an invalid message.
fn reference(text: &str) -> Option<Message> {
    let json = Json::parse(text)?;
    let [event, channel, data] = json.members(["event", "channel", "data"])?;
    let event = string(event)?;
    match event.as_str() {
        "pusher:subscribe" => {
            let [channel, auth, channel_data, last_event_id, on_gap] = fields(data, SUBSCRIPTION)?;
            let auth = auth.text().filter(|auth| !auth.is_empty());
            let (last_event_id, on_gap) = (last_event_id.option(), on_gap.option());
            Some(Message::Subscribe([channel.text(), auth, channel_data.text(), last_event_id, on_gap]))
        }
        "pusher:unsubscribe" => {
            // The members of a subscribe are read here too, and refused in the same way.
            let [channel, ..] = fields(data, SUBSCRIPTION)?;
            Some(Message::Unsubscribe(channel.text()))
        }
        "pusher:signin" => {
            let [auth, user_data] = fields(data, ["auth", "user_data"])?;
            Some(Message::Signin(auth.text(), user_data.text()))
        }
        "pusher:ping" => Some(Message::Ping),
        "pusher:pong" => Some(Message::Pong),
        name if name.starts_with("client-") => {
            let data = match data {
                None => "{}".to_owned(),
                Some(Json { kind: Kind::Text { text, .. }, .. }) => text.clone(),
                Some(other) => other.raw.to_owned(),
            };
            Some(Message::ClientEvent(event, string(channel), data))
        }
        _ => Some(Message::Unknown),
    }
}

const SUBSCRIPTION: [&str; 5] = ["channel", "auth", "channel_data", "last_event_id", "on_gap"];

/// A member of `data`.
enum Field {
    /// Absent or null.
    Missing,
    Text(String),
    /// Any other value.
    Other,
}

impl Field {
    fn of(member: Option<&Json<'_>>) -> Self {
        match member.map(|member| &member.kind) {
            None | Some(Kind::Null) => Self::Missing,
            Some(Kind::Text { text, .. }) => Self::Text(text.clone()),
            Some(Kind::Scalar | Kind::Array(_) | Kind::Object(_)) => Self::Other,
        }
    }

    /// Anything but a string is as if it were absent.
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Missing | Self::Other => None,
        }
    }

    /// Empty text is as if it were absent, a value that is no string is text that has no meaning (R-HIST-7).
    fn option(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text).filter(|text| !text.is_empty()),
            Self::Missing => None,
            Self::Other => Some(String::new()),
        }
    }
}

/// `None` is an absent member, or one that is not a string.
fn string(member: Option<&Json<'_>>) -> Option<String> {
    match member.map(|member| &member.kind) {
        Some(Kind::Text { text, .. }) => Some(text.clone()),
        _ => None,
    }
}

/// Members of `data`, which is an object or a string that holds one; anything else is as if it were empty (P-IN-2).
fn fields<const N: usize>(data: Option<&Json<'_>>, names: [&str; N]) -> Option<[Field; N]> {
    let read = |object: &Json<'_>| Some(object.members(names)?.map(Field::of));
    let missing = || Some([const { Field::Missing }; N]);
    match data {
        Some(object @ Json { kind: Kind::Object(_), .. }) => read(object),
        Some(Json { kind: Kind::Text { text, .. }, .. }) => {
            let object = text.strip_prefix('\u{feff}').unwrap_or(text);
            if !object.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
                return missing();
            }
            read(&Json::parse(text)?)
        }
        _ => missing(),
    }
}
