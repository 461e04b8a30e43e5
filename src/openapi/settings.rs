//! Settings in JSON: the schema of a table of settings, and the text of a value that a request has for one of them.

use serde_json::{Map, Value, json};

use crate::setting::{Setting, Takes, read_switch};

/// The JSON Schema of an object with the settings of a table, all optional.
pub fn describe<S>(table: &[Setting<S>], defaults: &S) -> Value {
    let properties = table.iter().map(|setting| {
        let mut schema = match (setting.takes, (setting.show)(defaults)) {
            (Takes::Switch, _) => json!({"type": "boolean"}),
            (Takes::Number { least, most, .. }, _) => json!({"type": "integer", "minimum": least, "maximum": most}),
            (Takes::Word(words), _) => json!({"type": "string", "enum": words}),
            (Takes::Form(_), Value::Array(_)) => json!({"type": "array", "items": {"type": "string"}}),
            (Takes::Form(_), Value::Null) => json!({"type": ["string", "null"]}),
            (Takes::Form(_), _) => json!({"type": "string"}),
        };
        schema["description"] = format!("{}: {}.", setting.summary(), setting.takes).into();
        (setting.name.to_owned(), schema)
    });
    let properties: Map<String, Value> = properties.collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The text of a JSON value, as the command line writes it; `None` for a value of a type that the setting does not take:
/// one of a form takes what its `default` is. Whether the setting takes the text itself, its reader decides.
pub fn text_of(takes: Takes, default: &Value, value: &Value) -> Option<String> {
    match (takes, default, value) {
        (Takes::Switch, _, Value::Bool(on)) => Some(on.to_string()),
        (Takes::Number { .. }, _, Value::Number(number)) => number.as_u64().map(|number| number.to_string()),
        (Takes::Word(_), _, Value::String(text)) => Some(text.clone()),
        (Takes::Form(_), Value::Array(_), Value::Array(items)) => {
            // A comma separates items, so it cannot be part of one.
            let text = |item: &Value| item.as_str().filter(|text| !text.contains(',')).map(str::to_owned);
            Some(items.iter().map(text).collect::<Option<Vec<_>>>()?.join(","))
        }
        (Takes::Form(_), Value::Array(_), _) => None,
        (Takes::Form(_), _, Value::String(text)) => Some(text.clone()),
        (Takes::Form(_), Value::Null, Value::Null) => Some(String::new()),
        _ => None,
    }
}

/// The JSON value of a text of the command line, which [`text_of`] turns back. A text that is no such value stays a
/// text, so that its reader refuses it with what the setting takes.
pub fn value_of(takes: Takes, default: &Value, text: &str) -> Value {
    match (takes, default) {
        (Takes::Switch, _) => read_switch(text).map_or_else(|| text.into(), Value::Bool),
        (Takes::Number { .. }, _) => text.parse::<u64>().map_or_else(|_| text.into(), Value::from),
        (Takes::Form(_), Value::Array(_)) if text.is_empty() => Value::Array(Vec::new()),
        (Takes::Form(_), Value::Array(_)) => text.split(',').collect(),
        (Takes::Word(_) | Takes::Form(_), _) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppSettings;
    use crate::app::settings::APP_SETTINGS;

    /// R-ADMIN-16: every setting of an app is described, and the JSON that shows its value sets that value again.
    #[test]
    fn a_shown_value_can_be_set() {
        let defaults = AppSettings::default();
        let described = describe(APP_SETTINGS, &defaults);
        for setting in APP_SETTINGS {
            assert!(described["properties"][setting.name].is_object(), "{}", setting.name);
            let default = (setting.show)(&defaults);
            let text = text_of(setting.takes, &default, &default).expect(setting.name);
            assert_eq!(value_of(setting.takes, &default, &text), default, "{}", setting.name);
            let mut changed = defaults.clone();
            assert!(changed.set(setting.name, &text).is_ok(), "{}={text:?}", setting.name);
            assert_eq!(changed, defaults, "{}", setting.name);
        }
    }

    /// R-ADMIN-13: a value of another type is refused, also one whose text would be accepted.
    #[test]
    fn types_are_exact() {
        let number = Takes::Number { unit: "a number", least: 0, most: 9, zero: "" };
        let (text, list) = (json!(""), json!([]));
        for (takes, default, value) in [
            (Takes::Switch, json!(false), json!("true")),
            (Takes::Switch, json!(false), json!(1)),
            (Takes::Switch, json!(false), json!(null)),
            (number, json!(0), json!("5")),
            (number, json!(0), json!(5.5)),
            (number, json!(0), json!(-1)),
            (number, json!(0), json!(true)),
            (Takes::Word(&["a"]), text.clone(), json!(7)),
            (Takes::Word(&["a"]), text.clone(), json!(["a"])),
            (Takes::Form("a URL"), text.clone(), json!(null)),
            (Takes::Form("a URL"), text.clone(), json!([])),
            (Takes::Form("hosts"), list.clone(), json!(["a,b"])),
            (Takes::Form("hosts"), list.clone(), json!(["a", 7])),
            (Takes::Form("hosts"), list.clone(), json!("a")),
            (Takes::Form("hosts"), list.clone(), json!(null)),
            (Takes::Form("hosts"), list.clone(), json!({})),
        ] {
            assert_eq!(text_of(takes, &default, &value), None, "{takes} {value}");
        }
        assert_eq!(text_of(Takes::Form("hosts"), &list, &json!(["a", "b"])), Some("a,b".into()));
        assert_eq!(text_of(Takes::Form("a URL"), &json!(null), &json!(null)), Some(String::new()));
        for (takes, default, text, value) in [
            (Takes::Switch, json!(false), "YES", json!(true)),
            (Takes::Switch, json!(false), "maybe", json!("maybe")),
            (number, json!(0), "7", json!(7)),
            (number, json!(0), "many", json!("many")),
            (Takes::Form("hosts"), list.clone(), "a,b", json!(["a", "b"])),
            (Takes::Form("hosts"), list, "", json!([])),
            (Takes::Form("a URL"), text, "a,b", json!("a,b")),
        ] {
            assert_eq!(value_of(takes, &default, text), value, "{takes} {text}");
        }
    }
}
