//! HTTP/1.1 responses from the client's side, written for these tests alone.

/// A complete response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes a stream of responses, however it is split.
#[derive(Debug, Default)]
pub(crate) struct ResponseReader {
    buffer: Vec<u8>,
}

impl ResponseReader {
    /// Adds bytes that were read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the bytes after the last response, as after an upgrade.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Bytes of an incomplete response.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the head of an answer that is an event stream, which has no length and ends with its connection.
    pub(crate) fn next_stream_head(&mut self) -> Option<Response> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let (status, headers) = decode_head(&self.buffer[..end]);
        let response = Response { status, headers, body: Vec::new() };
        if status != 200 || response.header("content-type") != Some("text/event-stream") {
            return None;
        }
        self.buffer.drain(..end + 4);
        Some(response)
    }

    /// The next complete response. `no_body` for answers to HEAD. Panics where the server violates HTTP/1.1.
    pub(crate) fn next(&mut self, no_body: bool) -> Option<Response> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let (status, headers) = decode_head(&self.buffer[..end]);
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map(|(_, value)| value.parse::<usize>().expect("a length"));
        let length = match status {
            100..=199 | 204 | 304 => 0,
            _ if no_body => 0,
            _ => length.expect("a response has Content-Length (P-HTTP-15)"),
        };
        let body = self.buffer.get(end + 4..end + 4 + length)?.to_vec();
        self.buffer.drain(..end + 4 + length);
        Some(Response { status, headers, body })
    }
}

/// The status and the headers of a head, names in lower case.
fn decode_head(head: &[u8]) -> (u16, Vec<(String, String)>) {
    let head = std::str::from_utf8(head).expect("a response head is text");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("there is a first line");
    let mut words = status_line.splitn(3, ' ');
    assert_eq!(words.next(), Some("HTTP/1.1"), "status line {status_line:?}");
    let status: u16 = words.next().and_then(|word| word.parse().ok()).expect("a status is a number");
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header has a colon");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    (status, lines.map(header).collect())
}
