//! One POST to one URL of a customer, through the guard (threat T19).

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::DefaultConnector;

use super::guard::Guard;
use crate::app::outgoing_url::Reach;

/// Makes requests, from any thread.
///
/// URLs that may have any address have a separate connection pool: a connection kept open to an internal address must
/// never serve a URL that may not be there.
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

/// Connections that are kept open between requests.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// To one host.
    pub per_host: usize,
    /// To all hosts.
    pub in_all: usize,
    /// One that was not used for this long is closed.
    pub idle: Duration,
}

/// One request.
#[derive(Debug)]
pub struct Post<'a> {
    /// Its destination.
    pub url: &'a str,
    /// The addresses that it may have.
    pub reach: Reach,
    /// Its headers.
    pub headers: &'a [(&'static str, String)],
    /// Its body.
    pub body: &'a [u8],
    /// The answer must be complete within this.
    pub within: Duration,
    /// An answer longer than this is not read to its end, which closes its connection.
    pub answer_bytes_max: usize,
}

/// An answer, with any status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`, if it is text.
    pub content_type: Option<String>,
    /// Its body, up to the bound of the request.
    pub body: Vec<u8>,
    /// Whether the body is complete.
    pub is_complete: bool,
}

/// Why there was no answer; reads as a phrase without line breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoAnswer(pub String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Client {
    /// Uses the system's resolver. `allowed` are networks that every URL may be in, also over http.
    pub fn new(allowed: &[IpNet], roots: &TrustedRoots, kept: Kept) -> Self {
        Self::with_resolvers(allowed, roots, kept, [DefaultResolver::default(), DefaultResolver::default()])
    }

    fn with_resolvers<R: Resolver>(
        allowed: &[IpNet],
        roots: &TrustedRoots,
        kept: Kept,
        [public, anywhere]: [R; 2],
    ) -> Self {
        let agent = |resolver, reach| {
            let guard = Guard::new(resolver, reach, allowed.to_vec());
            Agent::with_parts(config(roots, kept), DefaultConnector::default(), guard)
        };
        Self { public: agent(public, Reach::Public), anywhere: agent(anywhere, Reach::Anywhere) }
    }

    /// Sends a request and reads its answer within the bounds.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub fn post(&self, post: &Post<'_>) -> Result<Answer, NoAnswer> {
        let agent = match post.reach {
            Reach::Public => &self.public,
            Reach::Anywhere => &self.anywhere,
        };
        let mut request = agent.post(post.url).config().timeout_global(Some(post.within)).build();
        for (name, value) in post.headers {
            request = request.header(*name, value);
        }
        let response = request.send(post.body).map_err(|error| NoAnswer(clean(error.to_string().as_bytes())))?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("Content-Type").and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let mut body = Vec::new();
        let bound = post.answer_bytes_max as u64;
        let read = response.into_body().into_reader().take(bound + 1).read_to_end(&mut body);
        let is_complete = read.is_ok() && body.len() <= post.answer_bytes_max;
        body.truncate(post.answer_bytes_max);
        Ok(Answer { status, content_type, body, is_complete })
    }
}

fn config(roots: &TrustedRoots, kept: Kept) -> Config {
    let roots = match roots {
        TrustedRoots::Mozilla => RootCerts::WebPki,
        TrustedRoots::These(certificates) => RootCerts::Specific(Arc::clone(certificates)),
    };
    Config::builder()
        .http_status_as_error(false)
        // A redirect is treated like any other answer that is not 2xx: it is not followed (threat T19).
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Relay checks addresses itself: no proxy from the environment may resolve names instead.
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .max_idle_connections(kept.in_all)
        .max_idle_connections_per_host(kept.per_host)
        .max_idle_age(kept.idle)
        .user_agent(concat!("relay/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Text of a peer, without characters that would forge log lines (threat T27).
pub fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect::<String>().trim().into()
}

#[cfg(test)]
mod tests;
