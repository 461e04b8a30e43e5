//! A remote server, through its admin API (R-ADMIN-19). The token goes to the named server alone: over https, or over
//! http to a loopback address; through no proxy and after no redirect (threat T49).

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, Uri};

use super::{CommandError, note};
use crate::admin::call::Call;
use crate::admin::routes::{BASE, Method};
use crate::auth::token::is_admin_token;
use crate::config::ADMIN_TOKEN_VARIABLE;
use crate::limits;

/// Where the commands work, for all of them.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct RemoteArguments {
    /// Work on a server through its admin API at this URL, instead of on a data directory.
    #[arg(long, global = true, value_name = "URL", hide = true)]
    pub(super) server: Option<String>,
    /// Read the admin token for --server from this file, `-` is standard input [default: RELAY_ADMIN_TOKEN].
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    admin_token_file: Option<PathBuf>,
    /// The admin token for --server; other users of this machine may see it.
    #[arg(long, global = true, value_name = "TOKEN", hide = true, conflicts_with = "admin_token_file")]
    admin_token: Option<String>,
}

impl RemoteArguments {
    /// True if one of them is given.
    pub(super) fn is_given(&self) -> bool {
        self.server.is_some() || self.admin_token_file.is_some() || self.admin_token.is_some()
    }

    /// The server, if one is named.
    ///
    /// # Errors
    /// An URL to which no token is sent, or no token.
    pub(super) fn open(&self) -> Result<Option<Remote>, CommandError> {
        let Some(server) = &self.server else {
            if self.admin_token.is_some() || self.admin_token_file.is_some() {
                return Err(usage("--admin-token and --admin-token-file are for a remote server: add --server URL"));
            }
            return Ok(None);
        };
        let base = check_url(server)?;
        Ok(Some(Remote { base, token: self.token()?, agent: agent() }))
    }

    fn token(&self) -> Result<String, CommandError> {
        let (text, source) = if let Some(token) = &self.admin_token {
            note(
                "warning: other users of this machine may see --admin-token: use RELAY_ADMIN_TOKEN or --admin-token-file",
            );
            (token.clone(), "--admin-token".to_owned())
        } else if let Some(file) = &self.admin_token_file {
            (read_file(file)?, file.display().to_string())
        } else {
            let text = std::env::var(ADMIN_TOKEN_VARIABLE).unwrap_or_default();
            if text.is_empty() {
                return Err(usage(
                    "--server needs an admin token: set RELAY_ADMIN_TOKEN, or name a file with --admin-token-file",
                ));
            }
            (text, ADMIN_TOKEN_VARIABLE.to_owned())
        };
        let token = text.trim();
        if is_admin_token(token) {
            return Ok(token.to_owned());
        }
        Err(CommandError::Usage(format!("{source} is not an admin token: expected rly_adm_ and 40 letters and digits")))
    }
}

fn read_file(file: &PathBuf) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(CommandError::Usage(format!("cannot read the admin token from {}: {error}", file.display()))),
    }
}

/// A server, and the token for it.
pub(super) struct Remote {
    /// Scheme, host, port and path, without a slash at the end.
    base: String,
    token: String,
    agent: Agent,
}

impl Remote {
    /// Runs an operation there; returns the body of its answer.
    pub(super) fn call(&self, call: &Call) -> Result<Value, CommandError> {
        let route = call.operation.route();
        let mut url = format!("{}{BASE}{}", self.base, route.path(call.app.as_deref(), call.item.as_deref()));
        for (index, (name, value)) in call.query.iter().enumerate() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
            url += &format!("{}{name}={text}", if index == 0 { '?' } else { '&' });
        }
        let body = match (route.method, route.body) {
            (Method::Get, _) | (_, None) => Vec::new(),
            _ => serde_json::to_vec(call.body.all()).expect("a map of values is JSON"),
        };
        let request = Request::builder()
            .method(route.method.name())
            .uri(url)
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Content-Type", "application/json")
            .body(body)
            .map_err(|error| self.failed(&error))?;
        let mut response = self.agent.run(request).map_err(|error| self.failed(&error))?;
        let status = response.status().as_u16();
        let read = response.body_mut().with_config().limit(limits::REMOTE_ANSWER_BYTES_MAX).read_to_vec();
        let body: Value = serde_json::from_slice(&read.map_err(|error| self.failed(&error))?).unwrap_or_default();
        match (status, body) {
            (200 | 201, body @ Value::Object(_)) => Ok(body),
            (_, body) => Err(CommandError::Remote {
                status,
                message: self.refusal(status, &body),
                created: body["created"].as_array().cloned().unwrap_or_default(),
            }),
        }
    }

    fn refusal(&self, status: u16, body: &Value) -> String {
        match body.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => format!("{} answered {status}, which is no answer of Relay's admin API: check --server", self.base),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> CommandError {
        let message = format!("cannot use the admin API at {}: {error}", self.base);
        CommandError::Remote { status: 0, message, created: Vec::new() }
    }
}

/// Scheme, host, port and path of an URL to which a token may be sent.
fn check_url(url: &str) -> Result<String, CommandError> {
    // The URL is not repeated if it is malformed: it may have a password.
    let malformed = || usage("--server takes an URL such as https://relay.example.com or http://127.0.0.1:6002");
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().ok_or_else(malformed)?);
    if authority.as_str().contains('@') {
        return Err(usage("--server takes an URL without user and password: use RELAY_ADMIN_TOKEN"));
    }
    if uri.query().is_some() || url.contains('#') {
        return Err(malformed());
    }
    match scheme {
        "https" => {}
        "http" if is_loopback(authority.host()) => {}
        "http" => {
            return Err(CommandError::Usage(format!(
                "--server http://{authority} would send the admin token in plain text: use https, or a tunnel to a \
                 loopback address"
            )));
        }
        _ => return Err(malformed()),
    }
    Ok(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/')))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .timeout_global(Some(Duration::from_millis(limits::REMOTE_REQUEST_MS)))
        .user_agent(concat!("relay/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn usage(text: &str) -> CommandError {
    CommandError::Usage(text.to_owned())
}

/// A file with more is not read to its end, and is no token.
const TOKEN_FILE_BYTES_MAX: u64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    /// T49, R-ADMIN-19: a token is sent over https, and over http to this machine only; the URL has no password.
    #[test]
    fn a_token_crosses_no_network_in_plain_text() {
        for (url, base) in [
            ("https://relay.example.com", "https://relay.example.com"),
            ("https://relay.example.com:8443/admin-of-relay/", "https://relay.example.com:8443/admin-of-relay"),
            ("http://127.0.0.1:6002", "http://127.0.0.1:6002"),
            ("http://127.9.9.9/", "http://127.9.9.9"),
            ("http://[::1]:6002", "http://[::1]:6002"),
            ("http://LocalHost:6002", "http://LocalHost:6002"),
        ] {
            assert_eq!(check_url(url).expect(url), base);
        }
        for url in [
            "",
            "relay.example.com",
            "127.0.0.1:6002",
            "http://10.0.0.1",
            "http://0.0.0.0:6002",
            "http://relay.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::2]",
            "ftp://127.0.0.1",
            "https://user:hunter2@relay.example.com",
            "https://relay.example.com/?token=hunter2",
            "https://relay.example.com/#x",
            "https:///path",
        ] {
            let error = check_url(url).expect_err(url).to_string();
            assert!(error.contains("--server") && !error.contains("hunter2"), "{error}");
        }
    }
}
