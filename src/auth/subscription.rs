//! Subscription signatures (P-AUTH-1 to P-AUTH-6, threats T1 and T2).
//!
//! Invariant: the part of `auth` before its last `:` is an active key of the app that the connection is bound to, the
//! part after it is exactly 64 lower-case hex digits, and the HMAC covers the bytes as they were received.

use ring::hmac;
use smallvec::SmallVec;

use super::{AuthFailure, decode_signature};
use crate::app::App;
use crate::protocol::quote;
use crate::wire::json::is_json_object;

/// Why a signature was refused, with the message for the client (P-FAIL-1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubscriptionRefusal {
    /// It contains no `:`, or the part before the last `:` is not an active key of this app:
    /// `Invalid key in subscription auth data: '<auth>'`.
    InvalidKey,
    /// `Invalid signature: Expected HMAC SHA256 hex digest of <socket_id>:<channel>[:<channel_data>], but got <sig>`.
    InvalidSignature,
}

impl SubscriptionRefusal {
    /// Its name in metrics and logs.
    pub fn failure(self) -> AuthFailure {
        match self {
            Self::InvalidKey => AuthFailure::UnknownKey,
            Self::InvalidSignature => AuthFailure::BadSignature,
        }
    }
}

/// Verifies `auth` over `socket_id:channel[:channel_data]`, the exact bytes received, in constant time.
///
/// # Errors
/// [`SubscriptionRefusal`]; the socket stays open (P-FAIL-6).
pub fn verify_subscription(
    app: &App,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
    auth: &str,
) -> Result<(), SubscriptionRefusal> {
    Proof::decode(app, auth)?.verify(socket_id, channel, channel_data)
}

/// The two parts of `auth`: an active key's secret, and the signature to verify with it.
struct Proof<'a> {
    secret: &'a hmac::Key,
    signature: [u8; 32],
}

impl<'a> Proof<'a> {
    fn decode(app: &'a App, auth: &str) -> Result<Self, SubscriptionRefusal> {
        let (key, signature) = auth.rsplit_once(':').ok_or(SubscriptionRefusal::InvalidKey)?;
        let (_, pair) = app.active_key(key.as_bytes()).ok_or(SubscriptionRefusal::InvalidKey)?;
        let signature = decode_signature(signature.as_bytes()).ok_or(SubscriptionRefusal::InvalidSignature)?;
        Ok(Self { secret: &pair.hmac, signature })
    }

    fn verify(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> Result<(), SubscriptionRefusal> {
        let signed = string_to_sign(socket_id, channel, channel_data);
        hmac::verify(self.secret, &signed, &self.signature).map_err(|_| SubscriptionRefusal::InvalidSignature)
    }
}

/// Verifies `auth` for a private channel that has no members: over `socket_id:channel`, or over
/// `socket_id:channel:channel_data`, which server libraries sign if they were given data for any kind of channel
/// (P-AUTH-1).
///
/// Invariant: one signed text opens one channel. Therefore only data that is a JSON object counts: `:{` occurs in the
/// name of no protected channel (P-CHAN-2), and a signature for `private-a:b` does not open `private-a` with the data
/// `b`.
///
/// # Errors
/// [`SubscriptionRefusal`]; the socket stays open (P-FAIL-6).
pub fn verify_private(
    app: &App,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
    auth: &str,
) -> Result<(), SubscriptionRefusal> {
    let proof = Proof::decode(app, auth)?;
    let verdict = proof.verify(socket_id, channel, None);
    match channel_data.filter(|data| verdict.is_err() && is_json_object(data)) {
        Some(data) => proof.verify(socket_id, channel, Some(data)),
        None => verdict,
    }
}

/// Verifies `auth` over `socket_id::user::user_data`, the exact bytes received, in constant time (P-AUTH-4).
///
/// # Errors
/// [`SubscriptionRefusal`]; the socket stays open (P-USER-3).
pub fn verify_signin(app: &App, socket_id: &str, user_data: &str, auth: &str) -> Result<(), SubscriptionRefusal> {
    verify_subscription(app, socket_id, SIGNIN, Some(user_data), auth)
}

/// The text in the place of the channel where a user is signed (P-AUTH-4).
pub const SIGNIN: &str = ":user:";

/// The text that the client receives (P-FAIL-1); quoted input is cut to 200 bytes at a character boundary.
pub fn refusal_message(
    refusal: &SubscriptionRefusal,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
    auth: &str,
) -> String {
    match refusal {
        SubscriptionRefusal::InvalidKey => {
            format!("Invalid key in subscription auth data: '{}'", quote(auth))
        }
        SubscriptionRefusal::InvalidSignature => {
            let signature = auth.rsplit_once(':').map_or(auth, |(_, signature)| signature);
            let (separator, channel_data) = channel_data.map_or(("", ""), |data| (":", quote(data)));
            format!(
                "Invalid signature: Expected HMAC SHA256 hex digest of {}:{}{separator}{channel_data}, but got {}",
                quote(socket_id),
                quote(channel),
                quote(signature),
            )
        }
    }
}

/// Strings up to this length are built on the stack: any private channel, and the usual `channel_data`.
const SIGNED_BYTES_INLINE: usize = 512;

pub(super) fn string_to_sign(
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> SmallVec<[u8; SIGNED_BYTES_INLINE]> {
    let bytes = socket_id.len() + 1 + channel.len() + channel_data.map_or(0, |data| 1 + data.len());
    let mut signed = SmallVec::with_capacity(bytes);
    signed.extend_from_slice(socket_id.as_bytes());
    signed.push(b':');
    signed.extend_from_slice(channel.as_bytes());
    if let Some(data) = channel_data {
        signed.push(b':');
        signed.extend_from_slice(data.as_bytes());
    }
    signed
}

#[cfg(test)]
mod tests {
    use ::hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    use super::*;
    use crate::app::{AppKey, AppSerial, AppSettings};

    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &str = "7ad3773142a6692b25b8";
    const SOCKET: &str = "1234.1234";
    const PRESENCE_DATA: &str = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;

    fn app(keys: &[(&str, &str)]) -> App {
        App {
            serial: AppSerial(1),
            id: "3".into(),
            name: "".into(),
            enabled: true,
            keys: keys.iter().map(|(key, secret)| AppKey::new(key, secret)).collect(),
            encryption_master_key: None,
            settings: AppSettings::default(),
            webhooks: Default::default(),
        }
    }

    /// Independent signer, as the server SDKs do it.
    fn sign(secret: &str, text: &str) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    fn verdict(channel: &str, data: Option<&str>, auth: &str) -> Result<(), SubscriptionRefusal> {
        verify_subscription(&app(&[(KEY, SECRET)]), SOCKET, channel, data, auth)
    }

    /// P-AUTH-1, P-AUTH-2, P-AUTH-4, P-AUTH-6: the published vectors; the signin string is the one for a channel
    /// `:user:` followed by the user data.
    #[test]
    fn published_vectors() {
        let vectors = [
            ("private-foobar", None, "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
            (":user:", Some(r#"{"id":"12345"}"#), "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"),
            (
                "presence-foobar",
                Some(PRESENCE_DATA),
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
        ];
        for (channel, data, digest) in vectors {
            assert_eq!(verdict(channel, data, &format!("{KEY}:{digest}")), Ok(()), "{channel}");
        }
    }

    /// P-AUTH-4, P-USER-3: a signin needs the signature of its socket and its exact data; that of a channel is not
    /// accepted.
    #[test]
    fn a_signin_needs_its_own_signature() {
        const DATA: &str = r#"{"id":"12345"}"#;
        let check = |text: &str| {
            let auth = format!("{KEY}:{}", sign(SECRET, text));
            verify_signin(&app(&[(KEY, SECRET)]), SOCKET, DATA, &auth)
        };
        assert_eq!(check(&format!("{SOCKET}::user::{DATA}")), Ok(()));
        for other in [
            format!("{SOCKET}::user::{{\"id\":\"12346\"}}"),
            format!("1234.1235::user::{DATA}"),
            format!("{SOCKET}:private-a:{DATA}"),
            format!("{SOCKET}::user:"),
        ] {
            assert_eq!(check(&other), Err(SubscriptionRefusal::InvalidSignature), "{other}");
        }
    }

    /// P-AUTH-3: presence without `channel_data` is signed like a private channel; absent and empty data differ.
    #[test]
    fn presence_without_channel_data() {
        let auth = format!("{KEY}:{}", sign(SECRET, "1234.1234:presence-foobar"));
        assert_eq!(verdict("presence-foobar", None, &auth), Ok(()));
        assert_eq!(verdict("presence-foobar", Some(""), &auth), Err(SubscriptionRefusal::InvalidSignature));
    }

    /// P-AUTH-5: any active key of the app verifies with its own secret, keys may contain `:`, and a removed key is
    /// invalid.
    #[test]
    fn every_active_key_verifies_with_its_own_secret() {
        let rotated = app(&[("old", "old-secret"), ("new:part", "new-secret")]);
        let check = |key: &str, secret: &str| {
            let auth = format!("{key}:{}", sign(secret, "1234.1234:private-a"));
            verify_subscription(&rotated, SOCKET, "private-a", None, &auth)
        };
        assert_eq!(check("old", "old-secret"), Ok(()));
        assert_eq!(check("new:part", "new-secret"), Ok(()));
        assert_eq!(check("new:part", "old-secret"), Err(SubscriptionRefusal::InvalidSignature));
        assert_eq!(check("removed", "old-secret"), Err(SubscriptionRefusal::InvalidKey));
        assert_eq!(check("part", "new-secret"), Err(SubscriptionRefusal::InvalidKey));
    }

    /// Threat T1: every single-bit change of the signature is refused.
    #[test]
    fn every_bit_flip_is_refused() {
        let tag = hex::decode(sign(SECRET, "1234.1234:private-a")).expect("hex");
        assert_eq!(verdict("private-a", None, &format!("{KEY}:{}", hex::encode(&tag))), Ok(()));
        for bit in 0..256 {
            let mut forged = tag.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let auth = format!("{KEY}:{}", hex::encode(forged));
            assert_eq!(verdict("private-a", None, &auth), Err(SubscriptionRefusal::InvalidSignature), "bit {bit}");
        }
    }

    /// Threat T1: a correct digest in any other form is refused: truncated to every length, empty, upper-case, with
    /// bytes before or after it, or in a wrong alphabet.
    #[test]
    fn malformed_signatures_are_refused() {
        let digest = sign(SECRET, "1234.1234:private-a");
        assert!(digest.bytes().any(|byte| byte.is_ascii_lowercase()), "the upper-case row needs a letter");
        let mut forms: Vec<String> = (0..64).map(|length| digest[..length].to_owned()).collect();
        forms.extend([
            digest.to_uppercase(),
            format!("{digest}00"),
            format!("{digest} "),
            format!(" {digest}"),
            format!("0x{}", &digest[2..]),
            format!("{digest}\n"),
            "z".repeat(64),
            "\u{e9}".repeat(32),
        ]);
        for form in forms {
            let auth = format!("{KEY}:{form}");
            assert_eq!(verdict("private-a", None, &auth), Err(SubscriptionRefusal::InvalidSignature), "{form:?}");
        }
    }

    /// Threats T1 and T3: a correct signature for another socket, channel or `channel_data`, without a key or with
    /// another app's key, is refused.
    #[test]
    fn signatures_do_not_carry_over() {
        let digest = sign(SECRET, "1234.1234:private-a");
        let auth = format!("{KEY}:{digest}");
        let own = app(&[(KEY, SECRET)]);
        let invalid = Err(SubscriptionRefusal::InvalidSignature);
        assert_eq!(verify_subscription(&own, "1234.1235", "private-a", None, &auth), invalid);
        assert_eq!(verify_subscription(&own, SOCKET, "private-b", None, &auth), invalid);
        assert_eq!(verify_subscription(&own, SOCKET, "private-a", Some("{}"), &auth), invalid);
        let presence = format!("{KEY}:{}", sign(SECRET, &format!("{SOCKET}:presence-a:{PRESENCE_DATA}")));
        assert_eq!(verify_subscription(&own, SOCKET, "presence-a", Some(PRESENCE_DATA), &presence), Ok(()));
        for altered in
            [PRESENCE_DATA.replace("10", "11"), PRESENCE_DATA.replace(':', ": "), format!("{PRESENCE_DATA} ")]
        {
            assert_eq!(
                verify_subscription(&own, SOCKET, "presence-a", Some(&altered), &presence),
                invalid,
                "{altered}"
            );
        }
        let other = app(&[("other-key", SECRET)]);
        assert_eq!(verify_subscription(&other, SOCKET, "private-a", None, &auth), Err(SubscriptionRefusal::InvalidKey));
        for keyless in ["", ":", &digest, &format!(":{digest}"), KEY] {
            assert_eq!(verdict("private-a", None, keyless), Err(SubscriptionRefusal::InvalidKey), "{keyless:?}");
        }
        assert_eq!(verdict("private-a", None, &format!("{KEY}:")), invalid);
    }

    /// P-AUTH-1, threat T1: on a private channel the data may be signed or not, and never exceeds the signed data; a
    /// signature for a longer name does not open the shorter one.
    #[test]
    fn private_channels_may_sign_their_data() {
        let own = app(&[(KEY, SECRET)]);
        let verdict = |channel: &str, data: Option<&str>, signed: &str| {
            let auth = format!("{KEY}:{}", sign(SECRET, &format!("{SOCKET}:{signed}")));
            verify_private(&own, SOCKET, channel, data, &auth)
        };
        let data = r#"{"user_id":"7","user_info":{"name":"A"}}"#;
        let invalid = Err(SubscriptionRefusal::InvalidSignature);
        for channel in ["private-x", "private-encrypted-x", "private-cache-x"] {
            let with_data = format!("{channel}:{data}");
            assert_eq!(verdict(channel, Some(data), &with_data), Ok(()));
            assert_eq!(verdict(channel, Some(data), channel), Ok(()));
            assert_eq!(verdict(channel, None, channel), Ok(()));
            assert_eq!(verdict(channel, Some(""), channel), Ok(()));
            assert_eq!(verdict(channel, Some(&data.replace('7', "8")), &with_data), invalid);
            assert_eq!(verdict(channel, Some(&format!("{data} ")), &with_data), invalid);
            assert_eq!(verdict(channel, None, &with_data), invalid);
        }
        for data in ["b", "", "7", "\"b\"", "[1]", "null", "{b", "{}x"] {
            assert_eq!(verdict("private-a", Some(data), &format!("private-a:{data}")), invalid, "{data}");
        }
        let presence = format!("{KEY}:{}", sign(SECRET, &format!("{SOCKET}:private-a")));
        assert_eq!(verify_private(&own, "1234.1235", "private-a", Some(data), &presence), invalid);
        assert_eq!(
            verify_private(&own, SOCKET, "private-a", Some(data), "nokey:00"),
            Err(SubscriptionRefusal::InvalidKey)
        );
    }

    /// P-FAIL-1: both sentences, word for word; P-FAIL-6: neither contains the expected digest.
    #[test]
    fn messages_are_those_of_the_protocol() {
        let message = refusal_message(&SubscriptionRefusal::InvalidKey, SOCKET, "private-a", None, "nokey:beef");
        assert_eq!(message, "Invalid key in subscription auth data: 'nokey:beef'");
        let refusal = SubscriptionRefusal::InvalidSignature;
        let message = refusal_message(&refusal, SOCKET, "private-a", None, &format!("{KEY}:beef"));
        assert_eq!(message, "Invalid signature: Expected HMAC SHA256 hex digest of 1234.1234:private-a, but got beef");
        assert!(!message.contains(&sign(SECRET, "1234.1234:private-a")));
        let message = refusal_message(&refusal, SOCKET, "presence-a", Some("{}"), &format!("{KEY}:beef"));
        assert!(message.contains("digest of 1234.1234:presence-a:{}, but got beef"), "{message}");
    }

    /// P-FAIL-1: quoted input is cut to 200 bytes, never inside a character.
    #[test]
    fn quoted_input_is_quote() {
        let long = "\u{20ac}".repeat(100);
        let refusal = SubscriptionRefusal::InvalidSignature;
        let message = refusal_message(&refusal, SOCKET, &long, Some(&long), &format!("{KEY}:{long}"));
        assert_eq!(message.matches('\u{20ac}').count(), 3 * 66);
        let message = refusal_message(&SubscriptionRefusal::InvalidKey, SOCKET, "a", None, &long);
        assert_eq!(message.matches('\u{20ac}').count(), 66);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// P-AUTH-1, P-AUTH-2: agreement with an independent signer for any channel and data, also beyond the stack
        /// buffer.
        #[test]
        fn agrees_with_an_independent_signer(channel in ".{0,200}", data in proptest::option::of("(?s).{0,800}"), secret in ".{1,80}") {
            let app = app(&[(KEY, &secret)]);
            let text = data.as_ref().map_or(format!("{SOCKET}:{channel}"), |data| format!("{SOCKET}:{channel}:{data}"));
            let auth = format!("{KEY}:{}", sign(&secret, &text));
            prop_assert_eq!(verify_subscription(&app, SOCKET, &channel, data.as_deref(), &auth), Ok(()));
        }

        /// Threat T1: no input makes verification or its message panic.
        #[test]
        fn any_auth_gets_an_answer(auth in "(?s).{0,300}") {
            let verdict = verdict("private-a", None, &auth);
            let refusal = verdict.expect_err("not signed");
            prop_assert!(refusal_message(&refusal, SOCKET, "private-a", None, &auth).len() < 700);
        }
    }
}
