//! The table at the end of a migration: every value of the file with the result and the reason.

use serde_json::{Value, json};

use super::super::columns::Columns;
use crate::label::{Label, labels};

labels! {
    /// The result for a value.
    pub(super) enum Handling {
        /// Relay does what the value says.
        Taken => "taken",
        /// Relay does something close to it.
        Changed => "changed",
        /// Relay does not do it.
        Dropped => "dropped",
    }
}

labels! {
    /// How the permissions of clients and publishers compare with the old server.
    pub(super) enum Effect {
        /// The same, as far as security and limits are concerned.
        Same => "same",
        /// Less is allowed here.
        Tightens => "tightens",
        /// More is allowed here: the operator has to accept it.
        Loosens => "loosens",
    }
}

/// One value. Rows contain no value of a key that is not imported, since it may be a secret.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The key, as the file spells it.
    pub(super) at: String,
    pub(super) handling: Handling,
    pub(super) effect: Effect,
    pub(super) reason: String,
}

impl Row {
    pub(super) fn taken(at: &str, reason: impl Into<String>) -> Self {
        Self { at: at.into(), handling: Handling::Taken, effect: Effect::Same, reason: reason.into() }
    }

    pub(super) fn changed(at: &str, effect: Effect, reason: impl Into<String>) -> Self {
        Self { at: at.into(), handling: Handling::Changed, effect, reason: reason.into() }
    }

    pub(super) fn dropped(at: &str, effect: Effect, reason: impl Into<String>) -> Self {
        Self { at: at.into(), handling: Handling::Dropped, effect, reason: reason.into() }
    }

    /// True for rows that an operator should read: dropped values, and those that allow less or more than before.
    pub(super) fn is_loss(&self) -> bool {
        self.handling == Handling::Dropped || self.effect != Effect::Same
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "key": self.at,
            "result": self.handling.label(),
            "effect": self.effect.label(),
            "reason": self.reason,
        })
    }

    fn result(&self) -> String {
        match self.effect {
            Effect::Same => self.handling.label().into(),
            Effect::Tightens | Effect::Loosens => format!("{}, {}", self.handling.label(), self.effect.label()),
        }
    }
}

/// The rows in columns.
pub(super) fn text(rows: &[Row]) -> String {
    let mut table = Columns::new(["KEY", "RESULT", "REASON"]);
    rows.iter().for_each(|row| table.push([row.at.clone(), row.result(), row.reason.clone()]));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row has its key, its result with the effect if there is one, and its reason, in columns.
    #[test]
    fn rows_are_in_columns() {
        let rows = [
            Row::taken("port", "listen"),
            Row::changed("apps.0.a", Effect::Tightens, "at most 5"),
            Row::dropped("b", Effect::Loosens, "no such limit"),
        ];
        let wanted = [
            "KEY       RESULT             REASON",
            "port      taken              listen",
            "apps.0.a  changed, tightens  at most 5",
            "b         dropped, loosens   no such limit",
        ];
        assert_eq!(text(&rows).lines().collect::<Vec<_>>(), wanted);
        assert_eq!(rows.iter().map(Row::is_loss).collect::<Vec<_>>(), [false, true, true]);
    }
}
