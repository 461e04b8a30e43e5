//! Which pages may connect: the `Origin` header against an app's list of hosts (P-CONN-8, threat T21).
//!
//! Three words name the cases without a host: `null` (a sandboxed frame, some pages from files), `file://` (Electron,
//! Cordova) and `missing` (a client that sends no `Origin`).

/// True when the list is empty, or one of its hosts matches the origin's: exactly (`example.com`), with its port
/// (`example.com:8080`, any port otherwise), or any host below it (`*.example.com`, not `example.com` itself). `*`
/// matches every origin. The scheme is not compared: an operator who wants TLS only sets `tls_only`.
pub fn origin_allowed(allowed: &[Box<str>], origin: &[u8]) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    if origin.eq_ignore_ascii_case(NULL)
        || origin.get(..FILE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(FILE))
    {
        let word = if origin.eq_ignore_ascii_case(NULL) { NULL } else { FILE };
        return allowed.iter().any(|allowed| matches!(&**allowed, "*") || allowed.eq_ignore_ascii_case(word));
    }
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let hosts = allowed.iter().filter(|allowed| !is_word(allowed));
    hosts.into_iter().any(|allowed| matches(allowed, authority) || matches(allowed, host))
}

/// Whether a client without an `Origin` may connect: always, unless the list contains `!missing`.
pub fn missing_origin_allowed(allowed: &[Box<str>]) -> bool {
    !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(NOT_MISSING))
}

fn is_word(text: &str) -> bool {
    [NULL, FILE, MISSING, NOT_MISSING].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn matches(allowed: &str, host: &str) -> bool {
    let (allowed, host) = (allowed.as_bytes(), host.as_bytes());
    match allowed.strip_prefix(b"*") {
        None => host.eq_ignore_ascii_case(allowed),
        Some(b"") => true,
        Some(below) => {
            let labels = host.len().checked_sub(below.len()).filter(|labels| *labels > 0);
            labels.and_then(|labels| host.get(labels..)).is_some_and(|end| end.eq_ignore_ascii_case(below))
        }
    }
}

/// True for a valid entry of an app's list: a host, a host with a port, `*.` before a host, `*` alone, or one of the
/// words `null`, `file://`, `missing` and `!missing`. Neither scheme nor path is allowed, so that nobody believes that
/// they are compared.
pub fn is_origin_pattern(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    text == "*" || is_word(text) || ((1..=253).contains(&host.len()) && host.bytes().all(plain))
}

/// The origin of a page that has none.
const NULL: &str = "null";
/// Prefix of the origins of pages from files.
const FILE: &str = "file://";
/// A client that sends no origin; it may connect anyway.
const MISSING: &str = "missing";
/// A client that sends no origin may not connect.
const NOT_MISSING: &str = "!missing";

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &[&str], origin: &str) -> bool {
        let list: Vec<Box<str>> = list.iter().map(|host| (*host).into()).collect();
        assert!(list.iter().all(|host| is_origin_pattern(host)), "{list:?}");
        origin_allowed(&list, origin.as_bytes())
    }

    /// P-CONN-8, threat T21: a host is matched completely, whatever its case and scheme, with any port.
    #[test]
    fn hosts_are_exact() {
        for origin in ["https://example.com", "http://Example.COM:8080", "capacitor://example.com"] {
            assert!(allowed(&["other.test", "example.com"], origin), "{origin}");
        }
        for origin in [
            "https://example.com.evil.test",
            "https://notexample.com",
            "https://www.example.com",
            "https://evil.test/example.com",
            "https://example.com:80@evil.test",
            "https://example.com@evil.test",
            "https://example.com.",
            "null",
            "",
        ] {
            assert!(!allowed(&["example.com"], origin), "{origin}");
        }
        assert!(allowed(&[], "https://anything.test"));
        assert!(!origin_allowed(&["example.com".into()], b"https://\xff.example.com"));
    }

    /// Threat T21: a port in the list is compared, also after an IPv6 address.
    #[test]
    fn ports_are_compared_where_given() {
        assert!(allowed(&["example.com:8080"], "http://example.com:8080"));
        assert!(!allowed(&["example.com:8080"], "http://example.com"));
        assert!(!allowed(&["example.com:8080"], "http://example.com:80"));
        assert!(allowed(&["[::1]"], "http://[::1]:3000") && allowed(&["[::1]"], "http://[::1]"));
        assert!(allowed(&["[::1]:3000"], "http://[::1]:3000") && !allowed(&["[::1]:3000"], "http://[::1]"));
    }

    /// P-CONN-8: origins without a host are named by words, each of which matches only itself; `!missing` refuses
    /// clients without an origin.
    #[test]
    fn words_name_what_has_no_host() {
        for (list, null, file) in [
            (vec!["null"], true, false),
            (vec!["file://"], false, true),
            (vec!["example.com", "NULL", "file://"], true, true),
            (vec!["*"], true, true),
            (vec!["missing"], false, false),
            (vec!["*.com", "file"], false, false),
        ] {
            assert_eq!(allowed(&list, "null"), null, "{list:?}");
            assert_eq!(allowed(&list, "file://"), file, "{list:?}");
            assert_eq!(allowed(&list, "file:///android_asset/index.html"), file, "{list:?}");
            let boxed: Vec<Box<str>> = list.iter().map(|host| (*host).into()).collect();
            assert!(missing_origin_allowed(&boxed));
        }
        assert!(!allowed(&["null", "missing", "file://"], "https://null") && !allowed(&["missing"], "https://missing"));
        assert!(missing_origin_allowed(&[]) && missing_origin_allowed(&["example.com".into()]));
        assert!(!missing_origin_allowed(&["example.com".into(), "!missing".into()]));
    }

    /// Threat T21: `*.` matches at least one label, `*` matches everything; elsewhere a star is not a pattern.
    #[test]
    fn stars_stand_for_labels() {
        let list = ["*.example.com"];
        assert!(allowed(&list, "https://www.example.com") && allowed(&list, "https://a.b.EXAMPLE.com:444"));
        for origin in ["https://example.com", "https://.example.com.evil.test", "https://wwwexample.com"] {
            assert!(!allowed(&list, origin), "{origin}");
        }
        assert!(allowed(&["*.example.com:444"], "https://a.example.com:444"));
        assert!(!allowed(&["*.example.com:444"], "https://a.example.com"));
        assert!(allowed(&["*"], "https://anything.test") && allowed(&["*"], "null"));
        for text in ["**", "*example.com", "a.*.com", "https://example.com", "example.com/path", "", "*.", "a b"] {
            assert!(!is_origin_pattern(text), "{text}");
        }
    }
}
