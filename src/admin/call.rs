//! A request to the admin API after it was read, and the answer before it is sent. The command line makes the same calls
//! to the store directly, so both give the same result for the same input.

use serde_json::{Map, Value};

use super::fault::Fault;
use super::operation::Operation;
use super::routes::{IDEMPOTENCY_KEY, Route};
use crate::limits;
use crate::openapi::Parameter;
use crate::openapi::body::{Fields, read_object};
use crate::openapi::schema::Schema;

/// What an operation is applied to.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// Id of the app in the path.
    pub app: Option<String>,
    /// The other parameter of the path.
    pub item: Option<String>,
    /// The parameters of the query.
    pub query: Map<String, Value>,
    /// The fields of the body.
    pub body: Fields,
    /// The revision that the app must still have (R-ADMIN-16).
    pub if_match: Option<u64>,
    /// Makes a create idempotent (R-ADMIN-17).
    pub idempotency: Option<Repeat>,
}

/// What makes two creates the same one.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The `Idempotency-Key`.
    pub key: String,
    /// Method and path.
    pub route: String,
    /// The body, of which the store keeps a hash.
    pub body: Vec<u8>,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Value,
    /// The revision of the app, for `ETag`.
    pub revision: Option<u64>,
}

impl Call {
    /// A call without parameters.
    pub fn new(operation: Operation) -> Self {
        Self {
            operation,
            app: None,
            item: None,
            query: Map::new(),
            body: Fields::default(),
            if_match: None,
            idempotency: None,
        }
    }

    /// Names the app of the path.
    #[must_use]
    pub fn app(self, id: &str) -> Self {
        Self { app: Some(id.to_owned()), ..self }
    }

    /// Names the item of the path.
    #[must_use]
    pub fn item(self, id: &str) -> Self {
        Self { item: Some(id.to_owned()), ..self }
    }

    /// Adds a parameter of the query.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.query.insert(name.to_owned(), value.into());
        self
    }

    /// Reads a body as the route of the operation takes it.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn read_body(&mut self, body: &[u8]) -> Result<(), Fault> {
        if body.is_empty() && self.operation.route().body.is_none() {
            return Ok(());
        }
        self.set_body(read_object(body).map_err(Fault::bad_request)?)
    }

    /// Sets the body, which the route of the operation checks.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn set_body(&mut self, fields: Map<String, Value>) -> Result<(), Fault> {
        self.body = match self.operation.route().body {
            Some(Schema::Object(object)) => Fields::checked(fields, object),
            // Its members are checked by their own table.
            Some(_) => Ok(Fields::unchecked(fields)),
            None if fields.is_empty() => Ok(Fields::default()),
            None => Err("This request takes no fields: send no body.".to_owned()),
        }
        .map_err(Fault::bad_request)?;
        Ok(())
    }

    /// The id of the app in the path.
    pub(super) fn app_id(&self) -> &str {
        self.app.as_deref().unwrap_or_default()
    }

    /// The item in the path.
    pub(super) fn item_id(&self) -> &str {
        self.item.as_deref().unwrap_or_default()
    }

    /// Items of the page.
    pub(super) fn limit(&self) -> usize {
        let limit = self.query.get("limit").and_then(Value::as_u64);
        limit.map_or(limits::ADMIN_PAGE_ITEMS, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// The cursor of the page, if it is not the first.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.query.get("cursor").and_then(Value::as_str)
    }

    /// A parameter of the query that is text.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).and_then(Value::as_str)
    }
}

impl Answer {
    /// 200 with this body.
    pub(super) fn ok(body: Value) -> Self {
        Self { status: 200, body, revision: None }
    }

    /// 201 with this body.
    pub(super) fn created(body: Value) -> Self {
        Self { status: 201, body, revision: None }
    }

    /// With the revision of the app.
    pub(super) fn revision(self, revision: u64) -> Self {
        Self { revision: Some(revision), ..self }
    }
}

/// Reads the query of a request: parameters that the route has, each at most once.
pub(super) fn read_query(route: &Route, query: &str) -> Result<Map<String, Value>, Fault> {
    let mut read = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| Fault::bad_request(format!("{name} is not valid UTF-8.")))?;
        let Some(parameter) = route.query.iter().find(|parameter| parameter.name == name) else {
            let known: Vec<&str> = route.query.iter().map(|parameter| parameter.name).collect();
            let known = if known.is_empty() { "takes none".to_owned() } else { format!("takes {}", known.join(", ")) };
            let name: String = name.chars().take(limits::LOGGED_CHARACTERS_MAX).collect();
            return Err(Fault::bad_request(format!("There is no query parameter {name:?}: this path {known}.")));
        };
        let value = read_parameter(parameter, value).map_err(Fault::bad_request)?;
        if read.insert(name.to_owned(), value).is_some() {
            return Err(Fault::bad_request(format!("The query parameter {name} occurs twice.")));
        }
    }
    Ok(read)
}

fn decode(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(Into::into)
}

fn read_parameter(parameter: &Parameter, text: String) -> Result<Value, String> {
    // Digits alone, so that a number has one spelling.
    let is_number = matches!(parameter.schema, Schema::Number { .. }) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { text.parse::<u64>().ok() } else { None };
    let value = number.map_or(Value::String(text), Value::from);
    parameter.schema.check(parameter.name, &value)?;
    Ok(value)
}

/// Checks an `Idempotency-Key`.
pub(super) fn check_idempotency_key(key: &str) -> Result<(), Fault> {
    let fits = (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    if fits && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let most = limits::IDEMPOTENCY_KEY_BYTES_MAX;
    Err(Fault::bad_request(format!("{} takes 1 to {most} visible ASCII characters.", IDEMPOTENCY_KEY.name)))
}

/// The revision of an `If-Match`; none for `*`, which every existing app matches.
pub(super) fn read_if_match(value: &str) -> Result<Option<u64>, Fault> {
    if value == "*" {
        return Ok(None);
    }
    let number = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let number = number.filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|number| number.parse().ok()) {
        Some(revision) => Ok(Some(revision)),
        None => Err(Fault::bad_request("If-Match takes the ETag of the app, such as \"17\", or *.")),
    }
}

/// A revision as `ETag`.
pub(super) fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-ADMIN-13, R-ADMIN-15: parameters of the query at their limits and one beyond, unknown and doubled ones.
    #[test]
    fn queries_are_strict() {
        let read = |operation: Operation, query: &str| read_query(operation.route(), query);
        for query in ["", "limit=1", "limit=1000&cursor=a%2Bb", "&limit=5&"] {
            assert!(read(Operation::ListApps, query).is_ok(), "{query}");
        }
        let cursor = format!("cursor={}", "x".repeat(limits::ADMIN_CURSOR_BYTES_MAX));
        assert!(read(Operation::ListApps, &cursor).is_ok());
        let longer = format!("{cursor}x");
        for (query, part) in [
            ("limit=0", "limit takes a whole number from 1 to 1000"),
            ("limit=1001", "1 to 1000"),
            ("limit=-1", "1 to 1000"),
            ("limit=+1", "1 to 1000"),
            ("limit=", "1 to 1000"),
            ("limit=99999999999999999999", "1 to 1000"),
            ("limit=1&limit=1", "limit occurs twice"),
            ("limt=1", "no query parameter \"limt\": this path takes limit, cursor"),
            ("cursor=", "cursor takes a text of 1 to 64 bytes"),
            ("cursor=%ff", "cursor is not valid UTF-8"),
            (longer.as_str(), "cursor takes"),
        ] {
            let fault = read(Operation::ListApps, query).expect_err(query);
            assert!(fault.status() == 400 && fault.to_string().contains(part), "{query}: {fault}");
        }
        assert!(read(Operation::ShowApp, "x").expect_err("none").to_string().contains("takes none"));
        assert!(read(Operation::RemoveKey, "created=keep").is_ok());
        assert!(read(Operation::RemoveKey, "created=maybe").is_err());
    }

    /// R-ADMIN-16, R-ADMIN-17: the headers at their limits and one beyond.
    #[test]
    fn headers_are_strict() {
        for good in ["x", &"x".repeat(128), "a-b.c:d/e"] {
            assert!(check_idempotency_key(good).is_ok(), "{good}");
        }
        for bad in ["", &"x".repeat(129), "a b", "\u{e9}"] {
            assert_eq!(check_idempotency_key(bad).expect_err(bad).status(), 400);
        }
        assert_eq!(read_if_match("*").expect("any"), None);
        assert_eq!(read_if_match(&etag(u64::MAX)).expect("the largest"), Some(u64::MAX));
        for bad in ["", "7", "\"\"", "\"+7\"", "W/\"7\"", "\"7\", \"8\"", "\"18446744073709551616\""] {
            assert_eq!(read_if_match(bad).expect_err(bad).status(), 400);
        }
    }
}
