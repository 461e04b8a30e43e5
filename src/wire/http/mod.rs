//! HTTP/1.1 requests and responses, strict against request smuggling.
//!
//! Input that two parsers of one stream could read differently is refused (threat T25): both or several of
//! Content-Length and Transfer-Encoding, folded headers, bare line feeds, and lengths that are not plain numbers. A
//! declared length is checked against its limit before a byte of the body is kept.

use crate::limits::{
    HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_OPTIONS_BYTES_MAX, HTTP_QUERY_BYTES_MAX,
};

mod chunked;
mod decoder;
mod head;
mod response;
mod upgrade;

pub use decoder::{DecodedRequest, Progress, RequestDecoder};
pub use head::Framing;
pub use response::{encode_response, encode_response_head};
pub use upgrade::{UpgradeError, decode_upgrade, encode_upgrade};

/// Limits for one request, in bytes and counts.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Request line and headers with their line ends.
    pub head_bytes_max: usize,
    /// Number of headers; a value above [`HTTP_HEADERS_MAX`] counts as that.
    pub headers_max: usize,
    /// Query of the target.
    pub query_bytes_max: usize,
    /// Body after chunked decoding.
    pub body_bytes_max: usize,
}

impl Default for RequestLimits {
    /// P-LIM-11.
    fn default() -> Self {
        Self {
            head_bytes_max: HTTP_HEAD_BYTES_MAX,
            headers_max: HTTP_HEADERS_MAX,
            query_bytes_max: HTTP_QUERY_BYTES_MAX,
            body_bytes_max: HTTP_BODY_BYTES_MAX,
        }
    }
}

/// Why a request was refused. After any of these the connection is answered and closed (P-HTTP-16), because the start
/// of the next request is unknown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpError {
    /// Not HTTP/1.x syntax, a smuggling pattern, a control character: 400.
    BadRequest(&'static str),
    /// Query above the limit: 400.
    QueryTooLong,
    /// Body above this limit, detected from Content-Length before buffering: 413.
    BodyTooLarge(usize),
    /// Head above the limit in bytes or headers: 431.
    HeadTooLarge,
    /// A transfer coding other than `chunked`: 501.
    UnknownTransferCoding,
    /// HTTP/2 or later preface: 505.
    Version,
}

impl HttpError {
    /// The status of the response to this error.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) | Self::QueryTooLong => 400,
            Self::BodyTooLarge(_) => 413,
            Self::HeadTooLarge => 431,
            Self::UnknownTransferCoding => 501,
            Self::Version => 505,
        }
    }

    /// One sentence that names the limit or the expectation.
    pub fn message(self) -> String {
        match self {
            Self::BadRequest(reason) => format!("Bad request: {reason}."),
            Self::QueryTooLong => {
                format!("The query exceeds the allowed maximum ({HTTP_QUERY_BYTES_MAX} bytes).")
            }
            Self::BodyTooLarge(bytes_max) => {
                format!("The body exceeds the allowed maximum ({bytes_max} bytes).")
            }
            Self::HeadTooLarge => {
                format!(
                    "The head exceeds the allowed maximum ({HTTP_HEAD_BYTES_MAX} bytes and {HTTP_HEADERS_MAX} headers)."
                )
            }
            Self::UnknownTransferCoding => "The only supported transfer coding is chunked.".into(),
            Self::Version => "The supported versions are HTTP/1.1 and HTTP/1.0.".into(),
        }
    }
}

/// Supported versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// HTTP/1.0: no chunked bodies, no upgrade, kept open only when requested.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A complete request, borrowed from the input or from the decoder's buffer.
#[derive(Debug)]
pub struct Request<'a> {
    /// Upper-case as sent; methods are case-sensitive.
    pub method: &'a str,
    /// Path as requested, percent-encoding kept, without the query. An absolute-form target is reduced to its path. It
    /// begins with `/`, except for `OPTIONS *`.
    pub path: &'a str,
    /// The text after the first `?`, without it.
    pub query: Option<&'a str>,
    /// Version of the request line.
    pub version: Version,
    /// Headers in order; names as sent.
    pub headers: Headers<'a>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Body after chunked decoding; empty while it is awaited, and if it was discarded.
    pub body: &'a [u8],
    /// Whether another request may follow on the connection (version and `Connection`).
    pub keep_alive: bool,
    /// Whether `Upgrade` asks for a WebSocket; the rest of the opening handshake is not checked yet.
    pub asks_for_websocket: bool,
}

impl Request<'_> {
    /// The head as it could have been sent: a request without a body can be parsed from it again.
    pub fn encode_head(&self) -> Vec<u8> {
        let (question_mark, query) = self.query.map_or(("", ""), |query| ("?", query));
        let version = if self.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut head = format!("{} {}{question_mark}{query} {version}\r\n", self.method, self.path).into_bytes();
        head.extend_from_slice(self.headers.lines);
        head
    }
}

/// The path after the configured prefix; `None` if it does not have the prefix (P-CONN-2).
pub fn without_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return None;
    }
    path.strip_prefix(prefix).filter(|rest| rest.starts_with('/'))
}

/// Headers of one request: their checked text, scanned line by line, since few are ever requested.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// Lines `name:value\r\n`, each with a token before its first colon.
    lines: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Headers that another decoder has checked, as lines `name:value\r\n`.
    pub fn of_lines(lines: &'a [u8]) -> Self {
        Self { lines }
    }

    /// The first value under this name, compared case-insensitively.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The only value under this name.
    ///
    /// # Errors
    /// `BadRequest` when the header occurs more than once.
    pub fn only(&self, name: &str) -> Result<Option<&'a [u8]>, HttpError> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(HttpError::BadRequest("a header that may be present once is repeated"));
        }
        Ok(first)
    }

    /// True when one of the comma-separated values of this header is the token, compared case-insensitively.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| has_token(value, token))
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        lines(self.lines).filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            Some((std::str::from_utf8(name).ok()?, trim(value.get(1..)?)))
        })
    }

    /// The values under one name, in order.
    fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        lines(self.lines).filter_map(move |line| {
            let (candidate, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            candidate.eq_ignore_ascii_case(name.as_bytes()).then(|| trim(value))
        })
    }
}

/// True when one of the comma-separated parts of this value is the token, compared case-insensitively. Parts beyond
/// [`HTTP_OPTIONS_BYTES_MAX`] are not examined (threat T6).
fn has_token(value: &[u8], token: &str) -> bool {
    let value = value.get(..HTTP_OPTIONS_BYTES_MAX).unwrap_or(value);
    value.split(|byte| *byte == b',').any(|part| trim(part).eq_ignore_ascii_case(token.as_bytes()))
}

/// Lines without their line feeds, up to the first empty one.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (line, after) = rest.split_at_checked(memchr::memchr(b'\n', rest)?)?;
        rest = after.get(1..)?;
        (line != b"\r").then_some(line)
    })
}

/// Without the optional whitespace around a value, and without the carriage return of its line.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests;
