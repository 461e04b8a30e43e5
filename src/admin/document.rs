//! The OpenAPI document of the admin API, from its table of routes (R-ADMIN-20).

use super::forms;
use super::routes::{BASE, Method, ROUTES, Route};
use crate::label::Label;
use crate::openapi::schema::Schema;
use crate::openapi::{Answer, Credential, Document, Operation, Parameter, Place};

const PATH_PARAMETER: Schema = Schema::Text { least: 1, most: 128 };

/// The document.
pub(super) fn document() -> Document {
    Document {
        title: "Relay admin API",
        about: "Apps, tokens, webhook endpoints, admin tokens and the audit log of a Relay server.",
        base: BASE.to_owned(),
        credentials: &[Credential {
            name: "admin_token",
            place: Place::Bearer,
            about: "An admin token: `relay admin token create`.",
        }],
        operations: ROUTES.iter().flat_map(|route| route.paths.iter().map(|path| operation(route, path))).collect(),
    }
}

fn operation(route: &'static Route, path: &'static str) -> Operation {
    let label = route.operation.label();
    let id = if route.paths.first() == Some(&path) { label.to_owned() } else { format!("{label}_by_id") };
    let in_path = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| Parameter { name, place: "path", schema: PATH_PARAMETER, about: about(name) });
    Operation {
        method: route.method.name(),
        path,
        id,
        about: route.about,
        permission: route.operation.permission().label(),
        credentials: &[&["admin_token"]],
        parameters: in_path.chain(route.query.iter().copied()).chain(route.headers.iter().copied()).collect(),
        body: route.body,
        answers: answers(route, path),
    }
}

fn about(parameter: &str) -> &'static str {
    match parameter {
        "app" => "Id of the app.",
        "key" => "The key.",
        "token" => "Id of the token.",
        _ => "Id of the webhook endpoint.",
    }
}

/// The answer of a route, and every error that it may have.
fn answers(route: &Route, path: &str) -> Vec<Answer> {
    let (status, schema) = route.answer;
    let mut answers = vec![Answer::json(status, "Done.", schema)];
    if !route.headers.is_empty() && status == 201 {
        answers.push(Answer::json(200, "It was done before, with this Idempotency-Key.", schema));
    }
    answers.push(Answer::error(400, "A parameter or field is not valid; the message names it."));
    answers.push(Answer::error(401, "There is no valid admin token."));
    answers.push(Answer::error(403, "The credential is read-only, or the request comes from a foreign page."));
    if path.contains('{') {
        answers.push(Answer::error(404, "There is no such app or item."));
    }
    if route.method != Method::Get {
        answers.push(Answer::error(408, "The body took too long."));
        let about = "The state of the app or item does not allow it; the message says why.";
        answers.push(Answer::json(409, about, Schema::Object(&forms::CONFLICT)));
        answers.push(Answer::error(412, "The app has changed since the ETag of If-Match."));
        answers.push(Answer::error(413, "The body is too long."));
        answers.push(Answer::error(415, "The body is not declared to be JSON."));
    }
    answers.push(Answer::error(421, "The header Host names another server."));
    answers.push(Answer::error(429, "Too many failed credentials came from this address."));
    answers.push(Answer::error(503, "Too many requests are in flight, or the store cannot be used."));
    answers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::admin::Permission;

    /// T51, R-ADMIN-20: every operation is in the document, with a name of its own and its permission; a read is a GET,
    /// and no other route but lists of credentials and the audit log is.
    #[test]
    fn every_route_is_documented() {
        let document: Value = serde_json::from_slice(&document().encode()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let mut ids = BTreeSet::new();
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().expect("methods") {
                assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{path}");
                let permission = Permission::of_label(operation["x-permission"].as_str().expect("a permission"));
                let reads = permission.expect("a permission") == Permission::Read;
                // It changes nothing, but its question may be long.
                let reads = reads && operation["operationId"] != "explain";
                assert!(!reads || method == "get", "{method} {path} changes something");
                let names = operation["parameters"].as_array().into_iter().flatten();
                let in_path = names.filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(in_path, path.matches('{').count(), "{path}");
            }
        }
        for route in ROUTES {
            assert!(ids.contains(route.operation.label()), "{}", route.operation.label());
        }
        assert_eq!(ids.len(), ROUTES.iter().map(|route| route.paths.len()).sum::<usize>());
    }
}
