//! The cause of a refused subscription or signin (P-FAIL-1, P-USER-3).

use super::answer::Answer;
use super::cause::{Cause, Verdict};
use super::channel_texts::{ChannelText, UserText};
use super::find::{Case, Finding, find};
use super::given::{GivenSignature, SignatureForm};
use super::kept::Kept;
use super::key::NamedKey;
use super::search::Search;
use super::state::State;
use crate::app::App;
use crate::auth::AuthFailure;
use crate::auth::subscription::{verify_private, verify_signin, verify_subscription};

/// The two parts of `auth`, or what they are of one that is kept.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) named: NamedKey,
    pub(super) given: GivenSignature,
    /// What is wrong with the form of `auth`.
    pub(super) fault: Option<Cause>,
}

impl Proof {
    pub(super) fn of_kept(kept: &Kept) -> Self {
        let fault = match (kept.failure, &kept.key) {
            (AuthFailure::Missing, _) => Some(Cause::MissingCredential),
            (_, NamedKey::Missing) if kept.signature.is_readable() => Some(Cause::MissingKey),
            (_, NamedKey::Missing) => Some(Cause::MalformedAuth),
            _ => None,
        };
        Self { named: kept.key.clone(), given: kept.signature, fault }
    }

    pub(super) fn decode(state: &State<'_>, auth: &str) -> Self {
        let Some((key, signature)) = auth.rsplit_once(':') else {
            let given = GivenSignature::decode(auth);
            let fault = match auth {
                "" => Cause::MissingCredential,
                _ if given.is_readable() => Cause::MissingKey,
                _ => Cause::MalformedAuth,
            };
            return Self { named: NamedKey::Missing, given, fault: Some(fault) };
        };
        let named = NamedKey::resolve(state.directory, state.app, key);
        // `{"auth":"KEY:SIGNATURE"}` as the text of auth.
        let is_json = auth.trim_start().starts_with(['{', '[']);
        let fault = is_json.then_some(Cause::MalformedAuth);
        Self { named, given: GivenSignature::decode(signature), fault }
    }
}

/// Explains a subscription. `auth` is none where only its parts are known.
pub(super) fn explain_channel<'a>(
    state: &State<'a>,
    text: &ChannelText<'_>,
    auth: Option<&str>,
    proof: &Proof,
) -> Answer {
    let mut search = Search::new(proof.given);
    let is_protected = ["private-", "presence-"].iter().any(|prefix| text.channel.starts_with(prefix));
    let early = if !state.app.enabled {
        Some(Cause::AppDisabled)
    } else if text.is_of_user() {
        Some(Cause::UserChannel)
    } else if !is_protected {
        Some(Cause::Ok)
    } else {
        let verify = if text.is_presence() { verify_subscription } else { verify_private };
        let verified = auth.map(|auth| verify(state.app, text.socket_id, text.channel, text.channel_data, auth));
        verified.is_some_and(|verified| verified.is_ok()).then_some(Cause::Ok)
    };
    if let Some(cause) = early {
        let about = if cause == Cause::Ok && !is_protected { "a public channel needs no signature" } else { "" };
        return Answer { about: about.to_owned(), ..Answer::of(verdict_of(cause), cause) };
    }
    // The server's own verification.
    let _ = search.spend(2, 0);
    let expected = text.expected();
    let texts = |search: &mut Search, key: &_| text.attempt_all(search, key);
    conclude(state, &mut search, proof, &expected, &texts)
}

/// Explains a signin, like [`explain_channel`].
pub(super) fn explain_user<'a>(state: &State<'a>, text: &UserText<'_>, auth: Option<&str>, proof: &Proof) -> Answer {
    let mut search = Search::new(proof.given);
    if !state.app.enabled {
        return Answer::of(Verdict::Explained, Cause::AppDisabled);
    }
    if auth.is_some_and(|auth| verify_signin(state.app, text.socket_id, text.user_data, auth).is_ok()) {
        return Answer::of(Verdict::Accepted, Cause::Ok);
    }
    let _ = search.spend(1, 0);
    let texts = |search: &mut Search, key: &_| text.attempt_all(search, key);
    conclude(state, &mut search, proof, &text.expected(), &texts)
}

/// Searches, unless the key or the form of `auth` is the cause already.
fn conclude<'a>(
    state: &State<'a>,
    search: &mut Search,
    proof: &Proof,
    expected: &str,
    texts: &dyn Fn(&mut Search, &ring::hmac::Key) -> super::search::Step,
) -> Answer {
    let visible = proof.fault.or_else(|| proof.named.cause().filter(|cause| *cause != Cause::UnknownKey));
    let case = Case { directory: state.directory, app: state.app, named: &proof.named, expected, texts };
    let finding = if visible.is_some() { Finding::default() } else { find(search, &case) };
    let (verdict, cause) = match visible {
        Some(cause) => (Verdict::Explained, cause),
        None => cause_of(search, proof, &finding),
    };
    let other_app = match (&proof.named, finding.signer) {
        (NamedKey::OtherApp(_, id), _) => Some(id.to_string()),
        (_, signer) => signer.map(|app| app.id.to_string()),
    };
    Answer {
        about: finding.about().to_owned(),
        expected: Some(expected.to_owned()),
        signed: finding.signed(),
        other_app,
        hmacs: search.hmacs,
        digests: search.digests,
        ..Answer::of(verdict, cause)
    }
    .without_secrets(&apps_of(state, finding.signer), "")
}

/// The apps whose secrets may occur in an answer.
pub(super) fn apps_of<'a>(state: &State<'a>, signer: Option<&'a App>) -> Vec<&'a App> {
    [Some(state.app), signer].into_iter().flatten().collect()
}

pub(super) fn verdict_of(cause: Cause) -> Verdict {
    if cause == Cause::Ok { Verdict::Accepted } else { Verdict::Explained }
}

fn cause_of(search: &Search, proof: &Proof, finding: &Finding<'_>) -> (Verdict, Cause) {
    let is_unknown_key = proof.named.cause() == Some(Cause::UnknownKey);
    let cause = match &finding.found {
        Some(found) if found.cause == Cause::Ok && is_unknown_key => Cause::UnknownKey,
        Some(found) if found.cause == Cause::Ok => form_cause(proof.given.form).unwrap_or(Cause::Ok),
        Some(found) => found.cause,
        None if is_unknown_key => Cause::UnknownKey,
        None if !proof.given.is_readable() => Cause::MalformedSignature,
        None if proof.given.form == SignatureForm::OtherLength => Cause::MalformedSignature,
        None => return (unexplained(search), Cause::Unknown),
    };
    (verdict_of(cause), cause)
}

pub(super) fn unexplained(search: &Search) -> Verdict {
    if search.is_cut { Verdict::Cut } else { Verdict::Unexplained }
}

/// What is wrong with the form of a signature that is right otherwise.
pub(super) fn form_cause(form: SignatureForm) -> Option<Cause> {
    match form {
        SignatureForm::Hex => None,
        SignatureForm::UpperHex => Some(Cause::UpperCaseSignature),
        SignatureForm::Base64 => Some(Cause::Base64Signature),
        SignatureForm::Padded => Some(Cause::PaddedSignature),
        SignatureForm::OtherLength | SignatureForm::Unreadable => Some(Cause::MalformedSignature),
    }
}
