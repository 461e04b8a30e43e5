//! Server-sent events as a client reads them (the event stream format of the HTML standard), one block of lines at a time.

use std::borrow::Cow;

/// The first block in a buffer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Decoded<'a> {
    /// The block is incomplete.
    Partial,
    /// Lines up to an empty one, `consumed` bytes with it.
    Block { block: Block<'a>, consumed: usize },
    /// The server violated the format, or the block is too long.
    Invalid(&'static str),
}

/// One block. Comments and unknown fields are left out.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Block<'a> {
    /// The value of the last line `id:`.
    pub(crate) id: Option<&'a str>,
    /// The value of the last line `event:`; empty without one.
    pub(crate) name: &'a str,
    /// The values of all lines `data:`; `None` is no event.
    pub(crate) data: Option<Cow<'a, str>>,
}

/// Decodes the first block of `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Decoded<'_> {
    let (mut block, mut rest) = (Block::default(), bytes);
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Ok(line) = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) else {
            return Decoded::Invalid("a line of the stream is not UTF-8");
        };
        if line.is_empty() {
            return Decoded::Block { block, consumed: bytes.len() - rest.len() };
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => block.id = Some(value),
            "event" => block.name = value,
            "data" => {
                block.data = Some(match block.data.take() {
                    None => Cow::Borrowed(value),
                    Some(before) => Cow::Owned(format!("{before}\n{value}")),
                });
            }
            _ => {}
        }
    }
    if bytes.len() > BLOCK_BYTES_MAX { Decoded::Invalid("an event of more than 16 MiB") } else { Decoded::Partial }
}

/// The answer to a request for a stream.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Head {
    Partial,
    /// Accepted; the head has this many bytes.
    Done(usize),
    Refused(String),
}

/// Reads the head of the answer to a request for a stream.
pub(crate) fn read_head(bytes: &[u8]) -> Head {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Head::Refused("no HTTP".into()) } else { Head::Partial };
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Head::Refused("no HTTP".into()) };
    let line = head.lines().next().unwrap_or_default();
    let is_stream = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.eq_ignore_ascii_case("content-type") && value.trim().starts_with("text/event-stream")
    };
    if line.starts_with("HTTP/1.1 200 ") && head.lines().any(is_stream) {
        return Head::Done(end + 4);
    }
    // The beginning of the body says why.
    let body = String::from_utf8_lossy(&bytes[end + 4..]);
    let text = if body.is_empty() { line.to_owned() } else { format!("{line}: {}", body.trim()) };
    Head::Refused(text.chars().take(160).collect())
}

const HEAD_BYTES_MAX: usize = 16 * 1024;
const BLOCK_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// R-SSE-8: blocks are read whole, and a cut one is partial. Method: every length of a stream of four blocks.
    #[test]
    fn blocks_are_read() {
        let stream = b"retry: 3000\n\nid: cur_a\nevent: connected\ndata: {}\n\n:\n\nid:x\r\ndata: 1\r\ndata:2\r\n\r\n";
        let expected = [
            Block::default(),
            Block { id: Some("cur_a"), name: "connected", data: Some("{}".into()) },
            Block::default(),
            Block { id: Some("x"), name: "", data: Some("1\n2".into()) },
        ];
        for length in 0..=stream.len() {
            let (mut at, mut blocks) = (0, Vec::new());
            while let Decoded::Block { block, consumed } = decode(&stream[at..length]) {
                blocks.push(block);
                at += consumed;
            }
            assert_eq!(blocks, expected[..blocks.len()], "{length}");
            assert_eq!(decode(&stream[at..length]), Decoded::Partial);
            assert!(length < stream.len() || (at == length && blocks.len() == expected.len()));
        }
        assert!(matches!(decode(b"data: \xff\n\n"), Decoded::Invalid(_)));
    }

    /// R-SSE-6: only 200 with the type of a stream is one; otherwise the answer says why.
    #[test]
    fn heads_are_read() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 3000\n\n";
        let end = head.len() - "retry: 3000\n\n".len();
        for length in 0..=head.len() {
            let expected = if length < end { Head::Partial } else { Head::Done(end) };
            assert_eq!(read_head(&head[..length]), expected, "{length}");
        }
        let refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nno\n";
        assert_eq!(read_head(refused), Head::Refused("HTTP/1.1 401 Unauthorized: no".into()));
        let other = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";
        assert_eq!(read_head(other), Head::Refused("HTTP/1.1 200 OK".into()));
    }
}
