//! Parses the answer to an HTTP/1.1 request, as far as a publisher needs it.

/// The first answer in a buffer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Answer<'a> {
    Partial,
    /// One answer of `consumed` bytes. `body` is its plain or still chunked body.
    Done {
        status: u16,
        body: &'a [u8],
        consumed: usize,
    },
    Invalid(&'static str),
}

/// Reads the first answer of `bytes`.
pub(crate) fn read_answer(bytes: &[u8]) -> Answer<'_> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Answer::Invalid("head without an end") } else { Answer::Partial };
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Answer::Invalid("head is not text") };
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let Some(status) = status else { return Answer::Invalid("no HTTP/1 status line") };
    let mut length = 0_usize;
    let mut is_chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            match value.parse() {
                Ok(bytes) => length = bytes,
                Err(_) => return Answer::Invalid("bad Content-Length"),
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.eq_ignore_ascii_case("chunked");
        }
    }
    let begin = end + 4;
    if length > BODY_BYTES_MAX {
        return Answer::Invalid("answer of more than 16 MiB");
    }
    let length = if is_chunked { chunked_length(&bytes[begin..]) } else { Some(length) };
    match length.and_then(|length| bytes.get(begin..begin + length)) {
        Some(body) => Answer::Done { status, body, consumed: begin + body.len() },
        None if bytes.len() > begin + BODY_BYTES_MAX => Answer::Invalid("answer of more than 16 MiB"),
        None => Answer::Partial,
    }
}

/// Length of a chunked body, or `None` if it is incomplete.
fn chunked_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size =
            usize::from_str_radix(size.split(';').next()?.trim(), 16).ok().filter(|size| *size < BODY_BYTES_MAX)?;
        at += line + 2 + size + 2;
        if at > bytes.len() {
            return None;
        }
        if size == 0 {
            return Some(at);
        }
    }
}

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: pipelined answers are separated, and an answer cut at any byte is partial.
    #[test]
    fn answers_are_read() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".as_slice();
        let chunked = b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".as_slice();
        for (bytes, status) in [(plain, 200), (chunked, 401)] {
            let both = [bytes, b"HTTP/1.1"].concat();
            let Answer::Done { status: read, consumed, .. } = read_answer(&both) else { panic!("{both:?}") };
            assert_eq!((read, consumed), (status, bytes.len()));
            for cut in 0..bytes.len() {
                assert_eq!(read_answer(&bytes[..cut]), Answer::Partial, "cut at {cut}");
            }
        }
        assert!(matches!(read_answer(b"SSH-2.0\r\n\r\n"), Answer::Invalid(_)));
    }
}
