//! The table of routes: each operation with its method and paths, what it takes and what it answers (R-ADMIN-13). The
//! router, the reader of requests, the command line and the OpenAPI document all use it.

use super::forms;
use super::operation::Operation;
use crate::label::Label;
use crate::limits;
use crate::openapi::Parameter;
use crate::openapi::schema::{Object, Schema};

/// Where the paths of the table begin.
pub const BASE: &str = "/admin/api/v1";

/// An operation over HTTP.
pub struct Route {
    /// The operation.
    pub operation: Operation,
    /// Its method.
    pub method: Method,
    /// Its paths below [`BASE`], the first of which the command line uses. `{app}` is the id of an app; another
    /// parameter in braces is the item.
    pub paths: &'static [&'static str],
    /// What it does, in one sentence.
    pub about: &'static str,
    /// The parameters of its query.
    pub query: &'static [Parameter],
    /// The headers that it takes.
    pub headers: &'static [Parameter],
    /// Its body.
    pub body: Option<Schema>,
    /// Longest body.
    pub body_bytes_max: usize,
    /// The status and body of its answer.
    pub answer: (u16, Schema),
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// Changes nothing (R-ADMIN-13).
    Get,
    /// Creates, or does something.
    Post,
    /// Changes what the body names.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Operation {
    /// Its route.
    pub const fn route(self) -> &'static Route {
        &ROUTES[self as usize]
    }
}

impl Route {
    const fn get(operation: Operation, paths: &'static [&'static str], about: &'static str, schema: Schema) -> Self {
        Self {
            operation,
            method: Method::Get,
            paths,
            about,
            query: &[],
            headers: &[],
            body: None,
            body_bytes_max: limits::ADMIN_BODY_BYTES_MAX,
            answer: (200, schema),
        }
    }

    const fn list(
        operation: Operation,
        paths: &'static [&'static str],
        about: &'static str,
        of: &'static Object,
    ) -> Self {
        Self::get(operation, paths, about, Schema::Page(of)).query(&[LIMIT, CURSOR])
    }

    const fn create(
        operation: Operation,
        paths: &'static [&'static str],
        about: &'static str,
        (body, made): (&'static Object, &'static Object),
    ) -> Self {
        let route = Self::change(operation, Method::Post, paths, about, made);
        route.body(Schema::Object(body), limits::ADMIN_BODY_BYTES_MAX).creating().repeatable()
    }

    const fn change(
        operation: Operation,
        method: Method,
        paths: &'static [&'static str],
        about: &'static str,
        answer: &'static Object,
    ) -> Self {
        Self { method, ..Self::get(operation, paths, about, Schema::Object(answer)) }
    }

    /// Its query has these parameters.
    const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// Its body is this, of at most so many bytes.
    const fn body(self, schema: Schema, bytes_max: usize) -> Self {
        Self { body: Some(schema), body_bytes_max: bytes_max, ..self }
    }

    /// It answers 201.
    const fn creating(self) -> Self {
        Self { answer: (201, self.answer.1), ..self }
    }

    /// `If-Match` is honoured (R-ADMIN-16).
    const fn conditional(self) -> Self {
        Self { headers: &[IF_MATCH], ..self }
    }

    /// `Idempotency-Key` is honoured (R-ADMIN-17).
    const fn repeatable(self) -> Self {
        Self { headers: &[IDEMPOTENCY_KEY], ..self }
    }

    /// Its path below [`BASE`] with these values, percent-encoded.
    pub fn path(&self, app: Option<&str>, item: Option<&str>) -> String {
        let wants = |path: &str| (path.contains("{app}"), path.matches('{').count());
        let given = (app.is_some(), usize::from(app.is_some()) + usize::from(item.is_some()));
        let template = self.paths.iter().find(|path| wants(path) == given).expect("a path for these parameters");
        let segments = template.split('/').map(|segment| match segment {
            "{app}" => encode(app.unwrap_or_default()),
            segment if segment.starts_with('{') => encode(item.unwrap_or_default()),
            segment => segment.to_owned(),
        });
        segments.collect::<Vec<_>>().join("/")
    }
}

fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Where the choice about the items of a removed key is.
pub const CREATED: &str = "created";
const CREATED_PARAMETER: Parameter = Parameter {
    name: CREATED,
    place: "query",
    schema: Schema::Word(&["revoke", "keep"]),
    about: "What happens to the tokens and webhook endpoints that the removed keys created; required if there are any.",
};
const APP_FILTER: Parameter =
    Parameter { name: "app", place: "query", schema: ID_OF_APP, about: "Only entries about this app." };
const ID_OF_APP: Schema = Schema::Text { least: 1, most: limits::APP_ID_BYTES_MAX };
const LIMIT: Parameter = Parameter {
    name: "limit",
    place: "query",
    schema: Schema::Number { least: 1, most: limits::ADMIN_PAGE_ITEMS_MAX as u64 },
    about: "Items of a page; 100 by default.",
};
const CURSOR: Parameter = Parameter {
    name: "cursor",
    place: "query",
    schema: Schema::Text { least: 1, most: limits::ADMIN_CURSOR_BYTES_MAX },
    about: "`next` of the page before.",
};
/// The header that makes a create idempotent (R-ADMIN-17).
pub const IDEMPOTENCY_KEY: Parameter = Parameter {
    name: "Idempotency-Key",
    place: "header",
    schema: Schema::Form { pattern: "^[!-~]{1,128}$", takes: "1 to 128 visible ASCII characters" },
    about: "For 24 hours a repeat with this key returns the record without its secret.",
};
const IF_MATCH: Parameter = Parameter {
    name: "If-Match",
    place: "header",
    schema: Schema::Form { pattern: "^(\\*|\"[0-9]{1,20}\")$", takes: "the ETag of the app" },
    about: "The `ETag` that the app must still have, else 412.",
};

/// The routes, in the order of [`Operation`].
pub const ROUTES: &[Route] = &[
    Route::get(Operation::Status, &["/status"], "The state of the server.", Schema::Object(&forms::STATUS)),
    Route::list(Operation::ListApps, &["/apps"], "List apps, the oldest first.", &forms::APP_SUMMARY),
    Route::create(
        Operation::CreateApp,
        &["/apps"],
        "Create an app with one key pair.",
        (&forms::CREATE_APP, &forms::NEW_APP),
    ),
    Route::get(Operation::ShowApp, &["/apps/{app}"], "Show an app.", Schema::Object(&forms::APP)),
    Route::change(
        Operation::DeleteApp,
        Method::Delete,
        &["/apps/{app}"],
        "Delete an app with all that belongs to it.",
        &forms::DELETED_APP,
    )
    .conditional(),
    Route::change(
        Operation::ChangeSettings,
        Method::Patch,
        &["/apps/{app}/settings"],
        "Change the named settings of an app; the others stay.",
        &forms::APP,
    )
    .body(forms::SETTINGS_CHANGE, limits::ADMIN_BODY_BYTES_MAX)
    .conditional(),
    Route::change(
        Operation::DisableApp,
        Method::Post,
        &["/apps/{app}/disable"],
        "Disable an app: close its connections and refuse its requests.",
        &forms::APP_SUMMARY,
    )
    .conditional(),
    Route::change(
        Operation::EnableApp,
        Method::Post,
        &["/apps/{app}/enable"],
        "Enable a disabled app.",
        &forms::APP_SUMMARY,
    )
    .conditional(),
    Route::change(
        Operation::AddKey,
        Method::Post,
        &["/apps/{app}/keys"],
        "Add a key pair; the old ones stay valid.",
        &forms::NEW_KEY,
    )
    .creating()
    .conditional(),
    Route::change(
        Operation::RemoveOldKeys,
        Method::Delete,
        &["/apps/{app}/keys"],
        "Remove all key pairs but the newest.",
        &forms::REMOVED_KEYS,
    )
    .query(&[CREATED_PARAMETER])
    .conditional(),
    Route::change(
        Operation::RemoveKey,
        Method::Delete,
        &["/apps/{app}/keys/{key}"],
        "Remove one key pair; the last one stays.",
        &forms::REMOVED_KEYS,
    )
    .query(&[CREATED_PARAMETER])
    .conditional(),
    Route::change(
        Operation::RevealApp,
        Method::Post,
        &["/apps/{app}/reveal"],
        "Show an app with the secrets of its keys; the audit log records it.",
        &forms::REVEALED_APP,
    ),
    Route::list(
        Operation::ListAppTokens,
        &["/apps/{app}/tokens"],
        "List the tokens of an app, the oldest first.",
        &forms::TOKEN,
    ),
    Route::create(
        Operation::CreateToken,
        &["/apps/{app}/tokens"],
        "Create a token, which is shown only once.",
        (&forms::CREATE_TOKEN, &forms::NEW_TOKEN),
    ),
    Route::change(
        Operation::RotateToken,
        Method::Post,
        &["/apps/{app}/tokens/{token}/rotate", "/tokens/{token}/rotate"],
        "Replace a token by a new one with the same name, scopes and expiry.",
        &forms::NEW_TOKEN,
    )
    .creating()
    .repeatable(),
    Route::change(
        Operation::RevokeToken,
        Method::Delete,
        &["/apps/{app}/tokens/{token}", "/tokens/{token}"],
        "Revoke a token permanently.",
        &forms::TOKEN,
    ),
    Route::list(Operation::ListTokens, &["/tokens"], "List the tokens of all apps, the oldest first.", &forms::TOKEN),
    Route::list(
        Operation::ListAppWebhooks,
        &["/apps/{app}/webhooks"],
        "List the webhook endpoints of an app, the oldest first.",
        &forms::WEBHOOK,
    ),
    Route::create(
        Operation::CreateWebhook,
        &["/apps/{app}/webhooks"],
        "Create a webhook endpoint; its secret is shown only once.",
        (&forms::CREATE_WEBHOOK, &forms::NEW_WEBHOOK),
    ),
    Route::change(
        Operation::RemoveWebhook,
        Method::Delete,
        &["/apps/{app}/webhooks/{webhook}", "/webhooks/{webhook}"],
        "Remove a webhook endpoint and drop its pending requests.",
        &forms::REMOVED_WEBHOOK,
    ),
    Route::change(
        Operation::DisableWebhook,
        Method::Post,
        &["/apps/{app}/webhooks/{webhook}/disable", "/webhooks/{webhook}/disable"],
        "Stop sending to a webhook endpoint and drop its pending requests.",
        &forms::WEBHOOK,
    ),
    Route::change(
        Operation::EnableWebhook,
        Method::Post,
        &["/apps/{app}/webhooks/{webhook}/enable", "/webhooks/{webhook}/enable"],
        "Send to a webhook endpoint again.",
        &forms::WEBHOOK,
    ),
    Route::list(Operation::ListWebhooks, &["/webhooks"], "List the webhook endpoints of all apps.", &forms::WEBHOOK),
    Route::list(
        Operation::ListAdminTokens,
        &["/admin-tokens"],
        "List admin tokens, the oldest first.",
        &forms::ADMIN_TOKEN,
    ),
    Route::create(
        Operation::CreateAdminToken,
        &["/admin-tokens"],
        "Create an admin token, which is shown only once.",
        (&forms::CREATE_ADMIN_TOKEN, &forms::NEW_ADMIN_TOKEN),
    ),
    Route::change(
        Operation::RevokeAdminToken,
        Method::Delete,
        &["/admin-tokens/{token}"],
        "Revoke an admin token permanently.",
        &forms::ADMIN_TOKEN,
    ),
    Route::list(Operation::ListAudit, &["/audit"], "List the audit log, the newest entry first.", &forms::AUDIT_ENTRY)
        .query(&[LIMIT, CURSOR, APP_FILTER]),
    Route::change(
        Operation::Explain,
        Method::Post,
        &["/explain"],
        "Explain why a subscription, a signin or a request was refused; nothing is changed.",
        &forms::EXPLANATION,
    )
    .body(Schema::Object(&forms::QUESTION), limits::ADMIN_EXPLAIN_BYTES_MAX),
    Route::change(
        Operation::Replay,
        Method::Post,
        &["/apps/{app}/replay"],
        "Publish kept events of an app again, to it or to another app; the audit log records it.",
        &forms::REPLAYED,
    )
    .body(Schema::Object(&forms::REPLAY), limits::ADMIN_BODY_BYTES_MAX),
    Route::change(
        Operation::TestWebhook,
        Method::Post,
        &["/apps/{app}/webhooks/{webhook}/test", "/webhooks/{webhook}/test"],
        "Send one signed event named test to a webhook endpoint directly.",
        &forms::TESTED_WEBHOOK,
    ),
    Route::list(
        Operation::ListFailedDeliveries,
        &["/apps/{app}/failed-deliveries", "/failed-deliveries"],
        "List the last webhook deliveries that were given up, the newest first.",
        &forms::FAILED_DELIVERY,
    ),
];

/// Every operation has its route at its place, or this does not compile.
const _: () = {
    assert!(ROUTES.len() == <Operation as Label>::ALL.len());
    let mut at = 0;
    while at < ROUTES.len() {
        assert!(ROUTES[at].operation as usize == at, "the routes are in the order of the operations");
        at += 1;
    }
};
