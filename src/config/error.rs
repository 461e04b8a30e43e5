//! A mistake of the operator.

/// A mistake in a flag, a variable or the file: one line with cause and fix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
