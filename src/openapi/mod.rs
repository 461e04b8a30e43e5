//! The description of an HTTP API as an OpenAPI 3.1 document (R-ADMIN-20). It is made from the tables that route
//! requests and check their bodies, so that it cannot disagree with them.

pub mod body;
pub mod schema;
pub mod settings;

use serde_json::{Map, Value, json};

use schema::{Field, Object, Schema};

/// An API.
#[derive(Debug)]
pub struct Document {
    /// Its title.
    pub title: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
    /// Where its paths begin: a path on the same host.
    pub base: String,
    /// How requests authenticate.
    pub credentials: &'static [Credential],
    /// Its operations.
    pub operations: Vec<Operation>,
}

/// A way to authenticate.
#[derive(Debug)]
pub struct Credential {
    /// Its name in the document.
    pub name: &'static str,
    /// Where it is in a request.
    pub place: Place,
    /// What it is, in one sentence.
    pub about: &'static str,
}

/// Where something is in a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// `Authorization: Bearer`.
    Bearer,
    /// A header of this name.
    Header(&'static str),
    /// A parameter of the query.
    Query(&'static str),
}

/// One method of one path.
#[derive(Debug)]
pub struct Operation {
    /// Its method in upper case.
    pub method: &'static str,
    /// Its path after the base, such as `/apps/{app}`.
    pub path: &'static str,
    /// Its name, unique in the document.
    pub id: String,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// The permission that it needs.
    pub permission: &'static str,
    /// Each set of credentials is a way to authenticate: all of a set together. Empty for none.
    pub credentials: &'static [&'static [&'static str]],
    /// Parameters of its path, query and headers.
    pub parameters: Vec<Parameter>,
    /// Its JSON body.
    pub body: Option<Schema>,
    /// Its answers.
    pub answers: Vec<Answer>,
}

/// A parameter of a path, query or header.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// `path`, `query` or `header`.
    pub place: &'static str,
    /// What it takes.
    pub schema: Schema,
    /// What it is, in one sentence.
    pub about: &'static str,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// When it is given.
    pub about: &'static str,
    /// Its body; `None` for an answer without one.
    pub body: Option<AnswerBody>,
}

/// The body of an answer.
#[derive(Clone, Copy, Debug)]
pub enum AnswerBody {
    /// JSON of this form.
    Json(Schema),
    /// Text.
    Text,
    /// JSON of this form, or text where the request was not read as one.
    JsonOrText(Schema),
    /// Server-sent events.
    EventStream,
}

/// The body of every error (R-ERR-1).
pub const ERROR: Object = Object::new(
    "Error",
    &[
        Field::required("error", Schema::Text { least: 1, most: 32 }, "The code of the error."),
        Field::required("message", Schema::Text { least: 1, most: 65_536 }, "One sentence with the cause."),
    ],
);

impl Answer {
    /// An answer with a JSON body.
    pub const fn json(status: u16, about: &'static str, schema: Schema) -> Self {
        Self { status, about, body: Some(AnswerBody::Json(schema)) }
    }

    /// An error in the form of R-ERR-1.
    pub const fn error(status: u16, about: &'static str) -> Self {
        Self::json(status, about, Schema::Object(&ERROR))
    }

    /// The same, or a text if the request is not HTTP or exceeds a limit before its path is known.
    pub const fn early_error(status: u16, about: &'static str) -> Self {
        Self { status, about, body: Some(AnswerBody::JsonOrText(Schema::Object(&ERROR))) }
    }
}

impl Document {
    /// The document as JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut definitions = Map::new();
        let mut paths: Map<String, Value> = Map::new();
        for operation in &self.operations {
            let path = paths.entry(operation.path.to_owned()).or_insert_with(|| json!({}));
            path[operation.method.to_ascii_lowercase()] = operation.describe(&mut definitions);
        }
        let credentials: Map<String, Value> =
            self.credentials.iter().map(|credential| (credential.name.to_owned(), credential.describe())).collect();
        let document = json!({
            "openapi": "3.1.0",
            "info": {"title": self.title, "description": self.about, "version": env!("CARGO_PKG_VERSION")},
            "servers": [{"url": self.base}],
            "paths": paths,
            "components": {"schemas": definitions, "securitySchemes": credentials},
        });
        serde_json::to_vec(&document).expect("a value of strings and numbers is JSON")
    }
}

impl Credential {
    fn describe(&self) -> Value {
        let (kind, place, name) = match self.place {
            Place::Bearer => return json!({"type": "http", "scheme": "bearer", "description": self.about}),
            Place::Header(name) => ("apiKey", "header", name),
            Place::Query(name) => ("apiKey", "query", name),
        };
        json!({"type": kind, "in": place, "name": name, "description": self.about})
    }
}

impl Operation {
    fn describe(&self, definitions: &mut Map<String, Value>) -> Value {
        let parameters: Vec<Value> = self.parameters.iter().map(|parameter| parameter.describe(definitions)).collect();
        let security: Vec<Value> = self
            .credentials
            .iter()
            .map(|set| set.iter().map(|name| ((*name).to_owned(), json!([]))).collect::<Map<_, _>>().into())
            .collect();
        let mut answers = Map::new();
        for answer in &self.answers {
            answers.insert(answer.status.to_string(), answer.describe(definitions));
        }
        let mut described = json!({
            "operationId": self.id,
            "summary": self.about,
            "x-permission": self.permission,
            "security": security,
            "responses": answers,
        });
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some(body) = &self.body {
            let schema = body.describe(definitions);
            described["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        described
    }
}

impl Parameter {
    fn describe(&self, definitions: &mut Map<String, Value>) -> Value {
        json!({
            "name": self.name,
            "in": self.place,
            "required": self.place == "path",
            "schema": self.schema.describe(definitions),
            "description": self.about,
        })
    }
}

impl Answer {
    fn describe(&self, definitions: &mut Map<String, Value>) -> Value {
        let mut described = json!({"description": self.about});
        match self.body {
            Some(AnswerBody::Json(schema)) => {
                described["content"] = json!({"application/json": {"schema": schema.describe(definitions)}});
            }
            Some(AnswerBody::JsonOrText(schema)) => {
                let schema = schema.describe(definitions);
                described["content"] = json!({
                    "application/json": {"schema": schema},
                    "text/plain; charset=utf-8": {"schema": {"type": "string"}},
                });
            }
            Some(AnswerBody::Text) => {
                described["content"] = json!({"text/plain; charset=utf-8": {"schema": {"type": "string"}}});
            }
            Some(AnswerBody::EventStream) => {
                described["content"] = json!({"text/event-stream; charset=utf-8": {"schema": {"type": "string"}}});
            }
            None => {}
        }
        described
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-ADMIN-20: the parts of a document: paths with several methods, references to objects that are defined once,
    /// parameters, credentials, and answers with and without bodies.
    #[test]
    fn the_parts_of_a_document() {
        const ITEM: Object = Object::new("Item", &[Field::required("on", Schema::Switch, "A switch.")]);
        let operation = |method, id: &str, body| Operation {
            method,
            path: "/items/{id}",
            id: id.to_owned(),
            about: "Does it.",
            permission: "read",
            credentials: &[&["token"], &["key", "secret"]],
            parameters: vec![Parameter {
                name: "id",
                place: "path",
                schema: Schema::Text { least: 1, most: 8 },
                about: "Which.",
            }],
            body,
            answers: vec![
                Answer::json(200, "It.", Schema::Page(&ITEM)),
                Answer { status: 204, about: "Gone.", body: None },
                Answer::error(404, "Unknown."),
            ],
        };
        let document = Document {
            title: "Sample",
            about: "A sample.",
            base: "/v1".to_owned(),
            credentials: &[
                Credential { name: "token", place: Place::Bearer, about: "A token." },
                Credential { name: "key", place: Place::Header("X-Key"), about: "A key." },
            ],
            operations: vec![operation("GET", "show", None), operation("PUT", "set", Some(Schema::Object(&ITEM)))],
        };
        let value: Value = serde_json::from_slice(&document.encode()).expect("JSON");
        assert_eq!(value["openapi"], "3.1.0");
        let path = &value["paths"]["/items/{id}"];
        assert_eq!(path["get"]["security"], json!([{"token": []}, {"key": [], "secret": []}]));
        assert!(path["get"].get("requestBody").is_none());
        let body = &path["put"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(*body, json!({"$ref": "#/components/schemas/Item"}));
        let definitions = value["components"]["schemas"].as_object().expect("definitions");
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["Error", "Item"]);
        assert_eq!(definitions["Item"]["properties"]["on"], json!({"type": "boolean", "description": "A switch."}));
        assert!(path["get"]["responses"]["204"].get("content").is_none());
        assert_eq!(value["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        assert_eq!(path["get"]["parameters"][0]["required"], true);
    }
}
