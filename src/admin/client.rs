//! Who sent a request, as far as the network shows it: the address of the client and the scheme that it used. Headers
//! of proxies count only if they come from a proxy of `trusted_proxies` (threat T26).

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::fault::Fault;
use super::guard::Scheme;
use crate::wire::forwarded;
use crate::wire::http::Headers;

/// Whether clients come through a proxy.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// Proxies whose headers count.
    pub trusted: Vec<IpNet>,
    /// Nobody else is served (`admin_behind_proxy`).
    pub only: bool,
}

/// A client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Client {
    /// Its address; `None` if its proxy hides it.
    pub(super) address: Option<IpAddr>,
    /// The scheme that it used.
    pub(super) scheme: Scheme,
}

impl Client {
    /// The client of a request from this peer.
    ///
    /// # Errors
    /// 403 for a peer that is no proxy where only proxies are served (threat T46).
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> Result<Self, Fault> {
        let peer = peer.to_canonical();
        if !proxies.trusted.iter().any(|network| network.contains(&peer)) {
            if proxies.only {
                return Err(Fault::forbidden(
                    "Only the proxies of trusted_proxies are served here (admin_behind_proxy).",
                ));
            }
            return Ok(Self { address: Some(peer), scheme: Scheme::Http });
        }
        let lines = forwarded_lines(headers);
        let address = forwarded::client_address(peer, &Headers::of_lines(&lines), &proxies.trusted).ok();
        // The proxy's own word is the last one.
        let proto = headers.get_all("x-forwarded-proto").iter().next_back().and_then(|value| value.to_str().ok());
        let proto = proto.and_then(|value| value.rsplit(',').next()).unwrap_or_default().trim();
        let scheme = if proto.eq_ignore_ascii_case("https") { Scheme::Https } else { Scheme::Http };
        Ok(Self { address, scheme })
    }
}

/// The headers of proxies as the public port reads them.
fn forwarded_lines(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for name in ["x-forwarded-for", "forwarded"] {
        for value in headers.get_all(name) {
            lines.extend_from_slice(name.as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn client(peer: &str, lines: &[(&str, &str)], only: bool) -> Result<Client, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().expect("a network")], only };
        Client::of(peer.parse().expect("an address"), &headers, &proxies).map_err(|fault| fault.status())
    }

    /// T26, T46: headers of strangers count for nothing; a trusted proxy names the client and the scheme, in either
    /// form; behind `admin_behind_proxy` strangers are refused.
    #[test]
    fn only_trusted_proxies_are_believed() {
        let forged = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")];
        let plain = Client { address: "192.0.2.1".parse().ok(), scheme: Scheme::Http };
        assert_eq!(client("192.0.2.1", &forged, false), Ok(plain));
        assert_eq!(client("::ffff:192.0.2.1", &forged, false), Ok(plain));
        assert_eq!(client("192.0.2.1", &forged, true), Err(403));
        let behind = Client { address: "1.1.1.1".parse().ok(), scheme: Scheme::Https };
        assert_eq!(client("10.1.2.3", &forged, true), Ok(behind));
        let lines = [("forwarded", "for=1.1.1.1;proto=https, for=10.9.9.9"), ("x-forwarded-proto", "http, https")];
        assert_eq!(client("10.1.2.3", &lines, true), Ok(behind));
        let own = Client { address: "10.1.2.3".parse().ok(), scheme: Scheme::Http };
        assert_eq!(client("10.1.2.3", &[], true), Ok(own));
        let hidden = client("10.1.2.3", &[("x-forwarded-for", "unknown"), ("x-forwarded-proto", "https, http")], true);
        assert_eq!(hidden, Ok(Client { address: None, scheme: Scheme::Http }));
    }
}
