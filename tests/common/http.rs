//! A small HTTP/1.1 client over a raw socket: the bytes that a test writes are sent unchanged.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// One response, read completely.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {:?}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }
}

/// One TCP connection for HTTP.
pub struct HttpConnection {
    reader: BufReader<TcpStream>,
}

impl HttpConnection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        Self::from_stream(TcpStream::connect(address).expect("the server accepts"))
    }

    /// Connects from one of the loopback addresses 127.0.0.0/8.
    pub fn open_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        Self::from_stream(connect_from(source, address).expect("the server accepts"))
    }

    fn from_stream(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { reader: BufReader::new(stream) }
    }

    /// Sends bytes unchanged. Callers may ignore an error: a server that refuses may already have closed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends one request with `Host` and, where there is a body, `Content-Length`.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.write(&encode_request(method, target, headers, body)).expect("the request goes out");
    }

    /// Reads the head of a response.
    pub fn try_read_head(&mut self) -> io::Result<Response> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        assert!(line.ends_with("\r\n"), "a status line ends in CRLF: {line:?}");
        let headers = self.read_headers()?;
        Ok(Response { status, headers, body: Vec::new() })
    }

    /// Reads one line without its end; `None` when the peer has ended, or reset the connection.
    pub fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("a line was due: {error}"),
        }
    }

    /// Reads one response, which has a `Content-Length` (P-HTTP-15), or none for 1xx, 204 and 304.
    pub fn try_read(&mut self) -> io::Result<Response> {
        let mut response = self.try_read_head()?;
        let status = response.status;
        if status >= 200 && status != 204 && status != 304 {
            let length = response.header("content-length").expect("P-HTTP-15: a response has Content-Length");
            response.body = vec![0; length.parse().expect("Content-Length is a number")];
            self.reader.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads one response, which must come.
    #[track_caller]
    pub fn read(&mut self) -> Response {
        self.try_read().unwrap_or_else(|error| panic!("a response was due: {error}"))
    }

    /// One request and its response on this connection.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(method, target, headers, body);
        self.read()
    }

    /// Fails unless the server ends the connection without sending another byte.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "bytes after the end: {:?}", String::from_utf8_lossy(&rest)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server keeps the connection open: {error}"),
        }
    }

    /// The underlying socket.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    fn read_headers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.strip_suffix("\r\n").ok_or_else(|| io::Error::other("a header line without CRLF"))?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').expect("a header has a colon");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

/// The bytes of one request with `Host`, unless a header is that, and, where there is a body, `Content-Length`.
pub fn encode_request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = if has_host { "" } else { "Host: relay.test\r\n" };
    let mut request = format!("{method} {target} HTTP/1.1\r\n{host}");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One request on a connection of its own.
#[track_caller]
pub fn ask(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    HttpConnection::open(address).ask(method, target, headers, body)
}

/// A GET on a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    ask(address, "GET", target, &[], b"")
}

/// Connects from one of the loopback addresses 127.0.0.0/8.
pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    connect(&socket, &address)?;
    Ok(socket.into())
}
