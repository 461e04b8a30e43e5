//! PROXY protocol, versions 1 and 2, read before the first HTTP byte of a connection from a trusted proxy
//! (haproxy's `doc/proxy-protocol.txt`, sections 2.1 and 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// Why a header was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyError;

/// The contents of the start of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyHeader {
    /// The bytes so far are a prefix of the signature or of a header: more input is needed.
    Partial,
    /// The stream begins with the signature of neither version.
    Absent,
    /// A complete header of `consumed` bytes; `source` is `None` for LOCAL, for UNKNOWN and for families without an
    /// address.
    Present {
        /// Bytes of the header.
        consumed: usize,
        /// The client's address as the proxy saw it.
        source: Option<SocketAddr>,
    },
}

/// Decodes the start of a stream. Data after the addresses of version 2 (TLVs) is skipped.
///
/// # Errors
/// [`ProxyError`] after a complete signature, for another version, an unknown command or family, addresses that do not
/// fit the declared length or are none, and headers above [`PROXY_HEADER_BYTES_MAX`] or, in version 1, above 107 bytes;
/// as soon as the bytes show it.
pub fn decode_proxy_header(bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
    if !bytes.is_empty() && (TEXT_SIGNATURE.starts_with(bytes) || bytes.starts_with(TEXT_SIGNATURE)) {
        return decode_text_header(bytes);
    }
    let Some(fields) = bytes.strip_prefix(SIGNATURE) else {
        let is_beginning = SIGNATURE.starts_with(bytes);
        return Ok(if is_beginning { ProxyHeader::Partial } else { ProxyHeader::Absent });
    };
    let Some(&command) = fields.first() else {
        return Ok(ProxyHeader::Partial);
    };
    if !matches!(command, LOCAL | PROXY) {
        return Err(ProxyError);
    }
    let Some(&family) = fields.get(1) else {
        return Ok(ProxyHeader::Partial);
    };
    let family = Family::decode(family).ok_or(ProxyError)?;
    let Some(length) = fields.get(2..).and_then(|rest| rest.first_chunk::<2>()) else {
        return Ok(ProxyHeader::Partial);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let consumed = FIXED_BYTES + length;
    if consumed > PROXY_HEADER_BYTES_MAX || (command == PROXY && length < family.address_bytes()) {
        return Err(ProxyError);
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..consumed) else {
        return Ok(ProxyHeader::Partial);
    };
    let source = if command == PROXY { family.decode_source(addresses) } else { None };
    Ok(ProxyHeader::Present { consumed, source })
}

/// True for bytes that begin with the signature of either version.
pub fn begins_proxy_header(bytes: &[u8]) -> bool {
    [&SIGNATURE[..], &TEXT_SIGNATURE[..]].iter().any(|signature| bytes.starts_with(signature))
}

/// Version 1: one line of text, `PROXY TCP4 SOURCE DESTINATION PORT PORT`, or `PROXY UNKNOWN` and anything.
fn decode_text_header(bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let window = bytes.get(..TEXT_HEADER_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < TEXT_HEADER_BYTES_MAX { Ok(ProxyHeader::Partial) } else { Err(ProxyError) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(ProxyError)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(ProxyError);
    let source = match word()? {
        "UNKNOWN" => return Ok(ProxyHeader::Present { consumed: end + 1, source: None }),
        family @ ("TCP4" | "TCP6") => {
            let address = |text: &str| {
                let address: IpAddr = text.parse().map_err(|_| ProxyError)?;
                if address.is_ipv4() == (family == "TCP4") { Ok(address) } else { Err(ProxyError) }
            };
            let (source, _destination) = (address(word()?)?, address(word()?)?);
            let port = |text: &str| text.parse::<u16>().map_err(|_| ProxyError);
            let (source_port, _destination_port) = (port(word()?)?, port(word()?)?);
            SocketAddr::new(source, source_port)
        }
        _ => return Err(ProxyError),
    };
    if words.next().is_some() {
        Err(ProxyError)
    } else {
        Ok(ProxyHeader::Present { consumed: end + 1, source: Some(source) })
    }
}

/// Address families; the transport (stream or datagram) does not affect the layout of an address.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    Ipv4,
    Ipv6,
    Unix,
}

impl Family {
    fn decode(byte: u8) -> Option<Self> {
        match byte {
            0x00 => Some(Self::Unspecified),
            0x11 | 0x12 => Some(Self::Ipv4),
            0x21 | 0x22 => Some(Self::Ipv6),
            0x31 | 0x32 => Some(Self::Unix),
            _ => None,
        }
    }

    /// Bytes of source and destination, with their ports.
    fn address_bytes(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::Ipv4 => 12,
            Self::Ipv6 => 36,
            Self::Unix => 216,
        }
    }

    /// The source precedes the destination, and both ports follow the addresses.
    fn decode_source(self, addresses: &[u8]) -> Option<SocketAddr> {
        let port = |at: usize| Some(u16::from_be_bytes(*addresses.get(at..)?.first_chunk::<2>()?));
        match self {
            Self::Ipv4 => Some(SocketAddr::from((Ipv4Addr::from(*addresses.first_chunk::<4>()?), port(8)?))),
            Self::Ipv6 => Some(SocketAddr::from((Ipv6Addr::from(*addresses.first_chunk::<16>()?), port(32)?))),
            Self::Unspecified | Self::Unix => None,
        }
    }
}

/// The start of a header of version 1. No HTTP method has this name.
const TEXT_SIGNATURE: &[u8; 6] = b"PROXY ";
/// Maximum length of a version 1 header, including its line end.
const TEXT_HEADER_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Version 2, a connection that the proxy opens for itself (health checks): the socket's own addresses count.
const LOCAL: u8 = 0x20;
/// Version 2, a connection on behalf of the client named in the header.
const PROXY: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((addresses.len() as u16).to_be_bytes());
        header.extend(addresses);
        header
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xc0, 0x00, 0x01, 0xbb];

    fn present(consumed: usize, source: Option<&str>) -> Result<ProxyHeader, ProxyError> {
        Ok(ProxyHeader::Present { consumed, source: source.map(|source| source.parse().expect("an address")) })
    }

    /// T26: source addresses of both families; every prefix needs more input; bytes after the header are left alone.
    #[test]
    fn whole_headers_and_every_beginning() {
        let mut ipv6 = "2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets().to_vec();
        ipv6.extend("2001:db8::2".parse::<Ipv6Addr>().expect("an address").octets());
        ipv6.extend([0x1f, 0x90, 0x01, 0xbb]);
        let mut with_tlv = IPV4.to_vec();
        with_tlv.extend([0x04, 0x00, 0x03, 1, 2, 3]);
        for (bytes, expected) in [
            (header(0x21, 0x11, &IPV4), present(28, Some("192.0.2.1:49152"))),
            (header(0x21, 0x11, &with_tlv), present(34, Some("192.0.2.1:49152"))),
            (header(0x21, 0x21, &ipv6), present(52, Some("[2001:db8::1]:8080"))),
            (header(0x20, 0x00, &[]), present(16, None)),
            (header(0x20, 0x11, &IPV4), present(28, None)),
            (header(0x21, 0x00, &[9; 5]), present(21, None)),
            (header(0x21, 0x31, &[0; 216]), present(232, None)),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(decode_proxy_header(&bytes[..end]), Ok(ProxyHeader::Partial), "{end} of {bytes:?}");
            }
            assert_eq!(decode_proxy_header(&bytes), expected);
            assert_eq!(decode_proxy_header(&[&bytes[..], b"GET / HTTP/1.1\r\n"].concat()), expected);
        }
    }

    /// T26: version 1, in text: both families, UNKNOWN with and without more words; every prefix needs more input, and
    /// a line of any other form is refused.
    #[test]
    fn headers_in_text() {
        for (line, source) in [
            ("PROXY TCP4 203.0.113.200 127.0.0.1 50000 6001", Some("203.0.113.200:50000")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", Some("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::1 ::1 1 2", Some("[2001:db8::1]:1")),
            ("PROXY UNKNOWN", None),
            ("PROXY UNKNOWN ffff:f...f:ffff anything 65535", None),
        ] {
            let bytes = format!("{line}\r\n").into_bytes();
            for end in 0..bytes.len() {
                assert_eq!(decode_proxy_header(&bytes[..end]), Ok(ProxyHeader::Partial), "{end} of {line}");
            }
            let expected = present(bytes.len(), source);
            assert_eq!(decode_proxy_header(&bytes), expected, "{line}");
            assert_eq!(decode_proxy_header(&[&bytes[..], b"GET / HTTP/1.1\r\n"].concat()), expected);
        }
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
            "PROXY / HTTP/1.1\r\n",
        ] {
            assert_eq!(decode_proxy_header(line.as_bytes()), Err(ProxyError), "{line}");
        }
        let long = |bytes: usize| format!("PROXY UNKNOWN{:>1$}", "\r\n", bytes - 13);
        assert_eq!(decode_proxy_header(long(107).as_bytes()), present(107, None));
        assert_eq!(decode_proxy_header(long(108).as_bytes()), Err(ProxyError));
        assert_eq!(decode_proxy_header(&long(108).as_bytes()[..106]), Ok(ProxyHeader::Partial));
    }

    /// T26: a stream without a signature is recognised at the first byte that differs.
    #[test]
    fn streams_without_the_signature() {
        for bytes in [&b"GET"[..], b"PUT", b"PROXIED", b"PROXY\r\n", b"\r\nGET / HTTP/1.1", b"\r\n\r\n\0\r\nQUIT\r"] {
            assert_eq!(decode_proxy_header(bytes), Ok(ProxyHeader::Absent), "{bytes:?}");
        }
    }

    /// T26: broken headers are refused as soon as their bytes show it.
    #[test]
    fn broken_headers() {
        for bytes in [
            header(0x11, 0x11, &IPV4)[..13].to_vec(),
            header(0x22, 0x11, &IPV4)[..13].to_vec(),
            header(0x21, 0x13, &IPV4)[..14].to_vec(),
            header(0x21, 0x41, &IPV4)[..14].to_vec(),
            header(0x21, 0x11, &IPV4[..11])[..16].to_vec(),
            header(0x21, 0x21, &IPV4)[..16].to_vec(),
            header(0x21, 0x11, &[0; PROXY_HEADER_BYTES_MAX])[..16].to_vec(),
        ] {
            assert_eq!(decode_proxy_header(&bytes), Err(ProxyError), "{bytes:?}");
        }
    }
}
