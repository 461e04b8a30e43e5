//! The address of a client as written by the proxies in front of the server: `X-Forwarded-For` in every form that is in
//! use, and `Forwarded` (RFC 7239). The caller decides whether to trust a proxy (threat T26).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::http::Headers;
use crate::limits::{FORWARDED_BYTES_MAX, FORWARDED_HOPS_MAX};

/// One party named by a proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hop {
    /// The party's address; an IPv4 address in its IPv6 form is the IPv4 address.
    Address(IpAddr),
    /// `unknown`, or a name that hides the address (RFC 7239 sections 6.2 and 6.3).
    Hidden,
    /// Text that is neither.
    Unreadable,
}

/// The parties that a request has passed through, the nearest one first, at most [`FORWARDED_HOPS_MAX`]: those of
/// `X-Forwarded-For`, or else those of `Forwarded`. Empty when no proxy has written either. Each party is parsed when
/// the iterator yields it: a header of 16 KiB has thousands. `Forwarded` values of more than [`FORWARDED_BYTES_MAX`] bytes
/// in total are one [`Hop::Unreadable`].
pub fn forwarded_hops<'h>(headers: &'h Headers<'_>) -> impl Iterator<Item = Hop> + use<'h> {
    let named = |wanted: &'static str| {
        headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let values: Vec<&[u8]> = named("x-forwarded-for").collect();
    let parts = values.into_iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    let parts = parts.filter(|part| !part.trim_ascii().is_empty());
    let mut hops: VecDeque<(&[u8], Read)> = parts.take(FORWARDED_HOPS_MAX).map(|part| (part, hop as Read)).collect();
    if hops.is_empty() {
        // Quotes can only be parsed from the front, so all of it is read.
        let bytes: usize = named("forwarded").map(<[u8]>::len).sum();
        if bytes > FORWARDED_BYTES_MAX {
            hops.push_back((b"", |_| Hop::Unreadable));
        }
        for value in named("forwarded").filter(|_| bytes <= FORWARDED_BYTES_MAX) {
            let mut rest = value;
            while let Some((element, after)) = take_until(rest, b',') {
                rest = after;
                if !element.trim_ascii().is_empty() {
                    hops.truncate(FORWARDED_HOPS_MAX - 1);
                    hops.push_front((element, forwarded_for));
                }
            }
        }
    }
    hops.into_iter().map(|(text, read)| read(text))
}

/// The address of the client: the nearest hop that is no trusted proxy, beginning with the peer itself.
///
/// # Errors
/// The hop whose address is unknown.
pub fn client_address(peer: IpAddr, headers: &Headers<'_>, trusted: &[IpNet]) -> Result<IpAddr, Hop> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    if !is_trusted(&client) {
        return Ok(client);
    }
    for hop in forwarded_hops(headers) {
        match hop {
            Hop::Address(address) => client = address,
            Hop::Hidden | Hop::Unreadable => return Err(hop),
        }
        if !is_trusted(&client) {
            break;
        }
    }
    Ok(client)
}

/// Reads the text of one party.
type Read = fn(&[u8]) -> Hop;

/// The `for` of one element of `Forwarded`; an element may omit it.
fn forwarded_for(element: &[u8]) -> Hop {
    let mut rest = element;
    while let Some((pair, after)) = take_until(rest, b';') {
        rest = after;
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        if let Some(value) = value
            && name.trim_ascii().eq_ignore_ascii_case(b"for")
        {
            return hop(value);
        }
    }
    Hop::Hidden
}

/// The text before the first separator outside of a quoted string, and the text after it; `None` at the end.
fn take_until(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    let end = text.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte => return *byte == separator && !quoted,
        }
        false
    });
    Some(match end {
        Some(end) => (text.get(..end)?, text.get(end + 1..)?),
        None => (text, &[]),
    })
}

/// Parses one party: an address, with or without a port, in brackets, in quotes.
fn hop(text: &[u8]) -> Hop {
    let text = std::str::from_utf8(text).unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    if text.eq_ignore_ascii_case("unknown") || text.starts_with('_') {
        return Hop::Hidden;
    }
    read_address(text).map_or(Hop::Unreadable, |address| Hop::Address(address.to_canonical()))
}

fn read_address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return read_v6(address).filter(|_| is_whole);
    }
    if let Some(address) = read_v6(text) {
        return Some(address);
    }
    // An IPv6 address without brackets is followed by a port only if all its groups are written.
    let (address, port) = text.rsplit_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
    if !port.is_none_or(is_port) {
        return None;
    }
    let v4 = || address.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4().or_else(|| read_v6(address).filter(|_| address.matches(':').count() == 7))
}

/// The zone of an address names one of the proxy's networks and is dropped.
fn read_v6(text: &str) -> Option<IpAddr> {
    let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Digits, or a name that hides the port (RFC 7239 section 6).
fn is_port(text: &str) -> bool {
    text.starts_with('_') || ((1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{Progress, RequestDecoder, RequestLimits};

    fn hops(lines: &str) -> Vec<Hop> {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(request.as_bytes(), &RequestLimits::default()).expect("a request");
        let Progress::Request(request) = decoded.progress else { panic!("not whole: {lines}") };
        forwarded_hops(&request.headers).collect()
    }

    fn at(address: &str) -> Hop {
        Hop::Address(address.parse().expect("an address"))
    }

    /// T26: every form in which proxies write an address, with its port, in brackets and in quotes.
    #[test]
    fn every_form_of_an_address() {
        for (text, address) in [
            ("203.0.113.9", "203.0.113.9"),
            (" 203.0.113.9\t", "203.0.113.9"),
            ("198.51.100.7:50123", "198.51.100.7"),
            ("\"198.51.100.7:50123\"", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:DB8::7]:50123", "2001:db8::7"),
            ("\"[2001:db8::7]:50123\"", "2001:db8::7"),
            ("2001:db8:0:0:0:0:0:7:50123", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
            ("198.51.100.7:_port", "198.51.100.7"),
        ] {
            assert_eq!(hops(&format!("X-Forwarded-For: {text}\r\n")), [at(address)], "{text}");
            assert_eq!(hops(&format!("forwarded: proto=https;FOR={text};by=1.1.1.1\r\n")), [at(address)], "{text}");
        }
        for text in ["unknown", "Unknown", "_hidden", "\"_SEVKISEK\"", "_a:80"] {
            assert_eq!(hops(&format!("X-Forwarded-For: {text}\r\n")), [Hop::Hidden], "{text}");
            assert_eq!(hops(&format!("Forwarded: for={text}\r\n")), [Hop::Hidden], "{text}");
        }
        for text in [
            "nonsense",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:123456",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]x",
            "1.2.3.4 5",
            "\"",
            "é",
        ] {
            assert_eq!(hops(&format!("X-Forwarded-For: {text}\r\n")), [Hop::Unreadable], "{text}");
        }
    }

    /// T26: the nearest party comes first, across several headers, and empty parts are ignored.
    #[test]
    fn the_nearest_comes_first() {
        let lines =
            "X-Forwarded-For: 1.1.1.1:80, unknown\r\nX-Other: 9.9.9.9\r\nx-forwarded-for: , 2.2.2.2,,3.3.3.3 ,\r\n";
        assert_eq!(hops(lines), [at("3.3.3.3"), at("2.2.2.2"), Hop::Hidden, at("1.1.1.1")]);
        let lines = "Forwarded: for=\"[2001:db8::1]:80\";by=\"a,b;for=9.9.9.9\", for=2.2.2.2;proto=http\r\n\
                     Forwarded: by=1.1.1.1, For=\"_a\\\",b\" , for=3.3.3.3\r\n";
        assert_eq!(hops(lines), [at("3.3.3.3"), Hop::Hidden, Hop::Hidden, at("2.2.2.2"), at("2001:db8::1")]);
        assert_eq!(hops("X-Forwarded-For: 1.1.1.1\r\nForwarded: for=2.2.2.2\r\n"), [at("1.1.1.1")]);
        assert_eq!(hops("X-Forwarded-For: ,\r\nForwarded: for=2.2.2.2\r\n"), [at("2.2.2.2")]);
        assert!(hops("X-Real-IP: 1.1.1.1\r\n").is_empty());
    }

    /// T26: the nearest 32 parties of a list of any length are kept.
    #[test]
    fn hops_are_bounded() {
        let list = |count: usize| (0..count).map(|index| format!("10.0.0.{index}")).collect::<Vec<_>>().join(",");
        for count in [31, 32, 33, 250] {
            let found = hops(&format!("X-Forwarded-For: {}\r\n", list(count)));
            assert_eq!((found.len(), found[0]), (count.min(32), at(&format!("10.0.0.{}", count - 1))));
        }
        // 15 bytes each with its comma: 4,095 bytes are read, 4,110 are not.
        let elements = |count: usize| vec!["for=10.0.0.200"; count].join(",");
        assert_eq!(hops(&format!("Forwarded: {}\r\n", elements(273))), vec![at("10.0.0.200"); 32]);
        assert_eq!(hops(&format!("Forwarded: {}\r\n", elements(274))), [Hop::Unreadable]);
    }
}
