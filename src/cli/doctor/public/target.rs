//! A URL to be examined, parsed once: where to connect, and how clients write its host.

use std::fmt;

use ureq::http::Uri;

/// An origin and the path in front of its routes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// https and wss.
    pub(super) tls: bool,
    /// Name or address, without the brackets of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
    /// What precedes a route: empty, or `/prefix` without a slash at its end.
    pub(super) prefix: String,
}

impl Target {
    /// Parses `--public`: a scheme, a host, maybe a port and a prefix.
    ///
    /// # Errors
    /// A phrase that names the expectation.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (target, query) = Self::parse_with_query(text)?;
        if query.is_some() {
            return Err("must end with the path: no query".to_owned());
        }
        Ok(Self { prefix: target.prefix.trim_end_matches('/').to_owned(), ..target })
    }

    /// Parses the URL of an endpoint; returns the part after its `?` separately. The path stays as written.
    ///
    /// # Errors
    /// A phrase that names the expectation.
    pub(super) fn parse_with_query(text: &str) -> Result<(Self, Option<String>), String> {
        let expected = "must be a URL such as https://ws.example.com";
        let uri: Uri = text.parse().map_err(|error| format!("{expected} ({error})"))?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            Some(scheme) => return Err(format!("must begin with https://, http://, wss:// or ws://, not {scheme}://")),
            None => return Err(expected.to_owned()),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("must not contain a user or a password".to_owned());
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(expected.to_owned());
        }
        // A port beyond 65535 is left in the text and nowhere else.
        let has_port = authority.rsplit(']').next().unwrap_or_default().contains(':');
        if has_port && uri.port_u16().is_none() {
            return Err(format!("{expected}, with a port from 1 to 65535 if there is one"));
        }
        let target = Self {
            tls,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or_else(|| default_port(tls)),
            prefix: if uri.path() == "/" { String::new() } else { uri.path().to_owned() },
        };
        Ok((target, uri.query().map(str::to_owned)))
    }

    /// `Host` as browsers write it: without the default port.
    pub(super) fn host_header(&self) -> String {
        if self.has_default_port() { self.bracketed() } else { self.host_with_port() }
    }

    /// `Host` as some mobile SDKs write it: with the port in every case.
    pub(super) fn host_with_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    pub(super) fn has_default_port(&self) -> bool {
        self.port == default_port(self.tls)
    }

    /// Scheme, host and port, as browsers write them in `Origin`.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.host_header())
    }

    /// The path of a route behind the prefix.
    pub(super) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.prefix)
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-DIAG-2: scheme, port, prefix and IPv6 brackets of every form; `Host` with and without the default port.
    #[test]
    fn urls_of_every_form() {
        for (url, shown, with_port, prefix) in [
            ("https://ws.example.com", "https://ws.example.com", "ws.example.com:443", ""),
            ("wss://ws.example.com:443/", "https://ws.example.com", "ws.example.com:443", ""),
            ("ws://ws.example.com:6001", "http://ws.example.com:6001", "ws.example.com:6001", ""),
            ("http://[::1]/relay/", "http://[::1]/relay", "[::1]:80", "/relay"),
            ("https://10.0.0.1:8443/a/b", "https://10.0.0.1:8443/a/b", "10.0.0.1:8443", "/a/b"),
        ] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(
                (target.to_string(), target.host_with_port()),
                (shown.to_owned(), with_port.to_owned()),
                "{url}"
            );
            assert_eq!(target.path("/up"), format!("{prefix}/up"), "{url}");
        }
    }

    /// R-DIAG-2: the error names the expectation.
    #[test]
    fn bad_urls_are_refused() {
        for (url, part) in [
            ("", "https://ws.example.com"),
            ("ws.example.com", "https://ws.example.com"),
            ("/path", "https://ws.example.com"),
            ("ftp://ws.example.com", "not ftp://"),
            ("https://user:pass@ws.example.com", "password"),
            ("https://ws.example.com?key=1", "query"),
            ("https://ws.example.com:99999", "https://ws.example.com"),
        ] {
            let error = Target::parse(url).expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    /// An endpoint's path and query stay as written.
    #[test]
    fn endpoints_keep_path_and_query() {
        let (target, query) = Target::parse_with_query("https://app.test/broadcasting/auth/?a=1").expect("a URL");
        assert_eq!((target.prefix.as_str(), query.as_deref()), ("/broadcasting/auth/", Some("a=1")));
    }
}
