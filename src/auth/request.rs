//! Who sends this request? Pusher query signature, Bearer token, or key and secret headers, in this order; the first
//! present must pass, there is no falling through (R-AUTH-4).

use std::sync::Arc;

use crate::app::{App, Directory, Scopes, TokenId};
use crate::moment::Moment;
use crate::wire::http::Request;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The app of the path.
    pub app: Arc<App>,
    /// How it proved itself.
    pub credential: Credential,
}

/// The proof that was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credential {
    /// Query signature with this key of the app (index into `app.keys`).
    Signature(usize),
    /// Key and secret headers with this key of the app.
    KeyAndSecret(usize),
    /// Bearer token.
    Token(TokenId, Scopes),
}

/// Why a request was refused, with the sentence for the caller; never quotes a secret, token or signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestRefusal {
    /// 404, checked before credentials (P-STAT-4).
    UnknownApp(String),
    /// 401.
    Unauthorized(String),
    /// 403.
    AppDisabled,
}

/// Verifies the caller of a request for `/apps/{app_id}`. `path` is as requested (R-BASE-2); `prefix` is the configured path prefix or `""`.
pub fn verify_request(
    _directory: &Directory,
    _app_id: &str,
    _request: &Request<'_>,
    _prefix: &str,
    _now: Moment,
) -> Result<Caller, RequestRefusal> {
    todo!()
}
