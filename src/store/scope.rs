//! Scopes in their stored form: by name, so that a dump of the store is readable (R-TOKEN-6).

use super::error::StoreError;
use crate::app::{Scope, Scopes};
use crate::label::Label;
use crate::setting::nearest;

/// The set of scopes with these names; an unknown name is refused, and the error suggests the nearest one.
pub(super) fn parse_all(names: &[String]) -> Result<Scopes, StoreError> {
    let mut scopes = Scopes::FULL;
    for name in names {
        let scope = Scope::of_label(name).ok_or_else(|| {
            let nearest = nearest(name, Scope::LABELS.iter().copied());
            let known = Scopes::EVERY;
            StoreError::Invalid(format!("there is no scope {name:?}{nearest}; known are {known}"))
        })?;
        scopes = scopes.with(scope);
    }
    Ok(scopes)
}
