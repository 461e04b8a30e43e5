//! The admin API as a test calls it: over a raw socket, with a token that the command line made.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::cli;
use super::http::{HttpConnection, Response};
use super::server::TestServer;

/// Where the paths of the admin API begin.
pub const BASE: &str = "/admin/api/v1";

/// An admin token of a server.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The listener.
    pub address: SocketAddr,
    /// The token; none is sent if it is empty.
    pub token: String,
    /// Its id.
    pub id: String,
}

impl Admin {
    /// A new admin token, made by the command line while the server runs.
    #[track_caller]
    pub fn of(server: &TestServer, arguments: &[&str]) -> Self {
        let made = create_token(&server.data, arguments);
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name} in {made}")).to_owned();
        Self { address: server.admin.expect("the test asked for the admin API"), token: text("token"), id: text("id") }
    }

    /// The same listener with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A request below [`BASE`] with a JSON body.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.ask_with(method, path, &[], body.map(ToString::to_string).unwrap_or_default().as_bytes())
    }

    /// The same with further headers and any body.
    #[track_caller]
    pub fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let (host, bearer) = (self.address.to_string(), format!("Bearer {}", self.token));
        let mut all = vec![("Host", host.as_str())];
        if !self.token.is_empty() {
            all.push(("Authorization", &bearer));
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "Content-Type") {
            all.push(("Content-Type", "application/json"));
        }
        all.extend_from_slice(headers);
        HttpConnection::open(self.address).ask(method, &format!("{BASE}{path}"), &all, body)
    }

    /// A GET that must succeed.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", path, None).expect(200).json()
    }

    /// A POST that must create something.
    #[track_caller]
    pub fn create(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, Some(body)).expect(201).json()
    }
}

/// `relay admin token create`; returns the printed JSON.
#[track_caller]
pub fn create_token(data: &Path, arguments: &[&str]) -> Value {
    let directory = data.to_str().expect("a UTF-8 path");
    let start = ["admin", "token", "create", "--data", directory, "--json"];
    cli::run_json(&[&start[..], arguments].concat())
}

/// A loopback address that no other request of this process came from: failed credentials are counted by address.
pub fn fresh_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Ipv4Addr::from(0x7F40_0000 + NEXT.fetch_add(1, Ordering::Relaxed))
}
