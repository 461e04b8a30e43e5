//! Rounds: every server of an experiment is started, loaded and stopped in turn, then the sequence repeats. Other load
//! on the machine then disturbs all servers alike, and ratios are taken within one round.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::{Deserialize, Serialize};

mod experiments;
mod process;
mod table;

use experiments::{Contender, Experiment, Place};
use process::{Outcome, Server};

/// The experiment and the number of rounds.
#[derive(Args)]
pub(crate) struct Measure {
    /// Its name, see `list`.
    experiment: String,
    /// Rounds to add.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Forget earlier rounds.
    #[arg(long)]
    fresh: bool,
    /// Only contenders whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// One contender in one round; a line of the results' file.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Sample {
    experiment: String,
    /// The same for all contenders of one round, and unique to that round.
    round: String,
    contender: String,
    value: f64,
    /// The load generator's verdict: passed or invalid.
    verdict: String,
    problems: Vec<String>,
}

impl Measure {
    pub(crate) fn run(&self) -> Result<(), String> {
        let experiment = experiments::all()
            .into_iter()
            .find(|experiment| experiment.name == self.experiment)
            .ok_or_else(|| format!("no experiment {}: see `list`", self.experiment))?;
        let path = results(&experiment);
        fs::create_dir_all(folder()).map_err(|error| error.to_string())?;
        if self.fresh {
            let _ = fs::remove_file(&path);
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let session = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        for round in 0..self.rounds {
            for contender in &experiment.contenders {
                if !contender.name.contains(&self.only) {
                    continue;
                }
                let outcome = measure(contender, experiment.place)?;
                let sample = Sample {
                    experiment: experiment.name.to_owned(),
                    round: format!("{session}.{round}"),
                    contender: contender.name.to_owned(),
                    value: outcome.value,
                    verdict: outcome.verdict,
                    problems: outcome.problems,
                };
                let line = serde_json::to_string(&sample).expect("plain values");
                eprintln!("{line}");
                writeln!(file, "{line}").map_err(|error| error.to_string())?;
            }
        }
        print!("{}", table::one(&experiment, &samples(&experiment)));
        Ok(())
    }
}

/// Prints every experiment that has results.
pub(crate) fn print_all() -> Result<(), String> {
    let all = experiments::all();
    let runtimes: Vec<_> = all.iter().filter(|experiment| experiment.is_about_runtimes).collect();
    let columns: Vec<_> = runtimes.iter().map(|experiment| (*experiment, samples(experiment))).collect();
    print!("{}", table::several(&columns));
    for experiment in all.iter().filter(|experiment| !experiment.is_about_runtimes) {
        let samples = samples(experiment);
        if !samples.is_empty() {
            print!("\n{}", table::one(experiment, &samples));
        }
    }
    Ok(())
}

/// Prints the experiments' names and what they measure.
pub(crate) fn list() {
    for experiment in experiments::all() {
        println!("{:<24} {}", experiment.name, experiment.title);
    }
}

fn measure(contender: &Contender, place: Place) -> Result<Outcome, String> {
    let server = contender.server.as_ref().map(|program| Server::start(program, place)).transpose()?;
    let outcome = process::load(server.as_ref(), contender, place)?;
    drop(server);
    Ok(outcome)
}

/// Directory of the results and the servers' data, next to the build output.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/results")
}

fn results(experiment: &Experiment) -> PathBuf {
    folder().join(format!("{}.jsonl", experiment.name))
}

fn samples(experiment: &Experiment) -> Vec<Sample> {
    let Ok(file) = File::open(results(experiment)) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}
