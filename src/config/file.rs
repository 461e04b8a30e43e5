//! `relay.toml`: settings at the top level, nothing else. Every mistake is reported with its line.

use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::settings::SERVER_SETTINGS;
use crate::setting::nearest;

/// A setting of a file: name, value as text, line from 1.
type Line = (&'static str, String, usize);

/// The settings of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| {
        ConfigError(format!(
            "cannot read the config file {}: {error}; name a readable one with --config",
            path.display()
        ))
    })?;
    parse(&text).map_err(|(line, message)| ConfigError(format!("{}:{line}: {message}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let line_of = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let line = line_of(error.span().map_or(0, |span| span.start));
        (line, format!("this is not TOML: {}", error.message().replace('\n', " ")))
    })?;
    let mut settings = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(key.span().start);
        let name: &str = key.get_ref();
        let Some(setting) = SERVER_SETTINGS.iter().find(|setting| setting.name == name) else {
            let nearest = nearest(name, SERVER_SETTINGS.iter().map(|setting| setting.name));
            return Err((line, format!("there is no setting {name:?}{nearest}")));
        };
        let value = plain(value.get_ref()).ok_or_else(|| (line, format!("{name} takes {}", setting.takes)))?;
        settings.push((setting.name, value, line));
    }
    settings.sort_by_key(|(_, _, line)| *line);
    Ok(settings)
}

/// The text that the variable of the same name would have; a list is joined by commas.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Array(values) => {
            let parts: Option<Vec<_>> = values.iter().map(|value| plain(value.get_ref())).collect();
            parts.map(|parts| parts.join(","))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings, numbers, switches and lists become the text that a flag would have, with their lines.
    #[test]
    fn values_become_text() {
        let text = "# comment\nlisten = \"127.0.0.1:0\"\nshards = 2\n\nstrict_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n";
        let expected = [
            ("listen", "127.0.0.1:0".to_owned(), 2),
            ("shards", "2".to_owned(), 3),
            ("strict_protocol", "true".to_owned(), 5),
            ("trusted_proxies", "10.0.0.0/8,::1".to_owned(), 6),
        ];
        assert_eq!(parse(text).expect("parses"), expected);
    }

    /// Errors about unknown keys, tables and broken lines name the line, and the nearest key.
    #[test]
    fn mistakes_name_the_line() {
        let cases = [
            ("\nlisen = \"x\"", 2, "did you mean \"listen\"?"),
            ("shards = 1\n[app]\nid = 1\n", 2, "there is no setting \"app\""),
            ("shards = 1\nshards = 2\n", 2, "duplicate key"),
            ("listen = \n", 1, "not TOML"),
            ("listen = 1.5", 1, "listen takes an address"),
        ];
        for (text, line, part) in cases {
            let (found_line, message) = parse(text).expect_err(text);
            assert!(found_line == line && message.contains(part), "{text:?}: {found_line}: {message}");
        }
    }
}
