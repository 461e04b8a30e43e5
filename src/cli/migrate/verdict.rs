//! The result for one value of the file, and for an app or a webhook.

use super::table::Effect;
use crate::label::labels;

/// The result for one value of the file.
pub(super) enum Verdict {
    /// A member of the app itself.
    Id(String),
    Key(String),
    Secret(String),
    Enabled(bool),
    /// A setting, as text.
    Set(&'static str, String),
    /// A setting, as text, unless another value names it.
    Otherwise(&'static str, String),
    /// A setting of a number, unless the value for all apps is larger.
    AtLeast(&'static str, i64),
    /// A setting, as text, that differs from the value, for this reason.
    Changed {
        name: &'static str,
        text: String,
        effect: Effect,
        reason: String,
    },
    /// Relay behaves this way anyway, or the value requests nothing.
    Same,
    /// It has no counterpart, for this reason.
    Dropped(Effect, String),
    /// That server does not accept it there; this describes the accepted values.
    Wrong(&'static str),
}

labels! {
    /// The outcome, actual or planned, for an app or a webhook.
    pub(super) enum Outcome {
        Created => "created",
        Changed => "changed",
        Same => "same",
    }
}
