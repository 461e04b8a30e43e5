//! Signatures that Relay makes for a client: of a channel subscription and of a user (P-AUTH-1, P-AUTH-4, R-AUTHEP-1,
//! R-AUTHEP-9).
//!
//! Invariant (threat T33): only checked values are signed, so one signature opens one thing: a [`SocketId`] is digits
//! and a dot, and `api::auth` passes only names of protected channels, which begin with their prefix and do not
//! contain `:{`.

use ring::{digest, hmac};

use super::subscription::{SIGNIN, string_to_sign};
use crate::app::AppKey;
use crate::protocol::socket_id::SocketId;

/// `KEY:HEX` over `socket_id:channel[:channel_data]`.
pub fn sign_channel(pair: &AppKey, socket_id: SocketId, channel: &str, data: Option<&str>) -> String {
    sign(pair, socket_id, channel, data)
}

/// `KEY:HEX` over `socket_id::user::user_data`.
pub fn sign_user(pair: &AppKey, socket_id: SocketId, user_data: &str) -> String {
    sign(pair, socket_id, SIGNIN, Some(user_data))
}

fn sign(pair: &AppKey, socket_id: SocketId, subject: &str, data: Option<&str>) -> String {
    let signed = string_to_sign(&socket_id.to_text(), subject, data);
    let tag = hmac::sign(&pair.hmac, &signed);
    [&*pair.key, ":", &const_hex::encode(tag)].concat()
}

/// The key of an encrypted channel: SHA-256 of its name and the master key (P-ENC-2).
pub fn shared_secret(channel: &str, master_key: &[u8; 32]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(channel.as_bytes());
    context.update(master_key);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> AppKey {
        AppKey::new("278d425bdf160c739803", "7ad3773142a6692b25b8")
    }

    /// P-AUTH-6, R-AUTHEP-1, R-AUTHEP-9: the published vectors.
    #[test]
    fn published_vectors() {
        let socket_id = SocketId::parse("1234.1234").expect("an id");
        let private = sign_channel(&pair(), socket_id, "private-foobar", None);
        let expected = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert_eq!(private, expected);
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let presence = sign_channel(&pair(), socket_id, "presence-foobar", Some(data));
        assert!(presence.ends_with(":31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"));
        let user = sign_user(&pair(), socket_id, r#"{"id":"12345"}"#);
        assert!(user.ends_with(":4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"));
    }

    /// P-ENC-2: the check of the specification.
    #[test]
    fn shared_secret_of_the_specification() {
        let secret = shared_secret("private-encrypted-a", &[0; 32]);
        let expected = "3faa79e43658f48e46ea9ed90d84fe51214c1560b4ab290bb38bd2939cff9562";
        assert_eq!(const_hex::encode(secret), expected);
    }
}
