//! `GET /arrival`: how this very request arrived, so that a holder of the app's secret can compare it with what was sent
//! and find what a proxy in between changed (R-DIAG-1).
//!
//! Invariant: the answer describes the caller's own request and nothing else. The address of a proxy is not part of it,
//! only its kind.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::app::outgoing_url::address::is_public;
use crate::wire::forwarded::forwarded_hops;
use crate::wire::http::{Request, Version};

/// The properties of a request that are not in its text.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The other end of the connection, or the client that its PROXY header names.
    pub peer: IpAddr,
    /// It is one of `trusted_proxies`.
    pub peer_is_trusted: bool,
    /// The address that limits are keyed by, if a trusted proxy named it and it is not a trusted proxy itself.
    pub client: Option<IpAddr>,
    /// The address that limits are keyed by is that of a trusted proxy.
    pub client_is_trusted: bool,
    /// It counts as TLS.
    pub secure: bool,
}

/// The answer's body.
pub fn encode_arrival(request: &Request<'_>, arrival: &Arrival) -> Vec<u8> {
    let value = |name: &str| -> Value {
        request.headers.first(name).map_or(Value::Null, |value| String::from_utf8_lossy(value).into())
    };
    let names: Vec<String> = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    json!({
        "version": if request.version == Version::Http10 { "1.0" } else { "1.1" },
        "path": request.path,
        "host": value("host"),
        "secure": arrival.secure,
        "forwarded_proto": value("x-forwarded-proto"),
        "forwarded_hops": forwarded_hops(&request.headers).count(),
        "peer": kind(arrival.peer),
        "peer_is_trusted": arrival.peer_is_trusted,
        "client": arrival.client.map(|client| client.to_string()),
        "client_is_trusted": arrival.client_is_trusted,
        "headers": names,
    })
    .to_string()
    .into_bytes()
}

fn kind(address: IpAddr) -> &'static str {
    match address.to_canonical() {
        address if address.is_loopback() => "loopback",
        address if is_public(address) => "public",
        _ => "private",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{Progress, RequestDecoder, RequestLimits};

    fn answer(head: &str, arrival: &Arrival) -> Value {
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(head.as_bytes(), &RequestLimits::default()).expect("a request");
        let Progress::Request(request) = decoded.progress else { panic!("not whole: {head}") };
        serde_json::from_slice(&encode_arrival(&request, arrival)).expect("JSON")
    }

    /// R-DIAG-1: the answer has the path as received, values of Host and X-Forwarded-Proto alone, other headers by name,
    /// and no address but the client's.
    #[test]
    fn answers_describe_the_request_alone() {
        let arrival = Arrival {
            peer: "10.1.2.3".parse().expect("an address"),
            peer_is_trusted: true,
            client: Some("203.0.113.9".parse().expect("an address")),
            client_is_trusted: false,
            secure: true,
        };
        let head = "GET /apps/3/%61rrival?a=b HTTP/1.0\r\nHost: ws.example.com\r\nCookie: secret\r\n\
                    X-Forwarded-For: 203.0.113.9, 10.1.2.4\r\nX-Forwarded-Proto: https\r\n\r\n";
        let found = answer(head, &arrival);
        let expected = json!({
            "version": "1.0", "path": "/apps/3/%61rrival", "host": "ws.example.com", "secure": true,
            "forwarded_proto": "https", "forwarded_hops": 2, "peer": "private", "peer_is_trusted": true,
            "client": "203.0.113.9", "client_is_trusted": false, "headers": ["host", "cookie", "x-forwarded-for", "x-forwarded-proto"],
        });
        assert_eq!(found, expected);
        let plain = Arrival { client: None, peer_is_trusted: false, secure: false, ..arrival };
        let found = answer("GET /apps/3/arrival HTTP/1.0\r\n\r\n", &plain);
        assert!(found["host"].is_null() && found["client"].is_null() && found["forwarded_hops"] == 0, "{found}");
        for (address, expected) in
            [("127.0.0.1", "loopback"), ("::ffff:127.0.0.1", "loopback"), ("8.8.8.8", "public"), ("fd00::1", "private")]
        {
            assert_eq!(kind(address.parse().expect("an address")), expected, "{address}");
        }
    }
}
