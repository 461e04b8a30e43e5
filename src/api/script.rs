//! The classic scripts of the JavaScript client, `GET /relay.js` and `GET /relay-resume.js` (R-CLIENT-3, threat T56).
//!
//! Their bytes are those of the files in `clients/js`: nothing of a request, such as its host or query, gets into them,
//! so their digests are the same everywhere.

/// A script that the public port serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Script {
    /// `/relay.js`: the client, over the page's pusher-js (R-CLIENT-1).
    Client,
    /// `/relay-resume.js`: resume for the page's pusher-js as it is (R-CLIENT-9).
    Resume,
}

/// The media type of both.
pub const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";

impl Script {
    /// The script of a path.
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/relay.js" => Some(Self::Client),
            "/relay-resume.js" => Some(Self::Resume),
            _ => None,
        }
    }

    /// Its text.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Client => CLIENT,
            Self::Resume => RESUME,
        }
    }

    /// Headers beside the type, whole lines. Pages of any origin may load the script and check its digest.
    pub fn headers(self) -> String {
        format!(
            "ETag: {}\r\n\
             Cache-Control: public, max-age=3600\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Access-Control-Allow-Origin: *\r\n\
             Cross-Origin-Resource-Policy: cross-origin\r\n",
            self.tag()
        )
    }

    /// True if the client has these bytes already, by its `If-None-Match` (RFC 9110 section 13.1.2).
    pub fn is_known(self, if_none_match: Option<&[u8]>) -> bool {
        let Some(Ok(tags)) = if_none_match.map(std::str::from_utf8) else { return false };
        let current = self.tag();
        tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == current)
    }

    /// Tells versions apart; it protects nothing.
    fn tag(self) -> String {
        const DIGESTS: [u64; 2] = [fnv_1a(CLIENT), fnv_1a(RESUME)];
        format!("\"{:016x}\"", DIGESTS[self as usize])
    }
}

const CLIENT: &[u8] = include_bytes!("../../clients/js/relay.js");
const RESUME: &[u8] = include_bytes!("../../clients/js/relay-resume.js");

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

    /// R-CLIENT-3: `If-None-Match` with one tag, several, a weak one, any one, and none that fits, as that of the other
    /// script. The digests are those of the published vectors of FNV-1a.
    #[test]
    fn known_scripts() {
        for (script, other) in [(Script::Client, Script::Resume), (Script::Resume, Script::Client)] {
            let headers = script.headers();
            let tag = headers.strip_prefix("ETag: ").unwrap().split('\r').next().unwrap();
            let weak = format!("W/{tag}");
            let several = format!("\"0\", {tag}");
            for known in [tag, "*", &weak, &several] {
                assert!(script.is_known(Some(known.as_bytes())), "{known}");
            }
            for unknown in ["", "\"0\"", tag.trim_matches('"'), "W/\"0\", \"1\"", &other.tag()] {
                assert!(!script.is_known(Some(unknown.as_bytes())), "{unknown}");
            }
            assert!(!script.is_known(None));
            assert!(!script.is_known(Some(&[0xff])));
        }
        assert_eq!(
            [fnv_1a(b""), fnv_1a(b"a"), fnv_1a(b"foobar")],
            [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]
        );
    }
}
