//! Times on the command line: RFC 3339 in UTC, durations such as `30d`.

pub(super) use crate::rfc3339::{is_representable, parse_rfc3339, rfc3339};

/// Milliseconds of `45s`, `90m`, `12h`, `30d` or `2w`.
pub(super) fn parse_duration_ms(text: &str) -> Option<u64> {
    let unit_ms = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 7 * 86_400_000,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()?.checked_mul(unit_ms)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units, and what is none.
    #[test]
    fn durations() {
        let good =
            [("45s", 45_000), ("90m", 5_400_000), ("12h", 43_200_000), ("30d", 2_592_000_000), ("1w", 604_800_000)];
        for (text, expected) in good {
            assert_eq!(parse_duration_ms(text), Some(expected));
        }
        for text in
            ["", "d", "30", "-1d", "+1d", "1.5h", "30 d", "99999999999999999999d", "18446744073709551615w", "3é"]
        {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }
}
