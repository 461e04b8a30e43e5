//! The tables of docs/troubleshooting.md. Codes, reasons and messages come from the code; causes and fixes are written here,
//! in matches without a wildcard, so that a new reason does not compile without them.

use std::fmt::Write as _;

use relay::auth::AuthFailure;
use relay::auth::explain::Cause;
use relay::label::Label;
use relay::metrics::figures::{Overload, ProtocolError, Status, SubscriptionError};
use relay::metrics::refusal_log::Refused;
use relay::protocol::close::{CloseKind, CloseReason};

/// The page with its tables replaced by the current ones. A table is between `<!-- table: NAME -->` and `<!-- end -->`.
pub(crate) fn with_tables(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("<!-- table: ") {
        let (name, after) = after.split_once(" -->").expect("a marker ends with -->");
        let (_, after) = after.split_once("<!-- end -->").expect("a table ends with <!-- end -->");
        write!(text, "{before}<!-- table: {name} -->\n\n{}\n<!-- end -->", table(name)).expect("a string");
        rest = after;
    }
    text + rest
}

fn table(name: &str) -> String {
    match name {
        "close codes" => rows(
            &["code", "reason", "message", "cause", "fix"],
            CloseKind::ALL.iter().map(|kind| {
                let (example, cause, fix) = close(*kind);
                assert_eq!(example.kind(), *kind, "the example of {kind:?}");
                let message = example.message().replace("4294967295", "N").replace("255", "N");
                vec![kind.code().to_string(), code(kind.label()), message, cause.into(), fix.into()]
            }),
        ),
        "protocol errors" => rows(
            &["code", "cause", "fix"],
            ProtocolError::ALL.iter().map(|error| {
                let (cause, fix) = protocol_error(*error);
                vec![error.label().into(), cause.into(), fix.into()]
            }),
        ),
        "subscription errors" => rows(
            &["type", "cause", "fix"],
            SubscriptionError::ALL.iter().map(|error| {
                let (cause, fix) = subscription_error(*error);
                vec![code(error.label()), cause.into(), fix.into()]
            }),
        ),
        "statuses" => rows(
            &["status", "cause", "fix"],
            Status::ALL.iter().filter_map(|status| {
                let (cause, fix) = status_row(*status)?;
                Some(vec![status.label().into(), cause.into(), fix.into()])
            }),
        ),
        "credentials" => rows(
            &["reason", "cause", "fix"],
            AuthFailure::ALL.iter().map(|failure| {
                let (cause, fix) = credential(*failure);
                vec![code(failure.label()), cause.into(), fix.into()]
            }),
        ),
        "causes" => rows(
            &["cause", "what to change"],
            Cause::ALL.iter().map(|cause| vec![code(cause.label()), format!("{}.", cause.hint())]),
        ),
        "overload" => rows(
            &["cause", "meaning", "fix"],
            Overload::ALL.iter().map(|cause| {
                let (meaning, fix) = overload(*cause);
                vec![code(cause.label()), meaning.into(), fix.into()]
            }),
        ),
        "log lines" => rows(
            &["message", "see"],
            Refused::ALL.iter().map(|refused| vec![code(refused.label()), log_line(*refused).into()]),
        ),
        _ => panic!("there is no table called {name}"),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).expect("a string");
    }
    text
}

/// An example of the reason, its cause and its fix.
fn close(kind: CloseKind) -> (CloseReason, &'static str, &'static str) {
    match kind {
        CloseKind::TlsOnly => (
            CloseReason::TlsOnly,
            "The app has `tls_only` and the connection arrived without TLS.",
            "Connect with `forceTLS: true`. Behind a proxy that terminates TLS, list its address in `trusted_proxies` and \
             let it send `X-Forwarded-Proto: https`, or set `tls_only=false`.",
        ),
        CloseKind::UnknownApp => (
            CloseReason::UnknownApp("KEY".into()),
            "No app has this key. The key is wrong, was removed, or belongs to another server or data directory.",
            "Compare the client's key with `relay app list`. `relay app create --key KEY` creates an app with a given key.",
        ),
        CloseKind::AppDisabled => (CloseReason::AppDisabled, "The app was disabled.", "`relay app enable ID`."),
        CloseKind::OverQuota => (
            CloseReason::OverQuota(u32::MAX),
            "The app has as many connections as its setting `max_connections` permits.",
            "Raise it, or remove the quota: `relay app set ID max_connections=0`. pusher-js does not reconnect after 4004; \
             with `connection_limit_soft=true` the app sends 4100 instead, after which clients retry.",
        ),
        CloseKind::OverSoftQuota => (
            CloseReason::OverSoftQuota(u32::MAX),
            "The same as 4004, for an app with `connection_limit_soft=true`.",
            "Raise `max_connections` of the app. Clients retry until there is a free place.",
        ),
        CloseKind::PathNotFound => (
            CloseReason::PathNotFound,
            "A WebSocket was opened at a path other than `/app/KEY`.",
            "Check `wsPath` of the client. If a proxy adds a prefix, set `path_prefix`.",
        ),
        CloseKind::InvalidVersionString => (
            CloseReason::InvalidVersionString,
            "The parameter `protocol` is not an integer, or under `strict_protocol` `version` is malformed.",
            "Send `protocol=7`, as the SDKs do.",
        ),
        CloseKind::UnsupportedProtocolVersion => (
            CloseReason::UnsupportedProtocolVersion,
            "The client asks for a version of the protocol below 4 or above 7.",
            "Update the client library.",
        ),
        CloseKind::NoProtocolVersion => (
            CloseReason::NoProtocolVersion,
            "`strict_protocol` is on and the parameter `protocol` is missing.",
            "Send `protocol=7`, or turn `strict_protocol` off.",
        ),
        CloseKind::OriginNotAllowed => (
            CloseReason::OriginNotAllowed,
            "The page's host is not in `allowed_origins` of the app.",
            "Add it: `relay app set ID allowed_origins=example.com,*.example.com`. An empty list allows every host.",
        ),
        CloseKind::Terminated => (
            CloseReason::Terminated,
            "Your backend terminated the connections of this user.",
            "None needed: pusher-js does not reconnect. Sign the user in again to permit new connections.",
        ),
        CloseKind::NotAuthorized => (
            CloseReason::NotAuthorized,
            "The app has `authorized_connections`, and the connection neither signed in nor joined a private or presence \
             channel in time.",
            "Call `pusher.signin()` or subscribe to a protected channel after connecting, raise `authorization_timeout`, or \
             set `authorized_connections=false`.",
        ),
        CloseKind::TooManyInvalidMessages => (
            CloseReason::TooManyInvalidMessages(u8::MAX),
            "The client sent this many messages in a minute that are no JSON or have no `event`, or subscribed above \
             `max_channels_per_connection` this often.",
            "Fix the client. `relay app set ID max_invalid_messages=N` changes the limit.",
        ),
        CloseKind::OverCapacity => (
            CloseReason::OverCapacity,
            "The server has no free connection slot, or incomplete messages use up the memory set aside for them.",
            "`relay doctor --max-connections N` names the limit that applies: descriptors, memory or `max_connections`.",
        ),
        CloseKind::OverShare => (
            CloseReason::OverShare,
            "On a server with several apps, this app uses its share of the connections.",
            "Raise the capacity of the server as for `over_capacity`, or limit other apps with `max_connections`.",
        ),
        CloseKind::TooSlow => (
            CloseReason::TooSlow,
            "The client reads more slowly than events arrive: 1 MiB was unsent, the kernel accepted nothing for 10 s, or \
             the app used its share of memory for unsent frames.",
            "Publish less or smaller events to this client, split channels, or check its network. The client reconnects \
             and has missed events.",
        ),
        CloseKind::Draining => (
            CloseReason::Draining,
            "The server is shutting down.",
            "None needed: clients reconnect, to another server or after the restart.",
        ),
        CloseKind::EventsLost => (
            CloseReason::EventsLost,
            "A shard could not keep up, and events for this connection were lost. It is closed so that the gap is visible.",
            "Clients reconnect and should reload their state. If `relay_gap_closes_total` grows, use more shards or reduce \
             the load.",
        ),
        CloseKind::PongTimeout => (
            CloseReason::PongTimeout,
            "The client answered neither a ping of the protocol nor one of WebSocket within 30 s: it is gone, or its \
             network is.",
            "None needed for single connections. If many are closed, look for a proxy that drops silent connections.",
        ),
    }
}

fn protocol_error(error: ProtocolError) -> (&'static str, &'static str) {
    match error {
        ProtocolError::Protocol => (
            "A frame violates RFC 6455, for instance an unmasked one, or a compressed one although compression was declined.",
            "Fix the client, or the proxy that rewrites frames.",
        ),
        ProtocolError::Data => ("The client sent a binary message.", "Send text: the protocol is JSON."),
        ProtocolError::Text => ("A text message is not valid UTF-8.", "Fix the encoding in the client."),
        ProtocolError::Policy => {
            ("A message in fragments has too many of them or took longer than 30 s.", "Send each message as one frame.")
        }
        ProtocolError::TooLarge => (
            "A message is longer than the app permits.",
            "Send less data, or raise `max_event_data_bytes` or `max_channel_data_bytes` of the app, from which the limit \
             follows.",
        ),
        ProtocolError::Other => ("Any other code of RFC 6455.", "The log line names it."),
    }
}

fn subscription_error(error: SubscriptionError) -> (&'static str, &'static str) {
    match error {
        SubscriptionError::Auth => (
            "The signature of a private or presence channel is missing or wrong.",
            "Check that the auth endpoint signs with the secret of the key that the client uses, over \
             `socket_id:channel_name` and, for presence channels, `:channel_data` exactly as sent.",
        ),
        SubscriptionError::Limit => (
            "A limit of the app is reached: members of the presence channel, channels of the connection or of the app, or the \
             length of a name, user id or `channel_data`.",
            "The message names the limit and its setting: `relay app set ID SETTING=VALUE`.",
        ),
        SubscriptionError::Channel => (
            "The name has a character that is not permitted.",
            "Use letters, digits and `_ - = @ , . ;`, or choose another rule with the setting `channel_names`.",
        ),
        SubscriptionError::Gap => (
            "The client asked for `on_gap` `fail`, and events after its `last_event_id` are no longer kept.",
            "Load the state again and subscribe from a fresh position, or raise `history_events`, `history_seconds` or \
             `history_bytes` of the app: see [history](history.md).",
        ),
        SubscriptionError::Other => ("Any other refusal.", "The message explains it."),
    }
}

fn status_row(status: Status) -> Option<(&'static str, &'static str)> {
    Some(match status {
        Status::S101 | Status::S200 | Status::S202 | Status::S204 => return None,
        Status::S400 => (
            "The request breaks a rule: a missing member, a bad name, too many channels or events, malformed JSON or a \
             malformed query.",
            "The body names the rule and the limit.",
        ),
        Status::S401 => (
            "A credential is missing, wrong, expired or of another app.",
            "The log line `credential refused` has the reason: see [credentials](#credentials).",
        ),
        Status::S403 => (
            "The app is disabled, the token lacks a scope, or under `/apps` the messages of the day are used up.",
            "`relay app enable ID`, a token with the scope, or a higher `messages_per_day`.",
        ),
        Status::S404 => (
            "The path or the app id is unknown.",
            "Compare the app id with `relay app list`. If a proxy adds a prefix, set `path_prefix`.",
        ),
        Status::S405 => ("The path does not accept this method.", "Use a method of the header `Allow`."),
        Status::S408 => (
            "The request did not arrive completely within 5 s, or within the longer time for a large body.",
            "Send it faster, or check the proxy in between.",
        ),
        Status::S413 => (
            "The data of an event or the body is above its limit.",
            "Send less, or raise `max_event_data_bytes`, `max_batch_events` or `max_channels_per_event` of the app.",
        ),
        Status::S426 => (
            "A plain GET was sent to `/app/KEY`, or the WebSocket version is not 13.",
            "Open a WebSocket there. Behind a proxy, forward the headers `Upgrade` and `Connection`: see \
             [proxies.md](proxies.md).",
        ),
        Status::S429 => (
            "A rate or quota is used up: requests per minute, messages of the day, channels of the app, or too many failed \
             credentials from this address.",
            "Wait for `Retry-After` seconds. The body names the setting.",
        ),
        Status::S431 => (
            "The head of the request is longer than 16 KiB or has more than 64 headers.",
            "Send fewer or shorter headers; cookies are a common cause.",
        ),
        Status::S503 => (
            "The server is overloaded or shutting down; nothing of the request was done.",
            "Wait for `Retry-After` seconds and send it again. For the cause see [overload](#overload).",
        ),
        Status::Other => ("Any other status, such as 415 for a compressed body.", "The body explains it."),
    })
}

fn credential(failure: AuthFailure) -> (&'static str, &'static str) {
    match failure {
        AuthFailure::Missing => (
            "The request has no credential.",
            "Send a signature (`auth_key` and so on), `X-Relay-Key` with `X-Relay-Secret`, or `Authorization: Bearer`.",
        ),
        AuthFailure::Malformed => (
            "A parameter or header of the credential is missing, repeated or malformed.",
            "The body names it. Use an SDK to sign.",
        ),
        AuthFailure::UnknownKey => (
            "The app has no such key, or it was removed.",
            "Compare with `relay app show ID`; `relay app rotate ID` adds a new pair.",
        ),
        AuthFailure::BadSignature => (
            "The signature was made with another secret or over other bytes.",
            "Check the secret, and that no proxy changes path, query or body.",
        ),
        AuthFailure::BadSecret => {
            ("`X-Relay-Secret` is not the secret of the key.", "`relay app show ID --secrets` shows it.")
        }
        AuthFailure::BadToken => (
            "The token is unknown, expired, revoked or of another app.",
            "`relay token list --app ID` shows its state; `relay token create` makes a new one.",
        ),
        AuthFailure::StaleTimestamp => {
            ("`auth_timestamp` is more than 600 s from the server's clock.", "Synchronize the clocks of both machines.")
        }
        AuthFailure::BodyMismatch => (
            "`body_md5` does not match the body.",
            "Sign exactly the bytes that are sent; a proxy must not rewrite the body.",
        ),
        AuthFailure::WrongUser => (
            "The channel `#server-to-user-ID` belongs to another user than the one signed in.",
            "Subscribe only to the user's own channel; pusher-js does so by itself.",
        ),
    }
}

fn overload(cause: Overload) -> (&'static str, &'static str) {
    match cause {
        Overload::Memory => (
            "Frames that slow readers have not read yet use up the memory of a shard, or the app's share of it.",
            "Look at `relay_send_bytes` and `relay_slow_consumer_closes_total`; publish less or use more shards.",
        ),
        Overload::Credit => (
            "A shard does not keep up with the events of the others.",
            "Look at `relay_loop_lag_seconds` by shard; use more shards or spread the load over more channels.",
        ),
        Overload::Gathering => (
            "Too many lists of channels or pages of metrics are being collected at once.",
            "List fewer channels with `filter_by_prefix`, and scrape less often.",
        ),
        Overload::Input => (
            "Incomplete requests and messages use up the memory set aside for them.",
            "Look for clients that send very slowly; large bodies on slow links need a proxy that buffers them.",
        ),
        Overload::Authorizer => (
            "Too many clients wait for the authorizer of an app.",
            "Look at `relay_authorizer_waiting`; make the backend faster, or raise `max_authorizer_requests` if it can serve more at once.",
        ),
        Overload::Capacity => (
            "No connection slot is left for a stream or poll, or none that its app may have.",
            "Look at `relay_connections`; raise the limit of descriptors or `max_connections`, or use more shards.",
        ),
        Overload::Draining => {
            ("The server is shutting down.", "Send the request to another server, or after the restart.")
        }
        Overload::Headroom => (
            "Only on `/accept-traffic`: memory, descriptors or connection slots are almost used up.",
            "`?verbose` on the metrics port shows which; add capacity.",
        ),
    }
}

fn log_line(refused: Refused) -> &'static str {
    match refused {
        Refused::Connection => {
            "a WebSocket was refused during its handshake: [close codes](#a-websocket-is-refused-or-closed)"
        }
        Refused::Close => "an open WebSocket was closed: [close codes](#a-websocket-is-refused-or-closed)",
        Refused::Subscription => "[a subscription fails](#a-subscription-fails)",
        Refused::Signin => "`pusher:signin` failed: [credentials](#credentials)",
        Refused::ClientEvent => {
            "`not_allowed`: the app has no `client_events`, or the sender is not subscribed to the private or presence channel. \
             `over_limit`: above `max_client_events_per_second`, or the data is too long"
        }
        Refused::Credential => "a request got 401: [credentials](#credentials)",
        Refused::Request => "a request got another status: [statuses](#a-request-to-the-http-api-fails)",
        Refused::ProxyHeader => {
            "`untrusted`: `peer` sends the PROXY protocol and is not in `trusted_proxies`. `malformed`: the header is broken"
        }
        Refused::ForwardedAddress => {
            "the proxy `peer` writes `X-Forwarded-For` or `Forwarded` in an unknown form: the client's address is not known"
        }
    }
}

/// Goal: text around the tables is kept, and a table that differs is replaced.
#[test]
fn tables_are_replaced() {
    let page = "before\n<!-- table: overload -->\nold\n<!-- end -->\nafter\n";
    let new = with_tables(page);
    assert!(
        new.starts_with("before\n<!-- table: overload -->\n\n| cause |") && new.ends_with("<!-- end -->\nafter\n"),
        "{new}"
    );
    assert!(!new.contains("old") && with_tables(&new) == new, "{new}");
}
