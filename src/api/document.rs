//! The OpenAPI document of the app API (R-ADMIN-20): the endpoints of [`super::route`] with their bodies and answers.

use super::auth::AuthKind;
use super::objects::{self, CREATE_TOKEN as NEW_TOKEN};
use super::replay::{REPLAY, REPLAYED};
use super::route::Endpoint;
use crate::channel::history::Gap;
use crate::label::Label;
use crate::limits;
use crate::openapi::schema::{Field, Object, Schema};
use crate::openapi::{Answer, AnswerBody, Credential, Document, Operation, Parameter, Place};

/// The document of a server with this path prefix.
pub fn document(prefix: &str) -> Document {
    Document {
        title: "Relay app API",
        about: "Publishing, channels, users, webhooks and authentication of one app. The same paths exist without /api/v1, \
                with errors as text.",
        base: format!("{prefix}/api/v1"),
        credentials: CREDENTIALS,
        operations: Endpoint::PATHS.iter().flat_map(|path| operations(path)).collect(),
    }
}

const CREDENTIALS: &[Credential] = &[
    Credential { name: "token", place: Place::Bearer, about: "A token of the app: rly_ and 40 letters and digits." },
    Credential { name: "key", place: Place::Header("X-Relay-Key"), about: "A key of the app, with its secret." },
    Credential { name: "secret", place: Place::Header("X-Relay-Secret"), about: "The secret of the key." },
    Credential {
        name: "signature",
        place: Place::Query("auth_signature"),
        about: "Pusher's signature: HMAC-SHA256 over method, path and query, with auth_key, auth_timestamp, auth_version \
                and body_md5.",
    },
];

fn operations(path: &'static str) -> Vec<Operation> {
    let endpoint = Endpoint::of_path(path.trim_start_matches(APP)).expect("a path of the table of routes");
    let methods = endpoint.methods().split(", ");
    methods.map(|method| operation(path, &endpoint, method)).collect()
}

/// Where every path begins.
pub(super) const APP: &str = "/apps/{app}/";

/// What an endpoint does with one of its methods.
struct Described {
    id: &'static str,
    about: &'static str,
    query: &'static [Parameter],
    body: Option<Schema>,
    answer: Answer,
}

fn operation(path: &'static str, endpoint: &Endpoint<'_>, method: &str) -> Operation {
    let Described { id, about, query, body, answer } = describe(endpoint, method);
    let in_path = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| Parameter { name, place: "path", schema: IN_PATH, about: "" });
    Operation {
        method: ["GET", "POST", "DELETE"].into_iter().find(|known| *known == method).expect("a method of the table"),
        path,
        id: id.to_owned(),
        about,
        permission: match (endpoint.scope(), endpoint.further_scope()) {
            (Some(_), Some(_)) => "events:publish and channels:read",
            (scope, _) => scope.map_or("key and secret", Label::label),
        },
        credentials: match endpoint.scope() {
            Some(_) => &[&["token"], &["key", "secret"], &["signature"]],
            None => &[&["key", "secret"], &["signature"]],
        },
        parameters: in_path.chain(query.iter().copied()).collect(),
        body,
        answers: std::iter::once(answer).chain(ERRORS).collect(),
    }
}

const IN_PATH: Schema = Schema::Text { least: 1, most: limits::CHANNEL_NAME_BYTES_MAX };
const ERRORS: [Answer; 10] = [
    Answer::early_error(400, "The request breaks a rule, which the message names."),
    Answer::error(401, "The credential is missing or not valid for this app."),
    Answer::error(403, "The token lacks the scope, the app is disabled, or the request is refused."),
    Answer::error(404, "There is no such app, channel or item."),
    Answer::error(409, "The state does not allow it."),
    Answer::early_error(413, "The body or the data is too long."),
    Answer::error(415, "The body is compressed."),
    Answer::error(429, "A limit of the app is reached; Retry-After has the seconds."),
    Answer { status: 431, about: "The head is too long.", body: Some(AnswerBody::Text) },
    Answer::error(503, "No room at the moment; nothing was done; Retry-After has the seconds."),
];

/// What an endpoint does with a method. It names every endpoint, so that one without a description does not compile.
fn describe(endpoint: &Endpoint<'_>, method: &str) -> Described {
    let of = |id, about, query, body: Option<&'static Object>, status, answer: &'static Object| Described {
        id,
        about,
        query,
        body: body.map(Schema::Object),
        answer: Answer::json(status, "Done.", Schema::Object(answer)),
    };
    let none = |id, about| Described { id, about, query: &[], body: None, answer: NO_CONTENT };
    match (endpoint, method) {
        (Endpoint::Events, _) => of("publish", "Publish an event.", &[], Some(&EVENT), 200, &PUBLISHED),
        (Endpoint::BatchEvents, _) => {
            of("publish_batch", "Publish several events.", &[], Some(&BATCH), 200, &BATCH_PUBLISHED)
        }
        (Endpoint::Replay, _) => of("replay_events", "Publish kept events again.", &[], Some(&REPLAY), 200, &REPLAYED),
        (Endpoint::ChannelEvents(_), _) => {
            let query = &[EVENT_NAME_PARAMETER];
            Described { body: Some(Schema::Any), ..of("publish_to_channel", DEPRECATED, query, None, 202, &EMPTY) }
        }
        (Endpoint::Channels, _) => {
            of("list_channels", "List channels with subscribers.", &[PREFIX, INFO], None, 200, &CHANNEL_LIST)
        }
        (Endpoint::Channel(_), _) => of("show_channel", "Show a channel.", &[INFO], None, 200, &CHANNEL_STATE),
        (Endpoint::ChannelUsers(_), _) => {
            of("list_users", "List the users of a presence channel.", &[WITH_USER_INFO], None, 200, &USERS)
        }
        (Endpoint::ChannelHistory(_), _) => {
            of("read_history", "Read the last events of a channel.", &[LIMIT, AFTER], None, 200, &HISTORY)
        }
        (Endpoint::ChannelStats(_), _) => of("channel_stats", DEPRECATED, &[], None, 200, &CHANNEL_STATS),
        (Endpoint::Connections, _) => {
            of("count_connections", "Count the connections of the app.", &[], None, 200, &CONNECTIONS)
        }
        (Endpoint::Arrival, _) => {
            let about = "Show how this request arrived, to a caller with key and secret.";
            of("show_arrival", about, &[], None, 200, &ARRIVAL)
        }
        (Endpoint::TerminateConnections(_), _) => {
            of("terminate_connections", "Close the connections of a user.", &[], None, 200, &EMPTY)
        }
        (Endpoint::Webhooks, "POST") => {
            of("create_webhook", "Create a webhook endpoint.", &[], Some(&NEW_WEBHOOK), 201, &CREATED_WEBHOOK)
        }
        (Endpoint::Webhooks, _) => of("list_webhooks", "List webhook endpoints.", &[], None, 200, &WEBHOOKS),
        (Endpoint::Webhook(_), _) => none("delete_webhook", "Remove a webhook endpoint."),
        (Endpoint::VerifyWebhook, _) => {
            of("verify_webhook", "Check the signature of a webhook.", &[], Some(&PROOF), 200, &VERDICT)
        }
        (Endpoint::Tokens, "POST") => {
            of("create_token", "Create a token, which is shown only once.", &[], Some(&NEW_TOKEN), 201, &CREATED_TOKEN)
        }
        (Endpoint::Tokens, _) => of("list_tokens", "List the tokens of the app.", &[], None, 200, &TOKENS),
        (Endpoint::Token(_), _) => none("revoke_token", "Revoke a token permanently."),
        (Endpoint::Auth(AuthKind::Channel), _) => {
            of("sign_channel", "Sign subscriptions of a connection.", &[], Some(&AUTH), 200, &SIGNED)
        }
        (Endpoint::Auth(AuthKind::User), _) => {
            of("sign_user", "Sign a user in.", &[], Some(&USER_AUTH), 200, &SIGNED_USER)
        }
        (Endpoint::EncryptionKey, "POST") => {
            let about = "Create a master key for encrypted channels, which is shown only once.";
            of("create_encryption_key", about, &[], Some(&NEW_ENCRYPTION_KEY), 201, &ENCRYPTION_KEY)
        }
        (Endpoint::EncryptionKey, _) => none("delete_encryption_key", "Forget the stored master key."),
        (Endpoint::Sse, _) => describe_stream(),
        (Endpoint::Time, _) => of("time", "The server's clock, for stream ids.", &[], None, 200, &CLOCK),
        (Endpoint::Poll, _) => of("poll", "Wait for events of channels.", POLL_QUERY, None, 200, &POLLED),
    }
}

fn describe_stream() -> Described {
    Described {
        id: "stream",
        about: "Read channels as server-sent events.",
        query: &[STREAM_CHANNELS, LAST_EVENT_ID, STREAM_SOCKET, POSITIONS],
        body: None,
        answer: Answer { status: 200, about: "The stream.", body: Some(AnswerBody::EventStream) },
    }
}

const POLL_QUERY: &[Parameter] = &[STREAM_CHANNELS, LAST_EVENT_ID, STREAM_SOCKET, POSITIONS, TIMEOUT];

const DEPRECATED: &str = "Deprecated; for old SDKs.";
const NO_CONTENT: Answer = Answer { status: 204, about: "Done.", body: None };

const INFO: Parameter = Parameter {
    name: "info",
    place: "query",
    schema: Schema::AnyText,
    about: "Attributes joined by commas: subscription_count, user_count, cache, position.",
};
const LIMIT: Parameter = Parameter {
    name: "limit",
    place: "query",
    schema: Schema::Number { least: 1, most: limits::HISTORY_ANSWER_EVENTS_MAX as u64 },
    about: "Events to return at most; all that one answer may have by default.",
};
const AFTER: Parameter = Parameter {
    name: "after",
    place: "query",
    schema: Schema::AnyText,
    about: "The id of an event, or a position: only later events. Without it the oldest events.",
};
const STREAM_CHANNELS: Parameter = Parameter {
    name: "channels",
    place: "query",
    schema: Schema::Text { least: 1, most: limits::HTTP_QUERY_BYTES_MAX },
    about: "1 to 100 channels, separated by commas.",
};
const LAST_EVENT_ID: Parameter = Parameter {
    name: "last_event_id",
    place: "query",
    schema: Schema::AnyText,
    about: "Where to continue: a cursor, the id of an event, or a position.",
};
const STREAM_SOCKET: Parameter = Parameter {
    name: "socket_id",
    place: "query",
    schema: Schema::AnyText,
    about: "0.<unix seconds><6 to 9 digits>, which signatures in auth[CHANNEL] cover.",
};
const POSITIONS: Parameter = Parameter {
    name: "positions",
    place: "query",
    schema: Schema::AnyText,
    about: "true adds the position of each channel.",
};
const TIMEOUT: Parameter = Parameter {
    name: "timeout",
    place: "query",
    schema: Schema::Number { least: 1, most: limits::POLL_TIMEOUT_MAX_S as u64 },
    about: "Seconds to wait for an event.",
};
const PREFIX: Parameter = Parameter {
    name: "filter_by_prefix",
    place: "query",
    schema: Schema::AnyText,
    about: "Only channels whose names begin with this.",
};
const WITH_USER_INFO: Parameter = Parameter {
    name: "with_user_info",
    place: "query",
    schema: Schema::AnyText,
    about: "1 adds the user_info of each user.",
};
const EVENT_NAME_PARAMETER: Parameter =
    Parameter { name: "name", place: "query", schema: EVENT_NAME, about: "Name of the event." };

const EVENT_NAME: Schema = Schema::Text { least: 1, most: limits::EVENT_NAME_BYTES_MAX };
const CHANNEL: Schema = Schema::Text { least: 1, most: limits::CHANNEL_NAME_BYTES_MAX };
const CHANNELS: Schema = Schema::List { of: &CHANNEL, most: limits::CHANNELS_PER_EVENT_SETTING_MAX };
const TEXT: Schema = Schema::Text { least: 0, most: 1 << 20 };
const COUNT: Schema = Schema::Number { least: 0, most: u32::MAX as u64 };

const EVENT: Object = Object::open(
    "Event",
    &[
        Field::required("name", EVENT_NAME, "Name of the event."),
        Field::required("data", Schema::Any, "Its data: a string, an object or an array."),
        Field::optional("channels", CHANNELS, "The channels; give either this or channel."),
        Field::optional("channel", CHANNEL, "The channel."),
        Field::optional("socket_id", TEXT, "A connection that does not receive the event."),
        Field::optional("info", TEXT, "Attributes of the channels to return, joined by commas."),
    ],
);
const BATCH_EVENT: Object = Object::open(
    "BatchEvent",
    &[
        Field::required("name", EVENT_NAME, "Name of the event."),
        Field::required("data", Schema::Any, "Its data: a string, an object or an array."),
        Field::required("channel", CHANNEL, "The channel."),
        Field::optional("socket_id", TEXT, "A connection that does not receive the event."),
        Field::optional("info", TEXT, "Attributes of the channel to return, joined by commas."),
    ],
);
const BATCH: Object = Object::open("Batch", &[Field::required("batch", BATCH_EVENTS, "The events.")]);
const BATCH_EVENTS: Schema = Schema::List { of: &Schema::Object(&BATCH_EVENT), most: limits::BATCH_EVENTS_SETTING_MAX };
const COUNTS: Object = Object::new(
    "Counts",
    &[
        Field::optional("user_count", COUNT, "Users of a presence channel."),
        Field::optional("subscription_count", COUNT, "Connections that are subscribed."),
    ],
);
const PUBLISHED: Object =
    Object::new("Published", &[Field::optional("channels", COUNTS_BY_CHANNEL, "Counts, if info requested some.")]);
const COUNTS_BY_CHANNEL: Schema = Schema::Map(&Schema::Object(&COUNTS));
const BATCH_PUBLISHED: Object = Object::new(
    "BatchPublished",
    &[Field::optional(
        "batch",
        Schema::List { of: &Schema::Object(&COUNTS), most: limits::BATCH_EVENTS_SETTING_MAX },
        "Counts for each event, if info requested some.",
    )],
);
const CHANNEL_LIST: Object =
    Object::new("Channels", &[Field::required("channels", COUNTS_BY_CHANNEL, "Channels with subscribers.")]);
const CHANNEL_STATE: Object = Object::new(
    "Channel",
    &[
        Field::required("occupied", Schema::Switch, "Whether it has subscribers."),
        Field::optional("user_count", COUNT, "Users of a presence channel."),
        Field::optional("subscription_count", COUNT, "Connections that are subscribed."),
        Field::optional("cache", Schema::Nullable(&Schema::Object(&CACHED)), "The cached event of a cache channel."),
        Field::optional("position", Schema::Nullable(&TEXT), "The position of its history; null without history."),
    ],
);
const CACHED: Object = Object::new(
    "Cached",
    &[Field::required("data", TEXT, "Its data."), Field::required("ttl", COUNT, "Seconds until it is removed.")],
);
const HISTORY: Object = Object::new(
    "History",
    &[
        Field::required(
            "events",
            Schema::List { of: &Schema::Object(&PAST_EVENT), most: limits::HISTORY_ANSWER_EVENTS_MAX },
            "The oldest first.",
        ),
        Field::required("gap", Schema::Nullable(&Schema::Object(&GAP)), "Events that may be missing before these."),
        Field::required("position", Schema::Nullable(&TEXT), "Where the next request continues; null without history."),
    ],
);
const PAST_EVENT: Object = Object::new("PastEvent", &[EVENT_ID, PAST_NAME, PAST_DATA]);
const EVENT_ID: Field = Field::required("id", TEXT, "The id of the event.");
const PAST_NAME: Field = Field::required("event", TEXT, "Its name.");
const PAST_DATA: Field = Field::required("data", TEXT, "Its data, as it was published.");
const GAP: Object = Object::new("Gap", &[GAP_AFTER, GAP_END, GAP_REASON]);
const GAP_AFTER: Field =
    Field::required("after", Schema::Nullable(&TEXT), "The position that was given, if it is readable.");
const GAP_END: Field =
    Field::required("resumes_at", Schema::Nullable(&TEXT), "Events after this position are complete.");
const GAP_REASON: Field = Field::required("reason", Schema::Word(Gap::LABELS), "Why.");
const CLOCK: Object = Object::new("Clock", &[Field::required("unix_time", COUNT, "Seconds since 1970.")]);
const POLLED: Object = Object::new(
    "Polled",
    &[
        Field::required("events", Schema::List { of: &Schema::Object(&POLLED_EVENT), most: 100 }, "In order."),
        Field::required("last_event_id", Schema::Nullable(&TEXT), "Where the next poll continues."),
        Field::required("gaps", Schema::List { of: &Schema::Object(&CHANNEL_GAP), most: 100 }, "Gaps before these."),
        Field::optional(
            "positions",
            Schema::Map(&Schema::Nullable(&TEXT)),
            "With positions=true: where each channel is.",
        ),
    ],
);
const POLLED_EVENT: Object =
    Object::new("PolledEvent", &[EVENT_ID, Field::required("channel", TEXT, "Its channel."), PAST_NAME, PAST_DATA]);
const CHANNEL_GAP: Object =
    Object::new("ChannelGap", &[Field::required("channel", TEXT, "The channel."), GAP_AFTER, GAP_END, GAP_REASON]);
const CHANNEL_STATS: Object = Object::new(
    "ChannelStats",
    &[
        Field::required("occupied", Schema::Switch, "Whether it has subscribers."),
        Field::required("user_count", COUNT, "Users."),
        Field::required("connection_count", COUNT, "Connections that are subscribed."),
    ],
);
const USERS: Object = Object::new(
    "Users",
    &[Field::required("users", Schema::List { of: &Schema::Object(&USER), most: 100_000 }, "The users.")],
);
const USER: Object = Object::new(
    "User",
    &[
        Field::required("id", TEXT, "The id of the user."),
        Field::optional("user_info", Schema::Any, "Its user_info, if it was requested."),
    ],
);
const CONNECTIONS: Object =
    Object::new("Connections", &[Field::required("connections", COUNT, "Connections of the app.")]);
const ARRIVAL: Object = Object::open("Arrival", &[Field::required("version", TEXT, "Version of HTTP.")]);
const EMPTY: Object = Object::new("Empty", &[]);
const NEW_WEBHOOK: Object = Object::extending(
    &objects::CREATE_WEBHOOK,
    "CreateWebhook",
    &[Field::optional("allow_private", Schema::Switch, "Only an operator can allow private addresses: 403 if true.")],
);
const CREATED_WEBHOOK: Object = Object::extending(
    &objects::WEBHOOK,
    "CreatedWebhook",
    &[Field::required("secret", TEXT, "Its secret, shown once.")],
);
const WEBHOOKS: Object = Object::new(
    "Webhooks",
    &[Field::required(
        "webhooks",
        Schema::List { of: &Schema::Object(&objects::WEBHOOK), most: 100 },
        "The endpoints.",
    )],
);
const PROOF: Object = Object::open(
    "Proof",
    &[
        Field::required("payload", TEXT, "The body as it was received."),
        Field::required("signature", TEXT, "The signature in hex."),
        Field::optional("webhook_id", Schema::Nullable(&TEXT), "The endpoint; any of the app by default."),
    ],
);
const VERDICT: Object = Object::new("Verdict", &[Field::required("valid", Schema::Switch, "Whether it is genuine.")]);
const TOKEN: Object = objects::TOKEN.and_others();
const CREATED_TOKEN: Object =
    Object::extending(&TOKEN, "CreatedToken", &[Field::required("token", TEXT, "The token, shown once.")]);
const TOKENS: Object = Object::open(
    "Tokens",
    &[Field::required("tokens", Schema::List { of: &Schema::Object(&TOKEN), most: 1_000 }, "The tokens.")],
);
const AUTH: Object = Object::new(
    "Auth",
    &[
        Field::required("socket_id", TEXT, "The socket that the signature is for."),
        Field::optional("channel_name", CHANNEL, "The channel; give either this or channels."),
        Field::optional("channels", CHANNELS, "Up to 100 channels."),
        Field::optional("channel_data", TEXT, "The data of a presence channel, as JSON text."),
    ],
);
const SIGNED: Object = Object::open(
    "Signed",
    &[
        Field::optional("auth", TEXT, "KEY:HEX."),
        Field::optional("channel_data", TEXT, "The data that was signed."),
        Field::optional("shared_secret", TEXT, "The key of an encrypted channel."),
        Field::optional("channels", Schema::Map(&Schema::Any), "An answer for each channel."),
    ],
);
const USER_AUTH: Object = Object::new(
    "UserAuth",
    &[
        Field::required("socket_id", TEXT, "The socket that the signature is for."),
        Field::required("user_data", TEXT, "JSON text with the id of the user."),
    ],
);
const SIGNED_USER: Object = Object::open(
    "SignedUser",
    &[Field::required("auth", TEXT, "KEY:HEX."), Field::required("user_data", TEXT, "The data that was signed.")],
);
const NEW_ENCRYPTION_KEY: Object = Object::new(
    "CreateEncryptionKey",
    &[Field::optional("store", Schema::Switch, "Keep it, so that the auth endpoint can sign encrypted channels.")],
);
const ENCRYPTION_KEY: Object = Object::new(
    "EncryptionKey",
    &[
        Field::required("encryption_master_key", TEXT, "The key in base64, shown once."),
        Field::required("stored", Schema::Switch, "Whether Relay keeps it."),
    ],
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::api::route::{Route, route};
    use crate::protocol::dialect::Dialect;

    /// R-ADMIN-20: the document has every path of the router with every method, each once, and the router takes what it
    /// says; the prefix of the server is part of its base.
    #[test]
    fn the_document_agrees_with_the_router() {
        let document: Value = serde_json::from_slice(&document("/relay").encode()).expect("JSON");
        assert_eq!(document["servers"][0]["url"], "/relay/api/v1");
        let mut ids = BTreeSet::new();
        let mut endpoints = BTreeSet::new();
        // A new endpoint does not compile here before it has a number, and fails before it has a path.
        let number = |endpoint: &Endpoint<'_>| match endpoint {
            Endpoint::Events => 0,
            Endpoint::BatchEvents => 1,
            Endpoint::Channels => 2,
            Endpoint::Channel(_) => 3,
            Endpoint::ChannelUsers(_) => 4,
            Endpoint::ChannelEvents(_) => 5,
            Endpoint::ChannelStats(_) => 6,
            Endpoint::Connections => 7,
            Endpoint::TerminateConnections(_) => 8,
            Endpoint::Webhooks => 9,
            Endpoint::Webhook(_) => 10,
            Endpoint::VerifyWebhook => 11,
            Endpoint::Auth(AuthKind::Channel) => 12,
            Endpoint::Auth(AuthKind::User) => 13,
            Endpoint::EncryptionKey => 14,
            Endpoint::Tokens => 15,
            Endpoint::Token(_) => 16,
            Endpoint::Arrival => 17,
            Endpoint::ChannelHistory(_) => 18,
            Endpoint::Sse => 19,
            Endpoint::Poll => 20,
            Endpoint::Replay => 21,
            Endpoint::Time => 22,
        };
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{path}");
                let target = format!("/relay/api/v1{}", path.replace("{app}", "3"));
                let found = route(&method.to_ascii_uppercase(), &target, "/relay");
                let Route::Api { dialect: Dialect::Relay, app_id: "3", endpoint } = found else {
                    panic!("{method} {target}: {found:?}");
                };
                endpoints.insert(number(&endpoint));
            }
        }
        assert_eq!(endpoints, BTreeSet::from_iter(0..23));
        assert_eq!(ids.len(), Endpoint::PATHS.iter().map(|path| operations(path).len()).sum::<usize>());
    }
}
