//! Which pages may call an auth endpoint, and read its answer (R-AUTHEP-5, threats T40, T41).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::refusal::Refusal;
use super::route::Shared;
use crate::app::AppSettings;
use crate::app::origin::origin_allowed;
use crate::limits::CORS_HEADERS_BYTES_MAX;

/// Header lines of every answer of an auth endpoint: it is for one caller and must not be read as another type.
pub const PRIVATE_ANSWER: &str = "Cache-Control: no-store\r\nVary: Origin\r\nX-Content-Type-Options: nosniff\r\n";

/// Without it a page of another origin cannot read how long to wait (R-AUTHEP-8, R-AUTHEP-11).
const READABLE: &str = "Access-Control-Expose-Headers: Retry-After\r\n";

/// Further header lines of a stream or poll: its URL may have credentials (R-SSE-6, threat T61).
pub const STREAM_ANSWER: &str = "Referrer-Policy: no-referrer\r\n";

/// Whether the browser may send the cookies of the page's user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cookies {
    /// The app has an authorizer, which reads them.
    Used,
    /// Nothing reads them.
    Unused,
}

/// Header lines of an answer to this origin.
///
/// # Errors
/// 403 for an origin that the app does not list; its answer has [`PRIVATE_ANSWER`] alone.
pub fn answer_headers(settings: &AppSettings, origin: Option<&[u8]>, cookies: Cookies) -> Result<String, Refusal> {
    let mut lines = PRIVATE_ANSWER.to_owned();
    let Some(origin) = origin else { return Ok(lines) };
    let allowed = &settings.allowed_origins;
    if !origin_allowed(allowed, origin) {
        return Err(Refusal::forbidden("Pages of this origin may not use this app (allowed_origins)."));
    }
    if allowed.is_empty() || allowed.iter().any(|entry| &**entry == "*") {
        lines.push_str("Access-Control-Allow-Origin: *\r\n");
        lines.push_str(READABLE);
        return Ok(lines);
    }
    // It is repeated in a header: text that is no origin was not allowed above, but may contain any visible character.
    let Some(origin) = std::str::from_utf8(origin).ok().filter(|origin| origin.bytes().all(|b| b.is_ascii_graphic()))
    else {
        return Err(Refusal::bad_request("The header Origin must be visible ASCII."));
    };
    write!(lines, "Access-Control-Allow-Origin: {origin}\r\n{READABLE}").expect("a string takes text");
    if cookies == Cookies::Used && is_trustworthy(origin, settings.insecure_origins) {
        lines.push_str("Access-Control-Allow-Credentials: true\r\n");
    }
    Ok(lines)
}

/// Header lines that answer a preflight: the requested headers are allowed as far as they are header names.
pub fn preflight_headers(shared: Shared, requested: Option<&[u8]>) -> String {
    let is_list = |text: &&str| {
        text.len() <= CORS_HEADERS_BYTES_MAX
            && text.split(',').all(|name| {
                let name = name.trim_matches(' ');
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            })
    };
    let requested = requested.and_then(|text| std::str::from_utf8(text).ok()).filter(is_list);
    let (method, usual) = match shared {
        Shared::Auth(_) => ("POST", "Authorization, Content-Type, X-CSRF-Token"),
        Shared::Stream => ("GET", "Authorization, Last-Event-ID"),
    };
    let headers = requested.unwrap_or(usual);
    format!(
        "Access-Control-Allow-Methods: {method}\r\nAccess-Control-Allow-Headers: {headers}\r\nAccess-Control-Max-Age: 600\r\n"
    )
}

/// An attacker in the network can change a page that is loaded over http, so such a page gets no credentials, unless it
/// comes from this machine or the operator accepts it.
fn is_trustworthy(origin: &str, insecure_too: bool) -> bool {
    match origin.split_once("://") {
        Some(("https", _)) => true,
        Some(("http", authority)) => insecure_too || is_loopback(authority),
        Some(_) | None => false,
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    let is_v6 = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || is_v6().is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::auth::AuthKind;

    fn settings(allowed: &[&str]) -> AppSettings {
        AppSettings { allowed_origins: allowed.iter().map(|host| (*host).into()).collect(), ..AppSettings::default() }
    }

    fn has_credentials(settings: &AppSettings, origin: &str) -> bool {
        let lines = answer_headers(settings, Some(origin.as_bytes()), Cookies::Used);
        lines.is_ok_and(|lines| lines.contains("Access-Control-Allow-Credentials"))
    }

    /// R-AUTHEP-5, threat T40: credentials only for a listed host over https or on loopback, and the exact origin with
    /// them.
    #[test]
    fn credentials_for_listed_secure_origins_only() {
        let listed = settings(&["a.test", "*.b.test", "localhost", "*.localhost", "127.0.0.1", "[::1]"]);
        for origin in [
            "https://a.test",
            "https://a.test:8443",
            "https://x.b.test",
            "http://localhost:3000",
            "http://app.localhost:3000",
            "http://127.0.0.1:8000",
            "http://[::1]:8000",
        ] {
            assert!(has_credentials(&listed, origin), "{origin}");
            let lines = answer_headers(&listed, Some(origin.as_bytes()), Cookies::Used).expect("allowed");
            assert!(lines.contains(&format!("Access-Control-Allow-Origin: {origin}\r\n")), "{lines}");
            let unused = answer_headers(&listed, Some(origin.as_bytes()), Cookies::Unused).expect("allowed");
            assert!(!unused.contains("Credentials"), "{unused}");
        }
        for origin in [
            "null",
            "file://",
            "http://a.test",
            "HTTPS://A.TEST",
            "https://a.test.evil",
            "https://eviltest",
            "https://evil-a.test",
            "https://a.test@evil.test",
            "https://user@a.test",
            "https://a.test:443@evil.test",
            "http://x.b.test",
            "https://b.test",
            "https://xb.test",
            "ftp://a.test",
            "capacitor://a.test",
            "a.test",
            "//a.test",
            "https:a.test",
            "http://localhost.evil.test",
            "http://127.0.0.1.evil.test",
            "http://127.0.0.1:80:80",
            "http://notlocalhost",
            "https://[::1",
            "",
        ] {
            assert!(!has_credentials(&listed, origin), "{origin}");
        }
        let insecure = AppSettings { insecure_origins: true, ..settings(&["a.test"]) };
        assert!(has_credentials(&insecure, "http://a.test") && !has_credentials(&insecure, "http://b.test"));
    }

    /// R-AUTHEP-5, threat T40: a list that allows everything never gives credentials; an origin that is not listed gets
    /// no header at all.
    #[test]
    fn open_and_closed_lists() {
        for open in [settings(&[]), settings(&["*"]), settings(&["a.test", "*"])] {
            let lines = answer_headers(&open, Some(b"https://a.test"), Cookies::Used).expect("allowed");
            assert!(lines.contains("Access-Control-Allow-Origin: *\r\n") && !lines.contains("Credentials"), "{lines}");
        }
        let refusal = answer_headers(&settings(&["a.test"]), Some(b"https://b.test"), Cookies::Used);
        assert_eq!(refusal.expect_err("not listed").status, 403);
        assert_eq!(answer_headers(&settings(&["a.test"]), None, Cookies::Used).as_deref(), Ok(PRIVATE_ANSWER));
    }

    /// R-AUTHEP-5: a preflight repeats header names, and nothing else.
    #[test]
    fn preflights_repeat_header_names() {
        let shared = Shared::Auth(AuthKind::Channel);
        let allowed = |requested: Option<&str>| preflight_headers(shared, requested.map(str::as_bytes));
        assert!(allowed(Some("x-csrf-token, content-type")).contains("Headers: x-csrf-token, content-type\r\n"));
        let long = "x-".repeat(CORS_HEADERS_BYTES_MAX);
        for other in [None, Some(""), Some("a:b"), Some("a\r\nSet-Cookie: x"), Some("a,,b"), Some(&*long)] {
            assert!(allowed(other).contains("Headers: Authorization, Content-Type, X-CSRF-Token\r\n"), "{other:?}");
        }
    }
}
