//! A connection to a public address, plain or over TLS, in which no step waits longer than its bound.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::target::Target;

/// Time for a connection, and for a handshake of TLS.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
}

/// A stream of bytes whose reads end at a deadline.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// TLS 1.3, say; `None` without TLS.
    pub(super) tls_version: Option<String>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The name has no address.
    Unresolved(String),
    /// Nobody accepts, or too late.
    Unreachable(SocketAddr, io::Error),
    /// The handshake of TLS failed.
    Tls(TlsError),
}

/// Why a handshake of TLS failed.
#[derive(Debug)]
pub(super) enum TlsError {
    /// A reason of the TLS library.
    Rustls(rustls::Error),
    /// The connection ended or stalled.
    Io(io::Error),
}

impl Connector {
    /// Trusts Mozilla's roots, or those of a PEM file.
    ///
    /// # Errors
    /// A phrase, if the file has no certificate or a malformed one.
    pub(super) fn new(roots: Option<&[u8]>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        match roots {
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let added = certificate.map_err(|error| error.to_string()).map(|it| store.add(it));
                    added?.map_err(|error| error.to_string())?;
                }
                if store.is_empty() {
                    return Err("contains no certificate in PEM form".to_owned());
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.expect("ring supports the default versions").with_root_certificates(store);
        let mut config = builder.with_no_client_auth();
        // A proxy that would speak HTTP/2 speaks HTTP/1.1, which WebSockets need.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(config) })
    }

    /// The first addresses of the target's name.
    pub(super) fn resolve(target: &Target) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = (target.host.as_str(), target.port).to_socket_addrs();
        let found: Vec<SocketAddr> =
            found.map_err(|error| ConnectError::Unresolved(error.to_string()))?.take(ADDRESSES_MAX).collect();
        if found.is_empty() { Err(ConnectError::Unresolved("it has no address".to_owned())) } else { Ok(found) }
    }

    /// A TCP connection alone.
    pub(super) fn dial(address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIME);
        let stream = stream.map_err(|error| ConnectError::Unreachable(address, error))?;
        stream.set_nodelay(true).map_err(|error| ConnectError::Unreachable(address, error))?;
        Ok(stream)
    }

    /// Connects to the first address that accepts, with TLS where the target has it.
    pub(super) fn connect(&self, target: &Target) -> Result<Connection, ConnectError> {
        let mut last = None;
        for address in Self::resolve(target)? {
            match Self::dial(address) {
                Ok(stream) => return self.secure(target, stream).map_err(ConnectError::Tls),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a name resolves to at least one address"))
    }

    fn secure(&self, target: &Target, mut tcp: TcpStream) -> Result<Connection, TlsError> {
        if !target.tls {
            return Ok(Connection { stream: Stream::Plain(tcp), tls_version: None });
        }
        let name = ServerName::try_from(target.host.clone());
        let name = name.map_err(|error| TlsError::Io(io::Error::other(error)))?;
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(TlsError::Rustls)?;
        let deadline = Instant::now() + CONNECT_TIME;
        while tls.is_handshaking() {
            limit(&tcp, deadline).map_err(TlsError::Io)?;
            tls.complete_io(&mut tcp).map_err(tls_error)?;
        }
        let version = tls.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
        let tls_version = Some(version.replace("TLSv1_", "TLS 1."));
        Ok(Connection { stream: Stream::Tls(Box::new(StreamOwned::new(tls, tcp))), tls_version })
    }
}

/// rustls reports its reason inside of an `io::Error`.
fn tls_error(error: io::Error) -> TlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => TlsError::Rustls(inner.clone()),
        None => TlsError::Io(error),
    }
}

/// Bounds the next read and write of a socket.
fn limit(tcp: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    tcp.set_read_timeout(Some(left))?;
    tcp.set_write_timeout(Some(left))
}

impl Connection {
    /// Reads what is there, or waits for it until the deadline. 0 is the end of the stream.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            limit(self.tcp(), deadline)?;
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(buffer),
                Stream::Tls(stream) => stream.read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Linux reports the end of a timeout as EAGAIN.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                // A peer that ends TLS without close_notify: the framing of HTTP tells whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
        }
    }

    /// Writes all of it until the deadline.
    pub(super) fn write(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        limit(self.tcp(), deadline)?;
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream,
        };
        stream.write_all(bytes)?;
        stream.flush()
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref(),
        }
    }
}
