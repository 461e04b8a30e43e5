//! Percent-encoding as the usual languages do it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What usual languages make of a text.
pub(super) const CODINGS: [fn(&str) -> String; 9] = [
    rfc_3986,
    form,
    |text| utf8_percent_encode(text, JAVASCRIPT).to_string(),
    |text| utf8_percent_encode(text, URI).to_string(),
    |text| lower_escapes(&rfc_3986(text)),
    |text| lower_escapes(&form(text)),
    |text| utf8_percent_encode(text, FORM).to_string(),
    |text| percent_decode_str(text).decode_utf8_lossy().into_owned(),
    |text| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned(),
];

/// A text in each of these codings: each result once, without the text itself.
pub(super) fn percent_encoded(text: &str) -> Vec<String> {
    let mut different: Vec<String> = Vec::new();
    for coded in CODINGS.map(|coding| coding(text)) {
        if coded != text && !different.contains(&coded) {
            different.push(coded);
        }
    }
    different
}

fn rfc_3986(text: &str) -> String {
    utf8_percent_encode(text, RFC_3986).to_string()
}

fn form(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string().replace("%20", "+")
}

/// `%2F` as `%2f`, as .NET Framework wrote it.
fn lower_escapes(encoded: &str) -> String {
    let mut out = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.find('%') {
        let end = (at + 3).min(rest.len());
        out.push_str(&rest[..at]);
        out.push_str(&rest[at..end].to_ascii_lowercase());
        rest = &rest[end..];
    }
    out + rest
}

/// RFC 3986: PHP's `rawurlencode`, Python's `quote(safe="")`, Ruby's `ERB::Util.url_encode`.
const RFC_3986: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Forms: PHP's `urlencode`, Java's `URLEncoder`.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
/// JavaScript's `encodeURIComponent`.
const JAVASCRIPT: &AsciiSet = &RFC_3986.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');
/// JavaScript's `encodeURI`.
const URI: &AsciiSet = &JAVASCRIPT
    .remove(b';')
    .remove(b',')
    .remove(b'/')
    .remove(b'?')
    .remove(b':')
    .remove(b'@')
    .remove(b'&')
    .remove(b'=')
    .remove(b'+')
    .remove(b'$')
    .remove(b'#');

#[cfg(test)]
mod tests {
    use super::*;

    /// R-EXPLAIN-2: the encodings of usual languages, each once.
    #[test]
    fn encodings_of_usual_languages() {
        let all = percent_encoded("a b/é(~)");
        for expected in [
            "a%20b%2F%C3%A9%28~%29", // PHP rawurlencode
            "a+b%2F%C3%A9%28%7E%29", // PHP urlencode, Java
            "a%20b%2F%C3%A9(~)",     // encodeURIComponent
            "a%20b/%C3%A9(~)",       // encodeURI
            "a%20b%2f%c3%a9%28~%29", // lower-case digits
        ] {
            assert!(all.iter().any(|text| text == expected), "{expected}: {all:?}");
        }
        assert_eq!(percent_encoded("a%20b").iter().filter(|text| *text == "a b").count(), 1);
        assert_eq!(percent_encoded("private-orders.7"), Vec::<String>::new());
        assert_eq!(lower_escapes("%"), "%");
        assert_eq!(lower_escapes("%2Fx%A"), "%2fx%a");
    }
}
