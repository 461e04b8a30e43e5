//! The cause of a refused request that is signed (P-SIGN rules).

use super::answer::Answer;
use super::body::{MD5_OF_NOTHING, difference, is_compressed};
use super::cause::{Cause, Verdict};
use super::find::{Case, Finding, find};
use super::given::{GivenSignature, SignatureForm};
use super::key::NamedKey;
use super::request_texts::{RequestText, TIMESTAMP_MS_MIN};
use super::search::Search;
use super::state::State;
use super::subscriptions::{apps_of, form_cause, unexplained, verdict_of};
use crate::auth::signature::{Reserved, SignatureRefusal, Signed, SignedBody, verify_signature};
use crate::limits::SIGNATURE_WINDOW_S;

/// A signed request, or what is kept of one.
pub(super) struct SignedRequest<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Without the signature where the request is kept.
    pub(super) query: &'a str,
    pub(super) named: NamedKey,
    pub(super) given: GivenSignature,
    /// The signature as it was sent; none where the request is kept.
    pub(super) signature: Option<String>,
    pub(super) body: BodyState<'a>,
}

/// What is known about the body.
#[derive(Clone, Copy, Debug)]
pub(super) enum BodyState<'a> {
    /// Nothing.
    Unknown,
    /// All of it.
    Whole(&'a [u8]),
    /// That it was not the signed one.
    Mismatch,
}

/// A cause that was concluded, and more about it.
struct Concluded {
    verdict: Verdict,
    cause: Cause,
    about: String,
}

impl Concluded {
    fn certain(cause: Cause, about: impl Into<String>) -> Self {
        Self { verdict: verdict_of(cause), cause, about: about.into() }
    }
}

/// Explains a signed request. `header` finds the value of a header.
pub(super) fn explain_signed<'a>(
    state: &State<'a>,
    request: &SignedRequest<'a>,
    header: &dyn Fn(&str) -> Option<&'a str>,
) -> Answer {
    let mut search = Search::new(request.given);
    let mut text = RequestText::new(request.method, request.path, request.query, state.path_prefix);
    text.add_headers(header);
    if let BodyState::Whole(body) = request.body {
        let md5 = if body.is_empty() { None } else { search.body_md5(body) };
        text.body = md5.map(|md5| (body, const_hex::encode(md5)));
    }
    let coding = header("Content-Encoding");
    let visible = match verify(state, request, &mut search) {
        Ok(()) => Some(accepted(&mut search, request, &text, coding)),
        Err(refusal) => visible_cause(request, &text, refusal),
    };
    let as_sent = text.as_sent();
    let texts = |search: &mut Search, key: &_| text.attempt_all(search, key);
    let case =
        Case { directory: state.directory, app: state.app, named: &request.named, expected: &as_sent, texts: &texts };
    let finding = if visible.is_some() { Finding::default() } else { find(&mut search, &case) };
    let concluded =
        visible.unwrap_or_else(|| conclude(request, &text, &mut search, &finding, state.now.unix_s(), coding));
    let other_app = match (&request.named, finding.signer) {
        (NamedKey::OtherApp(_, id), _) => Some(id.to_string()),
        (_, signer) => signer.map(|app| app.id.to_string()),
    };
    Answer {
        about: concluded.about,
        expected: Some(text.expected(&corrections(state, request, &text))),
        signed: finding.signed(),
        other_app,
        hmacs: search.hmacs,
        digests: search.digests,
        ..Answer::of(concluded.verdict, concluded.cause)
    }
    .without_secrets(&apps_of(state, finding.signer), request.signature.as_deref().unwrap_or_default())
}

/// Whether the server accepts the query; the body is compared later. None is known of a request that is kept.
fn verify(state: &State<'_>, request: &SignedRequest<'_>, search: &mut Search) -> Result<(), Option<SignatureRefusal>> {
    if request.signature.is_none() {
        return Err(None);
    }
    let body = match request.body {
        BodyState::Whole([]) => SignedBody::Whole(&[]),
        BodyState::Whole(_) => SignedBody::Awaited,
        BodyState::Unknown | BodyState::Mismatch => SignedBody::AwaitedOrEmpty,
    };
    let signed = Signed { method: request.method, path: request.path, query: request.query, body };
    // Within the bounds of a new search.
    let _ = search.spend(SERVER_CANDIDATES, 0);
    verify_signature(state.app, &signed, state.path_prefix, state.now).map(drop).map_err(Some)
}

/// The query is valid; the body may not be.
fn accepted(
    search: &mut Search,
    request: &SignedRequest<'_>,
    text: &RequestText<'_>,
    coding: Option<&str>,
) -> Concluded {
    body_fault(search, request, text, coding).unwrap_or_else(|| Concluded::certain(Cause::Ok, ""))
}

/// What is wrong with a body whose `body_md5` is signed.
fn body_fault(
    search: &mut Search,
    request: &SignedRequest<'_>,
    text: &RequestText<'_>,
    coding: Option<&str>,
) -> Option<Concluded> {
    let given = text.values(Reserved::BodyMd5);
    match (request.body, given.first()) {
        (BodyState::Unknown, _) => None,
        (BodyState::Mismatch, _) => Some(Concluded::certain(Cause::OtherBody, "")),
        (BodyState::Whole([]), None) => None,
        (BodyState::Whole(_), None) => Some(Concluded::certain(Cause::MissingBodyMd5, "")),
        (BodyState::Whole(body), Some(given)) => {
            let md5 = text.body.as_ref().map_or(MD5_OF_NOTHING, |(_, md5)| md5);
            if given.eq_ignore_ascii_case(md5) && !is_compressed(body, coding) {
                return None;
            }
            let changed = difference(search, given, body, md5, coding);
            Some(Concluded::certain(changed.cause, changed.about))
        }
    }
}

/// Causes that need no search.
fn visible_cause(
    request: &SignedRequest<'_>,
    text: &RequestText<'_>,
    refusal: Option<SignatureRefusal>,
) -> Option<Concluded> {
    match refusal {
        Some(SignatureRefusal::TooManyParameters | SignatureRefusal::TooLong) => {
            return Some(Concluded::certain(Cause::QueryTooLong, ""));
        }
        Some(SignatureRefusal::Repeated(name)) => return Some(Concluded::certain(Cause::RepeatedParameter, name)),
        Some(SignatureRefusal::Missing(name)) if name != Reserved::BodyMd5.name() => {
            return Some(Concluded::certain(Cause::MissingParameter, name));
        }
        Some(_) => {}
        None => {
            for which in [Reserved::Key, Reserved::Timestamp, Reserved::Version, Reserved::BodyMd5] {
                match text.values(which).len() {
                    0 if which != Reserved::BodyMd5 => {
                        return Some(Concluded::certain(Cause::MissingParameter, which.name()));
                    }
                    0 | 1 => {}
                    _ => return Some(Concluded::certain(Cause::RepeatedParameter, which.name())),
                }
            }
        }
    }
    if let Some(cause) = request.named.cause().filter(|cause| *cause != Cause::UnknownKey) {
        return Some(Concluded::certain(cause, ""));
    }
    if text.values(Reserved::Version) != ["1.0"] {
        return Some(Concluded::certain(Cause::WrongVersion, ""));
    }
    timestamp(text).is_none().then(|| Concluded::certain(Cause::MalformedTimestamp, ""))
}

/// The cause, from what the search found.
fn conclude(
    request: &SignedRequest<'_>,
    text: &RequestText<'_>,
    search: &mut Search,
    finding: &Finding<'_>,
    now_s: u64,
    coding: Option<&str>,
) -> Concluded {
    let is_unknown_key = request.named.cause() == Some(Cause::UnknownKey);
    let clock = clock_fault(text, now_s);
    match &finding.found {
        Some(found) if found.cause != Cause::Ok => Concluded::certain(found.cause, found.about),
        Some(_) if is_unknown_key => Concluded::certain(Cause::UnknownKey, ""),
        Some(_) => clock
            .or_else(|| form_cause(request.given.form).map(|cause| Concluded::certain(cause, "")))
            .or_else(|| body_fault(search, request, text, coding))
            .unwrap_or_else(|| Concluded::certain(Cause::Ok, "")),
        None if is_unknown_key => Concluded::certain(Cause::UnknownKey, ""),
        None if matches!(request.given.form, SignatureForm::Unreadable | SignatureForm::OtherLength) => {
            Concluded::certain(Cause::MalformedSignature, "")
        }
        None => {
            let is_missing =
                matches!(request.body, BodyState::Whole([_, ..])) && text.values(Reserved::BodyMd5).is_empty();
            let missing = is_missing.then(|| Concluded::certain(Cause::MissingBodyMd5, ""));
            clock.map(with_wrong_signature).or(missing).unwrap_or_else(|| Concluded {
                verdict: unexplained(search),
                cause: Cause::Unknown,
                about: String::new(),
            })
        }
    }
}

fn with_wrong_signature(mut clock: Concluded) -> Concluded {
    clock.about += "; the signature is wrong as well";
    clock
}

/// The timestamp, if it is too far from the server's clock.
fn clock_fault(text: &RequestText<'_>, now_s: u64) -> Option<Concluded> {
    let given_s = timestamp(text).filter(|given_s| given_s.abs_diff(now_s) > SIGNATURE_WINDOW_S)?;
    if given_s >= TIMESTAMP_MS_MIN {
        return Some(Concluded::certain(Cause::TimestampInMs, ""));
    }
    let direction = if given_s > now_s { "ahead of" } else { "behind" };
    let about = format!("auth_timestamp is {} s {direction} the server's clock", given_s.abs_diff(now_s));
    Some(Concluded::certain(Cause::ClockSkew, about))
}

fn timestamp(text: &RequestText<'_>) -> Option<u64> {
    let values = text.values(Reserved::Timestamp);
    let digits = values.first()?;
    // `parse` would accept a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The right values of parameters that are wrong.
fn corrections(state: &State<'_>, request: &SignedRequest<'_>, text: &RequestText<'_>) -> Vec<(Reserved, String)> {
    let mut corrected = Vec::new();
    if !matches!(request.named, NamedKey::Active(_)) {
        let newest = state.app.keys.last().map(|pair| &*pair.key);
        corrected.extend(request.named.meant().or(newest).map(|key| (Reserved::Key, key.to_owned())));
    }
    corrected.push((Reserved::Version, "1.0".to_owned()));
    let seconds = match timestamp(text) {
        Some(ms) if ms >= TIMESTAMP_MS_MIN => Some(ms / 1_000),
        Some(_) => None,
        None => Some(state.now.unix_s()),
    };
    corrected.extend(seconds.map(|seconds| (Reserved::Timestamp, seconds.to_string())));
    corrected.extend(text.body.as_ref().map(|(_, md5)| (Reserved::BodyMd5, md5.clone())));
    corrected
}

/// What the server's own verification computes at most (P-SIGN-5).
const SERVER_CANDIDATES: usize = 18;
