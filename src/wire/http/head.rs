//! The head of a request: where it ends, and how it delimits the body that follows.

use std::mem::MaybeUninit;

use super::{Headers, HttpError, Request, RequestLimits, Version, has_token, trim};
use crate::limits::HTTP_HEADERS_MAX;

/// How far a head was scanned, so that every byte is examined once however few arrive at a time (threat T14).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    /// Bytes before this contain no line end that was not seen.
    scanned: usize,
    /// Where the current line began.
    line_start: usize,
}

impl HeadScan {
    /// Where the head ends, once its empty line has arrived. `bytes` begins with those of the earlier calls.
    ///
    /// # Errors
    /// `BadRequest` for a bare line feed, and for a first byte that begins no request line: without that check, the
    /// decoder would wait until the deadline for the rest of a TLS greeting.
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        check_beginning(bytes)?;
        while let Some(offset) = memchr::memchr(b'\n', bytes.get(self.scanned..).unwrap_or_default()) {
            let line = bytes.get(self.line_start..self.scanned + offset).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(HttpError::BadRequest("a line ends without a carriage return"));
            };
            self.scanned += offset + 1;
            let is_leading = self.line_start == 0;
            self.line_start = self.scanned;
            // Some clients send one empty line before the request line, after a body (RFC 9112 section 2.2).
            if line.is_empty() && !is_leading {
                return Ok(Some(self.scanned));
            }
        }
        self.scanned = bytes.len();
        Ok(None)
    }
}

/// How the body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// This many bytes; 0 without a Content-Length.
    Length(usize),
    /// Chunked transfer coding.
    Chunked,
}

/// A checked head.
#[derive(Debug)]
pub(super) struct Head<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    version: Version,
    headers: Headers<'a>,
    keep_alive: bool,
    asks_for_websocket: bool,
    /// How the body is delimited.
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

impl<'a> Head<'a> {
    /// Parses a head whose end [`HeadScan::find_end`] found.
    ///
    /// # Errors
    /// The first violation of RFC 9112 or of a limit.
    pub(super) fn parse(bytes: &'a [u8], limits: &RequestLimits) -> Result<Self, HttpError> {
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let mut storage = [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let slots = limits.headers_max.min(HTTP_HEADERS_MAX);
        match request.parse_with_uninit_headers(bytes, &mut storage[..slots]) {
            Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
            Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => {
                return Err(HttpError::BadRequest("empty head"));
            }
            Err(error) => return Err(syntax_error(error, bytes)),
        }
        let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
        let method = request.method.unwrap_or_default();
        let (path, query) = split_target(method, request.path.unwrap_or_default())?;
        let lines_start = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        let headers = Headers { lines: bytes.get(lines_start..).unwrap_or_default() };
        let deciding = DecidingHeaders::find(request.headers);
        check_host(deciding.host, version)?;
        let framing = decode_framing(deciding.coding, deciding.length, version)?;
        if query.is_some_and(|query| query.len() > limits.query_bytes_max) {
            return Err(HttpError::QueryTooLong);
        }
        if matches!(framing, Framing::Length(length) if length > limits.body_bytes_max) {
            return Err(HttpError::BodyTooLarge(limits.body_bytes_max));
        }
        let keep_alive = !deciding.close && (version == Version::Http11 || deciding.keep_alive);
        let expects_continue = version == Version::Http11 && framing != Framing::Length(0) && deciding.expects_continue;
        let asks_for_websocket = deciding.asks_for_websocket;
        Ok(Self { method, path, query, version, headers, keep_alive, asks_for_websocket, framing, expects_continue })
    }

    /// The request with its body, as far as the body is known.
    pub(super) fn into_request(self, body: &'a [u8]) -> Request<'a> {
        let Self { method, path, query, version, headers, keep_alive, asks_for_websocket, framing, .. } = self;
        Request { method, path, query, version, headers, framing, body, keep_alive, asks_for_websocket }
    }
}

/// The headers that determine how to read a request, found in one pass over all of them.
#[derive(Default)]
struct DecidingHeaders<'a> {
    host: Occurrence<'a>,
    coding: Occurrence<'a>,
    length: Occurrence<'a>,
    /// `Connection` requests this.
    close: bool,
    /// `Connection` requests this.
    keep_alive: bool,
    /// `Expect` requests this.
    expects_continue: bool,
    /// `Upgrade` requests this.
    asks_for_websocket: bool,
}

impl<'a> DecidingHeaders<'a> {
    fn find(headers: &[httparse::Header<'a>]) -> Self {
        let mut found = Self::default();
        for httparse::Header { name, value } in headers {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            // Few headers have the length of one of these names.
            match name.len() {
                4 if is("host") => found.host.add(value),
                17 if is("transfer-encoding") => found.coding.add(value),
                14 if is("content-length") => found.length.add(value),
                10 if is("connection") => {
                    found.close |= has_token(value, "close");
                    found.keep_alive |= has_token(value, "keep-alive");
                }
                7 if is("upgrade") => found.asks_for_websocket |= has_token(value, "websocket"),
                6 if is("expect") => found.expects_continue |= has_token(value, "100-continue"),
                _ => {}
            }
        }
        found
    }
}

/// Number of occurrences of a header that may appear once.
#[derive(Clone, Copy, Default)]
enum Occurrence<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Several,
}

impl<'a> Occurrence<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(trim(value)),
            Self::Once(_) | Self::Several => Self::Several,
        };
    }
}

/// True for the characters of a token (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A request begins with a method, after at most one empty line.
fn check_beginning(bytes: &[u8]) -> Result<(), HttpError> {
    let method = match bytes {
        [b'\r', b'\n', rest @ ..] => rest,
        [b'\r'] => return Ok(()),
        _ => bytes,
    };
    if method.first().is_some_and(|byte| !is_token_byte(*byte)) {
        return Err(HttpError::BadRequest("this is not an HTTP request line"));
    }
    Ok(())
}

fn syntax_error(error: httparse::Error, bytes: &[u8]) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::HeadTooLarge,
        httparse::Error::Version if names_another_version(bytes) => HttpError::Version,
        httparse::Error::HeaderName => HttpError::BadRequest("a header name that is not a token"),
        httparse::Error::HeaderValue => HttpError::BadRequest("a header value with a control character"),
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
            HttpError::BadRequest("malformed request line")
        }
    }
}

/// True for a request line of three parts whose version is well-formed but not supported, as in the preface of HTTP/2.
fn names_another_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ').skip(2);
    let is_version = parts.next().is_some_and(|version| {
        matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
    });
    is_version && parts.next().is_none()
}

/// Path and query of an origin-form or absolute-form target (RFC 9112 section 3.2).
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), HttpError> {
    let origin = if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        target
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(HttpError::BadRequest("the target is not a path"))?;
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        // An absolute URI has no fragment (RFC 3986 section 4.3).
        if !is_http || authority_end == 0 || rest.contains('#') {
            return Err(HttpError::BadRequest("the target is not a path"));
        }
        &rest[authority_end..]
    };
    let (path, query) = match origin.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin, None),
    };
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// Exactly one Host under HTTP/1.1, at most one under HTTP/1.0 (RFC 9112 section 3.2).
fn check_host(host: Occurrence<'_>, version: Version) -> Result<(), HttpError> {
    match host {
        Occurrence::Several => Err(HttpError::BadRequest("several Host headers")),
        Occurrence::Absent if version == Version::Http11 => Err(HttpError::BadRequest("no Host header")),
        Occurrence::Once(host) if !host.iter().all(|byte| is_host_byte(*byte)) => {
            Err(HttpError::BadRequest("a Host header without a host"))
        }
        Occurrence::Absent | Occurrence::Once(_) => Ok(()),
    }
}

/// Characters of `uri-host [":" port]` (RFC 3986 section 3.2), excluding the comma, which two joined headers would
/// contain.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// The smuggling rules of RFC 9112 section 6, each in its strictest reading.
fn decode_framing(coding: Occurrence<'_>, length: Occurrence<'_>, version: Version) -> Result<Framing, HttpError> {
    use Occurrence::{Absent, Once, Several};
    match (coding, length) {
        (Several, _) => Err(HttpError::BadRequest("several Transfer-Encoding headers")),
        (_, Several) => Err(HttpError::BadRequest("several Content-Length headers")),
        (Once(_), Once(_)) => Err(HttpError::BadRequest("both Transfer-Encoding and Content-Length")),
        (Once(_), Absent) if version == Version::Http10 => {
            Err(HttpError::BadRequest("Transfer-Encoding with HTTP/1.0"))
        }
        (Once(coding), Absent) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (Once(_), Absent) => Err(HttpError::UnknownTransferCoding),
        (Absent, Once(length)) => decode_content_length(length).map(Framing::Length),
        (Absent, Absent) => Ok(Framing::Length(0)),
    }
}

/// Digits only: no sign, no list, no number beyond the machine's range.
fn decode_content_length(text: &[u8]) -> Result<usize, HttpError> {
    const MALFORMED: HttpError = HttpError::BadRequest("a Content-Length that is not a number");
    if text.is_empty() {
        return Err(MALFORMED);
    }
    text.iter().try_fold(0_usize, |length, byte| {
        let digit = char::from(*byte).to_digit(10).ok_or(MALFORMED)?;
        length.checked_mul(10).and_then(|length| length.checked_add(digit as usize)).ok_or(MALFORMED)
    })
}
