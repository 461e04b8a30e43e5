//! Rounds as tables in Markdown: the median, with the minimum and the maximum beside it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Sample;
use super::experiments::Experiment;

/// One experiment: its figure, and the ratio where there is one.
pub(crate) fn one(experiment: &Experiment, samples: &[Sample]) -> String {
    let mut text = format!("{}: {}\n\n", experiment.name, experiment.title);
    let _ = writeln!(text, "| server | {} | ratio {} | rounds |", experiment.figure, experiment.ratio);
    let _ = writeln!(text, "| --- | --- | --- | --- |");
    for contender in &experiment.contenders {
        let values = values(samples, contender.name);
        if values.is_empty() {
            continue;
        }
        let ratios = contender.base.map_or_else(Vec::new, |base| ratios(samples, contender.name, base));
        let (figure, ratio) = (spread(values.values().copied(), 0), spread(ratios, 2));
        let _ = writeln!(text, "| {} | {figure} | {ratio} | {} |", contender.name, values.len());
    }
    text + &remarks(samples)
}

/// Several experiments with the same contenders, side by side.
pub(crate) fn several(columns: &[(&Experiment, Vec<Sample>)]) -> String {
    let mut head = "| server |".to_owned();
    for (experiment, _) in columns {
        let _ = write!(head, " {} ({}) |", experiment.figure, experiment.name);
        if !experiment.ratio.is_empty() {
            let _ = write!(head, " ratio {} |", experiment.ratio);
        }
    }
    let dashes = "| --- ".repeat(head.matches('|').count() - 1) + "|";
    let mut text = format!("{head}\n{dashes}\n");
    let mut names: Vec<&str> = Vec::new();
    for contender in columns.iter().flat_map(|(experiment, _)| &experiment.contenders) {
        if !names.contains(&contender.name) {
            names.push(contender.name);
        }
    }
    for name in names {
        let _ = write!(text, "| {name} |");
        for (experiment, samples) in columns {
            let _ = write!(text, " {} |", spread(values(samples, name).into_values(), 0));
            if !experiment.ratio.is_empty() {
                let contender = experiment.contenders.iter().find(|contender| contender.name == name);
                let base = contender.and_then(|contender| contender.base);
                let ratios = base.map_or_else(Vec::new, |base| ratios(samples, name, base));
                let _ = write!(text, " {} |", spread(ratios, 2));
            }
        }
        text.push('\n');
    }
    for (_, samples) in columns {
        text += &remarks(samples);
    }
    text
}

/// By round.
fn values<'a>(samples: &'a [Sample], contender: &str) -> BTreeMap<&'a str, f64> {
    let own = samples.iter().filter(|sample| sample.contender == contender);
    own.map(|sample| (sample.round.as_str(), sample.value)).collect()
}

/// Within one round.
fn ratios(samples: &[Sample], contender: &str, base: &str) -> Vec<f64> {
    let below = values(samples, base);
    let pairs = values(samples, contender).into_iter();
    pairs.filter_map(|(round, value)| Some(value / below.get(round)?)).collect()
}

/// `median (least to most)`.
fn spread(values: impl IntoIterator<Item = f64>, digits: usize) -> String {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return String::new() };
    let median = sorted[sorted.len() / 2];
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

/// Rounds that the load generator did not report as passed.
fn remarks(samples: &[Sample]) -> String {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.verdict != "passed") {
        for problem in &sample.problems {
            *counts.entry((&sample.contender, problem)).or_default() += 1;
        }
    }
    let mut text = String::new();
    for ((contender, problem), count) in counts {
        let _ = writeln!(text, "\n{contender}, {count} rounds: {problem}");
    }
    text
}
