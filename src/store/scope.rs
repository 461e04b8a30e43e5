//! Scopes as the store keeps them: by name, so that a dump of the store reads well (R-TOKEN-6).

use super::error::StoreError;
use crate::app::{Scope, Scopes};
use crate::setting::nearest;

/// The set that these names make; an unknown one is refused with the nearest.
pub(super) fn parse_all(names: &[String]) -> Result<Scopes, StoreError> {
    let mut scopes = Scopes::FULL;
    for name in names {
        let scope = Scope::from_name(name).ok_or_else(|| {
            let nearest = nearest(name, Scope::ALL.map(Scope::name));
            let known = Scopes::every();
            StoreError::Invalid(format!("there is no scope {name:?}{nearest}; known are {known}"))
        })?;
        scopes = scopes.with(scope);
    }
    Ok(scopes)
}
