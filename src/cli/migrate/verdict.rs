//! The result for one value of the file, and for an app or a webhook.

use super::table::Effect;
use crate::label::labels;

/// What became of one value of the file.
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
    /// A setting of a number, unless what holds for all apps is larger.
    AtLeast(&'static str, i64),
    /// A setting, as text, that is not quite what the value says, for this reason.
    Changed {
        name: &'static str,
        text: String,
        effect: Effect,
        reason: String,
    },
    /// Relay does so anyway, or the value asks for nothing.
    Same,
    /// It has no counterpart, for this reason.
    Dropped(Effect, String),
    /// It is not what that server takes there: this is.
    Wrong(&'static str),
}

labels! {
    /// What became, or would become, of an app or of a webhook.
    pub(super) enum Outcome {
        Created => "created",
        Changed => "changed",
        Same => "same",
    }
}
