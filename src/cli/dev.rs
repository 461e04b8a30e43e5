//! `relay serve --dev`: the known app, a token, and the commands that a new user pastes next.
//!
//! Printing the secret and the tokens here is the one exception to threat T27: the secret is public anyway, the server
//! is reachable from this machine only, and the tokens are valid until the next start.

use std::net::SocketAddr;

use crate::app::AppSettings;
use crate::app::actor::Actor;
use crate::store::{NewAdminToken, NewToken, Role, Store, StoreError};

pub(super) const ID: &str = "1";
pub(super) const KEY: &str = "app-key";
pub(super) const SECRET: &str = "app-secret";
const TOKEN_NAME: &str = "dev";

/// The credentials that the banner shows.
#[derive(Clone)]
pub struct DevApp {
    /// App id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// A token of the app.
    pub token: String,
    /// An admin token.
    pub admin_token: String,
}

/// Ensures that the app exists with client events on, and creates the tokens of this run.
pub(super) fn prepare(store: &Store) -> Result<DevApp, StoreError> {
    let settings = AppSettings { client_events: true, ..AppSettings::default() };
    let actor = Actor::server();
    store.upsert_app(&actor, ID, KEY, SECRET, settings)?;
    store.change_app(&actor, ID, |app| {
        (app.enabled, app.settings.client_events) = (true, true);
        Ok(())
    })?;
    let new = NewToken { app: ID.into(), name: TOKEN_NAME.into(), scopes: Vec::new(), expires_at_ms: None };
    let token = store.replace_token(&actor, new)?.token;
    let new = NewAdminToken { name: TOKEN_NAME.into(), role: Role::Admin, expires_at_ms: None };
    let admin_token = store.replace_admin_token(&actor, new)?.token;
    Ok(DevApp { id: ID.into(), key: KEY.into(), secret: SECRET.into(), token, admin_token })
}

/// The body that all three `curl` lines publish.
const BODY: &str = r#"{"name":"hello","channel":"my-channel","data":"{\"message\":\"hi\"}"}"#;

/// The output of `--dev` once it listens on `public`: the URL, a pusher-js snippet, one `curl` for each authentication
/// method, and one for the admin API if it is served, each on one line. The third signs when it is pasted, with
/// `openssl`, in any POSIX shell.
pub fn dev_banner(public: SocketAddr, admin: Option<SocketAddr>, app: &DevApp) -> String {
    let DevApp { id, key, secret, token, admin_token } = app;
    let url = format!("http://{public}");
    let path = format!("/apps/{id}/events");
    let (host, port) = match public {
        SocketAddr::V4(address) => (address.ip().to_string(), public.port()),
        SocketAddr::V6(address) => (format!("[{}]", address.ip()), public.port()),
    };
    let json = "-H 'Content-Type: application/json'";
    let signed = sign_line(key, secret, &path);
    // Only for a listener that this process holds: another user of the machine may have the port (threat T46).
    let admin = admin.map_or_else(String::new, |admin| {
        format!(
            "  Manage apps and tokens with an admin token (it ends with the next start):\n\n\
             curl -sS http://{admin}/admin/api/v1/status -H 'Authorization: Bearer {admin_token}'\n\n"
        )
    });
    format!(
        r#"
  URL     {url}   WebSocket ws://{public}/app/{key}
  app     id {id}, key {key}, secret {secret}   (--dev only: everybody knows them)

  In the browser, with pusher-js:

    const pusher = new Pusher('{key}', {{cluster: 'mt1', wsHost: '{host}', wsPort: {port}, forceTLS: false, enabledTransports: ['ws', 'wss']}});
    pusher.subscribe('my-channel').bind('hello', (data) => console.log(data));

  Publish with key and secret, with a token (it ends with the next start), or signed as Pusher's servers do:

curl -sS {url}{path} -H 'X-Relay-Key: {key}' -H 'X-Relay-Secret: {secret}' {json} -d '{BODY}'

curl -sS {url}{path} -H 'Authorization: Bearer {token}' {json} -d '{BODY}'

{signed}; curl -sS "{url}{path}?$Q&auth_signature=$S" {json} -d "$B"

{admin}"#
    )
}

/// Shell assignments: `B` the body, `Q` the signed query (P-SIGN-1), `S` the signature (P-SIGN-2).
/// `openssl` prints the digest as the last word of its line, whatever its version prints before.
fn sign_line(key: &str, secret: &str, path: &str) -> String {
    let last_word = "sed 's/.* //'";
    format!(
        r#"B='{BODY}'; Q="auth_key={key}&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$(printf %s "$B" | openssl md5 | {last_word})"; S=$(printf 'POST\n{path}\n%s' "$Q" | openssl dgst -sha256 -hmac '{secret}' | {last_word})"#
    )
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;

    use super::*;

    fn app() -> DevApp {
        DevApp {
            id: ID.into(),
            key: KEY.into(),
            secret: SECRET.into(),
            token: "rly_x".into(),
            admin_token: "rly_adm_x".into(),
        }
    }

    /// P-SIGN-1, P-SIGN-2: when the printed line is pasted into `sh` and `bash`, it computes the same as an independent
    /// HMAC and the shell's own md5sum of the same body.
    #[test]
    fn the_pasted_line_signs() {
        let line = sign_line(KEY, SECRET, "/apps/1/events");
        let mut shells = 0;
        for shell in ["sh", "dash", "bash"] {
            let script = format!(r#"{line}; printf '%s\n' "$B" "$Q" "$S"; printf %s "$B" | md5sum"#);
            let Ok(output) = std::process::Command::new(shell).arg("-c").arg(script).output() else {
                continue;
            };
            shells += 1;
            let text = String::from_utf8(output.stdout).expect("text");
            let [body, query, signature, md5] = text.lines().collect::<Vec<_>>()[..] else { panic!("{shell}: {text}") };
            assert_eq!(body, BODY);
            let md5 = md5.split(' ').next().expect("a digest");
            assert!(query.ends_with(&format!("&auth_version=1.0&body_md5={md5}")), "{query}");
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
            mac.update(format!("POST\n/apps/1/events\n{query}").as_bytes());
            assert_eq!(signature, hex::encode(mac.finalize().into_bytes()), "{shell}");
        }
        assert!(shells >= 1, "no shell to show it with");
    }

    /// Each curl is on one line of its own, starts where a paste starts, and has the method's credential. Threat T46: no
    /// admin token is printed without an admin API.
    #[test]
    fn the_banner_has_one_line_per_method() {
        let banner = dev_banner("127.0.0.1:6001".parse().expect("address"), None, &app());
        assert!(!banner.contains("rly_adm"), "{banner}");
        let lines: Vec<_> = banner.lines().filter(|line| line.contains("curl")).collect();
        assert_eq!(lines.len(), 3, "{banner}");
        assert!(lines[0].starts_with("curl ") && lines[0].contains("X-Relay-Secret: app-secret"));
        assert!(lines[1].starts_with("curl ") && lines[1].contains("Bearer rly_x"));
        assert!(lines[2].starts_with("B='") && lines[2].contains("auth_signature=$S"));
        assert!(
            banner.contains("wsHost: '127.0.0.1', wsPort: 6001, forceTLS: false, enabledTransports: ['ws', 'wss']")
        );
        let admin = "[::1]:7002".parse().expect("address");
        let banner = dev_banner("[::1]:7001".parse().expect("address"), Some(admin), &app());
        let last = banner.lines().rfind(|line| line.contains("curl")).expect("a line");
        assert!(
            last.starts_with("curl -sS http://[::1]:7002/admin/api/v1/status") && last.contains("Bearer rly_adm_x")
        );
        assert!(banner.contains("http://[::1]:7001/apps/1/events") && banner.contains("wsHost: '[::1]', wsPort: 7001"));
    }
}
