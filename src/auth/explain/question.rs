//! A question to `explain`: a subscription, a signin or a request, as fields of JSON (R-EXPLAIN-1).

use std::collections::BTreeMap;

use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::given::BASE64;
use super::kept::RefusalId;
use crate::limits::{EXPLAIN_BODY_BYTES_MAX, EXPLAIN_FIELD_BYTES_MAX};
use crate::protocol::socket_id::SocketId;

/// What is to be explained.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Question {
    /// A subscription.
    Channel {
        /// Of the connection.
        socket_id: String,
        /// Its name.
        channel: String,
        /// As sent.
        auth: String,
        /// As sent.
        channel_data: Option<String>,
    },
    /// A signin.
    User {
        /// Of the connection.
        socket_id: String,
        /// As sent.
        user_data: String,
        /// As sent.
        auth: String,
        /// A channel whose authorization may have been sent instead.
        channel: Option<String>,
    },
    /// A request of the HTTP API.
    Request {
        /// As sent.
        method: String,
        /// Path and query as sent.
        target: String,
        /// Names and values in any order.
        headers: Vec<(String, String)>,
        /// The body, if it is known.
        body: Option<Vec<u8>>,
    },
}

/// A question as the API takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The app; needed for all but a refusal.
    pub app_id: Option<String>,
    /// What is to be explained.
    pub subject: Subject,
}

/// What an [`Asked`] is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// What is in the question.
    Question(Question),
    /// A refusal of the log.
    Refusal(RefusalId),
}

/// Why a question cannot be answered; the text names the field and the expectation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct QuestionError(pub String);

/// The fields of all questions.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Id of the app.
    pub app_id: Option<String>,
    /// Of the connection.
    pub socket_id: Option<String>,
    /// Name of the channel.
    pub channel: Option<String>,
    /// `KEY:SIGNATURE`.
    pub auth: Option<String>,
    /// Of a presence channel.
    pub channel_data: Option<String>,
    /// Of a signin.
    pub user_data: Option<String>,
    /// Of a request.
    pub method: Option<String>,
    /// Path and query of a request, or its URL.
    pub path: Option<String>,
    /// Of a request.
    pub headers: Option<BTreeMap<String, String>>,
    /// Of a request, as text.
    pub body: Option<String>,
    /// Of a request, in base64.
    pub body_base64: Option<String>,
    /// The field `refusal_id` of a line of the log.
    pub refusal_id: Option<String>,
}

impl Asked {
    /// Reads a question from JSON.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub fn from_json(json: Value) -> Result<Self, QuestionError> {
        let fields: Fields = serde_json::from_value(json).map_err(|error| {
            QuestionError(format!("The body must be a JSON object with the documented fields: {error}."))
        })?;
        fields.into_asked()
    }
}

impl Fields {
    /// The fields that are present, as JSON.
    pub fn given(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else { return Map::new() };
        fields.retain(|_, value| !value.is_null());
        fields
    }

    /// Checks which fields there are and what they contain.
    fn into_asked(self) -> Result<Asked, QuestionError> {
        self.check_lengths()?;
        let app_id = self.app_id.clone();
        let subject = match (&self.refusal_id, &self.method, &self.socket_id) {
            (Some(id), None, None) if self.has_only(&["app_id", "refusal_id"]) => {
                let id = RefusalId::parse(id);
                Subject::Refusal(id.ok_or_else(|| refuse("refusal_id must be ref_ and 32 hex digits, as in the log."))?)
            }
            (None, Some(_), None) if self.has_only(&["app_id", "method", "path", "headers", "body", "body_base64"]) => {
                Subject::Question(self.into_request()?)
            }
            (None, None, Some(_))
                if self.has_only(&["app_id", "socket_id", "channel", "auth", "channel_data", "user_data"]) =>
            {
                Subject::Question(self.into_subscription()?)
            }
            _ => {
                return Err(refuse(
                    "Send either socket_id, channel, auth and channel_data; or socket_id, user_data and auth; or \
                     method, path, headers and body; or refusal_id; each with app_id.",
                ));
            }
        };
        Ok(Asked { app_id, subject })
    }

    fn into_subscription(self) -> Result<Question, QuestionError> {
        let socket_id = self.socket_id.unwrap_or_default();
        if SocketId::parse(&socket_id).is_none() {
            return Err(refuse("socket_id must be two numbers joined by a dot, such as 1234.5678."));
        }
        let auth = self.auth.unwrap_or_default();
        match (self.channel, self.channel_data, self.user_data) {
            (Some(channel), channel_data, None) => Ok(Question::Channel { socket_id, channel, auth, channel_data }),
            (channel, None, Some(user_data)) => Ok(Question::User { socket_id, user_data, auth, channel }),
            (_, Some(_), Some(_)) => {
                Err(refuse("Send channel_data for a channel or user_data for a signin, not both."))
            }
            (None, _, None) => Err(refuse("channel is missing: the name of the channel, or user_data for a signin.")),
        }
    }

    fn into_request(self) -> Result<Question, QuestionError> {
        let method = self.method.unwrap_or_default();
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(refuse("method must be a word such as POST."));
        }
        let path = self.path.ok_or_else(|| refuse("path is missing: path and query as they were sent."))?;
        let mut headers: Vec<(String, String)> = self.headers.unwrap_or_default().into_iter().collect();
        let target = match path.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Host")) {
                    headers.push(("Host".to_owned(), host.to_owned()));
                }
                if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
            }
            _ => path,
        };
        let target = target.split('#').next().unwrap_or_default().to_owned();
        if !target.starts_with('/') {
            return Err(refuse("path must begin with / or be a URL, and have the query as it was sent."));
        }
        let body = match (self.body, self.body_base64) {
            (Some(_), Some(_)) => return Err(refuse("Send body or body_base64, not both.")),
            (body, None) => body.map(String::into_bytes),
            (None, Some(encoded)) => Some(BASE64.decode(encoded).map_err(|_| refuse("body_base64 must be base64."))?),
        };
        if body.as_ref().is_some_and(|body| body.len() > EXPLAIN_BODY_BYTES_MAX) {
            return Err(QuestionError(format!("body is longer than {EXPLAIN_BODY_BYTES_MAX} bytes.")));
        }
        Ok(Question::Request { method, target, headers, body })
    }

    /// The fields that are present, by name, with their lengths.
    fn present(&self) -> Vec<(&'static str, usize)> {
        let headers =
            self.headers.as_ref().map(|headers| headers.iter().map(|(name, value)| name.len() + value.len()).sum());
        let length = |field: &Option<String>| field.as_ref().map(String::len);
        [
            ("app_id", length(&self.app_id)),
            ("socket_id", length(&self.socket_id)),
            ("channel", length(&self.channel)),
            ("auth", length(&self.auth)),
            ("channel_data", length(&self.channel_data)),
            ("user_data", length(&self.user_data)),
            ("method", length(&self.method)),
            ("path", length(&self.path)),
            ("headers", headers),
            ("body", length(&self.body)),
            ("body_base64", length(&self.body_base64)),
            ("refusal_id", length(&self.refusal_id)),
        ]
        .into_iter()
        .filter_map(|(name, length)| Some((name, length?)))
        .collect()
    }

    fn has_only(&self, names: &[&str]) -> bool {
        self.present().iter().all(|(name, _)| names.contains(name))
    }

    fn check_lengths(&self) -> Result<(), QuestionError> {
        for (name, length) in self.present() {
            let bytes_max = match name {
                "body" => EXPLAIN_BODY_BYTES_MAX,
                "body_base64" => EXPLAIN_BODY_BYTES_MAX.div_ceil(3) * 4,
                _ => EXPLAIN_FIELD_BYTES_MAX,
            };
            if length > bytes_max {
                return Err(QuestionError(format!("{name} is longer than {bytes_max} bytes.")));
            }
        }
        Ok(())
    }
}

fn refuse(text: &str) -> QuestionError {
    QuestionError(text.to_owned())
}
