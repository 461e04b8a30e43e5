//! `POST /replay` (R-REPLAY-1, R-REPLAY-2): kept events are published again, as new events.

use std::borrow::Cow;

use super::events::{Publish, PublishEvent, PublishForm, check_channel};
use super::refusal::Refusal;
use crate::app::AppSettings;
use crate::auth::request::Credential;
use crate::channel::name::{ChannelKind, NameRules};
use crate::limits;
use crate::openapi::body::Fields;
use crate::openapi::schema::{Field, Object, Schema};
use crate::protocol::event_id::{EVENT_ID_BYTES, EventId};
use crate::protocol::server_event::{encode_comma, encode_json_string};
use crate::protocol::{quote, server_event};
use crate::wire::json;

/// The body.
pub const REPLAY: Object = Object::new(
    "Replay",
    &[
        Field::required("event_ids", EVENT_IDS, "Ids of the events, in the order in which they are published again."),
        Field::optional("target_channel", CHANNEL, "The channel to publish to; by default the channel of each event."),
        Field::optional("target_app_id", APP_ID, "Id of the app to publish to; another app only in the admin API."),
        Field::optional("declassify", Schema::Switch, "Allow a target_channel of a weaker type than that of an event."),
    ],
);
const EVENT_IDS: Schema = Schema::List { of: &EVENT_ID, most: limits::REPLAY_EVENTS_MAX };
const EVENT_ID: Schema =
    Schema::Form { pattern: "^evt_[A-Za-z0-9_-]{24}$", takes: "the id of an event: evt_ and 24 of A-Z a-z 0-9 - _" };
const CHANNEL: Schema = Schema::Nullable(&Schema::Text { least: 1, most: limits::CHANNEL_NAME_BYTES_MAX });
const APP_ID: Schema = Schema::Nullable(&Schema::Text { least: 1, most: limits::APP_ID_BYTES_MAX });

/// The answer.
pub const REPLAYED: Object = Object::new(
    "Replayed",
    &[
        Field::required("replayed", COUNT, "Number of events that were published again."),
        Field::required("missing", EVENT_IDS, "Ids of events that are not kept, or are of another app."),
    ],
);
const COUNT: Schema = Schema::Number { least: 0, most: limits::REPLAY_EVENTS_MAX as u64 };

/// A request to publish kept events again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replay {
    /// The ids as text, and as far as this server may have assigned them.
    pub events: Vec<(Box<str>, Option<EventId>)>,
    /// The channel to publish to instead of the original ones.
    pub target_channel: Option<Box<str>>,
    /// The app to publish to instead of that of the events.
    pub target_app_id: Option<Box<str>>,
    /// A target of a weaker type is wanted.
    pub declassify: bool,
}

/// Whether events may be published to a channel of a weaker type than theirs (R-REPLAY-2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Declassify {
    /// The request asks for it, and its credential permits it.
    Permitted,
    /// The request does not ask for it.
    NotRequested,
    /// The request asks for it with a credential that does not permit it.
    Refused,
}

/// An event that was found: its channel, and its text as it was sent to subscribers.
#[derive(Clone, Copy, Debug)]
pub struct KeptEvent<'a> {
    /// Its number in the request.
    pub number: usize,
    /// Its channel.
    pub channel: &'a str,
    /// `{"event":...,"channel":...,"data":...}`.
    pub text: &'a [u8],
}

/// Decodes the body of a request of an app.
///
/// # Errors
/// 400 that names the field and the expectation; 413 for a body that is too long; 403 for another app.
pub fn decode_replay(app: &str, body: &[u8], names: NameRules) -> Result<Replay, Refusal> {
    if body.len() > limits::REPLAY_BODY_BYTES_MAX {
        let max = limits::REPLAY_BODY_BYTES_MAX;
        return Err(Refusal::too_large(format!("The body of a replay has at most {max} bytes.")));
    }
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let replay = Replay::read(&Fields::read(body, &REPLAY).map_err(Refusal::bad_request)?)?;
    replay.check_channel(names)?;
    if replay.target_app_id.as_deref().is_some_and(|target| target != app) {
        let text = "target_app_id names another app: only the admin API publishes events of one app to another one.";
        return Err(Refusal::forbidden(text));
    }
    Ok(replay)
}

impl Replay {
    /// Reads the fields of a body that was checked by [`REPLAY`].
    ///
    /// # Errors
    /// 400 that names the field and the expectation.
    pub fn read(fields: &Fields) -> Result<Self, Refusal> {
        let texts = fields.texts("event_ids");
        if texts.is_empty() {
            return Err(Refusal::bad_request("event_ids is empty: name at least one event."));
        }
        let events = texts.into_iter().enumerate().map(|(number, text)| {
            if is_id(&text) {
                return Ok((text.as_str().into(), EventId::decode(&text)));
            }
            let takes = "takes the id of an event: evt_ and 24 letters, digits, - or _";
            let shown = quote(&text).escape_debug().to_string();
            Err(Refusal::bad_request(format!("event_ids[{number}] {takes}, not \"{shown}\".")))
        });
        let text = |name| fields.text(name).map(Into::into);
        Ok(Self {
            events: events.collect::<Result<_, _>>()?,
            target_channel: text("target_channel"),
            target_app_id: text("target_app_id"),
            declassify: fields.is_on("declassify"),
        })
    }

    /// Checks the name of the target (P-CHAN-2).
    ///
    /// # Errors
    /// 400.
    pub fn check_channel(&self, names: NameRules) -> Result<(), Refusal> {
        let Some(channel) = &self.target_channel else { return Ok(()) };
        check_channel(channel, names).map(drop).map_err(|refusal| refusal.within("target_channel"))
    }

    /// Whether a caller with this credential may declassify with this request.
    pub fn declassify_by(&self, credential: &Credential) -> Declassify {
        match credential {
            _ if !self.declassify => Declassify::NotRequested,
            Credential::Signature(_) | Credential::KeyAndSecret(_) => Declassify::Permitted,
            Credential::Token(..) | Credential::Authorizer | Credential::PublicKey(_) => Declassify::Refused,
        }
    }

    /// The events to publish, in the order of the request.
    ///
    /// # Errors
    /// 403 for a target of a weaker type, 400 for one whose subscribers could not read an event, 413 for data that the
    /// target app does not accept; each names the event.
    pub fn publish<'a>(
        &'a self,
        found: &[KeptEvent<'a>],
        declassify: Declassify,
        settings: &AppSettings,
    ) -> Result<Publish<'a>, Refusal> {
        let event = |kept: &KeptEvent<'a>| self.event(kept, declassify, settings);
        let events = found.iter().map(|kept| event(kept).map_err(|refusal| refusal.within(&of_event(kept.number))));
        Ok(Publish { events: events.collect::<Result<_, _>>()?, form: PublishForm::Events })
    }

    fn event<'a>(
        &'a self,
        kept: &KeptEvent<'a>,
        declassify: Declassify,
        settings: &AppSettings,
    ) -> Result<PublishEvent<'a>, Refusal> {
        let target = self.target_channel.as_deref().unwrap_or(kept.channel);
        check_target(kept.channel, target, declassify)?;
        let (name, data) = server_event::split_channel_event(kept.text, kept.channel).expect("this server encoded it");
        let literal = |literal| std::str::from_utf8(literal).expect("this server encoded it");
        let (name, data) = (literal(name), literal(data));
        let bytes_max = settings.max_event_data_bytes as usize;
        if json::decode_string(data).expect("data is a string").len() > bytes_max {
            return Err(Refusal::data_too_large(bytes_max));
        }
        Ok(PublishEvent {
            name: json::decode_string(name).expect("a name is a string"),
            data_literal: Cow::Borrowed(data),
            channels: vec![Cow::Borrowed(target)],
            exclude: None,
            info: None,
        })
    }

    /// The answer, if all events but those with these numbers are published.
    pub fn answer(&self, is_missing: impl Fn(usize) -> bool) -> Vec<u8> {
        let missing = self.events.iter().enumerate().filter(|(number, _)| is_missing(*number));
        let missing: Vec<&str> = missing.map(|(_, (text, _))| &**text).collect();
        let mut out = format!("{{\"replayed\":{},\"missing\":[", self.events.len() - missing.len()).into_bytes();
        for (at, text) in missing.into_iter().enumerate() {
            encode_comma(&mut out, at);
            encode_json_string(&mut out, text);
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// The form of an id, whether or not one like it exists.
fn is_id(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == EVENT_ID_BYTES && text.strip_prefix("evt_").is_some_and(|rest| rest.bytes().all(is_base64url))
}

fn of_event(number: usize) -> String {
    format!("event_ids[{number}]")
}

/// R-REPLAY-2: no event reaches more readers than its type allows, and none a channel whose subscribers cannot read it.
fn check_target(from: &str, to: &str, declassify: Declassify) -> Result<(), Refusal> {
    let (source, target) = (ChannelKind::of(from), ChannelKind::of(to));
    let is_encrypted = |kind| kind == ChannelKind::PrivateEncrypted;
    if from != to && (is_encrypted(source) || is_encrypted(target)) {
        // Each encrypted channel has a key of its own (P-ENC-2).
        return Err(Refusal::bad_request(if is_encrypted(source) {
            "The event is encrypted for its own channel, and no other channel has the key: leave out target_channel."
        } else {
            "The event is not encrypted, and subscribers of an encrypted channel cannot read it."
        }));
    }
    if strength(target) >= strength(source) {
        return Ok(());
    }
    match declassify {
        Declassify::Permitted => Ok(()),
        Declassify::NotRequested => Err(Refusal::forbidden(
            "The event is from a protected channel, and target_channel is public: this needs \"declassify\":true.",
        )),
        Declassify::Refused => Err(Refusal::forbidden(
            "The event is from a protected channel, and target_channel is public: no token may publish it there, only \
             key and secret, or a signature.",
        )),
    }
}

/// Events of a channel may be published to channels of at least its strength.
fn strength(kind: ChannelKind) -> u8 {
    match kind {
        ChannelKind::Public => 0,
        ChannelKind::Private | ChannelKind::Presence | ChannelKind::ServerToUser => 1,
        ChannelKind::PrivateEncrypted => 2,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::app::Scopes;

    const ID: EventId = EventId { epoch: 7, group: 3, sequence: 1 };

    fn decode(body: &str) -> Result<Replay, Refusal> {
        decode_replay("7", body.as_bytes(), NameRules::Default)
    }

    fn replay(target_channel: Option<&str>, declassify: bool) -> Replay {
        let events = vec![(ID.to_text().into(), Some(ID))];
        Replay { events, target_channel: target_channel.map(Into::into), target_app_id: None, declassify }
    }

    /// Publishes one event of a channel; returns its new channel, name and data.
    fn publish(replay: &Replay, channel: &str, declassify: Declassify) -> Result<[String; 3], Refusal> {
        let mut text = Vec::new();
        server_event::encode_channel_event(&mut text, "say \"x\"\\", channel, r#""\u00e9\"""#, None);
        let kept = [KeptEvent { number: 3, channel, text: &text }];
        let published = replay.publish(&kept, declassify, &AppSettings::default())?;
        let [PublishEvent { name, data_literal, channels, exclude: None, info: None }] = &published.events[..] else {
            panic!("{published:?}")
        };
        Ok([channels.concat(), name.to_string(), data_literal.to_string()])
    }

    /// R-REPLAY-1: every field at its limits, and its default; a text of the right form that cannot be an id is one that
    /// is missing.
    #[test]
    fn bodies() {
        let id = ID.to_text();
        assert_eq!(decode(&format!(r#"{{"event_ids":["{id}"]}}"#)), Ok(replay(None, false)));
        let body = json!({
            "event_ids": vec![&id; limits::REPLAY_EVENTS_MAX],
            "target_channel": "private-a",
            "target_app_id": "7",
            "declassify": true,
        });
        let whole = decode(&format!("\u{feff} {body}")).expect("all of it");
        assert_eq!((whole.events.len(), whole.target_app_id.as_deref()), (limits::REPLAY_EVENTS_MAX, Some("7")));
        assert_eq!((whole.target_channel.as_deref(), whole.declassify), (Some("private-a"), true));
        let unknown = format!("evt_{}", "_".repeat(24));
        let read =
            decode(&format!(r#"{{"event_ids":["{unknown}"],"target_app_id":null}}"#)).expect("the form of an id");
        assert_eq!(read.events, [(unknown.into(), None)]);
        let longest = format!("{{\"event_ids\":[\"{id}\"]}}{}", " ".repeat(limits::REPLAY_BODY_BYTES_MAX - 46));
        assert_eq!(longest.len(), limits::REPLAY_BODY_BYTES_MAX);
        assert!(decode(&longest).is_ok());
        assert_eq!(decode(&(longest + " ")).map_err(|refusal| refusal.status), Err(413));
    }

    /// R-REPLAY-1: errors name the field and what it takes, on one line; only the admin API publishes to another app.
    #[test]
    fn mistakes() {
        let id = ID.to_text();
        for (body, status, part) in [
            (r#"{"event_ids":[]}"#.to_owned(), 400, "event_ids is empty"),
            (format!(r#"{{"event_ids":["{id}","evt_\n"]}}"#), 400, "event_ids[1] takes the id of an event"),
            (format!(r#"{{"event_ids":["{id}="]}}"#), 400, "event_ids[0]"),
            (format!(r#"{{"event_ids":["{}+"]}}"#, &id[..27]), 400, "event_ids[0]"),
            (format!(r#"{{"event_ids":["EVT_{}"]}}"#, &id[4..]), 400, "event_ids[0]"),
            (format!(r#"{{"event_ids":["{id}"],"event_ids":[]}}"#), 400, "event_ids"),
            (format!(r#"{{"event_ids":["{id}"],"target_channel":"a b"}}"#), 400, "target_channel: The channel name"),
            (format!(r#"{{"event_ids":["{id}"],"target_app_id":"8"}}"#), 403, "target_app_id names another app"),
            (format!(r#"{{"event_ids":["{id}"],"declasify":true}}"#), 400, "declasify"),
            (format!(r#"{{"event_ids":["{id}"],"declassify":null}}"#), 400, "declassify takes true or false"),
            ("[".repeat(9_000), 400, "not valid JSON"),
        ] {
            let refusal = decode(&body).expect_err(&body);
            assert_eq!(refusal.status, status, "{body}");
            assert!(refusal.message.contains(part) && !refusal.message.contains('\n'), "{body}: {}", refusal.message);
        }
    }

    /// R-REPLAY-1: name and data are those of the first time, to the byte.
    #[test]
    fn events_keep_their_contents() {
        let data = r#""\u00e9\"""#.to_owned();
        let expected = |channel: &str| Ok([channel.to_owned(), "say \"x\"\\".to_owned(), data.clone()]);
        for channel in ["a", "private-a", "private-encrypted-a", "presence-a", "#server-to-user-a", "é\""] {
            assert_eq!(publish(&replay(None, false), channel, Declassify::NotRequested), expected(channel));
        }
        assert_eq!(publish(&replay(Some("b"), false), "a", Declassify::NotRequested), expected("b"));
    }

    /// R-REPLAY-2, R-REPLAY-3, T62: which targets an event may have; the answer names the event.
    #[test]
    fn targets() {
        let protected = ["private-a", "private-b", "presence-a", "#server-to-user-a"];
        let ask = |from: &str, to: &str, declassify| {
            let refusal = publish(&replay(Some(to), true), from, declassify).err()?;
            assert!(refusal.message.starts_with("event_ids[3]: The event is "), "{}", refusal.message);
            Some(refusal.status)
        };
        for from in protected {
            for to in protected {
                assert_eq!(ask(from, to, Declassify::NotRequested), None, "{from} {to}");
            }
            for to in ["a", "no-history-private-a", "cache-presence-a", "privatea"] {
                assert_eq!(ask(to, from, Declassify::NotRequested), None, "{to} {from}");
                assert_eq!(ask(from, to, Declassify::NotRequested), Some(403), "{from} {to}");
                assert_eq!(ask(from, to, Declassify::Refused), Some(403), "{from} {to}");
                assert_eq!(ask(from, to, Declassify::Permitted), None, "{from} {to}");
            }
        }
        let encrypted = "private-encrypted-a";
        assert_eq!(ask(encrypted, encrypted, Declassify::NotRequested), None);
        for other in ["private-encrypted-b", "private-encrypted-cache-a", "private-a", "presence-a", "a"] {
            assert_eq!(ask(encrypted, other, Declassify::Permitted), Some(400), "{other}");
            assert_eq!(ask(other, encrypted, Declassify::Permitted), Some(400), "{other}");
        }
    }

    /// R-REPLAY-2: only key and secret, or a signature, declassify, and only on request.
    #[test]
    fn credentials() {
        let token = |scopes: &str| Credential::Token("tok_1".into(), Scopes::parse(scopes).expect("known names"));
        for (credential, permitted) in [
            (Credential::Signature(0), true),
            (Credential::KeyAndSecret(0), true),
            (token(""), false),
            (token("events:publish,channels:read"), false),
            (Credential::Authorizer, false),
        ] {
            let expected = if permitted { Declassify::Permitted } else { Declassify::Refused };
            assert_eq!(replay(None, true).declassify_by(&credential), expected);
            assert_eq!(replay(None, false).declassify_by(&credential), Declassify::NotRequested);
        }
    }

    /// R-LIM-2: data has the limit of the target app.
    #[test]
    fn data_is_bounded() {
        let replay = replay(None, false);
        let mut text = Vec::new();
        server_event::encode_channel_event(&mut text, "e", "a", &json!("é".repeat(10)).to_string(), None);
        let kept = [KeptEvent { number: 0, channel: "a", text: &text }];
        for (max_event_data_bytes, status) in [(20, None), (19, Some(413))] {
            let settings = AppSettings { max_event_data_bytes, ..AppSettings::default() };
            let published = replay.publish(&kept, Declassify::NotRequested, &settings);
            assert_eq!(published.err().map(|refusal| refusal.status), status);
        }
    }

    /// R-REPLAY-1: the number of events, and the ids of the missing ones in their order.
    #[test]
    fn answers() {
        let ids = [1, 2, 3, 4].map(|sequence| EventId { sequence, ..ID }.to_text());
        let events = ids.iter().map(|id| (id.as_str().into(), None)).collect();
        let replay = Replay { events, ..replay(None, false) };
        let answer = |is_missing: fn(usize) -> bool| -> Value {
            serde_json::from_slice(&replay.answer(is_missing)).expect("JSON")
        };
        assert_eq!(answer(|_| false), json!({"replayed": 4, "missing": []}));
        assert_eq!(answer(|number| number % 2 == 1), json!({"replayed": 2, "missing": [ids[1], ids[3]]}));
        assert_eq!(answer(|_| true), json!({"replayed": 0, "missing": ids}));
    }
}
