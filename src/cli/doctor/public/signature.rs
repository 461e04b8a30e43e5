//! The mistake behind a signature that does not hold, where the app's secrets are known (R-PIT-2, R-EXPLAIN-2).

use crate::app::settings::AppSettings;
use crate::app::{App, AppKey, AppSerial, Directory};
use crate::auth::explain::{Question, Reader, State, Verdict, explain};
use crate::label::Label;
use crate::moment::Moment;
use crate::store::unix_ms;

/// An authorization as an endpoint gave it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) socket_id: &'a str,
    pub(super) channel: &'a str,
    pub(super) channel_data: Option<&'a str>,
    pub(super) auth: &'a str,
}

/// What is wrong, and the fix; `None` if the signature is right.
pub(super) fn cause(pairs: &[AppKey], signed: &Signed<'_>) -> Option<(String, String)> {
    let app = App {
        serial: AppSerial(1),
        id: ID.into(),
        name: "".into(),
        enabled: true,
        keys: pairs.iter().map(|pair| AppKey::new(&pair.key, pair.secret.expose())).collect(),
        encryption_master_key: None,
        settings: AppSettings::default(),
        webhooks: Default::default(),
    };
    let directory = Directory::new(1, vec![app], Vec::new());
    let app = directory.app_by_id(ID).expect("it is the one that was given");
    let now = Moment { monotonic_ms: 0, unix_ms: unix_ms() };
    let question = Question::Channel {
        socket_id: signed.socket_id.to_owned(),
        channel: signed.channel.to_owned(),
        auth: signed.auth.to_owned(),
        channel_data: signed.channel_data.map(str::to_owned),
    };
    let answer = explain(&State { directory: &directory, app, path_prefix: "", now }, &question);
    match answer.verdict {
        Verdict::Accepted => None,
        Verdict::Explained => {
            let cause = answer.cause.label().replace('_', " ");
            Some((format!("the signature does not hold: {cause}"), answer.hint(Reader::Admin)))
        }
        Verdict::Unexplained | Verdict::Cut => Some((
            "the signature does not hold, and no known mistake reproduces it".to_owned(),
            "compare the secret with `relay app show ID --secrets`, and what your code signs with \
             socket_id:channel_name (presence: and :channel_data) of this request"
                .to_owned(),
        )),
    }
}

/// The app's own id is not part of a channel's signature.
const ID: &str = "1";

#[cfg(test)]
mod tests {
    use ::hmac::{Hmac, KeyInit, Mac};

    use super::*;

    /// An independent signer.
    fn sign(secret: &str, text: &str) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
        mac.update(text.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// R-DIAG-3, R-PIT-2: a right signature is not blamed, and a mistake is named with what to change.
    #[test]
    fn mistakes_are_named() {
        let pairs = [AppKey::new("key-1", "secret-1"), AppKey::new("key-2", "secret-2")];
        let named =
            |auth: &str| cause(&pairs, &Signed { socket_id: "1.2", channel: "private-a", channel_data: None, auth });
        assert_eq!(named(&format!("key-2:{}", sign("secret-2", "1.2:private-a"))), None);
        for (secret, text, part) in [
            ("secret-1", "private-a:1.2", "reversed order"),
            ("secret-2", "1.2:private-a", "secret of other key"),
            ("\"secret-1\"", "1.2:private-a", "quoted secret"),
            ("unknown", "1.2:private-a", "no known mistake reproduces it"),
        ] {
            let (found, fix) = named(&format!("key-1:{}", sign(secret, text))).expect(part);
            assert!(found.ends_with(part) && fix.len() > 10 && !fix.contains("secret-1"), "{found} / {fix}");
        }
    }
}
