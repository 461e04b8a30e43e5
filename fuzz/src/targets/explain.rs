//! Explanations of refused signatures: nothing in an answer is secret or a signature, what is accepted was signed, and
//! what is kept of a refusal is explained like the refusal itself (R-EXPLAIN-2 to R-EXPLAIN-6, threats T53 to T55).

use hmac::{Hmac, KeyInit, Mac};
use relay::app::{App, AppKey, AppSerial, AppSettings, Directory};
use relay::auth::AuthFailure;
use relay::auth::explain::{Answer, Asked, Kept, Question, Reader, State, Subject, Verdict, explain, explain_kept};
use relay::limits::{EXPLAIN_DIGESTS_MAX, EXPLAIN_HMACS_MAX};
use relay::moment::Moment;
use relay::openapi::body::read_object;
use sha2::Sha256;

use crate::input::Input;

const KEY: &str = "key-of-the-app";
const SECRET: &str = "SecretOfTheAppSecretOfTheApp";
const OTHER_SECRET: &str = "SecretOfAnotherAppSecretOfIt";
const NOW_S: u64 = 1_800_000_000;

/// R-EXPLAIN-1 to R-EXPLAIN-6, threats T53, T54, T55.
pub fn check(bytes: &[u8]) {
    let directory = Directory::new(
        1,
        vec![
            app(1, "3", &[("older-key", "OlderSecretOlderSecret"), (KEY, SECRET)]),
            app(2, "17", &[("other", OTHER_SECRET)]),
        ],
        Vec::new(),
    );
    let state = State {
        directory: &directory,
        app: directory.app_by_id("3").expect("it is there"),
        path_prefix: "/x",
        now: Moment { monotonic_ms: 5, unix_ms: NOW_S * 1_000 },
    };
    // A question may contain a secret itself, which the answer then repeats if it is not one of the app.
    if bytes.windows(OTHER_SECRET.len()).any(|part| part == OTHER_SECRET.as_bytes()) {
        return;
    }
    let asked = read_object(bytes).map(|fields| Asked::from_json(fields.into()));
    if let Ok(Ok(Asked { subject: Subject::Question(question), .. })) = asked {
        harmless(&explain(&state, &question));
    }
    let mut input = Input::new(bytes);
    let (kind, secret) =
        (input.below(4), *input.pick(&[SECRET, OTHER_SECRET, KEY, "", "SecretOfTheAppSecretOfTheApp\n"]));
    let mut text = || String::from_utf8_lossy(input.line()).into_owned();
    let (signed, first, second) = (text(), text(), text());
    let rest = String::from_utf8_lossy(input.rest()).into_owned();
    let signature = sign(secret, &signed);
    match kind {
        0 | 1 => channel(&state, &signature, first, (kind == 1).then_some(rest)),
        2 => {
            let auth = format!("{KEY}:{signature}");
            let question = Question::User { socket_id: "1.2".into(), user_data: rest, auth, channel: Some(first) };
            harmless(&explain(&state, &question));
        }
        _ => {
            let query =
                format!("auth_key={KEY}&auth_timestamp={NOW_S}&auth_version=1.0&{second}&auth_signature={signature}");
            let target = format!("/apps/3/{first}?{query}");
            let headers = vec![("Host".to_owned(), "relay.test:1".to_owned())];
            let question = Question::Request { method: "POST".into(), target, headers, body: Some(rest.into_bytes()) };
            harmless(&explain(&state, &question));
        }
    }
}

/// A subscription, whole and as it is kept.
fn channel(state: &State<'_>, signature: &str, channel: String, channel_data: Option<String>) {
    let auth = format!("{KEY}:{signature}");
    let whole = Question::Channel {
        socket_id: "1.2".into(),
        channel: channel.clone(),
        auth: auth.clone(),
        channel_data: channel_data.clone(),
    };
    let answer = explain(state, &whole);
    harmless(&answer);
    let text = format!("1.2:{channel}");
    let with_data = channel_data.as_ref().map(|data| format!("{text}:{data}"));
    let is_protected = channel.starts_with("private-") || channel.starts_with("presence-");
    if answer.verdict == Verdict::Accepted && is_protected {
        let is_signed = |text: &String| sign(SECRET, text) == signature;
        assert!(is_signed(&text) || with_data.as_ref().is_some_and(is_signed), "{whole:?} was never signed");
    }
    let parts = ("1.2", Some(&*channel), channel_data.as_deref());
    let kept = Kept::of_socket(state.directory, state.app, parts, &auth, (AuthFailure::BadSignature, NOW_S * 1_000));
    let told = format!("{kept:?}");
    assert!(!told.contains(&signature[..9]), "more than eight digits are kept: {told}");
    let later = explain_kept(state, &kept);
    harmless(&later);
    let is_whole =
        3 + channel.len() + channel_data.map_or(0, |data| data.len()) <= relay::limits::REFUSAL_TEXT_BYTES_MAX;
    assert!(!is_whole || later.cause == answer.cause, "{answer:?} differs from {later:?}");
}

fn harmless(answer: &Answer) {
    let told = answer.to_json(Reader::Admin).to_string();
    for secret in [SECRET, OTHER_SECRET] {
        assert!(!told.contains(secret), "a secret: {told}");
        for text in [&answer.expected, &answer.signed].into_iter().flatten() {
            assert!(!told.contains(&sign(secret, text)), "a signature: {told}");
        }
    }
    assert!(answer.hmacs <= EXPLAIN_HMACS_MAX && answer.digests <= EXPLAIN_DIGESTS_MAX, "{answer:?}");
    let reduced = answer.to_json(Reader::ReadOnly);
    assert_eq!(reduced.as_object().map(serde_json::Map::len), Some(2), "{reduced}");
}

fn app(serial: u32, id: &str, keys: &[(&str, &str)]) -> App {
    App {
        serial: AppSerial(serial),
        id: id.into(),
        name: "".into(),
        enabled: true,
        keys: keys.iter().map(|(key, secret)| AppKey::new(key, secret)).collect(),
        settings: AppSettings::default(),
        encryption_master_key: None,
        webhooks: Default::default(),
    }
}

fn sign(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}
