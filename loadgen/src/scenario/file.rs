//! Scenario files: the options of a run in TOML.
//!
//! ```toml
//! scenario = "fan-out"
//! subscribers = 1000
//! events_per_second = 200
//! fail_if = "p99<50ms,loss=0"
//! ```
//! Every key is an option of the scenario, with `_` or `-`. The file is converted to a command line, so that there is one
//! parser of options.

use std::path::Path;

use crate::outcome::Failure;

/// Converts a file to a command line without the name of the program. Options that follow it override the file.
pub(crate) fn arguments(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let scenario = table.get("scenario").and_then(toml::Value::as_str).ok_or("`scenario = \"NAME\"` is missing")?;
    let mut arguments = vec![scenario.to_owned()];
    for (key, value) in table.iter().filter(|(key, _)| *key != "scenario") {
        let option = format!("--{}", key.replace('_', "-"));
        let value = match value {
            toml::Value::Boolean(true) => {
                arguments.push(option);
                continue;
            }
            toml::Value::Boolean(false) => continue,
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                return Err(format!("`{key}` must be a number, a string or a boolean"));
            }
        };
        arguments.push(format!("{option}={value}"));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_command_line() {
        let text = "scenario = \"fan-out\"\nsubscribers = 5\nevents_per_second = 2.5\nfloor = true\njson = false\nchannel = \"a b\"";
        let mut arguments = parse(text).expect("it is right");
        arguments[1..].sort();
        assert_eq!(arguments, ["fan-out", "--channel=a b", "--events-per-second=2.5", "--floor", "--subscribers=5"]);
        for wrong in ["subscribers = 5", "scenario = 5", "scenario = \"idle\"\nchannel = [1]", "scenario"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
