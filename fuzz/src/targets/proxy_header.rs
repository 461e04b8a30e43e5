//! PROXY protocol headers: the verdict on every prefix agrees with that on the complete header, and the reader returns
//! exactly what an independent writer wrote.

use std::net::{IpAddr, SocketAddr};

use relay::limits::PROXY_HEADER_BYTES_MAX;
use relay::wire::proxy::{ProxyError, ProxyHeader, decode_proxy_header};

use crate::input::Input;

const SIGNATURE: [u8; 12] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A];

/// Threat T26.
pub fn check(bytes: &[u8]) {
    check_prefixes(bytes);
    let mut input = Input::new(bytes);
    let address = |input: &mut Input<'_>, is_v4: bool| -> IpAddr {
        let mut octets = [0; 16];
        octets.fill_with(|| input.byte());
        let short: [u8; 4] = octets[..4].try_into().expect("four bytes");
        if is_v4 { short.into() } else { octets.into() }
    };
    let is_v4 = input.below(2) == 0;
    let source = SocketAddr::new(address(&mut input, is_v4), input.word());
    let destination = SocketAddr::new(address(&mut input, is_v4), input.word());
    let proxied = input.below(2) == 0;
    let rest = input.rest();
    // TLVs of some length, then the first bytes of a request.
    let (tlvs, after) = rest.split_at(rest.len() / 2);
    let header = write(source, destination, proxied, tlvs);
    let stream = [&header[..], after].concat();
    check_prefixes(&stream);
    let wanted = if header.len() > PROXY_HEADER_BYTES_MAX {
        Err(ProxyError)
    } else {
        Ok(ProxyHeader::Present { consumed: header.len(), source: proxied.then_some(source) })
    };
    let read = decode_proxy_header(&stream);
    // A version 6 source can be compared as it is: scope and flow are 0 in both.
    assert_eq!(read, wanted);
}

/// More bytes never change a verdict once given.
fn check_prefixes(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(PROXY_HEADER_BYTES_MAX + 20)];
    let mut verdict = None;
    for end in 0..=bytes.len() {
        let now = decode_proxy_header(&bytes[..end]);
        if let Ok(ProxyHeader::Present { consumed, .. }) = now {
            let shortest = if bytes.starts_with(b"PROXY ") { b"PROXY UNKNOWN\r\n".len() } else { 16 };
            assert!((shortest..=end.min(PROXY_HEADER_BYTES_MAX)).contains(&consumed));
        }
        match verdict {
            None if now == Ok(ProxyHeader::Partial) => {}
            None => verdict = Some(now),
            Some(before) => assert_eq!(now, before, "{end} of {}", bytes.escape_ascii()),
        }
    }
    let begins = |signature: &[u8]| bytes.starts_with(&signature[..bytes.len().min(signature.len())]);
    let is_ours = begins(&SIGNATURE) || begins(b"PROXY ");
    assert_eq!(verdict == Some(Ok(ProxyHeader::Absent)), !is_ours, "{}", bytes.escape_ascii());
}

fn write(source: SocketAddr, destination: SocketAddr, proxied: bool, tlvs: &[u8]) -> Vec<u8> {
    let mut addresses = Vec::new();
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(address) => addresses.extend(address.octets()),
            IpAddr::V6(address) => addresses.extend(address.octets()),
        }
    }
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    let mut header = SIGNATURE.to_vec();
    header.push(if proxied { 0x21 } else { 0x20 });
    header.push(if source.is_ipv4() { 0x11 } else { 0x21 });
    let length = u16::try_from(addresses.len() + tlvs.len()).unwrap_or(u16::MAX);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(&tlvs[..usize::from(length) - (header.len() - 16)]);
    header
}
