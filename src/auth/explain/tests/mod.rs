//! Each mistake is named: valid credentials are made by independent code (`hmac`, `sha2`, `md-5`), changed in one way,
//! and explained. `cargo test --lib auth::explain -- --nocapture the_table` prints the tables.

mod bounds;
mod channels;
mod headers;
mod kept;
mod questions;
mod requests;

use ::hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;

use super::*;
use crate::app::{App, AppKey, AppSerial, AppSettings, Directory};
use crate::label::Label;

const NOW_S: u64 = 1_800_000_000;
/// The older pair of the app, which a rotation left active.
const OLD: (&str, &str) = ("5ea50ea5c0ffee00beef", "OldSecretOldSecretOldSecretOldSecretOld1");
/// Its newer pair; the secret has an even number of hex digits, as those of hosted Pusher.
const NEW: (&str, &str) = ("278d425bdf160c739803", "7ad3773142a6692b25b8");
/// The pair of another app.
const OTHER: (&str, &str) = ("0ther0ther0ther0ther", "OtherSecretOtherSecretOtherSecretOther12");

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

fn directory() -> Directory {
    Directory::new(1, vec![app(1, "3", &[OLD, NEW]), app(2, "17", &[OTHER])], Vec::new())
}

fn state<'a>(directory: &'a Directory, path_prefix: &'a str) -> State<'a> {
    let app = directory.app_by_id("3").expect("it is there");
    State { directory, app, path_prefix, now: Moment { monotonic_ms: 5, unix_ms: NOW_S * 1_000 } }
}

/// Independent signer.
fn hmac_of(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn sign(secret: &str, text: &str) -> String {
    hex::encode(hmac_of(secret.as_bytes(), text.as_bytes()))
}

/// A table row: the mistake, its cause and the question that shows it.
type Row = (&'static str, Cause, Question);

/// Checks every row, and that each answer is one that may be given.
fn check(directory: &Directory, path_prefix: &str, rows: &[Row]) {
    let state = state(directory, path_prefix);
    for (mistake, cause, question) in rows {
        let answer = explain(&state, question);
        let given = format!("{mistake}: {answer:#?}\n{question:#?}");
        assert_eq!(answer.cause, *cause, "{given}");
        let verdict = if *cause == Cause::Ok {
            Verdict::Accepted
        } else if *cause == Cause::Unknown {
            Verdict::Unexplained
        } else {
            Verdict::Explained
        };
        assert_eq!(answer.verdict, verdict, "{given}");
        check_harmless(directory, question, &answer);
    }
}

/// T53, P-FAIL-6: the answer has no secret, not the signature that was given, and no 64 hex digits that are the
/// signature of a text in it under any key of the store.
fn check_harmless(directory: &Directory, question: &Question, answer: &Answer) {
    let told = answer.to_json(Reader::Admin).to_string();
    let texts = [&answer.expected, &answer.signed].into_iter().flatten();
    let texts: Vec<&String> = texts.collect();
    for app in directory.apps() {
        for pair in &app.keys {
            assert!(!told.contains(pair.secret.expose()), "a secret: {told}");
            for text in &texts {
                let signature = sign(pair.secret.expose(), text);
                assert!(!told.to_lowercase().contains(&signature), "a signature: {told}");
            }
        }
    }
    let digits: Vec<&str> = told.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() >= 64).collect();
    let sent = serde_json::to_string(&format!("{question:?}")).expect("text");
    for run in digits {
        assert!(sent.contains(run), "Relay computed {run}: {told}");
        for text in &texts {
            for app in directory.apps() {
                assert!(app.keys.iter().all(|pair| sign(pair.secret.expose(), text) != run), "{run}: {told}");
            }
        }
    }
    let reduced = answer.to_json(Reader::ReadOnly);
    let members: Vec<&String> = reduced.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["hint", "verdict"]);
    assert!(!reduced.to_string().contains("app 17"), "another app is named to admins only");
    assert!(answer.hmacs <= crate::limits::EXPLAIN_HMACS_MAX && answer.digests <= crate::limits::EXPLAIN_DIGESTS_MAX);
}

/// Prints a table for people.
fn print(directory: &Directory, path_prefix: &str, rows: &[Row]) {
    println!("| mistake | cause | HMACs | digests | about |\n| --- | --- | --- | --- | --- |");
    for (mistake, _, question) in rows {
        let answer = explain(&state(directory, path_prefix), question);
        let Answer { cause, hmacs, digests, about, .. } = answer;
        println!("| {mistake} | `{}` | {hmacs} | {digests} | {about} |", cause.label());
    }
}
