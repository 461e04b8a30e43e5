//! A client's socket: how it is opened, and how frames are sent on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::connection::{Connection, Kept};
use crate::messages::Group;
use crate::wire::frame;

/// Why a connection ended; `None` means that it continues.
pub(crate) type Ended = Option<String>;

/// Source of masks: Marsaglia's xorshift. Masks must differ from frame to frame but need not be secret here.
pub(crate) struct Mask(u32);

impl Mask {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9)
    }

    fn next(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0.to_be_bytes()
    }
}

/// Opens a socket and begins to connect it. On loopback, every [`CONNECTIONS_PER_SOURCE`] connections use another source
/// address, because one address has only about 28,000 ports.
pub(crate) fn connect(address: SocketAddr, number: u32, group: Group) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    // A reset leaves nothing behind, neither ports in TIME_WAIT nor half a minute of teardown.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if group == Group::Stalled {
        sockopt::set_socket_recv_buffer_size(&socket, STALLED_RECEIVE_BYTES)?;
    }
    if let IpAddr::V4(ip) = address.ip()
        && ip.is_loopback()
    {
        rustix::net::bind(&socket, &SocketAddr::from((source(number), 0)))?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Source address of the connection with this number.
fn source(number: u32) -> Ipv4Addr {
    let source = number / CONNECTIONS_PER_SOURCE;
    let last = u8::try_from(source % 254 + 1).expect("at most 254");
    let [.., third] = (source / 254).to_be_bytes();
    // From 127.1.0.1 on, so that 127.0.0.1 keeps its ports for other programs.
    Ipv4Addr::new(127, 1, third, last)
}

/// How to fix a limit of the kernel on sockets; `None` for any other error.
pub(crate) fn hint(error: Errno) -> Option<&'static str> {
    match error {
        Errno::MFILE => Some("use more --workers or raise `ulimit -n`"),
        Errno::NFILE => Some("raise fs.file-max"),
        // Which of the two depends on whether the source address was bound first.
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => {
            Some("no free local port for this server: widen net.ipv4.ip_local_port_range")
        }
        Errno::NOBUFS | Errno::NOMEM => Some("the kernel has no memory for more sockets: raise net.ipv4.tcp_mem"),
        _ => None,
    }
}

/// Sends one frame.
pub(crate) fn send_frame(connection: &mut Connection, opcode: u8, payload: &[u8], mask: &mut Mask) -> Ended {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    frame::encode(opcode, payload, mask.next(), &mut bytes);
    send(connection, &bytes)
}

/// Sends several text frames at once.
pub(crate) fn send_text_frames(connection: &mut Connection, texts: &[String], mask: &mut Mask) -> Ended {
    let mut bytes = Vec::with_capacity(texts.iter().map(|text| text.len() + 14).sum());
    for text in texts {
        frame::encode(frame::TEXT, text.as_bytes(), mask.next(), &mut bytes);
    }
    send(connection, &bytes)
}

/// Sends bytes, and keeps what the socket does not accept.
pub(crate) fn send(connection: &mut Connection, bytes: &[u8]) -> Ended {
    if let Some(kept) = connection.kept.as_mut().filter(|kept| !kept.outgoing.is_empty()) {
        kept.outgoing.extend_from_slice(bytes);
        return None;
    }
    match rustix::net::send(&connection.socket, bytes, SEND) {
        Ok(length) if length == bytes.len() => None,
        Ok(length) => {
            connection.kept().outgoing.extend_from_slice(&bytes[length..]);
            None
        }
        Err(Errno::AGAIN) => {
            connection.kept().outgoing.extend_from_slice(bytes);
            None
        }
        Err(error) => Some(format!("send: {error}")),
    }
}

/// Sends the kept bytes.
pub(crate) fn flush(connection: &mut Connection) -> Ended {
    let Kept { outgoing, .. } = &mut **connection.kept.as_mut()?;
    while !outgoing.is_empty() {
        match rustix::net::send(&connection.socket, outgoing, SEND) {
            Ok(length) => drop(outgoing.drain(..length)),
            Err(Errno::AGAIN) => return None,
            Err(error) => return Some(format!("send: {error}")),
        }
    }
    connection.tidy();
    None
}

const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
const CONNECTIONS_PER_SOURCE: u32 = 4_000;
const STALLED_RECEIVE_BYTES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a million connections have source addresses in 127.0.0.0/8, at most 4,000 each.
    #[test]
    fn sources_are_loopback() {
        let last = source(999_999);
        assert_eq!(source(0), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(source(CONNECTIONS_PER_SOURCE - 1), source(0));
        assert_ne!(source(CONNECTIONS_PER_SOURCE), source(0));
        assert!(last.is_loopback());
    }
}
