//! The classic script of the JavaScript client, `GET /relay.js` (R-CLIENT-3, threat T56).
//!
//! Its bytes are those of `clients/js/relay.js`: nothing of a request, such as its host or query, gets into them, so
//! their digest is the same everywhere.

/// The script.
pub const SCRIPT: &[u8] = include_bytes!("../../clients/js/relay.js");

/// Its media type.
pub const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";

/// Headers beside the type, whole lines. Pages of any origin may load the script and check its digest.
pub fn script_headers() -> String {
    format!(
        "ETag: \"{DIGEST:016x}\"\r\n\
         Cache-Control: public, max-age=3600\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Access-Control-Allow-Origin: *\r\n\
         Cross-Origin-Resource-Policy: cross-origin\r\n"
    )
}

/// True if the client has these bytes already, by its `If-None-Match` (RFC 9110 section 13.1.2).
pub fn is_known(if_none_match: Option<&[u8]>) -> bool {
    let Some(Ok(tags)) = if_none_match.map(std::str::from_utf8) else { return false };
    let current = format!("\"{DIGEST:016x}\"");
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == current)
}

/// Tells the scripts of two versions apart; it protects nothing.
const DIGEST: u64 = fnv_1a(SCRIPT);

const fn fnv_1a(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-CLIENT-3: `If-None-Match` with one tag, several, a weak one, any one, and none that fits. The digests are
    /// those of the published vectors of FNV-1a.
    #[test]
    fn known_scripts() {
        let headers = script_headers();
        let tag = headers.strip_prefix("ETag: ").unwrap().split('\r').next().unwrap();
        let weak = format!("W/{tag}");
        let several = format!("\"0\", {tag}");
        for known in [tag, "*", &weak, &several] {
            assert!(is_known(Some(known.as_bytes())), "{known}");
        }
        for other in ["", "\"0\"", tag.trim_matches('"'), "W/\"0\", \"1\""] {
            assert!(!is_known(Some(other.as_bytes())), "{other}");
        }
        assert!(!is_known(None));
        assert!(!is_known(Some(&[0xff])));
        assert_eq!(
            [fnv_1a(b""), fnv_1a(b"a"), fnv_1a(b"foobar")],
            [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]
        );
    }
}
