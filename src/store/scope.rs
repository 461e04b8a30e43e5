//! Scopes by name (R-TOKEN-6).

use super::error::StoreError;
use crate::app::Scopes;

/// Every scope, in the order of the bits of [`Scopes`].
pub const NAMES: [&str; 12] = [
    "events:publish",
    "events:batch",
    "channels:read",
    "presence:read",
    "webhooks:manage",
    "encryption:manage",
    "schemas:manage",
    "connections:read",
    "analytics:read",
    "channels:auth",
    "channels:subscribe",
    "connections:manage",
];

/// The set that these names make; an unknown one is refused with the nearest.
pub fn parse_all(names: &[String]) -> Result<Scopes, StoreError> {
    let mut scopes = Scopes::default();
    for name in names {
        let Some(bit) = NAMES.iter().position(|known| known == name) else {
            let nearest = crate::store::nearest(name, NAMES);
            return Err(StoreError::Invalid(format!(
                "there is no scope {name:?}{nearest}; known are {}",
                NAMES.join(", ")
            )));
        };
        scopes.0 |= 1 << bit;
    }
    Ok(scopes)
}
