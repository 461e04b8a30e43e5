//! The single form of answer to a request that is not carried out (section 7.1 of the Pusher protocol, R-ERR-1).

use crate::app::Scope;
use crate::auth::request::RequestRefusal;
use crate::protocol::dialect::Dialect;
use crate::wire::query::QueryError;

/// Status, sentence and `Retry-After` of a refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// HTTP status, 4xx or 5xx.
    pub status: u16,
    /// One sentence that names the limit or the expected form.
    pub message: String,
    /// Seconds for `Retry-After` (429 and 503).
    pub retry_after_s: Option<u32>,
    /// The limit of requests per minute, once it is used up, for `X-RateLimit-Limit` (R-LIM-4).
    pub rate_limit: Option<u32>,
    /// Further header lines of the answer.
    pub headers: Box<str>,
}

/// 400 (P-STAT-1).
impl From<QueryError<'_>> for Refusal {
    fn from(error: QueryError<'_>) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl Refusal {
    /// 400: the request breaks a rule that the sentence names (P-STAT-1).
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, message)
    }

    /// 401: no credential, or an invalid one (P-STAT-2).
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::plain(401, message)
    }

    /// 403: the credential is valid but lacks the permission (P-STAT-3).
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::plain(403, message)
    }

    /// 403 for a token without the scope (R-TOKEN-6).
    pub fn missing_scope(scope: Scope) -> Self {
        Self::forbidden(format!("This token lacks the scope {scope}."))
    }

    /// 404: unknown app or path (P-STAT-4).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::plain(404, message)
    }

    /// 405; the answer also has `Allow` with the same methods.
    pub fn method_not_allowed(allow: &str) -> Self {
        Self::plain(405, format!("This path accepts only {allow}."))
    }

    /// 413: data or body above its limit (P-STAT-5).
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::plain(413, message)
    }

    /// 413 for event data, in the hosted service's wording (P-LIM-3, P-STAT-7).
    pub fn data_too_large(bytes_max: usize) -> Self {
        Self::too_large(format!("The data content of this event exceeds the allowed maximum ({bytes_max} bytes)."))
    }

    /// 415: the body has a content coding (P-HTTP-18).
    pub fn encoded_body() -> Self {
        Self::plain(415, "The body has a Content-Encoding. Send it uncompressed (identity).")
    }

    /// 429: too many requests or failures (P-STAT-6).
    pub fn too_many(message: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::plain(429, message) }
    }

    /// 429 in place of 401 for an address that guesses credentials (threat T6).
    pub fn too_many_failures() -> Self {
        Self::too_many("Too many failed credentials from this address; try again in a minute.", 60)
    }

    /// 429: the limit of requests per minute is reached (R-LIM-4); `setting` is the setting that defines it.
    pub fn over_rate(limit: u32, setting: &str, retry_after_s: u32) -> Self {
        let of_what = match setting {
            "signed_requests_per_minute" => "signed requests",
            "key_requests_per_minute" => "requests with key and secret",
            "token_requests_per_minute" => "requests with a token",
            _ => "requests",
        };
        let message = format!("This app is at its limit of {limit} {of_what} per minute ({setting}).");
        Self { rate_limit: Some(limit), ..Self::too_many(message, retry_after_s) }
    }

    /// The daily message quota is used up (R-LIM-3): 403 under `/apps`, as in the hosted service, otherwise 429.
    pub fn over_daily_quota(dialect: Dialect, limit: u32, retry_after_s: u32) -> Self {
        let message = format!(
            "This request exceeds the limit of {limit} messages per day (messages_per_day). The day ends at 00:00 UTC."
        );
        match dialect {
            Dialect::Pusher => Self::forbidden(message),
            Dialect::Relay => Self::too_many(message, retry_after_s),
        }
    }

    /// 429: the app already has its maximum number of channels, and the event is for another one (R-LIM-5).
    pub fn over_channels(limit: u32) -> Self {
        let message = format!(
            "This app is at its limit of {limit} occupied channels (max_channels), and this channel has no subscribers."
        );
        Self::too_many(message, 1)
    }

    /// 502: the authorizer of the app did not answer, or not validly (R-AUTHEP-3).
    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::plain(502, message)
    }

    /// 508: an authorizer asks an auth endpoint (R-AUTHEP-11).
    pub fn auth_loop() -> Self {
        Self::plain(508, "The authorizer of this app sends its requests back to Relay: set it to your own backend.")
    }

    /// 503: overload; no part of the request was carried out (P-STAT-8).
    pub fn unavailable(message: impl Into<String>, retry_after_s: u32) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::plain(503, message) }
    }

    /// The header lines with the retry time and the limit, or nothing.
    pub fn header_lines(&self) -> String {
        let retry_after = self.retry_after_s.map(|seconds| format!("Retry-After: {seconds}\r\n"));
        let limit = self.rate_limit.map(|limit| format!("X-RateLimit-Limit: {limit}\r\nX-RateLimit-Remaining: 0\r\n"));
        [retry_after, limit, Some(self.headers.to_string())].into_iter().flatten().collect()
    }

    /// Adds header lines to the answer.
    #[must_use]
    pub fn with_headers(self, lines: &str) -> Self {
        Self { headers: lines.into(), ..self }
    }

    /// Prefixes the sentence with words that identify the part of a request it is about.
    #[must_use]
    pub fn within(self, part: &str) -> Self {
        Self { message: format!("{part}: {}", self.message), ..self }
    }

    fn plain(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after_s: None, rate_limit: None, headers: "".into() }
    }
}

impl From<RequestRefusal> for Refusal {
    fn from(refusal: RequestRefusal) -> Self {
        match refusal {
            RequestRefusal::UnknownApp(message) => Self::not_found(message),
            RequestRefusal::Unauthorized(_, message) => Self::unauthorized(message),
            RequestRefusal::TwoKinds => Self::bad_request(
                "The request has an admin token and a credential of the app: send the one that is meant.",
            ),
            RequestRefusal::AppDisabled => Self::forbidden("This app is disabled."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthFailure;

    /// P-STAT-1 to P-STAT-8, P-STAT-7: each kind has its status, and only 429 and 503 include a retry time.
    #[test]
    fn kinds_have_their_status() {
        let rows = [
            (Refusal::bad_request("m"), 400, None),
            (Refusal::unauthorized("m"), 401, None),
            (Refusal::forbidden("m"), 403, None),
            (Refusal::not_found("m"), 404, None),
            (Refusal::method_not_allowed("POST"), 405, None),
            (Refusal::too_large("m"), 413, None),
            (Refusal::too_many_failures(), 429, Some(60)),
            (Refusal::unavailable("m", 1), 503, Some(1)),
            (RequestRefusal::UnknownApp("m".into()).into(), 404, None),
            (RequestRefusal::Unauthorized(AuthFailure::BadToken, "m".into()).into(), 401, None),
            (RequestRefusal::TwoKinds.into(), 400, None),
            (RequestRefusal::AppDisabled.into(), 403, None),
        ];
        for (refusal, status, retry_after_s) in rows {
            assert_eq!((refusal.status, refusal.retry_after_s), (status, retry_after_s), "{refusal:?}");
        }
        assert_eq!(
            Refusal::data_too_large(10_240).message,
            "The data content of this event exceeds the allowed maximum (10240 bytes)."
        );
        assert_eq!(Refusal::bad_request("m").within("batch[3]").message, "batch[3]: m");
    }
}
