//! The tokens and webhook endpoints of an app as JSON, for the documents of both APIs and the reader of the admin API,
//! which adds fields of its own.

use crate::app::Scope;
use crate::app::webhook::{WebhookFormat, WebhookKind};
use crate::label::Label;
use crate::limits;
use crate::openapi::schema::{Field, Object, Schema};

/// A name for people.
pub const NAME: Schema = Schema::Text { least: 0, most: limits::NAME_BYTES_MAX };
/// The id of a record.
pub const ID: Schema = Schema::Text { least: 1, most: 128 };
/// A time that may be missing.
pub const TIME_OR_NULL: Schema = Schema::Nullable(&Schema::Time);
/// The credential that created a record; null if an older Relay created it.
pub const CREATOR: Schema = Schema::Nullable(&Schema::AnyText);
const SCOPES: Schema = Schema::List { of: &Schema::Word(Scope::LABELS), most: limits::TOKEN_SCOPES_MAX };
// Filters also take the names of Relay's format and another spelling (R-HOOK-6), which the store checks.
const EVENTS: Schema = Schema::List { of: &Schema::Text { least: 1, most: 64 }, most: 4 * WebhookKind::LABELS.len() };
const URL: Schema = Schema::Text { least: 1, most: limits::OUTGOING_URL_BYTES_MAX };

/// A token (R-TOKEN-10).
pub const TOKEN: Object = Object::new(
    "Token",
    &[
        Field::required("id", ID, "Its public id."),
        Field::required("name", NAME, "A name for people."),
        Field::required("scopes", SCOPES, "Its permissions; all if the list is empty."),
        Field::required("created_at", Schema::Time, "When it was created."),
        Field::required("created_by", CREATOR, "The credential that created it."),
        Field::required("expires_at", TIME_OR_NULL, "When it expires."),
        Field::required("last_used_at", TIME_OR_NULL, "When it was last used, up to a minute behind."),
        Field::required("revoked_at", TIME_OR_NULL, "When it was revoked."),
    ],
);

/// The body that creates a token.
pub const CREATE_TOKEN: Object = Object::new(
    "CreateToken",
    &[
        Field::optional("name", NAME, "A name for people."),
        Field::optional("scopes", SCOPES, "Its permissions; all by default."),
        Field::optional("expires_at", TIME_OR_NULL, "When it expires; never by default."),
    ],
);

/// A webhook endpoint (R-HOOK-8).
pub const WEBHOOK: Object = Object::new(
    "Webhook",
    &[
        Field::required("id", ID, "Its public id."),
        Field::required("url", URL, "Where events are sent."),
        Field::required("events", EVENTS, "The events that are sent; all if the list is empty."),
        Field::required("format", Schema::Word(WebhookFormat::LABELS), "Format of bodies and signatures."),
        Field::required("batch", Schema::Switch, "Up to 100 events in one request."),
        Field::required("count_changed", Schema::Switch, "subscription_count is sent as subscription_count_changed."),
        Field::required("allow_private", Schema::Switch, "Private addresses and http are allowed."),
        Field::required("enabled", Schema::Switch, "Nothing is sent to a disabled endpoint."),
    ],
);

/// The body that creates a webhook endpoint, without the permission for private addresses.
pub const CREATE_WEBHOOK: Object = Object::new(
    "CreateWebhook",
    &[
        Field::required("url", URL, "Where events are sent, such as https://host/path."),
        Field::optional("events", EVENTS, "The events that are sent; all by default."),
        Field::optional("format", Schema::Word(WebhookFormat::LABELS), "Format of bodies and signatures."),
        Field::optional("batch", Schema::Switch, "Send up to 100 events in one request."),
        Field::optional("count_changed", Schema::Switch, "Send subscription_count as subscription_count_changed."),
    ],
);
