//! What a field of an HTTP API takes, defined once: a request body is checked by it, and the OpenAPI document shows it.

use serde_json::{Map, Value, json};

/// The values that a field takes, or that an answer has.
#[derive(Clone, Copy, Debug)]
pub enum Schema {
    /// Text. A request is limited in bytes; JSON Schema counts characters, of which there are never more.
    Text {
        /// Fewest bytes.
        least: usize,
        /// Most bytes.
        most: usize,
    },
    /// Text without a bound of its own.
    AnyText,
    /// Text of a form that a regular expression (ECMA 262) describes completely.
    Form {
        /// The expression.
        pattern: &'static str,
        /// What it takes, in words.
        takes: &'static str,
    },
    /// A whole number.
    Number {
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// `true` or `false`.
    Switch,
    /// A time as RFC 3339.
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list.
    List {
        /// Its items.
        of: &'static Schema,
        /// Most items.
        most: usize,
    },
    /// An object with these fields.
    Object(&'static Object),
    /// One page of a list: `{"items":[],"next":null}`.
    Page(&'static Object),
    /// An object whose members have names of any kind and these values.
    Map(&'static Schema),
    /// A value or null.
    Nullable(&'static Schema),
    /// An object that another table describes; its reader checks its members.
    Table {
        /// Its name in the document.
        name: &'static str,
        /// Its JSON Schema.
        describe: fn() -> Value,
    },
    /// Any value.
    Any,
}

/// An object with named fields and no others.
#[derive(Debug)]
pub struct Object {
    /// Its name in the document.
    pub name: &'static str,
    /// An object whose fields it has, too.
    pub base: Option<&'static Object>,
    /// Its own fields.
    pub fields: &'static [Field],
    /// What other fields are.
    pub others: Others,
}

/// What fields are that an object does not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Others {
    /// They are refused, or do not occur.
    Refused,
    /// They are ignored, or a later version may add some.
    Ignored,
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether it may be left out.
    pub presence: Presence,
    /// What it takes.
    pub schema: Schema,
    /// What it is, in one sentence.
    pub about: &'static str,
}

/// Whether a field may be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// It must be there.
    Required,
    /// It may be left out.
    Optional,
}

impl Field {
    /// A field that must be there.
    pub const fn required(name: &'static str, schema: Schema, about: &'static str) -> Self {
        Self { name, presence: Presence::Required, schema, about }
    }

    /// A field that may be left out.
    pub const fn optional(name: &'static str, schema: Schema, about: &'static str) -> Self {
        Self { name, presence: Presence::Optional, schema, about }
    }
}

impl Schema {
    /// Its JSON Schema. Named objects are references to `definitions`, to which they are added.
    pub(super) fn describe(&self, definitions: &mut Map<String, Value>) -> Value {
        match self {
            Self::Text { least, most } => json!({"type": "string", "minLength": least, "maxLength": most}),
            Self::AnyText => json!({"type": "string"}),
            Self::Form { pattern, .. } => json!({"type": "string", "pattern": pattern}),
            Self::Number { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Switch => json!({"type": "boolean"}),
            Self::Time => json!({"type": "string", "format": "date-time"}),
            Self::Word(words) => json!({"type": "string", "enum": words}),
            Self::List { of, most } => {
                json!({"type": "array", "items": of.describe(definitions), "maxItems": most})
            }
            Self::Object(object) => object.reference(definitions),
            Self::Page(object) => json!({
                "type": "object",
                "required": ["items", "next"],
                "additionalProperties": false,
                "properties": {
                    "items": {"type": "array", "items": object.reference(definitions)},
                    "next": {"type": ["string", "null"], "description": "The cursor of the next page; null at the end."},
                },
            }),
            Self::Map(of) => json!({"type": "object", "additionalProperties": of.describe(definitions)}),
            Self::Nullable(of) => json!({"anyOf": [of.describe(definitions), {"type": "null"}]}),
            Self::Table { name, describe } => refer(name, definitions, |_| describe()),
            Self::Any => json!({}),
        }
    }
}

impl Object {
    /// An object with these fields.
    pub const fn new(name: &'static str, fields: &'static [Field]) -> Self {
        Self { name, base: None, fields, others: Others::Refused }
    }

    /// An object with these fields, and perhaps others.
    pub const fn open(name: &'static str, fields: &'static [Field]) -> Self {
        Self::new(name, fields).and_others()
    }

    /// As it is, and perhaps with other fields.
    pub const fn and_others(self) -> Self {
        Self { others: Others::Ignored, ..self }
    }

    /// An object with the fields of another one, and these.
    pub const fn extending(base: &'static Self, name: &'static str, fields: &'static [Field]) -> Self {
        Self { name, base: Some(base), fields, others: base.others }
    }

    /// All its fields, those of its base first.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static Field> {
        let inherited: Box<dyn Iterator<Item = &'static Field>> = match self.base {
            Some(base) => Box::new(base.all_fields()),
            None => Box::new(std::iter::empty()),
        };
        inherited.chain(self.fields)
    }

    fn reference(&self, definitions: &mut Map<String, Value>) -> Value {
        refer(self.name, definitions, |definitions| self.describe(definitions))
    }

    fn describe(&self, definitions: &mut Map<String, Value>) -> Value {
        let properties: Map<String, Value> = self
            .all_fields()
            .map(|field| {
                let mut schema = field.schema.describe(definitions);
                if !field.about.is_empty() && schema.get("$ref").is_none() {
                    schema["description"] = field.about.into();
                }
                (field.name.to_owned(), schema)
            })
            .collect();
        let required = self.all_fields().filter(|field| field.presence == Presence::Required);
        let required: Vec<&str> = required.map(|field| field.name).collect();
        let others = self.others == Others::Ignored;
        json!({"type": "object", "required": required, "additionalProperties": others, "properties": properties})
    }
}

/// A reference to a definition, which is added when it is first used.
fn refer(
    name: &str,
    definitions: &mut Map<String, Value>,
    describe: impl FnOnce(&mut Map<String, Value>) -> Value,
) -> Value {
    if !definitions.contains_key(name) {
        definitions.insert(name.to_owned(), Value::Null);
        let described = describe(definitions);
        definitions.insert(name.to_owned(), described);
    }
    json!({"$ref": format!("#/components/schemas/{name}")})
}
