//! The answer of `explain` (R-EXPLAIN-1, R-EXPLAIN-3).
//!
//! Invariant: it contains no digest that Relay computed, no signature and no secret (threat T53): it is made of closed
//! sets, sentences, and texts from which secrets and the given signature are removed.

use serde_json::{Value, json};

use super::cause::{Cause, Verdict};
use crate::app::App;
use crate::label::Label;

/// Who reads an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// A holder of an admin credential, or of the data directory.
    Admin,
    /// A holder of a read-only admin credential: verdict and hint.
    ReadOnly,
}

/// The answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Whether Relay accepts it, or whether the cause was found.
    pub verdict: Verdict,
    /// The cause.
    pub cause: Cause,
    /// More about it for admins; empty if there is nothing to add.
    pub about: String,
    /// The text that Relay expects to be signed.
    pub expected: Option<String>,
    /// The text that was signed, where an attempt reproduced the signature.
    pub signed: Option<String>,
    /// Id of the other app whose key or secret was used.
    pub other_app: Option<String>,
    /// HMACs that the search computed.
    pub hmacs: usize,
    /// Digests of bodies that it computed.
    pub digests: usize,
}

impl Answer {
    /// An answer that has only a cause.
    pub(super) fn of(verdict: Verdict, cause: Cause) -> Self {
        Self {
            verdict,
            cause,
            about: String::new(),
            expected: None,
            signed: None,
            other_app: None,
            hmacs: 0,
            digests: 0,
        }
    }

    /// What to change, in one sentence.
    pub fn hint(&self, reader: Reader) -> String {
        let hint = self.cause.hint();
        let cut = if self.verdict == Verdict::Cut {
            "; the search was cut, since too much would have to be tried"
        } else {
            ""
        };
        if self.about.is_empty() || reader == Reader::ReadOnly {
            return format!("{hint}{cut}.");
        }
        // The encoder whose form was signed.
        let is_form = matches!(self.cause, Cause::ReserializedData | Cause::ReformattedBody);
        let before = if is_form { "what was signed was written " } else { "" };
        format!("{hint} ({before}{}){cut}.", self.about)
    }

    /// The answer as JSON, with the members that this reader may see.
    pub fn to_json(&self, reader: Reader) -> Value {
        let mut answer = json!({ "verdict": self.verdict.label(), "hint": self.hint(reader) });
        if reader == Reader::Admin {
            answer["cause"] = self.cause.label().into();
            answer["expected_string_to_sign"] = json!(self.expected);
            answer["signed_string"] = json!(self.signed);
            answer["other_app"] = json!(self.other_app);
        }
        answer
    }

    /// Removes secrets of these apps and the signature that was given from all texts.
    #[must_use]
    pub(super) fn without_secrets(mut self, apps: &[&App], signature: &str) -> Self {
        let secrets = apps.iter().flat_map(|app| &app.keys).map(|pair| (pair.secret.expose(), "[secret]"));
        let is_long = signature.len() >= SIGNATURE_BYTES_MIN;
        let signature = is_long.then_some((signature.trim(), "[signature]"));
        let removed: Vec<_> = secrets.chain(signature).filter(|(text, _)| !text.is_empty()).collect();
        for text in [Some(&mut self.about), self.expected.as_mut(), self.signed.as_mut()].into_iter().flatten() {
            for (secret, name) in &removed {
                if text.contains(secret) {
                    *text = text.replace(secret, name);
                }
            }
        }
        self
    }
}

/// No signature is shorter, in any coding; a shorter text is no secret and may occur anywhere.
const SIGNATURE_BYTES_MIN: usize = 20;
