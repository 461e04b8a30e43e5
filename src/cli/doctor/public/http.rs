//! One HTTP/1.1 request and its answer, on a connection of its own. Every byte of the path goes out as given: the doctor
//! looks for those that change it.

use std::io;
use std::time::{Duration, Instant};

use super::connection::{ConnectError, Connection, Connector};
use super::target::Target;

/// Time for an answer, from the first byte of the request.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Bytes of an answer's head, and of the part of its body that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Headers of an answer.
const HEADERS_MAX: usize = 128;

/// A request.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    /// Path and query, as sent.
    pub(super) path: &'a str,
    /// Further headers. `Host` replaces the target's own.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names as sent, and values.
    pub(super) headers: Vec<(String, String)>,
    /// The first bytes of the body.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum AskError {
    Connect(ConnectError),
    /// The connection ended before an answer was complete.
    Closed(String),
    /// No complete answer in time.
    TimedOut,
    /// The answer is not HTTP.
    NotHttp(String),
}

impl Answer {
    /// The first value under a name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, if it is that.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether it is a web page.
    pub(super) fn is_html(&self) -> bool {
        let start = self.text().trim_start().get(..9).unwrap_or_default().to_ascii_lowercase();
        self.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
            || start == "<!doctype"
            || start.starts_with("<html")
    }
}

impl Connector {
    /// Sends one request and reads its answer.
    pub(super) fn ask(&self, target: &Target, ask: &Ask<'_>) -> Result<Answer, AskError> {
        let mut connection = self.connect(target).map_err(AskError::Connect)?;
        let deadline = Instant::now() + ANSWER_TIME;
        // A server that refuses a body may close before it has read all of it: then its answer is already here.
        let written = connection.write(&encode(target, ask, "close"), deadline);
        let (answer, rest) = match (read_head(&mut connection, deadline), written) {
            (Err(AskError::Closed(_)), Err(error)) => return Err(AskError::Closed(error.to_string())),
            (read, _) => read?,
        };
        read_body(&mut connection, ask.method, answer, rest, deadline)
    }
}

/// A request as sent.
pub(super) fn encode(target: &Target, ask: &Ask<'_>, connection: &str) -> Vec<u8> {
    let given = |name: &str| ask.headers.iter().any(|(found, _)| found.eq_ignore_ascii_case(name));
    let mut head = format!("{} {} HTTP/1.1\r\n", ask.method, ask.path);
    if !given("host") {
        head.push_str(&format!("Host: {}\r\n", target.host_header()));
    }
    if !given("connection") {
        head.push_str(&format!("Connection: {connection}\r\n"));
    }
    if !given("user-agent") {
        head.push_str(concat!("User-Agent: relay-doctor/", env!("CARGO_PKG_VERSION"), "\r\n"));
    }
    for (name, value) in ask.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !ask.body.is_empty() || ask.method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", ask.body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(ask.body);
    bytes
}

/// Reads the head of an answer; returns it with the bytes behind it. Interim answers are skipped.
pub(super) fn read_head(connection: &mut Connection, deadline: Instant) -> Result<(Answer, Vec<u8>), AskError> {
    let mut bytes = Vec::new();
    loop {
        if let Some((answer, length)) = decode_head(&bytes)? {
            let rest = bytes.split_off(length);
            if (100..200).contains(&answer.status) && answer.status != 101 {
                bytes = rest;
                continue;
            }
            return Ok((answer, rest));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(AskError::NotHttp(format!("a head of more than {HEAD_BYTES_MAX} bytes")));
        }
        if read_more(connection, &mut bytes, deadline)? == 0 {
            return Err(AskError::Closed(if bytes.is_empty() {
                "without a byte of an answer".to_owned()
            } else {
                "in the middle of an answer".to_owned()
            }));
        }
    }
}

/// Decodes a head; `None` while it is incomplete.
fn decode_head(bytes: &[u8]) -> Result<Option<(Answer, usize)>, AskError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let headers = response.headers.iter().map(|header| (header.name.to_owned(), text(header.value)));
            let status = response.code.unwrap_or_default();
            Ok(Some((Answer { status, headers: headers.collect(), body: Vec::new() }, length)))
        }
        Err(error) => Err(AskError::NotHttp(error.to_string())),
    }
}

/// Reads the body up to its bound.
fn read_body(
    connection: &mut Connection,
    method: &str,
    mut answer: Answer,
    mut rest: Vec<u8>,
    deadline: Instant,
) -> Result<Answer, AskError> {
    if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
        return Ok(answer);
    }
    let chunked =
        answer.header("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
    let length = answer.header("content-length").and_then(|length| length.trim().parse::<usize>().ok());
    loop {
        let (body, whole) = match (chunked, length) {
            (true, _) => decode_chunks(&rest)?,
            (false, Some(length)) => (rest.get(..length).unwrap_or(&rest).to_vec(), rest.len() >= length),
            (false, None) => (rest.clone(), false),
        };
        if whole || body.len() > BODY_BYTES_MAX {
            answer.body = body;
            answer.body.truncate(BODY_BYTES_MAX);
            return Ok(answer);
        }
        if read_more(connection, &mut rest, deadline)? == 0 {
            if chunked || length.is_some() {
                return Err(AskError::Closed("in the middle of an answer".to_owned()));
            }
            answer.body = body;
            return Ok(answer);
        }
    }
}

/// The body in the chunks so far, and whether the last one is among them.
fn decode_chunks(mut rest: &[u8]) -> Result<(Vec<u8>, bool), AskError> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| AskError::NotHttp("a chunk without its size".to_owned()))?;
        let data = &rest[end + 2..];
        body.extend_from_slice(data.get(..size).unwrap_or(data));
        if size == 0 {
            return Ok((body, true));
        }
        if body.len() > BODY_BYTES_MAX {
            break;
        }
        match data.get(size.saturating_add(2)..) {
            Some(after) => rest = after,
            None => break,
        }
    }
    Ok((body, false))
}

fn read_more(connection: &mut Connection, bytes: &mut Vec<u8>, deadline: Instant) -> Result<usize, AskError> {
    let mut part = [0; 16 * 1024];
    match connection.read(&mut part, deadline) {
        Ok(read) => {
            bytes.extend_from_slice(&part[..read]);
            Ok(read)
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(AskError::TimedOut),
        Err(error) => Err(AskError::Closed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that sends these bytes to one client, piece by piece, and then closes.
    fn serve(pieces: &[&[u8]]) -> Target {
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = Target::parse(&format!("http://{}", listener.local_addr().expect("bound"))).expect("a URL");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            for piece in pieces {
                let _ = stream.write_all(&piece);
            }
        });
        target
    }

    fn ask(pieces: &[&[u8]]) -> Result<Answer, AskError> {
        let connector = Connector::new(None).expect("roots");
        connector.ask(&serve(pieces), &Ask { method: "GET", path: "/up", ..Ask::default() })
    }

    /// R-DIAG-2: bodies of every framing are read to their end; interim answers are skipped; a body beyond the bound is cut.
    #[test]
    fn answers_of_every_framing() {
        let answer =
            ask(&[b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\n\r\nO", b"K\nmore"]).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str(), answer.header("SERVER")), (200, "OK\n", Some("x")));
        let chunks: &[&[u8]] = &[
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nab",
            b"c\r\nA\r\n0123456789\r\n0\r\n\r\n",
        ];
        let answer = ask(chunks).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (404, "abc0123456789"));
        let answer = ask(&[b"HTTP/1.0 200 OK\r\n\r\n<!DOCTYPE html>", b"..."]).expect("an answer");
        assert!(answer.is_html() && answer.text().ends_with("..."));
        let answer = ask(&[b"HTTP/1.1 200 OK\r\n\r\n", &[b'y'; 1 << 20]]).expect("an answer");
        assert_eq!(answer.body.len(), BODY_BYTES_MAX);
    }

    /// R-DIAG-2: what is not an answer is named, without waiting for more.
    #[test]
    fn broken_answers_are_named() {
        assert!(matches!(ask(&[]), Err(AskError::Closed(_))));
        assert!(matches!(ask(&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]), Err(AskError::Closed(_))));
        assert!(matches!(ask(&[b"SSH-2.0-OpenSSH\r\n"]), Err(AskError::NotHttp(_))));
        assert!(matches!(
            ask(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n"]),
            Err(AskError::NotHttp(_))
        ));
    }

    /// The path goes out as given, and a header of the request replaces the usual one.
    #[test]
    fn requests_go_out_as_given() {
        let target = Target::parse("https://ws.example.com").expect("a URL");
        let headers = [("Host", "ws.example.com:443"), ("X-A", "b")];
        let ask = Ask { method: "POST", path: "//a/%2D?b=%20", headers: &headers, body: b"{}" };
        let text = String::from_utf8(encode(&target, &ask, "close")).expect("text");
        assert!(text.starts_with("POST //a/%2D?b=%20 HTTP/1.1\r\n") && text.ends_with("\r\n\r\n{}"), "{text}");
        assert!(text.contains("Host: ws.example.com:443\r\n") && text.contains("Content-Length: 2\r\n"), "{text}");
        assert_eq!(text.matches("Host:").count(), 1);
    }
}
