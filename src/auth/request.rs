//! Who sends this request? Pusher query signature, Bearer token, or key and secret headers, in this order; the first
//! present must pass, there is no falling through (R-AUTH-4).
//!
//! What must hold: an unknown app is told before credentials are looked at (P-STAT-4), a credential counts only for
//! the app of the path (R-AUTH-5), and no answer tells an unknown token from one that ended (threat T6).

use std::sync::Arc;

use super::signature::{Signed, is_signed, verify_signature};
use super::token::{is_well_formed, token_hash};
use crate::app::{App, Directory, Scopes, TokenId};
use crate::moment::Moment;
use crate::wire::http::{HttpError, Request};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The app of the path.
    pub app: Arc<App>,
    /// How it proved itself.
    pub credential: Credential,
}

impl Caller {
    /// What the credential may do: key pairs may do everything, a token what its scopes say (R-TOKEN-6).
    pub fn scopes(&self) -> Scopes {
        match &self.credential {
            Credential::Signature(_) | Credential::KeyAndSecret(_) => Scopes::FULL,
            Credential::Token(_, scopes) => *scopes,
        }
    }
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
///
/// # Errors
/// [`RequestRefusal`]; only `Unauthorized` counts as a failed credential.
pub fn verify_request(
    directory: &Directory,
    app_id: &str,
    request: &Request<'_>,
    prefix: &str,
    now: Moment,
) -> Result<Caller, RequestRefusal> {
    let app = directory
        .app_by_id(app_id)
        .ok_or_else(|| RequestRefusal::UnknownApp("There is no app with the id of this path.".to_owned()))?;
    if !app.enabled {
        return Err(RequestRefusal::AppDisabled);
    }
    let credential = if let Some(query) = request.query.filter(|query| is_signed(query)) {
        let signed = Signed { method: request.method, path: request.path, query, body: request.body };
        let index = verify_signature(app, &signed, prefix, now)
            .map_err(|refusal| RequestRefusal::Unauthorized(refusal.to_string()))?;
        Credential::Signature(index)
    } else if let Some(token) = bearer(request)? {
        verify_token(directory, app, token, now)?
    } else {
        let key = only_header(request, "X-Relay-Key")?;
        let secret = only_header(request, "X-Relay-Secret")?;
        verify_key_and_secret(app, key, secret)?
    };
    Ok(Caller { app: Arc::clone(app), credential })
}

/// The credentials of `Authorization: Bearer`. Other schemes, as a proxy before the server may demand, are not ours.
fn bearer<'a>(request: &Request<'a>) -> Result<Option<&'a [u8]>, RequestRefusal> {
    let Some(value) = only_header(request, "Authorization")? else {
        return Ok(None);
    };
    let scheme_end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(scheme_end);
    Ok(scheme.eq_ignore_ascii_case(b"Bearer").then(|| token.trim_ascii()))
}

fn only_header<'a>(request: &Request<'a>, name: &'static str) -> Result<Option<&'a [u8]>, RequestRefusal> {
    request
        .headers
        .only(name)
        .map_err(|_: HttpError| unauthorized(&format!("The header {name} must stand exactly once.")))
}

fn verify_token(directory: &Directory, app: &App, token: &[u8], now: Moment) -> Result<Credential, RequestRefusal> {
    let token = std::str::from_utf8(token).ok().filter(|token| is_well_formed(token)).ok_or_else(|| {
        unauthorized("The Bearer value is not a token: expected rly_ and 40 characters of A-Z, a-z and 0-9.")
    })?;
    // One text for unknown, expired, revoked and foreign tokens: no oracle.
    directory
        .token_by_hash(&token_hash(token))
        .filter(|known| known.app == app.serial && known.is_valid(now.unix_ms))
        .map(|known| Credential::Token(known.id.clone(), known.scopes))
        .ok_or_else(|| unauthorized("The token is not valid for this app."))
}

fn verify_key_and_secret(app: &App, key: Option<&[u8]>, secret: Option<&[u8]>) -> Result<Credential, RequestRefusal> {
    let (key, secret) = match (key, secret) {
        (Some(key), Some(secret)) => (key, secret),
        (Some(_), None) => {
            return Err(unauthorized("The header X-Relay-Key needs X-Relay-Secret beside it."));
        }
        (None, Some(_)) => {
            return Err(unauthorized("The header X-Relay-Secret needs X-Relay-Key beside it."));
        }
        (None, None) => {
            return Err(unauthorized(
                "No credential was given: sign the query (auth_key, auth_timestamp, auth_version, body_md5, \
                 auth_signature), or send Authorization: Bearer rly_..., or X-Relay-Key and X-Relay-Secret.",
            ));
        }
    };
    app.active_key(key)
        .filter(|(_, pair)| pair.secret.matches(secret))
        .map(|(index, _)| Credential::KeyAndSecret(index))
        .ok_or_else(|| unauthorized("The key and secret are not an active pair of this app."))
}

fn unauthorized(message: &str) -> RequestRefusal {
    RequestRefusal::Unauthorized(message.to_owned())
}
