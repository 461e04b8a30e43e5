//! Checks of a request before its credential and its path are looked at: which server it is for, and which page sent it
//! (R-ADMIN-12). A page that makes its own name resolve to 127.0.0.1 reaches the listener, but not with a `Host` of this
//! machine (threat T45); a page on another origin cannot send a change without its `Origin` (threat T47).

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Uri};

use super::fault::Fault;

/// The scheme by which clients reach the listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scheme {
    /// No TLS.
    Http,
    /// TLS, which a trusted proxy ends.
    Https,
}

impl Scheme {
    fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Names of this machine, accepted always.
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Returns `Host` if it names this server: one header, a loopback name or one of `hosts`, and any port, since a
/// container's port may be mapped to another. 421 otherwise.
pub(super) fn check_host<'h>(uri: &Uri, headers: &'h HeaderMap, hosts: &[String]) -> Result<&'h str, Fault> {
    let host = only(headers, &HOST).map_err(|()| Fault::wrong_host("The header Host must be present once."))?;
    let host = host.ok_or_else(|| Fault::wrong_host("The header Host is missing."))?;
    if uri.authority().is_some() || uri.scheme().is_some() {
        return Err(Fault::wrong_host("The target must be a path, not an absolute URL."));
    }
    let name = host_name(host).ok_or_else(|| Fault::wrong_host("The header Host is malformed."))?;
    let known = LOOPBACK_HOSTS.iter().copied().chain(hosts.iter().map(String::as_str));
    if known.into_iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(host);
    }
    Err(Fault::wrong_host(
        "The header Host names another server: use 127.0.0.1 or localhost, or add the name to admin_hosts.",
    ))
}

/// Refuses a request from a page of another origin. Programs send no `Origin`.
pub(super) fn check_origin(headers: &HeaderMap, scheme: Scheme, host: &str) -> Result<(), Fault> {
    let refuse = || Fault::forbidden("The header Origin names another page than one of this server.");
    let Some(origin) = only(headers, &ORIGIN).map_err(|()| refuse())? else {
        return Ok(());
    };
    let own = origin.split_once("://").is_some_and(|(origin_scheme, rest)| {
        origin_scheme.eq_ignore_ascii_case(scheme.text()) && rest.eq_ignore_ascii_case(host)
    });
    if own { Ok(()) } else { Err(refuse()) }
}

/// Refuses a body that is not declared to be JSON: a form, or a script without permission of the server, can send
/// other types alone. A change without a body and without a type has nothing to declare.
pub(super) fn check_content_type(headers: &HeaderMap, body_is_empty: bool) -> Result<(), Fault> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::unsupported_type("The body has a Content-Encoding. Send it uncompressed (identity)."));
    }
    let refuse = || Fault::unsupported_type("A body needs the header Content-Type: application/json.");
    let Some(value) = only(headers, &CONTENT_TYPE).map_err(|()| refuse())? else {
        return if body_is_empty { Ok(()) } else { Err(refuse()) };
    };
    let kind = value.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(refuse()) }
}

/// The only value of a header as visible ASCII.
pub(super) fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The name of `Host` without its port, with the brackets of an IPv6 address.
fn host_name(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(end);
    let good_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    };
    (good_port && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn host(value: &str, hosts: &[&str]) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        check_host(&Uri::from_static("/x"), &headers(&[(HOST, value)]), &hosts).is_ok()
    }

    /// T45, R-ADMIN-12: names of this machine with any port, and the listed ones; everything that only resembles them
    /// is refused.
    #[test]
    fn hosts() {
        for good in ["127.0.0.1", "127.0.0.1:6002", "localhost", "LOCALHOST:1", "[::1]", "[::1]:65535"] {
            assert!(host(good, &[]), "{good}");
        }
        for bad in [
            "",
            ":6002",
            "evil.test",
            "evil.test:6002",
            "localhost.evil.test",
            "127.0.0.1.evil.test",
            "localhost.",
            "127.0.0.2",
            "127.1",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "localhost:1:2",
            "user@localhost",
            "localhost/",
            " localhost",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(!host(bad, &[]), "{bad}");
        }
        assert!(host("Relay.example:443", &["relay.example"]) && !host("x.relay.example", &["relay.example"]));
        let check = |target: &str, lines: &[(HeaderName, &str)]| {
            check_host(&target.parse().expect("a target"), &headers(lines), &[]).is_ok()
        };
        assert!(check("/x?y", &[(HOST, "localhost")]));
        assert!(!check("/x", &[]), "missing");
        assert!(!check("/x", &[(HOST, "localhost"), (HOST, "localhost")]), "doubled");
        assert!(!check("http://localhost/x", &[(HOST, "localhost")]), "absolute form");
    }

    /// T47, R-ADMIN-12: only the page of this server itself, by scheme, name and port.
    #[test]
    fn origins() {
        let check =
            |scheme, origin: &str| check_origin(&headers(&[(ORIGIN, origin)]), scheme, "localhost:6002").is_ok();
        assert!(check_origin(&HeaderMap::new(), Scheme::Http, "localhost:6002").is_ok());
        assert!(check(Scheme::Http, "http://localhost:6002") && check(Scheme::Https, "https://localhost:6002"));
        for bad in [
            "null",
            "",
            "http://localhost",
            "http://localhost:6001",
            "https://localhost:6002",
            "http://127.0.0.1:6002",
            "http://localhost:6002/",
            "http://localhost:6002.evil.test",
            "http://user@localhost:6002",
            "localhost:6002",
        ] {
            assert!(!check(Scheme::Http, bad), "{bad}");
        }
    }

    /// T47, R-ADMIN-13: JSON alone; what a form can send is refused even without a body.
    #[test]
    fn content_types() {
        let check = |kind: &str, empty| check_content_type(&headers(&[(CONTENT_TYPE, kind)]), empty).is_ok();
        for good in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert!(check(good, false) && check(good, true), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""] {
            assert!(!check(bad, false) && !check(bad, true), "{bad}");
        }
        assert!(check_content_type(&HeaderMap::new(), true).is_ok());
        assert!(check_content_type(&HeaderMap::new(), false).is_err());
    }
}
