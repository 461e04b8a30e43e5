//! One delivery to one endpoint: signed, sent, judged by its status (P-HOOK-7, R-HOOK-3, R-HOOK-4).

use std::fmt;
use std::time::Duration;

use ring::hmac;

use crate::app::App;
use crate::app::webhook::{WebhookEndpoint, WebhookFormat};
use crate::limits;
use crate::outgoing::client::{Client, Kept, NoAnswer, Post, clean};

/// Why a request failed; reads as a phrase without line breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SendError {
    /// The endpoint answered something other than 2xx.
    Status(u16, String),
    /// There was no answer.
    NoAnswer(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, text) if text.is_empty() => write!(f, "answered {status}"),
            Self::Status(status, text) => write!(f, "answered {status}: {text}"),
            Self::NoAnswer(reason) => f.write_str(reason),
        }
    }
}

/// Webhooks of one endpoint are sent one after the other.
pub const KEPT: Kept = Kept { per_host: 1, in_all: 16, idle: Duration::from_secs(15) };

/// Sends one body.
///
/// # Errors
/// The answer that came instead of 2xx, or the failure, within [`limits::WEBHOOK_ANSWER_MS`].
pub fn send(
    client: &Client,
    app: &App,
    endpoint: &WebhookEndpoint,
    body: &[u8],
    unix_s: u64,
) -> Result<u16, SendError> {
    let mut headers = headers(app, endpoint, body, unix_s);
    headers.push(("Content-Type", "application/json".to_owned()));
    let post = Post {
        url: &endpoint.url,
        reach: endpoint.reach,
        headers: &headers,
        body,
        within: Duration::from_millis(limits::WEBHOOK_ANSWER_MS),
        answer_bytes_max: ANSWER_BYTES_READ,
    };
    // The answer is read within bounds, so that the connection can serve the next request and the reason can be shown.
    let answer = client.post(&post).map_err(|NoAnswer(reason)| SendError::NoAnswer(reason))?;
    match answer.status {
        status @ 200..=299 => Ok(status),
        status => {
            let shown = &answer.body[..answer.body.len().min(limits::WEBHOOK_ANSWER_BYTES_MAX)];
            Err(SendError::Status(status, clean(shown)))
        }
    }
}

/// Sends one event named `test`, in the format of the endpoint.
///
/// # Errors
/// As for [`send`].
pub fn send_test(client: &Client, app: &App, endpoint: &WebhookEndpoint, unix_ms: u64) -> Result<u16, SendError> {
    let unix_s = unix_ms / 1_000;
    let body = match endpoint.format {
        WebhookFormat::Pusher => {
            format!(r#"{{"time_ms":{unix_ms},"events":[{{"name":"test","channel":"relay-test"}}]}}"#)
        }
        WebhookFormat::Relay => {
            format!(r#"{{"event":"test","data":{{"channel":"relay-test"}},"timestamp":{unix_s}}}"#)
        }
    };
    send(client, app, endpoint, body.as_bytes(), unix_s)
}

/// An answer longer than this is not read to its end, which closes its connection.
const ANSWER_BYTES_READ: usize = 16 * 1024;

/// The headers of the endpoint's format. They use the current secrets: a key that was removed since the body was
/// created no longer signs anything (R-HOOK-1).
fn headers(app: &App, endpoint: &WebhookEndpoint, body: &[u8], unix_s: u64) -> Vec<(&'static str, String)> {
    match endpoint.format {
        WebhookFormat::Pusher => {
            let Some(pair) = app.keys.first() else { return Vec::new() };
            let signature = const_hex::encode(hmac::sign(&pair.hmac, body));
            vec![("X-Pusher-Key", pair.key.to_string()), ("X-Pusher-Signature", signature)]
        }
        WebhookFormat::Relay => vec![
            ("X-Relay-Signature", const_hex::encode(endpoint.secret.sign(body))),
            ("X-Relay-Event", event_name(body)),
            ("X-Relay-Timestamp", unix_s.to_string()),
        ],
    }
}

/// The event name at the start of a body in Relay's format.
fn event_name(body: &[u8]) -> String {
    let rest = body.strip_prefix(br#"{"event":""#).unwrap_or_default();
    let name = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::app::outgoing_url::Reach;
    use crate::app::webhook::{Batching, CountName, WebhookKinds};
    use crate::app::{AppKey, AppSerial, Secret};
    use crate::outgoing::client::TrustedRoots;

    fn app() -> App {
        App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "".into(),
            enabled: true,
            keys: vec![AppKey::new("old-key", "old-secret"), AppKey::new("new-key", "new-secret")],
            encryption_master_key: None,
            settings: Default::default(),
            webhooks: Default::default(),
        }
    }

    fn endpoint(url: &str, format: WebhookFormat) -> WebhookEndpoint {
        WebhookEndpoint {
            id: "wh_1".into(),
            url: url.into(),
            secret: Secret::new("whs_test"),
            kinds: WebhookKinds::all(),
            format,
            batching: Batching::Single,
            reach: Reach::Anywhere,
            count_name: CountName::Pusher,
            enabled: true,
        }
    }

    /// R-HOOK-3, R-HOOK-1, P-SDK-24: the headers of both formats, with the check of the specification; Pusher's is signed
    /// with the oldest key that is active.
    #[test]
    fn signatures_of_both_formats() {
        let body = br#"{"event":"channel.occupied","data":{"channel":"chat-room-42","subscription_count":1},"timestamp":1712300000}"#;
        let relay = headers(&app(), &endpoint("https://x/", WebhookFormat::Relay), body, 1_712_300_007);
        let expected = [
            ("X-Relay-Signature", "d908346b320d8e6b4dfd76e946de2194c07a1d2be214ebb5ba69c57e35d0f3d1"),
            ("X-Relay-Event", "channel.occupied"),
            ("X-Relay-Timestamp", "1712300007"),
        ];
        assert_eq!(relay.iter().map(|(name, value)| (*name, &**value)).collect::<Vec<_>>(), expected);
        let pusher = headers(&app(), &endpoint("https://x/", WebhookFormat::Pusher), body, 1);
        use ::hmac::{Hmac, KeyInit, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"old-secret").expect("a key");
        mac.update(body);
        let signature = hex::encode(mac.finalize().into_bytes());
        assert_eq!(pusher, [("X-Pusher-Key", "old-key".to_owned()), ("X-Pusher-Signature", signature)]);
    }

    /// P-HOOK-7, R-HOOK-4, threat T27: only 2xx is success; the beginning of another answer is kept, without characters
    /// that forge log lines.
    #[test]
    fn answers_are_judged_and_cut() {
        let client = Client::new(&[], &TrustedRoots::Mozilla, KEPT);
        let answer = |status: u16, body: &str| {
            let answer = format!("HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            let url = format!("http://127.0.0.1:{}/", listener.local_addr().expect("an address").port());
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                while !request.ends_with(b"{}") {
                    let read = stream.read(&mut part).expect("a request");
                    request.extend_from_slice(&part[..read]);
                }
                // The client may close before it has read an answer that is too long.
                let _ = stream.write_all(answer.as_bytes());
            });
            let result = send(&client, &app(), &endpoint(&url, WebhookFormat::Pusher), b"{}", 1);
            server.join().expect("served");
            result
        };
        for status in [200, 201, 202, 299] {
            assert_eq!(answer(status, "ok"), Ok(status));
        }
        for status in [300, 304, 400, 401, 404, 410, 429, 500, 503] {
            let text = if status == 304 { "" } else { "no" };
            let result = answer(status, text);
            assert!(matches!(result, Err(SendError::Status(found, _)) if found == status), "{result:?}");
        }
        let forged = answer(500, "a\r\nERROR forged\x1b[31m").expect_err("failed").to_string();
        assert_eq!(forged, "answered 500: a  ERROR forged [31m");
        let long = answer(500, &"y".repeat(1_000_000)).expect_err("failed");
        assert!(matches!(long, SendError::Status(500, text) if text.len() == limits::WEBHOOK_ANSWER_BYTES_MAX));
    }
}
