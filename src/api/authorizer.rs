//! Questions to the authorizer of an app, and its answers (R-AUTHEP-3, R-AUTHEP-11).
//!
//! Invariant (threats T35, T37): the authorizer receives a new form built from checked values, and of the caller's
//! headers only those in [`forwarded_headers`]. Its answer counts only if it is unmistakable (threat T36).

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::auth::{check_channel_data, check_user_data};
use crate::app::{App, AppSerial, AppSettings};
use crate::auth::token::TOKEN_PREFIX;
use crate::channel::name::NameRules;
use crate::limits::JSON_DEPTH_MAX;
use crate::protocol::socket_id::SocketId;
use crate::wire::http::Headers;
use crate::wire::json::{check_depth, decode_string, starts_object};

/// The header of requests to authorizers. An auth endpoint that receives it is asked by another one: a loop (threat T39).
pub const MARKER: &str = "X-Relay-Authorizer";

/// One request of a client, about one or more subjects: one request to the authorizer for each.
#[derive(Debug)]
pub struct AuthorizerCall {
    /// The app whose authorizer is asked.
    pub app: AppSerial,
    /// The socket of the client.
    pub socket_id: SocketId,
    /// What is to be signed.
    pub subjects: Vec<Subject>,
    /// Headers of the caller that the authorizer receives.
    pub headers: Vec<(&'static str, Box<str>)>,
}

/// What an authorizer decides about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// A subscription of this channel, which is protected.
    Channel(Box<str>),
    /// A sign-in.
    User,
}

/// The decision about one subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Sign it, with this data if the subject needs some.
    Granted(Option<Box<str>>),
    /// Do not sign it: 403.
    Refused,
    /// The authorizer gave no valid answer: 502.
    Failed,
    /// The authorizer was not asked: 503, with the seconds for `Retry-After`.
    Busy(u32),
}

/// Why an answer does not grant the subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotGranted {
    /// The authorizer refuses.
    Refused,
    /// The answer is not valid, for this reason, which is for the operator alone.
    Invalid(String),
}

impl Subject {
    /// Memory, in bytes, with that of the decision.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of::<Option<Decision>>() + self.channel().len()
    }

    /// The channel, or nothing for a user.
    pub fn channel(&self) -> &str {
        match self {
            Self::Channel(name) => name,
            Self::User => "",
        }
    }

    /// The URL of the app's authorizer for it; empty without one.
    pub fn url<'a>(&self, settings: &'a AppSettings) -> &'a str {
        match self {
            Self::Channel(_) => &settings.authorizer_url,
            Self::User => &settings.user_authorizer_url,
        }
    }
}

/// The form that the authorizer receives.
pub fn encode_form(socket_id: SocketId, subject: &Subject) -> String {
    let mut form = format!("socket_id={socket_id}");
    if let Subject::Channel(name) = subject {
        form.push_str("&channel_name=");
        form.extend(utf8_percent_encode(name, NON_ALPHANUMERIC));
    }
    form
}

/// The headers of a caller that its authorizer receives: those by which backends recognize a user and a page.
pub fn forwarded_headers(headers: &Headers<'_>, settings: &AppSettings) -> Vec<(&'static str, Box<str>)> {
    let text = |name: &'static str| headers.first(name).and_then(|value| std::str::from_utf8(value).ok());
    let mut forwarded: Vec<(&'static str, Box<str>)> = Vec::new();
    let cookies = text("Cookie").map(|cookies| own_cookies(cookies, &settings.authorizer_cookies));
    if let Some(cookies) = cookies.filter(|cookies| !cookies.is_empty()) {
        forwarded.push(("Cookie", cookies.into()));
    }
    if let Some(value) = text("Authorization").filter(|value| !contains_token(value)) {
        forwarded.push(("Authorization", value.into()));
    }
    for name in ["X-CSRF-Token", "X-XSRF-TOKEN", "Origin"] {
        if let Some(value) = text(name) {
            forwarded.push((name, value.into()));
        }
    }
    forwarded
}

/// The cookies that the backend may see: those named in the app's setting, or all but Relay's own (threat T37).
fn own_cookies(cookies: &str, named: &[Box<str>]) -> String {
    let is_sent = |cookie: &&str| {
        let name = cookie.split('=').next().unwrap_or_default().trim();
        !is_of_relay(name) && (named.is_empty() || named.iter().any(|other| **other == *name))
    };
    let sent: Vec<&str> =
        cookies.split(';').map(str::trim).filter(|cookie| !cookie.is_empty()).filter(is_sent).collect();
    sent.join("; ")
}

/// Cookies of the dashboard, on whatever port: cookies ignore ports.
fn is_of_relay(name: &str) -> bool {
    let name = name.trim_start_matches("__Host-").trim_start_matches("__Secure-");
    name.get(..COOKIE_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(COOKIE_PREFIX))
}

const COOKIE_PREFIX: &str = "relay_";

/// True for a value with a token of Relay in it, however it is spelled: no backend needs to see one.
fn contains_token(value: &str) -> bool {
    value.to_ascii_lowercase().contains(TOKEN_PREFIX)
}

/// Judges the answer of an authorizer; returns the data to be signed with the subject.
///
/// # Errors
/// [`NotGranted`].
pub fn decode_answer(
    app: &App,
    names: NameRules,
    subject: &Subject,
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Option<Box<str>>, NotGranted> {
    let invalid = |reason: &str| Err(NotGranted::Invalid(reason.to_owned()));
    match status {
        200 => {}
        400..=499 => return Err(NotGranted::Refused),
        300..=399 => return invalid(&format!("it answered {status}, a redirect, such as to a login page")),
        _ => return invalid(&format!("it answered {status}")),
    }
    if content_type.is_some_and(|content_type| !is_json(content_type)) {
        return invalid(&format!("it answered 200 with Content-Type {:?}, not JSON", content_type.unwrap_or_default()));
    }
    let Ok(()) = check_depth(body, JSON_DEPTH_MAX) else {
        return invalid("its JSON is nested too deeply, or is not UTF-8");
    };
    let Some(text) = std::str::from_utf8(body).ok().filter(|text| starts_object(text)) else {
        return invalid("it answered 200 with a body that is not a JSON object");
    };
    let answer: RawAnswer<'_> = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
        NotGranted::Invalid(format!("it answered 200 with a body that is not a JSON object: {error}"))
    })?;
    if answer.authorized.is_some_and(|authorized| authorized.get() != "true") || answer.error.is_some() {
        return Err(NotGranted::Refused);
    }
    let (name, data) = match subject {
        Subject::User => ("user_data", answer.user_data),
        Subject::Channel(channel) if channel.starts_with("presence-") => ("channel_data", answer.channel_data),
        Subject::Channel(_) => return Ok(None),
    };
    let Some(raw) = data else { return invalid(&format!("its answer has no {name}")) };
    let data = match raw.get() {
        object if object.starts_with('{') => object.into(),
        literal => match decode_string(literal) {
            Some(text) => text,
            None => return invalid(&format!("the {name} in its answer is neither a string nor an object")),
        },
    };
    let checked = match subject {
        Subject::User => check_user_data(&data, names, &app.settings),
        Subject::Channel(_) => check_channel_data(&data, &app.settings),
    };
    checked.map_err(NotGranted::Invalid)?;
    Ok(Some(data.into()))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[derive(Deserialize)]
struct RawAnswer<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    authorized: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_data: Option<&'a RawValue>,
}

/// A member that is present, also if it is null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppKey;

    fn app() -> App {
        App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "".into(),
            enabled: true,
            keys: vec![AppKey::new("key", "secret")],
            encryption_master_key: None,
            settings: AppSettings::default(),
            webhooks: Default::default(),
        }
    }

    fn answer(
        subject: &Subject,
        status: u16,
        content_type: Option<&str>,
        body: &str,
    ) -> Result<Option<Box<str>>, NotGranted> {
        decode_answer(&app(), NameRules::Default, subject, status, content_type, body.as_bytes())
    }

    fn private() -> Subject {
        Subject::Channel("private-a".into())
    }

    /// R-AUTHEP-3, threat T36: only 200 with one JSON object that does not refuse grants a subject.
    #[test]
    fn only_an_unmistakable_answer_grants() {
        let json = Some("application/json; charset=utf-8");
        for body in ["{}", " {} ", r#"{"authorized":true}"#, r#"{"auth":"other:signature"}"#, "\u{feff}{}"] {
            assert_eq!(answer(&private(), 200, json, body), Ok(None), "{body}");
            assert_eq!(answer(&private(), 200, None, body), Ok(None), "{body}");
        }
        for body in [
            r#"{"authorized":false}"#,
            r#"{"authorized":"true"}"#,
            r#"{"authorized":1}"#,
            r#"{"authorized":null}"#,
            r#"{"error":"no"}"#,
            r#"{"error":null}"#,
            r#"{"authorized":true,"error":{}}"#,
        ] {
            assert_eq!(answer(&private(), 200, json, body), Err(NotGranted::Refused), "{body}");
        }
        for body in [
            "",
            "null",
            "[]",
            "false",
            "true",
            "\"ok\"",
            "1",
            "{",
            "{}{}",
            "{} x",
            "<html>",
            r#"{"authorized":true,"authorized":true}"#,
        ] {
            assert!(matches!(answer(&private(), 200, json, body), Err(NotGranted::Invalid(_))), "{body}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(300), "]".repeat(300));
        assert!(matches!(answer(&private(), 200, json, &deep), Err(NotGranted::Invalid(_))));
        for content_type in ["text/html", "text/plain", "", "application/jsonp", "text/json; application/json"] {
            assert!(matches!(answer(&private(), 200, Some(content_type), "{}"), Err(NotGranted::Invalid(_))));
        }
        for status in [400, 401, 403, 404, 419, 422, 429, 499] {
            assert_eq!(answer(&private(), status, json, "{}"), Err(NotGranted::Refused), "{status}");
        }
        for status in [100, 201, 204, 301, 302, 307, 500, 502, 503] {
            assert!(matches!(answer(&private(), status, json, "{}"), Err(NotGranted::Invalid(_))), "{status}");
        }
    }

    /// R-AUTHEP-3, R-AUTHEP-9: the data of members and users comes from the answer, as text or as an object, and is as
    /// valid as a subscription needs it.
    #[test]
    fn data_comes_from_the_answer() {
        let presence = Subject::Channel("presence-a".into());
        let text = r#"{"channel_data":"{\"user_id\":\"7\"}"}"#;
        assert_eq!(answer(&presence, 200, None, text), Ok(Some(r#"{"user_id":"7"}"#.into())));
        let object = r#"{"channel_data":{"user_id":7, "user_info":{}}}"#;
        assert_eq!(answer(&presence, 200, None, object), Ok(Some(r#"{"user_id":7, "user_info":{}}"#.into())));
        for body in [
            "{}",
            r#"{"channel_data":null}"#,
            r#"{"channel_data":"{}"}"#,
            r#"{"channel_data":7}"#,
            r#"{"channel_data":"x"}"#,
            r#"{"user_data":"{\"id\":\"7\"}"}"#,
        ] {
            assert!(matches!(answer(&presence, 200, None, body), Err(NotGranted::Invalid(_))), "{body}");
        }
        assert_eq!(answer(&Subject::User, 200, None, r#"{"user_data":{"id":"7"}}"#), Ok(Some(r#"{"id":"7"}"#.into())));
        for body in ["{}", text, r#"{"user_data":{}}"#] {
            assert!(matches!(answer(&Subject::User, 200, None, body), Err(NotGranted::Invalid(_))), "{body}");
        }
    }

    /// Threat T37: cookies of the dashboard and tokens of Relay reach no backend; a list of names limits the others.
    #[test]
    fn own_credentials_stay_here() {
        let cookies = "a=1; relay_session=x;  __Host-relay_session=y; RELAY_csrf=z; b=2;";
        assert_eq!(own_cookies(cookies, &[]), "a=1; b=2");
        assert_eq!(own_cookies(cookies, &["b".into(), "relay_session".into()]), "b=2");
        assert_eq!(own_cookies("relay_a=1", &[]), "");
        for value in ["Bearer rly_abc", "bearer   RLY_ABC", "rly_x", "Basic a, Bearer rly_b"] {
            assert!(contains_token(value), "{value}");
        }
        assert!(!contains_token("Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"));
    }

    /// Threat T35: the form contains the checked values alone, so that it reads back as exactly these.
    #[test]
    fn forms_read_back() {
        let socket_id = SocketId::parse("12.34").expect("an id");
        assert_eq!(encode_form(socket_id, &Subject::User), "socket_id=12.34");
        let subject = Subject::Channel("private-a&socket_id=1.1;=@,.".into());
        let form = encode_form(socket_id, &subject);
        assert_eq!(form, "socket_id=12.34&channel_name=private%2Da%26socket%5Fid%3D1%2E1%3B%3D%40%2C%2E");
    }
}
