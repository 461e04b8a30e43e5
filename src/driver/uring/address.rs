//! A peer's address as an accept returns it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::driver::sys::ADDRESS_BYTES;

/// Reads a `sockaddr_in` or `sockaddr_in6`; `None` for any other family.
pub(super) fn parse_address(bytes: &[u8; ADDRESS_BYTES]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match family {
        libc::AF_INET => {
            let address = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
            Some(SocketAddr::new(IpAddr::V4(address), port))
        }
        libc::AF_INET6 => {
            let address: [u8; 16] = bytes[8..24].try_into().expect("16 bytes");
            let scope = u32::from_ne_bytes(bytes[24..28].try_into().expect("4 bytes"));
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(address), port, 0, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as the kernel writes them, by the layouts of `ip(7)` and `ipv6(7)`.
    #[test]
    fn addresses_are_parsed() {
        let mut bytes = [0; ADDRESS_BYTES];
        bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 9]);
        assert_eq!(parse_address(&bytes), Some("127.0.0.9:8080".parse().expect("an address")));
        bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        bytes[8..24].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        assert_eq!(parse_address(&bytes), Some("[::1]:8080".parse().expect("an address")));
        bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(parse_address(&bytes), None);
    }
}
