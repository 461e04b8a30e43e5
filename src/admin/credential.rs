//! The credential of a request (R-ADMIN-11). Its form decides of which kind it is before anything is looked up, and a
//! refused credential is never tried as another kind (threat T42).

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, Uri};

use super::fault::Fault;
use super::guard::only;
use crate::auth::token::is_admin_token;

/// A credential as presented; sessions of the dashboard will be another one.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Presented<'h> {
    /// An admin token, well formed and not yet verified.
    AdminToken(&'h str),
    /// None, or a text that does not have the form of an admin credential.
    Nothing,
}

impl<'h> Presented<'h> {
    /// Reads the credential of a request.
    ///
    /// # Errors
    /// 400 when the request has an admin token and also a credential of an app.
    pub(super) fn read(uri: &Uri, headers: &'h HeaderMap) -> Result<Self, Fault> {
        let Some(token) = only(headers, &AUTHORIZATION).ok().flatten().and_then(bearer).filter(|it| is_admin_token(it))
        else {
            return Ok(Self::Nothing);
        };
        if has_app_credential(uri, headers) {
            return Err(Fault::bad_request(
                "The request has an admin token and a credential of an app: send one of them.",
            ));
        }
        Ok(Self::AdminToken(token))
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Key and secret in headers, or the parameters of a signature.
fn has_app_credential(uri: &Uri, headers: &HeaderMap) -> bool {
    const KEY: HeaderName = HeaderName::from_static("x-relay-key");
    const SECRET: HeaderName = HeaderName::from_static("x-relay-secret");
    let parameters = uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    let is_signed = parameters.into_iter().any(|name| matches!(name, "auth_key" | "auth_signature"));
    is_signed || headers.contains_key(KEY) || headers.contains_key(SECRET)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    /// T42, R-ADMIN-11: the complete form decides: a token of an app, a cut or lengthened one, another scheme and two
    /// headers present nothing.
    #[test]
    fn only_a_whole_admin_token_is_presented() {
        let (plain, admin) = (Uri::from_static("/"), format!("rly_adm_{}", "a".repeat(40)));
        for (scheme, token) in [("Bearer", admin.as_str()), ("bearer", &format!("  {admin} "))] {
            let headers = headers(&[("authorization", &format!("{scheme} {token}"))]);
            assert_eq!(Presented::read(&plain, &headers).expect("read"), Presented::AdminToken(&admin));
        }
        for value in [
            format!("Bearer rly_{}", "a".repeat(40)),
            format!("Bearer rly_adm_{}", "a".repeat(39)),
            format!("Bearer rly_adm_{}", "a".repeat(41)),
            format!("Basic {admin}"),
            format!("Bearer{admin}"),
            admin.clone(),
            String::new(),
        ] {
            let headers = headers(&[("authorization", &value)]);
            assert_eq!(Presented::read(&plain, &headers).expect("read"), Presented::Nothing, "{value}");
        }
        let value = format!("Bearer {admin}");
        let doubled = headers(&[("authorization", &value), ("authorization", &value)]);
        assert_eq!(Presented::read(&plain, &doubled).expect("read"), Presented::Nothing);
        for (uri, more) in
            [("/", "x-relay-key"), ("/", "x-relay-secret"), ("/?a=1&auth_key=k", "x"), ("/?auth_signature", "x")]
        {
            let headers = headers(&[("authorization", &value), (more, "v")]);
            let fault = Presented::read(&uri.parse().expect("a target"), &headers).expect_err("two credentials");
            assert_eq!(fault.status(), 400, "{uri} {more}");
        }
    }
}
