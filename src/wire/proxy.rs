//! PROXY protocol version 2, read before the first HTTP byte of a connection from a trusted proxy.

use std::net::SocketAddr;

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

/// Decodes the start of a stream.
pub fn decode_proxy_header(_bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
    todo!()
}
