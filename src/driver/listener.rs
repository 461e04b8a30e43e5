//! Listening sockets: one public socket per shard on one port, and one for metrics.
//!
//! With `SO_REUSEPORT` alone a second server would silently share the port and take half the connections. So the first
//! socket binds and listens without it, which fails if another socket is listening, and joins the group afterwards;
//! the sockets of the other shards follow. At no point in this sequence is the port closed or open to another server.
//!
//! Accepted sockets inherit all options set here, so that accepting needs no further system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, ipproto, sockopt};

use super::sys;
use crate::shard::Listener;

/// A listening socket, nonblocking and close-on-exec.
#[derive(Debug)]
pub struct BoundListener {
    /// The kind of connection accepted on it.
    pub kind: Listener,
    /// The socket.
    pub socket: OwnedFd,
}

/// A port that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", explain(.source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The kernel's error.
    pub source: io::Error,
}

/// Sockets that share one address.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that the kernel chose if 0 was requested.
    pub address: SocketAddr,
    /// As many as requested.
    pub sockets: Vec<OwnedFd>,
}

/// Binds `sockets` listening sockets to one address; port 0 binds any free port.
///
/// # Errors
/// Fails, among other cases, when another server listens on the address.
pub fn bind(address: SocketAddr, sockets: usize) -> Result<Bound, BindError> {
    bind_with(address, sockets, SEND_BUFFER_BYTES)
}

/// Like [`bind`], with another size of the kernel's send buffers: tests shrink them to force short sends.
///
/// # Errors
/// As [`bind`].
pub fn bind_with(address: SocketAddr, sockets: usize, send_buffer_bytes: usize) -> Result<Bound, BindError> {
    assert!(sockets > 0, "a server listens");
    let fail = |source: io::Error| BindError { address, source };
    let first = open(address, send_buffer_bytes).map_err(fail)?;
    rustix::net::listen(&first, BACKLOG).map_err(|error| fail(error.into()))?;
    let local = rustix::net::getsockname(&first).and_then(SocketAddr::try_from).map_err(|error| fail(error.into()))?;
    let mut bound = Bound { address: local, sockets: vec![first] };
    if sockets > 1 {
        sockopt::set_socket_reuseport(&bound.sockets[0], true).map_err(|error| fail(error.into()))?;
    }
    for _ in 1..sockets {
        let socket = open_shared(local, send_buffer_bytes).map_err(fail)?;
        bound.sockets.push(socket);
    }
    Ok(bound)
}

/// Whether [`bind`] could bind this address now. Nothing listens during the check, so that no client connects in vain.
///
/// # Errors
/// As [`bind`].
pub fn check_free(address: SocketAddr) -> Result<(), BindError> {
    open(address, SEND_BUFFER_BYTES).map(drop).map_err(|source| BindError { address, source })
}

/// The peer's address in the form that the rest of Relay uses: an IPv4 peer of a dual-stack socket has its IPv4
/// address.
///
/// # Errors
/// `EAFNOSUPPORT` when it is not an internet address.
pub fn peer_address(address: SocketAddrAny) -> io::Result<SocketAddr> {
    Ok(canonical(SocketAddr::try_from(address)?))
}

/// `::ffff:192.0.2.1` becomes `192.0.2.1`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
            None => address,
        },
    }
}

/// Opens a socket of the group after the first.
fn open_shared(address: SocketAddr, send_buffer_bytes: usize) -> io::Result<OwnedFd> {
    let socket = socket(address, send_buffer_bytes)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Opens the first socket, bound and not yet listening.
fn open(address: SocketAddr, send_buffer_bytes: usize) -> io::Result<OwnedFd> {
    let socket = socket(address, send_buffer_bytes)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn socket(address: SocketAddr, send_buffer_bytes: usize) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A restart must not wait for connections in TIME_WAIT. A listening socket still excludes others.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `[::]` accepts all peers, whatever the value of net.ipv6.bindv6only.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_send_buffer_size(&socket, send_buffer_bytes)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
    sys::set_tcp_notsent_lowat(&socket, NOTSENT_BYTES)?;
    Ok(socket)
}

fn explain(source: &io::Error) -> String {
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE) => "the port is in use by another server; stop it or choose another port".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "this machine does not have that address; choose another".to_owned(),
        Some(Errno::ACCESS) => format!("{source}; ports below 1024 need CAP_NET_BIND_SERVICE"),
        Some(_) | None => source.to_string(),
    }
}

/// Connections that wait to be accepted, per socket; net.core.somaxconn may lower it.
pub const BACKLOG: i32 = 4096;
/// `SO_SNDBUF` of a connection. The kernel doubles it for its own overhead and allocates only as much as is used; it
/// bounds the data that a slow reader can hold in the kernel. 128 KiB are two sends of `SEND_BYTES_MAX`, sustain 10
/// Mbit/s over 100 ms, and stay below the usual net.core.wmem_max of 208 KiB, above which the kernel would silently cap
/// the size.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// `TCP_NOTSENT_LOWAT`: the kernel accepts no more bytes while this many are not yet sent by TCP, so that they wait in
/// the outbox, where they are shared and counted (P-CLOSE-5), rather than as copies in the kernel.
const NOTSENT_BYTES: u32 = 64 * 1024;
/// `TCP_USER_TIMEOUT`: a peer that acknowledges nothing for this long is gone, in ms. Longer than `limits::STALL_MS`,
/// so that a peer that is only slow is notified first.
const USER_TIMEOUT_MS: u32 = 20_000;

const _: () = assert!(USER_TIMEOUT_MS as u64 > crate::limits::STALL_MS);
const _: () = assert!(SEND_BUFFER_BYTES >= 2 * crate::limits::SEND_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// A second server on the port is refused with an error that names the address, and so is one that would share by
    /// SO_REUSEPORT without ours.
    #[test]
    fn second_bind_is_refused() {
        for sockets in [1, 3] {
            let bound = bind(loopback(), sockets).expect("free port");
            assert_eq!(bound.sockets.len(), sockets);
            let error = bind(bound.address, 2).expect_err("port is taken");
            let text = error.to_string();
            assert!(text.contains(&bound.address.to_string()) && text.contains("in use"), "{text}");
            assert!(TcpListener::bind(bound.address).is_err());
        }
        let other = TcpListener::bind(loopback()).expect("free port");
        let address = other.local_addr().expect("bound");
        assert!(bind(address, 2).is_err());
    }

    /// Port 0: all sockets have the port that the first one was given, and connections reach every socket.
    #[test]
    fn all_sockets_share_the_port() {
        let bound = bind(loopback(), 3).expect("free port");
        assert_ne!(bound.address.port(), 0);
        let clients: Vec<TcpStream> = (0..96).map(|_| TcpStream::connect(bound.address).expect("listening")).collect();
        let mut accepted = vec![0_usize; 3];
        for (socket, count) in bound.sockets.iter().zip(&mut accepted) {
            while rustix::net::accept(socket).is_ok() {
                *count += 1;
            }
        }
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    /// The port can be bound again immediately after a server with open connections has gone (TIME_WAIT on our side).
    #[test]
    fn restart_does_not_wait() {
        let bound = bind(loopback(), 2).expect("free port");
        let _clients: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(bound.address).expect("listening")).collect();
        let accepted: Vec<OwnedFd> = bound
            .sockets
            .iter()
            .flat_map(|socket| std::iter::from_fn(move || rustix::net::accept(socket).ok()))
            .collect();
        assert_eq!(accepted.len(), 8);
        drop(accepted);
        let address = bound.address;
        drop(bound);
        assert_eq!(bind(address, 2).expect("free again").address, address);
    }

    /// Accepted sockets inherit the options set on the listener.
    #[test]
    fn options_are_inherited() {
        let bound = bind(loopback(), 2).expect("free port");
        for listening in &bound.sockets {
            let mut tries = 0;
            let (accepted, _client) = loop {
                let client = TcpStream::connect(bound.address).expect("listening");
                if let Ok(accepted) = rustix::net::accept(listening) {
                    break (accepted, client);
                }
                tries += 1;
                assert!(tries < 100, "the kernel spreads connections over the group");
            };
            assert!(sockopt::tcp_nodelay(&accepted).expect("option"));
            assert_eq!(sockopt::tcp_user_timeout(&accepted).expect("option"), USER_TIMEOUT_MS);
            assert_eq!(sockopt::socket_send_buffer_size(&accepted).expect("option"), 2 * SEND_BUFFER_BYTES);
        }
    }

    /// IPv6: its loopback works, and the unspecified address also accepts IPv4 peers, which are reported with their
    /// IPv4 address.
    #[test]
    fn ipv6_listens() {
        let Ok(bound) = bind(SocketAddr::from(([0_u16, 0, 0, 0, 0, 0, 0, 0], 0)), 1) else {
            eprintln!("this kernel has no IPv6: not shown");
            return;
        };
        let _client = TcpStream::connect(("127.0.0.1", bound.address.port())).expect("dual stack");
        let (_accepted, peer) = rustix::net::acceptfrom(&bound.sockets[0]).expect("connected");
        let peer = peer_address(peer.expect("TCP peers have addresses")).expect("internet");
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 1]));
    }
}
