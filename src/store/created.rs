//! What a key pair created over the API, and what happens to it when the key is removed (R-ADMIN-6).

use crate::app::actor::Creator;

/// What happens to the active tokens and endpoints that a removed key created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyItems {
    /// The key is not removed if there are any.
    Refuse,
    /// They are revoked and removed with the key.
    Revoke,
    /// They stay.
    Keep,
}

/// A token or webhook endpoint that a key created, itself or with a token that it had created.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CreatedWithKey {
    /// `token` or `webhook`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// The name of a token, the URL of an endpoint.
    pub name: String,
    /// The credential that created it.
    pub created_by: Creator,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
}
