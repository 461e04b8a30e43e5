//! The scoreboard of docs/reliability.md: every row has a figure, or a reason for its absence, and the commands that
//! measure rows still work. The rows themselves are long and need the machine for themselves, so they run outside CI.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows that need only the server and a second or two each. Their bounds are counts in a quick run, not times.
const QUICK: &[&str] = &["R6", "R9", "R16", "R18", "R30"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Goal: R1 to R30 are all present, in order, each with a figure or with the reason for its absence.
#[test]
fn every_row_has_a_figure() {
    let document = std::fs::read_to_string(root().join("docs/reliability.md")).expect("the document is there");
    let rows: Vec<Vec<&str>> = document
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells[0].strip_prefix('R').is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    let names: Vec<String> = rows.iter().map(|cells| cells[0].to_owned()).collect();
    let expected: Vec<String> = (1..=30).map(|number| format!("R{number}")).collect();
    assert_eq!(names, expected);
    for cells in rows {
        assert_eq!(cells.len(), 4, "{cells:?}");
        let figure = cells[3];
        let is_measured = figure.contains(|c: char| c.is_ascii_digit());
        assert!(is_measured || figure.contains("cannot be measured here, because"), "{}: {figure:?}", cells[0]);
    }
}

/// Goal: the commands of the scoreboard start a server, measure and judge. Method: a quick run of those rows that need
/// no load generator.
#[test]
fn the_commands_work() {
    let binary =
        std::env::var_os("RELAY_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_relay").into(), PathBuf::from);
    let output = Command::new("python3")
        .arg(root().join("tests/reliability/run"))
        .arg("--quick")
        .args(QUICK)
        .env("RELIABILITY_BINARIES", binary.parent().expect("a program is in a folder"))
        .output()
        .expect("python3 starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let passed: Vec<&str> = text.lines().filter(|line| line.contains(" pass ")).collect();
    assert_eq!(passed.len(), QUICK.len(), "{text}\n{errors}");
}
