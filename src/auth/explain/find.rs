//! The order of the search: the likeliest mistakes first, combinations of two last (R-EXPLAIN-2, R-EXPLAIN-4).

use std::ops::ControlFlow;

use ring::hmac;

use super::cause::Cause;
use super::key::{self, NamedKey};
use super::search::{End, Found, Search, Step};
use crate::app::{App, Directory};

/// What to search for.
pub(super) struct Case<'a, 't> {
    pub(super) directory: &'a Directory,
    pub(super) app: &'a App,
    /// The key that was named.
    pub(super) named: &'t NamedKey,
    /// The text that Relay expects, with the parameters as they were sent.
    pub(super) expected: &'t str,
    /// Attempts with all texts under one secret.
    pub(super) texts: &'t dyn Fn(&mut Search, &hmac::Key) -> Step,
}

/// What was found.
#[derive(Default)]
pub(super) struct Finding<'a> {
    pub(super) found: Option<Found>,
    /// The other app whose secret signed it.
    pub(super) signer: Option<&'a App>,
}

impl Finding<'_> {
    /// More about the mistake.
    pub(super) fn about(&self) -> &'static str {
        self.found.as_ref().map_or("", |found| found.about)
    }

    /// The text that was signed, if that is not the expected one.
    pub(super) fn signed(&self) -> Option<String> {
        let found = self.found.as_ref().filter(|found| found.cause != Cause::Ok)?;
        let text = String::from_utf8_lossy(&found.text);
        let end = text.floor_char_boundary(SIGNED_BYTES_MAX);
        Some(text[..end].to_owned())
    }
}

/// Bytes of the signed text that an answer repeats: it may contain a whole body.
const SIGNED_BYTES_MAX: usize = 8 * 1024;

/// Searches for the mistake that reproduces the signature.
pub(super) fn find<'a>(search: &mut Search, case: &Case<'a, '_>) -> Finding<'a> {
    let mut signer = None;
    match attempt_all(search, case, &mut signer) {
        ControlFlow::Break(End::Found(found)) => Finding { found: Some(found), signer },
        ControlFlow::Break(End::Cut) | ControlFlow::Continue(()) => Finding { found: None, signer: None },
    }
}

fn attempt_all<'a>(search: &mut Search, case: &Case<'a, '_>, signer: &mut Option<&'a App>) -> Step {
    let expected = case.expected.as_bytes();
    let pairs = key::pairs(case.app, case.named);
    let Some((first, others)) = pairs.split_first() else { return ControlFlow::Continue(()) };
    (case.texts)(search, &first.hmac)?;
    for pair in others {
        search.attempt(Cause::SecretOfOtherKey, "", &pair.hmac, expected)?;
    }
    key::attempt_changed_secrets(search, case.app, &pairs, expected)?;
    key::attempt_other_functions(search, first, expected)?;
    key::attempt_other_apps(search, case.directory, case.app, expected, signer)?;
    for pair in others {
        (case.texts)(search, &pair.hmac)?;
    }
    ControlFlow::Continue(())
}
