//! `--fail-if`: conditions that a run must meet, such as `p99<50ms,loss=0`.

use std::str::FromStr;

use crate::messages::{MEASURES, Measure};
use crate::outcome::Verdict;
use crate::report::histogram::{PERCENTILES, milliseconds};
use crate::report::quantity;
use crate::report::{self, Figure, Report};

/// Conditions that must all hold.
#[derive(Clone, Debug)]
pub(crate) struct Thresholds {
    text: String,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    /// A percentile, `min`, `max` or `mean`, with `delivery.`, `join.`, `arrival.`, `resume.`, `answer.` or `lag.` before
    /// it or not; or a figure of the report.
    name: String,
    relation: Relation,
    value: f64,
    unit: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl serde::Serialize for Thresholds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let conditions = text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.to_owned(), conditions })
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a condition: write NAME<VALUE, with <, <=, >, >=, = or !=");
        let at = text.find(['<', '>', '=', '!']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        let relations = [
            ("<=", Relation::LessOrEqual),
            (">=", Relation::GreaterOrEqual),
            ("==", Relation::Equal),
            ("!=", Relation::NotEqual),
            ("<", Relation::Less),
            (">", Relation::Greater),
            ("=", Relation::Equal),
        ];
        let found = relations.iter().find_map(|(sign, relation)| Some((rest.strip_prefix(sign)?, *relation)));
        let (value, relation) = found.ok_or_else(wrong)?;
        let value = value.trim();
        let end = value.find(|c: char| !c.is_ascii_digit() && !".-_".contains(c)).unwrap_or(value.len());
        let (number, unit) = value.split_at(end);
        let value: f64 = number.replace('_', "").parse().map_err(|_| wrong())?;
        let unit = unit.trim();
        if !["", "ns", "us", "ms", "s", "%", "B", "/s"].contains(&unit) || name.trim().is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.trim().to_owned(), relation, value, unit: unit.to_owned() })
    }
}

impl Thresholds {
    /// Adds a problem for every condition that does not hold.
    pub(crate) fn check(&self, report: &mut Report) {
        for condition in &self.conditions {
            let problem = match condition.find(report) {
                None => format!("`{}` cannot be checked: the report has no {}", condition.text(), condition.name),
                Some((value, unit)) if !condition.holds(value, unit) => {
                    format!("`{}` does not hold: it is {}", condition.text(), quantity::readable(value, unit))
                }
                Some(_) => continue,
            };
            report.problem(Verdict::Threshold, problem);
        }
    }
}

impl Condition {
    fn text(&self) -> String {
        let sign = match self.relation {
            Relation::Less => "<",
            Relation::LessOrEqual => "<=",
            Relation::Greater => ">",
            Relation::GreaterOrEqual => ">=",
            Relation::Equal => "=",
            Relation::NotEqual => "!=",
        };
        format!("{}{sign}{}{}", self.name, self.value, self.unit)
    }

    /// The value of that name and its unit.
    fn find(&self, report: &Report) -> Option<(f64, &'static str)> {
        let (of, what) = self.name.split_once('.').unwrap_or(("", &self.name));
        let named = MEASURES.into_iter().find(|measure| report::name(*measure) == of);
        let what = if named.is_some() { what } else { self.name.as_str() };
        let histogram = match named {
            Some(measure) => report.times.total(measure),
            None => MAIN.iter().find_map(|measure| report.times.total(*measure)),
        };
        let percentile = PERCENTILES.iter().find(|(name, _)| *name == what).map(|(_, percentile)| *percentile);
        let time = histogram.and_then(|histogram| match (what, percentile) {
            (_, Some(percentile)) => Some(milliseconds(histogram, percentile)),
            ("min", None) => Some(histogram.min() as f64 / 1e6),
            ("max", None) => Some(histogram.max() as f64 / 1e6),
            ("mean", None) => Some(histogram.mean() / 1e6),
            _ => None,
        });
        let named = |figure: &&Figure| figure.name == self.name || figure.label() == self.name;
        let figure = || report.figures.iter().find(named);
        time.map(|time| (time, "ms")).or_else(|| figure().map(|figure| (figure.value, figure.unit)))
    }

    fn holds(&self, value: f64, unit: &str) -> bool {
        let bound = match (nanoseconds(&self.unit), nanoseconds(unit)) {
            (Some(from), Some(to)) => self.value * from / to,
            _ => self.value,
        };
        match self.relation {
            Relation::Less => value < bound,
            Relation::LessOrEqual => value <= bound,
            Relation::Greater => value > bound,
            Relation::GreaterOrEqual => value >= bound,
            // Counts are whole and times have three digits.
            Relation::Equal => (value - bound).abs() < 1e-9,
            Relation::NotEqual => (value - bound).abs() >= 1e-9,
        }
    }
}

fn nanoseconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1.0),
        "us" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        _ => None,
    }
}

/// The measure of a percentile that names none: the first of these that was measured.
const MAIN: [Measure; 4] = [Measure::Delivery, Measure::Arrival, Measure::Answer, Measure::Join];

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(conditions: &str) -> Verdict {
        let mut report = Report::default();
        report.count("loss", 0);
        report.figure("floor-send-cpu-per-delivery-ns", 2_000.0, "ns");
        let mut recorder = crate::recorder::Recorder::new();
        for time in 1..=100 {
            recorder.record(Measure::Join, 0, time * 1_000_000);
        }
        recorder.take(0).iter().for_each(|interval| report.times.add(interval));
        conditions.parse::<Thresholds>().expect("conditions").check(&mut report);
        report.verdict()
    }

    /// Goal: conditions hold or not, in every unit; a name that the report lacks does not pass.
    #[test]
    fn conditions_are_checked() {
        for holds in [
            "p99<200ms",
            "p99<0.2s, loss=0",
            "join.p50>=49ms",
            "max!=0",
            "floor-send-cpu-per-delivery-ns<=2us",
            "loss<1",
            "floor-send-cpu-per-delivery<2.1us",
            "mean>50000us",
        ] {
            assert_eq!(verdict(holds), Verdict::Passed, "{holds}");
        }
        for fails in ["p99<90ms", "loss>0", "loss=0,p50<1ms", "delivery.p99<1s", "nonsense=0"] {
            assert_eq!(verdict(fails), Verdict::Threshold, "{fails}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "p99", "p99<", "<5", "p99<5 parsecs", "p99~5"] {
            assert!(text.parse::<Thresholds>().is_err(), "{text}");
        }
    }
}
