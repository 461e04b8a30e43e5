//! Reading the JSON body of a request by its [`Object`]: every field is known, occurs once and has a value that its
//! schema takes, or the error names it (R-ADMIN-13).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::schema::{Field, Object, Others, Presence, Schema};
use crate::setting::nearest;

/// The fields of a body that was checked.
#[derive(Clone, Debug, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body of this form.
    ///
    /// # Errors
    /// One sentence that names the field and what it takes.
    pub fn read(body: &[u8], object: &Object) -> Result<Self, String> {
        Self::checked(read_object(body)?, object)
    }

    /// Checks fields that were not read from a request.
    ///
    /// # Errors
    /// As [`Fields::read`].
    pub fn checked(fields: Map<String, Value>, object: &Object) -> Result<Self, String> {
        check_object(object, "", &fields)?;
        Ok(Self(fields))
    }

    /// Fields that their reader checks by another table.
    pub fn unchecked(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// Every field.
    pub fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The text of a field; `None` if it is missing, null or no text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// True if the field is `true`.
    pub fn is_on(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The texts of a list; none if it is missing.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let items = self.0.get(name).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// The members of an object; none if it is missing.
    pub fn members(&self, name: &str) -> Map<String, Value> {
        self.0.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }
}

/// Reads a JSON object in which no member occurs twice, at any depth.
///
/// # Errors
/// One sentence with the fault and its place.
pub fn read_object(body: &[u8]) -> Result<Map<String, Value>, String> {
    let read: Strict = serde_json::from_slice(body).map_err(|error| match body {
        [] => "The body is empty: send a JSON object.".to_owned(),
        _ => format!("The body is not valid JSON: {error}."),
    })?;
    if let Value::Object(fields) = read.0 {
        return Ok(fields);
    }
    Err(format!("The body must be a JSON object, not {}.", kind(&read.0)))
}

fn check_object(object: &Object, within: &str, fields: &Map<String, Value>) -> Result<(), String> {
    let known = || object.all_fields().map(|field| field.name);
    for name in fields.keys().filter(|_| object.others == Others::Refused) {
        if !known().any(|known| known == name) {
            let (near, known) = (nearest(name, known()), known().collect::<Vec<_>>().join(", "));
            let known = if known.is_empty() { "there are none".to_owned() } else { format!("known are {known}") };
            return Err(format!("There is no field {:?}{near}; {known}.", path(within, name)));
        }
    }
    for Field { name, presence, schema, .. } in object.all_fields() {
        match fields.get(*name) {
            Some(value) => schema.check(&path(within, name), value)?,
            None if *presence == Presence::Required => {
                return Err(format!("The field {:?} is missing.", path(within, name)));
            }
            None => {}
        }
    }
    Ok(())
}

fn path(within: &str, name: &str) -> String {
    if within.is_empty() { name.to_owned() } else { format!("{within}.{name}") }
}

impl Schema {
    /// Refuses a value that the schema does not take.
    ///
    /// # Errors
    /// One sentence that names the field.
    pub fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        let refuse = |takes: String| Err(format!("{name} takes {takes}, not {}.", shown(value)));
        match (self, value) {
            (Self::Text { least, most }, Value::String(text)) if (*least..=*most).contains(&text.len()) => Ok(()),
            (Self::Text { least, most }, _) => refuse(format!("a text of {least} to {most} bytes")),
            // Its reader checks the form and reports it better.
            (Self::AnyText | Self::Form { .. } | Self::Time, Value::String(_)) => Ok(()),
            (Self::AnyText, _) => refuse("a text".to_owned()),
            (Self::Form { takes, .. }, _) => refuse((*takes).to_owned()),
            (Self::Time, _) => refuse("a time such as \"2027-01-31T00:00:00Z\"".to_owned()),
            (Self::Number { least, most }, Value::Number(number))
                if number.as_u64().is_some_and(|number| (*least..=*most).contains(&number)) =>
            {
                Ok(())
            }
            (Self::Number { least, most }, _) => refuse(format!("a whole number from {least} to {most}")),
            (Self::Switch, Value::Bool(_)) => Ok(()),
            (Self::Switch, _) => refuse("true or false".to_owned()),
            (Self::Word(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
            (Self::Word(words), _) => {
                let near = value.as_str().map(|text| nearest(text, words.iter().copied()));
                let near = near.filter(|near| !near.is_empty()).unwrap_or_else(|| ".".to_owned());
                Err(format!("{name} takes one of {}, not {}{}", words.join(", "), shown(value), near))
            }
            (Self::List { of, most }, Value::Array(items)) if items.len() <= *most => {
                items.iter().enumerate().try_for_each(|(at, item)| of.check(&format!("{name}[{at}]"), item))
            }
            (Self::List { most, .. }, _) => refuse(format!("a list of at most {most}")),
            (Self::Object(object), Value::Object(fields)) => check_object(object, name, fields),
            (Self::Map(of), Value::Object(fields)) => {
                fields.iter().try_for_each(|(member, value)| of.check(&path(name, member), value))
            }
            (Self::Object(_) | Self::Page(_) | Self::Map(_), _) => refuse("an object".to_owned()),
            (Self::Nullable(_), Value::Null) => Ok(()),
            (Self::Nullable(of), _) => of.check(name, value),
            (Self::Table { .. }, Value::Object(_)) | (Self::Any, _) => Ok(()),
            (Self::Table { .. }, _) => refuse("an object".to_owned()),
        }
    }
}

/// A value as an error shows it. Text is not repeated: it may be a secret.
fn shown(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("a text of {} bytes", text.len()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => kind(value).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A JSON value in which no object has a member twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the field {name:?} occurs twice")));
            }
            let Strict(value) = access.next_value()?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Schema = Schema::Text { least: 1, most: 4 };
    const INNER: Object = Object::new("Inner", &[Field::required("deep", Schema::Switch, "")]);
    const BASE: Object = Object::new("Base", &[Field::required("name", NAME, "")]);
    const SAMPLE: Object = Object::extending(
        &BASE,
        "Sample",
        &[
            Field::optional("count", Schema::Number { least: 2, most: 9 }, ""),
            Field::optional("on", Schema::Switch, ""),
            Field::optional("word", Schema::Word(&["a", "b"]), ""),
            Field::optional("list", Schema::List { of: &NAME, most: 2 }, ""),
            Field::optional("inner", Schema::Object(&INNER), ""),
            Field::optional("end", Schema::Nullable(&Schema::Time), ""),
        ],
    );

    /// R-ADMIN-13: each field at its limits is taken.
    #[test]
    fn fields_at_their_limits_are_taken() {
        for body in [
            r#"{"name":"a"}"#,
            r#"{"name":"abcd","count":2,"on":false,"word":"b","list":[],"inner":{"deep":true},"end":null}"#,
            r#"{"name":"\u00e9\u00e9","count":9,"list":["a","abcd"],"end":"2027-01-31T00:00:00Z"}"#,
        ] {
            assert!(Fields::read(body.as_bytes(), &SAMPLE).is_ok(), "{body}");
        }
        let fields = Fields::read(br#"{"name":"abc","on":true,"list":["x","y"]}"#, &SAMPLE).expect("fields");
        assert_eq!((fields.text("name"), fields.is_on("on"), fields.texts("list").len()), (Some("abc"), true, 2));
        assert!(fields.text("end").is_none() && fields.texts("none").is_empty() && fields.members("inner").is_empty());
    }

    /// R-ADMIN-13: one beyond each limit, other types, and fields that are unknown, doubled or missing: the error names
    /// the field and what it takes, and never repeats a text.
    #[test]
    fn errors_name_the_field() {
        for (body, parts) in [
            ("", vec!["empty"]),
            ("{", vec!["not valid JSON"]),
            ("[]", vec!["a JSON object, not a list"]),
            ("7", vec!["not a number"]),
            ("{} {}", vec!["not valid JSON"]),
            ("{}", vec!["\"name\" is missing"]),
            (r#"{"name":""}"#, vec!["name takes a text of 1 to 4 bytes", "0 bytes"]),
            (r#"{"name":"secret"}"#, vec!["name takes", "6 bytes"]),
            (r#"{"name":"\u00e9\u00e9\u00e9"}"#, vec!["6 bytes"]),
            (r#"{"name":7}"#, vec!["name takes", "not 7"]),
            (r#"{"name":null}"#, vec!["name takes", "not null"]),
            (r#"{"name":"a","count":1}"#, vec!["count takes a whole number from 2 to 9, not 1"]),
            (r#"{"name":"a","count":10}"#, vec!["not 10"]),
            (r#"{"name":"a","count":2.5}"#, vec!["not 2.5"]),
            (r#"{"name":"a","count":-3}"#, vec!["not -3"]),
            (r#"{"name":"a","count":1e999}"#, vec!["not valid JSON"]),
            (r#"{"name":"a","on":"true"}"#, vec!["on takes true or false"]),
            (r#"{"name":"a","word":"c"}"#, vec!["word takes one of a, b"]),
            (r#"{"name":"a","list":["a","b","c"]}"#, vec!["list takes a list of at most 2, not a list of 3"]),
            (r#"{"name":"a","list":["a",""]}"#, vec!["list[1] takes"]),
            (r#"{"name":"a","inner":{}}"#, vec!["\"inner.deep\" is missing"]),
            (r#"{"name":"a","inner":{"deep":true,"more":1}}"#, vec!["\"inner.more\""]),
            (r#"{"name":"a","end":5}"#, vec!["end takes a time"]),
            (r#"{"name":"a","naem":"b"}"#, vec!["no field \"naem\", did you mean \"name\"?", "known are name, count"]),
            (r#"{"name":"a","name":"b"}"#, vec!["\"name\" occurs twice"]),
            (r#"{"name":"a","inner":{"deep":true,"deep":true}}"#, vec!["\"deep\" occurs twice"]),
            (r#"{"name":"a","n\u0061me":"b"}"#, vec!["\"name\" occurs twice"]),
        ] {
            let error = Fields::read(body.as_bytes(), &SAMPLE).expect_err(body);
            assert!(parts.iter().all(|part| error.contains(part)), "{body}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
