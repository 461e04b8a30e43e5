//! The independent signer: Pusher signatures over RustCrypto's HMAC, never over the code under test.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

/// An app's identity and credentials in a test.
#[derive(Clone, Debug)]
pub struct App {
    /// Public id, as in `/apps/{id}`.
    pub id: String,
    /// Public key.
    pub key: String,
    /// Its secret.
    pub secret: String,
}

impl App {
    /// `KEY:HEX` over `socket_id:channel` (P-AUTH-1).
    pub fn sign_private(&self, socket_id: &str, channel: &str) -> String {
        format!("{}:{}", self.key, hmac_hex(&self.secret, &format!("{socket_id}:{channel}")))
    }

    /// `KEY:HEX` over `socket_id:channel:channel_data` (P-AUTH-2).
    pub fn sign_presence(&self, socket_id: &str, channel: &str, channel_data: &str) -> String {
        format!("{}:{}", self.key, hmac_hex(&self.secret, &format!("{socket_id}:{channel}:{channel_data}")))
    }

    /// `KEY:HEX` over `socket_id::user::user_data` (P-AUTH-4).
    pub fn sign_user(&self, socket_id: &str, user_data: &str) -> String {
        format!("{}:{}", self.key, hmac_hex(&self.secret, &format!("{socket_id}::user::{user_data}")))
    }

    /// A path under `/apps/{id}`.
    pub fn path(&self, rest: &str) -> String {
        format!("/apps/{}{rest}", self.id)
    }

    /// A path under `/api/v1/apps/{id}`.
    pub fn relay_path(&self, rest: &str) -> String {
        format!("/api/v1/apps/{}{rest}", self.id)
    }

    /// The target of a signed request made now.
    pub fn sign(&self, method: &str, path: &str, body: &[u8]) -> String {
        Signing::new(self, method, path, body).target()
    }
}

/// Lower-case hex of HMAC-SHA256.
pub fn hmac_hex(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Lower-case hex of MD5, for `body_md5`.
pub fn md5_hex(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970").as_secs()
}

/// One request to be signed (P-SIGN-1, P-SIGN-2); every part may be changed before signing.
#[derive(Clone, Debug)]
pub struct Signing {
    /// Method, upper case.
    pub method: String,
    /// Path as requested.
    pub path: String,
    /// Query parameters except the signature, values raw.
    pub parameters: Vec<(String, String)>,
    secret: String,
}

impl Signing {
    /// The parameters that a Pusher server SDK signs: key, timestamp, version, and the digest of a body that is not
    /// empty.
    pub fn new(app: &App, method: &str, path: &str, body: &[u8]) -> Self {
        let mut signing = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            parameters: Vec::new(),
            secret: app.secret.clone(),
        };
        signing.set("auth_key", &app.key);
        signing.set("auth_timestamp", &unix_now().to_string());
        signing.set("auth_version", "1.0");
        if !body.is_empty() {
            signing.set("body_md5", &md5_hex(body));
        }
        signing
    }

    /// Sets or replaces a parameter.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.remove(key);
        self.parameters.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Drops a parameter.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.parameters.retain(|(present, _)| present != key);
        self
    }

    /// The parameters in signing order, joined raw.
    pub fn sorted_query(&self) -> String {
        let mut sorted = self.parameters.clone();
        sorted.sort_by_key(|(key, _)| key.to_lowercase());
        let pairs: Vec<String> = sorted.iter().map(|(key, value)| format!("{}={value}", key.to_lowercase())).collect();
        pairs.join("&")
    }

    /// The signature.
    pub fn signature(&self) -> String {
        hmac_hex(&self.secret, &format!("{}\n{}\n{}", self.method, self.path, self.sorted_query()))
    }

    /// Path and query with the signature at the end.
    pub fn target(&self) -> String {
        format!("{}?{}&auth_signature={}", self.path, self.sorted_query(), self.signature())
    }
}
