//! A URL that Relay sends requests to, and the addresses that it may have: webhook endpoints and authorizers (threats
//! T19, T38).

use std::net::IpAddr;

use ipnet::IpNet;
use ureq::http::Uri;

use crate::limits;
use address::is_public;

pub mod address;

/// The addresses that a URL may have (threat T19).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// Public addresses over https, and the addresses that the operator allows for all outgoing requests.
    #[default]
    Public,
    /// Any address, also over http.
    Anywhere,
}

/// http or https with a host; no user, no fragment, no character that is invalid in a log line or a header (P-HOOK-9).
/// `what` names the URL in messages, such as `webhook`.
///
/// The addresses of a name are checked at each request; only errors visible in the URL itself are refused here, so that
/// they are reported when the URL is entered.
///
/// # Errors
/// The sentence for the operator, which does not repeat the URL: the invalid part may be a password.
pub fn check_outgoing_url(what: &str, url: &str, reach: Reach, allowed: &[IpNet]) -> Result<(), String> {
    let max = limits::OUTGOING_URL_BYTES_MAX;
    if url.len() > max {
        return Err(format!("the {what} URL is longer than {max} bytes"));
    }
    let malformed = || {
        format!(
            "a {what} URL must have the form https://host[:port][/path], without user or fragment, in visible ASCII"
        )
    };
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().ok_or_else(malformed)?);
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#');
    let has_bad_authority =
        authority.host().is_empty() || authority.as_str().contains('@') || !has_good_port(authority.as_str());
    if !matches!(scheme, "http" | "https") || !is_plain || has_bad_authority {
        return Err(malformed());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let literal = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let is_allowed = |address: IpAddr| allowed.iter().any(|network| network.contains(&address));
    match literal {
        _ if reach == Reach::Anywhere => Ok(()),
        Some(address) if is_allowed(address) => Ok(()),
        Some(address) if !is_public(address) => {
            Err(format!("{address} is not a public address: permit it with --allow-private or webhook_allow"))
        }
        Some(_) | None if scheme == "http" && (literal.is_some() || allowed.is_empty()) => Err(format!(
            "a {what} URL must use https; permit http with --allow-private, or for addresses in webhook_allow"
        )),
        Some(_) | None => Ok(()),
    }
}

/// True if there is no port or the port is a number.
fn has_good_port(authority: &str) -> bool {
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after_host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, reach: Reach, allowed: &[IpNet]) -> Result<(), String> {
        check_outgoing_url("webhook", url, reach, allowed)
    }

    /// P-HOOK-9, threats T19, T24, T38: valid URLs, and those that are refused by their text alone.
    #[test]
    fn urls() {
        for url in
            ["https://example.com", "https://example.com:8443/a?b=c", "https://[2606:4700::1]/x", "https://1.1.1.1/"]
        {
            assert!(check(url, Reach::Public, &[]).is_ok(), "{url}");
        }
        for url in [
            "",
            "/path",
            "example.com",
            "ftp://example.com/",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://u:p@example.com/",
            "https://example.com/#part",
            "https://example.com/a b",
            "https://example.com/\r\nX: y",
            "https://exämple.com/",
            "https://example.com:/",
            "https://example.com:0/",
            "https://example.com:99999/",
            "file:///etc/passwd",
            "HTTP//x",
            "javascript:alert(1)",
        ] {
            let error = check(url, Reach::Anywhere, &[]).expect_err(url);
            assert!(error.contains("the form https://") && !error.contains("u:p"), "{error}");
        }
        for url in [
            "https://127.0.0.1/",
            "http://10.1.2.3:8080/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/",
        ] {
            let error = check(url, Reach::Public, &[]).expect_err(url);
            assert!(error.contains("--allow-private"), "{error}");
            assert!(check(url, Reach::Anywhere, &[]).is_ok(), "{url}");
        }
        let allowed: [IpNet; 1] = ["10.0.0.0/8".parse().expect("a network")];
        for (url, accepted) in [
            ("http://10.1.2.3:8080/", true),
            ("https://10.1.2.3/", true),
            ("http://[::ffff:10.1.2.3]/", true),
            ("http://name.example/", true),
            ("http://1.1.1.1/", false),
            ("https://192.168.0.1/", false),
        ] {
            assert_eq!(check(url, Reach::Public, &allowed).is_ok(), accepted, "{url}");
        }
        assert!(check("http://name.example/", Reach::Public, &[]).is_err(), "http needs leave");
        let long = format!("https://example.com/{}", "x".repeat(limits::OUTGOING_URL_BYTES_MAX - 20));
        assert_eq!(long.len(), limits::OUTGOING_URL_BYTES_MAX);
        assert!(check(&long, Reach::Public, &[]).is_ok());
        assert!(check(&(long + "x"), Reach::Public, &[]).is_err());
    }
}
