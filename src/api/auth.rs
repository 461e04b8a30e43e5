//! `POST /auth` and `POST /user-auth`: what a client asks to have signed, and the answer (R-AUTHEP rules).
//!
//! Invariant (threats T33, T35): the request is read by this parser alone, and each of its fields has one place and one
//! form. Everything that is signed, or sent to an authorizer, is built from the values that it returns.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::app::{App, AppKey, AppSettings};
use crate::auth::sign::{shared_secret, sign_channel, sign_user};
use crate::channel::name::{ChannelKind, ChannelName, NameError, NameRules, NameSource};
use crate::channel::presence::{ChannelDataError, decode_channel_data};
use crate::channel::user::decode_user_data;
use crate::limits::{AUTH_CHANNELS_MAX, JSON_DEPTH_MAX};
use crate::protocol::dialect::Dialect;
use crate::protocol::server_event::encode_json_string;
use crate::protocol::socket_id::SocketId;
use crate::wire::http::Request;
use crate::wire::json::{check_depth, decode_string, starts_object};
use crate::wire::query::{Query, Values, append_read, array_base, decode};

/// Which of the two endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthKind {
    /// `/auth`: subscriptions of channels.
    Channel,
    /// `/user-auth`: a user (R-AUTHEP-9).
    User,
}

/// Who decides whether the request is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judge {
    /// A credential of the app, so the request itself says who the user is.
    Credential,
    /// The app's authorizer, which alone says who the user is (R-AUTHEP-3).
    Authorizer,
}

/// A request, with every value checked.
#[derive(Debug, Eq, PartialEq)]
pub struct AuthRequest<'a> {
    /// The socket that the signature is for.
    pub socket_id: SocketId,
    /// What is to be signed.
    pub asked: Asked<'a>,
}

/// What is to be signed.
#[derive(Debug, Eq, PartialEq)]
pub enum Asked<'a> {
    /// One channel, with the data of a presence channel.
    Channel(Cow<'a, str>, Option<Cow<'a, str>>),
    /// A list of channels, which are checked one by one (R-AUTHEP-10).
    Channels(Vec<Cow<'a, str>>),
    /// A user, with its data.
    User(Option<Cow<'a, str>>),
}

/// Decodes the body of a request.
///
/// # Errors
/// 400 that names the field and the expected form.
pub fn decode_auth<'a>(request: &Request<'a>, kind: AuthKind, judge: Judge) -> Result<AuthRequest<'a>, Refusal> {
    check_query(request.query)?;
    let fields = match body_format(request)? {
        BodyFormat::Form => Fields::of_form(request.body)?,
        BodyFormat::Json => Fields::of_json(request.body)?,
    };
    let missing = |name: &str, form: &str| Refusal::bad_request(format!("The field {name} is missing: {form}."));
    let socket_id = fields.socket_id.ok_or_else(|| missing("socket_id", "the id of the socket, such as 123.456"))?;
    let socket_id = SocketId::parse(&socket_id)
        .ok_or_else(|| Refusal::bad_request("The field socket_id must have the form 123.456."))?;
    let refuse_data = |name: &str, value: &Option<Cow<'_, str>>| match (value, judge) {
        (None, _) => Ok(()),
        (Some(_), Judge::Authorizer) => Err(Refusal::bad_request(format!(
            "The field {name} comes from the authorizer of the app and must not be in this request."
        ))),
        (Some(_), Judge::Credential) => {
            Err(Refusal::bad_request(format!("The field {name} does not belong in this request.")))
        }
    };
    let asked = match (kind, fields.channel_name, fields.channels) {
        (AuthKind::User, None, channels) if channels.is_empty() => {
            refuse_data("channel_data", &fields.channel_data)?;
            match (judge, fields.user_data) {
                (Judge::Credential, None) => {
                    return Err(missing("user_data", "JSON with the id of the user, such as {\"id\":\"7\"}"));
                }
                (Judge::Authorizer, data @ Some(_)) => {
                    refuse_data("user_data", &data)?;
                    unreachable!("the authorizer's data is never in the request")
                }
                (_, data) => return Ok(AuthRequest { socket_id, asked: Asked::User(data) }),
            }
        }
        (AuthKind::User, ..) => {
            return Err(Refusal::bad_request("This endpoint signs users. Channels are signed at /auth."));
        }
        (AuthKind::Channel, Some(name), channels) if channels.is_empty() => {
            if judge == Judge::Authorizer {
                refuse_data("channel_data", &fields.channel_data)?;
            }
            Asked::Channel(name, fields.channel_data)
        }
        (AuthKind::Channel, None, channels) if !channels.is_empty() => {
            refuse_data("channel_data", &fields.channel_data)?;
            Asked::Channels(channels)
        }
        (AuthKind::Channel, None, _) => return Err(missing("channel_name", "the channel to be signed")),
        (AuthKind::Channel, Some(_), _) => {
            return Err(Refusal::bad_request("Send either channel_name or channels[], not both."));
        }
    };
    if fields.user_data.is_some() {
        return Err(Refusal::bad_request("The field user_data belongs to /user-auth."));
    }
    Ok(AuthRequest { socket_id, asked })
}

/// Parameters of the query that would be ambiguous or unsafe (threats T35, T41).
fn check_query(query: Option<&str>) -> Result<(), Refusal> {
    for parameter in Query::new(query).parameters() {
        let name = decode(parameter.name);
        let base = array_base(&name).unwrap_or(&name);
        if base.eq_ignore_ascii_case(b"callback") {
            return Err(Refusal::bad_request("JSONP is not supported: remove the query parameter callback."));
        }
        if let Some(field) = FIELDS.iter().find(|field| base.eq_ignore_ascii_case(field.as_bytes())) {
            return Err(Refusal::bad_request(format!("The field {field} must be in the body, not in the query.")));
        }
    }
    Ok(())
}

enum BodyFormat {
    Form,
    Json,
}

fn body_format(request: &Request<'_>) -> Result<BodyFormat, Refusal> {
    let refuse = || {
        Refusal::bad_request(
            "The Content-Type must be application/x-www-form-urlencoded or application/json, in UTF-8.",
        )
    };
    let value = request.headers.only("Content-Type").map_err(|_| refuse())?;
    let Some(value) = value else { return Ok(BodyFormat::Form) };
    let value = std::str::from_utf8(value).map_err(|_| refuse())?;
    let mut parts = value.split(';').map(|part| part.trim().to_ascii_lowercase());
    let format = match parts.next().as_deref() {
        Some("application/x-www-form-urlencoded") => BodyFormat::Form,
        Some("application/json") => BodyFormat::Json,
        Some(_) | None => return Err(refuse()),
    };
    for part in parts.filter(|part| !part.is_empty()) {
        let charset = part.strip_prefix("charset=").map(|charset| charset.trim_matches('"').to_owned());
        if !matches!(charset.as_deref(), Some("utf-8" | "utf8")) {
            return Err(refuse());
        }
    }
    Ok(format)
}

/// The fields of a body, before they are checked.
#[derive(Default)]
struct Fields<'a> {
    socket_id: Option<Cow<'a, str>>,
    channel_name: Option<Cow<'a, str>>,
    channels: Vec<Cow<'a, str>>,
    channel_data: Option<Cow<'a, str>>,
    user_data: Option<Cow<'a, str>>,
}

const FIELDS: [&str; 5] = ["socket_id", "channel_name", "channels", "channel_data", "user_data"];

impl<'a> Fields<'a> {
    /// Reads a form. Fields of other names are ignored: pusher-js adds those of its options `params`.
    fn of_form(body: &'a [u8]) -> Result<Self, Refusal> {
        let body = std::str::from_utf8(body).map_err(|_| Refusal::bad_request("The body must be a form in UTF-8."))?;
        let mut fields = Self::default();
        for parameter in Query::new(Some(body)).parameters() {
            let name = decode(parameter.name);
            let base = array_base(&name).unwrap_or(&name);
            let Some(field) = FIELDS.iter().find(|field| base.eq_ignore_ascii_case(field.as_bytes())) else { continue };
            let mut value = Vec::new();
            append_read(&mut value, parameter.value, Values::PlusAsSpace);
            let value = String::from_utf8(value)
                .map_err(|_| Refusal::bad_request(format!("The field {field} must be percent-encoded UTF-8.")))?;
            let place = match &*name {
                b"channels[]" => {
                    fields.push_channel(value.into())?;
                    continue;
                }
                b"socket_id" => &mut fields.socket_id,
                b"channel_name" => &mut fields.channel_name,
                b"channel_data" => &mut fields.channel_data,
                b"user_data" => &mut fields.user_data,
                _ => {
                    let form = if *field == "channels" { "channels[]=NAME, once per channel" } else { "one value" };
                    return Err(Refusal::bad_request(format!("The field {field} must be sent as {form}.")));
                }
            };
            if place.replace(value.into()).is_some() {
                return Err(Refusal::bad_request(format!("The field {field} must be present once.")));
            }
        }
        Ok(fields)
    }

    /// Reads a JSON object. Other members are ignored.
    fn of_json(body: &'a [u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            socket_id: Option<&'a RawValue>,
            #[serde(borrow)]
            channel_name: Option<&'a RawValue>,
            #[serde(borrow)]
            channels: Option<Vec<&'a RawValue>>,
            #[serde(borrow)]
            channel_data: Option<&'a RawValue>,
            #[serde(borrow)]
            user_data: Option<&'a RawValue>,
        }
        let refuse = |reason: String| Refusal::bad_request(format!("The body must be one JSON object: {reason}."));
        check_depth(body, JSON_DEPTH_MAX).map_err(|_| refuse("it is nested too deeply, or is not UTF-8".to_owned()))?;
        let text = std::str::from_utf8(body).ok().filter(|text| starts_object(text));
        let text = text.ok_or_else(|| refuse("it begins with something else".to_owned()))?;
        let raw: Raw<'a> = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let string = |name: &str, value: &'a RawValue| {
            decode_string(value.get())
                .ok_or_else(|| Refusal::bad_request(format!("The field {name} must be a string.")))
        };
        let optional = |name, value: Option<&'a RawValue>| value.map(|value| string(name, value)).transpose();
        let mut fields = Self {
            socket_id: optional("socket_id", raw.socket_id)?,
            channel_name: optional("channel_name", raw.channel_name)?,
            channels: Vec::new(),
            channel_data: optional("channel_data", raw.channel_data)?,
            user_data: optional("user_data", raw.user_data)?,
        };
        if raw.channels.as_ref().is_some_and(Vec::is_empty) {
            return Err(Refusal::bad_request("The field channels must name at least one channel."));
        }
        for name in raw.channels.into_iter().flatten() {
            fields.push_channel(string("channels", name)?)?;
        }
        Ok(fields)
    }

    fn push_channel(&mut self, name: Cow<'a, str>) -> Result<(), Refusal> {
        if self.channels.len() == AUTH_CHANNELS_MAX {
            let text = format!("The field channels has more than {AUTH_CHANNELS_MAX} names.");
            return Err(Refusal::bad_request(text));
        }
        if self.channels.contains(&name) {
            return Err(Refusal::bad_request("The field channels names a channel twice."));
        }
        self.channels.push(name);
        Ok(())
    }
}

/// Checks that a channel can be signed.
///
/// # Errors
/// 400 that names the rule.
pub fn check_protected(name: &str, names: NameRules) -> Result<ChannelName<'_>, Refusal> {
    let channel = ChannelName::parse(name, names, NameSource::WebSocket).map_err(|error| match error {
        NameError::TooLong(bytes_max) => {
            Refusal::bad_request(format!("The channel name is longer than {bytes_max} bytes."))
        }
        NameError::Invalid => Refusal::bad_request("The channel name is empty or has a character that is not allowed."),
    })?;
    if !channel.kind().is_protected() {
        return Err(Refusal::bad_request(
            "The channel is public and needs no signature: only private- and presence- channels are signed.",
        ));
    }
    Ok(channel)
}

/// Signs one channel.
///
/// # Errors
/// 400 for data that does not fit the channel, or for an encrypted channel without a stored master key (R-AUTHEP-6).
pub fn answer_channel(
    app: &App,
    pair: &AppKey,
    socket_id: SocketId,
    channel: ChannelName<'_>,
    data: Option<&str>,
) -> Result<String, Refusal> {
    let secret = match channel.kind() {
        ChannelKind::Presence => {
            let data = data.ok_or_else(|| {
                Refusal::bad_request("A presence channel needs channel_data, such as {\"user_id\":\"7\"}.")
            })?;
            check_channel_data(data, &app.settings).map_err(Refusal::bad_request)?;
            None
        }
        _ if data.is_some() => {
            return Err(Refusal::bad_request("The field channel_data is for presence channels."));
        }
        ChannelKind::PrivateEncrypted => {
            let master_key = app.encryption_master_key.as_ref().ok_or_else(|| {
                Refusal::bad_request(
                    "This app stores no encryption master key, which encrypted channels need: POST /encryption-key.",
                )
            })?;
            Some(shared_secret(channel.as_str(), master_key.bytes()))
        }
        ChannelKind::Private | ChannelKind::Public | ChannelKind::ServerToUser => None,
    };
    let mut answer = start_answer(&sign_channel(pair, socket_id, channel.as_str(), data));
    if let Some(data) = data {
        push_member(&mut answer, "channel_data", data);
    }
    if let Some(secret) = secret {
        push_member(&mut answer, "shared_secret", &STANDARD.encode(secret));
    }
    answer.push('}');
    Ok(answer)
}

/// Signs a user.
///
/// # Errors
/// 400 for data that a signin would refuse.
pub fn answer_user(
    app: &App,
    pair: &AppKey,
    socket_id: SocketId,
    names: NameRules,
    user_data: &str,
) -> Result<String, Refusal> {
    check_user_data(user_data, names, &app.settings).map_err(Refusal::bad_request)?;
    let mut answer = start_answer(&sign_user(pair, socket_id, user_data));
    push_member(&mut answer, "user_data", user_data);
    answer.push('}');
    Ok(answer)
}

/// One entry of the answer to a list: the answer to one channel, or its refusal.
pub fn push_entry(list: &mut String, channel: &str, answer: &Result<String, Refusal>) {
    list.push_str(if list.is_empty() { "{\"channels\":{" } else { "," });
    push_string(list, channel);
    list.push(':');
    match answer {
        Ok(answer) => list.push_str(answer),
        Err(refusal) => {
            let (_, body) = Dialect::Relay.error_body(refusal.status, &refusal.message);
            let body = String::from_utf8(body).expect("JSON is text");
            write!(list, "{{\"status\":{},{}", refusal.status, &body[1..]).expect("a string takes text");
        }
    }
}

/// Ends the answer to a list.
pub fn finish_list(list: &mut String) {
    list.push_str("}}");
}

/// Whether a subscription would accept this `channel_data`.
///
/// # Errors
/// The sentence that names the limit or the expectation.
pub fn check_channel_data(data: &str, settings: &AppSettings) -> Result<(), String> {
    let bytes_max = settings.max_channel_data_bytes;
    decode_channel_data(data, bytes_max as usize).map(drop).map_err(|error| match error {
        ChannelDataError::TooLong => format!("channel_data is longer than {bytes_max} bytes (max_channel_data_bytes)."),
        ChannelDataError::NoObject => "channel_data must be a string that contains a JSON object.".to_owned(),
        ChannelDataError::NoUserId => "channel_data must have a user_id: a string or a number.".to_owned(),
        ChannelDataError::UserIdTooLong => {
            format!("The user_id in channel_data must have 1 to {} bytes.", crate::limits::USER_ID_BYTES_MAX)
        }
        ChannelDataError::UserIdCharacter(character) => {
            format!("The user_id in channel_data has the control character {character:?}.")
        }
    })
}

/// Whether a signin would accept this `user_data`.
///
/// # Errors
/// The sentence that names the limit or the expectation.
pub fn check_user_data(data: &str, names: NameRules, settings: &AppSettings) -> Result<(), String> {
    let decoded = decode_user_data(data, names, settings.max_channel_data_bytes as usize);
    decoded.map(drop).map_err(|error| format!("{error}."))
}

fn start_answer(auth: &str) -> String {
    let mut answer = String::with_capacity(128);
    answer.push_str("{\"auth\":");
    push_string(&mut answer, auth);
    answer
}

fn push_member(answer: &mut String, name: &str, value: &str) {
    write!(answer, ",\"{name}\":").expect("a string takes text");
    push_string(answer, value);
}

fn push_string(out: &mut String, text: &str) {
    let mut literal = Vec::with_capacity(text.len() + 2);
    encode_json_string(&mut literal, text);
    out.push_str(std::str::from_utf8(&literal).expect("JSON is text"));
}
