//! The cause of a refused request with a token or with key and secret in its headers (R-AUTH-1, R-AUTH-2).
//!
//! Invariant: only an admin is sent more than the verdict and a sentence, so that nobody else can tell an unknown token
//! from a revoked one, or a secret from another (threats T6, T53).

use super::answer::Answer;
use super::cause::Cause;
use super::given::GivenSignature;
use super::key::NamedKey;
use super::search::Search;
use super::state::State;
use super::subscriptions::verdict_of;
use crate::auth::token::{TOKEN_PREFIX, is_well_formed, token_hash};
use crate::limits::EXPLAIN_OTHER_APPS_HMACS_MAX;

/// Explains the credential in the headers of a request that is not signed.
pub(super) fn explain_headers(state: &State<'_>, header: &dyn Fn(&str) -> Option<String>) -> Answer {
    let bearer = header("Authorization").and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        let is_ours = scheme.eq_ignore_ascii_case("Bearer") && token.trim().starts_with(TOKEN_PREFIX);
        is_ours.then(|| token.trim().to_owned())
    });
    let (cause, about, other_app, hmacs) = match (bearer, header("X-Relay-Key"), header("X-Relay-Secret")) {
        (Some(token), ..) => {
            let (cause, about) = token_cause(state, &token);
            (cause, about, None, 0)
        }
        (None, Some(key), Some(secret)) => pair_cause(state, key.trim(), secret.trim()),
        (None, Some(_), None) => (Cause::MissingCredential, "X-Relay-Secret is missing", None, 0),
        (None, None, Some(_)) => (Cause::MissingCredential, "X-Relay-Key is missing", None, 0),
        (None, None, None) => (Cause::MissingCredential, "", None, 0),
    };
    Answer { about: about.to_owned(), other_app, hmacs, ..Answer::of(verdict_of(cause), cause) }
}

fn token_cause(state: &State<'_>, token: &str) -> (Cause, &'static str) {
    if !is_well_formed(token) {
        return (Cause::MalformedToken, "");
    }
    match state.directory.token_by_hash(&token_hash(token)) {
        None => (Cause::BadToken, "there is no such token"),
        Some(known) if known.app != state.app.serial => (Cause::BadToken, "it belongs to another app"),
        Some(known) if known.revoked => (Cause::BadToken, "it was revoked"),
        Some(known) if !known.is_valid(state.now.unix_ms) => (Cause::BadToken, "it expired"),
        Some(_) => (Cause::Ok, ""),
    }
}

type PairCause = (Cause, &'static str, Option<String>, usize);

fn pair_cause(state: &State<'_>, key: &str, secret: &str) -> PairCause {
    let named = NamedKey::resolve(state.directory, state.app, key);
    if let Some(cause) = named.cause() {
        let other = if let NamedKey::OtherApp(_, id) = named { Some(id.into_string()) } else { None };
        return (cause, "", other, 0);
    }
    let meant = state.app.active_key(key.as_bytes()).map(|(_, pair)| pair);
    let bare = secret.trim_matches(['"', '\'', '`']);
    let matches = |text: &str| meant.is_some_and(|pair| pair.secret.matches(text.as_bytes()));
    if matches(secret) {
        return (Cause::Ok, "", None, 1);
    }
    if matches(bare) {
        return (Cause::QuotedSecret, "", None, 2);
    }
    if state.app.keys.iter().any(|pair| pair.secret.matches(bare.as_bytes())) {
        return (Cause::SecretOfOtherKey, "", None, 2 + state.app.keys.len());
    }
    // One HMAC each, as many as a search spends on other apps.
    let mut search = Search::new(GivenSignature::none());
    for other in state.directory.apps().rev().filter(|other| other.serial != state.app.serial) {
        for pair in &other.keys {
            if search.hmacs == EXPLAIN_OTHER_APPS_HMACS_MAX || search.spend(1, secret.len()).is_break() {
                return (Cause::BadSecret, "", None, search.hmacs);
            }
            if pair.secret.matches(bare.as_bytes()) {
                return (Cause::SecretOfOtherApp, "", Some(other.id.to_string()), search.hmacs);
            }
        }
    }
    (Cause::BadSecret, "", None, search.hmacs)
}
