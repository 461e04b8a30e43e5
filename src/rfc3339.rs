//! Times as people and JSON read them: RFC 3339 in UTC.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970 as `2026-11-21T19:13:34.123Z`; beyond year 9999, which nothing stores, the year 9999's end.
pub fn rfc3339(unix_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    let text = at.and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_else(|| "9999-12-31T23:59:59Z".into())
}

/// True if [`rfc3339`] can write it.
pub fn is_representable(unix_ms: u64) -> bool {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).is_ok_and(|at| at.year() <= 9_999)
}

/// Milliseconds since 1970 of an RFC 3339 time; 0 for times before. `None` also for a time that an offset moves beyond
/// year 9999, which [`rfc3339`] could not write.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let unix_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    is_representable(unix_ms).then_some(unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written and read back; known instants as the oracle.
    #[test]
    fn times() {
        assert_eq!(rfc3339(1_353_088_179_000), "2012-11-16T17:49:39Z");
        assert_eq!(parse_rfc3339("2012-11-16T17:49:39Z"), Some(1_353_088_179_000));
        assert_eq!(parse_rfc3339("2012-11-16T18:49:39.5+01:00"), Some(1_353_088_179_500));
        assert_eq!(parse_rfc3339(&rfc3339(1_353_088_179_123)), Some(1_353_088_179_123));
        assert_eq!(parse_rfc3339("2012-11-16"), None);
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59Z").map(rfc3339).as_deref(), Some("9999-12-31T23:59:59Z"));
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59-00:01"), None, "year 10000 in UTC");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
        assert!(!is_representable(u64::MAX));
    }
}
