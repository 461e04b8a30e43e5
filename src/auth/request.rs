//! Identifies the sender of a request: by Pusher query signature, Bearer token, or key and secret headers, in this
//! order. The first one present must be valid; there is no fallback to the next (R-AUTH-4).
//!
//! Invariant: an unknown app is reported before credentials are checked (P-STAT-4), a credential is valid only for the
//! app of the path (R-AUTH-5), and no answer distinguishes an unknown token from one that expired or was revoked
//! (threat T6).

use super::AuthFailure;
use super::signature::{Signed, SignedBody, is_signed, verify_signature};
use super::token::{ADMIN_TOKEN_PREFIX, TOKEN_PREFIX, is_well_formed, token_hash};
use crate::app::{App, AppSerial, Directory, Scope, Scopes, Token, TokenId};
use crate::moment::Moment;
use crate::wire::http::{Framing, HttpError, Request};
use crate::wire::query::{Query, QueryError};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The app of the path.
    pub app: AppSerial,
    /// How it authenticated.
    pub credential: Credential,
}

impl Caller {
    /// The permissions of the credential: key pairs have full access, a token has its scopes (R-TOKEN-6).
    pub fn scopes(&self) -> Scopes {
        match &self.credential {
            Credential::Signature(_) | Credential::KeyAndSecret(_) => Scopes::FULL,
            Credential::Token(_, scopes) => *scopes,
            Credential::Authorizer => Scope::ChannelsAuth.into(),
            Credential::PublicKey(_) => Scope::ChannelsSubscribe.into(),
        }
    }
}

/// The credential that was given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credential {
    /// Query signature with this key of the app (index into `app.keys`).
    Signature(usize),
    /// Key and secret headers with this key of the app.
    KeyAndSecret(usize),
    /// Bearer token, or for a stream the token of the query.
    Token(TokenId, Scopes),
    /// For a stream: the public key of the query with this index, which proves nothing (R-SSE-3).
    PublicKey(usize),
    /// None of Relay's: the authorizer of the app decides about the caller (R-AUTHEP-2).
    Authorizer,
}

impl Credential {
    fn of(token: &Token) -> Self {
        Self::Token(token.id.clone(), token.scopes)
    }
}

/// Why a request was refused, with the sentence for the caller, which never quotes a secret, token or signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestRefusal {
    /// 404, checked before credentials (P-STAT-4).
    UnknownApp(String),
    /// 401.
    Unauthorized(AuthFailure, String),
    /// 400: an admin token and a credential of an app (threat T42).
    TwoKinds,
    /// 403.
    AppDisabled,
}

/// How much of a request has arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// All of it.
    Whole,
    /// All but its body: no memory is allocated for the body of a caller that the head does not authenticate (threat
    /// T14).
    Head,
}

/// Which credentials an endpoint accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accepted {
    /// Signature, token, key and secret.
    Usual,
    /// Also the token or the public key of the query: `EventSource` of browsers cannot set headers (R-SSE-2).
    OfQueryToo,
}

/// Verifies the caller of a request for `/apps/{app_id}`; the signature covers the path as requested (R-BASE-2).
/// `prefix` is the configured path prefix or `""`. A request that is accepted by its head alone may turn out to have
/// another body than the signed one, so it must be verified again when it is complete.
///
/// # Errors
/// [`RequestRefusal`]; only `Unauthorized` counts as a failed credential.
pub fn verify_request(
    directory: &Directory,
    app_id: &str,
    request: &Request<'_>,
    known: Known,
    prefix: &str,
    now: Moment,
    accepted: Accepted,
) -> Result<Caller, RequestRefusal> {
    let app = directory
        .app_by_id(app_id)
        .ok_or_else(|| RequestRefusal::UnknownApp("No app has the id in this path.".to_owned()))?;
    if !app.enabled {
        return Err(RequestRefusal::AppDisabled);
    }
    let signed_query = request.query.filter(|query| is_signed(query));
    if has_admin_token(request) {
        return Err(refuse_admin_token(request, signed_query.is_some()));
    }
    let credential = if let Some(query) = signed_query {
        let body = match (known, request.framing) {
            (Known::Whole, _) => SignedBody::Whole(request.body),
            (Known::Head, Framing::Length(0)) => SignedBody::Whole(&[]),
            (Known::Head, Framing::Length(_)) => SignedBody::Awaited,
            (Known::Head, Framing::Chunked) => SignedBody::AwaitedOrEmpty,
        };
        let signed = Signed { method: request.method, path: request.path, query, body };
        let index = verify_signature(app, &signed, prefix, now)
            .map_err(|refusal| RequestRefusal::Unauthorized(refusal.failure(), refusal.to_string()))?;
        Credential::Signature(index)
    } else if let Some(token) = bearer(request)? {
        Credential::of(verify_token(directory, app, token, now)?)
    } else if accepted == Accepted::OfQueryToo
        && !has_pair(request)
        && let Some(credential) = verify_query(directory, app, Query::new(request.query), now)?
    {
        credential
    } else {
        let key = only_header(request, "X-Relay-Key")?;
        let secret = only_header(request, "X-Relay-Secret")?;
        verify_key_and_secret(app, key, secret)?
    };
    Ok(Caller { app: app.serial, credential })
}

/// Whether a request has a credential of Relay, valid or not. Such a request is judged by it alone (R-AUTHEP-2).
pub fn has_credential(request: &Request<'_>) -> bool {
    request.query.is_some_and(is_signed)
        || has_pair(request)
        || bearer(request).is_ok_and(|token| token.is_some())
        // A header that occurs twice may contain one.
        || bearer(request).is_err()
}

fn has_pair(request: &Request<'_>) -> bool {
    let has = |name| request.headers.first(name).is_some();
    has("X-Relay-Key") || has("X-Relay-Secret")
}

/// The credential of a stream's query. A URL leaks by logs and history, so a token in it may do nothing but subscribe,
/// and only for a time (threat T61).
fn verify_query(
    directory: &Directory,
    app: &App,
    query: Query<'_>,
    now: Moment,
) -> Result<Option<Credential>, RequestRefusal> {
    let value = |name| {
        query.value(name).map_err(|error: QueryError<'_>| unauthorized(AuthFailure::Malformed, &error.to_string()))
    };
    if let Some(token) = value("token")? {
        let known = verify_token(directory, app, token.as_bytes(), now)?;
        let is_limited = known.scopes == Scopes::FULL.with(Scope::ChannelsSubscribe);
        return if is_limited && known.expires_at_ms.is_some() {
            Ok(Some(Credential::of(known)))
        } else {
            Err(unauthorized(
                AuthFailure::BadToken,
                "A token in a URL must have the scope channels:subscribe alone, and an expiry: send others in the \
                 header Authorization.",
            ))
        };
    }
    let Some(key) = value("key")? else { return Ok(None) };
    match app.active_key(key.as_bytes()) {
        Some((index, _)) => Ok(Some(Credential::PublicKey(index))),
        None => Err(unauthorized(AuthFailure::UnknownKey, "The query parameter key is not an active key of this app.")),
    }
}

/// The stored token of a request that was verified with one: that of the header, or of the query.
pub fn token_of<'a>(directory: &'a Directory, request: &Request<'_>) -> Option<&'a Token> {
    if let Ok(Some(token)) = bearer(request) {
        return directory.token_by_hash(&token_hash(std::str::from_utf8(token).ok()?));
    }
    let token = Query::new(request.query).value("token").ok()??;
    directory.token_by_hash(&token_hash(&token))
}

/// An admin token belongs to the admin API. Beside a credential of the app the request means two callers, and neither is
/// chosen (threat T42).
fn has_admin_token(request: &Request<'_>) -> bool {
    let value = request.headers.first("Authorization").unwrap_or_default();
    let (scheme, token) = split_scheme(value);
    scheme.eq_ignore_ascii_case(b"Bearer") && token.starts_with(ADMIN_TOKEN_PREFIX.as_bytes())
}

fn refuse_admin_token(request: &Request<'_>, is_signed: bool) -> RequestRefusal {
    if is_signed || has_pair(request) {
        return RequestRefusal::TwoKinds;
    }
    unauthorized(
        AuthFailure::BadToken,
        "This is an admin token, which only the admin API accepts: send a token, or key and secret, of this app.",
    )
}

/// The scheme and the value of `Authorization`.
fn split_scheme(value: &[u8]) -> (&[u8], &[u8]) {
    let scheme_end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(scheme_end);
    (scheme, rest.trim_ascii())
}

/// The token of `Authorization: Bearer rly_...`. Other schemes and other Bearer values are ignored (R-TOKEN-1): a proxy
/// before the server may require them.
fn bearer<'a>(request: &Request<'a>) -> Result<Option<&'a [u8]>, RequestRefusal> {
    let Some(value) = only_header(request, "Authorization")? else {
        return Ok(None);
    };
    let (scheme, token) = split_scheme(value);
    let is_ours = scheme.eq_ignore_ascii_case(b"Bearer") && token.starts_with(TOKEN_PREFIX.as_bytes());
    Ok(is_ours.then_some(token))
}

fn only_header<'a>(request: &Request<'a>, name: &'static str) -> Result<Option<&'a [u8]>, RequestRefusal> {
    request.headers.only(name).map_err(|_: HttpError| {
        unauthorized(AuthFailure::Malformed, &format!("The header {name} must be present exactly once."))
    })
}

fn verify_token<'a>(
    directory: &'a Directory,
    app: &App,
    token: &[u8],
    now: Moment,
) -> Result<&'a Token, RequestRefusal> {
    let token = std::str::from_utf8(token).ok().filter(|token| is_well_formed(token)).ok_or_else(|| {
        unauthorized(
            AuthFailure::Malformed,
            "The Bearer value is not a whole token: expected rly_ and 40 characters of A-Z, a-z and 0-9.",
        )
    })?;
    // One text for unknown, expired, revoked and foreign tokens: no oracle.
    directory
        .valid_token(&token_hash(token), app.serial, now.unix_ms)
        .ok_or_else(|| unauthorized(AuthFailure::BadToken, "The token is not valid for this app."))
}

fn verify_key_and_secret(app: &App, key: Option<&[u8]>, secret: Option<&[u8]>) -> Result<Credential, RequestRefusal> {
    let (key, secret) = match (key, secret) {
        (Some(key), Some(secret)) => (key, secret),
        (Some(_), None) => {
            return Err(unauthorized(AuthFailure::Malformed, "The header X-Relay-Key requires X-Relay-Secret."));
        }
        (None, Some(_)) => {
            return Err(unauthorized(AuthFailure::Malformed, "The header X-Relay-Secret requires X-Relay-Key."));
        }
        (None, None) => {
            return Err(unauthorized(
                AuthFailure::Missing,
                "No credential was given: sign the query (auth_key, auth_timestamp, auth_version, body_md5, \
                 auth_signature), or send Authorization: Bearer rly_..., or X-Relay-Key and X-Relay-Secret.",
            ));
        }
    };
    // One text for both causes: no oracle.
    let refuse = |failure| unauthorized(failure, "The key and secret are not an active pair of this app.");
    let (index, pair) = app.active_key(key).ok_or_else(|| refuse(AuthFailure::UnknownKey))?;
    if pair.secret.matches(secret) { Ok(Credential::KeyAndSecret(index)) } else { Err(refuse(AuthFailure::BadSecret)) }
}

fn unauthorized(failure: AuthFailure, message: &str) -> RequestRefusal {
    RequestRefusal::Unauthorized(failure, message.to_owned())
}

#[cfg(test)]
mod tests {
    use ::hmac::{Hmac, KeyInit, Mac};

    use super::*;
    use crate::app::{AppKey, AppSettings};
    use crate::wire::http::{Progress, RequestDecoder, RequestLimits};

    const NOW: Moment = Moment { monotonic_ms: 1, unix_ms: 1_353_088_179_000 };
    const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"d"}"#;

    fn app(serial: u32, id: &str, enabled: bool, keys: &[(&str, &str)]) -> App {
        App {
            serial: AppSerial(serial),
            id: id.into(),
            name: "".into(),
            enabled,
            keys: keys.iter().map(|(key, secret)| AppKey::new(key, secret)).collect(),
            encryption_master_key: None,
            settings: AppSettings::default(),
            webhooks: Default::default(),
        }
    }

    /// The token of the tests: `rly_` and 40 times the letter.
    fn token(letter: char) -> String {
        format!("rly_{}", letter.to_string().repeat(40))
    }

    fn stored(letter: char, app: u32, expires_at_ms: Option<u64>, revoked: bool) -> Token {
        let scopes = Scopes::default().with(Scope::EventsPublish);
        let hash = token_hash(&token(letter));
        Token { id: format!("tok_{letter}").into(), hash, app: AppSerial(app), scopes, expires_at_ms, revoked }
    }

    /// App 3 with two key pairs, app 4 with one, app 5 disabled. Tokens of app 3: a good, e expired, r revoked,
    /// s ends in a second; of app 4: f.
    fn directory() -> Directory {
        let apps = vec![
            app(3, "3", true, &[("key-old", "secret-old"), ("key-3", "secret-3")]),
            app(4, "4", true, &[("key-4", "secret-4")]),
            app(5, "5", false, &[("key-5", "secret-5")]),
        ];
        let tokens = vec![
            stored('a', 3, None, false),
            stored('e', 3, Some(NOW.unix_ms), false),
            stored('r', 3, None, true),
            stored('s', 3, Some(NOW.unix_ms + 1_000), false),
            stored('f', 4, None, false),
        ];
        Directory::new(1, apps, tokens)
    }

    /// Sends a request for app 3 through the real decoder.
    fn verify(target: &str, headers: &[&str], body: &str) -> Result<Caller, RequestRefusal> {
        verify_for("3", target, headers, body, NOW)
    }

    fn verify_for(
        app_id: &str,
        target: &str,
        headers: &[&str],
        body: &str,
        now: Moment,
    ) -> Result<Caller, RequestRefusal> {
        let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let bytes = format!("POST {target} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len());
        let limits =
            RequestLimits { head_bytes_max: 16_384, headers_max: 64, query_bytes_max: 8_192, body_bytes_max: 1 << 20 };
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(bytes.as_bytes(), &limits).expect("a sound request");
        let Progress::Request(request) = decoded.progress else { panic!("a whole request: {bytes}") };
        verify_request(&directory(), app_id, &request, Known::Whole, "", now, Accepted::Usual)
    }

    /// Independent signer that works as the SDKs do.
    fn signed(path: &str, key: &str, secret: &str, body: &str) -> String {
        let md5 = if body.is_empty() {
            String::new()
        } else {
            format!("&body_md5={}", hex::encode(<md5::Md5 as md5::Digest>::digest(body)))
        };
        let query = format!("auth_key={key}&auth_timestamp={}&auth_version=1.0{md5}", NOW.unix_s());
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(format!("POST\n{path}\n{query}").as_bytes());
        format!("{path}?{query}&auth_signature={}", hex::encode(mac.finalize().into_bytes()))
    }

    const PATH: &str = "/apps/3/events";

    fn credential(outcome: Result<Caller, RequestRefusal>) -> Credential {
        let caller = outcome.expect("accepted");
        assert_eq!(directory().app(caller.app).map(|app| &*app.id), Some("3"));
        caller.credential
    }

    fn sentence(outcome: Result<Caller, RequestRefusal>) -> String {
        match outcome {
            Err(RequestRefusal::Unauthorized(_, message)) => message,
            other => panic!("expected 401, got {other:?}"),
        }
    }

    /// R-AUTH-1, R-AUTH-2, R-AUTH-3, R-BASE-1: each of the three methods on both bases, every active key pair.
    #[test]
    fn three_ways_on_both_bases() {
        for path in [PATH, "/api/v1/apps/3/events"] {
            assert_eq!(
                credential(verify(&signed(path, "key-3", "secret-3", BODY), &[], BODY)),
                Credential::Signature(1)
            );
            assert_eq!(
                credential(verify(&signed(path, "key-old", "secret-old", ""), &[], "")),
                Credential::Signature(0)
            );
            let headers = ["X-Relay-Key: key-3", "x-relay-secret: secret-3"];
            assert_eq!(credential(verify(path, &headers, BODY)), Credential::KeyAndSecret(1));
            let bearer = format!("Authorization: Bearer {}", token('a'));
            let outcome = credential(verify(path, &[&bearer], BODY));
            assert_eq!(outcome, Credential::Token("tok_a".into(), Scopes::FULL.with(Scope::EventsPublish)));
        }
        let bearer = format!("authorization: bearer   {}", token('a'));
        assert!(matches!(credential(verify(PATH, &[&bearer], BODY)), Credential::Token(..)));
    }

    /// R-TOKEN-6: key pairs have full access, a token has its scopes.
    #[test]
    fn scopes_come_from_the_credential() {
        let bearer = format!("Authorization: Bearer {}", token('a'));
        let scopes = verify(PATH, &[&bearer], BODY).expect("accepted").scopes();
        assert!(scopes.allows(Scope::EventsPublish) && !scopes.allows(Scope::EventsBatch));
        let headers = ["X-Relay-Key: key-3", "X-Relay-Secret: secret-3"];
        assert!(verify(PATH, &headers, BODY).expect("accepted").scopes().is_full());
        assert!(verify(&signed(PATH, "key-3", "secret-3", BODY), &[], BODY).expect("accepted").scopes().is_full());
    }

    /// P-STAT-4, P-STAT-3, R-AUTH-5: an unknown app is 404 and a disabled one 403, before any credential is looked at.
    #[test]
    fn app_is_checked_before_credentials() {
        for headers in [vec![], vec!["X-Relay-Key: key-5", "X-Relay-Secret: secret-5"], vec!["Authorization: Bearer x"]]
        {
            let outcome = verify_for("17", "/apps/17/events", &headers, BODY, NOW);
            assert!(matches!(outcome, Err(RequestRefusal::UnknownApp(_))), "{outcome:?}");
            let outcome = verify_for("5", "/apps/5/events", &headers, BODY, NOW);
            assert!(matches!(outcome, Err(RequestRefusal::AppDisabled)), "{outcome:?}");
        }
    }

    /// R-AUTH-5, threat T3: a valid credential of another app is 401 in all three ways.
    #[test]
    fn credentials_of_another_app_are_refused() {
        sentence(verify(&signed(PATH, "key-4", "secret-4", BODY), &[], BODY));
        sentence(verify(PATH, &["X-Relay-Key: key-4", "X-Relay-Secret: secret-4"], BODY));
        let bearer = format!("Authorization: Bearer {}", token('f'));
        sentence(verify(PATH, &[&bearer], BODY));
        let outcome = verify_for("4", "/apps/4/events", &[&bearer], BODY, NOW);
        assert_eq!(directory().app(outcome.expect("its own app").app).map(|app| &*app.id), Some("4"));
    }

    /// R-TOKEN-3, threats T5 and T6: expired, revoked, foreign and unknown tokens get exactly the same answer; a token
    /// expires with the millisecond of its expiry.
    #[test]
    fn ended_and_unknown_tokens_read_the_same() {
        let texts: Vec<String> = ['e', 'r', 'f', 'x']
            .into_iter()
            .map(|letter| sentence(verify(PATH, &[&format!("Authorization: Bearer {}", token(letter))], BODY)))
            .collect();
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        let bearer = format!("Authorization: Bearer {}", token('s'));
        let later = |ms: u64| Moment { unix_ms: NOW.unix_ms + ms, ..NOW };
        assert!(verify_for("3", PATH, &[&bearer], BODY, later(999)).is_ok());
        assert_eq!(sentence(verify_for("3", PATH, &[&bearer], BODY, later(1_000))), texts[0]);
    }

    /// R-TOKEN-1, R-AUTH-4: a Bearer value that starts like a token but is malformed is 401 and never falls back to
    /// other credentials; one without `rly_` is ignored and another credential is needed.
    #[test]
    fn malformed_bearer_values_are_refused() {
        let good = token('a');
        for value in ["rly_", "rly_short", &format!("{good}x"), &format!("{good} {good}"), &format!("{good},")] {
            let headers =
                [&*format!("Authorization: Bearer {value}"), "X-Relay-Key: key-3", "X-Relay-Secret: secret-3"];
            let text = sentence(verify(PATH, &headers, BODY));
            assert!(text.contains("rly_ and 40 characters"), "{value}: {text}");
        }
        for value in ["", "x", "RLY_a", &good[4..]] {
            let bearer = format!("Authorization: Bearer {value}");
            let text = sentence(verify(PATH, &[&bearer], BODY));
            assert!(text.starts_with("No credential was given"), "{value}: {text}");
            let headers = [&*bearer, "X-Relay-Key: key-3", "X-Relay-Secret: secret-3"];
            assert_eq!(credential(verify(PATH, &headers, BODY)), Credential::KeyAndSecret(1), "{value}");
        }
        let twice = format!("Authorization: Bearer {good}");
        let text = sentence(verify(PATH, &[&twice, &twice], BODY));
        assert!(text.contains("exactly once"), "{text}");
    }

    /// R-AUTH-1, threat T5: wrong pairs, mixed pairs, one header alone and repeated headers are 401.
    #[test]
    fn key_and_secret_must_be_a_pair() {
        let pairs = [
            ("key-3", "secret-old"),
            ("key-old", "secret-3"),
            ("key-3", "secret-"),
            ("key-3", "secret-33"),
            ("KEY-3", "secret-3"),
            ("none", "secret-3"),
            ("", ""),
            ("key-3", ""),
        ];
        let texts: Vec<String> = pairs
            .into_iter()
            .map(|(key, secret)| {
                sentence(verify(PATH, &[&format!("X-Relay-Key: {key}"), &format!("X-Relay-Secret: {secret}")], BODY))
            })
            .collect();
        assert!(
            texts.iter().all(|text| *text == texts[0]),
            "an unknown key and a wrong secret read the same: {texts:?}"
        );
        assert!(sentence(verify(PATH, &["X-Relay-Key: key-3"], BODY)).contains("requires X-Relay-Secret"));
        assert!(sentence(verify(PATH, &["X-Relay-Secret: secret-3"], BODY)).contains("requires X-Relay-Key"));
        let repeated = ["X-Relay-Key: key-3", "X-Relay-Key: key-3", "X-Relay-Secret: secret-3"];
        assert!(sentence(verify(PATH, &repeated, BODY)).contains("exactly once"));
    }

    /// R-AUTH-4: the first one present of signature, token and headers decides; a valid one after an invalid one does
    /// not help, and an invalid one after a valid one does no harm. An `Authorization` of another scheme is ignored.
    #[test]
    fn first_credential_present_decides() {
        let good_signature = signed(PATH, "key-3", "secret-3", BODY);
        let bad_signature = signed(PATH, "key-3", "wrong", BODY);
        let good_bearer = format!("Authorization: Bearer {}", token('a'));
        let bad_bearer = format!("Authorization: Bearer {}", token('x'));
        let good_pair = ["X-Relay-Key: key-3", "X-Relay-Secret: secret-3"];
        let bad_pair = ["X-Relay-Key: key-3", "X-Relay-Secret: wrong"];
        let all = |bearer: &str, pair: [&str; 2]| [bearer.to_owned(), pair[0].to_owned(), pair[1].to_owned()];
        let send =
            |target: &str, headers: [String; 3]| verify(target, &headers.each_ref().map(|header| &**header), BODY);
        assert!(matches!(credential(send(&good_signature, all(&bad_bearer, bad_pair))), Credential::Signature(1)));
        sentence(send(&bad_signature, all(&good_bearer, good_pair)));
        sentence(send(&format!("{PATH}?auth_key=key-3"), all(&good_bearer, good_pair)));
        assert!(matches!(credential(send(PATH, all(&good_bearer, bad_pair))), Credential::Token(..)));
        sentence(send(PATH, all(&bad_bearer, good_pair)));
        assert!(matches!(
            credential(send(PATH, all("Authorization: Basic eDp5", good_pair))),
            Credential::KeyAndSecret(1)
        ));
        assert!(matches!(
            credential(send(&format!("{PATH}?x=1"), all("Accept: */*", good_pair))),
            Credential::KeyAndSecret(1)
        ));
    }

    /// P-STAT-2: without any credential the answer names the three methods.
    #[test]
    fn missing_credentials_are_explained() {
        let text = sentence(verify(PATH, &[], BODY));
        for way in ["auth_signature", "Authorization: Bearer rly_", "X-Relay-Key", "X-Relay-Secret"] {
            assert!(text.contains(way), "{text}");
        }
    }

    /// R-AUTH-7, threat T27: no sentence quotes a secret, a token or a signature.
    #[test]
    fn refusals_quote_nothing_secret() {
        let bad_signature = signed(PATH, "key-3", "wrong-secret", BODY);
        let (_, signature) = bad_signature.rsplit_once('=').expect("it ends with the signature");
        let bearer = format!("Authorization: Bearer {}", token('x'));
        let texts = [
            sentence(verify(&bad_signature, &[], BODY)),
            sentence(verify(PATH, &[&bearer], BODY)),
            sentence(verify(PATH, &["X-Relay-Key: key-3", "X-Relay-Secret: wrong-secret"], BODY)),
        ];
        for text in texts {
            for secret in [signature, &token('x'), "wrong-secret", "secret-3"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}
