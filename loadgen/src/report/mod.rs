//! The results of a run, complete or cut short: figures in the order in which they were added, times, and problems.

pub(crate) mod chart;
pub(crate) mod csv;
pub(crate) mod hdr;
pub(crate) mod histogram;
pub(crate) mod html;
pub(crate) mod quantity;
pub(crate) mod threshold;
pub(crate) mod times;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use self::times::Times;
use crate::abort::Abort;
use crate::environment;
use crate::messages::{Counters, MEASURES, Measure};
use crate::outcome::Verdict;

/// Everything about a run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    /// The options of the scenario.
    pub(crate) settings: Value,
    pub(crate) figures: Vec<Figure>,
    pub(crate) times: Times,
    /// Delivery times to compare with, for instance the floor's: name and times.
    pub(crate) beside: Vec<(String, Histogram<u64>)>,
    /// Why the verdict is not "passed".
    problems: Vec<(Verdict, String)>,
    /// Missing deliveries, connections or answers: failures, unless a signal ended the run early.
    shortfalls: Vec<String>,
    /// Why the run was cut short, if it was.
    pub(crate) abort: Option<Abort>,
    /// See [`Self::notes`].
    pub(crate) notes: Vec<String>,
    pub(crate) reasons: std::collections::BTreeMap<String, u64>,
}

/// One number.
pub(crate) struct Figure {
    /// Words joined by dashes, ending in the unit if there is one. Also the name in `--fail-if` and in JSON.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    /// The name without the unit, for output in which the value has its own unit. `--fail-if` accepts it, too.
    pub(crate) fn label(&self) -> &str {
        let suffix = match self.unit {
            "ns" => "-ns",
            "ms" => "-ms",
            "s" => "-seconds",
            "B" => "-bytes",
            "%" => "-percent",
            _ => return &self.name,
        };
        self.name.strip_suffix(suffix).unwrap_or(&self.name)
    }
}

impl Report {
    /// Sets the scenario and its options.
    pub(crate) fn begin(&mut self, scenario: &str, settings: &impl serde::Serialize) {
        self.scenario = scenario.to_owned();
        self.settings = serde_json::to_value(settings).unwrap_or(Value::Null);
    }

    /// Adds a figure, and removes an earlier one of the same name.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &'static str) {
        self.figures.retain(|figure| figure.name != name);
        self.figures.push(Figure { name: name.to_owned(), value, unit });
    }

    /// Adds a count.
    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.figure(name, value as f64, "");
    }

    /// Adds a problem; the worst one decides the verdict.
    pub(crate) fn problem(&mut self, verdict: Verdict, text: impl Into<String>) {
        self.problems.push((verdict, text.into()));
    }

    /// Adds something that is missing: a problem, unless a signal ended the run.
    pub(crate) fn shortfall(&mut self, text: impl Into<String>) {
        self.shortfalls.push(text.into());
    }

    /// All problems. If the run was cut short, that is the first one.
    pub(crate) fn problems(&self) -> Vec<(Verdict, String)> {
        let aborted = self.abort.iter().map(|abort| {
            let verdict = if self.is_interrupted() { Verdict::Interrupted } else { Verdict::Failed };
            (verdict, format!("cut short: {}", abort.text()))
        });
        let short = self.shortfalls.iter().filter(|_| !self.is_interrupted());
        let short = short.map(|text| (Verdict::Failed, text.clone()));
        aborted.chain(self.problems.iter().cloned()).chain(short).collect()
    }

    /// Remarks that are no problem.
    pub(crate) fn notes(&self) -> Vec<String> {
        let short = self.shortfalls.iter().filter(|_| self.is_interrupted());
        self.notes.iter().cloned().chain(short.map(|text| format!("when it was cut short: {text}"))).collect()
    }

    fn is_interrupted(&self) -> bool {
        matches!(self.abort, Some(Abort::Interrupted(_)))
    }

    /// The worst of all problems.
    pub(crate) fn verdict(&self) -> Verdict {
        self.problems().iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Passed)
    }

    /// Problems and notes, each with its kind.
    pub(crate) fn remarks(&self) -> Vec<(&'static str, String)> {
        let problems = self.problems().into_iter().map(|(verdict, text)| (verdict.name(), text));
        problems.chain(self.notes().into_iter().map(|note| ("note", note))).collect()
    }

    /// Adds the counts of deliveries, and a problem for each kind of wrong one.
    pub(crate) fn deliveries(&mut self, before: &Counters, after: &Counters, expected: u64) {
        let delivered = after.delivered - before.delivered;
        let loss = expected.saturating_sub(delivered);
        self.count("delivered", delivered);
        self.count("expected", expected);
        self.count("loss", loss);
        let wrong = [
            ("duplicates", after.duplicates - before.duplicates),
            ("disordered", after.disordered - before.disordered),
            ("wrong-channel", after.wrong_channel - before.wrong_channel),
            ("damaged", after.damaged - before.damaged),
        ];
        if loss > 0 {
            self.shortfall(format!("{loss} of {expected} deliveries are missing"));
        }
        for (name, count) in wrong {
            self.count(name, count);
            if count > 0 {
                self.problem(Verdict::Failed, format!("{count} deliveries are {name}"));
            }
        }
        if after.foreign > before.foreign {
            let count = after.foreign - before.foreign;
            self.notes.push(format!("{count} events of another run arrived on the same channel"));
        }
    }

    /// The whole report as JSON.
    pub(crate) fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.name.clone(), json!(figure.value))).collect();
        let mut times = Map::new();
        for measure in MEASURES {
            if let Some(total) = self.times.total(measure) {
                times.insert(name(measure).to_owned(), histogram::json(total));
            }
        }
        json!({
            "scenario": self.scenario,
            "verdict": self.verdict().name(),
            "cut-short": self.abort.as_ref().map(Abort::text),
            "problems": self.problems().iter().map(problem).collect::<Vec<_>>(),
            "notes": self.notes(),
            "settings": self.settings,
            "figures": figures,
            "times-ms": times,
            "reasons": self.reasons,
            "environment": environment::json(),
        })
    }

    /// The whole report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n  {}\n\n", self.scenario, environment::line());
        for figure in &self.figures {
            text.push_str(&format!("  {:<40} {:>14}\n", figure.label(), quantity::readable(figure.value, figure.unit)));
        }
        for measure in MEASURES {
            if let Some(total) = self.times.total(measure) {
                let times = if total.len() == 1 { "time" } else { "times" };
                text.push_str(&format!("\n{} ({} {times})\n", title(measure), quantity::number(total.len() as f64)));
                text.push_str(&histogram::text(total));
            }
        }
        if !self.reasons.is_empty() {
            text.push_str("\nwhy connections and requests failed or ended\n");
            for (reason, count) in &self.reasons {
                text.push_str(&format!("  {count:>10}  {reason}\n"));
            }
        }
        for note in self.notes() {
            text.push_str(&format!("\nnote: {note}"));
        }
        text.push_str(&format!("\n{}\n", self.verdict().name()));
        for (verdict, problem) in self.problems() {
            text.push_str(&format!("  {}: {problem}\n", verdict.name()));
        }
        text
    }
}

fn problem((verdict, text): &(Verdict, String)) -> Value {
    json!({"kind": verdict.name(), "text": text})
}

/// Name of a measure in JSON and thresholds.
pub(crate) fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::Delivery => "delivery",
        Measure::Join => "join",
        Measure::Arrival => "arrival",
        Measure::Resume => "resume",
        Measure::Answer => "answer",
        Measure::Pong => "pong",
        Measure::Lag => "lag",
    }
}

/// Name and meaning of a measure.
pub(crate) fn title(measure: Measure) -> &'static str {
    match measure {
        Measure::Delivery => "delivery: from the intended send time to arrival",
        Measure::Join => "join: from the intended start of a connection to its subscription",
        Measure::Arrival => "arrival: the same, for connections opened meanwhile",
        Measure::Resume => "resume: the same, for connections that name their last event",
        Measure::Answer => "answer: from the intended send time of a request to its answer",
        Measure::Pong => "pong: from the intended send time of a ping to its answer",
        Measure::Lag => "lag: how late the generator itself was",
    }
}
