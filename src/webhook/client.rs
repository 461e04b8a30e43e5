//! One request to one endpoint: signed, sent, judged by its status (P-HOOK-7, R-HOOK-3, R-HOOK-4).

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ring::hmac;
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::DefaultConnector;

use super::guard::Guard;
use crate::app::App;
use crate::app::webhook::{Reach, WebhookEndpoint, WebhookFormat};
use crate::limits;

/// Makes requests, from any thread.
///
/// Endpoints that may have any address have a separate connection pool: a connection kept open to an internal address
/// must never serve an endpoint that may not be there.
#[derive(Debug)]
pub struct Client {
    public: Agent,
    anywhere: Agent,
}

/// Which certificates are trusted.
#[derive(Clone, Debug, Default)]
pub enum TrustedRoots {
    /// Mozilla's, compiled in.
    #[default]
    Mozilla,
    /// These instead.
    These(Arc<Vec<Certificate<'static>>>),
}

impl TrustedRoots {
    /// Parses the certificates of a PEM file; `None` if there are none or one is malformed.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let mut certificates = Vec::new();
        for item in parse_pem(pem) {
            if let PemItem::Certificate(certificate) = item.ok()? {
                certificates.push(certificate);
            }
        }
        (!certificates.is_empty()).then(|| Self::These(Arc::new(certificates)))
    }
}

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

impl Client {
    /// Uses the system's resolver. `allowed` are networks that every endpoint may be in, also over http.
    pub fn new(allowed: &[IpNet], roots: &TrustedRoots) -> Self {
        Self::with_resolvers(allowed, roots, [DefaultResolver::default(), DefaultResolver::default()])
    }

    fn with_resolvers<R: Resolver>(allowed: &[IpNet], roots: &TrustedRoots, [public, anywhere]: [R; 2]) -> Self {
        let agent = |resolver, reach| {
            let guard = Guard::new(resolver, reach, allowed.to_vec());
            Agent::with_parts(config(roots), DefaultConnector::default(), guard)
        };
        Self { public: agent(public, Reach::Public), anywhere: agent(anywhere, Reach::Anywhere) }
    }

    /// Sends one body.
    ///
    /// # Errors
    /// The answer that came instead of 2xx, or the failure, within [`limits::WEBHOOK_ANSWER_MS`].
    pub fn send(&self, app: &App, endpoint: &WebhookEndpoint, body: &[u8], unix_s: u64) -> Result<u16, SendError> {
        let agent = match endpoint.reach {
            Reach::Public => &self.public,
            Reach::Anywhere => &self.anywhere,
        };
        let mut request = agent.post(&*endpoint.url).header("Content-Type", "application/json");
        for (name, value) in headers(app, endpoint, body, unix_s) {
            request = request.header(name, value);
        }
        let response = request.send(body).map_err(|error| SendError::NoAnswer(clean(error.to_string().as_bytes())))?;
        let status = response.status().as_u16();
        // Read within bounds, so that the connection can serve the next request and the reason can be shown.
        let mut text = Vec::new();
        let mut reader = response.into_body().into_reader().take(ANSWER_BYTES_READ);
        let read = reader.read_to_end(&mut text);
        match (status, read) {
            (200..=299, _) => Ok(status),
            (_, Ok(_) | Err(_)) => Err(SendError::Status(status, clean(&text))),
        }
    }
}

/// An answer longer than this is not read to its end, which closes its connection.
const ANSWER_BYTES_READ: u64 = 16 * 1024;
/// Connections that are kept open between requests.
const IDLE_CONNECTIONS_MAX: usize = 16;

fn config(roots: &TrustedRoots) -> Config {
    let roots = match roots {
        TrustedRoots::Mozilla => RootCerts::WebPki,
        TrustedRoots::These(certificates) => RootCerts::Specific(Arc::clone(certificates)),
    };
    Config::builder()
        .timeout_global(Some(Duration::from_millis(limits::WEBHOOK_ANSWER_MS)))
        .http_status_as_error(false)
        // A redirect is treated like any other answer that is not 2xx: it is not followed (threat T19).
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Relay checks addresses itself: no proxy from the environment may resolve names instead.
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .max_idle_connections(IDLE_CONNECTIONS_MAX)
        .max_idle_connections_per_host(1)
        .max_idle_age(Duration::from_secs(15))
        .user_agent(concat!("relay/", env!("CARGO_PKG_VERSION")))
        .build()
}

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

/// Text of a peer, truncated and without characters that would forge log lines (threat T27).
fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(limits::WEBHOOK_ANSWER_BYTES_MAX)]);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect::<String>().trim().into()
}

#[cfg(test)]
mod tests;
