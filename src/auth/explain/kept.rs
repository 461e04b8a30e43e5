//! What is kept of a refusal for ten minutes, so that `explain` can name its cause (R-EXPLAIN-6, threat T55).
//!
//! Invariant: of a signature no more than 8 hex digits are kept, of a key only one that is public, and of a request
//! neither headers nor body: nobody who reads all of it can repeat the request, also not one that was signed correctly
//! and refused because its time had not come.

use std::fmt;

use super::given::GivenSignature;
use super::key::NamedKey;
use crate::app::{App, Directory};
use crate::auth::AuthFailure;
use crate::auth::signature::Reserved;
use crate::auth::token::TOKEN_PREFIX;
use crate::limits::{CANDIDATE_PARAMETERS_MAX, REFUSAL_TEXT_BYTES_MAX};
use crate::wire::query::{self, Query};

/// Identifies a refusal in the log: 128 random bits, `ref_` and 32 hex digits as text.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RefusalId(pub [u8; 16]);

impl fmt::Display for RefusalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REFUSAL_PREFIX}{}", const_hex::encode(self.0))
    }
}

impl RefusalId {
    /// Reads its text; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(REFUSAL_PREFIX)?;
        let mut bytes = [0; 16];
        // The decoder would skip a leading `0x` and accept upper case.
        let is_hex = digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        const_hex::decode_to_slice(digits, &mut bytes).ok().filter(|()| is_hex)?;
        Some(Self(bytes))
    }
}

const REFUSAL_PREFIX: &str = "ref_";

/// A refused signature, as far as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// What was to be signed.
    pub text: KeptText,
    /// The key.
    pub key: NamedKey,
    /// The beginning of the signature.
    pub signature: GivenSignature,
    /// Why it was refused.
    pub failure: AuthFailure,
    /// When, in ms since 1970.
    pub at_ms: u64,
}

/// The parts of the text that was to be signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeptText {
    /// For a channel.
    Channel {
        /// Of the connection.
        socket_id: Box<str>,
        /// Its name.
        channel: Box<str>,
        /// As sent.
        channel_data: Option<Box<str>>,
    },
    /// For a user.
    User {
        /// Of the connection.
        socket_id: Box<str>,
        /// As sent.
        user_data: Box<str>,
    },
    /// For a request of the HTTP API.
    Request {
        /// As sent.
        method: Box<str>,
        /// As sent.
        path: Box<str>,
        /// As sent, without the signature.
        query: Box<str>,
    },
    /// It is longer than [`REFUSAL_TEXT_BYTES_MAX`], or has more than [`CANDIDATE_PARAMETERS_MAX`] parameters.
    TooLong,
}

impl Kept {
    /// Of a subscription or, without a channel, of a signin.
    pub fn of_socket(
        directory: &Directory,
        app: &App,
        (socket_id, channel, data): (&str, Option<&str>, Option<&str>),
        auth: &str,
        (failure, at_ms): (AuthFailure, u64),
    ) -> Self {
        let (key, signature) = auth.rsplit_once(':').unwrap_or(("", auth));
        let bytes = socket_id.len() + channel.map_or(0, str::len) + data.map_or(0, str::len);
        let text = match channel {
            _ if bytes > REFUSAL_TEXT_BYTES_MAX => KeptText::TooLong,
            Some(channel) => KeptText::Channel {
                socket_id: socket_id.into(),
                channel: channel.into(),
                channel_data: data.map(Into::into),
            },
            None => KeptText::User { socket_id: socket_id.into(), user_data: data.unwrap_or_default().into() },
        };
        Self {
            text,
            key: NamedKey::resolve(directory, app, key),
            signature: GivenSignature::decode(signature).kept(),
            failure,
            at_ms,
        }
    }

    /// Of a request with a signed query.
    pub fn of_request(
        directory: &Directory,
        app: &App,
        (method, path, query): (&str, &str, &str),
        (failure, at_ms): (AuthFailure, u64),
    ) -> Self {
        let (mut key, mut signature) = (NamedKey::Missing, GivenSignature::none());
        let (mut kept, mut decoded) = (String::new(), Vec::new());
        let is_long = Query::new(Some(query)).parameters().nth(CANDIDATE_PARAMETERS_MAX).is_some();
        for parameter in Query::new(Some(query)).parameters().take(CANDIDATE_PARAMETERS_MAX) {
            let (name, value) = (String::from_utf8_lossy(parameter.name), String::from_utf8_lossy(parameter.value));
            let read = query::decode(parameter.value);
            let read = String::from_utf8_lossy(&read);
            let value = match Reserved::of_sent(parameter.name, &mut decoded) {
                Some((Reserved::Signature, _)) => {
                    signature = GivenSignature::decode(&read).kept();
                    continue;
                }
                Some((Reserved::Key, _)) => {
                    key = NamedKey::resolve(directory, app, &read);
                    // Anything else may be a secret in the wrong place (threat T27).
                    let is_public = matches!(key, NamedKey::Active(_) | NamedKey::OtherApp(..));
                    if is_public { value } else { REMOVED.into() }
                }
                // A token or secret does not belong there (R-AUTH-7).
                None if name == "token" || read.contains(TOKEN_PREFIX) || is_secret(app, &read) => REMOVED.into(),
                Some((Reserved::Timestamp | Reserved::Version | Reserved::BodyMd5, _)) | None => value,
            };
            let separator = if kept.is_empty() { "" } else { "&" };
            kept += &format!("{separator}{name}={value}");
        }
        let bytes = method.len() + path.len() + kept.len();
        let text = if is_long || bytes > REFUSAL_TEXT_BYTES_MAX {
            KeptText::TooLong
        } else {
            KeptText::Request { method: method.into(), path: path.into(), query: kept.into() }
        };
        Self { text, key, signature, failure, at_ms }
    }

    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        match &self.text {
            KeptText::Channel { socket_id, channel, channel_data } => {
                socket_id.len() + channel.len() + channel_data.as_ref().map_or(0, |data| data.len())
            }
            KeptText::User { socket_id, user_data } => socket_id.len() + user_data.len(),
            KeptText::Request { method, path, query } => method.len() + path.len() + query.len(),
            KeptText::TooLong => 0,
        }
    }
}

/// In constant time (threat T2).
fn is_secret(app: &App, text: &str) -> bool {
    app.keys.iter().any(|pair| pair.secret.matches(text.as_bytes()))
}

/// In the place of what may be secret.
const REMOVED: &str = "[removed]";
