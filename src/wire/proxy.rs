//! PROXY protocol version 2, read before the first HTTP byte of a connection from a trusted proxy
//! (haproxy's `doc/proxy-protocol.txt`, section 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// Why a header was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyError;

/// What the start of a stream holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyHeader {
    /// The bytes so far are a beginning of the signature or of a header: give more.
    Partial,
    /// The stream does not begin with the signature.
    Absent,
    /// A whole header of `consumed` bytes; `source` is `None` for LOCAL and for families without an address.
    Present {
        /// Bytes of the header.
        consumed: usize,
        /// The client as the proxy saw it.
        source: Option<SocketAddr>,
    },
}

/// Decodes the start of a stream. What follows the addresses (TLVs) is skipped.
///
/// # Errors
/// [`ProxyError`] after a whole signature, for another version, an unknown command or family, addresses that do not
/// fit the declared length, and headers above [`PROXY_HEADER_BYTES_MAX`]; as soon as the bytes show it.
pub fn decode_proxy_header(bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
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

/// Address families; the transport (stream or datagram) makes no difference to the shape of an address.
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

    /// The source stands before the destination, and both ports after the addresses.
    fn decode_source(self, addresses: &[u8]) -> Option<SocketAddr> {
        let port = |at: usize| Some(u16::from_be_bytes(*addresses.get(at..)?.first_chunk::<2>()?));
        match self {
            Self::Ipv4 => Some(SocketAddr::from((Ipv4Addr::from(*addresses.first_chunk::<4>()?), port(8)?))),
            Self::Ipv6 => Some(SocketAddr::from((Ipv6Addr::from(*addresses.first_chunk::<16>()?), port(32)?))),
            Self::Unspecified | Self::Unix => None,
        }
    }
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Version 2, the proxy speaks for itself (health checks): the socket's own addresses count.
const LOCAL: u8 = 0x20;
/// Version 2, the proxy speaks for the client named in the header.
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

    /// T26: source addresses of both families; every beginning asks for more; bytes behind the header are left alone.
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

    /// T26: a stream without the signature is told at the first byte that differs, version 1 headers among them.
    #[test]
    fn streams_without_the_signature() {
        for bytes in [&b"GET"[..], b"PROXY TCP4", b"\r\nGET / HTTP/1.1", b"\r\n\r\n\0\r\nQUIT\r"] {
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
