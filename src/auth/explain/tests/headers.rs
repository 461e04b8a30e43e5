//! Tokens, and key and secret in headers.

use sha2::Digest;

use super::*;
use crate::app::{Scopes, Token};

fn request(headers: &[(&str, &str)]) -> Question {
    Question::Request {
        method: "POST".into(),
        target: "/apps/3/events".into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: Some(b"{}".to_vec()),
    }
}

/// R-EXPLAIN-2: each mistake with a token or with the headers of key and secret is named.
#[test]
fn each_mistake_is_named() {
    let token = |letter: &str| format!("rly_{}", letter.repeat(40));
    let known = |letter: &str, app: u32, expires_at_ms: Option<u64>, revoked: bool| Token {
        id: letter.into(),
        hash: sha2::Sha256::digest(token(letter)).into(),
        app: AppSerial(app),
        scopes: Scopes::FULL,
        expires_at_ms,
        revoked,
    };
    let tokens = vec![
        known("a", 1, None, false),
        known("b", 2, None, false),
        known("c", 1, Some(1), false),
        known("d", 1, None, true),
    ];
    let directory = Directory::new(1, vec![app(1, "3", &[OLD, NEW]), app(2, "17", &[OTHER])], tokens);
    let bearer = |text: &str| request(&[("authorization", &format!("bearer {text}"))]);
    let pair = |key: &str, secret: &str| request(&[("x-relay-key", key), ("X-Relay-Secret", secret)]);
    let rows = [
        ("a valid token", Cause::Ok, bearer(&token("a"))),
        ("a token of another app", Cause::BadToken, bearer(&token("b"))),
        ("an expired token", Cause::BadToken, bearer(&token("c"))),
        ("a revoked token", Cause::BadToken, bearer(&token("d"))),
        ("a token that was never made", Cause::BadToken, bearer(&token("e"))),
        ("a token cut short", Cause::MalformedToken, bearer(&token("a")[..30])),
        ("another Bearer value", Cause::MissingCredential, bearer("eyJhbGciOi")),
        ("a valid pair", Cause::Ok, pair(NEW.0, NEW.1)),
        ("key and secret swapped", Cause::SwappedKeyAndSecret, pair(NEW.1, NEW.0)),
        ("quotes around the secret", Cause::QuotedSecret, pair(NEW.0, &format!("\"{}\"", NEW.1))),
        ("quotes around the key", Cause::QuotedKey, pair(&format!("'{}'", NEW.0), NEW.1)),
        ("the secret of the older key", Cause::SecretOfOtherKey, pair(NEW.0, OLD.1)),
        ("the secret of another app", Cause::SecretOfOtherApp, pair(NEW.0, OTHER.1)),
        ("another secret", Cause::BadSecret, pair(NEW.0, "x")),
        ("a key of another app", Cause::OtherAppKey, pair(OTHER.0, OTHER.1)),
        ("no such key", Cause::UnknownKey, pair("nobody", NEW.1)),
        ("the key alone", Cause::MissingCredential, request(&[("X-Relay-Key", NEW.0)])),
        ("no header", Cause::MissingCredential, request(&[])),
    ];
    print(&directory, "", &rows);
    check(&directory, "", &rows);
    let about = |question: &Question| explain(&state(&directory, ""), question).hint(Reader::Admin);
    assert!(about(&bearer(&token("c"))).contains("it expired"));
    // T6: only admins can tell these apart.
    let reduced = |question: &Question| explain(&state(&directory, ""), question).to_json(Reader::ReadOnly);
    assert_eq!(reduced(&bearer(&token("d"))), reduced(&bearer(&token("e"))));
}
