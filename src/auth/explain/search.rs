//! The search for the mistake: attempts at one signature, within bounds (R-EXPLAIN-4, threat T54).
//!
//! Invariant: at most [`EXPLAIN_HMACS_MAX`] HMACs over [`EXPLAIN_HMAC_BYTES_MAX`] bytes, [`EXPLAIN_DIGESTS_MAX`]
//! digests of bodies, and [`EXPLAIN_FORM_BYTES_MAX`] bytes of JSON are computed. No digest leaves this file.

use std::ops::ControlFlow;

use md5::{Digest, Md5};
use ring::{digest, hmac};

use super::cause::Cause;
use super::given::GivenSignature;
use crate::limits::{
    EXPLAIN_DIGEST_BYTES_MAX, EXPLAIN_DIGESTS_MAX, EXPLAIN_FORM_BYTES_MAX, EXPLAIN_HMAC_BYTES_MAX, EXPLAIN_HMACS_MAX,
};

/// A running search, and what it has spent.
#[derive(Debug)]
pub(super) struct Search {
    given: GivenSignature,
    pub(super) hmacs: usize,
    hmac_bytes: usize,
    pub(super) digests: usize,
    digest_bytes: usize,
    form_bytes: usize,
    /// A bound was reached, so that not everything was tried.
    pub(super) is_cut: bool,
}

/// What reproduces the signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Found {
    /// The mistake; [`Cause::Ok`] where the signature is right.
    pub(super) cause: Cause,
    /// More about it, such as the encoder whose form was signed. Empty if there is nothing to add.
    pub(super) about: &'static str,
    /// The text that was signed.
    pub(super) text: Vec<u8>,
}

/// Continues the search, or ends it.
pub(super) type Step = ControlFlow<End>;

/// Why a search ends.
#[derive(Debug)]
pub(super) enum End {
    /// An attempt reproduced the signature.
    Found(Found),
    /// A bound was reached.
    Cut,
}

impl Search {
    pub(super) fn new(given: GivenSignature) -> Self {
        Self { given, hmacs: 0, hmac_bytes: 0, digests: 0, digest_bytes: 0, form_bytes: 0, is_cut: false }
    }

    /// Computes the HMAC of a text, and ends the search if it is the signature.
    pub(super) fn attempt(&mut self, cause: Cause, about: &'static str, key: &hmac::Key, text: &[u8]) -> Step {
        let bytes = key.algorithm().digest_algorithm().output_len();
        if !self.given.has_length(bytes) {
            return ControlFlow::Continue(());
        }
        self.spend(1, text.len())?;
        if self.given.matches(hmac::sign(key, text).as_ref()) {
            return ControlFlow::Break(End::Found(Found { cause, about, text: text.to_vec() }));
        }
        ControlFlow::Continue(())
    }

    /// The same for the plain SHA-256 of bytes, which stand for `text` in the answer.
    pub(super) fn attempt_digest(&mut self, cause: Cause, about: &'static str, bytes: &[u8], text: &[u8]) -> Step {
        if !self.given.has_length(digest::SHA256.output_len()) {
            return ControlFlow::Continue(());
        }
        self.spend(1, bytes.len())?;
        if self.given.matches(digest::digest(&digest::SHA256, bytes).as_ref()) {
            return ControlFlow::Break(End::Found(Found { cause, about, text: text.to_vec() }));
        }
        ControlFlow::Continue(())
    }

    /// Counts HMACs that something else computes.
    pub(super) fn spend(&mut self, hmacs: usize, bytes: usize) -> Step {
        if self.hmacs + hmacs > EXPLAIN_HMACS_MAX || self.hmac_bytes + bytes > EXPLAIN_HMAC_BYTES_MAX {
            self.is_cut = true;
            return ControlFlow::Break(End::Cut);
        }
        self.hmacs += hmacs;
        self.hmac_bytes += bytes;
        ControlFlow::Continue(())
    }

    /// The MD5 of a body, while there is a digest left.
    pub(super) fn body_md5(&mut self, body: &[u8]) -> Option<[u8; 16]> {
        if self.digests == EXPLAIN_DIGESTS_MAX || self.digest_bytes + body.len() > EXPLAIN_DIGEST_BYTES_MAX {
            self.is_cut = true;
            return None;
        }
        self.digests += 1;
        self.digest_bytes += body.len();
        Some(Md5::digest(body).into())
    }

    /// Whether JSON of this length may be written in another form.
    pub(super) fn may_write(&mut self, bytes: usize) -> bool {
        let fits = self.form_bytes + bytes <= EXPLAIN_FORM_BYTES_MAX;
        self.is_cut |= !fits;
        self.form_bytes += if fits { bytes } else { 0 };
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> Search {
        Search::new(GivenSignature::decode(&"0b".repeat(32)))
    }

    /// R-EXPLAIN-4, T54: exactly 512 HMACs, and exactly the bytes that they may cover.
    #[test]
    fn hmacs_are_bounded() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let mut search = search();
        for _ in 0..EXPLAIN_HMACS_MAX {
            assert!(search.attempt(Cause::Ok, "", &key, b"text").is_continue());
        }
        assert!(!search.is_cut);
        assert!(matches!(search.attempt(Cause::Ok, "", &key, b"text"), ControlFlow::Break(End::Cut)));
        assert_eq!((search.hmacs, search.is_cut), (EXPLAIN_HMACS_MAX, true));

        let mut search = self::search();
        let half = vec![0; EXPLAIN_HMAC_BYTES_MAX / 2];
        assert!(search.attempt(Cause::Ok, "", &key, &half).is_continue());
        assert!(search.attempt_digest(Cause::Ok, "", &half, b"").is_continue());
        assert!(!search.is_cut);
        assert!(search.attempt(Cause::Ok, "", &key, b"x").is_break());
        assert!(search.is_cut);
        assert_eq!(search.hmacs, 2);
    }

    /// R-EXPLAIN-4, T54: exactly 8 digests of bodies, and exactly the bytes that they may cover; likewise for JSON.
    #[test]
    fn digests_and_forms_are_bounded() {
        let mut search = search();
        for _ in 0..EXPLAIN_DIGESTS_MAX {
            assert!(search.body_md5(b"body").is_some());
        }
        assert!(!search.is_cut);
        assert!(search.body_md5(b"body").is_none());
        assert!(search.is_cut);
        assert_eq!(search.digests, EXPLAIN_DIGESTS_MAX);

        let mut search = self::search();
        assert!(search.body_md5(&vec![0; EXPLAIN_DIGEST_BYTES_MAX]).is_some());
        assert!(!search.is_cut);
        assert!(search.body_md5(b"x").is_none());
        assert!(search.is_cut);

        let mut search = self::search();
        assert!(search.may_write(EXPLAIN_FORM_BYTES_MAX) && !search.is_cut);
        assert!(!search.may_write(1) && search.is_cut && search.may_write(0));
    }

    /// A signature of another length needs no HMAC of SHA-256, and one that is found costs no more.
    #[test]
    fn attempts_that_cannot_match_cost_nothing() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let mut short = Search::new(GivenSignature::decode(&"0b".repeat(20)));
        assert!(short.attempt(Cause::Ok, "", &key, b"text").is_continue() && short.hmacs == 0);
        let tag = hmac::sign(&key, b"text");
        let mut search = Search::new(GivenSignature::decode(&hex::encode(tag.as_ref())));
        let ControlFlow::Break(End::Found(found)) = search.attempt(Cause::ReversedOrder, "x", &key, b"text") else {
            panic!("it matches")
        };
        assert_eq!(found, Found { cause: Cause::ReversedOrder, about: "x", text: b"text".to_vec() });
    }
}
