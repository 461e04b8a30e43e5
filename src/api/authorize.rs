//! Checks whether the caller's credential permits this endpoint. Key pairs permit every endpoint, tokens only those in
//! their scopes. Where everybody knows the secret, pages must not use it.

use super::refusal::Refusal;
use super::route::Endpoint;
use crate::auth::request::{Caller, Credential};
use crate::auth::signature::is_signed;
use crate::wire::http::Request;

/// Checks the scope of the endpoint (R-TOKEN-6). An endpoint without one is for key and secret only: no token widens or
/// multiplies what it may do (R-TOKEN-10, threat T43), or sees a caller's headers (R-DIAG-1).
///
/// # Errors
/// 403 that names the missing scope, or the credential that the endpoint accepts.
pub fn authorize(caller: &Caller, endpoint: &Endpoint<'_>) -> Result<(), Refusal> {
    match (endpoint.scope(), &caller.credential) {
        (Some(scope), _) => {
            let mut missing = [Some(scope), endpoint.further_scope()].into_iter().flatten();
            let missing = missing.find(|scope| !caller.scopes().allows(*scope));
            missing.map_or(Ok(()), |scope| Err(Refusal::missing_scope(scope)))
        }
        (None, Credential::Signature(_) | Credential::KeyAndSecret(_)) => Ok(()),
        (None, Credential::Token(..) | Credential::Authorizer | Credential::PublicKey(_)) => {
            Err(Refusal::forbidden("This path is for key and secret, or a signature; no token may use it."))
        }
    }
}

/// Refuses a request that uses an app's secret, by signature or in headers, and comes from a page of a browser (threat
/// T77): for servers whose secret is public. Browsers never need the secret, and a page that is open anywhere on the
/// machine could use it.
///
/// # Errors
/// 403.
pub fn refuse_pages_with_secret(request: &Request<'_>) -> Result<(), Refusal> {
    let has = |name| request.headers.first(name).is_some();
    let is_from_page = has("origin") || has("sec-fetch-site");
    if is_from_page && (request.query.is_some_and(is_signed) || has("x-relay-key") || has("x-relay-secret")) {
        return Err(Refusal::forbidden(
            "With --dev, requests from browsers cannot use the app's secret, which everybody knows.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppSerial, Scope, Scopes};

    fn caller(credential: Credential) -> Caller {
        Caller { app: AppSerial(1), credential }
    }

    /// R-TOKEN-6: key pairs and tokens without scopes permit both endpoints, others only those that they name; the 403
    /// names the scope.
    #[test]
    fn scopes_limit_tokens_only() {
        let token = |scopes: &str| {
            let scopes = Scopes::parse(scopes).expect("known names");
            caller(Credential::Token("tok_1".into(), scopes))
        };
        for full in [caller(Credential::Signature(0)), caller(Credential::KeyAndSecret(0)), token("")] {
            assert_eq!(authorize(&full, &Endpoint::Events), Ok(()));
            assert_eq!(authorize(&full, &Endpoint::BatchEvents), Ok(()));
        }
        assert_eq!(authorize(&token("events:publish"), &Endpoint::Events), Ok(()));
        assert_eq!(authorize(&token("events:batch"), &Endpoint::BatchEvents), Ok(()));
        let refusal = authorize(&token("events:publish,channels:read"), &Endpoint::BatchEvents).expect_err("no batch");
        assert_eq!((refusal.status, &*refusal.message), (403, "This token lacks the scope events:batch."));
        for (scope, endpoint) in [
            ("channels:read", Endpoint::Channels),
            ("channels:read", Endpoint::Channel("a".into())),
            ("presence:read", Endpoint::ChannelUsers("a".into())),
            ("connections:read", Endpoint::Connections),
        ] {
            assert_eq!(authorize(&token(scope), &endpoint), Ok(()));
            let refusal = authorize(&token("events:publish"), &endpoint).expect_err("publish only");
            assert!(refusal.status == 403 && refusal.message.contains(scope), "{}", refusal.message);
        }
        for endpoint in [Endpoint::Tokens, Endpoint::Token("tok_1".into()), Endpoint::Arrival] {
            for every in ["", &*Scopes::EVERY.to_string()] {
                let refusal = authorize(&token(every), &endpoint).expect_err("R-TOKEN-10: no token manages tokens");
                assert!(refusal.status == 403 && refusal.message.contains("key and secret"), "{}", refusal.message);
            }
            for pair in [Credential::Signature(0), Credential::KeyAndSecret(0)] {
                assert_eq!(authorize(&caller(pair), &endpoint), Ok(()));
            }
        }
        let refusal = authorize(&token("events:batch"), &Endpoint::Events).expect_err("batch only");
        assert_eq!(refusal, Refusal::missing_scope(Scope::EventsPublish));
    }
}
