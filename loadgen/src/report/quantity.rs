//! Figures for people: three digits, in the unit that needs the fewest digits.

/// Nanoseconds: `830 ns`, `12.3 µs`, `5.08 s`, `3 min 20 s`.
pub(crate) fn time(nanoseconds: f64) -> String {
    let seconds = nanoseconds / 1e9;
    if seconds.abs() >= 119.5 {
        let whole = seconds.round();
        return format!("{} min {} s", (whole / 60.0).trunc(), (whole % 60.0).abs());
    }
    scaled(nanoseconds, &[("ns", 1e3), ("µs", 1e3), ("ms", 1e3), ("s", f64::INFINITY)])
}

/// Bytes: `165 B`, `1.21 MiB`.
pub(crate) fn bytes(bytes: f64) -> String {
    scaled(bytes, &[("B", 1_024.0), ("KiB", 1_024.0), ("MiB", 1_024.0), ("GiB", f64::INFINITY)])
}

/// A value in a unit that a figure or a condition may have.
pub(crate) fn readable(value: f64, unit: &str) -> String {
    match unit {
        // Zero keeps its unit.
        "ns" | "us" | "ms" | "s" if value == 0.0 => format!("0 {unit}"),
        "ns" => time(value),
        "us" => time(value * 1e3),
        "ms" => time(value * 1e6),
        "s" => time(value * 1e9),
        "B" => bytes(value),
        "%" => format!("{} %", digits(value)),
        "/s" => format!("{}/s", if value.abs() >= 1_000.0 { number(value.round()) } else { digits(value) }),
        "" => number(value),
        other => format!("{} {other}", digits(value)),
    }
}

/// A count in groups of three digits; a fraction with its significant digits.
pub(crate) fn number(value: f64) -> String {
    if value.fract() != 0.0 && value.abs() < 100_000.0 {
        return digits(value);
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

/// The first unit in which the value needs at most three digits before the point; each has its ratio to the next.
fn scaled(value: f64, units: &[(&str, f64)]) -> String {
    let mut value = value;
    for (unit, next) in units {
        // A value that rounds to the next unit is written in that unit.
        if value.abs() < next * 0.9995 {
            return if *unit == units[0].0 && value.fract() == 0.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{} {unit}", digits(value))
            };
        }
        value /= next;
    }
    unreachable!("the last unit has no upper bound")
}

/// Three digits, or all before the point, without zeros at the end.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        small if small >= 0.9995 => 2,
        0.0 => 0,
        tiny => (2 - tiny.log10().floor() as i32).clamp(3, 9) as usize,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: times are written in the unit that needs the fewest digits, also at the edges where rounding reaches the next.
    #[test]
    fn times_are_readable() {
        for (nanoseconds, text) in [
            (0.0, "0 ns"),
            (165.0, "165 ns"),
            (999.4, "999 ns"),
            (999.6, "1 µs"),
            (1_234.0, "1.23 µs"),
            (999_700.0, "1 ms"),
            (5_083_496_000.0, "5.08 s"),
            (12_345_678.0, "12.3 ms"),
            (119_000_000_000.0, "119 s"),
            (200_000_000_000.0, "3 min 20 s"),
        ] {
            assert_eq!(time(nanoseconds), text);
        }
        assert_eq!(readable(5_083.496, "ms"), "5.08 s");
        assert_eq!(readable(0.25, "us"), "250 ns");
        assert_eq!(readable(0.0, "s"), "0 s");
    }

    #[test]
    fn other_units_are_readable() {
        assert_eq!(
            [165.0, 1_023.0, 1_023.9, 1_268_777.0, 3e9].map(bytes),
            ["165 B", "1023 B", "1 KiB", "1.21 MiB", "2.79 GiB"]
        );
        assert_eq!(readable(99.987, "%"), "100 %");
        assert_eq!(readable(12_345.6, "/s"), "12,346/s");
        assert_eq!(readable(7.5, "/s"), "7.5/s");
        assert_eq!(readable(1_000_000.0, ""), "1,000,000");
        assert_eq!(readable(1.0372, ""), "1.04");
        assert_eq!(readable(0.001234, ""), "0.00123");
        assert_eq!(readable(-2_000.0, ""), "-2,000");
    }
}
