//! What must be known of JSON text before any parser sees it.

/// The text nests deeper than allowed, or is not UTF-8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooDeep;

/// Refuses text whose `[` and `{` nest deeper than `depth_max`, in one pass that knows strings and escapes (threat T10),
/// and bytes that are not UTF-8 (threat T11).
///
/// Says nothing about whether the text is JSON: where it is not, the parser behind it says so.
///
/// # Errors
/// [`TooDeep`] for either.
pub fn check_depth(json: &[u8], depth_max: usize) -> Result<(), TooDeep> {
    let text = simdutf8::basic::from_utf8(json).map_err(|_| TooDeep)?;
    check_text_depth(text, depth_max)
}

/// [`check_depth`] for what is known to be UTF-8.
///
/// # Errors
/// [`TooDeep`] when it nests deeper than `depth_max`.
pub fn check_text_depth(json: &str, depth_max: usize) -> Result<(), TooDeep> {
    // Text with no more brackets than that cannot nest deeper, wherever they stand. Nearly all text is such.
    if memchr::memchr2_iter(b'[', b'{', json.as_bytes()).take(depth_max + 1).count() <= depth_max {
        return Ok(());
    }
    let mut depth = 0_usize;
    let mut rest = json.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = after_string(rest),
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Err(TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// What follows the closing quote of a string; nothing when there is none.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        // An escape is skipped with the byte that it escapes.
        let skipped = if rest[at] == b'\\' { 2 } else { 1 };
        let after = rest.get(at + skipped..).unwrap_or_default();
        if skipped == 1 {
            return after;
        }
        rest = after;
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T10: the bound is exact, and brackets in strings and behind escapes do not count.
    #[test]
    fn depth_is_counted_outside_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_depth(format!("[{}]", nested(2).repeat(100)).as_bytes(), 3), Ok(()));
        assert_eq!(check_depth(format!("[{}]", nested(2).repeat(100)).as_bytes(), 2), Err(TooDeep));
        assert_eq!(check_depth(nested(32).as_bytes(), 32), Ok(()));
        assert_eq!(check_depth(nested(33).as_bytes(), 32), Err(TooDeep));
        assert_eq!(check_depth(br#"{"a":"[[[\"[[[","b":"\\"}"#, 1), Ok(()));
        assert_eq!(check_depth(br#"{"a":"\\","b":[1]}"#, 1), Err(TooDeep));
        assert_eq!(check_depth(b"]]]][", 1), Ok(()));
        assert_eq!(check_depth(b"\"[[[[\\", 0), Ok(()));
        assert_eq!(check_depth(&b"[".repeat(1_000_000), 32), Err(TooDeep));
    }

    /// T11: what is not UTF-8 reaches no parser.
    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(check_depth(b"{\"a\":\"\xff\"}", 32), Err(TooDeep));
        assert_eq!(check_depth("{\"a\":\"\u{e9}\"}".as_bytes(), 32), Ok(()));
    }
}
