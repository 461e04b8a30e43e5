//! Responses.

/// Appends a response: status line, `Content-Type`, `Content-Length` (P-HTTP-15), `extra` header lines (each `Name:
/// value\r\n`, built by the caller from constants only), `Connection`, body.
///
/// An empty `content_type` omits that header. 204 has no type, length or body (RFC 9110 section 8.6).
pub fn encode_response(out: &mut Vec<u8>, status: u16, content_type: &str, extra: &str, body: &[u8], keep_alive: bool) {
    out.reserve(HEAD_BYTES_TYPICAL + content_type.len() + extra.len() + body.len());
    encode_response_head(out, status, content_type, extra, body.len(), keep_alive);
    if status != 204 {
        out.extend_from_slice(body);
    }
}

/// Appends the part of such a response before the body: the complete response to a HEAD request.
///
/// `Connection: keep-alive` is always written out, since without it HTTP/1.0 clients wait for the end of the stream.
pub fn encode_response_head(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    extra: &str,
    body_bytes: usize,
    keep_alive: bool,
) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(number.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    if status != 204 {
        if !content_type.is_empty() {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(content_type.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(number.format(body_bytes).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(extra.as_bytes());
    out.extend_from_slice(if keep_alive { b"Connection: keep-alive\r\n\r\n" } else { b"Connection: close\r\n\r\n" });
}

/// The reason phrase of RFC 9110 section 15 (RFC 6585 for 429 and 431); empty for statuses that are not used.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Buffer space for a head without its variable parts.
const HEAD_BYTES_TYPICAL: usize = 128;
