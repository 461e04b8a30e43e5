//! The server under load: its address, the app, and how requests and subscriptions are signed (as Pusher requires).

use hmac::{Hmac, KeyInit, Mac};
use md5::Digest;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::clock;
use crate::outcome::Failure;

/// Address and app.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header.
    pub(crate) host: String,
    /// Path before `/app` and `/apps`: empty or `/prefix`.
    pub(crate) prefix: String,
    pub(crate) app_id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl Target {
    /// Reads `ws://host:port/prefix` and resolves the host.
    pub(crate) fn new(url: &str, app_id: &str, key: &str, secret: &str) -> Result<Self, Failure> {
        let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://")).ok_or_else(|| {
            Failure::Usage(format!("--url {url}: must begin with ws:// (TLS is not supported: use the plain port)"))
        })?;
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| Failure::Usage(format!("--url {url}: cannot resolve {host}: {error}")))?
            .next()
            .ok_or_else(|| Failure::Usage(format!("--url {url}: {host} has no address")))?;
        let prefix = prefix.trim_end_matches('/');
        Ok(Self {
            address,
            host: host.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
            app_id: app_id.to_owned(),
            key: key.to_owned(),
            secret: secret.to_owned(),
        })
    }

    /// The request that opens a WebSocket, with events that have ids or not. The nonce need not differ between connections,
    /// so it is one literal.
    pub(crate) fn upgrade_request(&self, event_ids: bool) -> Vec<u8> {
        format!(
            "GET {}/app/{}?protocol=7&client=relay-loadgen&version={}{} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.prefix,
            self.key,
            env!("CARGO_PKG_VERSION"),
            if event_ids { "&event_ids=true" } else { "" },
            self.host
        )
        .into_bytes()
    }
}

/// Signs for one app; the key is hashed once.
#[derive(Clone)]
pub(crate) struct Signer {
    hmac: Hmac<Sha256>,
    target: Target,
}

impl Signer {
    pub(crate) fn new(target: &Target) -> Self {
        let hmac = Hmac::new_from_slice(target.secret.as_bytes()).expect("HMAC takes keys of every length");
        Self { hmac, target: target.clone() }
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        let mut hmac = self.hmac.clone();
        for part in parts {
            hmac.update(part);
        }
        hex::encode(hmac.finalize().into_bytes())
    }

    /// `auth` of a private subscription, or with `channel_data` of a presence one.
    pub(crate) fn subscription(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
        let signature = match channel_data {
            None => self.sign(&[socket_id.as_bytes(), b":", channel.as_bytes()]),
            Some(data) => self.sign(&[socket_id.as_bytes(), b":", channel.as_bytes(), b":", data.as_bytes()]),
        };
        format!("{}:{signature}", self.target.key)
    }

    /// Appends a signed request for `path` below `/apps/{id}`. `query` is unsigned parameters in alphabetical order
    /// that sort after `auth_version`, each as `name=value`, joined by `&`.
    pub(crate) fn request(&self, method: &str, path: &str, query: &str, body: &[u8], out: &mut Vec<u8>) {
        let target = &self.target;
        let path = format!("{}/apps/{}{path}", target.prefix, target.app_id);
        let mut parameters =
            format!("auth_key={}&auth_timestamp={}&auth_version=1.0", target.key, clock::unix_seconds());
        if !body.is_empty() {
            parameters.push_str("&body_md5=");
            parameters.push_str(&hex::encode(md5::Md5::digest(body)));
        }
        if !query.is_empty() {
            parameters.push('&');
            parameters.push_str(query);
        }
        let signature = self.sign(&[method.as_bytes(), b"\n", path.as_bytes(), b"\n", parameters.as_bytes()]);
        let head = format!(
            "{method} {path}?{parameters}&auth_signature={signature} HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            target.host,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }
}
