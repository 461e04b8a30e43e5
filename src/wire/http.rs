//! HTTP/1.1 requests and responses, strict against request smuggling.

/// Bounds of one request, in bytes and counts.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Request line and headers with their line ends.
    pub head_bytes_max: usize,
    /// Headers.
    pub headers_max: usize,
    /// Query of the target.
    pub query_bytes_max: usize,
    /// Body after chunked decoding.
    pub body_bytes_max: usize,
}

/// Why a request was refused. After any of these the connection is answered and closed (P-HTTP-16), except
/// that the router answers `QueryTooLong` and the like with a kept connection where the request was read whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpError {
    /// Not HTTP/1.x syntax, a smuggling pattern, a control character: 400.
    BadRequest(&'static str),
    /// Query above the limit: 400.
    QueryTooLong,
    /// Body above the limit, told from Content-Length before buffering: 413.
    BodyTooLarge,
    /// Head above the limit in bytes or headers: 431.
    HeadTooLarge,
    /// A transfer coding other than `chunked`: 501.
    UnknownTransferCoding,
    /// HTTP/2 or later preface: 505.
    Version,
}

impl HttpError {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        todo!()
    }
    /// One sentence that names the limit or the expectation.
    pub fn message(self) -> String {
        todo!()
    }
}

/// A whole request, lent from the input or from the decoder's buffer.
#[derive(Debug)]
pub struct Request<'a> {
    /// Upper-case as sent; methods are case-sensitive.
    pub method: &'a str,
    /// Path as requested, percent-encoding kept, without the query. An absolute-form target is reduced to its path.
    pub path: &'a str,
    /// What follows the first `?`, without it.
    pub query: Option<&'a str>,
    /// Headers in order; names as sent.
    pub headers: Headers<'a>,
    /// Body after chunked decoding.
    pub body: &'a [u8],
    /// Whether the connection may carry another request (version and `Connection`).
    pub keep_alive: bool,
}

/// Headers of one request.
#[derive(Debug)]
pub struct Headers<'a> {
    // A: inline list of (name, value).
    _todo: std::marker::PhantomData<&'a ()>,
}

impl<'a> Headers<'a> {
    /// The first value under this name, compared without case.
    pub fn first(&self, _name: &str) -> Option<&'a [u8]> {
        todo!()
    }
    /// The only value under this name; `Err` when it stands more than once.
    pub fn only(&self, _name: &str) -> Result<Option<&'a [u8]>, HttpError> {
        todo!()
    }
    /// True when one of the comma-separated values of this header is the token, without case.
    pub fn has_token(&self, _name: &str, _token: &str) -> bool {
        todo!()
    }
    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        std::iter::empty()
    }
}

/// What one call of [`RequestDecoder::decode`] gave.
#[derive(Debug)]
pub struct DecodedRequest<'a> {
    /// Bytes of the input that are done with. Nothing beyond the end of a request is ever consumed with it.
    pub consumed: usize,
    /// What became known.
    pub progress: Progress<'a>,
}

/// State of the request at hand.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Give more input.
    Partial,
    /// The head is whole and asks for `100 Continue` before the body; told once per request.
    ExpectsContinue,
    /// A whole request.
    Request(Request<'a>),
}

/// Reads requests out of a stream. Parses a head once per arrival of its end, not once per byte (threat T14).
#[derive(Debug, Default)]
pub struct RequestDecoder {
    // A: partial bytes; empty and without memory between requests.
    _todo: (),
}

impl RequestDecoder {
    /// Takes input. A request that lies whole in `input` is lent from it without a copy (chunked bodies excepted).
    ///
    /// # Errors
    /// The first breach; the decoder must not be used after it.
    pub fn decode<'a>(
        &'a mut self,
        _input: &'a [u8],
        _limits: &RequestLimits,
    ) -> Result<DecodedRequest<'a>, HttpError> {
        todo!()
    }
    /// True when nothing of a request is held.
    pub fn is_idle(&self) -> bool {
        todo!()
    }
}

/// Appends a response: status line, `Content-Type`, `Content-Length` (P-HTTP-15), `extra` header lines
/// (each `Name: value\r\n`, made by the caller from constants only), `Connection: close` unless `keep_alive`, body.
pub fn encode_response(
    _out: &mut Vec<u8>,
    _status: u16,
    _content_type: &str,
    _extra: &str,
    _body: &[u8],
    _keep_alive: bool,
) {
    todo!()
}

/// Why an upgrade was refused: 400, or 426 with `Sec-WebSocket-Version: 13` for another version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpgradeError {
    /// A missing or broken header, named.
    BadRequest(&'static str),
    /// `Sec-WebSocket-Version` is not 13.
    Version,
}

/// True when the request asks for an upgrade to `websocket` at all.
pub fn is_upgrade(_request: &Request<'_>) -> bool {
    todo!()
}

/// Checks the opening handshake of RFC 6455 section 4.2.1 and gives the client's key.
pub fn decode_upgrade<'a>(_request: &Request<'a>) -> Result<&'a [u8], UpgradeError> {
    todo!()
}

/// Appends the `101 Switching Protocols` answer. `accept` is the 28-byte `Sec-WebSocket-Accept` value (made by `auth`, the user of `ring`).
pub fn encode_upgrade(_out: &mut Vec<u8>, _accept: &str, _subprotocol: Option<&str>) {
    todo!()
}
