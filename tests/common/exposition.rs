//! A strict reader of Prometheus' text format 0.0.4, independent of the writer: Prometheus accepts everything that it
//! accepts.

use std::collections::{BTreeMap, BTreeSet};

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// By name.
    pub families: BTreeMap<String, Family>,
}

/// All samples of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `untyped`.
    pub kind: String,
    /// The help text.
    pub help: String,
    /// In order.
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name with its suffix.
    pub name: String,
    /// Sorted.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Page {
    /// Reads a page, which must be valid in every respect.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut page = Self::default();
        let mut current: Option<String> = None;
        let mut lines = text.lines();
        let mut series = BTreeSet::new();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("a help text: {line}"));
                let kind =
                    lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")).map(str::to_owned));
                let kind = kind.unwrap_or_else(|| panic!("TYPE follows HELP of {name}"));
                assert!(["counter", "gauge", "histogram", "untyped"].contains(&kind.as_str()), "{name}: {kind}");
                assert!(is_name(name, true), "{name}");
                let family = Family { kind, help: help.to_owned(), samples: Vec::new() };
                assert!(page.families.insert(name.to_owned(), family).is_none(), "{name} stands together, once");
                current = Some(name.to_owned());
                continue;
            }
            let name = current.clone().unwrap_or_else(|| panic!("a sample before its family: {line}"));
            let sample = Sample::read(line);
            let family = page.families.get_mut(&name).expect("inserted");
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| sample.name == format!("{name}{suffix}")), "{line} in {name}");
            assert!(series.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
            family.samples.push(sample);
        }
        page.families.iter().for_each(|(name, family)| family.check(name));
        page
    }

    /// The value of one series; its labels are exactly these, in any order.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = self.samples(name).into_iter().find(|sample| sample.labels == labels);
        found.unwrap_or_else(|| panic!("no {name} {labels:?} among {:?}", self.samples(name))).value
    }

    /// The sum of all series of a name that have these labels.
    #[track_caller]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|found| found == value))
        };
        self.samples(name).into_iter().filter(has).map(|sample| sample.value).sum()
    }

    /// All samples of a name.
    #[track_caller]
    pub fn samples(&self, name: &str) -> Vec<&Sample> {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let family = self.families.get(name).or_else(|| self.families.get(base));
        let family = family.unwrap_or_else(|| panic!("there is no {name} among {:?}", self.families.keys()));
        family.samples.iter().filter(|sample| sample.name == name).collect()
    }
}

impl Family {
    fn check(&self, name: &str) {
        assert!(self.help.ends_with('.') && self.help.len() > 3, "{name} says what it is: {:?}", self.help);
        assert_eq!(self.kind == "counter", name.ends_with("_total"), "{name} is a {}", self.kind);
        for sample in &self.samples {
            assert!(sample.value >= 0.0 && sample.value.is_finite(), "{sample:?}");
        }
        if self.kind == "histogram" {
            self.check_histogram(name);
        }
    }

    fn check_histogram(&self, name: &str) {
        let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").unwrap_or_else(|| panic!("{name}: a bucket has a bound"));
            buckets.entry(labels).or_default().push((number(&bound), sample.value));
        }
        for (labels, buckets) in buckets {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?} {buckets:?}");
            let (last, count) = buckets[buckets.len() - 1];
            assert!(last.is_infinite(), "{name}: the last bucket is +Inf");
            let of = |suffix: &str| {
                let found = self
                    .samples
                    .iter()
                    .find(|sample| sample.name == format!("{name}{suffix}") && sample.labels == labels);
                found.unwrap_or_else(|| panic!("{name}{suffix} {labels:?}")).value
            };
            assert_eq!(of("_count"), count, "{name} {labels:?}");
            assert!(of("_sum") >= 0.0);
        }
    }
}

impl Sample {
    fn read(line: &str) -> Self {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("a sample: {line:?}"));
        let (name, mut rest) = line.split_at(end);
        assert!(is_name(name, true), "{line:?}");
        let mut labels = BTreeMap::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("a label: {line:?}"));
                assert!(is_name(label, false) && !label.starts_with("__"), "{line:?}");
                let (value, after) = unescape(value);
                assert!(labels.insert(label.to_owned(), value).is_none(), "a label stands once: {line:?}");
                match after.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => {
                        rest = after.strip_prefix('}').unwrap_or_else(|| panic!("labels end: {line:?}"));
                        break;
                    }
                }
            }
        }
        let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("one space before the value: {line:?}"));
        Self { name: name.to_owned(), labels, value: number(value) }
    }
}

/// The value up to its closing quote, and the text after it.
fn unescape(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("no escape: {other:?} in {text:?}"),
            },
            other => value.push(other),
        }
    }
    panic!("a label value ends with a quote: {text:?}");
}

fn number(text: &str) -> f64 {
    if text == "+Inf" { f64::INFINITY } else { text.parse().unwrap_or_else(|_| panic!("a number: {text:?}")) }
}

fn is_name(text: &str, colons: bool) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|first| !first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':'))
}
