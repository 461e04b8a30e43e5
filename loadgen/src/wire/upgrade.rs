//! The answer to a WebSocket upgrade request.

/// The answer to an upgrade request.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Upgrade {
    Partial,
    /// Accepted; the head has this many bytes.
    Done(usize),
    Refused(String),
}

/// Parses the answer to an upgrade request.
pub(crate) fn read_upgrade(bytes: &[u8]) -> Upgrade {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Upgrade::Refused("no HTTP".into()) } else { Upgrade::Partial };
    };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        return Upgrade::Done(end + 4);
    }
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Upgrade::Refused(String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned())
}

const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_are_read() {
        assert_eq!(read_upgrade(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x81"), Upgrade::Done(42));
        assert_eq!(read_upgrade(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r"), Upgrade::Partial);
        assert_eq!(read_upgrade(b"HTTP/1.1 404 No\r\n\r\n"), Upgrade::Refused("HTTP/1.1 404 No".into()));
        assert!(matches!(read_upgrade(&[b'x'; HEAD_BYTES_MAX + 1]), Upgrade::Refused(_)));
    }
}
