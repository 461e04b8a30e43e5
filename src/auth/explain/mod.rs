//! Why was this refused? Finds the mistake that reproduces a bad signature (R-EXPLAIN rules).
//!
//! A pure function: given a refused subscription, signin or request, or what is kept of one, and the apps of the store,
//! it says what Relay expected to be signed, and tries the mistakes that people make with keys, secrets, texts and
//! bodies until one of them gives the signature that was sent. Its work is bounded (threat T54).
//!
//! Invariant: an answer contains no digest, no signature and no secret (threat T53; P-FAIL-6).

mod answer;
mod body;
mod cause;
mod channel_texts;
mod encoding;
mod find;
mod given;
mod headers;
mod json;
mod kept;
mod key;
mod question;
mod request_texts;
mod requests;
mod search;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Reader};
pub use cause::{Cause, Verdict};
pub use given::{GivenSignature, KEPT_BYTES, SignatureForm};
pub use kept::{Kept, KeptText, RefusalId};
pub use key::NamedKey;
pub use question::{Asked, Fields, Question, QuestionError, Subject};
pub use state::State;

use super::AuthFailure;
use super::signature::{Reserved, is_signed};
use crate::moment::Moment;
use crate::wire::http::without_prefix;
use crate::wire::query::Query;
use channel_texts::{ChannelText, UserText};
use requests::{BodyState, SignedRequest, explain_signed};
use subscriptions::{Proof, explain_channel, explain_user};

/// Explains a question.
pub fn explain(state: &State<'_>, question: &Question) -> Answer {
    match question {
        Question::Channel { socket_id, channel, auth, channel_data } => {
            let text = ChannelText { socket_id, channel, channel_data: channel_data.as_deref() };
            explain_channel(state, &text, Some(auth), &Proof::decode(state, auth))
        }
        Question::User { socket_id, user_data, auth, channel } => {
            let text = UserText { socket_id, user_data, channel: channel.as_deref() };
            explain_user(state, &text, Some(auth), &Proof::decode(state, auth))
        }
        Question::Request { method, target, headers, body } => {
            explain_request(state, method, target, headers, body.as_deref())
        }
    }
}

/// Explains a refusal of the log. The app is that of the refusal, and its clock the one of that time.
pub fn explain_kept(state: &State<'_>, kept: &Kept) -> Answer {
    let state = &State { now: Moment { unix_ms: kept.at_ms, ..state.now }, ..*state };
    let proof = Proof::of_kept(kept);
    match &kept.text {
        KeptText::Channel { socket_id, channel, channel_data } => {
            let text = ChannelText { socket_id, channel, channel_data: channel_data.as_deref() };
            explain_channel(state, &text, None, &proof)
        }
        KeptText::User { socket_id, user_data } => {
            explain_user(state, &UserText { socket_id, user_data, channel: None }, None, &proof)
        }
        KeptText::Request { method, path, query } => {
            let body = if kept.failure == AuthFailure::BodyMismatch { BodyState::Mismatch } else { BodyState::Unknown };
            let request = SignedRequest {
                method,
                path,
                query,
                named: kept.key.clone(),
                given: kept.signature,
                signature: None,
                body,
            };
            explain_signed(state, &request, &|_| None)
        }
        KeptText::TooLong => explain_reason(kept.failure),
    }
}

/// Explains a refusal of which nothing but the reason is known.
pub fn explain_reason(failure: AuthFailure) -> Answer {
    let cause = match failure {
        AuthFailure::Missing => Cause::MissingCredential,
        AuthFailure::Malformed => Cause::MalformedAuth,
        AuthFailure::UnknownKey => Cause::UnknownKey,
        AuthFailure::BadSignature => return Answer::of(Verdict::Cut, Cause::Unknown),
        AuthFailure::BadSecret => Cause::BadSecret,
        AuthFailure::BadToken => Cause::BadToken,
        AuthFailure::StaleTimestamp => Cause::ClockSkew,
        AuthFailure::BodyMismatch => Cause::OtherBody,
        AuthFailure::WrongUser => Cause::UserChannel,
    };
    Answer::of(Verdict::Explained, cause)
}

/// Explains a refusal that is not about a credential, by its line in the log.
pub fn explain_other(line: &str, reason: &str) -> Answer {
    let about = format!("{line}: {reason}");
    Answer { about, ..Answer::of(Verdict::Explained, Cause::NotACredential) }
}

fn explain_request(
    state: &State<'_>,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let found = |name: &str| headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    if !state.app.enabled {
        return Answer::of(Verdict::Explained, Cause::AppDisabled);
    }
    if let Some(id) = app_id_of(path, state.path_prefix).filter(|id| **id != *state.app.id) {
        let other_app = state.directory.app_by_id(id).map(|app| app.id.to_string());
        let about = format!("the path names the app {}", crate::protocol::quote(id));
        return Answer { about, other_app, ..Answer::of(Verdict::Explained, Cause::OtherAppPath) };
    }
    if !is_signed(query) {
        return headers::explain_headers(state, &|name| found(name).map(|(_, value)| value.clone()));
    }
    let value = |which: Reserved| {
        let first = Query::new(Some(query)).first(which.name());
        first.map_or_else(String::new, std::borrow::Cow::into_owned)
    };
    let signature = value(Reserved::Signature);
    let request = SignedRequest {
        method,
        path,
        query,
        named: NamedKey::resolve(state.directory, state.app, &value(Reserved::Key)),
        given: GivenSignature::decode(&signature),
        signature: Some(signature),
        body: body.map_or(BodyState::Unknown, BodyState::Whole),
    };
    explain_signed(state, &request, &|name| found(name).map(|(_, value)| value.as_str()))
}

/// The app id of a path below `/apps/`, wherever that begins.
fn app_id_of<'a>(path: &'a str, path_prefix: &str) -> Option<&'a str> {
    let path = without_prefix(path, path_prefix).unwrap_or(path);
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let id = path.strip_prefix("/apps/")?.split('/').next()?;
    (!id.is_empty()).then_some(id)
}
