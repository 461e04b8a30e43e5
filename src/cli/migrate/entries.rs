//! A configuration file as a flat list: each value with its location, in the words of the file for messages, and in one
//! spelling for the mapping.

use std::path::Path;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

/// One value of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Its location, as the file spells it: `appManager.array.apps.0.max_connections`.
    pub(super) at: String,
    /// The same for the mapping: `["appManager", "array", "apps", "0", "maxConnections"]`.
    pub(super) path: Vec<String>,
    /// A scalar, or a list of scalars.
    pub(super) value: Value,
}

impl Entry {
    /// True where nothing was set, so that the default applies: null, and the text that table exports write for NULL.
    pub(super) fn is_unset(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::String(text) => !self.is_text() && (text.trim().is_empty() || text.eq_ignore_ascii_case("null")),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
        }
    }

    /// True for the members of an app that may be any text.
    fn is_text(&self) -> bool {
        let texts = ["id", "appId", "key", "appKey", "secret", "appSecret", "name"];
        matches!(self.path.as_slice(), [member] if texts.contains(&member.as_str()))
    }
}

/// Unfolds a list or object that is JSON in a text, as database tables store it, as if it were part of the file itself.
/// The path of `entry` starts below the app.
pub(super) fn unfold(entry: Entry) -> Vec<Entry> {
    let text = entry.value.as_str().filter(|text| !entry.is_text() && text.trim_start().starts_with(['[', '{']));
    let Some(value) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return vec![entry];
    };
    let mut entries = Vec::new();
    flatten(&entry.at, &entry.path, value, &mut entries);
    entries
}

/// The values of a file, in its order where the format keeps one. Files whose name ends in `.toml` are TOML.
pub(super) fn parse(text: &str, file: &Path) -> Result<Vec<Entry>, String> {
    let value = if file.extension().is_some_and(|extension| extension == "toml") {
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("line {line}: this is not TOML: {}", error.message().replace('\n', " "))
        })?;
        table_value(table.get_ref())
    } else {
        serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?
    };
    let mut entries = Vec::new();
    flatten("", &[], value, &mut entries);
    Ok(entries)
}

/// Adds the values below the one at `at`.
pub(super) fn flatten(at: &str, path: &[String], value: Value, entries: &mut Vec<Entry>) {
    let mut descend = |key: &str, value: Value| {
        let at = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        // soketi accepts dotted keys for nested objects.
        let path: Vec<String> = path.iter().cloned().chain(key.split('.').map(camel)).collect();
        flatten(&at, &path, value, entries);
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.into_iter().for_each(|(key, value)| descend(&key, value));
        }
        Value::Array(values) if values.iter().any(|value| value.is_object() || value.is_array()) => {
            values.into_iter().enumerate().for_each(|(index, value)| descend(&index.to_string(), value));
        }
        value @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => entries.push(Entry { at: at.into(), path: path.to_vec(), value }),
    }
}

/// One spelling for `max_connections`, `MaxConnections` and `maxConnections`.
fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for (index, letter) in key.chars().enumerate() {
        match letter {
            '_' | '-' if index > 0 => upper = true,
            letter if upper => {
                out.extend(letter.to_uppercase());
                upper = false;
            }
            letter if index == 0 => out.extend(letter.to_lowercase()),
            letter => out.push(letter),
        }
    }
    out
}

fn table_value(table: &DeTable<'_>) -> Value {
    let member = |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        (key.get_ref().to_string(), toml_value(value.get_ref()))
    };
    Value::Object(table.iter().map(member).collect())
}

fn toml_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => number_value(&number.to_string()),
        DeValue::Float(number) => number_value(&number.to_string()),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(values) => values.iter().map(|value| toml_value(value.get_ref())).collect(),
        DeValue::Table(table) => table_value(table),
    }
}

/// A number, or the text if JSON has no such number.
fn number_value(text: &str) -> Value {
    text.parse::<i64>()
        .map(Value::from)
        .or_else(|_| text.parse::<f64>().map(Value::from))
        .unwrap_or_else(|_| text.into())
}

/// The location of the app or webhook of an entry.
pub(super) fn app_at(entry: &Entry) -> String {
    let below = entry.path.len();
    let parts: Vec<&str> = entry.at.split('.').collect();
    parts[..parts.len().saturating_sub(below)].join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, file: &str) -> Vec<String> {
        let entries = parse(text, Path::new(file)).expect("reads");
        entries.iter().map(|entry| format!("{} | {} = {}", entry.at, entry.path.join("/"), entry.value)).collect()
    }

    /// Dotted keys, nested objects, lists and TOML tables result in the same paths; messages keep the file's spelling.
    #[test]
    fn all_spellings_come_to_one_path() {
        let dotted = r#"{"appManager.array.apps": [{"max_connections": 5, "hosts": ["a", "b"]}], "debug": true}"#;
        let nested =
            r#"{"appManager": {"array": {"apps": [{"MaxConnections": 5, "hosts": ["a", "b"]}]}}, "debug": true}"#;
        let toml =
            "debug = true\n[app_manager]\n[[app_manager.array.apps]]\nhosts = [\"a\", \"b\"]\nmax_connections = 5\n";
        let paths = |lines: Vec<String>| {
            let mut paths: Vec<_> =
                lines.iter().filter_map(|line| line.split(" | ").nth(1)).map(str::to_owned).collect();
            paths.sort();
            paths
        };
        let wanted = [
            "appManager/array/apps/0/hosts = [\"a\",\"b\"]",
            "appManager/array/apps/0/maxConnections = 5",
            "debug = true",
        ];
        assert_eq!(paths(shown(dotted, "a.json")), wanted);
        assert_eq!(paths(shown(nested, "a.json")), wanted);
        assert_eq!(paths(shown(toml, "a.toml")), wanted);
        assert!(shown(dotted, "a.json")[0].starts_with("appManager.array.apps.0."));
        assert!(shown(toml, "a.toml").iter().any(|line| line.starts_with("app_manager.array.apps.0.max_connections")));
    }

    /// Text that is neither JSON nor TOML is reported with its line.
    #[test]
    fn broken_files_name_the_line() {
        let error = parse("{\n  \"port\": 6001,\n}", Path::new("a.json")).expect_err("a comma too many");
        assert!(error.contains("not JSON") && error.contains("line 3"), "{error}");
        let error = parse("port = 1\nhost = \n", Path::new("a.toml")).expect_err("no value");
        assert!(error.contains("line 2") && error.contains("not TOML"), "{error}");
    }
}
