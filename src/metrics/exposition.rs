//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::histogram::Histogram;

use crate::label::{Label, labels};

/// The media type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

labels! {
    /// The type of a family of samples.
    pub enum Kind {
        /// It increases, and starts again at 0 with the process.
        Counter => "counter",
        /// It goes up and down.
        Gauge => "gauge",
        /// Times in buckets.
        Histogram => "histogram",
        /// A counter under the name that another product uses, which does not end in `_total`.
        Untyped => "untyped",
    }
}

/// Labels of one sample.
pub type Labels<'a> = [(&'a str, &'a str)];

/// A page being built.
pub struct Page<'a> {
    prefix: &'a str,
    text: String,
    family: String,
}

impl<'a> Page<'a> {
    /// An empty page, all of whose names begin with `prefix`.
    pub fn new(prefix: &'a str) -> Self {
        Self { prefix, text: String::new(), family: String::new() }
    }

    /// Starts a family. All its samples follow before the next one starts.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) {
        self.begin(format!("{}{name}", self.prefix), kind, help);
    }

    /// As [`Page::family`], under a name that is the same for every program.
    pub fn standard_family(&mut self, kind: Kind, name: &str, help: &str) {
        self.begin(name.to_owned(), kind, help);
    }

    fn begin(&mut self, family: String, kind: Kind, help: &str) {
        debug_assert!(!help.contains(['\n', '\\']), "a help text is one plain line");
        self.family = family;
        writeln!(self.text, "# HELP {} {help}\n# TYPE {0} {1}", self.family, kind.label())
            .expect("a string takes text");
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &Labels<'_>, value: u64) {
        self.line("", labels, None, format_args!("{value}"));
    }

    /// A sample in seconds, of a value in µs.
    pub fn seconds(&mut self, labels: &Labels<'_>, us: u64) {
        self.line("", labels, None, format_args!("{}", Seconds(us)));
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: &Labels<'_>, histogram: &Histogram) {
        for (bound_us, count) in histogram.cumulative() {
            self.line("_bucket", labels, Some(&Seconds(bound_us).to_string()), format_args!("{count}"));
        }
        self.line("_bucket", labels, Some("+Inf"), format_args!("{}", histogram.count()));
        self.line("_sum", labels, None, format_args!("{}", Seconds(histogram.sum_us())));
        self.line("_count", labels, None, format_args!("{}", histogram.count()));
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, bound: Option<&str>, value: std::fmt::Arguments<'_>) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        for (number, (name, value)) in labels.iter().copied().chain(bound).enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() || bound.is_some() {
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect("a string takes text");
    }
}

/// Microseconds, written as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        let digits = format!("{rest:06}");
        write!(formatter, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Whether all names with this prefix are valid in Prometheus.
pub fn is_prefix(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    text.len() <= 64 && text.bytes().all(is_name) && !text.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A family has its help and type before its samples; label values are escaped, times are in seconds.
    #[test]
    fn the_text_format() {
        let mut page = Page::new("relay_");
        page.family(Kind::Gauge, "connected", "Open WebSockets.");
        page.sample(&[("app_id", "a\"b\\c\nd"), ("port", "6001")], 3);
        page.sample(&[], 1);
        page.standard_family(Kind::Counter, "process_cpu_seconds_total", "Time.");
        page.seconds(&[], 1_250_000);
        let expected = "# HELP relay_connected Open WebSockets.\n# TYPE relay_connected gauge\n\
                        relay_connected{app_id=\"a\\\"b\\\\c\\nd\",port=\"6001\"} 3\nrelay_connected 1\n\
                        # HELP process_cpu_seconds_total Time.\n# TYPE process_cpu_seconds_total counter\n\
                        process_cpu_seconds_total 1.25\n";
        assert_eq!(page.finish(), expected);
    }

    /// A histogram lists cumulative buckets in seconds, `+Inf`, sum and count.
    #[test]
    fn histograms_are_cumulative() {
        let mut histogram = Histogram::default();
        [5, 30, 99_000_000].into_iter().for_each(|us| histogram.observe(us));
        let mut page = Page::new("");
        page.family(Kind::Histogram, "t_seconds", "T.");
        page.histogram(&[("shard", "0")], &histogram);
        let text = page.finish();
        for line in [
            "t_seconds_bucket{shard=\"0\",le=\"0.00001\"} 1\n",
            "t_seconds_bucket{shard=\"0\",le=\"0.00005\"} 2\n",
            "t_seconds_bucket{shard=\"0\",le=\"10\"} 2\n",
            "t_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3\n",
            "t_seconds_sum{shard=\"0\"} 99.000035\n",
            "t_seconds_count{shard=\"0\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    /// Only a prefix that gives valid names is accepted.
    #[test]
    fn prefixes() {
        assert!(["", "relay_", "soketi_", "a:b_9"].into_iter().all(is_prefix));
        assert!(!["9a", "a-b", "a b", "é", "a\n"].into_iter().any(is_prefix));
    }
}
