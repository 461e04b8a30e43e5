//! The two bases of the HTTP API, which differ in the format of errors (R-ERR-1).

use super::server_event::encode_json_string;

/// The base that a request used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// `/apps/{id}`: errors are text without a newline (P-STAT-7).
    Pusher,
    /// `/api/v1/apps/{id}`: errors are `{"error":code,"message":text}`.
    Relay,
}

impl Dialect {
    /// Content type and body of an error with this status.
    pub fn error_body(self, status: u16, message: &str) -> (&'static str, Vec<u8>) {
        match self {
            Self::Pusher => ("text/plain; charset=utf-8", message.as_bytes().to_vec()),
            Self::Relay => {
                let mut body = br#"{"error":"#.to_vec();
                encode_json_string(&mut body, error_code(status));
                body.extend_from_slice(br#","message":"#);
                encode_json_string(&mut body, message);
                body.push(b'}');
                ("application/json", body)
            }
        }
    }
}

/// The codes of R-ERR-1. Statuses that it does not name use the code with the nearest meaning.
fn error_code(status: u16) -> &'static str {
    match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        409 | 412 => "conflict",
        413 | 431 => "too_large",
        422 => "unprocessable",
        429 => "rate_limited",
        500.. if !matches!(status, 501 | 505) => "unavailable",
        _ => "bad_request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-ERR-1, P-STAT-7: text under `/apps`, an object under `/api/v1`; a JSON parser reads it back.
    #[test]
    fn errors_read_as_their_base_says() {
        let message = "The \"data\" content exceeds\nthe maximum";
        let (content_type, body) = Dialect::Pusher.error_body(413, message);
        assert_eq!((content_type, body), ("text/plain; charset=utf-8", message.as_bytes().to_vec()));
        for (status, code) in [
            (400, "bad_request"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (404, "not_found"),
            (405, "bad_request"),
            (409, "conflict"),
            (412, "conflict"),
            (413, "too_large"),
            (429, "rate_limited"),
            (431, "too_large"),
            (501, "bad_request"),
            (503, "unavailable"),
        ] {
            let (content_type, body) = Dialect::Relay.error_body(status, message);
            assert_eq!(content_type, "application/json");
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body, serde_json::json!({"error": code, "message": message}), "{status}");
        }
    }
}
