//! The objects of the admin API: what requests may have and what answers contain. Requests are checked by these, and
//! the OpenAPI document shows them.

use serde_json::{Value, json};

use crate::api::objects::{self, CREATOR, ID, NAME, TIME_OR_NULL};
use crate::app::AppSettings;
use crate::app::settings::APP_SETTINGS;
use crate::auth::explain::{Cause, Verdict};
use crate::label::Label;
use crate::limits;
use crate::openapi::ERROR;
use crate::openapi::schema::{Field, Object, Schema};
use crate::openapi::settings::describe;

pub(super) use crate::api::objects::CREATE_TOKEN;
pub(super) use crate::api::replay::{REPLAY, REPLAYED};

const TEXT: Schema = Schema::Text { least: 0, most: 65_536 };
const APP_ID: Schema = Schema::Form { pattern: "^[A-Za-z0-9._-]{1,64}$", takes: "1 to 64 of A-Z a-z 0-9 - _ ." };
const APP_KEY: Schema = Schema::Form { pattern: "^[A-Za-z0-9._~-]{1,128}$", takes: "1 to 128 of A-Z a-z 0-9 - _ . ~" };
const APP_SECRET: Schema =
    Schema::Form { pattern: "^[!-~]{1,256}$", takes: "1 to 256 visible ASCII characters without spaces" };
const KEYS: Schema = Schema::List { of: &APP_KEY, most: limits::APP_KEYS_MAX };
const SETTINGS: Schema =
    Schema::Table { name: "Settings", describe: || describe(APP_SETTINGS, &AppSettings::default()) };

/// The permission for authorizers at private addresses, as the body of a change may name it; as for webhook endpoints,
/// no credential of an app can give it.
pub(super) const ALLOW_PRIVATE: &str = "allow_private";
/// The body of a change of settings: those of the table, and the name of the app.
pub(super) const SETTINGS_CHANGE: Schema = Schema::Table { name: "SettingsChange", describe: describe_change };

fn describe_change() -> Value {
    let mut schema = describe(APP_SETTINGS, &AppSettings::default());
    schema["properties"]["name"] =
        json!({"type": "string", "maxLength": limits::NAME_BYTES_MAX, "description": "A name for people."});
    schema["properties"][ALLOW_PRIVATE] = schema["properties"]["authorizer_allow_private"].clone();
    schema
}

/// The state of the server.
pub(super) const STATUS: Object = Object::new(
    "Status",
    &[
        Field::required("version", TEXT, "Version of the server."),
        Field::required("started_at", Schema::Time, "When it started."),
        Field::required("uptime_s", COUNT, "Seconds since then."),
        Field::required("driver", TEXT, "The driver in use."),
        Field::required("driver_reason", TEXT, "Why it was chosen."),
        Field::required("shards", COUNT, "Number of shards."),
        Field::required("listen", TEXT, "Address of the public port."),
        Field::required("apps", COUNT, "Number of apps."),
        Field::required("store_version", COUNT, "Changes of the store so far."),
    ],
);
const COUNT: Schema = Schema::Number { least: 0, most: u64::MAX };

/// An app in a list.
pub(super) const APP_SUMMARY: Object = Object::new(
    "AppSummary",
    &[
        Field::required("id", APP_ID, "Its id."),
        Field::required("name", NAME, "A name for people."),
        Field::required("enabled", Schema::Switch, "A disabled app refuses everything."),
        Field::required("keys", KEYS, "Its active keys, the oldest first."),
        Field::required("created_at", Schema::Time, "When it was created."),
    ],
);

/// An app without the removed keys, and what these had created.
pub(super) const REMOVED_KEYS: Object = Object::extending(
    &APP_SUMMARY,
    "RemovedKeys",
    &[
        Field::required("removed", KEYS, "The removed keys."),
        Field::required("created", CREATED_ITEMS, "The active tokens and webhook endpoints that they had created."),
        Field::required("revoked", Schema::Switch, "Whether these were revoked and removed, too."),
    ],
);
const CREATED_ITEMS: Schema = Schema::List { of: &Schema::Object(&CREATED_ITEM), most: 100_000 };
const CREATED_ITEM: Object = Object::new(
    "CreatedItem",
    &[
        Field::required("kind", Schema::Word(&["token", "webhook"]), "What it is."),
        Field::required("id", ID, "Its public id."),
        Field::required("name", TEXT, "The name of a token, the URL of an endpoint."),
        Field::required("created_by", TEXT, "The credential that created it."),
        Field::required("created_at", Schema::Time, "When it was created."),
    ],
);

/// A refusal that the state of an app or item causes.
pub(super) const CONFLICT: Object = Object::extending(
    &ERROR,
    "Conflict",
    &[Field::optional("created", CREATED_ITEMS, "What the keys had created, if that is why they were not removed.")],
);

/// A key without its secret.
const KEY: Object = Object::new(
    "Key",
    &[
        Field::required("key", APP_KEY, "The public key."),
        Field::required("created_at", Schema::Time, "When it was created."),
    ],
);
const KEY_WITH_SECRET: Object =
    Object::extending(&KEY, "KeyWithSecret", &[Field::required("secret", APP_SECRET, "Its secret.")]);

/// A new key pair.
pub(super) const NEW_KEY: Object =
    Object::extending(&KEY_WITH_SECRET, "NewKey", &[Field::required("id", APP_ID, "Id of the app.")]);

/// What every form of an app has.
const APP_BASE: Object = Object::new(
    "AppBase",
    &[
        Field::required("id", APP_ID, "Its id."),
        Field::required("name", NAME, "A name for people."),
        Field::required("enabled", Schema::Switch, "A disabled app refuses everything."),
        Field::required("created_at", Schema::Time, "When it was created."),
        Field::required("settings", SETTINGS, "Every setting."),
    ],
);
const KEY_OBJECTS: Schema = Schema::List { of: &Schema::Object(&KEY), most: limits::APP_KEYS_MAX };

/// An app.
pub(super) const APP: Object =
    Object::extending(&APP_BASE, "App", &[Field::required("keys", KEY_OBJECTS, "Its active keys, the oldest first.")]);

/// A new app; a repeat with the same `Idempotency-Key` has no secret.
pub(super) const NEW_APP: Object = Object::extending(
    &APP,
    "NewApp",
    &[
        Field::required("key", APP_KEY, "Its key."),
        Field::optional("secret", APP_SECRET, "Its secret; missing in a repeat."),
    ],
);

/// An app with its secrets.
pub(super) const REVEALED_APP: Object = Object::extending(
    &APP_BASE,
    "RevealedApp",
    &[Field::required(
        "keys",
        Schema::List { of: &Schema::Object(&KEY_WITH_SECRET), most: limits::APP_KEYS_MAX },
        "Its active keys with their secrets, the oldest first.",
    )],
);

/// The body that creates an app.
pub(super) const CREATE_APP: Object = Object::new(
    "CreateApp",
    &[
        Field::optional("name", NAME, "A name for people."),
        Field::optional("id", APP_ID, "Its id; 9 random digits by default."),
        Field::optional("key", APP_KEY, "Its key; 20 random hex digits by default."),
        Field::optional("secret", APP_SECRET, "Its secret; 40 random characters by default."),
        Field::optional("settings", SETTINGS, "Settings other than the defaults."),
    ],
);

/// The answer to a deletion.
pub(super) const DELETED_APP: Object = Object::new(
    "DeletedApp",
    &[Field::required("id", APP_ID, "Its id."), Field::required("deleted", Schema::Switch, "True.")],
);

/// A token of an app.
pub(super) const TOKEN: Object =
    Object::extending(&objects::TOKEN, "Token", &[Field::required("app", APP_ID, "Id of its app.")]);

/// A new token; a repeat with the same `Idempotency-Key` has no `token`.
pub(super) const NEW_TOKEN: Object =
    Object::extending(&TOKEN, "NewToken", &[Field::optional("token", ID, "The token; missing in a repeat.")]);

/// A webhook endpoint.
pub(super) const WEBHOOK: Object = Object::extending(
    &objects::WEBHOOK,
    "Webhook",
    &[
        Field::required("app", APP_ID, "Id of its app."),
        Field::required("created_at", Schema::Time, "When it was created."),
        Field::required("created_by", CREATOR, "The credential that created it."),
    ],
);

/// A new webhook endpoint; a repeat with the same `Idempotency-Key` has no secret.
pub(super) const NEW_WEBHOOK: Object =
    Object::extending(&WEBHOOK, "NewWebhook", &[Field::optional("secret", ID, "Its secret; missing in a repeat.")]);

/// The body that creates a webhook endpoint.
pub(super) const CREATE_WEBHOOK: Object = Object::extending(
    &objects::CREATE_WEBHOOK,
    "CreateWebhook",
    &[Field::optional("allow_private", Schema::Switch, "Allow private addresses and http.")],
);

/// The answer to the removal of a webhook endpoint.
pub(super) const REMOVED_WEBHOOK: Object = Object::new(
    "RemovedWebhook",
    &[
        Field::required("id", ID, "Its public id."),
        Field::required("app", APP_ID, "Id of its app."),
        Field::required("removed", Schema::Switch, "True."),
    ],
);

/// The answer of a webhook endpoint to a test.
pub(super) const TESTED_WEBHOOK: Object = Object::new(
    "TestedWebhook",
    &[
        Field::required("id", ID, "Its public id."),
        Field::required("app", APP_ID, "Id of its app."),
        Field::required("url", Schema::AnyText, "Where the request was sent."),
        Field::required("delivered", Schema::Switch, "Whether it answered 2xx."),
        Field::required("status", STATUS_OR_NULL, "The status of its answer; null without one."),
        Field::required("reason", TEXT_OR_NULL, "Why it counts as failed: the answer's text, or why there was none."),
    ],
);
const STATUS_OR_NULL: Schema = Schema::Nullable(&Schema::Number { least: 100, most: 999 });

/// A webhook delivery that was given up.
pub(super) const FAILED_DELIVERY: Object = Object::new(
    "FailedDelivery",
    &[
        Field::required("app", Schema::Nullable(&APP_ID), "Id of its app; null if that was deleted."),
        Field::required("webhook", ID, "Public id of the endpoint."),
        Field::required("created_at", Schema::Time, "When its events happened."),
        Field::required("failed_at", Schema::Time, "When it was given up."),
        Field::required("attempts", Schema::Number { least: 1, most: 255 }, "Number of requests made."),
        Field::required("reason", Schema::AnyText, "The answer to the last request, or why there was none."),
    ],
);

/// An admin token.
pub(super) const ADMIN_TOKEN: Object = Object::new(
    "AdminToken",
    &[
        Field::required("id", ID, "Its public id."),
        Field::required("name", NAME, "A name for people."),
        Field::required("role", TEXT, "admin, or viewer for a read-only token."),
        Field::required("created_at", Schema::Time, "When it was created."),
        Field::required("created_by", TEXT, "The credential that created it."),
        Field::required("expires_at", TIME_OR_NULL, "When it expires."),
        Field::required("last_used_at", TIME_OR_NULL, "When it was last used, up to a minute behind."),
        Field::required("revoked_at", TIME_OR_NULL, "When it was revoked."),
    ],
);

/// A new admin token; a repeat with the same `Idempotency-Key` has no `token`.
pub(super) const NEW_ADMIN_TOKEN: Object = Object::extending(
    &ADMIN_TOKEN,
    "NewAdminToken",
    &[Field::optional("token", ID, "The token; missing in a repeat.")],
);

/// The body that creates an admin token.
pub(super) const CREATE_ADMIN_TOKEN: Object = Object::new(
    "CreateAdminToken",
    &[
        Field::optional("name", NAME, "A name for people."),
        Field::optional("read_only", Schema::Switch, "It may read, without secrets, and change nothing."),
        Field::optional("expires_at", TIME_OR_NULL, "When it expires; never by default."),
    ],
);

/// An entry of the audit log.
pub(super) const AUDIT_ENTRY: Object = Object::new(
    "AuditEntry",
    &[
        Field::required("id", ID, "Its number."),
        Field::required("at", Schema::Time, "When."),
        Field::required("actor", Schema::Object(&ACTOR), "Who."),
        Field::required("action", TEXT, "What was done, such as app.change."),
        Field::required("app", Schema::Nullable(&TEXT), "Id of the app."),
        Field::required("subject", Schema::Nullable(&TEXT), "Id of the token, endpoint or user, or the key."),
        Field::required("changes", CHANGES, "The fields that changed."),
    ],
);
const ACTOR: Object = Object::new(
    "Actor",
    &[
        Field::required("kind", TEXT, "Kind of the credential."),
        Field::required("id", TEXT, "Its public name."),
        Field::required("address", Schema::Nullable(&TEXT), "The address of the client."),
    ],
);
const CHANGES: Schema = Schema::List { of: &Schema::Object(&CHANGE), most: 1_000 };
const CHANGE: Object = Object::new(
    "Change",
    &[
        Field::required("field", TEXT, "Its name."),
        Field::optional("from", TEXT, "The value before."),
        Field::optional("to", TEXT, "The value after; `changed` for a secret."),
    ],
);

/// A question of `explain` (R-EXPLAIN-1).
pub(super) const QUESTION: Object = Object::new(
    "Question",
    &[
        Field::optional("app_id", PART, "Id of the app; unless the key, the path or the refusal names it."),
        Field::optional("socket_id", PART, "Of the connection."),
        Field::optional("channel", PART, "Name of the channel."),
        Field::optional("auth", PART, "KEY:SIGNATURE as the auth endpoint returned it."),
        Field::optional("channel_data", PART, "Of a presence channel, exactly as it was sent."),
        Field::optional("user_data", PART, "Of a signin, exactly as it was sent."),
        Field::optional("method", PART, "Of a request."),
        Field::optional("path", PART, "Path and query of a request, or its URL."),
        Field::optional("headers", Schema::Map(&PART), "Of a request."),
        Field::optional(
            "body",
            Schema::Text { least: 0, most: limits::EXPLAIN_BODY_BYTES_MAX },
            "Of a request, as text; without it and body_base64 the body is unknown.",
        ),
        Field::optional("body_base64", BODY_BASE64, "Of a request, in base64."),
        Field::optional("refusal_id", PART, "The field refusal_id of a line of the log."),
    ],
);
const PART: Schema = Schema::Text { least: 0, most: limits::EXPLAIN_FIELD_BYTES_MAX };
const BODY_BASE64: Schema = Schema::Text { least: 0, most: limits::EXPLAIN_BODY_BYTES_MAX.div_ceil(3) * 4 };

/// The answer of `explain` (R-EXPLAIN-3).
pub(super) const EXPLANATION: Object = Object::new(
    "Explanation",
    &[
        Field::required("verdict", Schema::Word(Verdict::LABELS), "Whether the cause is known."),
        Field::required("hint", Schema::AnyText, "What to change, in one sentence."),
        Field::optional("cause", Schema::Word(Cause::LABELS), "The cause; only for admins, as the rest."),
        Field::optional("expected_string_to_sign", TEXT_OR_NULL, "The text that Relay expects to be signed."),
        Field::optional("signed_string", TEXT_OR_NULL, "The text that reproduces the signature."),
        Field::optional("other_app", TEXT_OR_NULL, "Id of the other app whose key or secret was used."),
    ],
);
const TEXT_OR_NULL: Schema = Schema::Nullable(&Schema::AnyText);
